"""The history of all runs: filtered, sorted, and the one under the cursor told in full."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
from textual import on
from textual.containers import Container

from engine.filters import RUN_FIELDS, TASK, Filter, Term, likely_meant, parse_filter
from engine.text import clean_text, plural
from tui.actions.model import Place, Selection
from tui.actions.table import BY_NAME
from tui.describe import laid_out
from tui.describe_fleet import run_about
from tui.panes.pane import Pane
from tui.panes.runs import RunsList
from tui.screens.listing import ListingScreen, late, never_read, read, read_runs
from tui.snapshot import Page, Section
from tui.styled import STYLES
from tui.widgets.cells import Tone
from tui.widgets.columns import known_order, next_order, reversed_order
from tui.widgets.document import Document
from tui.widgets.filterline import FilterLine
from tui.widgets.rows import RowList, Window

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from engine.views import Order, RunRow
    from tui.ports import Engine
    from tui.widgets.cells import Line

_RUNS = 0
"""The pane of the list."""
_REMEMBERED = "history"
"""What the list is called among the preferences."""


class _Asked(Struct, frozen=True):
    """What the list was read for."""

    where: Filter
    order: Order
    window: Window


class HistoryScreen(ListingScreen):
    """All runs, newest first; with `task_id` it opens on the runs of that task."""

    CSS_PATH: ClassVar = STYLES / "lists.tcss"

    def __init__(
        self, engine: Engine, task_id: str | None = None, *, watching: bool = False
    ) -> None:
        super().__init__(engine, watching=watching)
        now = engine.clock.now
        self._first = Filter(() if task_id is None else (Term(TASK, task_id),))
        self._asked: _Asked | None = None
        self._page: Section[Page[RunRow]] = Section(Page())
        self._held: Section[tuple[str, ...]] = Section(())
        self.rows = RunsList(now, id="history-list")
        self.about = Document(id="history-about")
        self.filter = FilterLine(
            lambda text: parse_filter(text, RUN_FIELDS, now=now()),
            hint="word  outcome:failed  task:T  worker:W  after:2h  took:>5m  !not  /regex/",
            closed=lambda: self.go_to(_RUNS),
            where=self._first,
            id="history-filter",
        )
        self._panes = (
            Pane(1, "Runs", self.rows, self.filter, id="history-runs"),
            Pane(2, "Run", self.about, id="history-run"),
        )

    def compose(self) -> ComposeResult:
        """Lay the panes out."""
        yield self.head
        yield self.tabs
        with Container(id="history", classes="box"):
            yield from self._panes
        yield self.keys

    def on_mount(self) -> None:
        """Show the frame at once, as it was left; the first look fills it."""
        preferences = self.fitted.preferences
        self.rows.order = known_order(self.rows.columns, preferences.order(_REMEMBERED))
        self.rows.hidden = preferences.hidden(_REMEMBERED)
        self._caption()

    @property
    def panes(self) -> tuple[Pane, ...]:
        """The runs, and the one under the cursor."""
        return self._panes

    # -- refreshing ------------------------------------------------------------------------

    async def load(self, *, changed: bool) -> None:
        """Read the runs on screen again if the store changed, or others are on screen now."""
        asked = _Asked(self.filter.where, self.rows.order, self.rows.window)
        if not changed and asked == self._asked and not self._page.trouble:
            return
        queries, now = self._engine.queries, self._engine.clock.now
        if changed or self._held.read_at is None:
            self._held = await read(self._held, self._read_held, now)
        page = await read(
            self._page, partial(read_runs, queries, asked.where, asked.order, asked.window), now
        )
        if (asked.where, asked.order) != (self.filter.where, self.rows.order):
            return  # another list was asked for meanwhile: it is on its way
        self._asked, self._page = asked, page
        self.show()

    async def _read_held(self) -> tuple[str, ...]:
        return (await self._engine.queries.progress()).held

    def show(self) -> None:
        """Show what was read, all of it at once."""
        where, page = self.filter.where, self._page.value
        with self.app.batch_update():
            self.rows.trouble = never_read(self._page)
            self.rows.empty = RunsList.EMPTY
            if where:
                words = likely_meant(where, RUN_FIELDS) or self._way_out
                self.rows.empty = f"no run matches {clean_text(str(where))}: {clean_text(words)}"
            self.rows.put(
                page.rows,
                offset=page.offset,
                total=page.total,
                cursor_at=page.cursor_at,
                cursor=page.cursor,
            )
            self.chose()
            self.refresh_bars()

    @property
    def _way_out(self) -> str:
        key = self.fitted.keymap.shown(BY_NAME["back"])
        there = "goes back" if self.filter.where == self._first else "shows the others"
        return f"{key} {there}"

    def chose(self) -> None:
        """Tell the run under the cursor in full."""
        self.about.show(laid_out(self._about))
        self._caption()

    def _about(self, width: int) -> list[Line]:
        run = self.rows.current
        return [] if run is None else run_about(run, self._engine.clock.now(), width)

    def tick(self) -> None:
        """Let the ages grow; try again what could not be read."""
        with self.app.batch_update():
            self.rows.repaint(only_ageing=True)
            run = self.rows.current
            if run is not None and run.outcome is None:
                self.about.show(laid_out(self._about))
        if self._page.trouble:
            self.want()

    def _caption(self) -> None:
        runs, about = self._panes
        rows, where = self.rows, self.filter.where
        count = f"{rows.total:,}"
        at = f"{rows.cursor + 1:,} of {count}" if rows.total else count
        runs.caption(late(self._page) or str(where), at, count)
        run = rows.current
        about.caption(count="" if run is None else f"#{run.attempt}")
        words = plural(rows.total, "run") if rows.given else ""
        if where and rows.given:
            words = "1 run matches" if rows.total == 1 else f"{rows.total:,} runs match"
        self.show_head("History", (words, Tone.DIM), trouble=late(self._page))

    # -- acting ----------------------------------------------------------------------------

    def selection(self) -> Selection:
        """Return the run under the cursor, and its task."""
        run = self.rows.current
        opens = None if run is None else run.task_id
        held, watching = self._held.value, self._watching
        return Selection(Place.HISTORY, opens=opens, held=held, watching=watching, run=run)

    def action_back(self) -> None:
        """Leave the filter's line, else zoom, else the filter that was typed, else the screen."""
        if self.filter.editing:
            self.filter.set(self._first)
            self.filter.close()
            self.go_to(_RUNS)
        elif self.zoomed:
            self.action_zoom()
        elif self.filter.where != self._first:
            self.filter.set(self._first)
        else:
            self.dismiss()

    def action_filter(self) -> None:
        """Open the filter's line."""
        self.go_to(_RUNS)
        self.filter.open()

    @on(FilterLine.Changed)
    def filtered(self, event: FilterLine.Changed) -> None:
        """Show other runs."""
        event.stop()
        if self._asked is not None and self._asked.where != event.where:
            self.rows.forget()
        self._caption()
        self.post_message(self.Wanted())

    def action_sort(self) -> None:
        """Sort by the next column on screen."""
        self.sort(next_order(self.rows.columns, self.rows.order, self.rows.unseen))

    def action_reverse(self) -> None:
        """Turn the order round."""
        self.sort(reversed_order(self.rows.order))

    def action_columns(self) -> None:
        """Choose the columns of the runs."""
        preferences, rows = self.fitted.preferences, self.rows
        self.choose_columns(rows, lambda: preferences.set_hidden(_REMEMBERED, rows.hidden))

    @on(RowList.Sorted)
    def title_clicked(self, event: RowList.Sorted) -> None:
        """Sort by the column that was clicked."""
        event.stop()
        self.sort(event.order)

    def sort(self, order: Order) -> None:
        """Show the runs in this order from now on."""
        self.rows.order = order
        self.fitted.preferences.set_order(_REMEMBERED, order)
        self.rows.forget()
        self.post_message(self.Wanted())
