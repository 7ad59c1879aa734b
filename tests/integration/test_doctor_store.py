"""What doctor finds in a database: rows that contradict each other or the log, and damage."""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING

import pytest
from support.checkup import errors, in_words, only_errors
from support.damage import by_hand, scramble_a_name, scribble
from support.finished import copied
from support.stores import tuples

from engine.care.inspection import inspect
from engine.findings import CAP, Level
from engine.store.audit import audit

if TYPE_CHECKING:
    from pathlib import Path

    from engine.files import Layout


@pytest.fixture
def layout(finished: Path, tmp_path: Path) -> Layout:
    """A copy of its state, for one test to damage."""
    return copied(finished, tmp_path)


# Rows.


@pytest.mark.parametrize(
    ("change", "check", "message"),
    [
        (
            "UPDATE tasks SET state = 'READY' WHERE id = 'plan'",
            "fold",
            "task 'plan': state: the log says DONE, the table says READY",
        ),
        (
            "UPDATE tasks SET name = 'Plan' WHERE id = 'plan'",
            "fold",
            "task 'plan': name: the log says plan, the table says Plan",
        ),
        ("UPDATE tasks SET agent = 'x' WHERE id = 'plan'", "fold", "agent: the log says claude"),
        ("UPDATE tasks SET timeout = 1 WHERE id = 'docs'", "fold", "timeout: the log says 3600"),
        ("UPDATE tasks SET retries = 1 WHERE id = 'docs'", "fold", "retries: the log says 0"),
        ("UPDATE tasks SET priority = 3 WHERE id = 'docs'", "fold", "priority: the log says 4"),
        (
            """UPDATE tasks SET payload = '{"kind":"noop","seconds":1}' WHERE id = 'docs'""",
            "fold",
            'payload: the log says {"kind": "noop", "seconds": 0}, the table says {',
        ),
        ("UPDATE tasks SET payload = '{' WHERE id = 'docs'", "fold", "its row cannot be read"),
        ("UPDATE tasks SET attempts = 7 WHERE id = 'docs'", "fold", "attempts: the log says 1"),
        (
            """UPDATE tasks SET reasons = '["human"]' WHERE id = 'later'""",
            "fold",
            'reasons: the log says ["upstream"], the table says ["human"]',
        ),
        (
            """UPDATE tasks SET reasons = '["upstream"]' WHERE id = 'plan'""",
            "derived",
            "it is DONE and must have none",
        ),
        ("UPDATE tasks SET removed = 0 WHERE id = 'held'", "derived", "it must be READY []"),
        (
            "DELETE FROM tasks WHERE id = 'odd'",
            "fold",
            "task 'odd': the log says BLOCKED, the table does not have it",
        ),
        (
            (
                "INSERT INTO tasks(id, name, agent, state, created_at, updated_at, position)"
                " VALUES ('new', 'new', 'codex', 'READY', '', '', 99)"
            ),
            "fold",
            "task 'new': the log does not know it, the table says READY",
        ),
        ("DELETE FROM runs WHERE task_id = 'plan'", "fold", "the log says true, the table"),
        (
            "UPDATE runs SET outcome = 'done' WHERE task_id = 'broken'",
            "fold",
            "the log says failed, the table says done",
        ),
        ("UPDATE runs SET worker_id = 'x' WHERE task_id = 'plan'", "fold", "says claude-1, the"),
        ("UPDATE runs SET attempt = 2 WHERE task_id = 'plan'", "fold", "attempt of run "),
        ("UPDATE events SET state = 'READY' WHERE type = 'TASK_FAILED'", "fold", "'broken': state"),
        ("UPDATE events SET data = '{' WHERE type = 'TASK_FAILED'", "fold", "cannot be read"),
        ("UPDATE events SET type = 'x' WHERE type = 'TASK_FAILED'", "fold", "cannot be read"),
        ("DELETE FROM events WHERE seq = 5", "events", "nothing between 4 and 6"),
        ("DELETE FROM events WHERE seq < 3", "events", "begins with 3, not with 1"),
        (
            "UPDATE tasks SET pending = 2 WHERE id = 'after'",
            "derived",
            "'after': its deps make pending 1 and broken 1, the table says 2 and 1",
        ),
        ("UPDATE tasks SET broken = 0 WHERE id = 'later'", "derived", "broken 1, the table says 1"),
        ("DELETE FROM edges WHERE dep = 'docs'", "derived", "'docs' is missing from the edges"),
        ("INSERT INTO edges VALUES ('odd', 'plan')", "derived", "'odd' does not belong into"),
        (
            "UPDATE tallies SET n = n + 1 WHERE agent = 'claude' AND state = 'DONE'",
            "derived",
            "claude has 2 tasks DONE, the tallies table says 3",
        ),
        ("DELETE FROM tallies WHERE state = 'FAILED'", "derived", "codex has 1 task FAILED"),
        ("UPDATE tallies SET n = -1 WHERE state = 'FAILED'", "derived", "tallies table says -1"),
        (
            """UPDATE tasks SET deps = '["nowhere"]' WHERE id = 'later'""",
            "deps",
            "task 'later': its dep 'nowhere' is neither there nor purged",
        ),
        (
            "INSERT INTO purged VALUES ('plan', 1)",
            "purged",
            "task 'plan' is there, but the purged table has it too",
        ),
        (
            "UPDATE tasks SET ending = 'r' WHERE id = 'odd'",
            "endings",
            "task 'odd' waits for the end of run r, which the endings table lacks",
        ),
        (
            (
                "INSERT INTO endings(run_id, task_id, agent, worker_id, since, host_pid,"
                " host_started) VALUES ('r', 'odd', 'codex', 'c', '', 1, '')"
            ),
            "endings",
            "task 'odd' does not wait for its former run r, which is being ended",
        ),
        ("UPDATE workers SET status = 'live', beat_at = 'x'", "workers", "cannot be read"),
        ("UPDATE tasks SET run_id = 'r' WHERE id = 'plan'", "claims", "is DONE, but run r of"),
        ("UPDATE tasks SET state = 'RUNNING' WHERE id = 'plan'", "claims", "is RUNNING, but the"),
        (
            (
                "UPDATE tasks SET state = 'RUNNING', run_id = 'r', claimed_by = 'w',"
                " lease_until = '' WHERE id = 'plan'"
            ),
            "claims",
            "held by run r, which the runs table lacks",
        ),
        (
            (
                "UPDATE tasks SET state = 'CLAIMED', claimed_by = 'w', lease_until = '',"
                " run_id = (SELECT id FROM runs WHERE task_id = 'docs') WHERE id = 'plan'"
            ),
            "claims",
            "which is a run of codex-",
        ),
        (
            (
                "UPDATE tasks SET state = 'CLAIMED', claimed_by = 'claude-1', lease_until = '',"
                " run_id = (SELECT id FROM runs WHERE task_id = 'plan') WHERE id = 'plan'"
            ),
            "claims",
            "ended: done",
        ),
        ("UPDATE runs SET outcome = NULL WHERE task_id = 'plan'", "claims", "has not ended, but"),
    ],
)
def test_a_changed_row_is_found(layout: Layout, change: str, check: str, message: str) -> None:
    assert audit(layout.database) == []
    by_hand(layout, change)
    found = audit(layout.database)
    assert any(one.check == check and message in one.message for one in found), found
    assert only_errors(found) == found
    assert all(one.advice for one in found)


