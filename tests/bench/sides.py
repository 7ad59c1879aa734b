"""What is measured: each function is one side of a ratio, in a fresh folder, timed from inside."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import threading
import time
from pathlib import Path

import yaml
from floor import drain as drain_floor
from huey import SqliteHuey
from huey.consumer import Consumer

from engine.clock import SystemClock
from engine.commands import Hold, Resume, Seed
from engine.core import Engine
from engine.files import Layout
from engine.filters import parse_filter
from engine.model import Dag, TaskDef
from engine.processes.signalling import identify
from engine.store.store import Store

NOOP = {"kind": "noop", "seconds": 0}


def independent(tasks: int) -> Dag:
    """A DAG of `tasks` noop tasks for one agent, without deps."""
    return Dag(tuple(TaskDef(f"t{i}", f"t{i}", "codex", payload=NOOP) for i in range(tasks)))


def chain(tasks: int) -> Dag:
    """A DAG in which each task depends on the one before."""
    return Dag(
        tuple(
            TaskDef(f"t{i}", f"t{i}", "codex", (f"t{i - 1}",) if i else (), payload=NOOP)
            for i in range(tasks)
        )
    )


async def _seeded(folder: Path, dag: Dag) -> Layout:
    layout = Layout(folder / "state")
    layout.create()
    store = Store(layout, SystemClock(), lease=600)
    await store.open()
    await store.seed(dag)
    await store.close()
    return layout


def floor(folder: Path, tasks: int) -> float:
    """Seconds that the bare loop takes for `tasks` independent tasks."""
    layout = asyncio.run(_seeded(folder, independent(tasks)))
    return drain_floor(layout.database, tasks)


def engine(folder: Path, dag: Dag, workers: int) -> float:
    """Seconds that the engine takes for a DAG, from the start of its workers to the last commit."""

    async def run() -> float:
        await _seeded(folder, dag)
        async with Engine(folder / "state", project=folder) as engine:
            begin = time.perf_counter()
            await engine.start_workers(workers)
            await engine.settled()
            took = time.perf_counter() - begin
        _check_done(folder, len(dag.tasks))
        return took

    return asyncio.run(run())


def processes(folder: Path, tasks: int, count: int, workers: int) -> float:
    """Seconds that `count` processes with `workers` workers each take, from claim to last end.

    The start of the interpreters is not counted: the tasks are held until all workers are there.
    """

    async def run() -> float:
        await _seeded(folder, independent(tasks))
        async with Engine(folder / "state", project=folder) as engine:
            await engine.execute(Hold())
            script = Path(__file__).with_name("fleet.py")
            fleet = [
                await asyncio.create_subprocess_exec(
                    sys.executable, str(script), str(folder), str(workers)
                )
                for _ in range(count)
            ]
            async for _ in engine.changes():
                if len([w for w in await engine.queries.workers() if w.alive]) == count * workers:
                    break
            begin = time.perf_counter()
            await engine.execute(Resume())
            await engine.settled()
            took = time.perf_counter() - begin
            for process in fleet:
                process.terminate()
                if await process.wait() != 0:
                    raise RuntimeError("a worker process failed")
        _check_done(folder, tasks)
        return took

    return asyncio.run(run())


def wal(folder: Path, tasks: int) -> float:
    """Largest size of the WAL, in MB, while tasks run and a reader looks as a screen does."""

    async def look(engine: Engine) -> float:
        largest = 0
        while True:
            await engine.queries.progress()
            await engine.queries.tasks(limit=50)
            await engine.queries.last_events(50)
            largest = max(largest, (folder / "state" / "tasks.db-wal").stat().st_size)
            if await engine.queries.count_tasks(parse_filter("!state:done")) == 0:
                return largest / 1e6
            await asyncio.sleep(0.25)

    async def run() -> float:
        await _seeded(folder, independent(tasks))
        async with Engine(folder / "state", project=folder) as engine:
            await engine.start_workers(64)
            return await look(engine)

    return asyncio.run(run())


def _check_done(folder: Path, tasks: int) -> None:
    db = sqlite3.connect(folder / "state" / "tasks.db")
    done = db.execute("SELECT count(*) FROM tasks WHERE state = 'DONE'").fetchone()[0]
    events = db.execute(
        "SELECT count(*) FROM events WHERE type IN ('TASK_CLAIMED','TASK_STARTED','TASK_COMPLETED')"
    ).fetchone()[0]
    db.close()
    if (done, events) != (tasks, 3 * tasks):
        raise RuntimeError(f"{done} of {tasks} tasks are done, {events} events")
    lines = sum(1 for _ in (folder / "state" / "events.jsonl").open("rb"))
    if lines < events:
        raise RuntimeError(f"events.jsonl has {lines} lines")


def claims(folder: Path, tasks: int, count: int) -> float:
    """Seconds for one claim, the mean of `count`, with `tasks` tasks READY."""

    async def run() -> float:
        layout = await _seeded(folder, independent(tasks))
        store = Store(layout, SystemClock(), lease=600)
        await store.open()
        me = identify(os.getpid())
        assert me is not None
        for number in range(50):
            await store.claim("codex", f"w{number}", me)
        begin = time.perf_counter()
        for number in range(count):
            await store.claim("codex", f"w{number}", me)
        took = (time.perf_counter() - begin) / count
        await store.close()
        return took

    return asyncio.run(run())


def huey(folder: Path, tasks: int, workers: int) -> float:
    """Seconds that huey's SqliteHuey takes with as many threads, synchronous=FULL.

    To the last task's start: its acknowledgement is not counted, slightly in huey's favour.
    """
    queue = SqliteHuey(
        filename=str(folder / "huey.db"), fsync=True, journal_mode="wal", results=False
    )
    done = threading.Event()
    seen = 0
    lock = threading.Lock()

    def noop() -> None:
        nonlocal seen
        with lock:
            seen += 1
            if seen == tasks:
                done.set()

    task = queue.task()(noop)
    for _ in range(tasks):
        task()
    consumer = Consumer(queue, workers=workers, periodic=False, initial_delay=0.001, max_delay=0.01)
    begin = time.perf_counter()
    consumer.start()
    if not done.wait(120):
        raise RuntimeError(f"huey did {seen} of {tasks}")
    took = time.perf_counter() - begin
    consumer.stop(graceful=True)
    return took


def yaml_load(path: Path) -> float:
    """Seconds of `yaml.load(…, CSafeLoader)` alone."""
    text = path.read_text(encoding="utf-8")
    begin = time.perf_counter()
    yaml.load(text, yaml.CSafeLoader)  # the reference itself, on a file of our own
    return time.perf_counter() - begin


def seed(folder: Path, path: Path) -> float:
    """Seconds to seed a file: read, validate with lines, store, tell. The log follows after it."""

    async def run() -> float:
        async with Engine(folder / "state", project=folder) as engine:
            begin = time.perf_counter()
            await engine.execute(Seed(path))
            return time.perf_counter() - begin

    return asyncio.run(run())
