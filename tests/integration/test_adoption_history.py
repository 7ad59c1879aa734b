"""Promises of adoption about the old log: it comes first, whole, and changes nothing of what is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from support.older import CREATED, NOW, Left, old

from engine.machine import fold
from engine.model import EventType, State
from engine.narrate import describe
from engine.store.adoption.adoption import Adopted

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def left(tmp_path: Path) -> Left:
    return Left(tmp_path)


def test_the_old_log_comes_first_in_its_order_with_all_that_it_said(left: Left) -> None:
    lines: list[dict[str, Any]] = [
        {"ts": "2026-02-01T08:00:00Z", "type": "TASK_CREATED", "task_id": "a", "by": "me"},
        {"time": "2026-02-01T08:01:00+00:00", "event": "task_claimed", "task": "a", "worker": "w1"},
        {
            "timestamp": 1769933000,
            "kind": "TASK_STARTED",
            "taskId": "a",
            "workerId": "w1",
            "agent": "codex",
            "state": "running",
            "runId": "r1",
        },
        {"ts": "2026-02-01T09:00:00Z", "type": "worker-lost", "worker_id": "w9", "pid": 12},
    ]
    left.adopt(old("a", "DONE"), log=lines)
    events = left.events()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [(e.type, e.task_id, e.worker_id) for e in events[:4]] == [
        (EventType.TASK_CREATED, "a", None),
        (EventType.TASK_CLAIMED, "a", "w1"),
        (EventType.TASK_STARTED, "a", "w1"),
        (EventType.WORKER_LOST, None, "w9"),
    ]
    assert events[0].data == {"by": "me", "adopted": True}
    assert events[1].ts == datetime(2026, 2, 1, 8, 1, tzinfo=UTC)
    third = events[2]
    assert (third.ts, third.agent) == (datetime.fromtimestamp(1769933000, UTC), "codex")
    assert (third.state, third.run_id, third.data) == (State.RUNNING, "r1", {"adopted": True})
    assert events[3].data == {"pid": 12, "adopted": True}
    assert left.history() == events[:4]
    assert left.adopted == Adopted(1, 4, ())
    (run,) = left.runs("a")
    assert (run.worker_id, run.started_at) == ("w1", datetime(2026, 2, 1, 8, 1, tzinfo=UTC))


def test_lines_that_say_nothing_known_are_kept_whole(left: Left) -> None:
    snoozed = {
        "type": "TASK_SNOOZED",
        "task": "a",
        "until": "noon",
        "state": "READY",
        "adopted": "cat",
    }
    lines = [
        b'\xef\xbb\xbf{"ts": "2026-02-01T08:00:00Z", "type": "SEEDED"}\r',
        snoozed,
        "not json at all",
        '{"torn": ',
        b'{"type": "SEEDED", "note": "\xff"}',
        "[1, 2]",
        "",
        "   ",
        "\x00\x00",
        {"type": ["a"], "ts": {"x": 1}},
        "[" * 1000,
    ]
    left.adopt(old("a"), log=lines)
    history = left.history()
    assert left.adopted.events == len(history) == 9, "only blank lines are left out"
    assert [str(event.type) for event in history] == [
        *("SEEDED", "ALERT", "ALERT", "ALERT", "SEEDED", "ALERT", "ALERT", "ALERT", "ALERT")
    ]
    assert history[1].data["adopted"] == snoozed
    assert (history[1].task_id, history[1].state) == ("a", None)
    assert "TASK_SNOOZED" in describe(history[1])
    kept = [event.data["adopted"] for event in history[2:] if event.type is EventType.ALERT]
    assert kept == [
        {"line": "not json at all"},
        {"line": '{"torn":'},
        {"line": "[1, 2]"},
        {"line": "\x00\x00"},
        {"type": ["a"], "ts": {"x": 1}},
        {"line": "[" * 1000},
    ]
    assert history[4].data == {"note": "\ufffd", "adopted": True}
    moments = {event.ts for event in history}
    assert moments == {datetime(2026, 2, 1, 8, tzinfo=UTC)}, (
        "without a time: that of the one before"
    )
    notes = "\n".join(left.adopted.notes)
    assert "no JSON objects and are kept as alerts: line 3, line 4, line 6 and 2 more" in notes
    assert "no known type and are kept as alerts: line 2, line 10" in notes


def test_what_would_stand_twice_in_a_line_of_the_new_log_is_kept_apart(left: Left) -> None:
    line = {
        "ts": "whenever",
        "timestamp": "2026-02-01T08:00:00Z",
        "type": "TASK_FAILED",
        "seq": 4,
        "state": "exploded",
        "taskId": ["a"],
        "task": "a",
        "adopted": "no",
        "error": "boom",
    }
    left.adopt(old("a", "FAILED"), log=[line])
    (event,) = left.history()
    assert (event.task_id, event.state, event.data["error"]) == ("a", None, "boom")
    assert event.data["adopted"] == {
        "ts": "whenever",
        "seq": 4,
        "state": "exploded",
        "taskId": ["a"],
        "adopted": "no",
    }


def test_old_lines_never_change_what_the_log_folds_to(left: Left) -> None:
    lines = [
        {"type": "TASK_CREATED", "taskId": "a", "definition": {"id": "a", "name": "wrong"}},
        {"type": "TASK_FAILED", "taskId": "a", "state": "FAILED", "outcome": "failed"},
        {"type": "TASK_PURGED", "taskId": "a"},
        {"type": "TASK_CREATED", "taskId": "nobody"},
    ]
    left.adopt(old("a"), log=lines)
    folded = fold(left.events())
    assert folded.keys() == {"a"}
    assert (folded["a"].state, folded["a"].definition["name"]) == (State.READY, "Task a")


def test_the_log_tells_who_ran_a_task_when_and_why_it_failed(left: Left) -> None:
    lines = [
        {"ts": "2026-02-01T08:10:00Z", "type": "TASK_CLAIMED", "taskId": "a", "workerId": "w1"},
        {"ts": "2026-02-01T08:20:00Z", "type": "TASK_FAILED", "taskId": "a", "error": "first"},
        {"ts": "2026-02-01T09:00:00Z", "type": "TASK_STARTED", "taskId": "a", "workerId": "w2"},
        {
            "ts": "2026-02-01T09:30:00Z",
            "type": "TASK_FAILED",
            "taskId": "a",
            "data": {"message": "second"},
        },
    ]
    tasks = left.adopt(old("a", "FAILED"), old("b", "FAILED"), log=lines)
    (run,) = left.runs("a")
    assert (run.worker_id, run.error) == ("w2", "second")
    assert run.ended_at - run.started_at == timedelta(minutes=30)
    assert tasks["a"]["error"] == "second"
    assert tasks["b"]["error"] == "FAILED under an older agentmux"
    failed = [e for e in left.events() if e.task_id == "a" and "adopted" not in e.data][-1]
    assert failed.data["durationMs"] == 30 * 60 * 1000


def test_the_last_event_says_what_was_adopted_and_what_was_odd(left: Left) -> None:
    left.adopt(
        old("a", "PAUSED"),
        old("b", "DONE", created_at="2026-01-01", updated_at="2026-01-02"),
        log=[{"type": "SEEDED", "ts": CREATED}, "?"],
    )
    last = left.events()[-1]
    assert (last.type, last.ts) == (EventType.ALERT, NOW)
    assert describe(last) == "alert: adopted 2 tasks and 2 events of an older agentmux"
    assert last.data["notes"] == list(left.adopted.notes)
    own = [event.ts for event in left.events() if "adopted" not in event.data]
    assert own == sorted(own)


def test_a_store_without_a_log_has_no_history(left: Left) -> None:
    left.write([old("a")])
    left.old_log.unlink()
    assert left.convert() == Adopted(1, 0, ())
    assert left.told("a") == ["TASK_CREATED"]
