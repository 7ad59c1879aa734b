"""Promises of the words as types: JSON is camelCase, users' keys stay, times read back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.clock import SystemClock, from_iso, to_iso, to_stamp
from engine.errors import AgentmuxError, Code, Problem, ValidationError
from engine.model import (
    ACTIVE,
    BROKEN,
    FINISHED,
    NAME,
    Claim,
    Event,
    EventType,
    Reason,
    State,
    TaskDef,
    camel,
    to_json,
)

MOMENT = datetime(2026, 11, 20, 10, 11, 12, 123_999, tzinfo=UTC)
TIMES = st.datetimes(
    min_value=datetime(1970, 1, 1),  # noqa: DTZ001 - Hypothesis wants it naive and adds the zone
    max_value=datetime(9999, 12, 31),  # noqa: DTZ001 - likewise
    timezones=st.just(UTC),
)


@given(TIMES, TIMES)
def test_times_are_written_to_the_millisecond_and_sort_as_text(
    one: datetime, two: datetime
) -> None:
    text = to_iso(one)
    assert len(text) == 24
    assert text.endswith("Z")
    assert timedelta(0) <= one - from_iso(text) < timedelta(milliseconds=1)
    assert to_iso(from_iso(text)) == text
    if one <= two:
        assert text <= to_iso(two)


def test_a_time_is_iso_8601_with_milliseconds_and_z() -> None:
    assert to_iso(MOMENT) == "2026-11-20T10:11:12.123Z"
    assert to_stamp(MOMENT) == "20261120T101112123Z"


def test_the_systems_clock_is_in_utc_and_never_goes_back() -> None:
    clock = SystemClock()
    assert clock.now().utcoffset() == timedelta(0)
    assert clock.monotonic() <= clock.monotonic()


def test_snake_case_becomes_camel_case() -> None:
    assert [camel(name) for name in ("id", "lease_until", "a_b_c")] == ["id", "leaseUntil", "aBC"]


def test_json_has_camel_case_keys_but_leaves_the_keys_of_users_alone() -> None:
    task = TaskDef("t:1", "T", "codex", ("a",), payload={"kind": "shell", "my_key": {"x_y": 1}})
    claim = Claim("r1", task, "codex-1", 1, State.RUNNING, MOMENT, MOMENT)
    value = to_json(claim)
    assert value["leaseUntil"] == "2026-11-20T10:11:12.123Z"
    assert value["workerId"] == "codex-1"
    assert value["state"] == "RUNNING"
    assert value["task"]["deps"] == ["a"]
    assert value["task"]["payload"] == {"kind": "shell", "my_key": {"x_y": 1}}
    assert json.loads(json.dumps(value)) == value


def test_sets_become_sorted_lists_and_absent_things_null() -> None:
    event = Event(1, MOMENT, EventType.SEEDED, data={"reasons": {Reason.UPSTREAM, Reason.HUMAN}})
    value = to_json(event)
    assert value["data"] == {"reasons": ["human", "upstream"]}
    assert value["taskId"] is None
    assert value["type"] == "SEEDED"


def test_the_named_sets_of_states_share_out_all_states() -> None:
    assert {State.READY, State.BLOCKED} | ACTIVE | FINISHED == set(State)
    assert not ACTIVE & FINISHED
    assert State.DONE not in BROKEN
    assert not BROKEN & (ACTIVE | {State.READY})


@pytest.mark.parametrize("name", ["codex\n", "", "a" * 65, "a b", "ä"])
def test_a_name_is_matched_as_a_whole(name: str) -> None:
    assert NAME.fullmatch(name) is None


def test_every_error_that_reaches_a_user_has_a_code_of_its_own() -> None:
    kinds = AgentmuxError.__subclasses__()
    codes = {kind.code for kind in kinds if kind.__module__ == "engine.errors"}
    assert codes == set(Code)


def test_a_refused_file_tells_all_its_problems_with_their_lines() -> None:
    error = ValidationError(
        "dag.yaml has 2 problems",
        (Problem(3, "tasks[0].agent", "must be text"), Problem(0, "", "is empty")),
    )
    lines = str(error).split("\n")
    assert lines[0] == "dag.yaml has 2 problems"
    assert lines[1].strip() == "line 3: tasks[0].agent: must be text"
    assert lines[2].strip() == "is empty"
