"""Promises of schema changes: every released store comes up to date whole, or stays as it was."""

from __future__ import annotations

import asyncio
import re
import resource
import shutil
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.clock import ManualClock
from support.engines import Project, until
from support.stores import check_log, check_store, states_of

import engine
from engine.commands import Resume
from engine.errors import Code, StorageError
from engine.files import Layout
from engine.findings import Level
from engine.model import State
from engine.store import counting, derived
from engine.store.audit import audit
from engine.store.database import SCHEMA_VERSION, schema_version
from engine.store.recovery.migrations import back_up, migrate
from engine.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SQL = Path(engine.__file__).parent / "sql"
GOLDEN = Path(__file__).resolve().parents[1] / "golden"
OLDER = range(1, SCHEMA_VERSION)


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database as the opening of a store does: no transaction but those that are begun."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        yield db


@contextmanager
def golden(schema: int, folder: Path) -> Iterator[sqlite3.Connection]:
    """Open a copy of the golden database of a schema, in WAL mode as stores are."""
    shutil.copy(GOLDEN / f"schema-{schema}.db", folder / "tasks.db")
    with opened(folder / "tasks.db") as db:
        db.execute("PRAGMA journal_mode=WAL").fetchone()
        yield db


def whole(db: sqlite3.Connection) -> tuple[int, list[str]]:
    """Return all that a database holds: its version, its schema, every row."""
    return schema_version(db), list(db.iterdump())


def tables(db: sqlite3.Connection) -> list[str]:
    return [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]


def rows(db: sqlite3.Connection) -> dict[str, list[dict[str, Any]]]:
    """Return every row of every table, as a dict, in the order of all its values."""
    found = {}
    for table in tables(db):
        cursor = db.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        found[table] = sorted((dict(zip(names, row, strict=True)) for row in cursor), key=repr)
    return found


def _parts(sql: str) -> list[str]:
    """Split the inside of a CREATE TABLE at its commas, but not within brackets or quotes."""
    parts, depth, quoted = [""], 0, False
    for char in sql:
        quoted ^= char == "'"
        depth += (not quoted) * ((char == "(") - (char == ")"))
        if char == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += char
    return parts


def schema(db: sqlite3.Connection) -> dict[str, object]:
    """Return what a schema says, whatever way led there: columns have no order, spaces no meaning.

    For tables also how SQLite understood them: what it takes for a type or a default counts.
    """
    said: dict[str, object] = {}
    for kind, name, sql in db.execute("SELECT type, name, sql FROM sqlite_master"):
        if sql is None:
            said[name] = kind
            continue
        text = " ".join(re.sub(r"--.*", "", sql).split())
        if kind != "table":
            said[name] = text
            continue
        head, rest = text.split("(", 1)
        inside, tail = rest.rsplit(")", 1)
        columns = {row[1:] for row in db.execute(f"PRAGMA table_xinfo({name})")}
        said[name] = head.strip(), frozenset(map(str.strip, _parts(inside))), tail, columns
    return said


