"""Promises of the transition table (DESIGN §3), of settling, of backoff and of folding the log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Code, IllegalTransition
from engine.machine import (
    FIRST_BACKOFF,
    LONGEST_BACKOFF,
    TRANSITIONS,
    FoldedRun,
    FoldedTask,
    Trigger,
    allowed,
    backoff,
    check,
    dep_change,
    fold,
    settle,
)
from engine.model import BROKEN, Event, EventType, Reason, RunOutcome, State

R, C, U, D, F, B, X = (
    State.READY,
    State.CLAIMED,
    State.RUNNING,
    State.DONE,
    State.FAILED,
    State.BLOCKED,
    State.CANCELLED,
)
ANY = {R, C, U, D, F, B, X}

# DESIGN §3, written out once more by hand: from, to (empty: it stays), event.
TABLE: dict[str, tuple[set[State], set[State], str]] = {
    "create": (set(), {R, B}, "TASK_CREATED"),
    "redefine": (ANY, set(), "TASK_UPDATED"),
    "deps met": ({R}, set(), "TASK_READY"),
    "claim": ({R}, {C}, "TASK_CLAIMED"),
    "start": ({C}, {U}, "TASK_STARTED"),
    "progress": ({U}, set(), "TASK_PROGRESS"),
    "complete": ({U}, {D}, "TASK_COMPLETED"),
    "fail": ({C, U}, {R, F}, "TASK_FAILED"),
    "block": ({R, C, U, B}, {B}, "TASK_BLOCKED"),
    "unblock": ({B}, {R}, "TASK_READY"),
    "release": ({C, U}, {R}, "TASK_RELEASED"),
    "expire": ({C, U}, {R}, "LEASE_EXPIRED"),
    "cancel": ({R, C, U, B}, {X}, "TASK_CANCELLED"),
    "kill": ({C, U}, {F}, "TASK_FAILED"),
    "retry": ({F, X, D, B}, {R}, "TASK_RETRIED"),
    "purge": (ANY, set(), "TASK_PURGED"),
}
HUMAN = (Reason.HUMAN,)


def test_the_table_has_the_rows_of_the_design_and_no_others() -> None:
    assert {str(trigger) for trigger in TRANSITIONS} == set(TABLE) == {str(t) for t in Trigger}


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("trigger", list(Trigger))
def test_each_trigger_is_allowed_in_exactly_the_states_of_its_row(
    trigger: Trigger, state: State
) -> None:
    source, target, event = TABLE[trigger]
    row = TRANSITIONS[trigger]
    assert (set(row.target), row.event) == (target, event)
    reasons = HUMAN if state is B else ()
    assert allowed(trigger, state, reasons) == (state in source)
    if state in source:
        check(trigger, "t", state, reasons)
        return
    with pytest.raises(IllegalTransition) as refusal:
        check(trigger, "t", state, reasons)
    assert refusal.value.code is Code.ILLEGAL_TRANSITION
    assert str(state) in str(refusal.value), "the current state is named"
    assert trigger in str(refusal.value)
    assert "'t'" in str(refusal.value)


@pytest.mark.parametrize(
    ("reasons", "may"),
    [
        ((Reason.HUMAN,), True),
        ((Reason.UPSTREAM, Reason.HUMAN), True),
        ((Reason.UPSTREAM,), False),
        ((Reason.REMOVED,), False),
        ((Reason.HUMAN, Reason.REMOVED), False),
        ((Reason.UPSTREAM, Reason.HUMAN, Reason.REMOVED), False),
    ],
)
def test_a_blocked_task_is_retried_only_for_a_human_and_while_it_is_in_the_dag(
    reasons: tuple[Reason, ...], may: bool
) -> None:
    assert allowed(Trigger.RETRY, State.BLOCKED, reasons) is may
    if not may:
        with pytest.raises(IllegalTransition, match=str(reasons[-1])):
            check(Trigger.RETRY, "t", State.BLOCKED, reasons)


@given(st.booleans(), st.integers(0, 9), st.booleans())
def test_a_resting_task_is_blocked_exactly_while_it_has_a_reason(
    human: bool, broken: int, removed: bool
) -> None:
    state, reasons = settle(human=human, broken=broken, removed=removed)
    assert (Reason.HUMAN in reasons) == human
    assert (Reason.UPSTREAM in reasons) == (broken > 0)
    assert (Reason.REMOVED in reasons) == removed
    assert len(set(reasons)) == len(reasons)
    assert state is (State.BLOCKED if reasons else State.READY)


@given(st.lists(st.sampled_from(State), min_size=1))
def test_what_a_dep_adds_to_its_dependents_sums_up_to_what_it_is(way: list[State]) -> None:
    met = broken = 0
    before: State | None = None
    for state in way:
        change = dep_change(before, state)
        met, broken, before = met + change[0], broken + change[1], state
    assert met == (way[-1] is State.DONE)
    assert broken == (way[-1] in BROKEN)


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(0, 1))
def test_the_backoff_doubles_from_five_seconds_to_five_minutes_within_its_jitter(
    failures: int, jitter: float, more: float
) -> None:
    nominal = 5.0 * 2 ** (failures - 1) if failures < 7 else 300.0
    wait = backoff(failures, jitter)
    assert wait <= 300.0
    assert 0.8 * nominal - 1e-9 <= wait <= 1.2 * nominal + 1e-9
    assert (backoff(failures, max(jitter, more)) >= wait) is True
    assert backoff(failures + 1, jitter) >= wait
    assert (FIRST_BACKOFF, LONGEST_BACKOFF) == (5.0, 300.0)


def test_the_jitter_spreads_the_first_retry_from_four_to_six_seconds() -> None:
    assert [backoff(1, jitter) for jitter in (0, 0.5, 1)] == pytest.approx([4.0, 5.0, 6.0])


MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
DEFINITION = {"id": "t", "name": "T"}


class Log:
    """Events, numbered as they come."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def tell(
        self, kind: str, state: State | None, run: str | None = None, task: str = "t", **data: Any
    ) -> Log:
        worker = "codex-1" if run else None
        event = Event(
            len(self.events) + 1,
            MOMENT,
            EventType(kind),
            "codex",
            worker,
            task,
            run,
            state,
            data,
        )
        self.events.append(event)
        return self

    def created(self, task: str = "t") -> Log:
        return self.tell("TASK_CREATED", R, task=task, definition=DEFINITION)

    def claimed(self, run: str, attempt: int = 1) -> Log:
        self.tell("TASK_CLAIMED", C, run, attempt=attempt, attempts=attempt)
        return self.tell("TASK_STARTED", U, run)

    def folded(self) -> FoldedTask:
        return fold(self.events)["t"]


