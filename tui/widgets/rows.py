"""A list of any length that holds only a window of its rows, and paints only lines that changed.

The owner hands in rows with `put`; the list says with `Wanted` which window it needs next. The
cursor stays on its row by key while rows come, go and move. Until somebody chooses a row, the
cursor rests on the edge (the first row, or the newest at the end) and what is there may change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from rich.cells import cell_len
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView

from tui.actions import motions
from tui.widgets.cells import Cell, Line, Painter, Tone, cut_end, fitted
from tui.widgets.columns import GAP, Column, fit

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from textual import events
    from textual.binding import BindingType
    from textual.strip import Strip

R = TypeVar("R")

_EDGE = 1
"""The column at the left where the cursor's mark is."""


@dataclass(frozen=True, slots=True)
class Window:
    """What a list wants to be given: where it looks, and which row it must not lose.

    Rows `first` … `first + height` are on screen. `cursor` is the key of the chosen row, which
    was at `cursor_at`; None while nobody has chosen one.
    """

    first: int
    height: int
    cursor: Hashable | None
    cursor_at: int
    at_end: bool = False

    def moved(self, cursor_at: int | None) -> tuple[int, int]:
        """Return (offset, limit) of the rows to read if the chosen row is now at `cursor_at`.

        A screenful before and behind is read too, so that scrolling rarely waits.
        """
        first = self.first
        if self.cursor is not None and cursor_at is not None:
            first += cursor_at - self.cursor_at
        return max(0, first - self.height), 3 * self.height


@dataclass(frozen=True, slots=True)
class _Painted:
    """All that decides how a line looks."""

    cells: Line
    under: str


