"""A host of which nothing is left but its guard: a program that does as it is told, and dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.patience import PATIENCE

import engine
from engine.model import ProcessId
from engine.processes.census import trees_of
from engine.processes.signalling import identify, is_alive, send

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SOURCE = str(Path(engine.__file__).parent.parent)

_PROGRAM = """
import json, os, signal, subprocess, sys
from datetime import datetime, UTC
from pathlib import Path
from engine.processes.guard import Guard
from engine.model import Claim, ProcessId, State, TaskDef
from engine.processes.trees import environment, spawn

folder, state = Path.cwd(), Path(sys.argv[1])
guard, files, now = Guard(state), [], datetime.now(UTC)

def start(run, argv):
    claim = Claim(run, TaskDef("t", "t", "a"), "a-1", 1, State.RUNNING, now, now)
    env = environment(os.environ, claim, state)
    return spawn(argv, cwd=folder, env=env, stdout=folder / "out", stderr=folder / "err").identity

signal.signal(signal.SIGINT, lambda *_: None)  # what is ignored stays so in a guard
for line in sys.stdin:
    answer = None
    match json.loads(line):
        case ["begin" | "over" as what, run]:
            getattr(guard, what)(run)
        case ["start", run, argv, told]:
            guard.begin(run)
            leader = start(run, argv)
            if told:
                guard.lead(run, leader)
            answer = [leader.pid, leader.started]
        case ["start and die", run, argv]:
            guard.begin(run)
            start(run, argv)
            os.kill(os.getpid(), signal.SIGKILL)
        case ["lead", run, pid, started]:
            guard.lead(run, ProcessId(pid, started))
        case ["heir", argv]:
            answer = subprocess.Popen(argv, close_fds=False).pid
        case ["burst", count]:
            for n in range(count):
                guard.begin(f"short-{n}")
                guard.over(f"short-{n}")
        case ["starve"]:
            try:
                while True:
                    files.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                pass
        case ["feed"]:
            while files:
                os.close(files.pop())
        case ["tend"]:
            guard.tend()
            answer = len(guard._unsent)
        case ["close"]:
            guard.close()
    print(json.dumps([guard.pid, answer]), flush=True)
"""


class HostProcess:
    """A host process with a guard, and what was started for its runs."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.runs: set[str] = set()
        self.guards: set[ProcessId] = set()
        self.said = folder / "host.log"
        with self.said.open("wb") as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, str(self.state)],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": SOURCE, **variables},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._popen.pid
        self._watchdog = threading.Timer(PATIENCE, self._popen.kill)
        self._watchdog.start()

    @property
    def guard(self) -> ProcessId:
        """The guard as the host knows it now."""
        guard = identify(self.ask("nothing") or 0)
        assert guard is not None
        return guard

    def ask(self, *order: object) -> int | None:
        """Have an order carried out, and return the pid of the guard."""
        pid: int | None = self._ask(order)[0]
        return pid

    def unsent(self) -> int:
        """Have the guard tended; return how many bytes it has not taken yet."""
        count: int = self._ask(("tend",))[1]
        return count

    def start(self, run_id: str, *argv: str, told: bool = True) -> ProcessId:
        """Begin a run and start its leader; `told`: its guard hears who that is."""
        self.runs.add(run_id)
        return ProcessId(*self._ask(("start", run_id, argv, told))[1])

    def start_and_die(self, run_id: str, *argv: str) -> float:
        """Start a leader and die before anybody hears of it; return when, by the monotonic."""
        self.runs.add(run_id)
        self._write(("start and die", run_id, argv))
        self._popen.wait(PATIENCE)
        return time.monotonic()

    def heir(self, *argv: str) -> ProcessId:
        """Start a process of no run that would inherit whatever a host lets go."""
        heir = identify(self._ask(("heir", argv))[1])
        assert heir is not None
        return heir

    def kill(self) -> float:
        """End the host as SIGKILL does; return when, by the monotonic clock."""
        at = time.monotonic()
        self._popen.kill()
        self._popen.wait(PATIENCE)
        return at

    def who(self, name: str) -> ProcessId:
        """Wait until a process has written its pid to a file, and return who it is."""
        path = self.folder / name
        until(lambda: path.exists() and path.read_text().endswith("\n"), f"{name} is written")
        process = identify(int(path.read_text()))
        assert process is not None
        return process

    def close(self) -> None:
        """Leave nothing behind, and look that no guard did."""
        self._watchdog.cancel()
        self.kill()
        for pipe in (self._popen.stdin, self._popen.stdout):
            assert pipe is not None
            pipe.close()
        try:
            until(lambda: not any(map(is_alive, self.guards)), "the guards have ended")
        finally:
            trees = trees_of(self.state, dict.fromkeys(self.runs, ()))
            for process in self.guards.union(*trees.values()):
                send(process, signal.SIGKILL)

    def _ask(self, order: tuple[object, ...]) -> list[Any]:
        self._write(order)
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        assert line, self.said.read_text()
        answer: list[Any] = json.loads(line)
        if answer[0] is not None and (guard := identify(answer[0])) is not None:
            self.guards.add(guard)
        return answer

    def _write(self, order: tuple[object, ...]) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(order).encode() + b"\n")
        self._popen.stdin.flush()


def until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait until something is so that tells nobody of it."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience} s: {what}"
        time.sleep(0.01)


def all_gone(processes: Iterable[ProcessId], since: float) -> float:
    """Wait until all have ended, and return how many seconds after `since` that was."""
    waiting = set(processes)
    until(lambda: not any(map(is_alive, waiting)), f"{waiting} have ended")
    return time.monotonic() - since