def test_folding_rebuilds_definition_state_attempts_and_runs() -> None:
    log = Log().created().claimed("r1")
    assert log.folded() == FoldedTask(DEFINITION, U, (), 1, {"r1": FoldedRun("codex-1", 1)})
    log.tell("TASK_FAILED", R, "r1", outcome="failed", attempts=1, error="no")
    log.claimed("r2", 2).tell("TASK_COMPLETED", D, "r2", outcome="done")
    assert log.folded() == FoldedTask(
        DEFINITION,
        D,
        (),
        2,
        {
            "r1": FoldedRun("codex-1", 1, RunOutcome.FAILED),
            "r2": FoldedRun("codex-1", 2, RunOutcome.DONE),
        },
    )


def test_folding_keeps_reasons_while_a_task_is_blocked_and_drops_them_after() -> None:
    log = Log().created().tell("TASK_BLOCKED", B, reasons=["upstream"])
    assert log.folded().reasons == (Reason.UPSTREAM,)
    log.tell("TASK_BLOCKED", B, reasons=["upstream", "removed"])
    log.tell("TASK_UPDATED", B, definition={"id": "t", "name": "New"})
    assert log.folded().reasons == (Reason.UPSTREAM, Reason.REMOVED)
    assert log.folded().definition == {"id": "t", "name": "New"}
    log.tell("TASK_READY", R, reasons=[])
    assert (log.folded().state, log.folded().reasons) == (R, ())
    log.tell("TASK_BLOCKED", B, reasons=["human"]).tell("TASK_RETRIED", R, attempts=0)
    assert (log.folded().reasons, log.folded().attempts) == ((), 0)


def test_a_released_and_a_lost_run_give_their_attempt_back() -> None:
    log = Log().created().claimed("r1")
    log.tell("TASK_RELEASED", R, "r1", outcome="released", attempts=0)
    assert (log.folded().state, log.folded().attempts) == (R, 0)
    log.claimed("r2").tell("LEASE_EXPIRED", R, "r2", outcome="expired", attempts=0, lost=1)
    folded = log.folded()
    assert (folded.state, folded.attempts) == (R, 0)
    assert [run.outcome for run in folded.runs.values()] == ["released", "expired"]


def test_a_late_result_changes_nothing() -> None:
    log = Log().created().claimed("r1")
    log.tell("LEASE_EXPIRED", R, "r1", outcome="expired", attempts=0).claimed("r2")
    before = log.folded()
    log.tell("LATE_RESULT", None, "r1", late="done", outcome="done", attempts=9, reasons=["human"])
    assert log.folded() == before


def test_events_of_unknown_tasks_and_of_no_task_are_skipped() -> None:
    log = Log().tell("TASK_STARTED", U, "r0", task="lost").created()
    log.events.append(Event(3, MOMENT, EventType.SEEDED, data={"created": 1}))
    assert set(fold(log.events)) == {"t"}


def test_a_purged_task_is_gone_and_may_be_created_anew() -> None:
    log = Log().created().claimed("r1").tell("TASK_PURGED", U, task="t")
    assert fold(log.events) == {}
    assert log.created().folded() == FoldedTask(DEFINITION, R)
