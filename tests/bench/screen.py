"""What the dashboard costs beside a bare Textual app with one empty pane (`bare.py`).

Both sides are programs in terminals of the same kind. A store is filled once and serves all rows
and rounds: a dashboard without workers changes nothing in it.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import sides
from terminal import PATIENCE, ROOT, terminal

from engine.core import Engine
from engine.files import Layout
from engine.model import Dag, TaskDef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from terminal import Terminal

_BARE = Path(__file__).with_name("bare.py")
_FLEET = Path(__file__).with_name("fleet.py")
_SETTINGS = "lease: 600\nshell: {allow: [echo, git]}\n"
_BLOCK = 1000
"""Tasks that are seeded; a larger store has them many times under other names."""
_PAIRS = 5
"""Starts of both sides in a round: of one alone, little can be told."""
_WORK = {"kind": "noop", "seconds": 0.15}
_PROCESSES, _WORKERS = 2, 4
"""Who makes about 200 events a second of that work, three for each task."""
_LEAST = 150
"""Events a second below which a load is none."""
_PRESSES = 20
"""Keys a second."""
_BORDER, _CURSOR = "╯", "▌"


# -- what is measured ----------------------------------------------------------------------


def start(tasks: int, events: int) -> tuple[float, str]:
    """Return how many times as long as bare the dashboard takes to its first full paint."""
    folder = filled(tasks, events)
    ours, theirs = [], []
    for _ in range(_PAIRS):
        with _bare(folder) as bare:
            bare.settle(0.3)
            theirs.append(bare.painted(lambda shown: _BORDER in shown))
        with _dashboard(folder) as dashboard:
            ours.append(dashboard.painted(_complete(dashboard.settle(), tasks)))
    wall, bare_wall = (statistics.median(one.wall for one in side) for side in (ours, theirs))
    cpu, bare_cpu = (statistics.median(one.cpu for one in side) for side in (ours, theirs))
    # Of each pair by itself: both sides of it had the same neighbours.
    ratio = statistics.median(
        one.wall / other.wall for one, other in zip(ours, theirs, strict=True)
    )
    return ratio, (
        f"{wall:.2f} s, bare {bare_wall:.2f} s; of the CPU {cpu:.2f} s, bare {bare_cpu:.2f} s:"
        f" {cpu / bare_cpu:.2f} times"
    )


def idle(tasks: int, events: int, seconds: float) -> tuple[float, str]:
    """Return how much more of a core than bare the dashboard takes, in percent, at rest."""
    folder = filled(tasks, events)
    with _bare(folder) as bare, _dashboard(folder) as dashboard:
        dashboard.settle()
        time.sleep(3)
        theirs, ours = _shares([bare, dashboard], seconds)
    return ours - theirs, f"% of a core: {ours:.2f} %, bare {theirs:.2f} %"


def load(tasks: int, events: int, seconds: float) -> tuple[float, str]:
    """Return what of a core, in percent, the dashboard takes while others change the store."""
    folder = filled(tasks, events)
    with _dashboard(folder) as dashboard, _busy(folder) as rate:
        (ours,) = _shares([dashboard], seconds)
    return ours, f"% of a core at {rate():.0f} events/s"


def keys(tasks: int, events: int, seconds: float) -> tuple[float, str]:
    """Return the milliseconds from a key to the cursor on another row, p95, during that load."""
    folder = filled(tasks, events)
    took: list[float] = []
    with _dashboard(folder) as dashboard, _busy(folder) as rate:
        for number in range(int(seconds * _PRESSES)):
            # Down ten rows, up ten rows.
            took.append(dashboard.answer("k" if number // 10 % 2 else "j", _CURSOR) * 1e3)
            time.sleep(max(0, 1 / _PRESSES - took[-1] / 1e3))
    took.sort()
    return took[int(len(took) * 0.95)], (
        f"ms: median {statistics.median(took):.0f}, longest {took[-1]:.0f},"
        f" at {rate():.0f} events/s"
    )


def memory(tasks: int, events: int) -> tuple[float, str]:
    """Return how many MiB more than bare the dashboard has for itself once it was used a little."""
    folder = filled(tasks, events)
    with _bare(folder) as bare, _dashboard(folder) as dashboard:
        dashboard.settle()
        for key in "Gkkgjj":
            dashboard.answer(key, _CURSOR)
            dashboard.settle(0.3)
        time.sleep(3)
        ours, theirs = dashboard.memory, bare.memory
    return ours - theirs, f"MiB: {ours:.0f}, bare {theirs:.0f}"


def throughput(fresh: Callable[[], Path], tasks: int) -> tuple[float, str]:
    """Return the throughput of 8 workers with the dashboard around them, as a part of headless."""
    headless, watched = fresh(), fresh()
    sides.engine(headless, sides.independent(tasks), 8)
    asyncio.run(sides._seeded(watched, sides.independent(tasks)))
    with _dashboard(watched, workers=8), _reader(watched) as db:
        deadline = time.monotonic() + 10 * PATIENCE
        while _value(db, "SELECT count(*) FROM runs WHERE ended_at IS NOT NULL") < tasks:
            if time.monotonic() > deadline:
                raise TimeoutError("the work was never done")
            time.sleep(0.25)
    alone, shown = _working(headless), _working(watched)
    return alone / shown, f"{tasks / shown:.0f}/s, headless {tasks / alone:.0f}/s"


# -- a store, somebody at work in it, programs over it --------------------------------------


@cache
def filled(tasks: int, events: int) -> Path:
    """Return a project with so many tasks in chains of four, and at least so many events."""
    folder = Path(tempfile.mkdtemp(prefix="agentmux-bench-screen-"))
    _made.append(folder)
    (folder / "agentmux.yaml").write_text(_SETTINGS, encoding="utf-8")
    block = min(tasks, _BLOCK)
    dag = Dag(
        tuple(
            TaskDef(
                f"task-0000{number:03}",
                f"Task number {number}",
                "codex",
                (f"task-0000{number - 1:03}",) if number % 4 else (),
                payload=_WORK,
            )
            for number in range(block)
        )
    )
    layout = asyncio.run(sides._seeded(folder, dag))
    with closing(sqlite3.connect(layout.database, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous=OFF")
        db.execute("BEGIN")
        for number in range(1, tasks // block):
            _repeat(db, number)
        have = _value(db, "SELECT max(seq) FROM events")
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO events(ts, type, agent, worker_id, task_id, run_id, state, data)"
            " SELECT e.ts, 'TASK_PROGRESS', e.agent, 'codex-1', e.task_id, 'r', 'READY',"
            ' \'{"note":"one more line of what an agent does"}\''
            " FROM n, events e WHERE e.seq <= ? AND e.task_id IS NOT NULL LIMIT ?",
            (events // have + 1, have, max(0, events - have)),
        )
        db.execute("COMMIT")
    asyncio.run(_catch_up(folder))
    return folder


_made: list[Path] = []


@contextmanager
def stores() -> Iterator[None]:
    """Keep the stores that are filled in this context until its end, and no longer."""
    try:
        yield
    finally:
        while _made:
            shutil.rmtree(_made.pop())
        filled.cache_clear()


def _repeat(db: sqlite3.Connection, number: int) -> None:
    """Put the first block in once more, as block `number`."""
    name = f"replace({{}}, 'task-0000', 'task-{number:04}')"
    other = {
        "tasks": {"id": name, "deps": name, "position": f"{{}} + {number * _BLOCK}"},
        "edges": {"dep": name, "task": name},
        "events": {"task_id": name, "data": name},
    }
    for table, changed in other.items():
        columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})") if row[1] != "seq"]
        values = ", ".join(changed.get(column, "{}").format(column) for column in columns)
        where = {"events": f"seq <= {_BLOCK}", "edges": "task < 'task-0001'"}.get(
            table, "id < 'task-0001'"
        )
        db.execute(
            f"INSERT INTO {table}({', '.join(columns)}) SELECT {values} FROM {table} WHERE {where}"
        )


async def _catch_up(folder: Path) -> None:
    async with Engine(folder / "state", project=folder):
        pass  # the log is then as long as the store


@contextmanager
def _busy(folder: Path) -> Iterator[Callable[[], float]]:
    """Have other processes work; hand out who tells how many events a second they made."""
    command = (sys.executable, str(_FLEET), str(folder), str(_WORKERS))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    fleet = [subprocess.Popen(command, env=environment) for _ in range(_PROCESSES)]
    try:
        with _reader(folder) as db:
            newest = "SELECT max(seq) FROM events"
            first = _value(db, newest)
            deadline = time.monotonic() + PATIENCE
            while _value(db, newest) < first + _LEAST:
                if time.monotonic() > deadline:
                    raise TimeoutError("nobody works")
                time.sleep(0.1)
            began, first = time.perf_counter(), _value(db, newest)
            rates: list[float] = []
            yield lambda: rates[0]
            rates.append((_value(db, newest) - first) / (time.perf_counter() - began))
        if rates[0] < _LEAST:
            raise RuntimeError(f"only {rates[0]:.0f} events a second")
    finally:
        for process in fleet:
            process.send_signal(signal.SIGTERM)
        for process in fleet:
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()


def _dashboard(folder: Path, workers: int = 0) -> AbstractContextManager[Terminal]:
    return terminal(folder, sys.executable, "-m", "tui", "--workers", str(workers))


def _bare(folder: Path) -> AbstractContextManager[Terminal]:
    return terminal(folder, sys.executable, str(_BARE))


def _complete(last: str, tasks: int) -> Callable[[str], bool]:
    """Return who tells whether all is there that is on the `last` screen: every pane's rows."""
    words = {"1 Workers", "2 Tasks", "3 Events", "4 Stale", "no workers", f"/{tasks:,}", "? help"}
    words |= set(re.findall(r"task-\d+", last))
    if missing := [word for word in words if word not in last]:
        raise RuntimeError(f"{missing} are not on the screen:\n{last}")
    return lambda shown: "reading …" not in shown and all(word in shown for word in words)


def _shares(programs: list[Terminal], seconds: float) -> list[float]:
    began, before = time.perf_counter(), [one.cpu for one in programs]
    time.sleep(seconds)
    took = time.perf_counter() - began
    return [100 * (one.cpu - used) / took for one, used in zip(programs, before, strict=True)]


def _working(folder: Path) -> float:
    """Seconds from the first claim to the last end."""
    with _reader(folder) as db:
        first, last = db.execute("SELECT min(claimed_at), max(ended_at) FROM runs").fetchone()
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()


@contextmanager
def _reader(folder: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(Layout(folder / "state").database, timeout=PATIENCE)) as db:
        yield db


def _value(db: sqlite3.Connection, query: str) -> int:
    return int(db.execute(query).fetchone()[0])
