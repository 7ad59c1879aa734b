"""Every event is one plain sentence, every state one symbol of its own."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.clock import to_iso
from engine.model import Event, EventType, Reason, State
from engine.narrate import describe, describe_changes, describe_reasons, event_symbol, symbol
from engine.text import cells, clean_text

NOW = datetime(2026, 11, 20, 10, 12, 44, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KEYS = [
    "definition", "attempt", "durationMs", "error", "attempts", "retries", "notBefore", "outcome",
    "reason", "spending", "until", "cause",
    "reasons", "by", "lost", "dag", "created", "pid", "note", "message", "result", "changed",
]  # fmt: skip
EVENTS = st.builds(
    Event,
    seq=st.integers(1),
    ts=st.just(NOW),
    type=st.sampled_from(EventType),
    agent=st.none() | st.text(),
    worker_id=st.none() | st.text(),
    task_id=st.none() | st.text(),
    state=st.none() | st.sampled_from(State),
    data=st.dictionaries(st.sampled_from(KEYS), JSON | st.sampled_from(["upstream", "\x1b[2J"])),
)


def happened(type_: EventType, state: State | None = None, **data: Any) -> Event:
    return Event(
        seq=1, ts=NOW, type=type_, agent="codex", worker_id="codex-1", task_id="impl:T-004",
        state=state, data=data,
    )  # fmt: skip


@given(EVENTS)
def test_whatever_an_event_carries_or_lacks_it_becomes_one_clean_line(event: Event) -> None:
    sentence = describe(event)
    assert sentence
    assert clean_text(sentence) == sentence
    assert cells(event_symbol(event)) == 1


@pytest.mark.parametrize("type_", EventType)
def test_every_type_has_a_sentence_without_any_data(type_: EventType) -> None:
    assert describe(Event(seq=1, ts=NOW, type=type_))


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (
            happened(EventType.TASK_COMPLETED, durationMs=41_300),
            "codex-1 finished impl:T-004 in 41s",
        ),
        (
            happened(
                EventType.TASK_FAILED,
                State.READY,
                error="exit code 1",
                attempts=1,
                retries=2,
                notBefore=to_iso(NOW + timedelta(seconds=12)),
            ),
            "impl:T-004 failed: exit code 1; retry 1/2 in 12s",
        ),
        (
            happened(
                EventType.TASK_FAILED, State.FAILED, error="exit code 1", attempts=3, retries=2
            ),
            "impl:T-004 failed: exit code 1; no retry is left",
        ),
        (happened(EventType.TASK_FAILED, State.FAILED, retries=0), "impl:T-004 failed"),
        (
            happened(
                EventType.TASK_FAILED, State.FAILED, outcome="killed", error="killed by operator"
            ),
            "impl:T-004 was killed by the operator",
        ),
        (
            happened(EventType.TASK_UPDATED, changed=["deps", "name"]),
            "impl:T-004 was redefined: deps, name",
        ),
        (happened(EventType.TASK_CLAIMED, attempt=1), "codex-1 claimed impl:T-004"),
        (happened(EventType.TASK_CLAIMED, attempt=2), "codex-1 claimed impl:T-004, attempt 2"),
        (
            happened(
                EventType.TASK_BLOCKED, reasons=["upstream", "human"], error="ssh not allowed"
            ),
            "impl:T-004 is blocked: a dep did not succeed; needs you: ssh not allowed",
        ),
        (
            happened(EventType.TASK_BLOCKED, reasons=["human"], error="ssh not allowed"),
            "impl:T-004 needs you: ssh not allowed",
        ),
        (
            happened(EventType.TASK_RELEASED, by="worker stopped"),
            "impl:T-004 was released from codex-1: worker stopped",
        ),
        (
            happened(
                EventType.TASK_RELEASED,
                by="agent",
                error="usage limit",
                notBefore=to_iso(NOW + timedelta(hours=5)),
            ),
            "impl:T-004 was put back: usage limit; tries again in 5h00m",
        ),
        (
            happened(EventType.LEASE_EXPIRED, lost=2),
            "impl:T-004 was lost: codex-1 went silent (2 times in a row)",
        ),
        (
            happened(EventType.SEEDED, dag="dag.yaml", created=3, updated=0, unchanged=1),
            "seeded from dag.yaml: 3 created, 1 unchanged",
        ),
        (happened(EventType.WORKER_STARTED, pid=4411), "codex-1 started (pid 4411)"),
        (Event(1, NOW, EventType.HELD, agent="*"), "claims are held for all agents"),
        (
            Event(
                1, NOW, EventType.HELD, agent="claude", data={"cause": "login", "reason": "log in"}
            ),
            "claims are held for claude: log in",
        ),
        (
            Event(
                1,
                NOW,
                EventType.HELD,
                agent="claude",
                data={"cause": "limit", "reason": "5 h", "until": to_iso(NOW + timedelta(hours=5))},
            ),
            "claims are held for claude: 5 h; they go on in 5h00m",
        ),
        (
            happened(EventType.LATE_RESULT, spending={"cost": 0.5}),
            "codex-1 told what its run of impl:T-004 took, which was over",
        ),
        (happened(EventType.ISSUE_TOLD), "the issue of impl:T-004 was told of its result"),
        (Event(1, NOW, EventType.RESUMED, agent="codex"), "claims are resumed for codex"),
    ],
)
def test_the_sentence_says_who_did_what(event: Event, sentence: str) -> None:
    assert describe(event) == sentence


def test_braces_in_an_id_are_only_text() -> None:
    event = Event(seq=1, ts=NOW, type=EventType.TASK_READY, task_id="{worker} {0}")
    assert describe(event) == "{worker} {0} is ready"


def test_each_state_has_a_symbol_of_its_own_and_one_cell() -> None:
    shown = [symbol(state) for state in State]
    shown += [symbol(State.READY, pending=1), symbol(State.BLOCKED, [Reason.HUMAN])]
    shown += [symbol(State.BLOCKED, [Reason.REMOVED])]
    assert len(set(shown)) == len(shown) == len(State) + 3
    assert all(cells(one) == 1 and unicodedata.category(one)[0] in "SP" for one in shown)


def test_what_needs_a_person_is_shown_before_other_reasons() -> None:
    assert symbol(State.BLOCKED, list(Reason)) == symbol(State.BLOCKED, [Reason.HUMAN])
    assert describe_reasons([Reason.REMOVED]) == "it left the DAG"
    assert describe_reasons([]) == ""


def test_a_change_is_told_field_by_field_with_what_was_and_what_is() -> None:
    assert describe_changes(
        {
            "name": ("old", "new\x9b31m"),
            "timeout": (3600.0, 5.5),
            "deps": (["a", "b"], ["b", "c"]),
            "payload": ({"kind": "shell", "cmd": "x", "cwd": "."}, {"kind": "shell", "cmd": "y"}),
        }
    ) == [
        'name "old" → "new"',
        "timeout 3600 → 5.5",
        "deps +c -a",
        'cmd "x" → "y"',
        'cwd "." → nothing',
    ]
    assert describe_changes({"deps": (["a", "b"], ["b", "a"])}) == ["deps in another order"]
