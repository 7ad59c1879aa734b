"""Promises of adoption: what an older agentmux left goes on here, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.clock import ManualClock
from support.stores import HOST, check_log, events_of, select, tasks_of

import engine
from engine.files import Layout
from engine.findings import Level
from engine.machine import fold
from engine.model import Dag, Event, EventType, Outcome, RunOutcome, State, TaskDef
from engine.narrate import describe
from engine.store.adoption.adoption import Adopted, convert, is_older
from engine.store.audit import audit
from engine.store.database import SCHEMA_VERSION
from engine.store.rows import EVENT, RUN, read_event, read_run
from engine.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from support.engines import Project

SCHEMA = Path(engine.__file__).parent / "sql" / "schema.sql"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CREATED, UPDATED = "2026-02-01T08:00:00.000Z", "2026-02-01T09:30:00.000Z"
COLUMNS = (
    *("id", "name", "agent", "state", "deps", "payload", "result", "claimed_by"),
    *("lease_until", "retries", "created_at", "updated_at"),
)
NOTHING = Adopted(0, 0, ())


def old(task_id: Any, state: Any = "READY", *deps: str, **more: Any) -> dict[str, Any]:
    """Return a row of an old table."""
    row = dict.fromkeys(COLUMNS)
    row |= {"id": task_id, "name": f"Task {task_id}", "agent": "codex", "state": state}
    row |= {"deps": json.dumps(deps), "payload": '{"kind": "noop", "seconds": 0}', "retries": 0}
    return row | {"created_at": CREATED, "updated_at": UPDATED} | more


@dataclass
class Left:
    """The state folder of an older agentmux, and what becomes of it."""

    folder: Path
    adopted: Adopted = NOTHING

    @property
    def layout(self) -> Layout:
        return Layout(self.folder / "state")

    @property
    def old_database(self) -> Path:
        return self.folder / "old.db"

    @property
    def old_log(self) -> Path:
        return self.folder / "old.jsonl"

    def write(self, rows: Iterable[dict[str, Any]], lines: Sequence[object] = ()) -> None:
        """Write an old store; a line is an object, text or bytes."""
        with closing(sqlite3.connect(self.old_database)) as db:
            # Without types: nothing is known of what the old columns would have refused.
            db.execute(f"CREATE TABLE tasks({', '.join(COLUMNS)}, colour DEFAULT 'red')")
            db.execute("CREATE TABLE leases(task, until)")
            marks = ", ".join(f":{column}" for column in COLUMNS)
            db.executemany(f"INSERT INTO tasks({', '.join(COLUMNS)}) VALUES ({marks})", rows)
            # Text that is no UTF-8.
            db.execute(
                "UPDATE tasks SET result = CAST(result AS TEXT) WHERE typeof(result) = 'blob'"
            )
            db.commit()
        with self.old_log.open("wb") as file:
            for line in lines:
                text = line if isinstance(line, str | bytes) else json.dumps(line)
                file.write((text if isinstance(text, bytes) else text.encode()) + b"\n")

    def convert(self, *more_schema: str) -> Adopted:
        """Adopt what was written."""
        self.layout.create()
        with (
            closing(sqlite3.connect(f"file:{self.old_database}?mode=ro", uri=True)) as before,
            closing(sqlite3.connect(self.layout.database, isolation_level=None)) as new,
        ):
            assert is_older(before)
            new.executescript(SCHEMA.read_text(encoding="utf-8"))
            new.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            for statement in more_schema:
                new.execute(statement)
            self.adopted = convert(before, self.old_log, new, NOW)
        return self.adopted

    def adopt(self, *rows: dict[str, Any], log: Sequence[object] = ()) -> dict[str, dict[str, Any]]:
        """Write, adopt, check all that must be true of any store; return its tasks."""
        self.write(rows, log)
        self.convert()
        self.check()
        return tasks_of(self.layout)

    def check(self) -> None:
        errors = [one for one in audit(self.layout.database) if one.level is Level.ERROR]
        assert errors == []
        for (line,) in self._read("SELECT line FROM event_lines"):
            pairs: list[tuple[str, Any]] = json.loads(line, object_pairs_hook=list)
            keys = [key for key, _ in pairs]
            assert len(keys) == len(set(keys)), line
        for event in self.events():
            describe(event)

    def _read(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.layout.database)) as db:
            return db.execute(sql).fetchall()

    def events(self) -> list[Event]:
        """Return every event, as the store itself reads it."""
        rows = self._read(f"SELECT {EVENT.columns} FROM events ORDER BY seq")
        return [read_event(row) for row in rows]

    def history(self) -> list[Event]:
        """Return what the old log told."""
        return [event for event in self.events() if "adopted" in event.data]

    def told(self, task_id: str) -> list[str]:
        """Return the types of a task's own events."""
        return [
            str(event.type)
            for event in self.events()
            if event.task_id == task_id and "adopted" not in event.data
        ]

    def runs(self, task_id: str) -> list[Any]:
        rows = self._read(f"SELECT task_id, {RUN.columns} FROM runs r ORDER BY n")
        return [read_run(row[1:]) for row in rows if row[0] == task_id]


