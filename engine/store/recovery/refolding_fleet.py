"""What is no task's, from the events table alone: workers, holds, the DAG's rules, counters.

The second half of `refolding`, which says what the log does not tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.clock import to_iso
from engine.model import ADOPTED, Event, EventType, HoldCause, RunOutcome, WorkerStatus
from engine.store import derived
from engine.store.alerts import refold_alerts
from engine.store.counting import count_all
from engine.store.rows import EVENT, read_event

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

_OF_OTHERS = f"SELECT {EVENT.columns} FROM events WHERE task_id IS NULL ORDER BY seq"
_ADD_WORKER = (
    "INSERT INTO workers(id, agent, pid, pid_started, status, started_at, beat_at)"
    " VALUES (?, ?, ?, '', ?, ?, ?)"
)
_LAST_STARTS = "SELECT agent, max(ts) FROM events WHERE type = 'TASK_CLAIMED' GROUP BY agent"
_PACE = (
    "INSERT INTO pace SELECT substr(ts, 1, 16), sum(type = 'TASK_COMPLETED'),"
    " sum(type = 'TASK_FAILED') FROM events WHERE (type = 'TASK_COMPLETED' OR type = 'TASK_FAILED'"
    f" AND json_extract(data, '$.outcome') IN ('{RunOutcome.FAILED}', '{RunOutcome.TIMED_OUT}'))"
    f" AND json_extract(data, '$.{ADOPTED}') IS NULL GROUP BY 1"
)
# Of which run whoever asked for a task has heard. What was purged since has no mark.
_TOLD = """
INSERT OR REPLACE INTO meta
SELECT 'told:' || task_id, run_id FROM events e WHERE type = 'ISSUE_TOLD'
  AND NOT EXISTS (SELECT 1 FROM events p
    WHERE p.task_id = e.task_id AND p.seq > e.seq AND p.type = 'TASK_PURGED')
ORDER BY seq
"""
_STATUSES = {
    EventType.WORKER_STARTED: WorkerStatus.LOST,
    EventType.WORKER_STOPPING: WorkerStatus.LOST,
    EventType.WORKER_STOPPED: WorkerStatus.STOPPED,
    EventType.WORKER_KILLED: WorkerStatus.KILLED,
    EventType.WORKER_LOST: WorkerStatus.LOST,
}
"""What a worker is once nothing more is told of it. What has not ended is not alive either."""
_SIGNS_OF_LIFE = {EventType.WORKER_STOPPING, EventType.WORKER_STOPPED}


def refold_fleet(db: sqlite3.Connection) -> None:
    """Fill workers, holds, agents, meta, alerts and what counts, from events that are complete."""
    events = [
        event for event in map(read_event, db.execute(_OF_OTHERS)) if not event.data.get(ADOPTED)
    ]
    db.executemany(_ADD_WORKER, _workers(events))
    db.executemany("INSERT INTO holds VALUES (?, ?, ?, ?, ?)", _holds(events))
    db.execute(_PACE)
    db.execute(f"INSERT INTO spent {derived.SPENT}")
    db.execute(f"INSERT INTO spent_before {derived.SPENT_BEFORE}")
    count_all(db)
    db.execute(_TOLD)
    refold_alerts(db, events)
    seeded = [event.data for event in events if event.type is EventType.SEEDED]
    if not seeded:
        return
    db.execute("INSERT INTO meta VALUES ('dag', ?)", (seeded[-1]["dag"],))
    rules = seeded[-1].get("agents", {})
    staggered = any(rule["stagger"] for rule in rules.values())
    starts = dict(db.execute(_LAST_STARTS)) if staggered else {}
    db.executemany(
        "INSERT INTO agents VALUES (?, ?, ?, ?)",
        (
            (name, rule["limit"], rule["stagger"], starts.get(name) if rule["stagger"] else None)
            for name, rule in rules.items()
        ),
    )


def _holds(events: Iterable[Event]) -> Iterable[tuple[str | None, ...]]:
    """Return the agents that are held, since when, and why."""
    holds: dict[str, tuple[str | None, ...]] = {}
    for event in events:
        if event.agent is None:
            continue
        if event.type is EventType.HELD:
            data = event.data
            cause, until = data.get("cause", HoldCause.OPERATOR), data.get("until")
            # Told again: it takes the place of the one before.
            holds[event.agent] = (
                *(event.agent, to_iso(event.ts), cause, data.get("reason", "")),
                until,
            )
        elif event.type is EventType.RESUMED:
            holds.pop(event.agent, None)
    return holds.values()


def _workers(events: Iterable[Event]) -> Iterable[tuple[Any, ...]]:
    """Return the rows of all workers, each as it was entered last."""
    rows: dict[str, tuple[Any, ...]] = {}
    for event in events:
        name, at = event.worker_id, to_iso(event.ts)
        if name is None:
            continue
        status = _STATUSES.get(event.type)
        if event.type is EventType.WORKER_STARTED:
            rows[name] = (name, event.agent, event.data.get("pid", 0), status, at, at)
        elif status is not None and name in rows:
            *known, _, started, beat = rows[name]
            rows[name] = (*known, status, started, at if event.type in _SIGNS_OF_LIFE else beat)
    return rows.values()
