"""The database against itself: what `doctor` asks of it. Reads only, from a file opened read-only.

All that is compared is read in one snapshot, task by task along the indexes, so that a large
store costs time but no memory. Says what differs; mends nothing and knows no process and no file.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from engine.dag import to_definition
from engine.findings import Finding, Findings, Level
from engine.machine import FoldedTask, fold, settle
from engine.model import ACTIVE, LIVE_WORKERS, ProcessId, Reason, State, TaskDef
from engine.store.database import BUSY_MS, storage_error
from engine.store.rows import EVENT, read_event
from engine.store.transaction import read_reasons

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    Row = tuple[Any, ...]

# The three streams that are merged come in the order of their indexes: nothing is sorted.
_EVENTS = (
    f"SELECT {EVENT.columns} FROM events INDEXED BY events_of_task"
    " WHERE task_id IS NOT NULL ORDER BY task_id, seq"
)
_EVENT_TASK = 5
_TASKS = (
    "SELECT id, name, agent, deps, priority, timeout, retries, payload, state, reasons, attempts,"
    " broken, removed FROM tasks ORDER BY id"
)
_RUNS = (
    "SELECT task_id, id, worker_id, attempt, outcome FROM runs INDEXED BY runs_of_task"
    " ORDER BY task_id, n"
)
_GAPS = (
    "SELECT seq, before FROM (SELECT seq, lag(seq) OVER (ORDER BY seq) AS before FROM events)"
    " WHERE seq > before + 1"
)
_DEPS = (
    "WITH deps AS (SELECT t.id AS task, e.value AS dep"
    " FROM tasks t, json_each(CASE WHEN json_valid(t.deps) THEN t.deps ELSE '[]' END) e)"
)
# A purged dep counts as met if it was DONE, else as broken: `gone` of them leave room for both.
_COUNTS = (
    f"{_DEPS}, counted AS (SELECT task, coalesce(sum(d.state <> 'DONE'), 0) AS pending,"
    "  coalesce(sum(d.state IN ('FAILED', 'CANCELLED', 'BLOCKED')), 0) AS broken,"
    "  sum(d.id IS NULL) AS gone FROM deps LEFT JOIN tasks d ON d.id = dep GROUP BY task)"
    " SELECT * FROM (SELECT t.id, t.pending, coalesce(c.pending, 0) AS p, t.broken,"
    "  coalesce(c.broken, 0) AS b, coalesce(c.gone, 0) AS g"
    "  FROM tasks t LEFT JOIN counted c ON c.task = t.id)"
    " WHERE pending - p NOT BETWEEN 0 AND g OR broken - b NOT BETWEEN 0 AND g"
)
_EDGES = (
    f"{_DEPS} SELECT 1, dep, task FROM (SELECT dep, task FROM deps EXCEPT SELECT dep, task"
    " FROM edges) UNION ALL SELECT 0, dep, task FROM (SELECT dep, task FROM edges EXCEPT"
    " SELECT dep, task FROM deps)"
)
_TALLIES = "SELECT agent, state, waiting, n FROM tallies WHERE n <> 0"
_COUNTED = (
    "SELECT agent, state, state = 'READY' AND (pending > 0 OR not_before IS NOT NULL) AS waiting,"
    " count(*) FROM tasks GROUP BY agent, state, waiting"
)
_HOLDING = (
    "SELECT t.id, t.state, t.run_id, t.claimed_by, t.lease_until, r.task_id, r.worker_id, r.outcome"
    " FROM tasks t LEFT JOIN runs r ON r.id = t.run_id WHERE t.state IN ('CLAIMED', 'RUNNING')"
    " OR t.run_id IS NOT NULL OR t.claimed_by IS NOT NULL OR t.lease_until IS NOT NULL"
)
_OPEN_RUNS = (
    "SELECT r.id, r.task_id FROM runs r WHERE r.outcome IS NULL AND NOT EXISTS"
    " (SELECT 1 FROM tasks t WHERE t.id = r.task_id AND t.run_id = r.id)"
)


_HOLDERS = (
    "SELECT r.id, r.task_id, r.worker_id, r.host_pid, r.host_started, w.status FROM tasks t"
    " JOIN runs r ON r.id = t.run_id LEFT JOIN workers w ON w.id = r.worker_id"
    " AND w.pid = r.host_pid AND w.pid_started = r.host_started"
    " WHERE t.state IN ('CLAIMED', 'RUNNING') ORDER BY r.n"
)


@dataclass(frozen=True, slots=True)
class Holder:
    """A run that holds a task. `over`: its worker says of itself that it has ended."""

    run_id: str
    task_id: str
    worker_id: str
    host: ProcessId
    over: bool


def open_for_reading(database: Path) -> sqlite3.Connection:
    """Open the database so that nothing can be written through it; raises sqlite3.Error."""
    # Handed from thread to thread by its owner, never used by two at once.
    uri = f"{database.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_MS / 1000)


def audit(database: Path) -> list[Finding]:
    """Check a database: its pages, and all that can be derived from something else in it.

    Blocks for about 16 s for a million events; call it off the event loop. What cannot be read is a
    finding, not an exception.
    """
    try:
        with closing(open_for_reading(database)) as db:
            # Pages that are damaged make every further answer worthless.
            return _integrity(db) or _snapshot(db)
    except sqlite3.Error as error:
        return [Finding(Level.ERROR, "integrity", f"{database} cannot be read: {error}")]


def read_holders(database: Path) -> list[Holder]:
    """Return every run that holds a task; blocks for as long as one short read.

    Raises:
        StorageError: the database cannot be read.

    """
    try:
        with closing(open_for_reading(database)) as db:
            rows = db.execute(_HOLDERS).fetchall()
    except sqlite3.Error as error:
        raise storage_error(error, database) from error
    return [
        Holder(run, task, worker, ProcessId(pid, started), over=status not in {None, *LIVE_WORKERS})
        for run, task, worker, pid, started, status in rows
    ]


def _integrity(db: sqlite3.Connection) -> list[Finding]:
    found = Findings("integrity")
    for (answer,) in db.execute("PRAGMA integrity_check"):
        if answer != "ok":
            found.add(f"SQLite: {answer}")
    for table, rowid, parent, _ in db.execute("PRAGMA foreign_key_check"):
        found.add(f"SQLite: row {rowid} of {table} points at nothing in {parent}")
    return found.all()


def _snapshot(db: sqlite3.Connection) -> list[Finding]:
    db.execute("BEGIN")
    try:
        return [*_events(db), *_folded(db), *_derived(db), *_claims(db)]
    finally:
        db.execute("ROLLBACK")


def _events(db: sqlite3.Connection) -> list[Finding]:
    found = Findings("events")
    for seq, before in db.execute(_GAPS):
        found.add(
            f"the events table has nothing between {before} and {seq}: {seq - before - 1} lost"
        )
    return found.all()


class _Stream:
    """Rows in the order of a task id, handed out one task at a time."""

    def __init__(self, rows: Iterator[Row], key: int) -> None:
        self._rows = rows
        self._key = key
        self._next = next(rows, None)

    @property
    def task_id(self) -> str | None:
        """The next task; None at the end."""
        return None if self._next is None else self._next[self._key]

    def take(self, task_id: str) -> list[Row]:
        """Return the rows of a task, none if it is not the next one."""
        rows: list[Row] = []
        while self._next is not None and self._next[self._key] == task_id:
            rows.append(self._next)
            self._next = next(self._rows, None)
        return rows


def _folded(db: sqlite3.Connection) -> list[Finding]:
    found = Findings("fold")
    events = _Stream(db.execute(_EVENTS), _EVENT_TASK)
    tasks = _Stream(db.execute(_TASKS), 0)
    runs = _Stream(db.execute(_RUNS), 0)
    streams = (events, tasks, runs)
    while ids := [stream.task_id for stream in streams if stream.task_id is not None]:
        task_id = min(ids)
        happened, rows, its_runs = (stream.take(task_id) for stream in streams)
        try:
            told = fold(map(read_event, happened)).get(task_id)
        except (ValueError, KeyError, TypeError) as error:
            found.add(f"task {task_id!r}: its events cannot be read: {error!r}")
            continue
        try:
            for difference in _differences(told, rows[0] if rows else None, its_runs):
                found.add(f"task {task_id!r}: {difference}")
        except (ValueError, TypeError) as error:
            found.add(f"task {task_id!r}: its row cannot be read: {error!r}")
    return found.all()


def _differences(told: FoldedTask | None, row: Row | None, runs: list[Row]) -> Iterator[str]:
    if row is None:
        if told is not None:
            yield f"the log says {told.state}, the table does not have it"
        elif runs:
            yield "it has runs, but neither the log nor the table has it"
        return
    *definition, state, reasons_text, attempts, broken, removed = row
    reasons = read_reasons(reasons_text)
    yield from _unsettled(State(state), reasons, broken, removed)
    if told is None:
        yield f"the log does not know it, the table says {state}"
        return
    yield from _compare(
        chain(
            _definitions(told, definition),
            (
                ("state", str(told.state), state),
                ("reasons", sorted(told.reasons), sorted(reasons)),
                ("attempts", told.attempts, attempts),
            ),
            _runs(told, runs),
        )
    )


def _definitions(told: FoldedTask, columns: list[Any]) -> Iterator[tuple[str, Any, Any]]:
    task_id, name, agent, deps, priority, timeout, retries, payload = columns
    task = TaskDef(
        task_id,
        name,
        agent,
        tuple(json.loads(deps)),
        priority,
        timeout,
        retries,
        json.loads(payload),
    )
    for field, value in to_definition(task).items():
        yield field, told.definition.get(field), value


def _runs(told: FoldedTask, rows: list[Row]) -> Iterator[tuple[str, Any, Any]]:
    stored = {row[1]: row[2:] for row in rows}
    for run_id in dict.fromkeys((*told.runs, *stored)):
        run, row = told.runs.get(run_id), stored.get(run_id)
        if run is None or row is None:
            yield f"run {run_id}", run is not None, row is not None
            continue
        worker_id, attempt, outcome = row
        yield f"worker of run {run_id}", run.worker_id, worker_id
        yield f"attempt of run {run_id}", run.attempt, attempt
        yield f"outcome of run {run_id}", run.outcome, outcome


def _compare(fields: Iterable[tuple[str, Any, Any]]) -> Iterator[str]:
    for field, log, table in fields:
        if log != table:
            yield f"{field}: the log says {_show(log)}, the table says {_show(table)}"


def _show(value: Any) -> str:
    """Write a value as people read it; None: nothing is there."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:200]}…" if len(text) > 200 else text


