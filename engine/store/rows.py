"""Rows of the database as typed values. Columns and readers stand together."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

from msgspec import Struct

from engine.clock import from_iso
from engine.model import (
    LIVE_WORKERS,
    Event,
    EventType,
    ProcessId,
    RunOutcome,
    Spending,
    State,
    WorkerStatus,
)
from engine.store.transaction import read_reasons
from engine.views import RunRow, TaskRow, WorkerRow

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime


class Shape(Struct, frozen=True):
    """The columns that a reader below wants, in its order, and the join that gives them."""

    columns: str
    join: str = ""


TASK = Shape(
    "t.id, t.name, t.agent, t.state, t.deps, t.reasons, t.error, t.attempts, t.retries, t.priority,"
    " t.pending, t.claimed_by, t.run_id, t.lease_until, t.timeout_at, t.not_before, r.worker_id,"
    " r.started_at, r.ended_at, t.created_at, t.updated_at, t.ending,"
    " json_extract(t.payload, '$.kind')",
    "LEFT JOIN runs r ON r.n = (SELECT max(n) FROM runs WHERE task_id = t.id)",
)
RUN = Shape(
    "r.id, r.task_id, r.agent, r.worker_id, r.attempt, r.outcome, r.claimed_at, r.started_at,"
    " r.ended_at, r.exit_code, r.error, r.result, r.turns, r.input_tokens, r.cached_tokens,"
    " r.output_tokens, r.cost,"
    " (SELECT json_extract(its.payload, '$.kind') FROM tasks its WHERE its.id = r.task_id)"
)
HOLDS = (
    "LEFT JOIN tasks t INDEXED BY held ON t.state IN ('CLAIMED', 'RUNNING') AND t.claimed_by = w.id"
)
"""What a worker `w` holds. Left to itself, SQLite reads every task to make an index of its own."""
_DOING = (
    "coalesce((SELECT iif(e.type = 'TASK_PROGRESS' AND json_valid(e.data),"
    " CAST(json_extract(e.data, '$.note') AS TEXT), NULL)"
    " FROM events e WHERE e.task_id = t.id ORDER BY e.seq DESC LIMIT 1), w.note)"
)
"""What the run that a worker holds told last, unless something else happened to its task since."""
WORKER = Shape(
    f"w.id, w.agent, w.pid, w.pid_started, w.status, w.started_at, w.beat_at, {_DOING}, t.id,"
    " t.run_id, r.started_at, t.lease_until, w.own_process",
    f"{HOLDS} LEFT JOIN runs r ON r.id = t.run_id",
)
EVENT = Shape("seq, ts, type, agent, worker_id, task_id, run_id, state, data")

ON_SCREEN = (
    "(CASE state WHEN 'RUNNING' THEN 0 WHEN 'CLAIMED' THEN 0 WHEN 'BLOCKED' THEN 1"
    " WHEN 'FAILED' THEN 2 WHEN 'READY' THEN CASE WHEN pending = 0 THEN 3 ELSE 4 END"
    " WHEN 'DONE' THEN 5 ELSE 6 END)"
)
"""Spelled as in the index on_screen: SQLite matches expressions by their text."""


class ActiveRun(Struct, frozen=True):
    """A run that holds a task. `host` is its worker's process, `leader` the run's first one.

    `worker_over`: the worker itself says that it ended, so it cannot hold anything.
    """

    task_id: str
    run_id: str
    worker_id: str
    lease_until: datetime
    asked: str | None
    leader: ProcessId | None
    host: ProcessId
    worker_over: bool
    timeout_at: datetime | None
    beat_at: datetime | None

    @classmethod
    def read(cls, row: tuple[Any, ...]) -> Self:
        """Read a row of Lookout.active."""
        host = ProcessId(row[7], row[8])
        its_row = (row[9], row[10]) == (host.pid, host.started)
        return cls(
            task_id=row[0],
            run_id=row[1],
            worker_id=row[2],
            lease_until=from_iso(row[3]),
            asked=row[4],
            leader=ProcessId(row[5], row[6]) if row[5] is not None else None,
            host=host,
            worker_over=its_row and WorkerStatus(row[11]) not in LIVE_WORKERS,
            timeout_at=_moment(row[12]),
            beat_at=_moment(row[13]) if its_row else None,
        )


class EndingRun(Struct, frozen=True):
    """A run that lost its task at `since` and whose tree may still live; see ActiveRun."""

    run_id: str
    task_id: str
    worker_id: str
    since: datetime
    leader: ProcessId | None
    host: ProcessId

    @classmethod
    def read(cls, row: tuple[Any, ...]) -> Self:
        """Read a row of Lookout.endings."""
        return cls(
            run_id=row[0],
            task_id=row[1],
            worker_id=row[2],
            since=from_iso(row[3]),
            leader=ProcessId(row[4], row[5]) if row[4] is not None else None,
            host=ProcessId(row[6], row[7]),
        )


class LiveWorker(Struct, frozen=True):
    """A worker that says it is live, its process, and the run that it holds, if it does.

    `own_process`: the process is there for this worker alone. `stopping`: it has heard that it is
    to stop.
    """

    id: str
    agent: str
    host: ProcessId
    own_process: bool
    task_id: str | None
    run_id: str | None
    stopping: bool = False

    @classmethod
    def read(cls, row: tuple[Any, ...]) -> Self:
        """Read a row of Lookout.workers."""
        host = ProcessId(row[2], row[3])
        return cls(row[0], row[1], host, bool(row[4]), row[5], row[6], bool(row[7]))


def read_task(row: tuple[Any, ...]) -> TaskRow:
    """Read a row of TASK."""
    return TaskRow(
        id=row[0],
        name=row[1],
        agent=row[2],
        state=State(row[3]),
        deps=tuple(json.loads(row[4])),
        reasons=read_reasons(row[5]),
        error=row[6],
        attempts=row[7],
        retries=row[8],
        priority=row[9],
        pending=row[10],
        claimed_by=row[11],
        run_id=row[12],
        lease_until=_moment(row[13]),
        timeout_at=_moment(row[14]),
        not_before=_moment(row[15]),
        worker_id=row[16],
        started_at=_moment(row[17]),
        ended_at=_moment(row[18]),
        created_at=from_iso(row[19]),
        updated_at=from_iso(row[20]),
        ending=row[21],
        kind=row[22] or "",
    )


def read_run(row: tuple[Any, ...]) -> RunRow:
    """Read a row of RUN."""
    return RunRow(
        id=row[0],
        task_id=row[1],
        agent=row[2],
        worker_id=row[3],
        attempt=row[4],
        outcome=RunOutcome(row[5]) if row[5] else None,
        claimed_at=from_iso(row[6]),
        started_at=_moment(row[7]),
        ended_at=_moment(row[8]),
        exit_code=row[9],
        error=row[10],
        result=json.loads(row[11]) if row[11] else None,
        spending=Spending(*row[12:17]),
        kind=row[17] or "",
    )


def read_worker(row: tuple[Any, ...], is_alive: Callable[[ProcessId], bool]) -> WorkerRow:
    """Read a row of WORKER. A worker that ended is not asked for: its pid may be another's now."""
    status = WorkerStatus(row[4])
    return WorkerRow(
        id=row[0],
        agent=row[1],
        pid=row[2],
        status=status,
        alive=status in LIVE_WORKERS and is_alive(ProcessId(row[2], row[3])),
        started_at=from_iso(row[5]),
        beat_at=from_iso(row[6]),
        note=row[7],
        task_id=row[8],
        run_id=row[9],
        run_started_at=_moment(row[10]),
        lease_until=_moment(row[11]),
        own_process=bool(row[12]),
    )


def read_event(row: tuple[Any, ...]) -> Event:
    """Read a row of EVENT."""
    return Event(
        row[0],
        from_iso(row[1]),
        EventType(row[2]),
        row[3],
        row[4],
        row[5],
        row[6],
        State(row[7]) if row[7] else None,
        json.loads(row[8]) if row[8] != "{}" else {},
    )


def _moment(text: str | None) -> datetime | None:
    return from_iso(text) if text else None
