"""Promises of opening a store: what is damaged is kept and rebuilt, what is not is left alone."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import damage
from support.damage import BESIDE, DAMAGES, beside, open_once, stopped_dead
from support.engines import ENVIRONMENT, PATIENCE
from support.pasts import DONE
from support.stores import HOST, a_dag, a_task, check_store, events_of, opened, select, tasks_of

from engine.errors import StorageError
from engine.files import Layout
from engine.store import database
from engine.store.reader import Reader
from engine.store.recovery import condition, replacing
from engine.store.vitals import read_vitals

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from engine.commands import Step

GOLDEN = Path(__file__).parents[1] / "golden" / "schema-1.db"
TESTS = Path(__file__).parents[1]


def files(layout: Layout) -> dict[str, bytes]:
    """Return all files below the state folder that are of any interest."""
    return {
        str(path.relative_to(layout.state)): path.read_bytes()
        for path in layout.state.rglob("*")
        if path.is_file() and not path.name.endswith((".lock", "-shm"))
    }


def kept(layout: Layout, name: str = "tasks.db") -> Path:
    (found,) = layout.quarantine.glob(f"*/{name}")
    return found


@asynccontextmanager
async def a_store(folder: Path) -> AsyncIterator[Layout]:
    """Yield a store whose process was killed: `a` is done, `b` can be claimed."""
    async with stopped_dead(folder) as it:
        await it.store.seed(a_dag(a_task("a"), a_task("b", "a")))
        await it.store.finish(await it.claim(), DONE)
    yield it.layout


@pytest.fixture
async def layout(tmp_path: Path) -> AsyncIterator[Layout]:
    async with a_store(tmp_path) as layout:
        yield layout


def states(layout: Layout) -> dict[str, str]:
    return {task_id: row["state"] for task_id, row in tasks_of(layout).items()}


STATES = {"a": "DONE", "b": "READY"}

# Damage.


@pytest.mark.parametrize("kind", sorted(DAMAGES.keys() - {"zeros in the middle"}))
def test_a_damaged_store_is_found_at_once_kept_as_it_was_and_rebuilt(
    layout: Layout, kind: str
) -> None:
    DAMAGES[kind](layout)
    before = files(layout)
    notices = open_once(layout)
    assert states(layout) == STATES
    (first, *_) = notices
    assert str(layout.database) in first or "rebuilt from the log" in notices[1]
    after = files(layout)
    for suffix in ("", "-wal"):
        name = f"tasks.db{suffix}"
        if name in before:
            (place,) = layout.quarantine.glob(f"*/{name}")
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
        f"{kept(layout).parent}; 2 tasks and 7 events were rebuilt from the log"
    )
    assert notice in [record.message for record in caplog.records]


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
    assert states(layout) == STATES


def test_an_old_copy_of_the_database_is_brought_up_to_the_log(
    tmp_path: Path, layout: Layout
) -> None:
    damage.settle(layout)
    copy = layout.database.read_bytes()

    async def go_on() -> None:
        async with stopped_dead(tmp_path) as it:
            await it.store.finish(await it.claim(), DONE)

    asyncio.run(go_on())
    for suffix in BESIDE:
        beside(layout, suffix).unlink(missing_ok=True)
    layout.database.write_bytes(copy)
    (notice,) = open_once(layout)
    assert "its last events are lost" in notice
    assert states(layout) == {"a": "DONE", "b": "DONE"}


def test_a_table_that_was_taken_away_is_damage(layout: Layout) -> None:
    with closing(sqlite3.connect(layout.database)) as db:
        db.execute("DROP TABLE pace")
    (notice,) = open_once(layout)
    assert "it has no pace" in notice
    assert states(layout) == STATES


def test_a_store_that_is_damaged_again_at_once_is_not_rebuilt_for_ever(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise condition.Damage("again")

    monkeypatch.setattr("engine.store.recovery.opening.look_over", fail)
    with pytest.raises(StorageError, match="look at the disk"):
        open_once(layout)
    assert len(list(layout.quarantine.iterdir())) == 1


def test_what_a_crash_had_made_ready_is_not_kept_beside_a_store_that_is_whole(
    layout: Layout,
) -> None:
    (layout.state / ".tasks.db.ready").write_bytes(b"of another day")
    assert open_once(layout) == []
    assert not list(layout.state.glob(".tasks.db*"))
    assert states(layout) == STATES


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
    assert states(layout) == STATES
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
    assert states(layout) == STATES


# No damage.


@contextmanager
def nobody() -> Iterator[None]:
    """For root, nothing is forbidden: be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def let_all_in(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)