class RowList(ScrollView, Painter, Generic[R], can_focus=True):
    """The list. Subclasses give COLUMNS, `key_of`, `cells_of` and EMPTY."""

    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [*motions()]
    COLUMNS: ClassVar[tuple[Column, ...]] = ()
    EMPTY: ClassVar[str] = "nothing here"
    """What would fill the list; shown while it has no row."""
    HEADER: ClassVar[bool] = True
    FOLLOWS: ClassVar[bool] = False
    """The newest row is the last, and the list stays there until somebody moves."""

    class Moved(Message):
        """Somebody put the cursor on another row."""

    class Wanted(Message):
        """The list shows rows that it has not been given."""

    class Opened(Message):
        """A row was double-clicked."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name for it
        super().__init__(id=id)
        self._rows: Sequence[R] = ()
        self._offset = 0
        self._total = 0
        self._cursor = 0
        self._chosen: Hashable | None = None
        self._hover: int | None = None
        self._natural = [cell_len(column.title) for column in self.COLUMNS]
        self._layout: list[tuple[int, int]] = []
        self._lines: dict[int, _Painted] = {}
        self._strips: dict[_Painted, Strip] = {}
        self.given = False
        """Whether rows, or none, were ever handed in."""
        self.trouble = ""
        """Why there are no rows to show; empty if there are."""
        self.empty = self.EMPTY
        """What is said while there is no row."""

    # -- what subclasses say ---------------------------------------------------------------

    def key_of(self, row: R) -> Hashable:
        """Return what tells this row from all others, for ever."""
        raise NotImplementedError

    def cells_of(self, row: R) -> Line:
        """Return one cell for each column."""
        raise NotImplementedError

    def ages(self, row: R) -> bool:  # noqa: ARG002 - what a subclass decides by
        """Say whether the row looks different as time passes."""
        return True

    # -- what owners use -------------------------------------------------------------------

    @property
    def total(self) -> int:
        """How many rows there are, shown or not."""
        return self._total

    @property
    def cursor(self) -> int:
        """The row that the cursor is on, counted from 0."""
        return self._cursor

    @property
    def current(self) -> R | None:
        """The row under the cursor, None if there is none or it is still being read."""
        return self._row(self._cursor)

    @property
    def following(self) -> bool:
        """Whether the list stays at its end as rows come."""
        return self.FOLLOWS and self._chosen is None

    @property
    def window(self) -> Window:
        """What to read next."""
        return Window(
            first=self.scroll_offset.y,
            height=max(1, self._height),
            cursor=None if isinstance(self._chosen, _Unread) else self._chosen,
            cursor_at=self._cursor,
            at_end=self.following,
        )

    def put(
        self,
        rows: Sequence[R],
        *,
        offset: int = 0,
        total: int | None = None,
        cursor_at: int | None = None,
    ) -> None:
        """Show these rows: `rows[0]` is row `offset` of `total`.

        `cursor_at` is where the chosen row is now; without it the row is looked for in `rows`.
        """
        before = self._cursor
        self.given = True
        self._rows, self._offset = rows, offset
        self._total = len(rows) if total is None else total
        self._measure(rows)
        if self._chosen is not None and cursor_at is None:
            cursor_at = self._find(self._chosen)
        last = max(0, self._total - 1)
        if self._chosen is None:
            self._cursor = last if self.FOLLOWS else 0
        else:
            self._cursor = min(before if cursor_at is None else cursor_at, last)
        size = Size(0, self._total + self._top)
        if size != self.virtual_size:
            self.virtual_size = size
            self.call_after_refresh(self.sync_scrollbar)
        if self.following:
            self._scroll_to_row(self._total)
        elif self._chosen is not None and self._cursor != before:
            # The row keeps its place under the eye; the others move around it.
            self._scroll_to_row(self.scroll_offset.y + self._cursor - before)
        if self._chosen is not None:
            self._reveal()
            self._choose_here()
        self.repaint()

    def repaint(self, *, only_ageing: bool = False) -> None:
        """Paint the lines on screen that no longer look as they should.

        With `only_ageing` only time has passed: rows that do not age are not even looked at.
        """
        if not self.is_attached or not self.size:
            return
        room = self.scrollable_content_region.width - 2 * _EDGE
        layout = fit(self.COLUMNS, self._natural, room)
        if layout != self._layout:
            self._layout = layout
            self._lines.clear()
            self.refresh()
        for y in range(self.size.height):
            if only_ageing and y in self._lines and not self._ages_at(y):
                continue
            line = self._look(y)
            if self._lines.get(y) != line:
                self._lines[y] = line
                self.refresh(Region(0, y, self.size.width, 1))

    def forget(self) -> None:
        """Go back to the edge: nobody has chosen a row of what will be shown next."""
        self._chosen = None
        self._cursor = 0
        self._natural = [cell_len(column.title) for column in self.COLUMNS]
        self.scroll_to(y=0, animate=False)

    # -- painting --------------------------------------------------------------------------

    @property
    def _top(self) -> int:
        return int(self.HEADER)

    @property
    def _height(self) -> int:
        return max(0, self.size.height - self._top)

    def _row(self, index: int) -> R | None:
        at = index - self._offset
        return self._rows[at] if 0 <= at < len(self._rows) else None

    def _ages_at(self, y: int) -> bool:
        row = self._row(self.scroll_offset.y + y - self._top) if y >= self._top else None
        return row is not None and self.ages(row)

    def _find(self, key: Hashable) -> int | None:
        for index, row in enumerate(self._rows):
            if self.key_of(row) == key:
                return index + self._offset
        return None

    def _measure(self, rows: Sequence[R]) -> None:
        # Columns only ever grow: they do not jump about as rows come and go.
        for row in rows:
            for index, (text, _) in enumerate(self.cells_of(row)):
                if len(text) > self._natural[index] or not text.isascii():
                    self._natural[index] = max(self._natural[index], cell_len(text))

    def _look(self, y: int) -> _Painted:
        if not self._total or self.trouble:
            return self._hint(y)
        if y < self._top:
            return _Painted(self._header(), "")
        index = self.scroll_offset.y + y - self._top
        if index >= self._total:
            return _Painted((), "")
        row = self._row(index)
        cells: Line = ((" …", Tone.DIM),) if row is None else self._arranged(self.cells_of(row))
        if index == self._cursor:
            faint = "" if self.has_focus else "-faint"
            mark: Cell = ("▌" if self.has_focus else " ", Tone.BOLD)
            return _Painted((mark, *cells), f"row-cursor{faint}")
        return _Painted(((" ", Tone.TEXT), *cells), "row-hover" if index == self._hover else "")

    def _hint(self, y: int) -> _Painted:
        text = self.trouble or (self.empty if self.given else "reading …")
        if y != max(0, (self.size.height - 1) // 2):
            return _Painted((), "")
        text = cut_end(text, self.size.width - 2)
        room = " " * max(0, (self.size.width - cell_len(text)) // 2)
        tone = Tone.FAILED if self.trouble else Tone.DIM
        return _Painted(((room, Tone.DIM), (text, tone)), "")

    def _header(self) -> Line:
        titles = tuple((column.title, Tone.DIM) for column in self.COLUMNS)
        return ((" ", Tone.DIM), *self._arranged(titles))

    def _arranged(self, cells: Line) -> Line:
        arranged: list[Cell] = []
        for index, width in self._layout:
            column = self.COLUMNS[index]
            text, tone = cells[index]
            text = fitted(text, width, right=column.right, middle=column.middle)
            arranged.append((text + " " * GAP, tone))
        return tuple(arranged)

    def render_line(self, y: int) -> Strip:
        """Paint one line of what is on screen."""
        line = self._lines.get(y)
        if line is None:
            line = self._lines[y] = self._look(y)
        strip = self._strips.get(line)
        if strip is None:
            if len(self._strips) > 512:
                self._strips.clear()
            strip = self._strips[line] = self.strip(line.cells, self.size.width, line.under)
        return strip

    def notify_style_update(self) -> None:
        """Forget what was painted in the old colours."""
        super().notify_style_update()
        self._strips.clear()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Take the cursor along, and ask for the rows that came into view."""
        super().watch_scroll_y(old_value, new_value)
        if round(old_value) == round(new_value):
            return
        self._lines.clear()
        self._hover = None
        first, last = self._visible()
        missing = self._row(first) is None or self._row(min(last, self._total - 1)) is None
        if self._total and missing:
            self.post_message(self.Wanted())

    def on_resize(self) -> None:
        """Lay out anew."""
        self._lines.clear()
        self._strips.clear()
        if self.following:
            self._scroll_to_row(self._total)
        elif self._chosen is not None:
            self._reveal()
        self.repaint()
        self.post_message(self.Wanted())

    def on_focus(self) -> None:
        """Show the cursor as the one that keys act on."""
        self.repaint()
        self.post_message(self.Moved())

    def on_blur(self) -> None:
        """Show the cursor as resting."""
        self.repaint()

    # -- moving ----------------------------------------------------------------------------

    def _visible(self) -> tuple[int, int]:
        first = self.scroll_offset.y
        return first, first + max(1, self._height) - 1

    def _scroll_to_row(self, first: int) -> None:
        end = max(0, self._total - max(1, self._height))
        self.scroll_to(y=max(0, min(first, end)), animate=False, force=True)

    def _reveal(self) -> None:
        first, last = self._visible()
        if self._cursor < first:
            self._scroll_to_row(self._cursor)
        elif self._cursor > last:
            self._scroll_to_row(self._cursor - max(1, self._height) + 1)

    def _choose_here(self) -> None:
        row = self.current
        if row is not None:
            self._chosen = self.key_of(row)

    def move_to(self, index: int) -> None:
        """Put the cursor on a row, and stay with that row from now on."""
        if not self._total:
            return
        self._cursor = max(0, min(index, self._total - 1))
        if self.FOLLOWS and self._cursor == self._total - 1:
            self._chosen = None
        else:
            row = self.current
            # A row that is not read yet is chosen when it comes: see `put`.
            self._chosen = self.key_of(row) if row is not None else _Unread(self._cursor)
        self._reveal()
        self.repaint()
        self.post_message(self.Moved())

    def action_move(self, rows: int) -> None:
        """Move the cursor by so many rows."""
        self.move_to(self._cursor + rows)

    def action_page(self, pages: int) -> None:
        """Move the cursor by so many screenfuls."""
        self.move_to(self._cursor + pages * max(1, self._height - 1))

    def action_first(self) -> None:
        """Go to the first row; unless the list follows its end, stay at the top from now on."""
        if self.FOLLOWS:
            self.move_to(0)
            return
        self._chosen = None
        self._cursor = 0
        self._scroll_to_row(0)
        self.repaint()
        self.post_message(self.Moved())

    def action_last(self) -> None:
        """Go to the last row."""
        self.move_to(self._total - 1)

    # -- the mouse -------------------------------------------------------------------------

    def _index_at(self, y: int) -> int | None:
        index = self.scroll_offset.y + y - self._top
        return index if y >= self._top and 0 <= index < self._total else None

    def on_click(self, event: events.Click) -> None:
        """Choose the row; a double click opens it."""
        index = self._index_at(event.y)
        if index is None or self.trouble:
            return
        self.move_to(index)
        if event.chain == 2:
            self.post_message(self.Opened())

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Show which row a click would choose."""
        hover = self._index_at(event.y)
        if hover != self._hover:
            self._hover = hover
            self.repaint()

    def on_leave(self) -> None:
        """Show no row as hovered."""
        self._hover = None
        self.repaint()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Scroll, with the cursor staying in view: keys never act on a row one cannot see."""
        self._wheel(event, 3)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Scroll, with the cursor staying in view."""
        self._wheel(event, -3)

    def _wheel(self, event: events.MouseEvent, rows: int) -> None:
        event.stop()
        event.prevent_default()
        before = self.scroll_offset.y
        self._scroll_to_row(before + rows)
        if self.scroll_offset.y == before:
            return
        first, last = self._visible()
        at_end = self.FOLLOWS and last >= self._total - 1
        self.move_to(self._total - 1 if at_end else max(first, min(self._cursor, last)))


@dataclass(frozen=True, slots=True)
class _Unread:
    """Stands for the key of a row that has not been read yet; it is found by its place."""

    index: int
