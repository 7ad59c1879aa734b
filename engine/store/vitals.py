"""One short look at what goes on: counts, active runs, runs that are being ended, workers.

All in one snapshot, at a cost that does not grow with the DAG: tallies and partial indexes, no
scan. For health, for the inspection, and for whoever must know which workers live.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from engine.clock import from_iso
from engine.errors import StorageError
from engine.model import LIVE_WORKERS, HoldCause, ProcessId, ServiceState, State, WorkerStatus
from engine.store.database import (
    BUSY_MS,
    SCHEMA_VERSION,
    Connection,
    other_schema,
    schema_version,
    storage_error,
)
from engine.store.feeds import FeedTrouble, failing_feeds
from engine.store.roster import RESET_MARK
from engine.store.spending import unpriced

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

_LIVE = (
    "SELECT id, agent, pid, pid_started, status, beat_at FROM workers"
    " WHERE status IN ('live', 'stopping') ORDER BY agent, id"
)
_HELD = (
    "SELECT t.id, t.agent, t.state, t.run_id, t.claimed_by, t.lease_until, r.task_id, r.worker_id,"
    " r.outcome, coalesce(r.started_at, r.claimed_at), r.host_pid, r.host_started, w.status"
    " FROM tasks t LEFT JOIN runs r ON r.id = t.run_id LEFT JOIN workers w ON w.id = r.worker_id"
    " AND w.pid = r.host_pid AND w.pid_started = r.host_started"
    " WHERE t.state IN ('CLAIMED', 'RUNNING') ORDER BY r.n"
)
_ENDING = (
    "SELECT run_id, task_id, worker_id, since, host_pid, host_started FROM endings ORDER BY since"
)


_SERVICES = (
    "SELECT name, state, message, restarts, keeper_pid, keeper_started FROM services ORDER BY name"
)
_PACE = "SELECT minute, done, failed FROM pace ORDER BY minute DESC LIMIT 61"
_NOTICED = "SELECT count(*) FROM alerts WHERE acknowledged_at IS NULL AND error"


class KnownWorker(Struct, frozen=True):
    """A worker that the table believes to live. Whether `host` does is for others to say."""

    id: str
    agent: str
    host: ProcessId
    status: WorkerStatus
    beat_at: datetime


class HoldingRun(Struct, frozen=True):
    """A run that holds a task since it was started, or claimed if it was not.

    `host` is None if the runs table does not have the run. `over`: its worker says of itself that
    it has ended. `flaw` says in words how its row contradicts the task's, if it does.
    """

    run_id: str
    task_id: str
    agent: str
    worker_id: str
    since: datetime | None
    host: ProcessId | None
    over: bool
    flaw: str


class LeavingRun(Struct, frozen=True):
    """A run that lost its task at `since` and whose tree may still live."""

    run_id: str
    task_id: str
    worker_id: str
    since: datetime
    host: ProcessId


class KeptService(Struct, frozen=True):
    """A service as its keeper has told of it. `keeper`: a process that keeps it, or did."""

    name: str
    state: ServiceState
    message: str
    restarts: int
    keeper: ProcessId | None


class Vitals(Struct, frozen=True):
    """The store at one moment. `tallies` counts tasks by agent, state and whether they wait.

    `limits` are those of agents that have one; `held` names agents (`*`: all), `causes` says why,
    and for what reason in words; `resetting`: a reset was begun and never completed; `unpriced`:
    agents whose runs a budget cannot count, and how many; `feeds` are those that fail. `pace`: how
    many runs ended well and badly in each of the last minutes (ISO text) in which one did.
    `noticed`: how many alerts tell of an error and wait for somebody.
    """

    tallies: Mapping[tuple[str, State, bool], int] = field(default_factory=dict)
    runs: tuple[HoldingRun, ...] = ()
    leaving: tuple[LeavingRun, ...] = ()
    workers: tuple[KnownWorker, ...] = ()
    held: tuple[str, ...] = ()
    causes: Mapping[str, tuple[HoldCause, str]] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    resetting: bool = False
    unpriced: Mapping[str, int] = field(default_factory=dict)
    feeds: tuple[FeedTrouble, ...] = ()
    services: tuple[KeptService, ...] = ()
    pace: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    noticed: int = 0

    @property
    def keepers(self) -> frozenset[ProcessId]:
        """The processes that keep services, or did."""
        return frozenset(one.keeper for one in self.services if one.keeper is not None)

    @property
    def run_ids(self) -> frozenset[str]:
        """The runs that may have processes."""
        return frozenset(run.run_id for run in self.runs) | {run.run_id for run in self.leaving}


def open_for_reading(database: Path) -> sqlite3.Connection:
    """Open the database so that nothing can be written through it; raises sqlite3.Error."""
    # Handed from thread to thread by its owner, never used by two at once.
    uri = f"{database.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(
        uri, uri=True, isolation_level=None, timeout=BUSY_MS / 1000, factory=Connection
    )


def read_vitals(database: Path) -> Vitals:
    """Look at the store; blocks for as long as a short read.

    Raises:
        StorageError: the database cannot be read, or holds what nobody could have written.

    """
    try:
        with closing(open_for_reading(database)) as db:
            version = schema_version(db)
            if version != SCHEMA_VERSION:
                tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                raise StorageError(f"{database} {'; '.join(other_schema(version, tables=tables))}")
            db.execute("BEGIN")
            try:
                return _read(db)
            finally:
                db.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise storage_error(error, database) from error
    except (ValueError, TypeError) as error:
        raise StorageError(f"{database}: {error}; run `agentmux doctor`") from error


def _read(db: sqlite3.Connection) -> Vitals:
    tallies = db.execute("SELECT agent, state, waiting, n FROM tallies WHERE n <> 0")
    mark = db.execute("SELECT 1 FROM meta WHERE key = ?", (RESET_MARK,)).fetchone()
    holds = db.execute("SELECT agent, cause, reason FROM holds ORDER BY agent").fetchall()
    return Vitals(
        {(agent, State(state), bool(waiting)): n for agent, state, waiting, n in tallies},
        holding_runs(db),
        tuple(
            LeavingRun(run, task, worker, from_iso(since), ProcessId(pid, started))
            for run, task, worker, since, pid, started in db.execute(_ENDING)
        ),
        known_workers(db),
        tuple(row[0] for row in holds),
        {agent: (HoldCause(cause), reason) for agent, cause, reason in holds},
        dict(db.execute("SELECT name, run_limit FROM agents WHERE run_limit IS NOT NULL")),
        mark is not None,
        unpriced(db),
        failing_feeds(db),
        tuple(
            KeptService(
                name,
                ServiceState(state),
                said,
                restarts,
                ProcessId(pid, started) if pid is not None else None,
            )
            for name, state, said, restarts, pid, started in db.execute(_SERVICES)
        ),
        {minute: (done, failed) for minute, done, failed in db.execute(_PACE)},
        db.execute(_NOTICED).fetchone()[0],
    )


def known_workers(db: sqlite3.Connection) -> tuple[KnownWorker, ...]:
    """Return the workers that the table believes to live, by agent and id."""
    return tuple(
        KnownWorker(worker, agent, ProcessId(pid, started), WorkerStatus(status), from_iso(beat_at))
        for worker, agent, pid, started, status, beat_at in db.execute(_LIVE)
    )


def holding_runs(db: sqlite3.Connection) -> tuple[HoldingRun, ...]:
    """Return every run that holds a task, oldest first; tasks that nobody holds come with them."""
    return tuple(map(_holding, db.execute(_HELD)))


def _holding(row: tuple[Any, ...]) -> HoldingRun:
    task_id, agent, _, run_id, claimed_by, *_, since, pid, started, status = row
    known = pid is not None
    return HoldingRun(
        run_id=run_id or "",
        task_id=task_id,
        agent=agent,
        worker_id=claimed_by or "",
        since=from_iso(since) if known else None,
        host=ProcessId(pid, started) if known else None,
        over=status is not None and WorkerStatus(status) not in LIVE_WORKERS,
        flaw=_flaw(*row[:9]),
    )


def _flaw(
    task_id: str,
    _agent: str,
    state: str,
    run_id: str | None,
    claimed_by: str | None,
    lease: str | None,
    run_task: str | None,
    worker_id: str | None,
    outcome: str | None,
) -> str:
    if None in {run_id, claimed_by, lease}:
        return (
            f"task {task_id!r} is {state}, but the table says run {run_id}, worker {claimed_by}, "
            f"lease until {lease}"
        )
    if run_task is None:
        return f"task {task_id!r} is held by run {run_id}, which the runs table lacks"
    if (run_task, worker_id) != (task_id, claimed_by):
        return (
            f"task {task_id!r} is held by run {run_id} of {claimed_by}, "
            f"which is a run of {worker_id} at {run_task!r}"
        )
    if outcome is not None:
        return f"task {task_id!r} is {state}, but its run {run_id} ended: {outcome}"
    return ""
