"""A screenful of a transcript: entries in rows, folded or not. For a thread, as the viewport is."""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import asdict

from engine.model import Spending
from engine.text import plural
from engine.transcripts.rows import rows_of
from engine.transcripts.telling import WHO, Mood
from tui.logs.cells import cells_of, span_cells
from tui.logs.copying import COPY_LIMIT, Copied
from tui.logs.rows import Row
from tui.logs.said import SaidFile, SaidPiece
from tui.logs.viewport import Frame, Viewport

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from tui.logs.pieces import Piece, Pieces
    from tui.logs.search import Spot

TIME = 10
"""Cells of a time, and what parts it from what follows."""
_TIMED = 64
"""Cells below which there is no room for times."""
_LAID_OUT = 64


class SaidRow(Row, frozen=True):
    """A row of an entry; the first one has its time and who speaks.

    `title` characters of the text stand out. `hint`: the text says what is folded away; `more`:
    something is, and nothing says it.
    """

    at: datetime | None = None
    who: str = ""
    mood: Mood = Mood.PLAIN
    title: int = 0
    hint: bool = False
    more: bool = False
    gutter: int = 0


class SaidFrame(Frame, frozen=True):
    """A frame, and what the transcript tells of costs so far."""

    spending: Spending = Spending()


class Laid(Struct, frozen=True):
    """The rows of an entry: where they begin and end in its text; `hint` is one row more.

    `more`: something is folded away.
    """

    starts: Sequence[int]
    ends: Sequence[int]
    hint: str = ""
    more: bool = False


class Talk(Viewport):
    """Where one is in a transcript. Long entries are folded unless one wants them whole."""

    def __init__(self, file: SaidFile, *, width: int = 80, height: int = 24) -> None:
        super().__init__(file, width=width, height=height)
        self._folds = True
        self._others: set[int] = set()
        self._laid: dict[tuple[int, int, int], Laid] = {}

    @staticmethod
    def _opened(path: Path) -> Pieces:
        return SaidFile(path)

    @property
    def said(self) -> SaidFile:
        """The transcript."""
        assert isinstance(self.file, SaidFile)
        return self.file

    def open(self, path: Path) -> None:
        """Show another transcript, from its end."""
        self._others.clear()
        self._forget_layouts()
        super().open(path)

    def tell_of_run(self, *, over: bool, sums: bool) -> None:
        """Say whether the run has ended, and whether its transcript alone knows what it took."""
        self.said.sums = sums
        if over != self.said.transcript.over:
            self.said.transcript.over = over
            self.refresh()

    # -- folding ---------------------------------------------------------------------------

    def fold(self) -> None:
        """Fold the entry that one is on, or show all of it."""
        if self.file.size:
            self._turn(self._cursor)
            self._lay_out()

    def fold_all(self) -> None:
        """Fold all entries, or none."""
        self._folds = not self._folds
        self._others.clear()
        self._forget_layouts()
        self._lay_out()

    def _turn(self, start: int) -> None:
        self._others ^= {start}
        self._forget_layouts()
        self.follows = self.follows and start == self.file.start_of(self.file.size)

    def go_to(self, spot: Spot) -> None:
        """Go to a match, and show it if it is folded away."""
        piece = self._said_piece(spot.start)
        laid = self._lay(piece)
        if laid.more and spot.index >= laid.ends[-1]:
            self._turn(piece.start)
        super().go_to(spot)

    # -- rows ------------------------------------------------------------------------------

    @property
    def text_width(self) -> int:
        """How many cells a row of text has."""
        return max(8, self._width - 1 - self._gutter)

    @property
    def _gutter(self) -> int:
        return WHO + 2 + (TIME if self._width >= _TIMED else 0)

    def _said_piece(self, start: int) -> SaidPiece:
        return self.said.piece(self.file.start_of(start))

    def _forget_layouts(self) -> None:
        super()._forget_layouts()
        self._laid.clear()

    def _lay(self, piece: SaidPiece) -> Laid:
        key = piece.start, piece.end, self.text_width
        laid = self._laid.get(key)
        if laid is None:
            if len(self._laid) >= _LAID_OUT:
                self._laid.clear()
            folded = (piece.start in self._others) is not self._folds
            laid = self._laid[key] = laid_out(piece, self.text_width, folded=folded)
        return laid

    def _starts(self, piece: Piece) -> Sequence[int]:
        assert isinstance(piece, SaidPiece)
        return self._lay(piece).starts

    def _row(self, piece: Piece, row: int, head: str) -> SaidRow:
        assert isinstance(piece, SaidPiece)
        laid, told = self._lay(piece), piece.told
        if row >= len(laid.ends):
            return SaidRow(
                piece.start, head, laid.hint, mood=Mood.QUIET, hint=True, gutter=self._gutter
            )
        begin, end = laid.starts[row], laid.ends[row]
        return SaidRow(
            piece.start,
            head,
            piece.text[begin:end].rstrip(),
            marks=tuple(
                (a - begin, b - begin, now) for a, b, now in self._marks(piece, begin, end)
            ),
            at=None if row else piece.at,
            who="" if row else told.who,
            mood=told.mood,
            title=max(0, min(told.title, end) - begin),
            more=laid.more and not laid.hint and row == len(laid.ends) - 1,
            gutter=self._gutter,
        )

    # -- what is taken from it -------------------------------------------------------------

    def copy(self, limit: int = COPY_LIMIT) -> Copied:
        """Return the selected entries, or the one that one is on, all of their text."""
        if not self.file.size:
            return Copied("", 0, cut=False)
        first, last = self._chosen() or (self._cursor, self._cursor)
        parts: list[str] = []
        room, at = limit, first
        while at <= last and room > 0:
            piece = self._said_piece(at)
            parts.append(piece.text)
            room -= len(piece.text.encode())
            at = piece.end
        text = "\n".join(parts)
        if room < 0:
            text = text.encode()[:limit].decode(errors="ignore")
        return Copied(text, text.count("\n") + 1, cut=room < 0 or at <= last)

    def frame(self) -> SaidFrame:
        """Return what is to be seen now."""
        told = asdict(super().frame()) | {"counts": "entry", "spending": self.said.spending}
        return SaidFrame(**told)


def laid_out(piece: SaidPiece, width: int, *, folded: bool) -> Laid:
    """Break the text of an entry into rows of `width` cells.

    Folded, there are so many rows as it is told in brief, and a hint of what is not seen, unless
    that is but details; what the hint would take the place of is shown instead. Unfolded, the
    details stand in place of what was told of them in brief.
    """
    text, told = piece.text, piece.told
    rows = rows_of(text, width, measure=_measured)
    if not folded:
        if told.title and told.whole < len(text):
            title = rows_of(text[: told.title], width, measure=_measured)
            rows = chain(title, rows_of(text, width, measure=_measured, start=told.whole + 1))
        spans = list(rows)
        return Laid([begin for begin, _ in spans], [end for _, end in spans])
    spans = [(begin, end) for begin, end in islice(rows, told.brief + 2) if begin <= told.whole]
    if len(spans) > told.brief + 1:
        del spans[told.brief :]
    starts, ends = [begin for begin, _ in spans], [end for _, end in spans]
    seen = ends[-1]
    if seen >= len(text):
        return Laid(starts, ends)
    if seen >= told.whole:
        return Laid(starts, ends, more=True)
    lines = text.count("\n", seen)
    hint = f"… {plural(lines, 'more line')}" if lines else "… more"
    return Laid([*starts, seen + 1], ends, hint, more=True)


def _measured(text: str) -> int:
    return cells_of(text) if len(text) == 1 else span_cells(text)
