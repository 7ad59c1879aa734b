"""One transaction as its changes see it: the connection, the moment, the events it will leave."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.clock import to_iso
from engine.machine import dep_change, settle
from engine.model import EventType, Reason, State
from engine.store.counting import COUNTED_TYPES, Counted

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from engine.model import Budget

ADD_EVENT = (
    "INSERT INTO events(ts, type, agent, worker_id, task_id, run_id, state, data)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)

ADD_RUN = (
    "INSERT INTO runs(id, task_id, agent, worker_id, attempt, claimed_at, started_at, host_pid,"
    " host_started) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
END_RUN = (
    "UPDATE runs SET outcome = ?, ended_at = ?, exit_code = ?, error = ?, result = ? WHERE id = ?"
)

# Made once: json.dumps makes a new encoder for each call that is not all defaults.
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def dump(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """Write JSON as it is stored: compact, ASCII, so that no control character survives."""
    return _encode(value)


EventRow = tuple[str | None, ...]
"""A row of `events` without its seq, in the order of ADD_EVENT."""


def event_row(
    ts: str,
    kind: EventType,
    agent: str | None = None,
    worker_id: str | None = None,
    task_id: str | None = None,
    run_id: str | None = None,
    state: State | None = None,
    data: Mapping[str, Any] | None = None,
) -> EventRow:
    """Return an event as it is written with ADD_EVENT; `state` is the one it left the task in."""
    return ts, kind, agent, worker_id, task_id, run_id, state, dump(data) if data else "{}"


class Standing(Struct):
    """What the machine must know of a task to decide; a row of `tasks`, read under the lock."""

    id: str
    agent: str
    state: State
    reasons: tuple[Reason, ...]
    broken: int
    removed: bool

    @property
    def human(self) -> bool:
        """Whether only a human can help."""
        return Reason.HUMAN in self.reasons


class ClaimRule(Struct, frozen=True):
    """Whether an agent's claims are held, how many runs it may have, seconds between starts, and
    the budget, if one concerns it.
    """  # noqa: D205

    held: bool
    limit: int | None
    stagger: float
    budget: Budget | None = None


class Transaction:
    """Handed to every change inside BEGIN…COMMIT, on the writer's thread.

    `now` is one moment for the whole transaction. Events are collected and written with the
    commit, in the order in which they were told. So are the rows of runs, which nothing reads in
    the transaction that writes them: one executemany costs a third of as many calls. `ready`
    counts, by agent, the tasks that became claimable: the writer's owner wakes that many idle
    workers. `taken` are the runs that lost their task to an order or a time limit: whoever hosts
    them ends them. `blocked` and `unblocked` count the tasks that others carried with them.
    `bulk` counts rows that were written without an event, for whoever takes checkpoints.
    `rules` remembers what was read of holds, limits and the budget; whoever changes those clears
    it.
    """

    def __init__(self, connection: sqlite3.Connection, now: datetime) -> None:
        self.db = connection
        self.now = now
        self.ts = to_iso(now)
        self.ready: dict[str, int] = {}
        self.taken: list[str] = []
        self.bulk = 0
        self.blocked = 0
        self.unblocked = 0
        self.done = 0
        self.failed = 0
        self.rules: dict[str, ClaimRule] = {}
        self._events: list[EventRow] = []
        self._counted = Counted()
        self._new_runs: list[tuple[Any, ...]] = []
        self._ended_runs: list[tuple[Any, ...]] = []
        self._later: dict[float, str] = {}

    def event(
        self,
        kind: EventType,
        *,
        agent: str | None = None,
        worker_id: str | None = None,
        task_id: str | None = None,
        run_id: str | None = None,
        state: State | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Tell what happened; `state` is the one that it left the task in."""
        self._events.append(
            event_row(self.ts, kind, agent, worker_id, task_id, run_id, state, data)
        )
        if kind in COUNTED_TYPES:
            self._counted.add(kind, agent or "", data or {})

    def later(self, seconds: float) -> str:
        """Return the moment `seconds` from now, as it is stored."""
        found = self._later.get(seconds)
        if found is None:
            found = self._later[seconds] = to_iso(self.now + timedelta(seconds=seconds))
        return found

    def add_run(self, *values: Any) -> None:
        """Add a row of `runs`, in the order of ADD_RUN; written with the events."""
        self._new_runs.append(values)

    def end_run(self, *values: Any) -> None:
        """Say how a run ended, in the order of END_RUN; written with the events."""
        self._ended_runs.append(values)

    def flush_runs(self) -> None:
        """Write the rows of runs now: a claim in this transaction may have made one of them."""
        if self._new_runs:
            self.db.executemany(ADD_RUN, self._new_runs)
            self._new_runs.clear()
        if self._ended_runs:
            self.db.executemany(END_RUN, self._ended_runs)
            self._ended_runs.clear()

    def flush(self) -> int:
        """Write what was collected; return how many events. For the writer, before COMMIT."""
        self.flush_runs()
        if self.done or self.failed:
            self.db.execute(
                "INSERT INTO pace VALUES (?, ?, ?) ON CONFLICT(minute) DO UPDATE"
                " SET done = done + excluded.done, failed = failed + excluded.failed",
                (self.ts[:16], self.done, self.failed),
            )
        if self._events:
            self.db.executemany(ADD_EVENT, self._events)
        if self._counted:
            self._counted.write(self.db)
        return len(self._events)

    def now_claimable(self, agent: str) -> None:
        """Note that one more task of `agent` can be claimed."""
        self.ready[agent] = self.ready.get(agent, 0) + 1

    def rest(self, task: Standing, *, human: bool | None = None, error: str | None = None) -> State:
        """Let an unfinished task that nobody holds come to rest as READY or BLOCKED.

        Writes and tells the change, if there is one, and carries it down the DAG. Returns the
        state. `human` adds or lifts that reason.
        """
        change = self._settle(task, human=task.human if human is None else human, error=error)
        if change is not None:
            self._spread([change])
        return task.state

    def spread(self, task_id: str, old: State | None, new: State) -> None:
        """Tell a task's dependents that it went from `old` to `new`, and theirs, and so on."""
        self._spread([(task_id, *dep_change(old, new))])

    def _spread(self, wave: list[tuple[str, int, int]]) -> None:
        while wave:
            dep, met, broken = wave.pop()
            if met or broken:
                wave.extend(self._one_dep_changed(dep, met, broken))

    def _one_dep_changed(self, dep: str, met: int, broken: int) -> list[tuple[str, int, int]]:
        if self.db.execute("SELECT 1 FROM edges WHERE dep = ? LIMIT 1", (dep,)).fetchone() is None:
            return []
        rows = self.db.execute(
            "UPDATE tasks SET pending = pending - ?, broken = broken + ?"
            " WHERE id IN (SELECT task FROM edges WHERE dep = ?)"
            " RETURNING id, agent, state, reasons, broken, removed, pending, position, not_before",
            (met, broken, dep),
        ).fetchall()
        changed = []
        for row in sorted(rows, key=lambda row: int(row[7])):
            task = Standing(
                row[0], row[1], State(row[2]), read_reasons(row[3]), row[4], bool(row[5])
            )
            if task.state is State.READY and not task.broken and met > 0 and row[6] == 0:
                self.event(
                    EventType.TASK_READY, agent=task.agent, task_id=task.id, state=State.READY
                )
                if row[8] is None:
                    self.now_claimable(task.agent)
            elif task.state in (State.READY, State.BLOCKED):
                was = task.state
                change = self._settle(task, human=task.human)
                if change is not None:
                    changed.append(change)
                    self.blocked += was is State.READY and task.state is State.BLOCKED
                    self.unblocked += was is State.BLOCKED and task.state is State.READY
        return changed

    def _settle(
        self, task: Standing, *, human: bool, error: str | None = None
    ) -> tuple[str, int, int] | None:
        state, reasons = settle(human=human, broken=task.broken, removed=task.removed)
        if (state, reasons) == (task.state, task.reasons):
            return None
        self.db.execute(
            "UPDATE tasks SET state = ?, reasons = ?, error = coalesce(?, error), updated_at = ?"
            " WHERE id = ?",
            (state, dump(reasons), error, self.ts, task.id),
        )
        data: dict[str, Any] = {"reasons": reasons}
        if error is not None:
            data["error"] = error
        self.event(
            EventType.TASK_BLOCKED if reasons else EventType.TASK_READY,
            agent=task.agent,
            task_id=task.id,
            state=state,
            data=data,
        )
        old, task.state, task.reasons = task.state, state, reasons
        if state is State.READY:
            self.now_claimable(task.agent)
        return (task.id, *dep_change(old, state))


def read_reasons(text: str) -> tuple[Reason, ...]:
    """Read the reasons column."""
    return () if text == "[]" else tuple(Reason(reason) for reason in json.loads(text))
