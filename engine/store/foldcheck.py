"""The task table against the fold of the event log, task by task.

Three streams are merged along their indexes, so that a large store costs time but no memory. Says
what differs; whom to believe is for a person to decide.
"""

from __future__ import annotations

import json
from itertools import chain
from typing import TYPE_CHECKING, Any

from engine.dag import to_definition
from engine.findings import NO_TAMPERING, Finding, Findings
from engine.machine import FoldedTask, fold
from engine.model import State, TaskDef
from engine.store import derived
from engine.store.rows import EVENT, read_event
from engine.store.transaction import read_reasons

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

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


def check_fold(db: sqlite3.Connection) -> list[Finding]:
    """Compare every task with what its events tell, and its state with its reasons."""
    found = Findings("fold", advice=NO_TAMPERING)
    unsettled = Findings("derived")
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
            for sentence in _unsettled(*rows[0][8:]) if rows else ():
                unsettled.add(f"task {task_id!r}: {sentence}")
        except (ValueError, TypeError) as error:
            found.add(f"task {task_id!r}: its row cannot be read: {error!r}")
    return [*found.all(), *unsettled.all()]


def _differences(told: FoldedTask | None, row: Row | None, runs: list[Row]) -> Iterator[str]:
    if row is None:
        if told is not None:
            yield f"the log says {told.state}, the table does not have it"
        elif runs:
            yield "it has runs, but neither the log nor the table has it"
        return
    *definition, state, reasons_text, attempts, _, _ = row
    reasons = read_reasons(reasons_text)
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
    state: str, reasons_text: str, _attempts: int, broken: int, removed: int
) -> Iterator[str]:
    """Say where a task's state and reasons do not follow from what they derive from."""
    reasons = read_reasons(reasons_text)
    right = derived.settled(State(state), reasons, broken=broken, removed=bool(removed))
    if (state, reasons) == right:
        return
    if right[0] not in {State.READY, State.BLOCKED}:
        yield f"reasons: it is {state} and must have none, the table says {_show(reasons)}"
    else:
        yield (
            f"with {broken} broken deps and removed={removed} it must be {right[0]} "
            f"{_show(right[1])}, the table says {state} {_show(reasons)}"
        )
