"""Promises of adoption: what an older agentmux left goes on here, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from support.clock import ManualClock
from support.older import COLUMNS, CREATED, NOW, SCHEMA, UPDATED, Left, old
from support.stores import HOST, check_log, events_of, select, states_of, tasks_of

from engine.model import Dag, EventType, Outcome, RunOutcome, TaskDef
from engine.narrate import describe
from engine.store.adoption.adoption import Adopted, is_older
from engine.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from support.engines import Project

    from engine.files import Layout


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
    assert states_of(project.layout) == {
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
