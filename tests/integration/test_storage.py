"""Promises of group commit and of the disk: neighbours are spared, errors say what to do."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.clock import ManualClock
from support.gate import Gate
from support.nobody import nobody
from support.patience import PATIENCE
from support.stores import (
    HOST,
    Opened,
    a_dag,
    a_task,
    check_store,
    everything,
    opened,
    select,
)

from engine.errors import (
    Code,
    IllegalTransition,
    StorageError,
    TaskNotFound,
)
from engine.files import Layout
from engine.model import Claim, Outcome, RunOutcome
from engine.store import database, orders
from engine.store.reader import Reader
from engine.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.store.transaction import Transaction

DONE = Outcome(RunOutcome.DONE)
FAILED = Outcome(RunOutcome.FAILED, error="no")
ABC = a_dag(a_task("a", retries=1), a_task("b", "a"), a_task("c"))

# Group commit.


async def test_what_waits_together_is_committed_together(it: Opened) -> None:
    await it.store.seed(a_dag(*(a_task(f"t{n}") for n in range(50))))
    gate = Gate(it.store)
    with gate.closed(after_commit=False):
        blocker = asyncio.create_task(it.store.beat([]))
        await gate.arrived()
        commits = len(it.commits)
        waiting = [asyncio.create_task(it.claim(f"codex-{n}")) for n in range(50)]
        await asyncio.sleep(0)
    claims = await asyncio.gather(*waiting)
    await blocker
    assert len(it.commits) == commits + 1, "fifty claims, one commit"
    assert it.commits[-1].events == 100
    assert [claim.task.id for claim in claims] == [f"t{n}" for n in range(50)]


class Poisoned(Exception):  # noqa: N818 - raised by tests only
    pass


def _poison(kind: str) -> Callable[[Transaction], None]:
    """Make a change that writes half of what it wants and then goes wrong."""

    def change(tx: Transaction) -> None:
        tx.db.execute("UPDATE tasks SET state = 'DONE' WHERE id = 'a'")
        tx.db.execute("INSERT INTO holds(agent, since) VALUES ('half', 'done')")
        match kind:
            case "raises":
                raise Poisoned("half way")
            case "sql":
                tx.db.execute("INSERT INTO tasks(id) VALUES ('no more columns')")
            case "refuses":
                raise IllegalTransition("a", "READY", "finish")

    return change


@pytest.mark.parametrize(
    ("kind", "error"),
    [("raises", Poisoned), ("sql", StorageError), ("refuses", IllegalTransition)],
)
async def test_a_change_that_goes_wrong_fails_alone(
    it: Opened, kind: str, error: type[Exception]
) -> None:
    await it.store.seed(ABC)
    writer = it.store._writer
    gate = Gate(it.store)
    with gate.closed(after_commit=False):
        blocker = asyncio.create_task(it.store.beat([]))
        await gate.arrived()
        group: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(work)
            for work in (
                it.store.claim("codex", "codex-1", HOST),
                writer.write(_poison(kind)),
                it.store.claim("codex", "codex-2", HOST),
                it.store.hold("claude"),
            )
        ]
        await asyncio.sleep(0)
    first, poisoned, second, held = await asyncio.gather(*group, return_exceptions=True)
    await blocker
    assert isinstance(poisoned, error)
    assert isinstance(first, Claim)
    assert isinstance(second, Claim)
    assert (first.task.id, second.task.id, held) == ("a", "c", True)
    assert [row["agent"] for row in select(it.layout, "SELECT agent FROM holds")] == ["claude"]
    assert len(select(it.layout, "SELECT * FROM runs")) == 2, "no claim was made twice"
    assert it.state("a") == "RUNNING"


async def test_a_dry_run_sees_what_came_before_it_and_leaves_nothing(it: Opened) -> None:
    await it.store.seed(ABC)
    gate = Gate(it.store)
    with gate.closed(after_commit=False):
        blocker = asyncio.create_task(it.store.beat([]))
        await gate.arrived()
        held = asyncio.create_task(it.store.hold("codex"))
        dry = asyncio.create_task(it.store.resume("codex", dry_run=True))
        claim = asyncio.create_task(it.store.claim("codex", "codex-1", HOST))
        await asyncio.sleep(0)
    assert await held is True
    assert await dry is True, "the hold before it is real for it"
    assert await claim is None, "what it did is not real for the next one"
    await blocker
    before = everything(it.layout)
    assert await it.store.hold("gemini", dry_run=True) is True
    with pytest.raises(TaskNotFound):
        await it.order_one(orders.release, "nobody", dry_run=True)
    assert everything(it.layout) == before
    assert await it.store.hold("gemini") is True


async def test_a_closed_store_commits_what_waited_and_takes_no_more(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        waiting = [asyncio.create_task(it.store.hold(f"agent-{n}")) for n in range(20)]
        await asyncio.sleep(0)
        await it.store.close()
        assert await asyncio.gather(*waiting) == [True] * 20
        with pytest.raises(StorageError, match="closed") as refusal:
            await it.store.hold("late")
        assert refusal.value.code is Code.IO_ERROR
        await it.store.close()
    assert len(select(it.layout, "SELECT * FROM holds")) == 20


# The disk and its contents.


async def test_a_full_disk_refuses_changes_whole_and_the_store_works_again_after_it(
    it: Opened,
) -> None:
    await it.store.seed(ABC)
    claim = await it.claim()
    writer = it.store._writer

    def limit(pages: str) -> Callable[[Transaction], None]:
        return lambda tx: tx.db.execute(f"PRAGMA max_page_count = {pages}").fetchone()

    await writer.write(limit("1"))  # SQLite never goes below what there is already
    before = everything(it.layout)
    big = {"text": "x" * 200_000}
    with pytest.raises(StorageError, match="full") as refusal:
        await it.store.finish(claim, Outcome(RunOutcome.DONE, result=big))
    assert refusal.value.code is Code.IO_ERROR
    assert "free some space" in str(refusal.value)
    many = a_dag(*(a_task(f"t{n}", payload={"kind": "noop", **big}) for n in range(5)))
    with pytest.raises(StorageError, match="full"):
        await it.store.seed(many)
    assert everything(it.layout) == before
    check_store(it.layout)
    await writer.write(limit("1000000"))
    await it.store.finish(claim, Outcome(RunOutcome.DONE, result=big))
    assert it.state("a") == "DONE"
    await it.store.seed(many)


async def test_a_read_only_folder_is_named_in_the_refusal() -> None:
    with tempfile.TemporaryDirectory(prefix="agentmux-test-") as name:
        folder = Path(name)
        layout = Layout(folder / "state")
        layout.create()
        for path in (folder, layout.state):
            path.chmod(0o555)
        try:
            with nobody():
                store = Store(layout, ManualClock(), lease=60)
                with pytest.raises(StorageError, match="permissions") as refusal:
                    await store.open()
                await store.close()
        finally:
            for path in (folder, layout.state):
                path.chmod(0o755)
    assert refusal.value.code is Code.IO_ERROR
    assert str(layout.state) in str(refusal.value)


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


def _foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE recipes(name)")


def _text(path: Path) -> None:
    path.write_text("not a database at all " * 100)


def _folder(path: Path) -> None:
    path.mkdir()


BAD_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "newer": (_newer, "newer agentmux"),
    "foreign": (_foreign, "not a database of agentmux"),
    "text": (_text, "not a database"),
    "folder": (_folder, "is a folder"),
}


@pytest.mark.parametrize("kind", sorted(BAD_FILES.keys() - {"text"}))
async def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(
    tmp_path: Path, kind: str
) -> None:
    make, why = BAD_FILES[kind]
    layout = Layout(tmp_path / "state")
    layout.create()
    make(layout.database)
    store = Store(layout, ManualClock(), lease=60)
    with pytest.raises(StorageError, match=why) as refusal:
        await store.open()
    await store.close()
    assert refusal.value.code is Code.IO_ERROR
    assert str(layout.database) in str(refusal.value)
    assert not store._writer._thread.is_alive()
    assert not (layout.state / "quarantine").exists()


async def test_a_file_that_is_no_database_is_kept_aside_and_the_store_works(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    layout.create()
    _text(layout.database)
    before = layout.database.read_bytes()
    async with opened(tmp_path) as it:
        await it.store.seed(ABC)
        assert (await it.claim()).task.id == "a"
        notices = it.store._writer.notices
    (kept,) = (layout.state / "quarantine").glob("*/tasks.db")
    assert kept.read_bytes() == before
    assert any(str(kept.parent) in notice for notice in notices)


@pytest.mark.parametrize("kind", BAD_FILES)
async def test_a_reader_refuses_it_too_and_keeps_no_thread(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "tasks.db"
    BAD_FILES[kind][0](path)
    threads = set(threading.enumerate())
    with pytest.raises(StorageError):
        async with Reader(path):
            pytest.fail("it was opened")
    async with asyncio.timeout(PATIENCE):
        while set(threading.enumerate()) - threads:  # noqa: ASYNC110 - a thread's end has no event
            await asyncio.sleep(0.01)


async def test_an_old_sqlite_is_refused_with_the_version_that_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(StorageError, match=r"3\.35"):
        async with opened(tmp_path):
            pytest.fail("it was opened")


async def test_a_lock_that_is_never_given_back_fails_all_that_wait_after_one_patience(
    it: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    await it.store.seed(ABC)
    lock = database.WriteLock(it.layout.write_lock)
    tried: list[float] = []
    acquire = database.WriteLock.acquire

    def impatient(self: database.WriteLock, timeout: float = 0.2) -> None:
        tried.append(timeout)
        acquire(self, min(timeout, 0.2))

    lock.acquire()
    monkeypatch.setattr(database.WriteLock, "acquire", impatient)
    gate = Gate(it.store)
    with gate.closed(after_commit=False):
        waiting: list[asyncio.Task[Any]] = [asyncio.create_task(it.store.beat([]))]
        await gate.arrived()
        waiting += [asyncio.create_task(it.claim(f"codex-{n}")) for n in range(20)]
        await asyncio.sleep(0)
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    lock.release()
    lock.close()
    for answer in answers:
        assert isinstance(answer, StorageError)
        assert "write.lock" in str(answer)
    assert len(tried) == 2, "the first one, and the group that had gathered behind it"
    assert (await it.claim()).task.id == "a"


async def test_the_store_is_durable_and_its_files_are_private(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        pragmas: dict[str, Any] = {}

        def read(tx: Transaction) -> None:
            for name in ("journal_mode", "synchronous", "foreign_keys", "wal_autocheckpoint"):
                pragmas[name] = tx.db.execute(f"PRAGMA {name}").fetchone()[0]

        await it.store._writer.write(read)
        assert it.layout.database.stat().st_mode & 0o077 == 0
    expected = {"synchronous": 2, "foreign_keys": 1, "wal_autocheckpoint": 0}
    assert pragmas == {"journal_mode": "wal", **expected}


async def test_the_wal_stays_small_over_many_commits(it: Opened) -> None:
    await it.store.seed(a_dag(*(a_task(f"t{n}") for n in range(2000))))
    claim = await it.claim()
    for _ in range(1999):
        following = await it.store.finish_and_claim(claim, DONE, HOST)
        assert following is not None
        claim = following
    wal = it.layout.database.with_name("tasks.db-wal")
    assert wal.stat().st_size < 32 << 20
