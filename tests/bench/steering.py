"""What steering and recovering cost: each function is one figure, in seconds, in a fresh folder."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import sides

from engine.commands import Cancel, Purge, Reset, Seed
from engine.core import Engine
from engine.files import Layout
from engine.filters import Filter
from engine.processes.trees import gone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from engine.model import ProcessId

_OPEN = """
import asyncio, sys, time
from pathlib import Path
from engine.core import Engine
async def main():
    begun = time.perf_counter()
    async with Engine(Path(sys.argv[1]), project=Path(sys.argv[1]).parent) as engine:
        print(time.perf_counter() - begun, flush=True)
        if len(sys.argv) > 2:
            await engine.start_worker("codex")
            await asyncio.sleep(60)
asyncio.run(main())
"""
"""Open a store, say how long that took; with a second argument also work, until killed."""


def cancel(folder: Path, times: int, *, outside: bool) -> float:
    """Median seconds from the order to cancel a running task to the end of its process.

    `outside`: the worker is another process.
    """
    return asyncio.run(_cancel(folder, times, outside=outside))


async def _cancel(folder: Path, times: int, *, outside: bool) -> float:
    dag = folder / "dag.yaml"
    dag.write_text(
        "tasks:\n"
        + "".join(
            f"  - {{id: t{n}, agent: codex, payload: {{kind: shell, cmd: sleep 600}}}}\n"
            for n in range(times)
        ),
        encoding="utf-8",
    )
    took = []
    async with Engine(folder / "state", project=folder) as engine:
        await engine.execute(Seed(dag))
        async with _worker(engine, folder, outside=outside):
            for n in range(times):
                leader = await _leader(engine, f"t{n}")
                begun = time.perf_counter()
                order = asyncio.create_task(engine.execute(Cancel((f"t{n}",))))
                await gone(leader)
                took.append(time.perf_counter() - begun)
                await order
    return statistics.median(took)


@asynccontextmanager
async def _worker(engine: Engine, folder: Path, *, outside: bool) -> AsyncIterator[None]:
    if not outside:
        await engine.start_worker("codex")
        yield
        await engine.stop_workers()
        return
    command = (sys.executable, "-m", "engine.cli", "worker", "--agent", "codex")
    worker = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stderr=asyncio.subprocess.DEVNULL,  # it tells what it works on; the table is all we want
    )
    yield
    worker.terminate()
    await worker.wait()


async def _leader(engine: Engine, task_id: str) -> ProcessId:
    async for _ in engine.changes():
        for run in await engine._lookout.active():
            if run.task_id == task_id and run.leader is not None:
                return run.leader
    raise AssertionError


def reset(folder: Path, dag: Path) -> float:
    """Seconds to reset all tasks of a DAG, none of them at work."""
    return asyncio.run(_timed(folder, dag, Reset(dag)))


def purge(folder: Path, dag: Path) -> float:
    """Seconds to purge all tasks of a DAG, none of them at work."""
    return asyncio.run(_timed(folder, dag, Purge(Filter())))


async def _timed(folder: Path, dag: Path, command: Reset | Purge) -> float:
    async with Engine(folder / "state", project=folder) as engine:
        await engine.execute(Seed(dag))
        begun = time.perf_counter()
        receipt = await engine.execute(command)
        took = time.perf_counter() - begun
    assert not receipt.refused
    return took


def start(folder: Path, dag: Path, events: int) -> float:
    """Seconds to open a store of so many events again after its process was SIGKILLed at work."""
    state = folder / "state"
    asyncio.run(_fill(folder, dag, events))
    command = [sys.executable, "-c", _OPEN, str(state)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([*command, "work"], stdout=subprocess.PIPE, env=environment) as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        time.sleep(2)
        worker.send_signal(signal.SIGKILL)
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout)


async def _fill(folder: Path, dag: Path, events: int) -> None:
    state = folder / "state"
    async with Engine(state, project=folder) as engine:
        await engine.execute(Seed(dag))
        have = await engine.queries.last_seq()
    with sqlite3.connect(Layout(state).database, isolation_level=None) as db:
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO events(ts, type, agent, worker_id, task_id, run_id, state, data)"
            " SELECT e.ts, 'TASK_PROGRESS', e.agent, 'codex-1', e.task_id, 'r', 'READY',"
            ' \'{"note":"one more line of what an agent does"}\' FROM n, events e'
            " WHERE e.seq <= ? AND e.task_id IS NOT NULL LIMIT ?",
            (events // max(1, have) + 1, have, max(0, events - have)),
        )
    db.close()
    async with Engine(state, project=folder):
        pass  # the log catches up


def rebuild(folder: Path, tasks: int) -> float:
    """Seconds to open a store whose database is gone and whose tasks were all worked on."""
    state = folder / "state"
    sides.engine(folder, sides.independent(tasks), 64)
    for name in ("tasks.db", "tasks.db-wal", "tasks.db-shm"):
        (state / name).unlink(missing_ok=True)
    command = [sys.executable, "-c", _OPEN, str(state)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout)
