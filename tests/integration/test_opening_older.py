"""Promises of opening what an older release or an older agentmux left: it goes on, and is kept."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support import damage
from support.damage import STATES, a_killed_store, files_of, open_once, quarantined
from support.doomed import crashes_opening
from support.stores import check_store, events_of, select, states_of, tuples

from engine.errors import StorageError
from engine.files import Layout
from engine.store.database import SCHEMA_VERSION

GOLDEN = Path(__file__).parents[1] / "golden" / "schema-1.db"
OLDER = (
    "CREATE TABLE tasks(id TEXT PRIMARY KEY, name, agent, state, deps, payload, result, claimed_by,"
    " lease_until, retries, created_at, updated_at)"
)
OLDER_LOG = b'{"ts":"2025-01-01T00:00:00Z","type":"TASK_COMPLETED","taskId":"a"}\n'

# Of an older release.


@pytest.fixture
def released(tmp_path: Path) -> Layout:
    """Return the state folder of an older release."""
    layout = Layout(tmp_path / "state")
    layout.create()
    layout.database.write_bytes(GOLDEN.read_bytes())
    return layout


def test_a_store_of_an_older_release_is_brought_up_to_date_after_a_backup(released: Layout) -> None:
    tasks = dict(tuples(released, "SELECT id, state FROM tasks"))
    (notice,) = open_once(released)
    assert f"from schema 1 to {SCHEMA_VERSION}" in notice
    (copy,) = released.backup.glob("*/tasks.db")
    assert str(copy) in notice
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert dict(db.execute("SELECT id, state FROM tasks")) == tasks
    assert states_of(released) == tasks
    assert select(released, "PRAGMA user_version") == [{"user_version": SCHEMA_VERSION}]
    assert open_once(released) == []


def test_a_damaged_store_of_an_older_release_is_rebuilt_from_its_log(released: Layout) -> None:
    tasks = dict(tuples(released, "SELECT id, state FROM tasks"))
    lines = tuples(released, "SELECT line FROM event_lines ORDER BY seq")
    released.log.write_text("".join(f"{line}\n" for (line,) in lines))
    damage.truncate(released)
    open_once(released)
    assert states_of(released) == tasks
    check_store(released)


# Of an older agentmux.


@pytest.fixture
def older(tmp_path: Path) -> Layout:
    """Return the state folder of an older agentmux."""
    layout = Layout(tmp_path / "state")
    layout.create()
    with closing(sqlite3.connect(layout.database, isolation_level=None)) as db:
        db.execute(OLDER)
        db.executemany(
            "INSERT INTO tasks VALUES (?, ?, 'codex', ?, ?, '{}', NULL, NULL, NULL, 0, ?, ?)",
            [
                ("a", "A", "DONE", "[]", "2025-01-01T00:00:00Z", "2025-01-01T00:00:00Z"),
                ("b", "B", "READY", '["a"]', "2025-01-01T00:00:00Z", "2025-01-01T00:00:00Z"),
            ],
        )
    layout.log.write_bytes(OLDER_LOG)
    return layout


def test_the_store_of_an_older_agentmux_is_taken_over_and_its_files_are_kept(older: Layout) -> None:
    before = files_of(older)
    notices = open_once(older)
    assert "2 tasks and 1 event were taken over" in notices[0]
    (folder,) = older.backup.iterdir()
    assert str(folder) in notices[0]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert states_of(older) == STATES
    assert not older.log.exists(), "the mirror writes it anew"
    check_store_of_adopted(older)
    assert open_once(older) == []


def check_store_of_adopted(layout: Layout) -> None:
    damage.mirror(layout)
    before = states_of(layout)
    damage.delete(layout)
    open_once(layout)
    assert states_of(layout) == before, "its new log rebuilds it"


def test_an_older_agentmuxs_store_in_the_place_of_ours_is_not_taken_for_it(
    older: Layout, tmp_path: Path
) -> None:
    old = older.database.read_bytes()
    damage.delete(older)
    older.log.unlink()

    asyncio.run(a_killed_store(tmp_path))
    damage.delete(older)
    older.database.write_bytes(old)
    (notice,) = open_once(older)
    assert "it is an older agentmux's, but the log is not" in notice
    assert states_of(older) == STATES
    assert quarantined(older).read_bytes() == old


def test_an_older_log_without_a_database_is_kept_aside(older: Layout) -> None:
    damage.delete(older)
    (notice,) = open_once(older)
    assert states_of(older) == {}
    (place,) = older.backup.glob("*/events.jsonl")
    assert str(place) in notice
    assert place.read_bytes() == OLDER_LOG


@pytest.mark.parametrize("with_log", [True, False])
def test_a_damaged_store_of_an_older_agentmux_is_left_to_a_human(
    older: Layout, with_log: bool
) -> None:
    if with_log:
        damage.truncate(older)
    else:
        older.log.unlink()
        with closing(sqlite3.connect(older.database, isolation_level=None)) as db:
            db.executemany(
                "INSERT INTO tasks(id, name, state, deps) VALUES (?, ?, 'READY', '[]')",
                [(f"t{n}", "x" * 500) for n in range(100)],
            )
        damage.zero_table(older, "tasks")
    before = files_of(older)
    with pytest.raises(StorageError, match="older agentmux"):
        open_once(older)
    assert files_of(older) == before


def test_an_older_agentmuxs_store_whose_schema_is_no_text_is_not_lost(older: Layout) -> None:
    content = older.database.read_bytes()
    at = content.index(b"CREATE TABLE")
    older.database.write_bytes(content[: at + 4] + b"\xff\xfe" + content[at + 6 :])
    before = files_of(older)
    with pytest.raises(StorageError, match="older agentmux"):
        open_once(older)
    assert files_of(older) == before


@pytest.mark.parametrize("crash_at", range(1, 6))
def test_a_crash_in_the_middle_of_a_take_over_loses_nothing(older: Layout, crash_at: int) -> None:
    before = files_of(older)
    assert crashes_opening(older, crash_at) is (crash_at < 5)
    open_once(older)
    assert states_of(older) == STATES
    assert events_of(older)[0].type == "TASK_COMPLETED", "history included"
    assert not older.log.exists()
    for name, data in before.items():
        (place,) = older.backup.glob(f"*/{name}")
        assert place.read_bytes() == data
    assert open_once(older) == []
