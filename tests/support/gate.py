"""Stops the writer of a store before or after a commit, so that a test can act just then."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from support.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.store.store import Store


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
