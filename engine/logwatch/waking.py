"""Woken by the file system: an event that is set when something is written in some folders."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

log = logging.getLogger(__name__)

_STEP = 50
_GROUPED = 200
"""Milliseconds for which changes are put together."""
_PATIENCE = 60_000
"""Milliseconds after which a thread that waits for changes looks whether it is still wanted."""


class Waker:
    """Sets `woken` for changes in the folders that it was told of last.

    A help, not a promise: some file systems tell nothing, and a machine may have run out of
    watches. Whoever waits looks by himself now and then.
    """

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self._folders: tuple[frozenset[Path], frozenset[Path]] = (frozenset(), frozenset())
        self._tasks: list[asyncio.Task[None]] = []

    async def follow(self, folders: Iterable[Path], deep: Iterable[Path]) -> None:
        """Wake for changes in `folders`, and in all that is below `deep`."""
        wanted = frozenset(folders), frozenset(deep)
        if wanted == self._folders:
            return
        await self.close()
        self._folders = wanted
        self._tasks = [
            asyncio.create_task(self._follow(some, recursive=recursive), name="waker")
            for some, recursive in zip(wanted, (False, True), strict=True)
            if some
        ]

    async def close(self) -> None:
        """Wake for nothing any more."""
        tasks, self._tasks = self._tasks, []
        self._folders = frozenset(), frozenset()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, folders: frozenset[Path], *, recursive: bool) -> None:
        import watchfiles  # noqa: PLC0415 - most fleets watch no files of their own

        try:
            async for _ in watchfiles.awatch(
                *folders,
                watch_filter=None,
                debounce=_GROUPED,
                step=_STEP,
                rust_timeout=_PATIENCE,
                recursive=recursive,
                ignore_permission_denied=True,
            ):
                self.woken.set()
        except Exception as error:  # noqa: BLE001 - whatever it is, logs are looked at all the same
            log.info("no notice of changes: %s", error)
            # What was watched may be gone: it is asked for anew with the next look.
            self._folders = frozenset(), frozenset()
            self.woken.set()
