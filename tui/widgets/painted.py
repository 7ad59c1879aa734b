"""The face of a list: a window of its rows, painted line by line, and only lines that changed.

Knows which rows it was given and where the cursor is; why the cursor is there, what keys and the
mouse do, and where rows come from, is known in `rows` and above.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from msgspec import Struct
from rich.cells import cell_len
from textual.geometry import Region
from textual.scroll_view import ScrollView

from engine.views import Order
from tui.widgets.cells import Cell, Line, Painter, Tone, cut_end, fitted
from tui.widgets.columns import GAP, Column, fit
from tui.widgets.marks import Marks

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from textual.strip import Strip

R = TypeVar("R")

MARK = "◆"
"""Stands before a marked row."""
_CURSOR = "▌"
_UP, _DOWN = "▲", "▼"
_RIGHT_EDGE = 1
_KEPT = 512
"""Painted lines that are remembered."""


class _Painted(Struct, frozen=True):
    """All that decides how a line looks."""

    cells: Line
    under: str


class PaintedRows(ScrollView, Painter, Generic[R], can_focus=True):
    """The part of a list that paints. Subclasses give COLUMNS, `key_of`, `cells_of` and EMPTY."""

    ALLOW_SELECT = False
    COLUMNS: ClassVar[tuple[Column, ...]] = ()
    EMPTY: ClassVar[str] = "nothing here"
    """What would fill the list; shown while it has no row."""
    HEADER: ClassVar[bool] = True
    MARKS: ClassVar[bool] = False
    """Rows can be marked: a second cell at the left edge shows which are."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name for it
        super().__init__(id=id)
        self._columns = self.COLUMNS
        self._hidden: frozenset[str] = frozenset()
        self._order = Order()
        self._rows: Sequence[R] = ()
        self._offset = 0
        self._total = 0
        self._cursor = 0
        self._hover: int | None = None
        self._marks = Marks()
        self._natural = [cell_len(column.title) for column in self._columns]
        self._vacant = frozenset(column.name for column in self._columns if column.rare)
        self._layout: list[tuple[int, int]] = []
        self._fits: tuple[object, ...] | None = None
        self._width = -1
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
        """Return one cell for each of COLUMNS, hidden or not."""
        raise NotImplementedError

    def ages(self, row: R) -> bool:  # noqa: ARG002 - what a subclass decides by
        """Say whether the row looks different as time passes."""
        return True

    # -- what owners choose ----------------------------------------------------------------

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of this list: COLUMNS, unless somebody set other widths or titles."""
        return self._columns

    @columns.setter
    def columns(self, columns: tuple[Column, ...]) -> None:
        if len(columns) != len(self.COLUMNS):
            raise ValueError(f"the list has {len(self.COLUMNS)} columns, not {len(columns)}")
        self._columns = columns
        self._natural = [cell_len(column.title) for column in columns]
        self._measure(self._rows)
        self._layout, self._fits = [], None
        self.repaint()

    @property
    def hidden(self) -> frozenset[str]:
        """The names of the columns that nobody wants to see; those without `drop` stay."""
        return self._hidden

    @hidden.setter
    def hidden(self, names: frozenset[str]) -> None:
        self._hidden = names
        self.repaint()

    @property
    def unseen(self) -> frozenset[str]:
        """The names of the columns that are not on screen, for whatever reason."""
        seen = {index for index, _ in self._layout}
        return frozenset(c.name for index, c in enumerate(self._columns) if index not in seen)

    @property
    def order(self) -> Order:
        """How the rows that are handed in are sorted: the header says it, the owner does it."""
        return self._order

    @order.setter
    def order(self, order: Order) -> None:
        self._order = order
        self.repaint()

    def repaint(self, *, only_ageing: bool = False) -> None:
        """Paint the lines on screen that no longer look as they should.

        With `only_ageing` only time has passed: rows that do not age are not even looked at.
        """
        if not self.is_attached or not self.size:
            return
        if self._fitted():
            self.refresh()
        # Asked for once: Textual works these out anew each time, and there are many lines.
        (width, height), first = self.size, self.scroll_offset.y
        for y in range(height):
            if only_ageing and y in self._lines and not self._ages_at(y, first):
                continue
            line = self._look(y, first)
            if self._lines.get(y) != line:
                self._lines[y] = line
                self.refresh(Region(0, y, width, 1))

    def _fitted(self) -> bool:
        """Fit the columns into the width that there is; return whether they changed."""
        width = self.scrollable_content_region.width
        if width != self._width:
            self._width = width
            self._strips.clear()
        room = width - self._edge - _RIGHT_EDGE
        asked = (self._columns, (*self._natural,), room, self._hidden | self._vacant)
        if asked == self._fits:
            return False
        self._fits = asked
        layout = fit(*asked)
        if layout == self._layout:
            return False
        self._layout = layout
        self._lines.clear()
        return True

    # -- where things are ------------------------------------------------------------------

    @property
    def _edge(self) -> int:
        return 1 + int(self.MARKS)

    @property
    def _top(self) -> int:
        return int(self.HEADER)

    @property
    def _height(self) -> int:
        return max(0, self.size.height - self._top)

    def _row(self, index: int) -> R | None:
        at = index - self._offset
        return self._rows[at] if 0 <= at < len(self._rows) else None

    def _index_at(self, y: int) -> int | None:
        index = self.scroll_offset.y + y - self._top
        return index if y >= self._top and 0 <= index < self._total else None

    def _column_at(self, x: int) -> Column | None:
        left = self._edge
        for index, width in self._layout:
            left += width + GAP
            if x < left:
                return self._columns[index] if x >= self._edge else None
        return None

    def _measure(self, rows: Sequence[R]) -> None:
        # Columns only ever grow: they do not jump about as rows come and go.
        for row in rows:
            for index, (text, _) in enumerate(self.cells_of(row)):
                if text and self._vacant:
                    self._vacant -= {self._columns[index].name}
                if len(text) > self._natural[index] or not text.isascii():
                    self._natural[index] = max(self._natural[index], cell_len(text))

    # -- painting --------------------------------------------------------------------------

    def _ages_at(self, y: int, first: int) -> bool:
        row = self._row(first + y - self._top) if y >= self._top else None
        return row is not None and self.ages(row)

    def _look(self, y: int, first: int) -> _Painted:
        if not self._total or self.trouble:
            return self._hint(y)
        if y < self._top:
            return _Painted(self._header(), "")
        index = first + y - self._top
        if index >= self._total:
            return _Painted((), "")
        row = self._row(index)
        cells: Line = ((" …", Tone.DIM),) if row is None else self._arranged(self.cells_of(row))
        if self.MARKS:
            marked = row is not None and self.key_of(row) in self._marks
            cells = ((MARK if marked else " ", Tone.BOLD), *cells)
        if index == self._cursor:
            faint = "" if self.has_focus else "-faint"
            edge: Cell = (_CURSOR if self.has_focus else " ", Tone.BOLD)
            return _Painted((edge, *cells), f"row-cursor{faint}")
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
        cells: list[Cell] = [(" " * self._edge, Tone.DIM)]
        for index, width in self._layout:
            column = self._columns[index]
            title, gap, tone = column.title, " " * GAP, Tone.DIM
            if column.sort and column.sort == self._order.column:
                arrow, tone = _DOWN if self._order.descending else _UP, Tone.TEXT
                # A title with no room beside it keeps its cells: the gap takes the arrow.
                if column.right or cell_len(title) >= width:
                    gap = arrow + " " * (GAP - 1)
                else:
                    title += arrow
            cells.append((fitted(title, width, right=column.right) + gap, tone))
        return tuple(cells)

    def _arranged(self, cells: Line) -> Line:
        arranged: list[Cell] = []
        for index, width in self._layout:
            column = self._columns[index]
            text, tone = cells[index]
            text = fitted(text, width, right=column.right, middle=column.middle)
            arranged.append((text + " " * GAP, tone))
        return tuple(arranged)

    def render_line(self, y: int) -> Strip:
        """Paint one line of what is on screen."""
        if self.scrollable_content_region.width != self._width:
            self._fitted()  # painted before it was told of its size
        line = self._lines.get(y)
        if line is None:
            line = self._lines[y] = self._look(y, self.scroll_offset.y)
        strip = self._strips.get(line)
        if strip is None:
            if len(self._strips) > _KEPT:
                self._strips.clear()
            strip = self._strips[line] = self.strip(line.cells, self.size.width, line.under)
        return strip

    def watch_has_focus(self, has_focus: bool) -> None:
        """Show the cursor as the one that keys act on, or as resting."""
        super().watch_has_focus(has_focus)
        self.repaint()

    def notify_style_update(self) -> None:
        """Forget what was painted in the old colours."""
        super().notify_style_update()
        self._strips.clear()