@pytest.fixture
async def open_layout() -> AsyncIterator[Layout]:
    """Yield a damaged store in a folder that nobody in particular can reach."""
    with tempfile.TemporaryDirectory(prefix="agentmux-test-") as name:
        async with a_store(Path(name)) as layout:
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
    before = files(layout)
    with nobody(), pytest.raises(StorageError, match="permissions") as refusal:
        open_once(layout)
    assert str(layout.state) in str(refusal.value)
    assert files(layout) == before, "nothing was moved"
    layout.state.chmod(0o777)
    assert not layout.quarantine.exists()


def test_a_disk_that_is_full_in_the_middle_of_a_rebuild_leaves_all_as_it_was(
    layout: Layout,
) -> None:
    damage.settle(layout)
    damage.truncate(layout)
    before = files(layout)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        with pytest.raises(StorageError, match=r"tasks\.db"):
            open_once(layout)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(layout) == before
    open_once(layout)
    assert states(layout) == STATES


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


def test_a_database_that_is_not_ours_is_refused_even_if_a_log_lies_beside_it(
    layout: Layout,
) -> None:
    for version in (0, 1, database.SCHEMA_VERSION):
        damage.delete(layout)
        with closing(sqlite3.connect(layout.database, isolation_level=None)) as db:
            db.execute("CREATE TABLE recipes(name)")
            db.execute(f"PRAGMA user_version = {version}")
        before = files(layout)
        with pytest.raises(StorageError, match="not a database of agentmux"):
            open_once(layout)
        assert files(layout) == before


def test_a_newer_store_is_refused_whatever_else_is_in_it(layout: Layout) -> None:
    with closing(sqlite3.connect(layout.database, isolation_level=None)) as db:
        db.execute("DROP TABLE pace")
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StorageError, match="newer agentmux"):
        open_once(layout)
    assert not layout.quarantine.exists()


async def test_a_reader_of_a_damaged_store_is_told_what_rebuilds_it(layout: Layout) -> None:
    damage.settle(layout)
    damage.truncate(layout)
    before = files(layout)
    with pytest.raises(StorageError, match="agentmux doctor --repair"):
        async with Reader(layout.database) as reader:
            await reader.rows("SELECT count(*) FROM tasks")
    assert files(layout) == before


# Older stores.


