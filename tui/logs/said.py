"""A transcript as pieces, an entry each, so that it is moved through and searched as a log is.

Everything here reads the disk: it is for a thread, and for one at a time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from typing import TYPE_CHECKING

from engine.growing import BLOCK, News
from engine.text import plural
from engine.transcripts.telling import Mood, Told, tell
from engine.transcripts.transcript import Transcript, Walk
from tui.logs.pieces import Piece
from tui.logs.search import Search, Spot

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from engine.growing import Standing
    from engine.model import Spending
    from engine.transcripts.transcript import Said
    from tui.logs.pieces import Pieces
    from tui.logs.search import Span

_PIECES = 160
"""Pieces that are remembered: more than a screen has rows."""

Found = tuple[int, int]
"""A block, and which of its pieces."""


class SaidPiece(Piece, frozen=True):
    """An entry: all of its text, lines and all, and how it is told."""

    at: datetime | None = None
    told: Told = Told("", "", Mood.QUIET)


class SaidFile:
    """The transcript that lies at `path`. A piece is an entry, from its place to that of the next.

    Where a whole block says nothing, its lines together are a piece, so that nothing is ever far.
    """

    def __init__(self, path: Path, *, block: int = BLOCK) -> None:
        self.transcript = Transcript(path.parent, block=block)
        self.sums = False
        """Whether to find out what the agent says of costs, because nobody else knows."""
        self._walk = Walk(self.transcript)
        self._pieces: OrderedDict[int, SaidPiece] = OrderedDict()
        self._before = [0]
        """The pieces before each block, and behind the last one, as far as they are counted."""
        self._final = 0
        """How many of the counted blocks get no further pieces."""

    # -- the file --------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self.transcript.size

    @property
    def standing(self) -> Standing:
        """What became of the file."""
        return self.transcript.standing

    @property
    def trouble(self) -> str:
        """Why the file cannot be read, if it cannot."""
        return self.transcript.trouble

    @property
    def spending(self) -> Spending:
        """What the run took, as far as its transcript was read and tells it."""
        return self._walk.summary.spending

    def look(self) -> News:
        """Look at the files again."""
        news = self.transcript.look()
        if news is News.ANEW:
            self._walk = Walk(self.transcript)
            self._final = 0
        if news is not News.NOTHING:
            self._pieces.clear()
            del self._before[self._final + 1 :]
        return news

    def close(self) -> None:
        """Close the files."""
        self.transcript.close()

    # -- in the background -----------------------------------------------------------------

    @property
    def counted(self) -> bool:
        """Whether all entries are counted, and all that they say of costs is summed up."""
        return self._all_counted and (self._walk.done or not self.sums)

    @property
    def _all_counted(self) -> bool:
        return len(self._before) > self.transcript.blocks

    @property
    def lines(self) -> int | None:
        """How many entries there are, None if not counted yet."""
        return self._before[-1] if self._all_counted else None

    def count_more(self, blocks: int) -> bool:  # noqa: ARG002 - one takes as long as many of a log
        """Count the entries of a block; once that is done, find out what some say of costs."""
        if self._all_counted:
            self._walk.step()
            return True
        number = len(self._before) - 1
        self._before.append(self._before[-1] + self._count(number))
        if self._final == number and not self.transcript.block(number).open:
            self._final += 1
        return True

    def number_of(self, start: int) -> int | None:
        """Return the number of the entry that `start` is in, from 1; None if not counted yet."""
        number, index = self._find(start)
        return self._before[number] + index + 1 if number < len(self._before) else None

    # -- pieces ----------------------------------------------------------------------------

    def bytes(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` to `end`; fewer if the file was cut meanwhile."""
        return self.transcript.file.bytes(start, end)

    def start_of(self, place: int) -> int:
        """Return where the entry begins that byte `place` belongs to; the last one past the end."""
        number, index = self._find(place)
        return self._start(number, index)

    def end_of(self, start: int) -> int:
        """Return where the next entry begins, or where the file ends."""
        number, index = self._find(start)
        if index + 1 < self._count(number):
            return self._start(number, index + 1)
        for further in range(number + 1, self.transcript.blocks):
            if self._count(further):
                return self._start(further, 0)
        return self.size

    def piece(self, start: int) -> SaidPiece:
        """Return the entry that begins at `start`."""
        piece = self._pieces.get(start)
        if piece is None:
            number, index = self._find(start)
            end = self.end_of(start)
            said = self.transcript.block(number).said
            if index < len(said):
                told = tell(said[index].entry)
                piece = SaidPiece(start, end, told.text, at=said[index].entry.at, told=told)
            else:
                lines = self.bytes(start, end).count(b"\n")
                told = Told("", f"{plural(lines, 'line')} that tell nothing", Mood.QUIET)
                piece = SaidPiece(start, end, told.text, told=told)
            self._pieces[start] = piece
            if len(self._pieces) > _PIECES:
                self._pieces.popitem(last=False)
        return piece

    def texts(self, start: int, end: int) -> list[tuple[int, int, str]]:
        """Return the text of each entry from `start` to `end`, and where it begins and ends."""
        found = []
        # Who asks may have known the file before it was cut.
        while start < min(end, self.size):
            piece = self.piece(start)
            found.append((start, piece.end, piece.text))
            start = piece.end
        return found

    def _find(self, place: int) -> Found:
        place = max(0, min(place, self.size - 1))
        for number in range(self.transcript.number_of(place), -1, -1):
            block = self.transcript.block(number)
            if not block.said:
                if block.begin is not None and block.begin <= place:
                    return number, 0
            elif index := bisect_right(block.said, place, key=_start_of):
                return number, index - 1
        return 0, 0

    def _count(self, number: int) -> int:
        block = self.transcript.block(number)
        return len(block.said) or int(block.begin is not None)

    def _start(self, number: int, index: int) -> int:
        if (number, index) == (0, 0):
            return 0  # whatever is silent at the begin belongs to what is said first
        block = self.transcript.block(number)
        if block.said:
            return block.said[index].start
        assert block.begin is not None
        return block.begin


class SaidSearch(Search):
    """Looks through a transcript, entry by entry: a match may stand in any line of one."""

    def _last(self, file: Pieces, start: int, upto: int, text: str) -> Span | None:  # noqa: ARG002 - as in a log
        holds_origin = not self.wrapped and start == self.origin.start
        return self.needle.last(text, self.origin.index if holds_origin else len(text) + 1)

    def _hit(self, file: Pieces, start: int, upto: int, text: str, span: Span) -> None:  # noqa: ARG002
        self.found = Spot(start, span[0], span[1] - span[0])
        self.done = True


def _start_of(said: Said) -> int:
    return said.start
