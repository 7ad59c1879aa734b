"""A dashboard on an engine whose rows are chosen by hand, and the hands on its keys."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from support.patience import PATIENCE
from support.screens import FakeEngine, FakeQueries, busy, screen_text, settle
from textual.events import Key

from tui.app import Dashboard
from tui.screens.reading import ReadingScreen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from textual.pilot import Pilot
    from textual.screen import Screen

    from tui.actions.model import Place
    from tui.fitted import Fitting


class Desk:
    """A dashboard on a fake engine, and the hands on its keys."""

    def __init__(self, engine: FakeEngine, app: Dashboard, pilot: Pilot[None]) -> None:
        self.engine = engine
        self.app = app
        self.pilot = pilot

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.settle()

    async def burst(self, *keys: str) -> None:
        """Press keys all at once, as they come over a slow line; a letter, or a key's name."""
        for key in keys:
            name = {"/": "slash", " ": "space"}.get(key, key)
            self.app.post_message(Key(name, key if len(key) == 1 else None))
        await self.settle()

    async def change(self) -> None:
        """Let the dashboard see what became of the rows."""
        asked = len(self.engine.queries.asked)
        self.engine.change()
        async with asyncio.timeout(PATIENCE):
            while len(self.engine.queries.asked) == asked:
                await self.pilot.pause(0.01)
        await self.settle()

    async def settle(self) -> None:
        await settle(self.pilot)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not holds():
                await self.pilot.pause(0.01)
        await self.pilot.pause()

    @asynccontextmanager
    async def held_up(self, *names: str) -> AsyncIterator[None]:
        """Leave these queries unanswered for a while, from when one of them has been asked."""
        asked, answered = asyncio.Event(), asyncio.Event()

        async def wait(name: str) -> None:
            if name in names:
                asked.set()
                await answered.wait()

        self.engine.queries.gate = wait
        self.engine.change()
        async with asyncio.timeout(PATIENCE):
            await asked.wait()
        try:
            yield
        finally:
            self.engine.queries.gate = None
            answered.set()
        await self.settle()

    @property
    def screen(self) -> str:
        return screen_text(self.app)

    @property
    def lines(self) -> list[str]:
        return self.screen.splitlines()

    @property
    def footer(self) -> str:
        return self.lines[-1]

    @property
    def toasts(self) -> list[str]:
        return [toast.message for toast in self.app._notifications]

    def shows(self, kind: type[Screen[Any]]) -> bool:
        return isinstance(self.app.screen, kind)

    @property
    def place(self) -> Place:
        return self.app.main.selection().place

    @property
    def current_task(self) -> str | None:
        row = self.app.main.task_rows.current
        return row.id if row is not None else None


class ReadingDesk(Desk):
    """A desk with a log or a transcript open on it."""

    async def settle(self) -> None:
        await super().settle()
        screen = self.app.screen
        if isinstance(screen, ReadingScreen):
            await self.until(lambda: screen.text.reader.idle)
        await self.pilot.pause()

    async def look(self) -> None:
        """Let the screen see what became of the file."""
        screen = self.app.screen
        assert isinstance(screen, ReadingScreen)
        screen.tick()
        screen._poll()
        await self.settle()


@asynccontextmanager
async def desk(
    queries: FakeQueries | None = None,
    *,
    size: tuple[int, int] = (120, 40),
    watching: bool = False,
    engine: FakeEngine | None = None,
    fitting: Fitting | None = None,
) -> AsyncIterator[Desk]:
    engine = engine or FakeEngine(queries if queries is not None else busy())
    app = Dashboard(engine, fitting, watching=watching, pace=0.01, ticks=None)
    async with app.run_test(size=size, notifications=True) as pilot:
        await settle(pilot)
        yield Desk(engine, app, pilot)
