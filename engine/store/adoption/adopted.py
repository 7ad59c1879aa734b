"""A task of an older agentmux on its way into a new store: its row, its run, and its events.

The events tell how the task came from its creation to where it stands, at the times of the old
store, so that they fold to the rows. Where it stands depends on its deps: `adoption` says that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.clock import to_iso
from engine.dag import to_definition
from engine.machine import settle
from engine.model import ACTIVE, BROKEN, FINISHED, EventType, Reason, RunOutcome, State, TaskDef
from engine.store.adoption.oldtasks import UNKNOWN
from engine.store.claims import new_run_id
from engine.store.transaction import dump, event_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from engine.store.adoption.oldlog import Clue
    from engine.store.adoption.oldtasks import OldTask
    from engine.store.transaction import EventRow

ADD_TASK = (
    "INSERT INTO tasks(id, name, agent, state, reasons, attempts, pending, broken, error,"
    " created_at, updated_at, position, priority, timeout, retries, deps, payload)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
# Nobody knows in which process it ran; no process has such a start, so none can be taken for it.
ADD_RUN = (
    "INSERT INTO runs(id, task_id, agent, worker_id, attempt, outcome, claimed_at, started_at,"
    " ended_at, error, result, host_pid, host_started)"
    f" VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?, 0, '{UNKNOWN}')"
)

_OUTCOMES = {
    State.DONE: RunOutcome.DONE,
    State.FAILED: RunOutcome.FAILED,
    State.CLAIMED: RunOutcome.RELEASED,
    State.RUNNING: RunOutcome.RELEASED,
}
"""How the run of a task that had one ended, by the task's old state."""


class AdoptedTask:
    """A task on its way into the new store; `come_to_rest` says where an unfinished one stands."""

    def __init__(self, old: OldTask, clue: Clue, now: datetime) -> None:
        self.id = old.id
        self.deps = old.deps
        self.old = old
        self.finished = old.state in FINISHED
        self.state = old.state if old.state is not None and self.finished else State.READY
        self.reasons: tuple[Reason, ...] = ()
        self.pending = self.broken = 0
        self.error = self._why(clue) if old.state in {State.FAILED, State.BLOCKED} else None
        self.changed = old.updated
        self.definition = TaskDef(
            old.id, old.name, old.agent, old.deps, retries=old.retries, payload=old.payload
        )
        self.run = AdoptedRun.of(old, clue, now) if old.state in _OUTCOMES else None
        self._now = now

    def _why(self, clue: Clue) -> str:
        return self.old.error or clue.error or f"{self.old.state} under an older agentmux"

    def come_to_rest(self, *, broken: int, trouble: str | None) -> State:
        """Make an unfinished task READY or BLOCKED; `broken` counts its deps that are broken.

        `trouble` is why only a human can help. A task that was BLOCKED, but not for a dep, had a
        reason of its own.
        """
        was_blocked = self.old.state is State.BLOCKED
        trouble = trouble or self.old.trouble
        if trouble is None and was_blocked and not broken:
            trouble = self.error
        self.error = trouble
        self.state, self.reasons = settle(human=trouble is not None, broken=broken, removed=False)
        if self.run is not None or (self.state is State.BLOCKED and not was_blocked):
            self.changed = self._now
        return self.state

    def count(self, deps: Mapping[str, State]) -> None:
        """Count deps once all of them stand where they stay."""
        states = [deps[dep] for dep in self.deps]
        self.pending = sum(state is not State.DONE for state in states)
        self.broken = sum(state in BROKEN for state in states)
        if not self.finished:
            human = Reason.HUMAN in self.reasons
            _, self.reasons = settle(human=human, broken=self.broken, removed=False)

    def events(self) -> Iterator[EventRow]:
        """Tell how the task came from its creation to where it stands."""
        names: dict[str, Any] = {"agent": self.old.agent, "task_id": self.id}
        definition = {"definition": to_definition(self.definition)}
        yield event_row(
            to_iso(self.old.created),
            EventType.TASK_CREATED,
            **names,
            state=State.READY,
            data=definition,
        )
        if self.run is not None:
            yield from self.run.events(self)
        elif self.state is State.CANCELLED:
            yield event_row(
                to_iso(self.changed), EventType.TASK_CANCELLED, **names, state=self.state
            )
        if self.state is State.BLOCKED:
            data: dict[str, Any] = {"reasons": self.reasons}
            if self.error is not None:
                data["error"] = self.error
            yield event_row(
                to_iso(self.changed), EventType.TASK_BLOCKED, **names, state=self.state, data=data
            )

    def row(self, position: int) -> tuple[Any, ...]:
        """Return its row of `tasks`."""
        task = self.definition
        attempts = int(self.finished and self.run is not None)
        return (
            *(task.id, task.name, task.agent, self.state, dump(self.reasons), attempts),
            *(self.pending, self.broken, self.error, to_iso(self.old.created)),
            *(to_iso(self.changed), position, task.priority, task.timeout, task.retries),
            *(dump(task.deps), dump(task.payload)),
        )


