"""events.jsonl: a mirror of the events table, in seq order, one JSON object a line.

After a commit one process appends what the log lacks; a file lock picks it. A crash leaves the
log behind, never wrong: the next start appends the rest. How it is written is `mirror`'s; this
says when, and keeps the event loop out of it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from engine.clock import Clock, SystemClock
from engine.errors import StorageError, StoreGone
from engine.log.mirror import Mirror
from engine.store.database import storage_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.files import Layout

log = logging.getLogger(__name__)

_PAUSE = 0.05
"""Seconds between two rounds: under load one append carries many commits."""
_LAST_TRIES = 20


class Journal:
    """Appends to the log of a state folder, on a thread of its own.

    `poke` says that something was committed. A failing append (disk full) is told, kept in
    `trouble` and tried again with the next commit: the table is the truth, the log may lag.
    """

    def __init__(self, layout: Layout, clock: Clock | None = None) -> None:
        self._layout = layout
        self._mirror = Mirror(layout, clock or SystemClock())
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="agentmux-journal")
        self._poked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.trouble: StorageError | None = None

    @property
    def notices(self) -> Sequence[str]:
        """Sentences about what was found damaged in the log and set aside, oldest first."""
        return self._mirror.notices

    async def open(self) -> None:
        """Catch up, then keep up in the background."""
        if not await self._round():
            self._poked.set()
        self._task = asyncio.create_task(self._keep_up(), name="journal")

    async def close(self) -> None:
        """Append what is left and stop."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        # Whoever is at it may have read the table before our last commit.
        for _ in range(_LAST_TRIES):
            if await self._round():
                break
            await asyncio.sleep(_PAUSE)
        await asyncio.get_running_loop().run_in_executor(self._pool, self._mirror.close)
        self._pool.shutdown(wait=False)

    def poke(self) -> None:
        """Say that events were committed."""
        self._poked.set()

    async def _keep_up(self) -> None:
        while True:
            await self._poked.wait()
            self._poked.clear()
            try:
                if not await self._round():
                    self._poked.set()
            except Exception:
                # Whatever it is, the next commit must be written all the same.
                log.exception("journal")
            await asyncio.sleep(_PAUSE)

    async def _round(self) -> bool:
        """Append what the log lacks. False: another process is at it; look again later."""
        loop = asyncio.get_running_loop()
        try:
            mine = await loop.run_in_executor(self._pool, self._mirror.catch_up)
        except (OSError, sqlite3.Error) as error:
            self._fail(storage_error(error, self._layout.log))
            return True
        except StoreGone as error:
            self.trouble = error  # whoever writes to the store says so
            return True
        except StorageError as error:
            self._fail(error)
            return True
        self.trouble = None
        return mine

    def _fail(self, error: StorageError) -> None:
        """Note why the log lags, and say so once."""
        # Without a state folder it is the host that tells.
        if str(error) != str(self.trouble) and self._layout.state.exists():
            log.warning(
                "%s; until then events are in tasks.db only, and a rebuild lacks them", error
            )
        self.trouble = error
