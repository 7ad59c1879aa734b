"""Whole engines and worker processes over real folders, and waits that always end."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from support.patience import PATIENCE
from support.stores import a_task, check_log, check_store, events_of, kinds, tasks_of

import engine
from engine.commands import Seed
from engine.core import Engine
from engine.dag import to_definition
from engine.errors import LeaseConflict
from engine.files import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pytest

    from engine.model import Event, TaskDef

QUICK = "lease: 1.5\nrenew: 0.4\nheartbeat: 0.2\nstale_after: 1\ngrace: 0.5\n"
"""Settings under which a silent worker is noticed soon."""

SOURCE = str(Path(engine.__file__).parent.parent)
ENVIRONMENT = {
    key: value for key, value in os.environ.items() if not key.startswith("AGENTMUX_")
} | {"PYTHONPATH": SOURCE, "PYTHONWARNINGS": "error"}


async def until(condition: Callable[[], object | Awaitable[object]], what: str) -> None:
    """Wait until `condition` holds; fail after PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while True:
        holds = condition()
        if await holds if isinstance(holds, Awaitable) else holds:
            return
        assert time.monotonic() < deadline, f"in vain: {what}"
        await asyncio.sleep(0.01)


async def suspend(process: subprocess.Popen[Any], layout: Layout) -> None:
    """Stop a process (SIGSTOP) at a moment at which it holds no lock that others queue on.

    One that is stopped inside a transaction holds up every writer for as long as it is: that is
    no matter of leases, and SQLite's own lock would do the same.
    """

    async def stopped_outside() -> bool:
        process.send_signal(signal.SIGSTOP)
        stopped = psutil.STATUS_STOPPED
        await until(lambda: psutil.Process(process.pid).status() == stopped, "it is stopped")
        with layout.write_lock.open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                process.send_signal(signal.SIGCONT)
                return False
        return True

    await until(stopped_outside, "it holds no lock")


@dataclass
class Project:
    """A folder with a DAG and settings, its engines and its worker processes."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    """What its worker processes have in their environment beside what all have."""

    @property
    def layout(self) -> Layout:
        return Layout(self.folder / "state")

    def settings(self, text: str) -> None:
        (self.folder / "agentmux.yaml").write_text(text)

    def engine(self) -> Engine:
        return Engine(self.folder / "state", project=self.folder)

    def dag(self, *tasks: TaskDef, agents: str = "") -> Path:
        """Write a DAG file; JSON is YAML."""
        file = self.folder / "dag.yaml"
        listed = json.dumps([to_definition(task) for task in tasks])
        file.write_text(f"tasks: {listed}\n{f'agents: {agents}' if agents else ''}\n")
        return file

    def work(self, worker_id: str, *options: str, agent: str = "codex") -> subprocess.Popen[bytes]:
        """Start a worker process."""
        errors = (self.folder / f"{worker_id}.err").open("ab")
        with errors:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "engine.cli", "worker"),
                    *("--agent", agent, "--worker-id", worker_id, *options),
                ],
                cwd=self.folder,
                env=ENVIRONMENT | self.variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        self.processes.append(process)
        return process

    def said(self, worker_id: str) -> str:
        """Return what a worker process wrote to its stderr."""
        return (self.folder / f"{worker_id}.err").read_text()

    def state(self, task_id: str) -> str:
        return str(tasks_of(self.layout)[task_id]["state"])

    def states(self) -> Counter[str]:
        return Counter(row["state"] for row in tasks_of(self.layout).values())

    def events(self, task_id: str | None = None) -> list[Event]:
        return events_of(self.layout, task_id)

    def kinds(self, task_id: str | None = None) -> list[str]:
        return kinds(events_of(self.layout, task_id))

    def check(self) -> None:
        """Assert that the closed store is sound and that the log says what the table says."""
        check_store(self.layout)
        check_log(self.layout)


@contextmanager
def a_project(folder: Path) -> Iterator[Project]:
    """Yield a project; its processes are gone afterwards, whatever the test did."""
    project = Project(folder)
    try:
        yield project
    finally:
        for process in project.processes:
            process.kill()
            process.wait(PATIENCE)


async def ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process to end; return its exit code."""
    return await asyncio.to_thread(process.wait, PATIENCE)


async def look_while_busy(
    project: Project,
    look: Callable[[Engine], Awaitable[object]],
    *tasks: TaskDef,
    workers: int = 2,
) -> None:
    """Have a fleet do these tasks of codex and some of a shell, and look again and again."""
    shell = {"kind": "shell", "cmd": "sleep 0.01"}
    all_tasks = [*tasks, *(a_task(f"s{n}", agent="shell", payload=shell) for n in range(20))]
    looks = 0
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(*all_tasks)))
        await look(engine)
        for agent in ["codex"] * workers + ["shell"] * workers:
            await engine.start_worker(agent, until_idle=True)
        while engine._host.workers:
            await look(engine)
            looks += 1
    assert looks
    assert project.states() == {"DONE": len(all_tasks)}


def most_at_once(events: Iterable[Event]) -> int:
    """Return how many runs there were at once, at most."""
    now = most = 0
    for event in events:
        now += (event.type == "TASK_CLAIMED") - (
            "outcome" in event.data and event.state is not None
        )
        most = max(most, now)
    return most


def let_start(host: object, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Let a host start so many workers more."""
    start: Callable[..., Awaitable[object]] = host.start  # type: ignore[attr-defined]
    left = most

    async def limited(*args: object, **more: object) -> object:
        nonlocal left
        if left == 0:
            raise LeaseConflict("no more")
        left -= 1
        return await start(*args, **more)

    monkeypatch.setattr(host, "start", limited)