def fresh(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript((SQL / "schema.sql").read_text(encoding="utf-8"))
    return db


@pytest.mark.parametrize("number", OLDER)
def test_migrating_counts_what_the_log_tells(number: int, tmp_path: Path) -> None:
    with golden(number, tmp_path) as db:
        migrate(db, number)
        for told, there in (
            (counting.COUNTED, counting.COUNTED_NOW),
            (derived.SPENT_BEFORE, "SELECT * FROM spent_before"),
        ):
            assert sorted(db.execute(there)) == sorted(db.execute(told))
        assert {"launched", "ended"} <= {row[0] for row in db.execute(counting.COUNTED_NOW)}


def test_every_released_schema_has_a_golden_database_and_a_step_that_leads_on() -> None:
    golden = {path.name for path in GOLDEN.glob("*.db")}
    assert golden == {f"schema-{number}.db" for number in OLDER}
    steps = {path.name for path in (SQL / "migrations").iterdir()}
    assert steps == {f"{number + 1:04d}.sql" for number in OLDER}
    for number in OLDER:
        with opened(GOLDEN / f"schema-{number}.db") as db:
            assert schema_version(db) == number


def test_the_golden_store_of_schema_1_holds_all_that_its_release_could_leave(
    tmp_path: Path,
) -> None:
    with golden(1, tmp_path) as db:

        def values(sql: str) -> set[object]:
            return {row[0] for row in db.execute(sql)}

        assert values("SELECT state FROM tasks") == set(State)
        assert values("SELECT reasons FROM tasks") == {
            "[]",
            '["upstream"]',
            '["human"]',
            '["removed"]',
        }
        assert values("SELECT outcome FROM runs") == {None, "done", "failed", "blocked", "released"}
        for there in (
            "SELECT 1 FROM tasks WHERE state = 'READY' AND not_before IS NOT NULL",
            "SELECT 1 FROM tasks WHERE state = 'READY' AND pending > 0",
            "SELECT 1 FROM tasks WHERE removed = 1",
            "SELECT 1 FROM tasks WHERE state = 'RUNNING' AND run_id IS NOT NULL",
            "SELECT 1 FROM runs WHERE result IS NOT NULL AND exit_code = 1",
            "SELECT 1 FROM agents WHERE run_limit = 3 AND stagger > 0 AND last_start IS NOT NULL",
            "SELECT 1 FROM workers WHERE status = 'live'",
            "SELECT 1 FROM holds",
            "SELECT 1 FROM pace",
            "SELECT 1 FROM events WHERE type = 'TASK_UPDATED'",
        ):
            assert values(there) == {1}, there


@pytest.mark.parametrize("number", OLDER)
def test_a_migrated_store_has_the_schema_of_a_new_one(number: int, tmp_path: Path) -> None:
    with golden(number, tmp_path) as db, closing(fresh(tmp_path / "new.db")) as new:
        assert schema(db) != schema(new), "nothing to migrate: the comparison sees nothing"
        migrate(db, number)
        assert schema_version(db) == SCHEMA_VERSION
        assert schema(db) == schema(new)


@pytest.mark.parametrize("number", OLDER)
def test_migrating_loses_no_row_and_no_value(number: int, tmp_path: Path) -> None:
    with golden(number, tmp_path) as db:
        before = rows(db)
        lines = db.execute("SELECT line FROM event_lines ORDER BY seq").fetchall()
        migrate(db, number)
        after = rows(db)
        assert db.execute("SELECT line FROM event_lines ORDER BY seq").fetchall() == lines
    for table, was in before.items():
        kept = [{name: row[name] for name in was[0]} for row in after[table]] if was else []
        assert sorted(kept, key=repr) == was, table


@pytest.mark.parametrize("number", OLDER)
def test_doctor_finds_no_fault_in_a_migrated_store(number: int, tmp_path: Path) -> None:
    with golden(number, tmp_path) as db:
        migrate(db, number)
    found = audit(tmp_path / "tasks.db")
    assert [finding for finding in found if finding.level is Level.ERROR] == []


def test_the_tallies_stay_exact_when_a_migrated_store_changes(tmp_path: Path) -> None:
    with golden(1, tmp_path) as db:
        migrate(db, 1)
        db.execute("UPDATE tasks SET ending = 'a run' WHERE id = 'queued'")
        counted = "SELECT n FROM tallies WHERE agent = 'nobody' AND state = 'READY' AND waiting = 1"
        assert db.execute(counted).fetchall() == [(1,)], "while its former run is there, it waits"
        db.execute("DELETE FROM tasks WHERE id = 'queued'")
        assert db.execute(counted).fetchall() == [(0,)]


def test_a_process_of_the_older_release_can_claim_nothing_any_more(tmp_path: Path) -> None:
    claim = (
        "SELECT id FROM tasks INDEXED BY claimable WHERE agent = 'nobody' AND state = 'READY'"
        " AND pending = 0 AND not_before IS NULL ORDER BY priority DESC, position LIMIT 1"
    )
    with golden(1, tmp_path) as db:
        assert db.execute(claim).fetchall() == [("queued",)]
        migrate(db, 1)
        # It would not see that the tree of a former run still lives.
        with pytest.raises(sqlite3.OperationalError, match="no query solution"):
            db.execute(claim)


# What goes wrong changes nothing.


def _full(db: sqlite3.Connection) -> Callable[[], object]:
    db.execute("PRAGMA max_page_count = 1").fetchone()  # never below what there is already
    return lambda: db.execute("PRAGMA max_page_count = 1000000").fetchone()


def _taken_at_the_end(db: sqlite3.Connection) -> Callable[[], object]:
    """Let one of the last statements of the step meet what it does not expect."""
    db.execute("DROP TRIGGER tally_update")
    return lambda: db.execute(
        "CREATE TRIGGER tally_update AFTER UPDATE ON tasks BEGIN SELECT 1; END"
    )


def _locked(db: sqlite3.Connection) -> Callable[[], object]:
    db.execute("PRAGMA busy_timeout = 0").fetchone()
    (path,) = (row[2] for row in db.execute("PRAGMA database_list"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other.close


@pytest.mark.parametrize("spoil", [_full, _taken_at_the_end, _locked])
def test_a_migration_that_fails_leaves_the_store_as_it_was_and_works_later(
    spoil: Callable[[sqlite3.Connection], Callable[[], object]], tmp_path: Path
) -> None:
    with golden(1, tmp_path) as db:
        mend = spoil(db)
        before = whole(db)
        with pytest.raises(sqlite3.Error):
            migrate(db, 1)
        assert not db.in_transaction
        assert whole(db) == before
        mend()
        migrate(db, 1)
        assert schema_version(db) == SCHEMA_VERSION
        assert [row[0] for row in db.execute("PRAGMA integrity_check")] == ["ok"]


async def test_a_store_of_a_newer_schema_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    layout.create()
    with closing(fresh(layout.database)) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        before = whole(db)
    store = Store(layout, ManualClock(), lease=60)
    with pytest.raises(StorageError, match="newer agentmux") as refusal:
        await store.open()
    await store.close()
    assert refusal.value.code is Code.IO_ERROR
    with opened(layout.database) as db:
        assert whole(db) == before


# The copy that is made before.


def test_a_backup_is_the_store_as_last_committed_in_one_private_file(tmp_path: Path) -> None:
    folder = tmp_path / "backup" / "20260101T000000000Z"
    with golden(1, tmp_path) as db, opened(tmp_path / "tasks.db") as other:
        db.execute("PRAGMA wal_autocheckpoint=0")
        db.execute("UPDATE tasks SET name = 'only in the WAL' WHERE id = 'plan'")
        committed = whole(db)
        other.execute("BEGIN")
        other.execute("UPDATE tasks SET name = 'not committed' WHERE id = 'plan'")
        copy = back_up(db, folder)
        other.execute("ROLLBACK")
        migrate(db, 1)
    assert copy == folder / "tasks.db"
    assert [path.name for path in folder.iterdir()] == ["tasks.db"]
    assert copy.stat().st_mode & 0o777 == 0o600
    assert {path.stat().st_mode & 0o777 for path in (folder, folder.parent)} == {0o700}
    with closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as db:
        assert whole(db) == committed
    assert [path.name for path in folder.iterdir()] == ["tasks.db"], "it can be read alone"


def test_a_backup_never_replaces_another(tmp_path: Path) -> None:
    with golden(1, tmp_path) as db:
        copy = back_up(db, tmp_path / "backup")
        content = copy.read_bytes()
        db.execute("DELETE FROM events")
        with pytest.raises(FileExistsError, match=re.escape(str(copy))):
            back_up(db, tmp_path / "backup")
    assert copy.read_bytes() == content


@contextmanager
def _small_files() -> Iterator[None]:
    """Let no file grow beyond 64 KiB, as if the disk were full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_backup_that_fails_leaves_no_half_of_one_and_says_so(tmp_path: Path) -> None:
    with golden(1, tmp_path) as db:
        before = whole(db)
        with _small_files(), pytest.raises(sqlite3.Error):
            back_up(db, tmp_path / "backup")
        assert list((tmp_path / "backup").iterdir()) == []
        assert whole(db) == before
        assert back_up(db, tmp_path / "backup").exists()


# The whole engine.


async def test_the_engine_opens_an_older_store_and_goes_on_where_it_stood(
    project: Project,
) -> None:
    project.layout.create()
    shutil.copy(GOLDEN / "schema-1.db", project.layout.database)
    async with project.engine() as fleet, asyncio.timeout(60):
        await fleet.execute(Resume("nobody"))
        await fleet.start_worker("nobody", until_idle=True)
        await until(lambda: project.state("long") == "READY", "the run of a dead host is over")
        await until(lambda: project.state("prepared") == "READY", "and so is the claim of one")
        await fleet.wait_workers()
    states = states_of(project.layout)
    assert states["queued"] == "DONE"
    assert (states["plan"], states["broken"], states["old"]) == ("DONE", "FAILED", "BLOCKED")
    for task_id in ("long", "prepared"):
        assert "LEASE_EXPIRED" in project.kinds(task_id)
    with opened(project.layout.database) as db:
        assert schema_version(db) == SCHEMA_VERSION
    check_store(project.layout)
    check_log(project.layout)
    (copy,) = (project.layout.state / "backup").glob("*/tasks.db")
    with opened(copy) as db, opened(GOLDEN / "schema-1.db") as original:
        assert whole(db) == whole(original)
