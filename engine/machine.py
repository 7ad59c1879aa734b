"""What may happen to a task: the transitions of DESIGN §3 as data, and `fold` beside them.

Pure. The store asks here before it writes; nothing here knows that a store exists.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from engine.errors import IllegalTransition
from engine.model import ACTIVE, ADOPTED, BROKEN, Event, EventType, Reason, RunOutcome, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ENDING_SECONDS = 60.0
"""A tree that lives so long after its run lost the task will not go by itself: hosts end theirs
within `grace` and a second, and any process that holds workers helps them after some more."""
LOST_LIMIT = 3
"""So many lost runs in a row, and only a human can help."""

FIRST_BACKOFF = 5.0
LONGEST_BACKOFF = 300.0


class Trigger(StrEnum):
    """What can happen to a task."""

    CREATE = "create"
    REDEFINE = "redefine"
    DEPS_MET = "deps met"
    CLAIM = "claim"
    START = "start"
    PROGRESS = "progress"
    COMPLETE = "complete"
    FAIL = "fail"
    BLOCK = "block"
    UNBLOCK = "unblock"
    RELEASE = "release"
    EXPIRE = "expire"
    CANCEL = "cancel"
    KILL = "kill"
    RETRY = "retry"
    PURGE = "purge"


class Transition(Struct, frozen=True):
    """One row of the table. No target: the state stays. No source: there is no task yet."""

    source: frozenset[State]
    target: frozenset[State]
    event: EventType


def _row(source: Iterable[State], target: Iterable[State], event: EventType) -> Transition:
    return Transition(frozenset(source), frozenset(target), event)


_S, _E = State, EventType
TRANSITIONS: Mapping[Trigger, Transition] = {
    Trigger.CREATE: _row((), (_S.READY, _S.BLOCKED), _E.TASK_CREATED),
    Trigger.REDEFINE: _row(_S, (), _E.TASK_UPDATED),
    Trigger.DEPS_MET: _row((_S.READY,), (), _E.TASK_READY),
    Trigger.CLAIM: _row((_S.READY,), (_S.CLAIMED,), _E.TASK_CLAIMED),
    Trigger.START: _row((_S.CLAIMED,), (_S.RUNNING,), _E.TASK_STARTED),
    Trigger.PROGRESS: _row((_S.RUNNING,), (), _E.TASK_PROGRESS),
    Trigger.COMPLETE: _row((_S.RUNNING,), (_S.DONE,), _E.TASK_COMPLETED),
    Trigger.FAIL: _row(ACTIVE, (_S.READY, _S.FAILED), _E.TASK_FAILED),
    # BLOCKED is a source too: reasons are a set, and a second one may join the first.
    Trigger.BLOCK: _row((_S.READY, _S.BLOCKED, *ACTIVE), (_S.BLOCKED,), _E.TASK_BLOCKED),
    Trigger.UNBLOCK: _row((_S.BLOCKED,), (_S.READY,), _E.TASK_READY),
    Trigger.RELEASE: _row(ACTIVE, (_S.READY,), _E.TASK_RELEASED),
    Trigger.EXPIRE: _row(ACTIVE, (_S.READY,), _E.LEASE_EXPIRED),
    Trigger.CANCEL: _row((_S.READY, _S.BLOCKED, *ACTIVE), (_S.CANCELLED,), _E.TASK_CANCELLED),
    Trigger.KILL: _row(ACTIVE, (_S.FAILED,), _E.TASK_FAILED),
    Trigger.RETRY: _row(
        (_S.FAILED, _S.CANCELLED, _S.DONE, _S.BLOCKED), (_S.READY,), _E.TASK_RETRIED
    ),
    Trigger.PURGE: _row(_S, (), _E.TASK_PURGED),
}


def allowed(trigger: Trigger, state: State, reasons: Iterable[Reason] = ()) -> bool:
    """Say whether `trigger` may happen to a task in `state`.

    Retry lifts `human` only: a task that left the DAG, or whose dep is broken, stays BLOCKED.
    """
    if state not in TRANSITIONS[trigger].source:
        return False
    if trigger is Trigger.RETRY and state is State.BLOCKED:
        kinds = set(reasons)
        return Reason.HUMAN in kinds and Reason.REMOVED not in kinds
    return True


def check(trigger: Trigger, task_id: str, state: State, reasons: Iterable[Reason] = ()) -> None:
    """Raise IllegalTransition, with the current state named, unless `trigger` is allowed."""
    if not allowed(trigger, state, reasons):
        known = ", ".join(reasons)
        why = f"{state} ({known})" if known else str(state)
        raise IllegalTransition(task_id, why, str(trigger), _instead(trigger, state, reasons))


def _instead(trigger: Trigger, state: State, reasons: Iterable[Reason]) -> str:
    """Return what helps where a retry does not; nothing for what needs no help."""
    if trigger is not Trigger.RETRY:
        return ""
    if state is State.READY:
        return "it is ready or waiting already"
    if state in ACTIVE:
        return "release it, or kill its run first"
    removed = Reason.REMOVED in set(reasons)
    return "put it back into the DAG and reseed" if removed else "retry what it depends on"


def settle(*, human: bool, broken: int, removed: bool) -> tuple[State, tuple[Reason, ...]]:
    """Say where a task that nobody holds and that is not finished must stand, and why.

    `broken` counts deps that are FAILED, CANCELLED, BLOCKED or were purged unfinished.
    """
    reasons = tuple(
        reason
        for reason, applies in (
            (Reason.UPSTREAM, broken > 0),
            (Reason.HUMAN, human),
            (Reason.REMOVED, removed),
        )
        if applies
    )
    return (State.BLOCKED if reasons else State.READY), reasons


def dep_change(old: State | None, new: State) -> tuple[int, int]:
    """Return what a dep's change adds to its dependents' counts: (met, broken), each -1, 0 or 1."""
    return (
        (new is State.DONE) - (old is State.DONE),
        (new in BROKEN) - (old in BROKEN),
    )


def backoff(failures: int, jitter: float) -> float:
    """Return the seconds to wait after the nth failure in a row: 5 s doubling, at most 300 s.

    `jitter` in 0..1 spreads the wait over 80 to 120 % so that a fleet does not march in step.
    """
    wait = min(FIRST_BACKOFF * 2.0 ** min(failures - 1, 16), LONGEST_BACKOFF)
    return float(min(wait * (0.8 + 0.4 * jitter), LONGEST_BACKOFF))


class FoldedRun(Struct):
    """A run as the log tells it. `outcome` is None while it goes on."""

    worker_id: str | None
    attempt: int
    outcome: RunOutcome | None = None


class FoldedTask(Struct):
    """A task as the log tells it. `definition` is the JSON form of a TaskDef."""

    definition: Mapping[str, Any]
    state: State
    reasons: tuple[Reason, ...] = ()
    attempts: int = 0
    runs: dict[str, FoldedRun] = field(default_factory=dict)


def fold(events: Iterable[Event]) -> dict[str, FoldedTask]:
    """Rebuild every task from its events: definition, state, reasons, attempts and runs.

    Every event carries the state that it left the task in, so nothing is guessed. Lease times
    are not covered. Events of unknown tasks are skipped: their creation lies in a lost file. So
    are those that an older agentmux left, for they say less than is needed here.
    """
    tasks: dict[str, FoldedTask] = {}
    for event in events:
        if event.task_id is None or event.data.get(ADOPTED):
            continue
        if event.type is EventType.TASK_CREATED:
            tasks[event.task_id] = task = FoldedTask(event.data["definition"], State.READY)
        elif event.task_id not in tasks:
            continue
        else:
            task = tasks[event.task_id]
        _apply(task, event)
        if event.type is EventType.TASK_PURGED:
            del tasks[event.task_id]
    return tasks


def _apply(task: FoldedTask, event: Event) -> None:
    if event.type is EventType.LATE_RESULT:
        return
    if event.state is not None:
        task.state = event.state
    data = event.data
    if event.type is EventType.TASK_UPDATED:
        task.definition = data["definition"]
    if "reasons" in data:
        task.reasons = tuple(Reason(reason) for reason in data["reasons"])
    elif task.state is not State.BLOCKED:
        task.reasons = ()
    if "attempts" in data:
        task.attempts = data["attempts"]
    if event.run_id is None:
        return
    if event.type is EventType.TASK_CLAIMED:
        task.runs[event.run_id] = FoldedRun(event.worker_id, data["attempt"])
    elif "outcome" in data and event.run_id in task.runs:
        task.runs[event.run_id].outcome = RunOutcome(data["outcome"])
