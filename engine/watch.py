"""Who watches logs, agents and disks, and hands alerts on: one process of a state folder at a time.

Any process that holds workers or keeps services does, or waits for its turn: when the one that
watches ends, or is killed, the next one goes on where it was.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from engine.errors import AgentmuxError
from engine.files import private, take_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from engine.clock import Clock
    from engine.config import Config
    from engine.feed import Feed
    from engine.files import Layout
    from engine.store.lookout import Lookout
    from engine.store.store import Store

log = logging.getLogger(__name__)

_TURN = 2.0
"""Seconds between two looks whether anybody watches."""
_AFTER_TROUBLE = 5.0


class Watch:
    """Watches from `open` to `close`, as soon as no other process does."""

    def __init__(
        self,
        *,
        store: Store,
        lookout: Lookout,
        feed: Feed,
        layout: Layout,
        project: Path,
        config: Config,
        clock: Clock,
    ) -> None:
        self._store = store
        self._lookout = lookout
        self._feed = feed
        self._layout = layout
        self._project = project
        self._config = config
        self._clock = clock
        self._loops: list[Callable[[], Coroutine[None, None, None]]] = []
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin, unless it has begun already."""
        if self._task is not None:
            return
        # Short commands never watch, and start without all this.
        from engine.courier import Courier  # noqa: PLC0415
        from engine.disks import DiskWatch  # noqa: PLC0415
        from engine.logwatch.watcher import LogWatcher  # noqa: PLC0415
        from engine.registry import RegistryWatch  # noqa: PLC0415

        watcher = LogWatcher(
            config=self._config.watch,
            targets=self._config.alerts.targets,
            store=self._store,
            lookout=self._lookout,
            layout=self._layout,
            project=self._project,
            clock=self._clock,
        )
        courier = Courier(
            config=self._config.alerts,
            store=self._store,
            lookout=self._lookout,
            feed=self._feed,
            layout=self._layout,
            project=self._project,
            clock=self._clock,
        )
        registry = RegistryWatch(
            config=self._config,
            store=self._store,
            lookout=self._lookout,
            project=self._project,
            clock=self._clock,
        )
        disks = DiskWatch(
            config=self._config,
            store=self._store,
            lookout=self._lookout,
            layout=self._layout,
            project=self._project,
        )
        self._loops = [watcher.watch, courier.carry, registry.watch, disks.watch]
        self._task = asyncio.create_task(self._watch_forever(), name="watch")

    async def close(self) -> None:
        """End; what was found and not told of yet is told of by who watches next."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _watch_forever(self) -> None:
        try:
            handle = private(str(self._layout.watch_lock), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        except OSError as error:
            log.warning("nobody watches: %s: %s", self._layout.watch_lock, error.strerror)
            return
        said = ""
        try:
            while not take_lock(handle):  # noqa: ASYNC110 - another process lets it go
                await asyncio.sleep(_TURN)
            while True:
                try:
                    await self._watch()
                except* AgentmuxError as group:
                    words = "; ".join(sorted({str(error) for error in _leaves(group)}))
                    if words != said:
                        log.warning("watch: %s", words)
                    said = words
                except* Exception:
                    # Whatever it is, trouble must be seen all the same.
                    log.exception("watch")
                await asyncio.sleep(_AFTER_TROUBLE)
        finally:
            os.close(handle)

    async def _watch(self) -> None:
        async with asyncio.TaskGroup() as group:
            for loop in self._loops:
                group.create_task(loop(), name=loop.__qualname__)


def _leaves(group: BaseExceptionGroup[AgentmuxError]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
