"""Tables from the events table alone: what a rebuild writes once all events are there.

What an event means for a task's state is `machine.fold`'s to say. Here stands what it means for
the other columns, as `claims`, `endings`, `orders` and `seeding` write them. The log does not tell
everything. Of a store that is rebuilt from it

- the tasks stand in the order of their creation until the next reseed, and one that left the DAG
  after it was finished, or while it runs, is noticed then, too;
- a run that holds a task is nobody's: the reaper ends its tree by its tag and expires it. So with
  a run that was ended within the last minute: its task cannot be claimed before that;
- hosts, leaders, leases, requests to release, notes and heartbeats of workers are unknown, and a
  worker of which no end was told is lost;
- holds stay, but whether a reset had begun is not known; backoffs that are over are gone. The
  budget is not known until somebody starts workers, which names it anew.

What lines that are lost leave open is closed with new events, so that the log folds to the table.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from engine.clock import from_iso, to_iso
from engine.dag import from_definition
from engine.machine import ENDING_SECONDS, FoldedTask, fold
from engine.model import ACTIVE, ADOPTED, Event, EventType, Reason, RunOutcome, State
from engine.store import derived
from engine.store.mending import mend
from engine.store.recovery.refolding_fleet import refold_fleet
from engine.store.rows import EVENT, read_event
from engine.store.transaction import Transaction, dump

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

_OF_TASKS = (
    f"SELECT {EVENT.columns} FROM events INDEXED BY events_of_task"
    " WHERE task_id IS NOT NULL ORDER BY task_id, seq"
)
_ADD_TASK = (
    "INSERT INTO tasks(id, name, agent, state, reasons, attempts, lost, removed, not_before,"
    " run_id, claimed_by, lease_until, timeout_at, ending, error, created_at, updated_at, position,"
    " priority, timeout, retries, deps, payload)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ADD_EDGE = "INSERT OR IGNORE INTO edges(dep, task) VALUES (?, ?)"
_ADD_RUN = (
    "INSERT INTO runs(n, id, task_id, agent, worker_id, attempt, outcome, claimed_at, started_at,"
    " ended_at, exit_code, error, result, turns, input_tokens, cached_tokens, output_tokens, cost,"
    " host_pid, host_started)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, '')"
)
_ADD_ENDING = (
    "INSERT INTO endings(run_id, task_id, agent, worker_id, since, host_pid, host_started)"
    " VALUES (?, ?, ?, ?, ?, 0, '')"
)
_NUMBER = (
    "UPDATE tasks SET position = place FROM (SELECT id AS known,"
    " row_number() OVER (ORDER BY position) - 1 AS place FROM tasks) WHERE id = known"
)
# A task whose creation is lost: for what depends on it, its last known state counts.
_UNKNOWN = (
    "INSERT INTO purged SELECT DISTINCT dep, coalesce((SELECT state = 'DONE' FROM events e"
    " WHERE e.task_id = dep AND e.state IS NOT NULL ORDER BY seq DESC LIMIT 1), 0)"
    f" FROM ({derived.UNKNOWN})"
)

_ENDED_LATER = {
    RunOutcome.CANCELLED,
    RunOutcome.KILLED,
    RunOutcome.TIMED_OUT,
    RunOutcome.BLOCKED,
}
"""How runs end that can lose their task before their tree is gone."""
_AFRESH = {
    EventType.TASK_COMPLETED,
    EventType.TASK_FAILED,
    EventType.TASK_RELEASED,
    EventType.TASK_CANCELLED,
    EventType.TASK_RETRIED,
}
"""After these, losses are counted anew."""
_NO_ERROR = {EventType.TASK_COMPLETED, EventType.TASK_CANCELLED, EventType.TASK_RETRIED}
_ERROR = {EventType.TASK_FAILED, EventType.TASK_BLOCKED, EventType.TASK_RELEASED}
_NO_WAIT = {
    *_NO_ERROR,
    EventType.TASK_FAILED,
    EventType.TASK_RELEASED,
    EventType.TASK_CLAIMED,
}
"""After these, a backoff is over, unless the event begins one."""
_AT_ONCE = 2000
_SPENDING = ("turns", "inputTokens", "cachedTokens", "outputTokens", "cost")


class Refolded(Struct, frozen=True):
    """How many tasks there are now, how many the log names without their creation, and how many
    events had to be added for what lost ones had left open.
    """  # noqa: D205

    tasks: int
    unknown: int
    added: int


class _Run(Struct):
    """What the row of a run needs beyond what the fold says of it."""

    claim: Event
    started: Event | None = None
    ended: Event | None = None
    spending: Mapping[str, Any] = field(default_factory=dict)


class _Life(Struct):
    """What the row of a task needs beyond what the fold says of it."""

    created: Event
    updated: Event
    timeout: float = 0.0
    error: str | None = None
    not_before: str | None = None
    lost: int = 0
    runs: dict[str, _Run] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Follow one more event."""
        kind, data = event.type, event.data
        # That its deps are met changes nothing in a task's row but a count.
        only_met = kind is EventType.TASK_READY and "reasons" not in data
        if not only_met and kind not in {EventType.TASK_PROGRESS, EventType.ISSUE_TOLD}:
            self.updated = event
        if "definition" in data:
            self.timeout = float(data["definition"]["timeout"])
        if kind in _AFRESH:
            self.lost = 0
        elif kind is EventType.LEASE_EXPIRED:
            self.lost = data.get("lost", self.lost)
        if kind in _NO_ERROR:
            self.error = None
        elif kind in _ERROR:
            self.error = data.get("error", self.error)
        if kind in _NO_WAIT or "notBefore" in data:
            self.not_before = data.get("notBefore")
        self._follow_run(event)

    def _follow_run(self, event: Event) -> None:
        if event.run_id is None:
            return
        if event.type is EventType.TASK_CLAIMED:
            self.runs[event.run_id] = _Run(event)
        elif (run := self.runs.get(event.run_id)) is not None:
            if event.type is EventType.TASK_STARTED:
                run.started = event
            elif "outcome" in event.data:
                run.ended = event
            run.spending = event.data.get("spending", run.spending)


