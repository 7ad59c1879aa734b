"""A store, and watchers of logs over it that look when they are told to."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from support.clock import ManualClock
from support.stores import tuples

from engine.config import WatchConfig
from engine.files import Layout
from engine.logwatch.watcher import LogWatcher
from engine.store.lookout import Lookout
from engine.store.reader import Reader
from engine.store.store import Store

if TYPE_CHECKING:
    from pathlib import Path


class LogDesk:
    """A store, and watchers over it that look when they are told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layout = Layout(folder / "state")
        self.clock = ManualClock()
        self.log = folder / "app.log"
        self._stack = AsyncExitStack()
        self.store = Store(self.layout, self.clock, lease=600)
        self._reader = Reader(self.layout.database)
        self._watcher: LogWatcher | None = None

    async def open(self) -> None:
        self.layout.create()
        await self.store.open()
        self._stack.push_async_callback(self.store.close)
        await self._stack.enter_async_context(self._reader)

    async def close(self) -> None:
        await self.end()
        await self._stack.aclose()

    async def watcher(self, *files: str, **settings: Any) -> LogWatcher:
        """Return a watcher that has begun as one of a new process does."""
        watcher = LogWatcher(
            config=WatchConfig(files=files or ("app.log",), **settings),
            targets=(),
            store=self.store,
            lookout=Lookout(self._reader, self.clock),
            layout=self.layout,
            project=self.folder,
            clock=self.clock,
        )
        await self.end()
        await self.store.begin_watching()
        await watcher.begin()
        self._watcher = watcher
        return watcher

    async def end(self) -> None:
        if self._watcher is not None:
            await self._watcher.end()

    def write(self, *lines: str, end: str = "\n") -> None:
        with self.log.open("a") as file:
            file.write("\n".join(lines) + end)

    async def look(self, watcher: LogWatcher, after: float = 2.0) -> None:
        await self.clock.advance(after)
        await watcher.look()

    def alerts(self) -> list[tuple[int, str]]:
        """Return the count and the summary of each alert."""
        return tuples(self.layout, "SELECT count, summary FROM alerts ORDER BY id")

    def bodies(self) -> list[str]:
        """Return the lines found that the bodies of all alerts have."""
        rows = tuples(self.layout, "SELECT body FROM alerts ORDER BY id")
        return [
            line.strip()
            for (body,) in rows
            for line in (self.layout.state / body).read_text().splitlines()
            if line.startswith("    ")
        ]
