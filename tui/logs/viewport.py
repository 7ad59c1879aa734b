"""A screenful of a log: where one is in it, which rows one sees, how moving changes that.

The place is the piece at the top and the row of it, so wrapping lays out a screenful and never
the file. Reads through `Pieces`: for a thread. Knows no widget, no colour and no key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from engine.growing import News, Standing
from tui.logs.cells import span_cells
from tui.logs.copying import COPY_LIMIT, Copied, copied
from tui.logs.file import LogFile
from tui.logs.rows import Place, Row, Rows
from tui.logs.search import TOP, Spot

if TYPE_CHECKING:
    from pathlib import Path

    from tui.logs.pieces import Pieces
    from tui.logs.search import Needle

_STEP = 8
"""The least that a key scrolls sideways, in cells."""
_COUNTED_AT_ONCE = 8

Whereabouts = tuple[Place, int]
"""The place at the top, and the piece that one is on."""
Counts = Literal["line", "entry"]


class Frame(Struct, frozen=True):
    """All that is shown at one moment. Bytes `top` to `bottom` of `size` are on screen.

    `cursor` is the piece that one is on, `chosen` the first and the last piece that are selected.
    `line` of `lines` is where the cursor is, None while that is not counted yet; `counts` says
    what is counted. `spot` is where a search starts, `whereabouts` how to come back here.
    """

    rows: tuple[Row, ...] = ()
    cursor: int = 0
    chosen: tuple[int, int] | None = None
    top: int = 0
    bottom: int = 0
    size: int = 0
    line: int | None = None
    lines: int | None = None
    follows: bool = False
    standing: Standing = Standing.MISSING
    trouble: str = ""
    spot: Spot = TOP
    whereabouts: Whereabouts = ((0, 0), 0)
    counts: Counts = "line"


class Viewport(Rows):
    """Where one is in a log. `width` and `height` are the cells and rows there are."""

    def __init__(self, file: Pieces, *, width: int = 80, height: int = 24) -> None:
        super().__init__(file, width=width, height=height)
        self.follows = True
        self.changed = True
        """Whether there may be something new to show; for whoever takes the frames."""
        self._top: Place = (0, 0)
        self._cursor = 0
        self._anchor: int | None = None
        self._pressed = 0

    # -- what is shown ---------------------------------------------------------------------

    def open(self, path: Path) -> None:
        """Show another file, from its end."""
        self.file.close()
        self.file = self._opened(path)
        self._found = self._anchor = None
        self._column = 0
        self.refresh()
        self.last()

    @staticmethod
    def _opened(path: Path) -> Pieces:
        return LogFile(path)

    def resize(self, width: int, height: int) -> None:
        """Lay out for so many cells and rows."""
        self._width, self._height = max(8, width), max(1, height)
        self._lay_out()

    def wrap(self) -> None:
        """Break long lines, or let them run out of sight."""
        self.wraps = not self.wraps
        self._column = 0
        self._lay_out()

    def number(self) -> None:
        """Number the lines, or not."""
        self.numbered = not self.numbered
        self._lay_out()

    def seek(self, needle: Needle | None) -> None:
        """Show where this text is, without going there."""
        self._needle, self._found = needle, None
        self._spans.clear()
        self.changed = True

    def refresh(self) -> None:
        """Look at the file again, and stay at its end if it is followed."""
        news = self.file.look()
        if news is News.NOTHING:
            return
        self.changed = True
        self.file.count_more(_COUNTED_AT_ONCE)
        if news is News.ANEW:
            self._anchor = self._found = None
            self._forget_layouts()
        if self.follows:
            self.last()
        elif news is News.ANEW:
            self._top = (self.file.start_of(self._top[0]), 0) if self.file.size else (0, 0)
            self._cursor = self.file.start_of(self._cursor) if self.file.size else 0
            self._fill()
            self._clamp()

    def _spot(self) -> Spot:
        # At the match that one went to, else before the line that one is on.
        if self._found is not None and self._found.start == self._cursor:
            return self._found
        return Spot(self._cursor, -1)

    # -- moving ----------------------------------------------------------------------------

    def move(self, lines: int) -> None:
        """Go so many lines down or up; through a line taller than the screen row by row."""
        for _ in range(abs(lines)):
            if lines > 0:
                self._line_down()
            else:
                self._line_up()
        self._settle(down=lines > 0)

    def page(self, pages: int) -> None:
        """Go so many screenfuls down or up; the cursor stays where it is on the screen."""
        view = self._view()
        at = next((y for y, place in enumerate(view) if place[0] == self._cursor), 0)
        before = self._top
        self._scroll(pages * max(1, self._height - 1))
        view = self._view()
        if self._top == before:
            self._cursor = view[-1 if pages > 0 else 0][0] if view else 0
        elif view:
            self._cursor = view[min(at, len(view) - 1)][0]
        self._settle(down=pages > 0)

    def wheel(self, rows: int) -> None:
        """Scroll; the cursor stays in sight."""
        self._scroll(rows)
        self._clamp()
        self._settle(down=rows > 0)

    def drag_to(self, share: float) -> None:
        """Show what is at this share of the file."""
        if self.file.size:
            self._top = (self.file.start_of(int(share * self.file.size)), 0)
            self._fill()
            self._clamp()
            self._settle(down=True)

    def first(self) -> None:
        """Go to the first line."""
        self._top, self._cursor = (0, 0), 0
        self._settle(down=False)

    def last(self) -> None:
        """Go to the end, and stay there as it grows."""
        self.changed = True
        self.follows = True
        if not self.file.size:
            self._top, self._cursor = (0, 0), 0
            return
        piece = self.file.piece(self.file.start_of(self.file.size))
        self._cursor = piece.start
        self._top = self._walk((piece.start, len(self._starts(piece)) - 1), 1 - self._height)

    def follow(self) -> None:
        """Go to the end and stay there, or stay here."""
        if self.follows:
            self.follows = False
            self.changed = True
        else:
            self.last()

    def shift(self, steps: int) -> None:
        """Scroll sideways, where lines are not wrapped; never past the longest one in sight."""
        if self.wraps:
            return
        room = self.text_width
        longest = max((span_cells(self._piece(p).text) for p in self._view()), default=0)
        column = self._column + steps * max(_STEP, room // 4)
        self._column = max(0, min(column, longest - room // 2 if longest > room else 0))
        self.changed = True

    def go_to(self, spot: Spot) -> None:
        """Go to a match; if it is not in sight, to the upper part of the screen."""
        piece = self.file.piece(self.file.start_of(spot.start))
        self._found, self._cursor = spot, piece.start
        place = (piece.start, self._row_of(piece, spot.index))
        view = self._view()
        if place not in view:
            self._top = self._walk(place, -(self._height // 3))
            self._fill()
        if not self.wraps:
            self._show_column(piece.text, spot)
        self.follows = False
        self.changed = True

    def go_back(self, whereabouts: Whereabouts) -> None:
        """Go where one was, as a frame said."""
        place, cursor = whereabouts
        if self.file.size:
            self.follows = False
            self._top = (self.file.start_of(place[0]), place[1])
            self._cursor = self.file.start_of(cursor)
            self._lay_out()

    # -- choosing --------------------------------------------------------------------------

    def press(self, y: int) -> None:
        """Go to the line in row `y`; a selection is over, and the next one begins here."""
        view = self._view()
        if view:
            self._cursor = self._pressed = view[max(0, min(y, len(view) - 1))][0]
            self._anchor = None
            self._settle(down=True)

    def drag(self, y: int) -> None:
        """Select from where the mouse was pressed to row `y`; beyond the edge, scroll."""
        if y < 0 or y >= self._height:
            self._scroll(-1 if y < 0 else 1)
        view = self._view()
        if view:
            self._cursor = view[max(0, min(y, len(view) - 1))][0]
            if self._anchor is None and self._cursor != self._pressed:
                self._anchor = self._pressed
            self.follows = False
            self.changed = True

    def select(self) -> None:
        """Begin a selection at the line one is on, or end it."""
        self._anchor = self._cursor if self._anchor is None else None
        self.follows = self.follows and self._anchor is None
        self.changed = True

    def unselect(self) -> None:
        """Select nothing."""
        self._anchor = None
        self.changed = True

    def copy(self, limit: int = COPY_LIMIT) -> Copied:
        """Return the selected lines, or the one that one is on, whole even where it is cut."""
        first, last = self._chosen() or (self._cursor, self._cursor)
        return copied(self.file, first, last, limit)

    def _chosen(self) -> tuple[int, int] | None:
        if self._anchor is None:
            return None
        return min(self._anchor, self._cursor), max(self._anchor, self._cursor)

    # -- rows ------------------------------------------------------------------------------

    def _view(self) -> list[Place]:
        return self._from(self._top)

    def _scroll(self, rows: int) -> None:
        if self.file.size:
            self._top = self._walk(self._top, rows)
            self._fill()

    def _fill(self) -> None:
        """Let the screen be full if there is enough to fill it."""
        view = self._view()
        if view and len(view) < self._height:
            self._top = self._walk(view[-1], 1 - self._height)

    def _reveal(self, place: Place) -> None:
        if place < self._top:
            self._top = place
        elif (view := self._view()) and place > view[-1]:
            self._top = self._walk(place, 1 - self._height)

    def _clamp(self) -> None:
        view = self._view()
        if view:
            self._cursor = max(view[0][0], min(self._cursor, view[-1][0]))

    def _line_down(self) -> None:
        view = self._view()
        if not view:
            return
        piece = self.file.piece(self._cursor)
        if (piece.start, 0) <= view[-1] < (piece.start, len(self._starts(piece)) - 1):
            self._scroll(1)
            return
        self._cursor = piece.end if piece.end < self.file.size else piece.start
        rows = len(self._starts(self.file.piece(self._cursor)))
        self._reveal((self._cursor, min(rows, self._height) - 1))

    def _line_up(self) -> None:
        if not self.file.size:
            return
        rows = len(self._starts(self.file.piece(self._cursor)))
        if (self._cursor, 0) < self._top <= (self._cursor, rows - 1):
            self._scroll(-1)
            return
        self._cursor = self.file.start_of(self._cursor - 1)
        rows = len(self._starts(self.file.piece(self._cursor)))
        self._reveal((self._cursor, max(0, rows - self._height)))

    def _settle(self, *, down: bool) -> None:
        """After a move: whoever comes to the very end stays there as it grows."""
        last = self.file.size and self._cursor == self.file.start_of(self.file.size)
        self.follows = bool(down and self._anchor is None and last)
        self.changed = True

    def _lay_out(self) -> None:
        self.changed = True
        if self.follows:
            self.last()
            return
        if self.file.size:
            piece = self._piece(self._top)
            self._top = piece.start, min(self._top[1], len(self._starts(piece)) - 1)
            # Of one that is taller than the screen, one may be far from its first row.
            if all(start != self._cursor for start, _ in self._view()):
                self._reveal((self._cursor, 0))
            self._fill()

    def _show_column(self, text: str, spot: Spot) -> None:
        begin = span_cells(text[: spot.index])
        end = begin + span_cells(text[spot.index : spot.index + spot.length])
        if begin < self._column or end > self._column + self.text_width:
            self._column = max(0, begin - self.text_width // 2)

    # -- the frame -------------------------------------------------------------------------

    def frame(self) -> Frame:
        """Return what is to be seen now."""
        self.changed = False
        file = self.file
        view = self._view()
        if not view:
            return Frame(follows=self.follows, standing=file.standing, trouble=file.trouble)
        return Frame(
            self._seen(view),
            self._cursor,
            self._chosen(),
            view[0][0],
            self._piece(view[-1]).end,
            file.size,
            file.number_of(self._cursor),
            file.lines,
            self.follows,
            file.standing,
            file.trouble,
            self._spot(),
            (self._top, self._cursor),
        )