@pytest.fixture
def left(tmp_path: Path) -> Left:
    return Left(tmp_path)


# Which store it is.


def test_an_older_store_is_told_from_ours_and_from_a_strangers(tmp_path: Path) -> None:
    listed = ", ".join(COLUMNS)
    stores = {
        f"CREATE TABLE tasks({listed})": True,
        f"CREATE TABLE tasks({listed.upper()}, more TEXT); CREATE TABLE events(x)": True,
        f"CREATE TABLE tasks({listed}); PRAGMA user_version=1": False,
        f"CREATE TABLE tasks({', '.join(COLUMNS[1:])})": False,
        f"CREATE TABLE jobs({listed})": False,
        SCHEMA.read_text(encoding="utf-8"): False,
        "": False,
    }
    for number, (script, expected) in enumerate(stores.items()):
        with closing(sqlite3.connect(tmp_path / f"{number}.db")) as db:
            db.executescript(script)
            assert is_older(db) is expected, script


# Every state.


def test_finished_tasks_stay_and_keep_their_result_and_their_times(left: Left) -> None:
    tasks = left.adopt(
        old("done", "DONE", result='{"answer": 42}', claimed_by="codex-7", retries=2),
        old("failed", "failed", result='{"error": "exit code 3"}', claimed_by="codex-8"),
        old("cancelled", " Cancelled "),
        old("next", "READY", "done"),
    )
    assert [tasks[name]["state"] for name in tasks] == ["DONE", "FAILED", "CANCELLED", "READY"]
    for row in tasks.values():
        assert (row["created_at"], row["updated_at"]) == (CREATED, UPDATED)
    (run,) = left.runs("done")
    assert (run.worker_id, run.outcome, run.result) == ("codex-7", RunOutcome.DONE, {"answer": 42})
    assert run.ended_at == datetime(2026, 2, 1, 9, 30, tzinfo=UTC)
    assert tasks["done"]["retries"] == 2
    assert tasks["failed"]["error"] == "exit code 3"
    (run,) = left.runs("failed")
    assert (run.worker_id, run.error, run.outcome) == ("codex-8", "exit code 3", RunOutcome.FAILED)
    assert tasks["next"]["pending"] == 0
    assert left.told("done") == ["TASK_CREATED", "TASK_CLAIMED", "TASK_STARTED", "TASK_COMPLETED"]
    assert left.told("cancelled") == ["TASK_CREATED", "TASK_CANCELLED"]
    assert left.adopted == Adopted(4, 0, ())


def test_a_task_somebody_was_at_is_ready_again_and_the_log_says_from_whom_it_was_taken(
    left: Left,
) -> None:
    tasks = left.adopt(
        old("running", "RUNNING", claimed_by="codex-1", lease_until="2026-02-01T09:40:00Z"),
        old("claimed", "CLAIMED", claimed_by="codex-2"),
        old("after", "READY", "running"),
    )
    for task_id, worker in (("running", "codex-1"), ("claimed", "codex-2")):
        row = tasks[task_id]
        assert (row["state"], row["attempts"], row["pending"]) == ("READY", 0, 0)
        assert (row["run_id"], row["claimed_by"], row["lease_until"]) == (None, None, None)
        (run,) = left.runs(task_id)
        assert (run.worker_id, run.outcome) == (worker, RunOutcome.RELEASED)
        last = next(event for event in left.events() if event.type is EventType.TASK_RELEASED)
        assert "adopted unfinished" in describe(last)
    assert left.told("claimed") == ["TASK_CREATED", "TASK_CLAIMED", "TASK_RELEASED"]
    assert tasks["after"]["pending"] == 1
    (note,) = left.adopted.notes
    assert "running (codex-1), claimed (codex-2)" in note


