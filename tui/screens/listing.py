"""What the screens have in common whose panes are lists: history, attention, a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace
from textual import on

from tui.screens.paned import PanedScreen
from tui.snapshot import Page, Section, explain
from tui.widgets.bars import Bar, Piece
from tui.widgets.cells import Cell, Tone
from tui.widgets.rows import RowList, Window

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from engine.filters import Filter
    from engine.views import Order, RunRow
    from tui.ports import Engine, Queries

T = TypeVar("T")


class ListingScreen(PanedScreen):
    """A screen with a line above that names it, and lists below."""

    def __init__(self, engine: Engine, *, watching: bool) -> None:
        super().__init__()
        self._engine = engine
        self._watching = watching
        self.head = Bar(id="head")

    def show_head(self, title: str, *more: Cell, trouble: str = "") -> None:
        """Say what the screen is about; all of it is clean."""
        pieces = [Piece((("agentmux", Tone.BOLD),), drop=9), Piece(((title, Tone.BOLD),))]
        pieces += [Piece((cell,), drop=index + 1) for index, cell in enumerate(more) if cell[0]]
        if trouble:
            pieces.append(Piece(((trouble, Tone.FAILED),)))
        self.head.put(pieces)

    def pin(self) -> None:
        """Stay with the rows under the cursors: an action is about to be done to one of them."""
        for rows in self.query(RowList):
            rows.choose()

    def want(self) -> None:
        """Ask to be loaded, unless another screen hides this one."""
        if self.is_current:
            self.post_message(self.Wanted())

    @on(RowList.Moved)
    def moved(self, event: RowList.Moved) -> None:
        """Show what can be done with the row that is now under the cursor."""
        event.stop()
        self.chose()
        self.refresh_bars()

    def chose(self) -> None:
        """Show what is told of the row that is now under the cursor."""

    @on(RowList.Wanted)
    def wanted(self, event: RowList.Wanted) -> None:
        """Have the rows read that came into view."""
        event.stop()
        self.post_message(self.Wanted())

    @on(RowList.Opened)
    async def opened(self, event: RowList.Opened) -> None:
        """Do what enter does."""
        event.stop()
        await self.run_action("app.act('detail')")


def late(section: Section[Any]) -> str:
    """Return why what is on screen is old; a list without rows says it in their place."""
    return section.trouble if section.read_at is not None else ""


def never_read(section: Section[Any]) -> str:
    """Return why there is nothing to show; what was read once stays on screen."""
    return section.trouble if section.read_at is None else ""


async def read(
    before: Section[T], query: Callable[[], Awaitable[T]], now: Callable[[], datetime]
) -> Section[T]:
    """Return what the query gives; if it fails, what was there before and why."""
    moment = now()
    try:
        return Section(await query(), moment)
    except Exception as error:  # noqa: BLE001 - whatever a query throws is shown in its pane
        return replace(before, trouble=explain(error))


async def read_runs(queries: Queries, where: Filter, order: Order, window: Window) -> Page[RunRow]:
    """Read the runs that a list shows, with a screenful before and behind."""
    total = await queries.count_runs(where)
    cursor_at = None
    if isinstance(window.cursor, str):
        cursor_at = await queries.locate_run(where, window.cursor, order)
    offset, limit = window.moved(cursor_at)
    offset = min(offset, max(0, total - limit))
    rows = await queries.runs(where=where, limit=limit, offset=offset, order=order)
    return Page(tuple(rows), offset, total, cursor_at, cursor=window.cursor)
