"""Promises of adoption about odd values: each is read, or kept and noted; none runs by mistake."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from support.older import Left, old
from support.stores import select

from engine.model import EventType

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def left(tmp_path: Path) -> Left:
    return Left(tmp_path)


TIMES = {
    "2026-02-01T08:00:00Z": "2026-02-01T08:00:00.000Z",
    "2026-02-01T08:00:00.123456+02:00": "2026-02-01T06:00:00.123Z",
    "2026-02-01 08:00:00": "2026-02-01T08:00:00.000Z",
    "2026-02-01T08:00:00.5": "2026-02-01T08:00:00.500Z",
    "2026-02-01": "2026-02-01T00:00:00.000Z",
    1769932800: "2026-02-01T08:00:00.000Z",
    1769932800123: "2026-02-01T08:00:00.123Z",
    "2030-01-01T00:00:00Z": "2026-03-01T12:00:00.000Z",
}


@pytest.mark.parametrize("written", TIMES)
def test_times_are_read_however_they_were_written(left: Left, written: object) -> None:
    tasks = left.adopt(old("a", created_at=written, updated_at="2031-01-01T00:00:00Z"))
    assert tasks["a"]["created_at"] == TIMES[written]
    assert tasks["a"]["updated_at"] == "2026-03-01T12:00:00.000Z", "nothing happens in the future"
    assert left.adopted.notes == ()


def test_nothing_ends_before_it_began_whatever_the_old_times_say(left: Left) -> None:
    claims = [
        {"ts": f"2026-02-0{day}T00:00:00Z", "type": "TASK_CLAIMED", "taskId": task_id}
        for day, task_id in ((1, "early"), (4, "late"))
    ]
    times = {"created_at": "2026-02-02", "updated_at": "2026-02-03"}
    tasks = left.adopt(
        old("early", "DONE", **times),
        old("late", "DONE", **times),
        old("turned", "READY", created_at="2026-02-03", updated_at="2026-02-02"),
        log=claims,
    )
    for task_id, began in (("early", 2), ("late", 3)):
        (run,) = left.runs(task_id)
        assert run.claimed_at == run.started_at == datetime(2026, 2, began, tzinfo=UTC)
        assert run.ended_at == datetime(2026, 2, 3, tzinfo=UTC)
    assert tasks["turned"]["created_at"] == tasks["turned"]["updated_at"]


@pytest.mark.parametrize(
    "written",
    [None, "", "yesterday", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", -1e30, "∞"],
)
def test_a_time_that_cannot_be_read_is_the_moment_of_adoption_and_is_noted(
    left: Left, written: object
) -> None:
    tasks = left.adopt(old("a", created_at=written, updated_at=written))
    assert tasks["a"]["created_at"] == tasks["a"]["updated_at"] == "2026-03-01T12:00:00.000Z"
    assert left.adopted.notes == (
        "the times of these tasks could not be read and are those of now: a",
    )


RESULTS = {
    None: None,
    "": None,
    "null": None,
    '{"a": [1, {"b": null}]}': {"a": [1, {"b": None}]},
    "built in 3 s": {"text": "built in 3 s"},
    '"quoted"': {"text": "quoted"},
    "[1, 2]": {"value": [1, 2]},
    "7": {"value": 7},
    7.5: {"value": 7.5},
    '{"x": NaN, "y": 1e999, "z": -Infinity}': {"x": "NaN", "y": "1e999", "z": "-Infinity"},
    "{torn": {"text": "{torn"},
    b"\xffbytes": {"text": "\ufffdbytes"},
    "[" * 500 + "]" * 500: {"text": "[" * 500 + "]" * 500},
    "[" * 100_000: {"text": "[" * 100_000},
    '"\\ud800"': {"text": "\ud800"},
    "\x1b[31mred": {"text": "\x1b[31mred"},
}


@pytest.mark.parametrize("written", RESULTS, ids=[str(n) for n in range(len(RESULTS))])
def test_a_result_is_kept_whatever_it_is(left: Left, written: object) -> None:
    left.adopt(old("a", "DONE", result=written))
    (run,) = left.runs("a")
    assert run.result == RESULTS[written]  # type: ignore[index] # text, bytes or a number
    done = next(event for event in left.events() if event.type is EventType.TASK_COMPLETED)
    assert done.data.get("result") == run.result


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('["a", "b"]', ["a", "b"]),
        ("a, b", ["a", "b"]),
        ("with, comma", ["with, comma"]),
        ('"a"', ["a"]),
        ('["a", "a", "t", "", null]', ["a"]),
        ("", []),
        (None, []),
        ("null", []),
        ("[]", []),
        ("[7]", ["7"]),
        (7, ["7"]),
    ],
)
def test_deps_are_read_however_they_were_written(
    left: Left, written: object, expected: list[str]
) -> None:
    names = ("a", "b", "with, comma", 7)
    tasks = left.adopt(old("t", deps=written), *(old(name) for name in names))
    assert tasks["t"]["deps"] == expected
    assert tasks["t"]["pending"] == len(expected)
    assert (tasks["t"]["state"], tasks["7"]["state"]) == ("READY", "READY")


def test_deps_that_cannot_be_read_let_nothing_run_before_a_human_looked(left: Left) -> None:
    tasks = left.adopt(old("a", deps='{"on": "b"}'), old("c", deps='[["b"]]'), old("b"))
    for name in ("a", "c"):
        assert tasks[name]["reasons"] == ["human"]
        assert "deps could not be read" in tasks[name]["error"]


def test_a_dep_in_no_table_counts_as_met_unless_the_log_says_that_it_failed(left: Left) -> None:
    ended = [
        {"type": "TASK_COMPLETED", "taskId": "gone:done"},
        {"type": "TASK_CANCELLED", "taskId": "gone:cancelled"},
        {"type": "TASK_FAILED", "taskId": "gone:retried"},
        {"type": "TASK_STARTED", "taskId": "gone:retried"},
    ]
    tasks = left.adopt(
        old("a", "READY", "gone:never-seen", "gone:done"),
        old("b", "READY", "gone:cancelled"),
        old("c", "READY", "gone:retried"),
        log=ended,
    )
    assert [tasks[name]["state"] for name in "abc"] == ["READY", "BLOCKED", "READY"]
    assert tasks["a"]["deps"] == ["gone:never-seen", "gone:done"]
    assert (tasks["b"]["reasons"], tasks["b"]["error"]) == (["upstream"], None)
    purged = {row["id"]: row["met"] for row in select(left.layout, "SELECT * FROM purged")}
    assert purged == {
        "gone:never-seen": 1,
        "gone:done": 1,
        "gone:cancelled": 0,
        "gone:retried": 1,
    }
    for task_id in purged:
        assert left.told(task_id) == ["TASK_PURGED"], "so that the log alone says it, too"
    assert any("gone:never-seen" in note and "as met" in note for note in left.adopted.notes)
    assert any("gone:cancelled" in note and "as broken" in note for note in left.adopted.notes)


def test_tasks_whose_deps_run_in_a_circle_are_blocked_and_say_which_circle(left: Left) -> None:
    tasks = left.adopt(
        old("a", "READY", "c"),
        old("b", "RUNNING", "a"),
        old("c", "BLOCKED", "b", "x"),
        old("x", "READY", "y", "c"),
        old("y", "READY", "x"),
        old("below", "READY", "y"),
        old("outside", "READY", "over"),
        old("over", "DONE", "over-too"),
        old("over-too", "DONE", "over"),
        old("itself", "READY", "itself"),
    )
    assert {task_id for task_id, row in tasks.items() if row["state"] == "BLOCKED"} == {
        *("a", "b", "c", "x", "y", "below")
    }
    circled = [task_id for task_id, row in tasks.items() if "human" in row["reasons"]]
    assert circled
    for task_id in circled:
        assert "circle" in tasks[task_id]["error"]
        assert set(tasks[task_id]["reasons"]) == {"upstream", "human"}
    assert tasks["below"]["reasons"] == ["upstream"]
    assert (tasks["outside"]["state"], tasks["outside"]["pending"]) == ("READY", 0)
    assert tasks["itself"]["deps"] == [], "it could never run"
    assert any("circle" in note and " → " in note for note in left.adopted.notes)


PAYLOADS: dict[object, dict[str, Any]] = {
    None: {"kind": "noop"},
    "": {"kind": "noop"},
    "{}": {"kind": "noop"},
    '{"seconds": 3, "x-why": "so"}': {"kind": "noop", "seconds": 3, "x-why": "so"},
    '{"kind": "shell", "cmd": "true", "colour": "red"}': {
        "kind": "shell",
        "cmd": "true",
        "colour": "red",
    },
    '{"kind": "their-own", "deep": {"n": 1.5}}': {"kind": "their-own", "deep": {"n": 1.5}},
}


@pytest.mark.parametrize("written", PAYLOADS)
def test_a_payload_is_taken_over_as_it_is(left: Left, written: object) -> None:
    tasks = left.adopt(old("a", payload=written))
    assert (tasks["a"]["payload"], tasks["a"]["state"]) == (PAYLOADS[written], "READY")


UNFIT: dict[object, dict[str, Any]] = {
    '{"cmd": "rm -rf build"}': {"kind": "unknown", "value": {"cmd": "rm -rf build"}},
    '{"seconds": "many"}': {"kind": "unknown", "value": {"seconds": "many"}},
    '{"kind": 3}': {"kind": "unknown", "value": {"kind": 3}},
    "pytest -q": {"kind": "unknown", "text": "pytest -q"},
    "[1]": {"kind": "unknown", "value": [1]},
}


@pytest.mark.parametrize("written", UNFIT)
def test_a_payload_that_does_not_say_what_to_run_never_becomes_done_by_doing_nothing(
    left: Left, written: object
) -> None:
    tasks = left.adopt(old("a", payload=written), old("b", "DONE", payload=written))
    assert tasks["a"]["payload"] == UNFIT[written], "nothing of it is lost"
    assert (tasks["a"]["state"], tasks["a"]["reasons"]) == ("BLOCKED", ["human"])
    assert "payload" in tasks["a"]["error"]
    assert tasks["b"]["state"] == "DONE", "what is over needs no payload"


def test_names_that_cannot_stand_here_are_changed_and_noted(left: Left) -> None:
    tasks = left.adopt(
        old("a", agent="claude code/4"),
        old("b", agent=None, name=None, retries="2"),
        old("c\x1b[2J", "READY", "a", agent="..", name="tab\there"),
        old("d", "READY", "c\x1b[2J", retries=-1),
        old("twice", "DONE", name="first"),
        old("twice", "FAILED", name="second"),
        old(None, name="lost"),
        old("", name="lost too"),
        old(5, retries="many"),
    )
    assert [row["agent"] for row in tasks.values()][:3] == ["claude-code-4", "unknown", "unknown"]
    assert (tasks["b"]["name"], tasks["b"]["retries"]) == ("b", 2)
    assert tasks["c\ufffd[2J"]["name"] == "tab\ufffdhere"
    assert tasks["d"]["deps"] == ["c\ufffd[2J"]
    assert (tasks["d"]["retries"], tasks["5"]["retries"]) == (0, 0)
    assert (tasks["twice"]["name"], tasks["twice"]["state"]) == ("first", "DONE")
    assert left.adopted.tasks == len(tasks) == 6
    notes = "\n".join(left.adopted.notes)
    for part in ("no id", "'lost', 'lost too'", "twice, and", "c\ufffd[2J", "agents"):
        assert part in notes


def test_a_note_says_how_often_but_shows_only_some(left: Left) -> None:
    left.adopt(*(old(f"t{n}", "PAUSED") for n in range(2000)))
    (note,) = left.adopted.notes
    assert note.endswith("t0 (PAUSED), t1 (PAUSED), t2 (PAUSED) and 1,997 more")
