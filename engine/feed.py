"""Who is told that something changed: readers of this process, whoever made the change.

Commits of this process are told at once; those of others are seen by `PRAGMA data_version`. That
costs a thread hop (0.1 ms), so it is asked only when the WAL file was written to, which a glance
at it tells for a few µs: twenty times a second while others write, six times while none does. It
is asked once a second all the same.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from engine.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from engine.store.reader import Reader

log = logging.getLogger(__name__)

POLL = 0.05
"""Seconds between two glances at the WAL while it is written to."""
REST = 0.175
"""Seconds between two when it was not for some time: each wakes a process that could sleep."""
_BUSY = 1.0
"""Seconds after which a WAL that nobody wrote to counts as at rest."""
_FRESH = 0.1
"""A WAL written to so few seconds ago may have been written to again unseen: time stamps are
coarse, and a WAL that starts anew does not grow."""
_LONGEST_TRUST = 1.0
_AFTER_TROUBLE = 1.0
_LOOK = 0.2


class Feed:
    """Wakes subscribers after every commit, coalesced: a slow one misses none, only repeats."""

    def __init__(self, reader: Reader, database: Path) -> None:
        self._reader = reader
        self._wal = str(database.with_name(f"{database.name}-wal"))
        self._subscribers: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None
        self._written = asyncio.Event()
        self._mark: tuple[int, ...] = ()
        self._busy_until = self._trusted_until = 0.0
        self._glances: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(self._watch(), name="feed")
        self._glance()

    async def close(self) -> None:
        """Stop watching."""
        if self._glances is not None:
            self._glances.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def publish(self) -> None:
        """Wake everyone: something was committed."""
        for event in self._subscribers:
            event.set()

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[asyncio.Event]:
        """Hand out an event that is set now, and again after every commit; clear it yourself."""
        event = asyncio.Event()
        event.set()
        self._subscribers.add(event)
        try:
            yield event
        finally:
            self._subscribers.discard(event)

    async def changes(self) -> AsyncIterator[None]:
        """Yield at once, and then after every commit by any process."""
        async with self.subscribe() as event:
            while True:
                await event.wait()
                event.clear()
                yield

    async def until(self, condition: Callable[[], Awaitable[bool]], within: float) -> bool:
        """Wait until `condition` holds, looking after every commit; False: not in time.

        `within` is in seconds. A look that has begun is not cut short.
        """
        deadline = time.monotonic() + within
        async with self.subscribe() as changed:
            while not await condition():
                changed.clear()
                wait = min(deadline - time.monotonic(), _LOOK)
                if wait <= 0:
                    return False
                try:
                    # A process that dies commits nothing: look now and then all the same.
                    async with asyncio.timeout(wait):
                        await changed.wait()
                except TimeoutError:
                    continue
        return True

    async def _watch(self) -> None:
        seen: int | None = None
        while True:
            self._written.clear()
            try:
                version = await self._reader.data_version()
            except StorageError:
                # Readers must look and see for themselves that the store does not answer.
                self.publish()
                await asyncio.sleep(_AFTER_TROUBLE)
                continue
            except Exception:
                # Whatever it is, nobody may go on believing that nothing changes.
                log.exception("feed")
                self.publish()
                await asyncio.sleep(_AFTER_TROUBLE)
                continue
            if version != seen:
                seen = version
                self.publish()
            self._trusted_until = time.monotonic() + _LONGEST_TRUST
            await self._written.wait()

    def _glance(self) -> None:
        """Look at the WAL, and again later. A bare timer: a task costs three times as much."""
        before, self._mark = self._mark, self._look()
        now = time.monotonic()
        # Real time, not the engine's Clock: it is compared with what the file system wrote.
        if self._mark != before or time.time() - self._mark[0] / 1e9 <= _FRESH:
            self._written.set()
            self._busy_until = now + _BUSY
        elif now >= self._trusted_until:
            self._written.set()
        pause = POLL if now < self._busy_until else REST
        self._glances = asyncio.get_running_loop().call_later(pause, self._glance)

    def _look(self) -> tuple[int, ...]:
        """Return what changes when the WAL is written to; its time of change comes first."""
        try:
            found = os.stat(self._wal)  # noqa: PTH116 - a Path costs more than the look
        except OSError:
            # No WAL: nobody has written since the last checkpoint of all.
            return (0, 0, 0)
        return (found.st_mtime_ns, found.st_size, found.st_ino)
