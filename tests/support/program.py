"""The command line as its users run it: `agentmux` as a process over a real folder."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pexpect
from support import engines
from support.patience import PATIENCE
from support.starter import start
from support.stores import tuples

from engine.files import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROGRAM = [sys.executable, "-m", "engine.cli"]
ENVIRONMENT = {
    key: value
    for key, value in engines.ENVIRONMENT.items()
    if key not in {"NO_COLOR", "COLUMNS", "LINES", "TEXTUAL_THEME"}
} | {"TERM": "xterm-256color"}
"""That of all processes here, but on a terminal of which nothing is known."""

LONG = """
tasks:
  - {id: long, agent: codex, payload: {kind: shell, cmd: "sleep 300"}}
  - {id: next, agent: codex, deps: [long]}
"""


def ran(
    *command: str, folder: Path, patience: float = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder until it ends."""
    return subprocess.run(
        command,
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
    )


def agentmux(
    folder: Path, *args: str, patience: float = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """Run the program in a folder until it ends."""
    if not hasattr(os, "pidfd_open"):  # not on this system
        return ran(*PROGRAM, *args, folder=folder, patience=patience)
    return start(*args, folder=folder, environment=ENVIRONMENT, patience=patience)


class Project:
    """A folder with a DAG, and the program to run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"

    def write(self, dag: str, name: str = "dag.yaml") -> str:
        (self.folder / name).write_text(dag)
        return name

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        return agentmux(self.folder, *args)

    def python(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script that has the program in its hands."""
        return ran(sys.executable, "-c", script, folder=self.folder)

    def ok(self, *args: str) -> str:
        done = self.run(*args)
        assert (done.returncode, without_work(done.stderr)) == (0, ""), done
        return done.stdout

    def json(self, *args: str) -> Any:
        return json.loads(self.ok(*args, "--json"))

    def refused(self, *args: str, code: str) -> str:
        done = self.run(*args)
        assert done.returncode == 1, done
        assert done.stderr.startswith(f"agentmux: {code}: "), done
        assert "Traceback" not in done.stderr
        return done.stderr

    def states(self) -> dict[str, str]:
        return {task["id"]: task["state"] for task in self.json("tasks", "ls")}

    @contextmanager
    def started(self, *args: str) -> Iterator[subprocess.Popen[str]]:
        """Start the program; whatever happens, it is not left behind."""
        process = subprocess.Popen(
            [*PROGRAM, *args],
            cwd=self.folder,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def worker(self, worker_id: str) -> dict[str, Any]:
        """Return what `ps` says of a worker, whatever became of it."""
        (found,) = [one for one in self.json("ps", "--all") if one["id"] == worker_id]
        return dict(found)

    def events_of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.json("events") if event["type"] == kind]

    def select(self, sql: str, *values: str) -> list[tuple[Any, ...]]:
        """Read the store; nothing is in one that is not there yet.

        For waits: to start the program until it tells something keeps a core from what is awaited.
        """
        layout = Layout(self.state)
        if not layout.database.exists():
            return []
        try:
            return tuples(layout, sql, *values)
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []  # it is being made
            raise

    def wait_for(self, state: str, task_id: str = "long") -> None:
        found = "SELECT 1 FROM tasks WHERE id = ? AND state = ?"
        eventually(lambda: bool(self.select(found, task_id, state)))

    def wait_for_work(self, count: int) -> None:
        """Wait until so many runs go on, their processes begun."""
        found = "SELECT 1 FROM tasks WHERE state = 'RUNNING'"
        eventually(lambda: len(self.select(found)) == count)


def eventually(holds: Callable[[], bool], patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.02)


def outcome(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, without_work(err)


def without_work(err: str) -> str:
    """Return what was written to stderr but for what a worker, or a slow start, tells of itself."""
    return re.sub(r"(?m)^(?:\d\d:\d\d:\d\d .*|checking the database)\n", "", err)


def on_terminal(
    project: Project, *args: str, columns: int = 60, say: str = "", interrupt_at: str = ""
) -> tuple[int, str]:
    """Run the program on a terminal; return its exit code and all that it showed.

    `say` answers its question; once it shows `interrupt_at`, Ctrl+C is pressed.
    """
    child = pexpect.spawn(
        PROGRAM[0],
        [*PROGRAM[1:], *args],
        cwd=str(project.folder),
        env=ENVIRONMENT,
        dimensions=(40, columns),
        timeout=PATIENCE,
        encoding="utf-8",
    )
    shown = ""
    if say:
        child.expect_exact("? [y/N]")
        shown = (child.before or "") + (child.after or "")
        child.sendline(say)
    if interrupt_at:
        child.expect_exact(interrupt_at)
        shown += (child.before or "") + (child.after or "")
        child.sendintr()
    shown += child.read()
    child.close()
    return child.exitstatus, shown.replace("\r\n", "\n")
