"""Promises of opening a store: what is damaged is found, kept, and rebuilt."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from support import damage
from support.damage import (
    DAMAGES,
    STATES,
    a_killed_store,
    files_of,
    open_once,
    quarantined,
    stopped_dead,
)
from support.pasts import DONE
from support.patience import PATIENCE
from support.stores import a_dag, a_task, opened, states_of

from engine.errors import StorageError
from engine.store.database import WriteLock
from engine.store.reader import Reader
from engine.store.recovery import condition
from engine.store.vitals import read_vitals

if TYPE_CHECKING:
    from pathlib import Path

    from engine.files import Layout


@pytest.fixture
async def layout(tmp_path: Path) -> Layout:
    return await a_killed_store(tmp_path)


@pytest.mark.parametrize("kind", sorted(DAMAGES.keys() - {"zeros in the middle"}))
def test_a_damaged_store_is_found_at_once_kept_as_it_was_and_rebuilt(
    layout: Layout, kind: str
) -> None:
    DAMAGES[kind](layout)
    before = files_of(layout)
    notices = open_once(layout)
    assert states_of(layout) == STATES
    assert str(layout.database) in notices[-1]
    assert "2 tasks and 7 events were rebuilt from the log" in notices[-1]
    after = files_of(layout)
    for suffix in ("", "-wal"):
        name = f"tasks.db{suffix}"
        if name in before:
            place = quarantined(layout, name)
            assert place.read_bytes() == before[name], "kept as it was, byte for byte"
            assert any(str(place.parent) in notice for notice in notices)
    assert after["events.jsonl"] == before["events.jsonl"]
    assert layout.database.stat().st_mode & 0o077 == 0
    assert not list(layout.state.glob(".tasks.db*")), "no draft is left"
    assert open_once(layout) == []


async def test_what_was_done_to_a_store_is_told_by_whoever_opened_it(
    tmp_path: Path, layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    damage.scramble_header(layout)
    damage.beside(layout, "-wal").unlink()
    async with opened(tmp_path) as it:
        (notice,) = it.store._writer.notices
    assert notice == (
        f"{layout.database} was damaged (file is not a database): it lies in "
        f"{quarantined(layout).parent}; 2 tasks and 7 events were rebuilt from the log"
    )
    assert notice in [record.message for record in caplog.records]


def test_an_old_copy_of_the_database_is_brought_up_to_the_log(
    tmp_path: Path, layout: Layout
) -> None:
    damage.settle(layout)
    copy = layout.database.read_bytes()

    async def go_on() -> None:
        async with damage.stopped_dead(tmp_path) as it:
            await it.store.finish(await it.claim(), DONE)

    asyncio.run(go_on())
    for suffix in damage.BESIDE:
        damage.beside(layout, suffix).unlink(missing_ok=True)
    layout.database.write_bytes(copy)
    (notice,) = open_once(layout)
    assert "its last events are lost" in notice
    assert states_of(layout) == {"a": "DONE", "b": "DONE"}


def test_a_table_that_was_taken_away_is_damage(layout: Layout) -> None:
    damage.by_hand(layout, "DROP TABLE pace")
    (notice,) = open_once(layout)
    assert "it has no pace" in notice
    assert states_of(layout) == STATES


def test_a_name_in_the_schema_that_is_no_text_is_damage(layout: Layout) -> None:
    damage.scramble_a_name(layout)
    before = layout.database.read_bytes()
    assert "was damaged (Could not decode" in open_once(layout)[0]
    assert states_of(layout) == STATES
    assert quarantined(layout).read_bytes() == before
    assert open_once(layout) == []


def test_a_store_that_is_damaged_again_at_once_is_not_rebuilt_for_ever(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise condition.Damage("again")

    monkeypatch.setattr("engine.store.recovery.opening.look_over", fail)
    with pytest.raises(StorageError, match="look at the disk"):
        open_once(layout)
    assert len(list(layout.quarantine.iterdir())) == 1


# When all pages are read.


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return what is noted of every look at all pages: whether it was the deep one."""
    looks: list[bool] = []
    check = condition.check_pages

    def noted(connection: sqlite3.Connection, *, deep: bool = False) -> None:
        looks.append(deep)
        check(connection, deep=deep)

    monkeypatch.setattr(condition, "check_pages", noted)
    return looks


