"""The long lists of a store in plain Python: what a filter picks, how an order sorts.

The store says the same in SQL; test_windows holds the two against each other.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from engine.filters import (
    AFTER,
    AGENT,
    BEFORE,
    ERROR,
    EVENT_FIELDS,
    ID,
    NAME,
    OUTCOME,
    READY,
    RUN,
    RUN_FIELDS,
    RUNNING,
    STATE,
    TASK,
    TASK_FIELDS,
    TOOK,
    TYPE,
    WAITING,
    WHY,
    WORD,
    WORKER,
    Filter,
    Kind,
    Term,
)
from engine.model import Event, State
from engine.moments import parse_span
from engine.patterns import has_match, has_word
from engine.views import Order, RunRow, TaskRow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Row = TypeVar("Row", TaskRow, RunRow, Event)

NOW = datetime(2026, 3, 14, 10, 12, 46, tzinfo=UTC)
_ON_SCREEN = (
    (State.RUNNING, State.CLAIMED),
    (State.BLOCKED,),
    (State.FAILED,),
    (State.READY,),
    (State.DONE,),
    (State.CANCELLED,),
)
_KINDS = {**TASK_FIELDS.kinds, **RUN_FIELDS.kinds, **EVENT_FIELDS.kinds}


def waits(row: TaskRow) -> bool:
    """Say whether a READY task lacks more than a worker."""
    more = row.pending > 0 or row.not_before is not None or row.ending is not None
    return row.state is State.READY and more


def picked(rows: Iterable[Row], where: Filter | None) -> list[Row]:
    terms = where.terms if where is not None else ()
    return [row for row in rows if all(holds(row, term) for term in terms)]


def holds(row: TaskRow | RunRow | Event, term: Term) -> bool:
    texts = _texts(row, term.field)
    if term.regex:
        found = has_match(term.value, *texts)
    elif term.field == WORD or _KINDS[term.field] is Kind.PART:
        found = has_word(term.value, *texts)
    elif term.field in {AFTER, BEFORE}:
        assert term.at is not None
        assert not isinstance(row, TaskRow)
        moment = row.ts if isinstance(row, Event) else row.claimed_at
        found = moment >= term.at if term.field == AFTER else moment < term.at
    elif term.field == TOOK:
        assert isinstance(row, RunRow)
        sign, seconds = parse_span(term.value)
        took = _took(row)
        found = took is not None and (took > seconds if sign == ">" else took < seconds)
    else:
        found = bool(set(texts) & set(term.values))
    return found is not term.negated


def _texts(row: TaskRow | RunRow | Event, field: str) -> list[str | None]:
    if isinstance(row, TaskRow):
        texts = _of_task(row)
    elif isinstance(row, RunRow):
        texts = _of_run(row)
    else:
        texts = _of_event(row)
    return texts.get(field, [])


def _of_task(row: TaskRow) -> dict[str, list[str | None]]:
    state = row.state.lower()
    if row.state is State.READY:
        state = WAITING if waits(row) else READY
    return {
        WORD: [row.id, row.name, row.agent, row.worker_id, row.error],
        STATE: [state],
        AGENT: [row.agent],
        WORKER: [row.worker_id],
        ID: [row.id],
        NAME: [row.name],
        WHY: [row.error, ",".join(row.reasons)],
    }


def _of_run(row: RunRow) -> dict[str, list[str | None]]:
    outcome = row.outcome or RUNNING
    return {
        WORD: [row.task_id, row.agent, row.worker_id, outcome, row.error],
        OUTCOME: [outcome.replace(" ", "-")],
        TASK: [row.task_id],
        AGENT: [row.agent],
        WORKER: [row.worker_id],
        RUN: [row.id],
        ERROR: [row.error],
    }


def _of_event(row: Event) -> dict[str, list[str | None]]:
    told = [row.data.get(key) for key in ("error", "note", "message")]
    return {
        WORD: [row.task_id, row.agent, row.worker_id, row.type, *told],
        TYPE: [row.type.lower()],
        TASK: [row.task_id],
        AGENT: [row.agent],
        WORKER: [row.worker_id],
        RUN: [row.run_id],
    }


def _took(run: RunRow) -> float | None:
    if run.ended_at is None:
        return None
    return (run.ended_at - (run.started_at or run.claimed_at)).total_seconds()


def _rank(row: TaskRow) -> tuple[int, bool]:
    at = next(i for i, states in enumerate(_ON_SCREEN) if row.state in states)
    return at, row.state is State.READY and row.pending > 0


def _spent(row: TaskRow, now: datetime) -> float | None:
    if row.started_at is None or row.state is State.READY:
        return None
    active = row.state in {State.RUNNING, State.CLAIMED}
    ended = now if active else row.ended_at
    return None if ended is None else (ended - row.started_at).total_seconds()


def sorted_tasks(
    rows: Sequence[TaskRow], order: Order | None = None, now: datetime = NOW
) -> list[TaskRow]:
    """Sort tasks that stand in the order of their file."""
    columns: dict[str, Callable[[TaskRow], Any]] = {
        "id": lambda row: row.id,
        "name": lambda row: row.name.encode().lower(),
        "agent": lambda row: row.agent,
        "worker": lambda row: row.worker_id,
        "try": lambda row: row.attempts,
        "time": lambda row: _spent(row, now),
        "priority": lambda row: row.priority,
        "state": _rank,
        "updated": lambda row: row.updated_at,
    }
    order = order or Order()
    if order.column == "file":
        return list(reversed(rows)) if order.descending else list(rows)
    return _sorted(sorted(rows, key=_rank), order, columns)


def sorted_runs(rows: Iterable[RunRow], order: Order | None = None) -> list[RunRow]:
    """Sort runs that stand in the order in which they began."""
    columns: dict[str, Callable[[RunRow], Any]] = {
        "task": lambda run: run.task_id,
        "agent": lambda run: run.agent,
        "worker": lambda run: run.worker_id,
        "try": lambda run: run.attempt,
        "outcome": lambda run: run.outcome,
        "started": lambda run: run.started_at,
        "took": _took,
        "cost": lambda run: run.spending.cost,
    }
    return _sorted(list(reversed(list(rows))), order or Order(), columns)


def _sorted(rows: list[Any], order: Order, columns: dict[str, Callable[[Any], Any]]) -> list[Any]:
    if not order.column:
        return list(reversed(rows)) if order.descending else rows
    if order.column not in columns:
        raise ValueError(f"no order {order.column!r}")
    key = columns[order.column]
    known = [row for row in rows if key(row) is not None]
    # Stable, and so it is with `reverse`: ties keep the list's own order.
    known.sort(key=key, reverse=order.descending)
    return known + [row for row in rows if key(row) is None]


def place_of(row_id: str, rows: Sequence[TaskRow | RunRow]) -> int | None:
    """Return the place of a row, from 0; None if it is not among them."""
    return next((place for place, row in enumerate(rows) if row.id == row_id), None)


def window(rows: list[Row], offset: int, limit: int) -> list[Row]:
    return rows[offset:] if limit < 0 else rows[offset : offset + limit]
