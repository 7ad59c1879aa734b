"""events.jsonl: a mirror of the events table, in seq order, one JSON object a line.

After a commit one process appends what the log lacks; a file lock picks it. A crash leaves the
log behind, never wrong: the next start appends the rest. A torn last line is cut off first.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from engine.store.database import BUSY_MS, storage_error

if TYPE_CHECKING:
    from engine.errors import StorageError
    from engine.files import Layout

_ROWS_AT_ONCE = 2000
_TAIL = 1 << 16
_PAUSE = 0.05
"""Seconds between two rounds: under load one append carries many commits."""

# One row a round: the lines are joined inside SQLite, where Python's lock is not held.
_NEXT_LINES = (
    "SELECT max(seq), group_concat(line, char(10)) FROM"
    " (SELECT seq, line FROM event_lines WHERE seq > ? ORDER BY seq LIMIT ?)"
)


class Journal:
    """Appends to the log of a state folder, on a thread of its own.

    `poke` says that something was committed. A failing append (disk full) is kept in `trouble`
    and tried again with the next commit: the table is the truth, the log may lag.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="agentmux-journal")
        self._poked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._mark: tuple[int, int, int] | None = None
        self._db: sqlite3.Connection | None = None
        self.trouble: StorageError | None = None

    async def open(self) -> None:
        """Catch up, then keep up in the background."""
        await self._round()
        self._task = asyncio.create_task(self._keep_up(), name="journal")

    async def close(self) -> None:
        """Append what is left and stop."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        await self._round()
        await asyncio.get_running_loop().run_in_executor(self._pool, self._disconnect)
        self._pool.shutdown(wait=False)

    def poke(self) -> None:
        """Say that events were committed."""
        self._poked.set()

    async def _keep_up(self) -> None:
        while True:
            await self._poked.wait()
            self._poked.clear()
            if not await self._round():
                self._poked.set()
            await asyncio.sleep(_PAUSE)

    async def _round(self) -> bool:
        """Append what the log lacks. False: another process is at it; look again later."""
        loop = asyncio.get_running_loop()
        try:
            mine = await loop.run_in_executor(self._pool, self._append)
        except (OSError, sqlite3.Error) as error:
            self.trouble = storage_error(error, self._layout.log)
            return True
        self.trouble = None
        return mine

    def _append(self) -> bool:
        lock = os.open(self._layout.log_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self._append_locked()
        finally:
            os.close(lock)
        return True

    def _append_locked(self) -> None:
        db = self._connect()
        log = os.open(self._layout.log, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            seq = self._known_seq(log)
            while True:
                last, lines = db.execute(_NEXT_LINES, (seq, _ROWS_AT_ONCE)).fetchone()
                if last is None:
                    break
                _write_all(log, f"{lines}\n".encode())
                seq = last
            state = os.fstat(log)
            self._mark = (state.st_ino, state.st_size, seq)
        finally:
            os.close(log)

    def _known_seq(self, log: int) -> int:
        """Return the last seq of the log; cheap while nobody else wrote to it."""
        state = os.fstat(log)
        if self._mark is not None and self._mark[:2] == (state.st_ino, state.st_size):
            return self._mark[2]
        self._mark = None
        return last_seq(log)

    def _connect(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = sqlite3.connect(
                self._layout.database, isolation_level=None, timeout=BUSY_MS / 1000
            )
            self._db.execute("PRAGMA query_only=ON")
        return self._db

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def last_seq(log: int) -> int:
    """Return the seq of the last whole line of an open log; cut off a torn one behind it."""
    size = end = os.fstat(log).st_size
    tail = b""
    while end > 0:
        start = max(0, end - _TAIL)
        tail = os.pread(log, end - start, start) + tail
        end = start
        found = _last_line(tail, whole_file=start == 0)
        if found is None:
            continue
        kept, seq = found
        if kept < len(tail):
            os.ftruncate(log, size - (len(tail) - kept))
        return seq
    return 0


def _last_line(tail: bytes, *, whole_file: bool) -> tuple[int, int] | None:
    """Find the last valid line in the end of a log: (bytes up to its end, its seq).

    None: it begins before `tail`; read further back.
    """
    end = tail.rfind(b"\n") + 1
    while end > 0:
        begin = tail.rfind(b"\n", 0, end - 1) + 1
        if begin == 0 and not whole_file:
            return None
        try:
            return end, int(json.loads(tail[begin : end - 1])["seq"])
        except (ValueError, KeyError, TypeError):
            end = begin
    return (0, 0) if whole_file else None
