"""Reads a log in a thread for whoever shows it: what was asked for first, then search, then count.

One turn at a time, each of a few milliseconds, so that a key never waits for a search through a
gigabyte, and a search is given up between two turns. Knows no widget: it tells what it has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from tui.logs.search import SLICE

if TYPE_CHECKING:
    from tui.logs.search import Search
    from tui.logs.viewport import Frame, Viewport

logger = logging.getLogger(__name__)

_COUNTED = 16
"""Blocks that are counted in a turn: 4 MiB."""
_LEAST = 32 * 1024
_LONG = 0.01
"""Seconds that a slice of a search should take at most: a key may wait for it."""
_TOLD = 0.1
"""Seconds between two words on how far a search is."""
_PATIENCE = 2.0
"""Seconds that a reader is waited for when nobody needs it any more."""

T = TypeVar("T")

Job = Callable[["Viewport"], Any]


class Reader:
    """Owns a viewport, which nobody else may touch.

    `show` is called with each new frame, `tell` with a search that went on or is over, `fail`
    with an error that a job ran into; all in the event loop.
    """

    def __init__(
        self,
        viewport: Viewport,
        *,
        show: Callable[[Frame], None],
        tell: Callable[[Search], None],
        fail: Callable[[Exception], None],
    ) -> None:
        self._viewport = viewport
        self._show, self._tell, self._fail = show, tell, fail
        self._jobs: list[Job] = []
        self._search: Search | None = None
        self._bell = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._stuck = False
        self._slice = SLICE
        self._told = 0.0
        self.idle = False
        """Whether all that was asked for is done, and the lines are counted."""

    def start(self) -> None:
        """Begin to read."""
        self._task = asyncio.create_task(self._run(), name="reads a log")

    async def stop(self) -> None:
        """Read no more, and close the file. Waits for the turn that goes on, but not for ever."""
        self._stopping = True
        self._bell.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_PATIENCE)

    def ask(self, job: Job) -> None:
        """Have this done with the viewport, and show what comes of it."""
        self._jobs.append(job)
        self.idle = False
        self._bell.set()

    async def get(self, job: Callable[[Viewport], T]) -> T | None:
        """Have this done with the viewport, and return what it returns; None if that failed."""
        results: list[T] = []
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wrapped(viewport: Viewport) -> None:
            try:
                results.append(job(viewport))
            finally:
                loop.call_soon_threadsafe(done.set)

        self.ask(wrapped)
        await done.wait()
        return results[0] if results else None

    def search(self, search: Search | None) -> None:
        """Go on with this search from now on, or with none; the former one is given up."""
        self._search = search
        self.idle = False
        self._bell.set()

    @property
    def searching(self) -> bool:
        """Whether a search goes on."""
        return self._search is not None

    async def _run(self) -> None:
        try:
            while not self._stopping:
                if not self._jobs and self._search is None and (self._counted or self._stuck):
                    self.idle = True
                    await self._bell.wait()
                self._bell.clear()
                await self._turn()
        finally:
            self._viewport.file.close()
            self._jobs.clear()

    @property
    def _counted(self) -> bool:
        return self._viewport.file.counted

    async def _turn(self) -> None:
        jobs, self._jobs = self._jobs, []
        self._stuck = self._stuck and not jobs
        search = None if jobs else self._search
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            frame = await asyncio.to_thread(self._work, jobs, search)
        except Exception as error:
            logger.exception("a log cannot be shown")
            if search is self._search:
                self._search = None
            # What cannot be read is not tried again and again, but when somebody asks.
            self._stuck = True
            self._jobs[:0] = jobs  # those behind the one that failed are still waited for
            self._fail(error)
            return
        if self._stopping:
            return
        if frame is not None:
            self._show(frame)
        if search is not None and search is self._search:
            # Escape sequences cost a hundred times what plain text does.
            took = loop.time() - began
            factor = 0.5 if took > _LONG else 2 if took < _LONG / 4 else 1
            self._slice = max(_LEAST, min(SLICE, int(self._slice * factor)))
            if search.done:
                self._search = None
            if search.done or loop.time() - self._told > _TOLD:
                self._told = loop.time()
                self._tell(search)

    def _work(self, jobs: list[Job], search: Search | None) -> Frame | None:
        """Do the jobs, taking each from the list, and some of what goes on in the background."""
        viewport, asked = self._viewport, bool(jobs)
        while jobs:
            jobs.pop(0)(viewport)
        if search is not None:
            search.step(viewport.file, self._slice)
            if search.found is not None:
                viewport.go_to(search.found)
        elif not asked and not viewport.file.counted:
            if not viewport.file.count_more(_COUNTED):
                viewport.refresh()  # it is shorter than it was
            viewport.changed = viewport.changed or viewport.file.counted
        return viewport.frame() if viewport.changed else None
