"""Promises of opening a store: what is no damage is used as it is, or refused with a reason."""

from __future__ import annotations

import resource
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import damage
from support.damage import STATES, a_killed_store, files_of, open_once, stopped_dead
from support.nobody import nobody
from support.stores import a_dag, a_task, events_of, opened, states_of

from engine.errors import StorageError
from engine.store import database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from engine.files import Layout


@pytest.fixture
async def layout(tmp_path: Path) -> Layout:
    return await a_killed_store(tmp_path)


async def test_a_file_that_is_whole_is_left_alone(tmp_path: Path, layout: Layout) -> None:
    inode = layout.database.stat().st_ino
    async with opened(tmp_path) as it:
        assert it.store._writer.notices == []
        assert (await it.claim()).task.id == "b"
    assert layout.database.stat().st_ino == inode
    assert not layout.quarantine.exists()


def test_a_log_line_that_tells_of_the_future_proves_nothing(layout: Layout) -> None:
    with layout.log.open("a") as log:
        log.write('{"seq":70,"ts":"2026-01-01T00:00:00.000Z","type":"ALERT"}\n')
    before = events_of(layout)
    assert open_once(layout) == []
    assert events_of(layout) == before


async def test_a_log_of_another_store_proves_nothing(tmp_path: Path, layout: Layout) -> None:
    async with stopped_dead(tmp_path / "other") as other:
        await other.store.seed(a_dag(*(a_task(f"t{n}") for n in range(20))))
    layout.log.write_bytes(other.layout.log.read_bytes())
    assert open_once(layout) == []
    assert states_of(layout) == STATES


# What the system refuses.


def let_all_in(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)


@pytest.fixture
async def open_layout() -> AsyncIterator[Layout]:
    """Yield a damaged store in a folder that nobody in particular can reach."""
    with tempfile.TemporaryDirectory(prefix="agentmux-test-") as name:
        layout = await a_killed_store(Path(name))
        damage.settle(layout)
        damage.truncate(layout)
        layout.write_lock.touch()
        let_all_in(Path(name))
        yield layout
        let_all_in(layout.state)


@pytest.mark.parametrize("forbidden", ["the folder", "the database", "the log"])
def test_what_must_not_be_read_or_written_is_no_damage(open_layout: Layout, forbidden: str) -> None:
    layout = open_layout
    match forbidden:
        case "the folder":
            layout.state.chmod(0o555)
        case "the database":
            layout.database.chmod(0)
        case _:
            layout.log.chmod(0)
    before = files_of(layout)
    with nobody(), pytest.raises(StorageError, match="permissions") as refusal:
        open_once(layout)
    assert str(layout.state) in str(refusal.value)
    assert files_of(layout) == before, "nothing was moved"
    layout.state.chmod(0o777)
    assert not layout.quarantine.exists()


def test_a_disk_that_is_full_in_the_middle_of_a_rebuild_leaves_all_as_it_was(
    layout: Layout,
) -> None:
    damage.settle(layout)
    damage.truncate(layout)
    before = files_of(layout)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        with pytest.raises(StorageError, match=r"tasks\.db"):
            open_once(layout)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files_of(layout) == before
    open_once(layout)
    assert states_of(layout) == STATES


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("disk I/O error", sqlite3.SQLITE_IOERR_READ),
        ("database or disk is full", sqlite3.SQLITE_FULL),
        ("database is locked", sqlite3.SQLITE_BUSY),
    ],
)
def test_a_disk_that_fails_is_no_damage(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, error: str, code: int
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        failure = sqlite3.OperationalError(error)
        failure.sqlite_errorcode = code
        raise failure

    inode = layout.database.stat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr("engine.store.recovery.opening.look_over", fail)
        with pytest.raises(StorageError, match=error):
            open_once(layout)
    assert layout.database.stat().st_ino == inode
    assert not layout.quarantine.exists()
    assert open_once(layout) == []


# What is not ours to touch.


def test_a_database_that_is_not_ours_is_refused_even_if_a_log_lies_beside_it(
    layout: Layout,
) -> None:
    for version in (0, 1, database.SCHEMA_VERSION):
        damage.delete(layout)
        damage.by_hand(layout, "CREATE TABLE recipes(name)", f"PRAGMA user_version = {version}")
        before = files_of(layout)
        with pytest.raises(StorageError, match="not a database of agentmux"):
            open_once(layout)
        assert files_of(layout) == before


def test_a_newer_store_is_refused_whatever_else_is_in_it(layout: Layout) -> None:
    damage.by_hand(layout, "DROP TABLE pace", "PRAGMA user_version = 99")
    with pytest.raises(StorageError, match="newer agentmux"):
        open_once(layout)
    assert not layout.quarantine.exists()