def test_upstream_runs_down_the_dag_from_whatever_is_broken(left: Left) -> None:
    tasks = left.adopt(
        old("last", "READY", "middle", "fine"),
        old("middle", "READY", "failed"),
        old("failed", "FAILED"),
        old("was-running", "RUNNING", "cancelled"),
        old("cancelled", "CANCELLED"),
        old("was-blocked", "BLOCKED", "middle"),
        old("stuck", "BLOCKED", result="which database?"),
        old("behind", "BLOCKED", "stuck"),
        old("finished-anyway", "DONE", "failed"),
        old("fine", "DONE"),
        old("free", "READY", "fine"),
    )
    reasons = {task_id: row["reasons"] for task_id, row in tasks.items() if row["reasons"]}
    upstream = ["last", "middle", "was-running", "was-blocked", "behind"]
    assert reasons == {key: ["upstream"] for key in upstream} | {"stuck": ["human"]}
    assert tasks["stuck"]["error"] == "which database?"
    assert all(tasks[task_id]["state"] == "BLOCKED" for task_id in reasons)
    assert (tasks["finished-anyway"]["state"], tasks["free"]["state"]) == ("DONE", "READY")
    assert (tasks["last"]["pending"], tasks["last"]["broken"]) == (1, 1)
    assert left.told("was-running")[-2:] == ["TASK_RELEASED", "TASK_BLOCKED"]


@pytest.mark.parametrize("state", ["PAUSED", "", None, 7, b"\xff", "DONE?"])
def test_a_task_in_an_unknown_state_waits_for_a_human_and_says_why(
    left: Left, state: object
) -> None:
    tasks = left.adopt(old("odd", state), old("after", "READY", "odd"))
    assert (tasks["odd"]["state"], tasks["odd"]["reasons"]) == ("BLOCKED", ["human"])
    assert "an older agentmux left it" in tasks["odd"]["error"]
    assert tasks["after"]["reasons"] == ["upstream"]
    assert any("odd" in note for note in left.adopted.notes)


# Odd values.

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


# History.


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


# All or nothing, and fast enough.


def test_a_log_that_cannot_be_read_stops_the_adoption_and_harms_nothing(left: Left) -> None:
    left.write([old("a")], [{"type": "SEEDED"}])
    before = left.old_database.read_bytes()
    left.old_log.unlink()
    left.old_log.mkdir()
    with pytest.raises(IsADirectoryError):
        left.convert()
    assert left.old_database.read_bytes() == before


def test_an_adoption_that_fails_half_way_leaves_the_new_store_empty(left: Left) -> None:
    left.write([old("a", "DONE")], [{"type": "SEEDED"}])
    with pytest.raises(sqlite3.IntegrityError, match="no more"):
        left.convert(
            "CREATE TRIGGER stop BEFORE INSERT ON runs BEGIN SELECT RAISE(ABORT, 'no more'); END"
        )
    for table in ("events", "tasks", "tallies", "purged", "edges"):
        assert select(left.layout, f"SELECT * FROM {table}") == []


def test_ten_thousand_tasks_and_their_history_are_adopted_in_seconds(
    left: Left,
) -> None:
    states = ("DONE", "READY", "RUNNING", "FAILED", "BLOCKED", "CANCELLED")
    rows = [
        old(f"t{n}", states[n % 6] if n > 5000 else "DONE", *([f"t{n - 7}"] if n > 6 else []))
        for n in range(10_000)
    ]
    line = json.dumps({"ts": CREATED, "type": "TASK_PROGRESS", "taskId": "t1", "note": "n"})
    left.write(rows, [line] * 20_000)
    began = time.monotonic()
    assert left.convert().tasks == 10_000
    took = time.monotonic() - began
    left.check()
    assert left.adopted.events == 20_000
    assert took < 20, f"{took:.1f} s"