def test_a_store_of_an_older_release_is_brought_up_to_date_after_a_backup(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    layout.create()
    layout.database.write_bytes(GOLDEN.read_bytes())
    with closing(sqlite3.connect(GOLDEN)) as db:
        tasks = db.execute("SELECT id, state FROM tasks ORDER BY id").fetchall()
    (notice,) = open_once(layout)
    assert "from schema 1 to 2" in notice
    (copy,) = layout.backup.glob("*/tasks.db")
    assert str(copy) in notice
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT id, state FROM tasks ORDER BY id").fetchall() == tasks
    assert sorted(states(layout).items()) == tasks
    assert select(layout, "PRAGMA user_version") == [{"user_version": 2}]
    assert open_once(layout) == []


def test_a_damaged_store_of_an_older_release_is_rebuilt_from_its_log(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    layout.create()
    layout.database.write_bytes(GOLDEN.read_bytes())
    with closing(sqlite3.connect(GOLDEN)) as db:
        tasks = db.execute("SELECT id, state FROM tasks ORDER BY id").fetchall()
        lines = db.execute("SELECT line FROM event_lines ORDER BY seq").fetchall()
    layout.log.write_text("".join(f"{line}\n" for (line,) in lines))
    damage.truncate(layout)
    open_once(layout)
    assert sorted(states(layout).items()) == tasks
    check_store(layout)


OLDER = (
    "CREATE TABLE tasks(id TEXT PRIMARY KEY, name, agent, state, deps, payload, result, claimed_by,"
    " lease_until, retries, created_at, updated_at)"
)
OLDER_LOG = b'{"ts":"2025-01-01T00:00:00Z","type":"TASK_COMPLETED","taskId":"a"}\n'


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
    before = files(older)
    notices = open_once(older)
    assert "2 tasks and 1 event were taken over" in notices[0]
    (folder,) = older.backup.iterdir()
    assert str(folder) in notices[0]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert states(older) == STATES
    assert not older.log.exists(), "the mirror writes it anew"
    check_store_of_adopted(older)
    assert open_once(older) == []


def check_store_of_adopted(layout: Layout) -> None:
    damage.mirror(layout)
    before = states(layout)
    damage.delete(layout)
    open_once(layout)
    assert states(layout) == before, "its new log rebuilds it"


def test_an_older_agentmuxs_store_in_the_place_of_ours_is_not_taken_for_it(
    older: Layout, tmp_path: Path
) -> None:
    old = older.database.read_bytes()
    damage.delete(older)
    older.log.unlink()

    async def work() -> None:
        async with a_store(tmp_path):
            pass

    asyncio.run(work())
    damage.delete(older)
    older.database.write_bytes(old)
    (notice,) = open_once(older)
    assert "it is an older agentmux's, but the log is not" in notice
    assert states(older) == STATES
    assert kept(older).read_bytes() == old


def test_an_older_log_without_a_database_is_kept_aside(older: Layout) -> None:
    damage.delete(older)
    (notice,) = open_once(older)
    assert states(older) == {}
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
    before = files(older)
    with pytest.raises(StorageError, match="older agentmux"):
        open_once(older)
    assert files(older) == before


# Crashes.

CHILD = """
import os, sys
from pathlib import Path
from support.clock import ManualClock
from support.damage import open_once
from engine.files import Layout

crash_at, layout, real, count = int(sys.argv[2]), Layout(Path(sys.argv[1])), Path.rename, 0

def rename(self, target):
    global count
    count += 1
    if count == crash_at:
        os._exit(9)
    return real(self, target)

Path.rename = rename
open_once(layout)
print(count)
"""


def child(source: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", source, *map(str, arguments)],
        env=ENVIRONMENT | {"PYTHONPATH": f"{ENVIRONMENT['PYTHONPATH']}:{TESTS}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def opened_by_a_child(layout: Layout, crash_at: int) -> int:
    """Open a store in a process that is gone before its `crash_at`th rename: then it returns 9."""
    process = child(CHILD, layout.state, crash_at)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode in {0, 9}, errors
    return process.returncode


@pytest.mark.parametrize("crash_at", range(1, 7))
def test_a_crash_between_any_two_moves_loses_nothing(layout: Layout, crash_at: int) -> None:
    damage.zero_table(layout, "tallies")
    # Somebody was at work on it: there is a -wal, and the log lacks the last event.
    with closing(sqlite3.connect(layout.database, isolation_level=None)) as db:
        db.execute("PRAGMA wal_autocheckpoint=0")
        db.execute("INSERT INTO holds VALUES ('x', '2026-01-01T00:00:00.000Z')")
        db.execute(
            "INSERT INTO events(ts, type, agent) VALUES ('2026-01-01T00:00:00.000Z', 'HELD', 'x')"
        )
        copies = {suffix: beside(layout, suffix).read_bytes() for suffix in BESIDE}
    for suffix, data in copies.items():
        beside(layout, suffix).write_bytes(data)
    assert opened_by_a_child(layout, crash_at) == (9 if crash_at < 6 else 0)
    main, wal = (list(layout.quarantine.glob(f"*/tasks.db{end}")) for end in ("", "-wal"))
    if wal == [] and main:
        assert not layout.database.exists(), "a -wal is never beside the database of another"
    open_once(layout)
    assert states(layout) == STATES
    assert [row["agent"] for row in select(layout, "SELECT agent FROM holds")] == ["x"]
    assert select(layout, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    check_store(layout)
    for suffix, data in copies.items():
        if suffix != "-shm":
            (place,) = layout.quarantine.glob(f"*/tasks.db{suffix}")
            assert place.read_bytes() == data
    assert not list(layout.state.glob(".tasks.db*"))


@pytest.mark.parametrize("crash_at", range(1, 6))
def test_a_crash_in_the_middle_of_a_take_over_loses_nothing(older: Layout, crash_at: int) -> None:
    before = files(older)
    assert opened_by_a_child(older, crash_at) == (9 if crash_at < 5 else 0)
    open_once(older)
    assert states(older) == STATES
    assert events_of(older)[0].type == "TASK_COMPLETED", "history included"
    assert not older.log.exists()
    for name, data in before.items():
        (place,) = older.backup.glob(f"*/{name}")
        assert place.read_bytes() == data
    assert open_once(older) == []


SLOW = """
import sys, time
from pathlib import Path
from support.damage import open_once
from engine.files import Layout

def told(step):
    print(step.what, step.count, flush=True)
    if step.what == sys.argv[2]:
        time.sleep(60)

open_once(Layout(Path(sys.argv[1])), on_step=told)
"""


@pytest.mark.parametrize(
    "when", ["reading the log", "rebuilding tasks", "checking the new database"]
)
async def test_a_kill_in_the_middle_of_a_rebuild_leaves_it_to_the_next_start(
    tmp_path: Path, when: str
) -> None:
    async with stopped_dead(tmp_path) as it:
        await it.store.seed(a_dag(*(a_task(f"t{n}") for n in range(2500))))
        await it.store.finish(await it.claim(), DONE)
    layout = it.layout
    damage.settle(layout)
    damage.truncate(layout)
    before = files(layout)
    with child(SLOW, layout.state, when) as process:
        assert process.stdout is not None
        try:
            assert any(line.startswith(when) for line in process.stdout)
        finally:
            process.kill()
    assert list(layout.state.glob(".tasks.db.rebuild-*")), "it was at it"
    assert {name: data for name, data in files(layout).items() if name in before} == before
    (notice,) = open_once(layout)
    assert "2,500 tasks" in notice
    assert states(layout)["t0"] == "DONE"
    assert not list(layout.state.glob(".tasks.db*"))
    assert kept(layout).read_bytes() == before["tasks.db"]


# Others.


async def test_of_two_processes_that_open_a_damaged_store_one_rebuilds_it_and_both_work(
    tmp_path: Path, layout: Layout
) -> None:
    damage.settle(layout)
    damage.truncate(layout)
    processes = [child(CHILD, layout.state, 0) for _ in range(2)]
    said = [await asyncio.to_thread(process.communicate, timeout=PATIENCE) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    moves = sorted(int(out) for out, _ in said)
    assert moves[0] == 0 < moves[1], "one of them did it"
    async with opened(tmp_path) as one, opened(tmp_path) as two:
        claim = await one.store.claim("codex", "codex-1", HOST)
        assert claim is not None
        assert await two.store.claim("codex", "codex-2", HOST) is None
        await two.store.finish(claim, DONE)
    assert states(layout) == {"a": "DONE", "b": "DONE"}


async def test_who_still_has_the_damaged_file_open_can_neither_write_nor_do_harm(
    tmp_path: Path, layout: Layout
) -> None:
    async with opened(tmp_path) as old, Reader(layout.database) as reader:
        damage.zero_table(layout, "tallies")
        async with opened(tmp_path) as new:
            claim = await new.claim()
            with pytest.raises(StorageError, match="removed or replaced"):
                await old.store.hold("codex")
            with pytest.raises(StorageError, match="removed or replaced"):
                await reader.rows("SELECT 1")
            await old.store.close()
            await new.store.finish(claim, DONE)
            assert beside(layout, "-wal").stat().st_size > 0, "nobody took it away"
    assert states(layout) == {"a": "DONE", "b": "DONE"}
    assert select(layout, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]


async def test_whoever_rebuilds_is_waited_for_as_long_as_that_goes_on(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire, tries = database.WriteLock.acquire, 0
    other = database.WriteLock(layout.write_lock)
    acquire(other)
    draft = replacing.draft_file(layout)

    def impatient(self: database.WriteLock, timeout: float = 0.0) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            with draft.open("ab") as file:
                file.write(b"x" * 4096)
        elif tries == 4:
            other.release()
        acquire(self, timeout)

    monkeypatch.setattr(database.WriteLock, "acquire", impatient)
    steps: list[Step] = []
    open_once(layout, on_step=steps.append)
    assert [step.what for step in steps] == ["waiting for the process that rebuilds the store"] * 3
    acquire(other)
    with pytest.raises(StorageError, match=r"write\.lock"):
        open_once(layout)
    other.close()


# Names in the schema that are no text any more.


def scramble_a_name(layout: Layout) -> None:
    """Write bytes that are no UTF-8 where SQLite quotes them in its message."""
    damage.settle(layout)
    content = layout.database.read_bytes()
    assert content.count(b"CREATE TABLE tasks") == 1
    layout.database.write_bytes(content.replace(b"CREATE TABLE tasks", b"CREA\xff\xfe TABLE tasks"))


def test_a_name_in_the_schema_that_is_no_text_is_damage(layout: Layout) -> None:
    scramble_a_name(layout)
    before = layout.database.read_bytes()
    assert "was damaged (Could not decode" in open_once(layout)[0]
    assert states(layout) == STATES
    assert kept(layout).read_bytes() == before
    assert open_once(layout) == []


async def test_who_reads_a_store_whose_schema_is_no_text_is_told_what_rebuilds_it(
    layout: Layout,
) -> None:
    scramble_a_name(layout)
    before = layout.database.read_bytes()
    with pytest.raises(StorageError, match="agentmux doctor --repair"):
        async with Reader(layout.database) as reader:
            await reader.rows("SELECT count(*) FROM tasks")
    with pytest.raises(StorageError, match="agentmux doctor --repair"):
        read_vitals(layout.database)
    assert layout.database.read_bytes() == before


def test_an_older_agentmuxs_store_whose_schema_is_no_text_is_not_lost(older: Layout) -> None:
    content = older.database.read_bytes()
    at = content.index(b"CREATE TABLE")
    older.database.write_bytes(content[: at + 4] + b"\xff\xfe" + content[at + 6 :])
    before = files(older)
    with pytest.raises(StorageError, match="older agentmux"):
        open_once(older)
    assert files(older) == before


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
