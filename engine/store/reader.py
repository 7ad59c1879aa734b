"""The connection of a process that only reads, and the errors that it can meet."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Self

import aiosqlite

from engine.errors import StorageError
from engine.patterns import has_match, has_word
from engine.store.database import (
    BUSY_MS,
    SCHEMA_VERSION,
    Connection,
    Home,
    other_schema,
    storage_error,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from types import TracebackType


class Reader:
    """One connection that cannot write, for all reads of a process.

    Every read is one statement, so no snapshot is held for longer than it takes: a reader that
    dwells lets the WAL grow by 20 KB a transition. Its SQL knows `has_word(word, text, …)` and
    `has_match(pattern, text, …)`, see engine.patterns.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: aiosqlite.Connection | None = None
        self._home: Home | None = None

    async def __aenter__(self) -> Self:
        if not self._path.exists():
            raise StorageError(
                f"no store in {self._path.parent}; make one with `agentmux tasks seed DAG`"
            )
        try:
            self._home = Home(self._path)
            self._db = await self._connect()
            for function in (has_word, has_match):
                await self._db.create_function(function.__name__, -1, function, deterministic=True)
            await self.rows("PRAGMA query_only=ON")
            await self._check_schema()
        except BaseException:
            # A connection that is left open keeps its thread, and the process, alive.
            await self.close()
            raise
        return self

    async def _connect(self) -> aiosqlite.Connection:
        """Connect; if that fails, or is cancelled, the connection's thread has ended."""
        threads: list[threading.Thread] = []

        def connect() -> sqlite3.Connection:
            threads.append(threading.current_thread())
            return sqlite3.connect(
                self._path, isolation_level=None, timeout=BUSY_MS / 1000, factory=Connection
            )

        async def wait() -> aiosqlite.Connection:
            return await aiosqlite.Connection(connect, iter_chunk_size=64)

        connecting = asyncio.create_task(wait())
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            await asyncio.wait({connecting})
            if not _failed(connecting):
                await connecting.result().close()
            raise
        except sqlite3.Error as error:
            raise storage_error(error, self._path) from error
        finally:
            if connecting.done() and _failed(connecting):
                # It has been told to stop, and the last it does is to report to our loop, which
                # must not be closed by then. No wait worth the name.
                for thread in threads:
                    thread.join()

    async def _check_schema(self) -> None:
        found = (await self.rows("PRAGMA user_version"))[0][0]
        if found != SCHEMA_VERSION:
            tables = (await self.rows("SELECT count(*) FROM sqlite_master"))[0][0]
            raise StorageError(f"{self._path} {'; '.join(other_schema(found, tables=tables))}")

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; a second time does nothing."""
        if self._db is not None:
            db, self._db = self._db, None
            await db.close()

    async def rows(self, sql: str, parameters: Iterable[Any] = ()) -> list[Any]:
        """Run one statement and return its rows as tuples. Raises StorageError."""
        if self._db is None or self._home is None:
            raise StorageError("the store is closed")
        self._home.check()
        try:
            return list(await self._db.execute_fetchall(sql, parameters))
        except sqlite3.Error as error:
            raise storage_error(error, self._path) from error

    async def data_version(self) -> int:
        """Return a number that changes when any other connection has committed (3 µs)."""
        return int((await self.rows("PRAGMA data_version"))[0][0])


def _failed(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.exception() is not None