async def test_an_adopted_store_is_worked_on_like_any_other(left: Left) -> None:
    left.adopt(
        old("plan", "DONE"),
        old("build", "RUNNING", "plan", claimed_by="codex-1"),
        old("test", "READY", "build", "gone"),
        old("stuck", "BLOCKED"),
        log=["history"],
    )
    store = Store(left.layout, ManualClock(NOW), lease=60)
    await store.open()
    try:
        for expected in ("build", "test"):
            claim = await store.claim("codex", "codex-1", HOST)
            assert claim is not None
            assert claim.task.id == expected
            await store.finish(claim, Outcome(RunOutcome.DONE))
        assert await store.claim("codex", "codex-1", HOST) is None
        dag = [TaskDef("plan", "Plan", "codex"), TaskDef("gone", "Back again", "codex")]
        report = await store.seed(Dag(tuple(dag), source="dag.yaml"))
        assert (report.created, report.updated) == (["gone"], ["plan"])
    finally:
        await store.close()
    left.check()
    assert tasks_of(left.layout)["build"]["state"] == "DONE"
    assert len(events_of(left.layout)) > 10


# The whole engine.


def _leave(left: Left, layout: Layout, *, log: Sequence[object]) -> dict[str, bytes]:
    """Put an old store where the engine looks for its own; return the content of its files."""
    layout.create()
    left.write(
        [
            old("plan", "DONE", result='{"answer": 42}', claimed_by="codex-1"),
            old("build", "RUNNING", "plan", "gone", claimed_by="codex-1"),
            old("broken", "FAILED", result="no"),
            old("after", "READY", "broken"),
            old("odd", "PAUSED"),
        ],
        log,
    )
    files = {"tasks.db": left.old_database, "events.jsonl": left.old_log}
    for name, path in files.items():
        path.rename(layout.state / name)
    return {name: (layout.state / name).read_bytes() for name in files}


FIRST_LINES = {
    "an event": '{"ts": "2026-02-01T08:00:00Z", "type": "SEEDED"}',
    "no JSON": "# written by hand",
    "a list": "[1]",
    "torn": '"type": "SEEDED"}',
}


@pytest.mark.parametrize("first", FIRST_LINES)
async def test_the_engine_adopts_what_an_older_agentmux_left_and_keeps_a_copy_of_it(
    left: Left, project: Project, first: str
) -> None:
    progress = {"ts": CREATED, "type": "TASK_PROGRESS", "taskId": "plan", "note": "half"}
    files = _leave(left, project.layout, log=[FIRST_LINES[first], progress])
    async with project.engine() as fleet, asyncio.timeout(60):
        await fleet.start_worker("codex", until_idle=True)
        await fleet.wait_workers()
    states = {task_id: row["state"] for task_id, row in tasks_of(project.layout).items()}
    assert states == {
        "plan": "DONE",
        "build": "DONE",
        "broken": "FAILED",
        "after": "BLOCKED",
        "odd": "BLOCKED",
    }
    left.check()
    assert [event.data.get("note") for event in left.history()] == [None, "half"]
    check_log(project.layout)
    kept = {
        path.name: path.read_bytes()
        for path in (project.layout.state / "backup").rglob("*")
        if path.is_file()
    }
    assert {name: kept[name] for name in files} == files


async def test_the_log_of_an_adopted_store_can_rebuild_it(left: Left, project: Project) -> None:
    lines = [
        {"ts": "2026-02-01T08:10:00Z", "type": "TASK_CLAIMED", "taskId": "plan"},
        {"ts": "2026-02-01T08:20:00Z", "type": "TASK_CANCELLED", "taskId": "gone"},
        {"ts": "2026-02-01T08:30:00Z", "type": "HELD", "agent": "codex"},
    ]
    _leave(left, project.layout, log=lines)

    def content() -> dict[str, list[dict[str, Any]]]:
        return {
            "tasks": select(project.layout, "SELECT * FROM tasks ORDER BY id"),
            "runs": select(
                project.layout,
                "SELECT id, task_id, agent, worker_id, attempt, outcome, claimed_at, started_at,"
                " ended_at, error, result FROM runs ORDER BY id",
            ),
            "purged": select(project.layout, "SELECT * FROM purged"),
            "edges": select(project.layout, "SELECT * FROM edges"),
            "holds": select(project.layout, "SELECT * FROM holds"),
            "events": select(project.layout, "SELECT * FROM events"),
        }

    async with project.engine():
        pass
    before = content()
    assert before["purged"] == [{"id": "gone", "met": 0}]
    project.layout.database.unlink()
    async with project.engine():
        pass
    assert content() == before
    left.check()
