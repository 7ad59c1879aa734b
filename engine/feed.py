"""Who is told that something changed: readers of this process, whoever made the change.

Commits of this process are told at once; those of others are seen by `PRAGMA data_version`, which
costs 3 µs and a thread hop, looked at twenty times a second.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from engine.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from engine.store.reader import Reader

POLL = 0.05
_AFTER_TROUBLE = 1.0


class Feed:
    """Wakes subscribers after every commit, coalesced: a slow one misses none, only repeats."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._subscribers: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(self._watch(), name="feed")

    async def close(self) -> None:
        """Stop watching."""
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

    async def _watch(self) -> None:
        seen: int | None = None
        while True:
            try:
                version = await self._reader.data_version()
            except StorageError:
                # Readers must look and see for themselves that the store does not answer.
                self.publish()
                await asyncio.sleep(_AFTER_TROUBLE)
                continue
            if version != seen:
                seen = version
                self.publish()
            await asyncio.sleep(POLL)
