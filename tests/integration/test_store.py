"""Promises of the store: all or nothing, one owner, no half-written pair, errors that say why."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
import threading
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.clock import ManualClock
from support.stores import (
    HOST,
    OTHER_HOST,
    Opened,
    a_dag,
    a_task,
    check_store,
    events_of,
    everything,
    kinds,
    opened,
    select,
)

from engine.errors import (
    AgentmuxError,
    Code,
    IllegalTransition,
    LeaseConflict,
    LeaseLost,
    StorageError,
    TaskNotFound,
    ValidationError,
)
from engine.files import Layout
from engine.model import AgentRule, Claim, Outcome, ProcessId, RunOutcome, WorkerStatus
from engine.store import database
from engine.store.reader import Reader
from engine.store.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator

    from engine.store.transaction import Transaction

DONE = Outcome(RunOutcome.DONE)
FAILED = Outcome(RunOutcome.FAILED, error="no")
PATIENCE = 20


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Opened]:
    async with opened(tmp_path) as it:
        yield it
        check_store(it.layout)


class Gate:
    """Holds the writer's thread before or after each commit until the test lets it through."""

    def __init__(self, store: Store) -> None:
        self._writer = store._writer
        self._commit = self._writer._commit
        self._arrived = threading.Semaphore(0)
        self._passes = threading.Semaphore(0)

    @contextmanager
    def closed(self, *, after_commit: bool) -> Iterator[Gate]:
        def gated(*args: Any) -> Any:
            result = self._commit(*args) if after_commit else None
            self._arrived.release()
            assert self._passes.acquire(timeout=PATIENCE), "the test never let the writer go on"
            return result if after_commit else self._commit(*args)

        self._writer._commit = gated  # type: ignore[method-assign, assignment] # the gate itself
        try:
            yield self
        finally:
            self.open()

    async def arrived(self) -> None:
        """Wait until the writer stands at the gate."""
        assert await asyncio.to_thread(self._arrived.acquire, timeout=PATIENCE)

    def open(self) -> None:
        """Let the writer go on, now and ever after."""
        self._writer._commit = self._commit  # type: ignore[method-assign] # as it was
        self._passes.release()


# What each of the store's changes needs first, and the change itself.


