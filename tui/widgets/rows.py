"""A list of any length that holds only a window of its rows: its cursor, its marks, the mouse.

The owner hands in rows with `put`; the list says with `Wanted` which window it needs next. The
cursor stays on its row by key while rows come, go and move. Until somebody chooses a row, the
cursor rests on the edge (the first row, or the newest at the end) and what is there may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

from msgspec import Struct
from rich.cells import cell_len
from textual.geometry import Size
from textual.message import Message

from tui.actions.table import motions
from tui.widgets.columns import sorted_by
from tui.widgets.painted import PaintedRows

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable, Sequence

    from textual import events
    from textual.binding import BindingType

    from engine.views import Order

R = TypeVar("R")


class Window(Struct, frozen=True):
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


class RowList(PaintedRows[R]):
    """The list. Subclasses give COLUMNS, `key_of`, `cells_of` and EMPTY."""

    BINDINGS: ClassVar[list[BindingType]] = [*motions()]
    FOLLOWS: ClassVar[bool] = False
    """The newest row is the last, and the list stays there until somebody moves."""
    NEWEST_FIRST: ClassVar[bool] = False
    """Rows come in at the top, and are shown there while the chosen row stays in view."""

    class Moved(Message):
        """Somebody put the cursor on another row, or changed the marks."""

    class Wanted(Message):
        """The list shows rows that it has not been given."""

    class Opened(Message):
        """A row was double-clicked."""

    class Sorted(Message):
        """Somebody clicked on the title of a column: the owner is to sort by `order` now."""

        def __init__(self, order: Order) -> None:
            super().__init__()
            self.order = order

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name for it
        super().__init__(id=id)
        self._chosen: Hashable | None = None

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
            height=self._height or max(1, self.app.size.height // 3),
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
        cursor: Hashable | None = None,
    ) -> None:
        """Show these rows: `rows[0]` is row `offset` of `total`.

        `cursor_at` is where the row `cursor` is now. If that is no longer the chosen one, for
        somebody moved on while this was read, the chosen one is looked for in `rows`.
        """
        if cursor != self._chosen:
            cursor_at = None
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
        elif self._chosen is not None and self._cursor != before and not self._rests_at_top:
            # The row keeps its place under the eye; the others move around it.
            self._scroll_to_row(self.scroll_offset.y + self._cursor - before)
        if self._chosen is not None:
            self._reveal()
            self._choose_here()
        self.repaint()

    def choose(self) -> None:
        """Stay with the row under the cursor from now on; a list that follows goes on with that.

        For whoever is about to act on the row: it must still be the one that was meant.
        """
        if self._chosen is None and not self.FOLLOWS:
            self._choose_here()

    def forget(self) -> None:
        """Go back to the edge: nobody has chosen a row of what will be shown next."""
        self._chosen = None
        self._cursor = 0
        self._natural = [cell_len(column.title) for column in self._columns]
        self.scroll_to(y=0, animate=False)

    # -- marks -----------------------------------------------------------------------------

    @property
    def marked(self) -> tuple[Hashable, ...]:
        """The keys of the marked rows, in the order in which they were marked."""
        return self._marks.keys

    def toggle_mark(self) -> None:
        """Mark the row under the cursor, or take its mark away, and go on to the next row."""
        row = self.current
        if row is not None:
            self._marks.toggle(self.key_of(row))
            self.move_to(self._cursor + 1)

    def mark_all(self, keys: Iterable[Hashable]) -> None:
        """Mark these rows too, read or not."""
        self._tell_marks(changed=self._marks.add(keys))

    def clear_marks(self) -> None:
        """Take all marks away."""
        self._tell_marks(changed=self._marks.keep())

    def keep_marks(self, keys: Collection[Hashable]) -> None:
        """Take the marks away from rows that are not among these: they are gone."""
        self._tell_marks(changed=self._marks.keep(keys))

    def _tell_marks(self, *, changed: bool) -> None:
        if changed:
            self.repaint()
            self.post_message(self.Moved())

    # -- coming into view ------------------------------------------------------------------

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Ask for the rows that came into view."""
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
        if self.following:
            self._scroll_to_row(self._total)
        elif self._chosen is not None:
            self._reveal()
        self.repaint()
        self.post_message(self.Wanted())

    def on_focus(self) -> None:
        """Say that keys act on this list's cursor now."""
        self.post_message(self.Moved())

    # -- moving ----------------------------------------------------------------------------

    def _find(self, key: Hashable) -> int | None:
        for index, row in enumerate(self._rows):
            if self.key_of(row) == key:
                return index + self._offset
        return None

    def _visible(self) -> tuple[int, int]:
        first = self.scroll_offset.y
        return first, first + max(1, self._height) - 1

    @property
    def _rests_at_top(self) -> bool:
        return self.NEWEST_FIRST and self.scroll_offset.y == 0 and self._cursor < self._height

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

    def on_click(self, event: events.Click) -> None:
        """Choose the row, or sort by the column; a double click opens the row."""
        if self.trouble or not self._total:
            return
        index = self._index_at(event.y)
        if index is not None:
            self.move_to(index)
            if event.chain == 2:
                self.post_message(self.Opened())
        elif event.y < self._top and (column := self._column_at(event.x)) and column.sort:
            self.post_message(self.Sorted(sorted_by(self._order, column.sort)))

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


class _Unread(Struct, frozen=True):
    """Stands for the key of a row that has not been read yet; it is found by its place."""

    index: int