def _unsettled(
    state: State, reasons: tuple[Reason, ...], broken: int, removed: int
) -> Iterator[str]:
    """Say where a task's state and reasons do not follow from what they derive from."""
    if state not in {State.READY, State.BLOCKED}:
        if reasons:
            yield f"reasons: it is {state} and must have none, the table says {_show(reasons)}"
        return
    right = settle(human=Reason.HUMAN in reasons, broken=broken, removed=bool(removed))
    if (state, reasons) != right:
        yield (
            f"with {broken} broken deps and removed={removed} it must be {right[0]} "
            f"{_show(right[1])}, the table says {state} {_show(reasons)}"
        )


def _derived(db: sqlite3.Connection) -> list[Finding]:
    found = Findings("derived")
    for task_id, pending, right_pending, broken, right_broken, _ in db.execute(_COUNTS):
        found.add(
            f"task {task_id!r}: its deps make pending {right_pending} and broken {right_broken}, "
            f"the table says {pending} and {broken}"
        )
    for missing, dep, task_id in db.execute(_EDGES):
        what = "is missing from" if missing else "does not belong into"
        found.add(f"task {task_id!r}: its dep {dep!r} {what} the edges table")
    counted = {row[:3]: row[3] for row in db.execute(_COUNTED)}
    tallies = {row[:3]: row[3] for row in db.execute(_TALLIES)}
    for key in sorted({*counted, *tallies}):
        right, tally = counted.get(key, 0), tallies.get(key, 0)
        if right != tally:
            agent, state, waiting = key
            found.add(
                f"{agent} has {right} tasks {state}{' (waiting)' if waiting else ''}, "
                f"the tallies table says {tally}"
            )
    return found.all()


def _claims(db: sqlite3.Connection) -> list[Finding]:
    """Check that exactly the active tasks are held, each by one open run of its own."""
    found = Findings("claims")
    for task_id, state, run_id, worker, lease, run_task, run_worker, outcome in db.execute(
        _HOLDING
    ):
        if State(state) not in ACTIVE:
            found.add(f"task {task_id!r} is {state}, but run {run_id} of {worker} still holds it")
        elif None in {run_id, worker, lease}:
            found.add(
                f"task {task_id!r} is {state}, but the table says run {run_id}, "
                f"worker {worker}, lease until {lease}"
            )
        elif run_task is None:
            found.add(f"task {task_id!r} is held by run {run_id}, which the runs table lacks")
        elif run_task != task_id or run_worker != worker:
            found.add(
                f"task {task_id!r} is held by run {run_id} of {worker}, "
                f"which is a run of {run_worker} at {run_task!r}"
            )
        elif outcome is not None:
            found.add(f"task {task_id!r} is {state}, but its run {run_id} ended: {outcome}")
    for run_id, task_id in db.execute(_OPEN_RUNS):
        found.add(f"run {run_id} of {task_id!r} has not ended, but does not hold its task")
    return found.all()