class AdoptedRun(Struct, frozen=True):
    """The one run that is known of a task, in part a guess: the old table tells only its end."""

    id: str
    worker_id: str
    outcome: RunOutcome
    claimed: datetime
    started: datetime | None
    ended: datetime
    took_ms: int | None

    @classmethod
    def of(cls, old: OldTask, clue: Clue, now: datetime) -> AdoptedRun:
        """Work out the run of a task that was claimed, and finished perhaps.

        When it began is what the log says, else the only moment that is known.
        """
        assert old.state is not None, "a task without a state had no run"
        ended = now if old.state in ACTIVE else old.updated
        claimed = max(old.created, min(clue.since or old.updated, ended))
        took = None if clue.since is None else round((ended - claimed).total_seconds() * 1000)
        return cls(
            new_run_id(claimed),
            old.worker_id or clue.worker_id or UNKNOWN,
            _OUTCOMES[old.state],
            claimed,
            None if old.state is State.CLAIMED else claimed,
            ended,
            took,
        )

    def events(self, task: AdoptedTask) -> Iterator[EventRow]:
        """Tell the run from its claim to its end."""
        names: dict[str, Any] = {
            "agent": task.old.agent,
            "worker_id": self.worker_id,
            "task_id": task.id,
            "run_id": self.id,
        }
        attempt = {"attempt": 1, "attempts": 1}
        yield event_row(
            to_iso(self.claimed), EventType.TASK_CLAIMED, **names, state=State.CLAIMED, data=attempt
        )
        if self.started is not None:
            yield event_row(
                to_iso(self.started), EventType.TASK_STARTED, **names, state=State.RUNNING
            )
        data: dict[str, Any] = {"outcome": self.outcome}
        if self.took_ms is not None:
            data["durationMs"] = self.took_ms
        if task.old.result is not None:
            data["result"] = task.old.result
        match self.outcome:
            case RunOutcome.DONE:
                kind, state = EventType.TASK_COMPLETED, State.DONE
            case RunOutcome.FAILED:
                kind, state = EventType.TASK_FAILED, State.FAILED
                data |= {"error": task.error, "attempts": 1, "retries": task.old.retries}
            case _:
                kind, state = EventType.TASK_RELEASED, State.READY
                data |= {"attempts": 0, "by": "adopted unfinished from an older agentmux"}
        yield event_row(to_iso(self.ended), kind, **names, state=state, data=data)

    def row(self, task: AdoptedTask) -> tuple[Any, ...]:
        """Return its row of `runs`."""
        return (
            *(self.id, task.id, task.old.agent, self.worker_id, self.outcome),
            *(to_iso(self.claimed), to_iso(self.started) if self.started else None),
            *(to_iso(self.ended), task.error if self.outcome is RunOutcome.FAILED else None),
            None if task.old.result is None else dump(task.old.result),
        )