async def test_what_the_audit_finds_the_doctor_tells(layout: Layout) -> None:
    by_hand(layout, "UPDATE tasks SET state = 'READY' WHERE id = 'plan'")
    told = in_words(await errors(layout))
    assert "fold: task 'plan': state: the log says DONE, the table says READY" in told


def test_many_differences_are_counted_not_told(layout: Layout) -> None:
    by_hand(layout, f"UPDATE runs SET id = id || 'x', attempt = {CAP}")
    runs = tuples(layout, "SELECT count(*) FROM runs")[0][0]
    assert len([one for one in audit(layout.database) if one.check == "fold"]) == 2 * runs < CAP
    by_hand(
        layout, "UPDATE tasks SET name = 'x', agent = 'x', retries = 9, priority = 9, attempts = 9"
    )
    found = [one.message for one in audit(layout.database) if one.check == "fold"]
    more = 2 * runs + 5 * 9 - CAP
    assert (len(found), found[-1]) == (CAP + 1, f"and {more} more")


async def test_a_row_that_cannot_be_read_does_not_end_the_inspection(layout: Layout) -> None:
    by_hand(layout, "UPDATE workers SET beat_at = 'yesterday'")
    assert {one.message.split(":")[0] for one in await errors(layout)} == {
        "worker 'claude-1' cannot be read",
        "worker 'codex-1' cannot be read",
        "worker 'codex-2' cannot be read",
    }
    by_hand(layout, "UPDATE workers SET status = 'live'")
    told = in_words(await errors(layout))
    assert any("workers and active runs cannot be read: " in one for one in told)