def refold(db: sqlite3.Connection, now: datetime, told: Callable[[int], None]) -> Refolded:
    """Fill all other tables of a database that holds nothing but events.

    In the caller's transaction. `told` hears how many tasks are through, now and then.
    """
    refolding = _Refolding(db, now)
    unknown = 0
    for count, (task_id, events) in enumerate(_by_task(db), 1):
        unknown += not refolding.add(task_id, events)
        if count % _AT_ONCE == 0:
            refolding.flush()
            told(count)
    refolding.flush()
    db.execute(_NUMBER)
    refold_fleet(db)
    db.execute(f"INSERT INTO purged {derived.PURGED_MISSING}")
    db.execute(_UNKNOWN)
    tx = Transaction(db, now)
    refolding.close_open_ends(tx)
    mend(tx)
    added = tx.flush()
    tasks = int(db.execute("SELECT count(*) FROM tasks").fetchone()[0])
    return Refolded(tasks, unknown, added)


def _by_task(db: sqlite3.Connection) -> Iterator[tuple[str, list[Event]]]:
    for task_id, rows in groupby(db.execute(_OF_TASKS), key=lambda row: row[5]):
        events = [event for event in map(read_event, rows) if not event.data.get(ADOPTED)]
        if events:
            yield task_id, events


class _Refolding:
    """Tasks, and their runs and deps, on their way into their tables, some at a time."""

    def __init__(self, db: sqlite3.Connection, now: datetime) -> None:
        self._db = db
        self._now = to_iso(now)
        last = db.execute("SELECT ts FROM events ORDER BY seq DESC LIMIT 1").fetchone()
        self._recent = from_iso(last[0]) - timedelta(seconds=ENDING_SECONDS) if last else now
        self._tasks: list[tuple[Any, ...]] = []
        self._edges: list[tuple[str, str]] = []
        self._runs: list[tuple[Any, ...]] = []
        self._endings: list[tuple[Any, ...]] = []
        self._open_ends: list[tuple[Event, State, str | None]] = []

    def add(self, task_id: str, events: list[Event]) -> bool:
        """Take a task's events; False: its creation is lost, so nothing is known of it."""
        life: _Life | None = None
        last: _Run | None = None
        gone = False
        for event in events:
            if event.type is EventType.TASK_CREATED:
                life = _Life(event, event)
            if life is not None and event.type is not EventType.LATE_RESULT:
                life.add(event)
                last = next(reversed(life.runs.values()), last)
            elif life is not None and event.run_id in life.runs:
                run = life.runs[event.run_id]
                run.spending = event.data.get("spending", run.spending)
            gone = event.type is EventType.TASK_PURGED or (
                gone and event.type is EventType.LATE_RESULT
            )
        folded = fold(events).get(task_id)
        if folded is None or life is None:
            if last is not None:
                self._add_ending(task_id, last)
            return gone
        open_ends = len(self._open_ends)
        holder = self._add_runs(task_id, folded, life)
        if folded.state in ACTIVE and holder is None:
            # Its claim is lost, and with it the run: nobody can say how that ended.
            folded.state = State.READY
            named = [event for event in events if event.run_id is not None]
            self._open_ends.append((named[-1] if named else events[-1], State.READY, None))
        ending = None if holder or last is None else self._add_ending(task_id, last)
        # What is told of it below is the last that happens to it.
        updated = to_iso(life.updated.ts) if len(self._open_ends) == open_ends else self._now
        self._add_task(task_id, folded, life, holder, ending, updated)
        return True

    def _add_runs(self, task_id: str, folded: FoldedTask, life: _Life) -> _Run | None:
        """Take a task's runs; return the one that holds it."""
        holder = None
        if folded.state in ACTIVE:
            holders = [run_id for run_id, run in folded.runs.items() if run.outcome is None]
            holder = holders[-1] if holders else None
        for run_id, told in folded.runs.items():
            run = life.runs[run_id]
            outcome, ended = told.outcome, run.ended
            if outcome is None and run_id != holder:
                outcome = RunOutcome.EXPIRED
                self._open_ends.append((run.claim, folded.state, outcome))
            data = ended.data if ended is not None else {}
            over = to_iso(ended.ts) if ended is not None else self._now
            result = data.get("result")
            self._runs.append(
                (
                    *(run.claim.seq, run_id, task_id, run.claim.agent, told.worker_id),
                    *(told.attempt, outcome, to_iso(run.claim.ts)),
                    to_iso(run.started.ts) if run.started is not None else None,
                    over if outcome is not None else None,
                    *(data.get("exitCode"), data.get("error")),
                    None if result is None else dump(result),
                    *(run.spending.get(name) for name in _SPENDING),
                )
            )
        return None if holder is None else life.runs[holder]

    def _add_ending(self, task_id: str, run: _Run) -> str | None:
        """Take the last run of a task that nobody holds, if its tree may still live."""
        claim, ended = run.claim, run.ended
        if ended is None or ended.ts < self._recent or ended.data["outcome"] not in _ENDED_LATER:
            return None
        self._endings.append(
            (claim.run_id, task_id, claim.agent, claim.worker_id, to_iso(ended.ts))
        )
        return claim.run_id

    def _add_task(
        self,
        task_id: str,
        folded: FoldedTask,
        life: _Life,
        holder: _Run | None,
        ending: str | None,
        updated: str,
    ) -> None:
        task = from_definition(folded.definition)
        until = None
        if holder is not None and holder.started is not None and folded.state is State.RUNNING:
            until = to_iso(holder.started.ts + timedelta(seconds=life.timeout))
        waits = life.not_before is not None and life.not_before > self._now
        self._tasks.append(
            (
                *(task_id, task.name, task.agent, folded.state),
                dump(folded.reasons) if folded.reasons else "[]",
                *(folded.attempts, life.lost, Reason.REMOVED in folded.reasons),
                life.not_before if waits else None,
                *((holder.claim.run_id, holder.claim.worker_id) if holder else (None, None)),
                self._now if holder else None,
                *(until, ending, life.error, to_iso(life.created.ts), updated),
                *(life.created.seq, task.priority, task.timeout, task.retries),
                *(dump(task.deps) if task.deps else "[]", dump(task.payload)),
            )
        )
        self._edges += ((dep, task_id) for dep in task.deps)

    def flush(self) -> None:
        """Write what was taken."""
        for sql, rows in (
            (_ADD_TASK, self._tasks),
            (_ADD_EDGE, self._edges),
            (_ADD_RUN, self._runs),
            (_ADD_ENDING, self._endings),
        ):
            self._db.executemany(sql, rows)
            rows.clear()

    def close_open_ends(self, tx: Transaction) -> None:
        """Tell how runs ended of whose end or claim the log knows nothing."""
        for event, state, outcome in self._open_ends:
            tx.event(
                EventType.LEASE_EXPIRED,
                agent=event.agent,
                worker_id=event.worker_id,
                task_id=event.task_id,
                run_id=event.run_id,
                state=state,
                data={"outcome": outcome} if outcome is not None else None,
            )
