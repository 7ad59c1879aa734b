"""The one writer of a process: everything that waits is committed as one transaction.

A change is a function of a Transaction. `write` hands it to the writer's thread and returns its
result after the commit. While one group is being committed the next one gathers, so the cost of a
change falls as the load rises.

A thread of its own, with plain sqlite3 inside, because a transaction must be indivisible: with
one awaited call for each statement, a cancelled caller could leave half of it behind, and each
call would cost a thread hop of its own (about 0.1 ms; a group has ten statements).
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from engine.errors import AgentmuxError, StorageError
from engine.files import Layout
from engine.store.database import WriteLock, checkpoint, storage_error
from engine.store.transaction import Transaction

if TYPE_CHECKING:
    from pathlib import Path

    from engine.clock import Clock
    from engine.commands import OnStep

T = TypeVar("T")
Change = Callable[[Transaction], T]

_LARGEST_GROUP = 512
_CHECKPOINT_EVERY = 1500
"""Events between two checkpoints: the WAL stays at a few megabytes."""


class Committed(Struct, frozen=True):
    """What a commit means for others: events written, tasks now claimable by agent, runs that
    lost their task and must end.
    """  # noqa: D205

    events: int
    ready: Mapping[str, int]
    taken: Sequence[str] = ()


class _Waiting(Struct):
    change: Change[Any]
    future: asyncio.Future[Any]
    dry_run: bool


class _NoTurn(Exception):  # noqa: N818 - never leaves this module
    """A group could not even begin: another process has the lock, or the disk refuses."""

    def __init__(self, error: StorageError | sqlite3.Error) -> None:
        super().__init__(str(error))
        self.error = error


class Writer:
    """Owns the writing connection and its thread.

    `on_commit` is called on the event loop after each commit that told events. `on_step` is told,
    on the writer's thread, how far a rebuild of the store is while it is opened; `deep` checks all
    of it first. `notices` are sentences on what was done to the store then, empty as a rule.
    """

    def __init__(
        self,
        path: Path,
        lock_path: Path,
        clock: Clock,
        on_commit: Callable[[Committed], None],
        *,
        on_step: OnStep | None = None,
        deep: bool = False,
    ) -> None:
        self.notices: list[str] = []
        self._on_step = on_step
        self._deep = deep
        self._path = path
        self._lock_path = lock_path
        self._clock = clock
        self._on_commit = on_commit
        self._queue: SimpleQueue[list[_Waiting] | None] = SimpleQueue()
        self._gathered: list[_Waiting] = []
        self._left: list[_Waiting] | None = None
        self._thread = threading.Thread(target=self._run, name="agentmux-writer", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened: Future[None] = Future()
        self._closed = False
        self._since_checkpoint = 0

    async def open(self) -> None:
        """Start the thread and open the database; raises StorageError."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        try:
            await asyncio.shield(asyncio.wrap_future(self._opened))
        except asyncio.CancelledError:
            # Nobody will close what is being opened.
            self._closed = True
            self._queue.put(None)
            raise

    async def close(self) -> None:
        """Commit what waits, close the connection, end the thread."""
        if self._closed:
            return
        self._closed = True
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _hand_over(self) -> None:
        """Give the thread all that this turn of the loop has gathered, as one group."""
        gathered, self._gathered = self._gathered, []
        if gathered:
            self._queue.put(gathered)

    async def write(self, change: Change[T], *, dry_run: bool = False) -> T:
        """Carry out a change in a transaction and return its result once it is durable.

        A caller that is cancelled while it waits in the queue leaves no trace; later, the change
        is committed all the same. `dry_run`: the real transaction, rolled back.

        Raises:
            AgentmuxError: what the change raised; it changed nothing.
            StorageError: the database refused; it changed nothing.

        """
        if self._closed:
            raise StorageError("the store is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        waiting = _Waiting(change, future, dry_run)
        if dry_run:
            # Alone, after what was asked before: its rollback is only its own.
            self._hand_over()
            self._queue.put([waiting])
            return await future
        if not self._gathered:
            # Workers that one commit woke report in the same turn of the loop. Were the first
            # of them handed over at once, it would be committed alone and the rest would wait.
            loop.call_soon(self._hand_over)
        self._gathered.append(waiting)
        return await future

    def check_home(self) -> None:
        """Raise StoreGone if the database is no longer where it was opened. One stat."""
        self._home.check()

    def _run(self) -> None:
        try:
            lock = WriteLock(self._lock_path)
        except OSError as error:
            self._opened.set_exception(storage_error(error, self._lock_path))
            return
        from engine.store.recovery.opening import Opening  # noqa: PLC0415 - who only reads need not load it

        opening = Opening(
            Layout(self._path.parent), self._clock.now(), deep=self._deep, on_step=self._on_step
        )
        try:
            connection, self._home = opening.open(lock)
        except BaseException as error:  # noqa: BLE001 - handed to the caller of open()
            lock.close()
            self._opened.set_exception(error)
            return
        finally:
            self.notices = opening.notices
        self._opened.set_result(None)
        try:
            while (group := self._gather()) is not None:
                self._commit_group(connection, lock, group)
        finally:
            # The last connection to close checkpoints: that belongs under the lock too. Whoever
            # keeps the lock from us has a connection open, so ours is not the last then.
            with suppress(StorageError):
                lock.acquire()
            connection.close()
            lock.close()

    def _gather(self) -> list[_Waiting] | None:
        """Wait for work; return all that waits, or None at the end."""
        group = self._left or self._queue.get()
        self._left = None
        while group is not None and len(group) < _LARGEST_GROUP and not group[0].dry_run:
            try:
                more = self._queue.get_nowait()
            except Empty:
                break
            if more is None:
                self._queue.put(None)
                break
            if more[0].dry_run:
                self._left = more
                break
            group += more
        if group is None:
            return None
        return [waiting for waiting in group if not waiting.future.cancelled()]

    def _commit_group(
        self, connection: sqlite3.Connection, lock: WriteLock, group: list[_Waiting]
    ) -> None:
        if not group:
            return
        try:
            results, committed = self._commit(connection, lock, group)
        except _NoTurn as refusal:
            # Each alone would wait as long again.
            self._answer(group, [self._translate(refusal.error) for _ in group], None)
            return
        except BaseException as error:  # noqa: BLE001 - handed to the callers
            if len(group) == 1:
                self._answer(group, [self._translate(error)], None)
                return
            # One bad change must not fail its neighbours: each alone now.
            for waiting in group:
                self._commit_group(connection, lock, [waiting])
            return
        self._answer(group, results, committed)

    def _answer(
        self, group: list[_Waiting], results: list[Any], committed: Committed | None
    ) -> None:
        """Wake all callers of a group with one call into the loop."""

        def wake() -> None:
            for waiting, result in zip(group, results, strict=True):
                if waiting.future.done():
                    continue
                if isinstance(result, BaseException):
                    waiting.future.set_exception(result)
                else:
                    waiting.future.set_result(result)
            if committed is not None:
                self._on_commit(committed)

        assert self._loop is not None
        self._loop.call_soon_threadsafe(wake)

    def _commit(
        self, connection: sqlite3.Connection, lock: WriteLock, group: list[_Waiting]
    ) -> tuple[list[Any], Committed | None]:
        dry_run = group[0].dry_run
        with ExitStack() as turn:
            try:
                turn.enter_context(lock.held())
                # SQLite would go on writing to a file that nobody can find any more.
                self._home.check()
                connection.execute("BEGIN IMMEDIATE")
            except (StorageError, sqlite3.Error) as error:
                raise _NoTurn(error) from error
            try:
                tx = Transaction(connection, self._clock.now())
                results = [waiting.change(tx) for waiting in group]
                told = tx.flush()
                connection.execute("ROLLBACK" if dry_run else "COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            if not dry_run:
                self._checkpoint(connection, told + tx.bulk)
        if dry_run or not (told or tx.ready):
            return results, None
        return results, Committed(told, tx.ready, tx.taken)

    def _checkpoint(self, connection: sqlite3.Connection, rows: int) -> None:
        self._since_checkpoint += rows
        if self._since_checkpoint < _CHECKPOINT_EVERY:
            return
        # What was committed stays committed: a checkpoint that fails (disk full) is tried again
        # after the next group and must not look like a failed change.
        with suppress(sqlite3.Error):
            checkpoint(connection)
            self._since_checkpoint = 0

    def _translate(self, error: BaseException) -> BaseException:
        if isinstance(error, AgentmuxError):
            return error
        if isinstance(error, sqlite3.Error | OSError):
            return storage_error(error, self._path)
        return error