async def _seeded(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a", retries=1), a_task("b", "a"), a_task("c")))


async def _claimed(it: Opened, preparing: frozenset[str] = frozenset()) -> Any:
    await _seeded(it)
    claim = await it.store.claim("codex", "codex-1", HOST, preparing)
    assert claim is not None
    return claim


async def _nothing(_it: Opened) -> None:
    return


async def _prepared(it: Opened) -> Any:
    return await _claimed(it, frozenset({"noop"}))


async def _worker(it: Opened) -> None:
    await it.store.register("codex", "codex-1", HOST, lambda _: True)


async def _held(it: Opened) -> None:
    await it.store.hold("codex")


async def _in_backoff(it: Opened) -> None:
    await it.store.finish(await _claimed(it), FAILED)
    await it.clock.advance(60)  # type: ignore[attr-defined] # it is a ManualClock


CHANGES: dict[
    str,
    tuple[Callable[[Opened], Awaitable[Any]], Callable[[Opened, Any], Coroutine[Any, Any, Any]]],
] = {
    "seed": (_nothing, lambda it, _: _seeded(it)),
    "reseed": (_seeded, lambda it, _: it.store.seed(a_dag(a_task("b"), a_task("a", "b")))),
    "claim": (_seeded, lambda it, _: it.store.claim("codex", "codex-1", HOST)),
    "start": (_prepared, lambda it, claim: it.store.start(claim)),
    "progress": (_claimed, lambda it, claim: it.store.progress(claim, "half")),
    "lead": (_claimed, lambda it, claim: it.store.lead(claim.run_id, HOST)),
    "finish": (_claimed, lambda it, claim: it.store.finish(claim, DONE)),
    "fail": (_claimed, lambda it, claim: it.store.finish(claim, FAILED)),
    "finish and claim": (
        _claimed,
        lambda it, claim: it.store.finish_and_claim(claim, DONE, HOST),
    ),
    "release": (_claimed, lambda it, claim: it.store.release(claim.task.id, claim.run_id, "me")),
    "expire": (_claimed, lambda it, claim: it.store.expire(claim.task.id, claim.run_id)),
    "renew": (_claimed, lambda it, claim: it.store.renew([claim.run_id])),
    "end backoff": (_in_backoff, lambda it, _: it.store.end_backoff()),
    "ask release": (_claimed, lambda it, claim: it.store.ask_release(claim.task.id)),
    "register": (_nothing, lambda it, _: _worker(it)),
    "beat": (_worker, lambda it, _: it.store.beat(["codex-1"])),
    "worker stopped": (
        _worker,
        lambda it, _: it.store.set_status("codex-1", HOST, WorkerStatus.STOPPED),
    ),
    "hold": (_nothing, lambda it, _: it.store.hold("codex")),
    "resume": (_held, lambda it, _: it.store.resume("codex")),
}


def test_every_writing_method_of_the_store_is_cancelled_below() -> None:
    methods = {name for name in vars(Store) if not name.startswith("_")} - {"open", "close"}
    covered = {
        "set_status": "worker stopped",
        "ask_release": "ask release",
        "finish_and_claim": "finish and claim",
        "end_backoff": "end backoff",
    }
    assert {covered.get(name, name) for name in methods} <= set(CHANGES)


@pytest.mark.parametrize("change", CHANGES)
async def test_a_caller_that_is_cancelled_in_the_queue_leaves_no_trace(
    it: Opened, change: str
) -> None:
    prepare, act = CHANGES[change]
    held = await prepare(it)
    gate = Gate(it.store)
    with gate.closed(after_commit=False):
        blocker = asyncio.create_task(it.store.hold("blocker"))
        await gate.arrived()
        before = everything(it.layout)
        caller = asyncio.create_task(act(it, held))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
    await blocker
    await it.store.resume("blocker")
    blocking = {'INSERT INTO "events"', 'INSERT INTO "holds"'}
    left = [line for line in everything(it.layout) if not any(line.startswith(b) for b in blocking)]
    assert left == [line for line in before if not any(line.startswith(b) for b in blocking)]
    assert kinds(events_of(it.layout))[-2:] == ["HELD", "RESUMED"]
    check_store(it.layout)


@pytest.mark.parametrize("after_commit", [False, True], ids=["before-commit", "after-commit"])
@pytest.mark.parametrize("change", CHANGES)
async def test_a_caller_that_is_cancelled_while_its_group_commits_leaves_the_whole_change(
    tmp_path: Path, change: str, after_commit: bool
) -> None:
    prepare, act = CHANGES[change]
    async with opened(tmp_path / "calm") as calm:
        held = await prepare(calm)
        await act(calm, held)
        expected = _shape(calm)
    async with opened(tmp_path / "cut") as cut:
        held = await prepare(cut)
        gate = Gate(cut.store)
        with gate.closed(after_commit=after_commit):
            caller = asyncio.create_task(act(cut, held))
            await gate.arrived()
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
        await cut.store.beat([])  # a commit behind it: the store works on
        check_store(cut.layout)
        assert _shape(cut) == expected


def _shape(it: Opened) -> list[Any]:
    """Return what a store holds but for what is random in it: run ids and the jitter."""
    tasks = select(it.layout, "SELECT id, state, attempts, pending, asked FROM tasks ORDER BY id")
    runs = select(it.layout, "SELECT task_id, outcome, pid FROM runs ORDER BY n")
    workers = select(it.layout, "SELECT id, status FROM workers")
    return [tasks, runs, workers, kinds(events_of(it.layout))]


@pytest.mark.parametrize("steps", range(8))
async def test_a_caller_cancelled_after_any_number_of_steps_leaves_all_or_nothing(
    it: Opened, steps: int
) -> None:
    claim = await _claimed(it)
    for change, cut in (("finish and claim", steps), ("seed", steps)):
        caller = asyncio.ensure_future(CHANGES[change][1](it, claim))
        for _ in range(cut):
            await asyncio.sleep(0)
        caller.cancel()
        with suppress(asyncio.CancelledError):
            await caller
    await it.store.beat([])
    check_store(it.layout)
    told = kinds(events_of(it.layout, "a"))
    assert told.count("TASK_COMPLETED") == (it.state("a") == "DONE")


async def test_an_open_that_is_cancelled_leaves_no_thread_and_no_lock(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    layout.create()
    lock = database.WriteLock(layout.write_lock)
    lock.acquire()
    store = Store(layout, ManualClock(), lease=60)
    opening = asyncio.create_task(store.open())
    await asyncio.sleep(0.01)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    lock.release()
    lock.close()
    await asyncio.to_thread(store._writer._thread.join, PATIENCE)
    assert not store._writer._thread.is_alive()
    with pytest.raises(StorageError, match="closed"):
        await store.hold("codex")
    async with opened(tmp_path) as again:
        await _seeded(again)


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
        tx.db.execute("INSERT INTO holds VALUES ('half', 'done')")
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
    await _seeded(it)
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
    await _seeded(it)
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
        await it.store.ask_release("nobody", dry_run=True)
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
    claim = await _claimed(it)
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


@contextmanager
def _not_root() -> Iterator[None]:
    """For root, nothing is read-only: be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_a_read_only_folder_is_named_in_the_refusal() -> None:
    with tempfile.TemporaryDirectory(prefix="agentmux-test-") as name:
        folder = Path(name)
        layout = Layout(folder / "state")
        layout.create()
        for path in (folder, layout.state):
            path.chmod(0o555)
        try:
            with _not_root():
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
    "folder": (_folder, "unable to open"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
async def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(
    tmp_path: Path, kind: str
) -> None:
    make, why = BAD_FILES[kind]
    layout = Layout(tmp_path / "state")
    layout.create()
    make(layout.database)
    before = layout.database.read_bytes() if layout.database.is_file() else b""
    store = Store(layout, ManualClock(), lease=60)
    with pytest.raises(StorageError, match=why) as refusal:
        await store.open()
    await store.close()
    assert refusal.value.code is Code.IO_ERROR
    assert str(layout.database) in str(refusal.value)
    if kind == "text":
        assert layout.database.read_bytes() == before
    assert not store._writer._thread.is_alive()


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
    await _seeded(it)
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


# One owner.


async def test_a_task_is_given_to_one_of_many_who_want_it(it: Opened) -> None:
    await it.store.seed(a_dag(*(a_task(f"t{n}") for n in range(10))))
    claims = await asyncio.gather(*(it.store.claim("codex", f"codex-{n}", HOST) for n in range(30)))
    given = [claim.task.id for claim in claims if claim is not None]
    assert sorted(given) == sorted(f"t{n}" for n in range(10))
    assert len({claim.run_id for claim in claims if claim is not None}) == 10


async def test_claims_go_by_priority_and_then_by_the_order_of_the_file(it: Opened) -> None:
    tasks = (a_task("low", priority=-1), a_task("x"), a_task("top", priority=5), a_task("y"))
    await it.store.seed(a_dag(*tasks, a_task("other", agent="claude")))
    assert [(await it.claim()).task.id for _ in range(4)] == ["top", "x", "y", "low"]
    assert await it.store.claim("codex", "codex-1", HOST) is None


async def test_a_late_success_is_recorded_and_changes_nothing(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", "a")))
    old = await it.claim("codex-1")
    assert await it.store.expire("a", old.run_id)
    new = await it.claim("codex-2")
    before = it.row("a")
    with pytest.raises(LeaseLost) as refusal:
        await it.store.finish(old, Outcome(RunOutcome.DONE, error="after all"))
    assert refusal.value.code is Code.NOT_CLAIMED_BY_WORKER
    assert it.row("a") == before
    late = events_of(it.layout)[-1]
    assert (late.type, late.run_id, late.worker_id) == ("LATE_RESULT", old.run_id, "codex-1")
    assert late.data == {"outcome": "done", "error": "after all"}
    await it.store.finish(new, DONE)
    assert it.state("a") == "DONE"
    again = await it.store.finish_and_claim(old, DONE, HOST)
    assert again is not None
    assert again.task.id == "b", "whose result came late goes on with its next task"
    assert kinds(events_of(it.layout, "a")).count("TASK_COMPLETED") == 1


async def test_a_renewed_lease_moves_only_for_runs_that_still_hold_their_task(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b")))
    lost, kept = await it.claim("codex-1"), await it.claim("codex-2")
    await it.store.expire("a", lost.run_id)
    await it.clock.advance(100)  # type: ignore[attr-defined] # it is a ManualClock
    until = await it.store.renew([lost.run_id, kept.run_id])
    assert (until - it.clock.now()).total_seconds() == 600
    assert it.row("a")["lease_until"] is None
    assert it.row("b")["lease_until"] > it.row("b")["created_at"]


async def test_three_lost_runs_in_a_row_need_a_human(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a", retries=9), a_task("b", "a")))
    for _ in range(2):
        await it.store.expire("a", (await it.claim()).run_id)
    await it.store.finish(await it.claim(), FAILED)
    await it.clock.advance(400)  # type: ignore[attr-defined] # it is a ManualClock
    await it.store.end_backoff()
    for lost in range(3):
        assert it.state("a") == "READY", f"{lost} lost in a row"
        await it.store.expire("a", (await it.claim()).run_id)
    assert (it.state("a"), it.reasons("a")) == ("BLOCKED", {"human"})
    assert it.row("a")["attempts"] == 1, "lost runs use no retry"
    assert (it.state("b"), it.reasons("b")) == ("BLOCKED", {"upstream"})
    assert "lost 3 runs" in it.row("a")["error"]


async def test_an_upstream_failure_blocks_the_whole_chain_and_nothing_beside_it(
    it: Opened,
) -> None:
    chain = [a_task("t0"), *(a_task(f"t{n}", f"t{n - 1}") for n in range(1, 200))]
    await it.store.seed(a_dag(*chain, a_task("beside")))
    await it.store.finish(await it.claim(), FAILED)
    assert it.state("t0") == "FAILED"
    assert {it.state(f"t{n}") for n in (1, 2, 100, 199)} == {"BLOCKED"}
    assert it.reasons("t199") == {"upstream"}
    assert it.state("beside") == "READY"
    blocked = [event for event in events_of(it.layout) if event.type == "TASK_BLOCKED"]
    assert [event.task_id for event in blocked] == [f"t{n}" for n in range(1, 200)]


async def test_a_commit_tells_which_agents_can_claim_now(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", "a", agent="claude"), a_task("c", "a")))
    assert dict(it.commits[-1].ready) == {"codex": 1}
    await it.store.finish(await it.claim(), DONE)
    await it.store.beat([])
    assert dict(it.commits[-1].ready) == {"claude": 1, "codex": 1}


# Limits, stagger, holds.


async def test_an_agents_limit_counts_all_runs_and_is_lifted_by_a_reseed(it: Opened) -> None:
    tasks = tuple(a_task(f"t{n}") for n in range(5))
    await it.store.seed(a_dag(*tasks, agents={"codex": AgentRule(limit=2)}))
    first = await it.claim("codex-1")
    await it.claim("codex-2")
    assert await it.store.claim("codex", "codex-3", OTHER_HOST) is None
    await it.store.finish(first, DONE)
    await it.claim("codex-3")
    assert await it.store.claim("codex", "codex-4", HOST) is None
    await it.store.seed(a_dag(*tasks))
    await it.claim("codex-4")


async def test_a_stagger_keeps_starts_apart_and_is_not_used_up_by_a_vain_claim(
    it: Opened,
) -> None:
    stagger = {"codex": AgentRule(stagger=60)}
    await it.store.seed(a_dag(agents=stagger))
    assert await it.store.claim("codex", "codex-1", HOST) is None
    await it.store.seed(a_dag(a_task("a"), a_task("b"), agents=stagger))
    await it.claim("codex-1")
    for seconds in (0, 59.9):
        await it.clock.advance(seconds)  # type: ignore[attr-defined] # it is a ManualClock
        assert await it.store.claim("codex", "codex-2", HOST) is None
    await it.clock.advance(0.1)  # type: ignore[attr-defined] # it is a ManualClock
    assert (await it.claim("codex-2")).task.id == "b"


async def test_a_hold_of_one_agent_or_of_all_keeps_claims_back_until_it_is_lifted(
    it: Opened,
) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", agent="claude")))
    assert await it.store.hold("codex") is True
    assert await it.store.hold("codex") is False
    assert await it.store.claim("codex", "codex-1", HOST) is None
    assert await it.store.claim("claude", "claude-1", HOST) is not None
    assert await it.store.hold("*") is True
    assert await it.store.resume("*") is True, "resuming all lifts each agent's hold too"
    assert await it.store.resume("codex") is False
    await it.claim()
    told = [event for event in kinds(events_of(it.layout)) if event in {"HELD", "RESUMED"}]
    assert told == ["HELD", "HELD", "RESUMED", "RESUMED"]


async def test_a_hold_and_a_claim_in_one_group_take_effect_in_their_order(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b"), a_task("c")))
    gate = Gate(it.store)
    with gate.closed(after_commit=False):
        blocker = asyncio.create_task(it.store.beat([]))
        await gate.arrived()
        works = (
            it.store.claim("codex", "codex-1", HOST),
            it.store.hold("codex"),
            it.store.claim("codex", "codex-2", HOST),
            it.store.resume("codex"),
            it.store.claim("codex", "codex-3", HOST),
        )
        group = [asyncio.ensure_future(work) for work in works]
        await asyncio.sleep(0)
    first, _, held, _, third = await asyncio.gather(*group)
    await blocker
    assert (first is not None, held, third is not None) == (True, None, True)


# Workers.

ALIVE, DEAD = (lambda _: True), (lambda _: False)


async def test_a_second_live_worker_with_the_same_id_is_refused(it: Opened) -> None:
    assert await it.store.register("codex", "w", HOST, ALIVE) == "w"
    with pytest.raises(LeaseConflict) as refusal:
        await it.store.register("claude", "w", OTHER_HOST, ALIVE)
    assert refusal.value.code is Code.LEASE_CONFLICT
    assert await it.store.register("codex", "w", OTHER_HOST, DEAD) == "w", "a dead one's is free"
    assert await it.store.set_status("w", HOST, WorkerStatus.STOPPED) is False, "not its any more"
    assert await it.store.set_status("w", OTHER_HOST, WorkerStatus.STOPPED) is True
    assert await it.store.set_status("w", OTHER_HOST, WorkerStatus.LOST) is False, "it was over"


async def test_two_live_workers_never_share_their_files(it: Opened) -> None:
    await it.store.register("a", "b-c", HOST, ALIVE)
    with pytest.raises(LeaseConflict, match="a-b-c"):
        await it.store.register("a-b", "c", OTHER_HOST, ALIVE)


async def test_a_worker_never_has_the_name_of_an_agent(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a", agent="codex"), a_task("b", agent="claude")))
    for agent, worker_id in (("codex", "codex"), ("codex", "claude")):
        with pytest.raises(ValidationError, match="name of an agent"):
            await it.store.register(agent, worker_id, HOST, ALIVE)
    await it.store.register("codex", "w", HOST, ALIVE)
    with pytest.raises(ValidationError, match="id of a worker"):
        await it.store.register("w", "x", HOST, ALIVE)


async def test_workers_without_a_name_take_the_first_free_number(it: Opened) -> None:
    hosts = {ProcessId(n, "1") for n in (1, 2, 3)}
    for n in (1, 2, 3):
        given = await it.store.register("codex", None, ProcessId(n, "1"), hosts.__contains__)
        assert given == f"codex-{n}"
    await it.store.set_status("codex-2", ProcessId(2, "1"), WorkerStatus.STOPPED)
    assert await it.store.register("codex", None, HOST, hosts.__contains__) == "codex-2"


async def test_a_free_number_is_no_agents_name_and_shares_no_files(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a", agent="codex"), a_task("b", agent="codex-1")))
    assert await it.store.register("codex", None, HOST, ALIVE) == "codex-2"
    assert await it.store.register("codex-1", None, HOST, ALIVE) == "codex-1-1"
    await it.store.register("x-x", "1", HOST, ALIVE)
    assert await it.store.register("x", None, HOST, ALIVE) == "x-2"


# The reader.


async def test_a_reader_cannot_write_and_sees_that_others_have(tmp_path: Path) -> None:
    async with opened(tmp_path) as it, Reader(it.layout.database) as reader:
        with pytest.raises(StorageError, match="readonly"):
            await reader.rows("DELETE FROM tasks")
        before = await reader.data_version()
        await it.store.hold("codex")
        assert await reader.data_version() != before
    with pytest.raises(StorageError, match="closed"):
        await reader.data_version()


async def test_a_store_that_is_not_there_is_not_made_by_reading(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="agentmux tasks seed"):
        async with Reader(tmp_path / "state" / "tasks.db"):
            pytest.fail("it was opened")
    assert not (tmp_path / "state").exists()


@asynccontextmanager
async def _two(folder: Path) -> AsyncIterator[tuple[Opened, Opened]]:
    async with opened(folder) as one, opened(folder) as other:
        yield one, other


async def test_two_stores_over_one_file_give_each_task_once(tmp_path: Path) -> None:
    async with _two(tmp_path) as (one, other):
        await one.store.seed(a_dag(*(a_task(f"t{n}") for n in range(60))))

        async def work(it: Opened, worker_id: str) -> list[str]:
            mine = []
            claim = await it.store.claim("codex", worker_id, HOST)
            while claim is not None:
                mine.append(claim.task.id)
                claim = await it.store.finish_and_claim(claim, DONE, HOST)
            return mine

        works = [work(one, "codex-1"), work(one, "codex-2"), work(other, "codex-3")]
        done = await asyncio.gather(*works)
        assert sorted(task for mine in done for task in mine) == sorted(f"t{n}" for n in range(60))
        check_store(one.layout)


def test_every_refusal_of_the_store_is_an_error_for_users() -> None:
    assert issubclass(StorageError, AgentmuxError)
