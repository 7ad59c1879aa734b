"""Promises of the rebuild, line by line: each event counts once, and no line can stop it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import damage
from support.clock import ManualClock
from support.damage import open_once, quarantined, stopped_dead
from support.pasts import a_past
from support.retelling import same, told
from support.stores import events_of

from engine.model import EventType
from engine.store.database import create_schema
from engine.store.recovery.loglines import read_line
from engine.store.transaction import Transaction

if TYPE_CHECKING:
    from pathlib import Path

NAMES = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
DATA = st.dictionaries(
    st.text(max_size=6).filter(lambda key: key not in {"seq", "ts", "type", "state", "adopted"}),
    VALUES,
    max_size=4,
)


@given(names=st.tuples(NAMES, NAMES, NAMES, NAMES), data=DATA)
def test_an_event_that_was_read_from_its_line_gives_back_that_line(
    names: tuple[str | None, ...], data: dict[str, Any]
) -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        create_schema(db)
        tx = Transaction(db, ManualClock().now())
        agent, worker, task, run = names
        tx.event(
            EventType.ALERT, agent=agent, worker_id=worker, task_id=task, run_id=run, data=data
        )
        tx.flush()
        line = db.execute("SELECT line FROM event_lines").fetchone()[0]
        try:
            row = read_line(line.encode())
        except UnicodeEncodeError:
            pytest.fail("half a character is no reason to give up")
        if row is None:
            assert "\\ud" in line, "only half a character is refused"
            return
        db.execute("DELETE FROM events")
        db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        assert db.execute("SELECT line FROM event_lines").fetchone()[0] == line


CREATED = {
    "seq": 1,
    "ts": "2026-01-01T00:00:00.000Z",
    "type": "TASK_CREATED",
    "agent": "codex",
    "taskId": "a",
    "state": "READY",
    "definition": {
        "id": "a",
        "name": "a",
        "agent": "codex",
        "deps": [],
        "priority": 0,
        "timeout": 60.0,
        "retries": 0,
        "payload": {"kind": "noop"},
    },
}
CLAIMED = {
    "seq": 2,
    "ts": "2026-01-01T00:00:00.000Z",
    "type": "TASK_CLAIMED",
    "agent": "codex",
    "workerId": "codex-1",
    "taskId": "a",
    "runId": "r",
    "state": "CLAIMED",
    "attempt": 1,
    "attempts": 1,
}


def without(event: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != key}


def defined(**changes: Any) -> dict[str, Any]:
    return CREATED | {"definition": CREATED["definition"] | changes}  # type: ignore[operator] # a dict


UNUSABLE: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b"   ",
    "zeros": bytes(200),
    "no JSON": b'{"seq":1,',
    "no UTF-8": b'{"seq":1,"ts":"\xff"}',
    "no object": b"[1, 2]",
    "a number": b"17",
    "deep": b'{"seq":1,"ts":' + b"[" * 100_000,
    "a huge number": b'{"seq":' + b"9" * 10_000 + b"}",
    "NaN": b'{"seq":1,"ts":"2026-01-01T00:00:00.000Z","type":"ALERT","x":NaN}',
    "infinity": b'{"seq":1,"ts":"2026-01-01T00:00:00.000Z","type":"ALERT","x":1e999}',
    **{
        name: json.dumps(event).encode()
        for name, event in {
            "no seq": without(CREATED, "seq"),
            "seq is text": CREATED | {"seq": "1"},
            "seq is 0": CREATED | {"seq": 0},
            "seq is huge": CREATED | {"seq": 2**63},
            "seq is true": CREATED | {"seq": True},
            "no time": without(CREATED, "ts"),
            "time is none": CREATED | {"ts": "yesterday"},
            "time in another way": CREATED | {"ts": "2026-01-01T00:00:00Z"},
            "unknown type": CREATED | {"type": "TASK_COMPLETFD"},
            "unknown state": CREATED | {"state": "BUSY"},
            "no state": without(CREATED, "state"),
            "no task": without(CREATED, "taskId"),
            "task is a number": CREATED | {"taskId": 7},
            "half a character": CREATED | {"taskId": "\ud800"},
            "half a character inside": defined(name="\udfff"),
            "no definition": without(CREATED, "definition"),
            "definition is text": CREATED | {"definition": "x"},
            "definition of another": defined(id="b"),
            "deps are numbers": defined(deps=[1]),
            "priority is huge": defined(priority=2**70),
            "timeout is text": defined(timeout="60"),
            "no attempt": without(CLAIMED, "attempt"),
            "attempts are negative": CLAIMED | {"attempts": -1},
            "no run": without(CLAIMED, "runId"),
            "no worker": without(CLAIMED, "workerId"),
            "unknown outcome": CLAIMED | {"outcome": "lucky"},
            "unknown reason": CLAIMED | {"reasons": ["because"]},
            "reasons are a number": CLAIMED | {"reasons": 3},
            "result is a list": CLAIMED | {"result": []},
            "error is a number": CLAIMED | {"error": 3},
            "hold of nobody": {**without(CREATED, "agent"), "type": "HELD"},
            "hold for no reason that there is": CREATED | {"type": "HELD", "cause": "mood"},
            "hold in no words": CREATED | {"type": "HELD", "reason": 3},
            "hold until some time": CREATED | {"type": "HELD", "until": "soon"},
            "spending is text": CLAIMED | {"spending": "a lot"},
            "tokens are text": CLAIMED | {"spending": {"inputTokens": "3"}},
            "tokens are huge": CLAIMED | {"spending": {"outputTokens": 2**62}},
            "cost is negative": CLAIMED | {"spending": {"cost": -0.5}},
            "late and too dear": CLAIMED | {"type": "LATE_RESULT", "spending": {"cost": 1e7}},
            "told of no run": {**without(CLAIMED, "runId"), "type": "ISSUE_TOLD"},
            "worker of nobody": CREATED | {"type": "WORKER_STARTED"},
            "rules of nothing": CREATED | {"type": "SEEDED", "dag": "d", "agents": {"a": 1}},
            "no DAG": CREATED | {"type": "SEEDED"},
        }.items()
    },
}


def test_the_lines_that_are_broken_below_can_be_used_as_they_are() -> None:
    for event in (
        *(CREATED, CLAIMED, CLAIMED | {"seq": 2**63 - 1}),
        CREATED | {"type": "HELD", "cause": "limit", "reason": "x", "until": CREATED["ts"]},
        CLAIMED | {"spending": {"inputTokens": 3, "cost": 0.5}},
        CLAIMED | {"type": "LATE_RESULT", "spending": {}},
        CLAIMED | {"type": "ISSUE_TOLD"},
    ):
        assert read_line(json.dumps(event).encode()) is not None


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_line_that_is_no_event_is_not_taken(kind: str) -> None:
    assert read_line(UNUSABLE[kind]) is None


async def test_lines_that_are_no_events_are_passed_over_kept_and_told(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
        before = told(it.layout)
    good = damage.lines_of(it.layout)
    bad = [line + b"\n" for line in UNUSABLE.values()]
    mixed = [line for pair in zip(good, bad, strict=False) for line in pair]
    torn = b'{"seq":400,"ts":"2026'
    damage.write_log(it.layout, [*mixed, *good[len(bad) :], torn])
    damage.delete(it.layout)
    notices = open_once(it.layout, clock=it.clock)
    same(told(it.layout), before)
    kept = quarantined(it.layout, "bad-lines.jsonl")
    assert kept.read_bytes() == b"".join([*bad, torn, b"\n"])
    assert kept.stat().st_mode & 0o077 == 0
    assert any(
        all(
            part in notice
            for part in (f"{len(bad) + 1} lines", "line 2 of events.jsonl", str(kept))
        )
        for notice in notices
    )


async def test_a_line_that_comes_twice_counts_once(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
        before = told(it.layout)
    lines = damage.lines_of(it.layout)
    twice = [*lines[:20], *lines[10:20], *lines[20:], lines[5], lines[-1]]
    damage.write_log(it.layout, twice)
    damage.delete(it.layout)
    notices = open_once(it.layout, clock=it.clock)
    same(told(it.layout), before)
    kept = quarantined(it.layout, "bad-lines.jsonl").read_bytes()
    assert kept == b"".join([*lines[10:20], lines[5], lines[-1]])
    assert any("12 lines" in notice for notice in notices)


async def test_lines_in_the_wrong_order_are_put_right(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
        before = told(it.layout)
    lines = damage.lines_of(it.layout)
    damage.write_log(it.layout, [*lines[30:], *lines[:30]])
    damage.delete(it.layout)
    open_once(it.layout, clock=it.clock)
    same(told(it.layout), before)


async def test_a_damaged_digit_does_not_move_an_event_behind_all_others(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
    lines = damage.lines_of(it.layout)
    (number,) = [n for n, line in enumerate(lines) if b'"HELD"' in line and b'"held"' in line]
    lines[number] = lines[number].replace(b'{"seq":', b'{"seq":9', 1)
    damage.write_log(it.layout, lines)
    damage.delete(it.layout)
    notices = open_once(it.layout, clock=it.clock)
    assert events_of(it.layout)[-1].seq == len(lines)
    assert any(f"lacks 1 event ({number + 1})" in notice for notice in notices)
    assert quarantined(it.layout, "bad-lines.jsonl").read_bytes() == lines[number]


async def test_a_line_that_somebody_wrote_in_another_way_says_the_same(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
        before = told(it.layout)
    other = [
        json.dumps(json.loads(line), ensure_ascii=False, sort_keys=True) + "\n"
        for line in damage.lines_of(it.layout)
    ]
    damage.write_log(it.layout, [line.encode() for line in other])
    damage.delete(it.layout)
    open_once(it.layout, clock=it.clock)
    after = told(it.layout)
    for tables in (before, after):
        for row in tables["events"]:
            row["data"] = json.loads(row["data"])
        for row in tables["tasks"]:
            row["payload"] = json.loads(row["payload"])
    same(after, before)
