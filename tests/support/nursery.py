"""Worker processes by the dozen: forked from one that has loaded all of `agentmux worker`.

So a storm costs what it is about, and not the time in which Python loads the same modules again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from support.engines import ENVIRONMENT, until
from support.patience import PATIENCE

from engine.model import ProcessId
from engine.processes.proctable import look_at
from engine.processes.signalling import is_alive, send

if TYPE_CHECKING:
    import signal
    from pathlib import Path
    from types import TracebackType

_PROGRAM = """
import json, os, select, signal, sys
from engine import machine
from engine.cli import main
import engine.cli.main, engine.cli.working, engine.core, engine.care.repair
machine.FIRST_BACKOFF = 0.05  # or a task that failed once would wait for five seconds

children, codes, text = set(), {}, b""

def start(agent, worker_id):
    pid = os.fork()
    if pid:
        children.add(pid)
        return pid
    said = os.open(worker_id + ".err", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDWR)
    for file, number in ((nothing, 0), (nothing, 1), (said, 2)):
        os.dup2(file, number)
    sys.exit(main(["worker", "--agent", agent, "--worker-id", worker_id]))

while True:
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            children.discard(pid)
            codes[pid] = os.waitstatus_to_exitcode(status)
    if not select.select([0], [], [], 0.02)[0]:
        continue
    block = os.read(0, 65536)
    if not block:
        break
    *lines, text = (text + block).split(b"\\n")
    for line in lines:
        what, *rest = json.loads(line)
        answer = start(*rest) if what == "start" else codes.get(*rest)
        os.write(1, json.dumps(answer).encode() + b"\\n")
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""


@dataclass(eq=False)
class Host:
    """A worker process. `doomed`: it was killed, or asked to end; `suspended`: it is to sleep."""

    pid: int
    worker_id: str
    identity: ProcessId
    suspended: bool = False
    doomed: bool = False

    @property
    def lives(self) -> bool:
        return is_alive(self.identity)

    def send_signal(self, number: signal.Signals) -> None:
        send(self.identity, number)


class Nursery:
    """Starts worker processes in a folder; what lives of them goes with it."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            cwd=folder,
            env=ENVIRONMENT | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.close()
        self._popen.wait(PATIENCE)
        self._popen.stdout.close()

    def start(self, agent: str, worker_id: str) -> Host:
        """Start `agentmux worker`; what it says goes to `<worker-id>.err`."""
        pid = self._ask("start", agent, worker_id)
        assert pid is not None
        look = look_at(pid)
        assert look is not None, "nobody but the nursery reaps it, and not yet"
        return Host(pid, worker_id, ProcessId(pid, look.started))

    async def ended(self, host: Host) -> int:
        """Wait for a worker process to end; return its exit code."""
        code: int | None = None

        def is_over() -> bool:
            nonlocal code
            code = self._ask("code", host.pid)
            return code is not None

        await until(is_over, f"{host.worker_id} ends")
        assert code is not None
        return code

    def _ask(self, *order: object) -> int | None:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write(json.dumps(order).encode() + b"\n")
        self._popen.stdin.flush()
        line = self._popen.stdout.readline()
        assert line, "the nursery has died; see its traceback"
        answer: int | None = json.loads(line)
        return answer
