"""The rows of a log: how pieces are broken for a width, what a row shows, what is next to it.

Reads through `Pieces`: for a thread. Where one is, is the business of `viewport`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from msgspec import Struct

from tui.logs.cells import row_starts, window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tui.logs.pieces import Piece, Pieces
    from tui.logs.search import Needle, Span, Spot

_EDGE = 1
_MARKS = 2000
"""Matches in one piece that are shown as such."""
_LAID_OUT = 64
_UNKNOWN, _CONTINUED = "·", "…"

Place = tuple[int, int]
"""The start of a piece and a row of it."""


class Row(Struct, frozen=True):
    """One row on screen. `head` is its number, right-aligned, or empty.

    `continued`: it does not begin a line, but a part of one that was cut. `marks` are matches in
    `text`: from, to, whether it is the one that was gone to. `left` and `right` say that there
    is more of the line beyond that edge.
    """

    start: int
    head: str
    text: str
    continued: bool = False
    marks: tuple[tuple[int, int, bool], ...] = ()
    left: bool = False
    right: bool = False


class Rows:
    """The rows of a log in `width` cells; `height` of them fit on the screen.

    `needle` is what is marked in them, `found` the match that one went to.
    """

    def __init__(self, file: Pieces, *, width: int, height: int) -> None:
        self.file = file
        self.wraps = True
        self.numbered = False
        self._width, self._height = width, height
        self._column = 0
        self._needle: Needle | None = None
        self._found: Spot | None = None
        self._layouts: dict[tuple[int, int, int], Sequence[int]] = {}
        self._spans: dict[tuple[int, int], list[Span]] = {}

    @property
    def text_width(self) -> int:
        """How many cells a row of text has."""
        return max(4, self._width - _EDGE - (self._digits + 1 if self.numbered else 0))

    @property
    def _digits(self) -> int:
        lines = self.file.lines
        return max(4, len(str(lines if lines is not None else self.file.size // 16)))

    def _forget_layouts(self) -> None:
        self._layouts.clear()
        self._spans.clear()

    # -- places ----------------------------------------------------------------------------

    def _piece(self, place: Place) -> Piece:
        return self.file.piece(place[0])

    def _starts(self, piece: Piece) -> Sequence[int]:
        if not self.wraps:
            return (0,)
        key = (piece.start, piece.end, self.text_width)
        starts = self._layouts.get(key)
        if starts is None:
            if len(self._layouts) >= _LAID_OUT:
                self._layouts.clear()
            starts = self._layouts[key] = row_starts(piece.text, self.text_width)
        return starts

    def _row_of(self, piece: Piece, index: int) -> int:
        return max(0, bisect_right(self._starts(piece), index) - 1)

    def _down(self, place: Place) -> Place | None:
        piece = self._piece(place)
        if place[1] + 1 < len(self._starts(piece)):
            return place[0], place[1] + 1
        return (piece.end, 0) if piece.end < self.file.size else None

    def _up(self, place: Place) -> Place | None:
        if place[1]:
            return place[0], place[1] - 1
        if not place[0]:
            return None
        piece = self.file.piece(self.file.start_of(place[0] - 1))
        return piece.start, len(self._starts(piece)) - 1

    def _walk(self, place: Place, rows: int) -> Place:
        step = self._down if rows > 0 else self._up
        for _ in range(abs(rows)):
            further = step(place)
            if further is None:
                break
            place = further
        return place

    def _from(self, top: Place) -> list[Place]:
        """Return the places that are on screen if this one is at the top."""
        if not self.file.size:
            return []
        view = [top]
        while len(view) < self._height and (place := self._down(view[-1])) is not None:
            view.append(place)
        return view

    # -- what is seen ----------------------------------------------------------------------

    def _seen(self, view: Sequence[Place]) -> tuple[Row, ...]:
        rows: list[Row] = []
        number: int | None = None
        for place in view:
            piece = self._piece(place)
            head = ""
            if self.numbered and not place[1]:
                # One count for the first line in sight; each line end after it is one more.
                number = (
                    self.file.number_of(piece.start) if number is None else number + piece.begins
                )
                known = _UNKNOWN if number is None else str(number)
                head = known if piece.begins else _CONTINUED
            rows.append(self._row(piece, place[1], head))
        return tuple(rows)

    def _row(self, piece: Piece, row: int, head: str) -> Row:
        starts = self._starts(piece)
        text, pad = piece.text, ""
        if self.wraps:
            begin = starts[row]
            end = starts[row + 1] if row + 1 < len(starts) else len(text)
        else:
            begin, end, pad = window(text, self._column, self.text_width)
        if self.numbered:
            head = f"{head:>{self._digits}} "
        shift = len(pad) - begin
        return Row(
            piece.start,
            head,
            pad + text[begin:end],
            not piece.begins and not row,
            tuple((a + shift, b + shift, now) for a, b, now in self._marks(piece, begin, end)),
            left=not self.wraps and begin > 0,
            right=not self.wraps and end < len(text),
        )

    def _marks(self, piece: Piece, begin: int, end: int) -> list[tuple[int, int, bool]]:
        if self._needle is None:
            return []
        key = (piece.start, piece.end)
        spans = self._spans.get(key)
        if spans is None:
            if len(self._spans) >= 4 * _LAID_OUT:
                self._spans.clear()
            spans = self._spans[key] = self._needle.all(piece.text, _MARKS)
        found = self._found
        marks: list[tuple[int, int, bool]] = []
        for index in range(bisect_left(spans, (begin, 0)) - 1, len(spans)):
            if index < 0 or spans[index][1] <= begin:
                continue
            a, b = spans[index]
            if a >= end:
                break
            now = found is not None and found.start == piece.start and found.index == a
            marks.append((max(a, begin), min(b, end), now))
        return marks