def test_all_pages_are_read_once_after_the_machine_was_restarted(
    layout: Layout, looks: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_once(layout)
    assert looks == [], "a killed process damages nothing"
    damage.zero_table(layout, "runs_of_task")
    assert open_once(layout) == [], "nobody looks there at every start"
    monkeypatch.setattr(condition, "_boot", lambda: "the next boot")
    (notice,) = open_once(layout)
    assert looks == [False]
    assert "was damaged" in notice
    assert states_of(layout) == STATES
    open_once(layout)
    assert looks == [False]


def test_the_boot_has_a_name_that_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert condition._boot() == condition._boot() != ""
    monkeypatch.setattr(condition, "_BOOT_ID", tmp_path / "kept secret")
    assert condition._boot() == condition._boot() != ""


def test_a_deep_look_compares_indexes_with_their_tables(layout: Layout) -> None:
    with closing(sqlite3.connect(layout.database, isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema=ON")
        index = db.execute("SELECT * FROM sqlite_master WHERE name = 'in_file'").fetchone()
        db.execute("DELETE FROM sqlite_master WHERE name = 'in_file'")
    with closing(sqlite3.connect(layout.database, isolation_level=None)) as db:
        db.execute("UPDATE tasks SET position = position + 5 WHERE id = 'a'")
        db.execute("PRAGMA writable_schema=ON")
        db.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", index)
    assert open_once(layout) == []
    (notice,) = open_once(layout, deep=True)
    assert "in_file" in notice
    assert states_of(layout) == STATES


# Who only reads rebuilds nothing.


async def test_a_reader_of_a_damaged_store_is_told_what_rebuilds_it(layout: Layout) -> None:
    damage.settle(layout)
    damage.truncate(layout)
    before = files_of(layout)
    with pytest.raises(StorageError, match="agentmux doctor --repair"):
        async with Reader(layout.database) as reader:
            await reader.rows("SELECT count(*) FROM tasks")
    assert files_of(layout) == before


async def test_who_reads_a_store_whose_schema_is_no_text_is_told_what_rebuilds_it(
    layout: Layout,
) -> None:
    damage.scramble_a_name(layout)
    before = layout.database.read_bytes()
    with pytest.raises(StorageError, match="agentmux doctor --repair"):
        async with Reader(layout.database) as reader:
            await reader.rows("SELECT count(*) FROM tasks")
    with pytest.raises(StorageError, match="agentmux doctor --repair"):
        read_vitals(layout.database)
    assert layout.database.read_bytes() == before


async def test_who_reads_an_empty_file_is_told_what_fills_it(layout: Layout) -> None:
    damage.delete(layout)
    layout.database.touch()
    for attempt in (_read_it, _read_its_vitals):
        with pytest.raises(StorageError, match=r"is empty; `agentmux doctor --repair`.* rebuilds"):
            await attempt(layout)


async def _read_it(layout: Layout) -> None:
    async with Reader(layout.database):
        pass


async def _read_its_vitals(layout: Layout) -> None:
    read_vitals(layout.database)


async def test_a_reader_that_cannot_connect_leaves_no_thread(tmp_path: Path) -> None:
    (tmp_path / "tasks.db").mkdir()
    for _ in range(20):
        before = set(threading.enumerate())
        with pytest.raises(StorageError, match="is a folder"):
            async with Reader(tmp_path / "tasks.db"):
                pass
        assert set(threading.enumerate()) <= before


async def test_a_reader_that_is_cancelled_while_it_connects_leaves_no_thread(
    layout: Layout,
) -> None:
    for turns in range(4):
        before = set(threading.enumerate())
        reading = asyncio.create_task(_read_it(layout))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        for thread in set(threading.enumerate()) - before:
            thread.join(PATIENCE)
            assert not thread.is_alive()


async def test_a_rebuild_waits_for_who_writes_to_the_log(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await it.store.seed(a_dag(a_task("a")))
    damage.delete(it.layout)
    with closing(WriteLock(it.layout.log_lock)) as lock:
        lock.acquire()
        rebuilding = asyncio.create_task(asyncio.to_thread(open_once, it.layout, clock=it.clock))
        await asyncio.sleep(0.3)
        assert not rebuilding.done()
        assert not it.layout.database.exists()
        lock.release()
        assert any("was missing" in notice for notice in await rebuilding)