# The file.


async def test_damaged_pages_are_found_and_do_not_end_the_inspection(layout: Layout) -> None:
    scribble(layout, "workers")
    layout.heartbeat_file("codex-1").write_text("")
    assert {one.check for one in await errors(layout)} == {"integrity", "workers", "heartbeats"}


def test_a_file_that_is_no_database_is_found(tmp_path: Path) -> None:
    (tmp_path / "tasks.db").write_text("no database" * 1000)
    (finding,) = audit(tmp_path / "tasks.db")
    assert (finding.level, finding.check) == (Level.ERROR, "integrity")


async def test_a_schema_that_is_no_text_is_a_finding(layout: Layout) -> None:
    scramble_a_name(layout)
    found = await inspect(layout)
    assert "integrity" in {one.check for one in found}
    assert all("Could not decode" in one.message for one in found if one.check == "integrity")


async def test_a_database_that_cannot_be_opened_is_not_taken_for_a_damaged_one(
    layout: Layout,
) -> None:
    for suffix in ("", "-wal", "-shm"):
        layout.database.with_name(f"tasks.db{suffix}").unlink(missing_ok=True)
    layout.database.mkdir()
    (finding,) = await inspect(layout)
    assert (finding.level, finding.check) == (Level.ERROR, "access")
    assert not re.search("repair|move|rebuild", finding.advice)


@pytest.mark.parametrize(
    ("text", "name", "advice"),
    [
        ("disk I/O error", "SQLITE_IOERR_READ", "the disk or its file system fails"),
        ("disk I/O error", "SQLITE_IOERR_SHMSIZE", "the disk is full: free some space"),
        ("attempt to write a readonly database", "SQLITE_READONLY", "mend the permissions"),
        ("database or disk is full", "SQLITE_FULL", "free some space"),
        ("database is locked", "SQLITE_BUSY", "another program holds the database"),
    ],
)
async def test_what_the_disk_refuses_is_never_a_reason_to_move_the_database(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, text: str, name: str, advice: str
) -> None:
    def refuse(_: object) -> None:
        error = sqlite3.OperationalError(text)
        error.sqlite_errorname = name
        raise error

    monkeypatch.setattr("engine.store.audit.open_for_reading", refuse)
    (finding,) = await inspect(layout)
    assert finding.advice.startswith(advice)
    monkeypatch.undo()
    # And if it comes about only after the audit.
    monkeypatch.setattr("engine.store.vitals.open_for_reading", refuse)
    told = [one for one in await inspect(layout) if one.check == "workers"]
    assert advice in told[0].message
    assert "move" not in told[0].advice


async def test_an_empty_database_is_told_with_what_fills_it(layout: Layout) -> None:
    layout.database.write_bytes(b"")
    (finding,) = await inspect(layout)
    assert finding.message == "the store is empty"
    assert "`agentmux doctor --repair`" in finding.advice
