"""A log file as pieces that are found from anywhere in it, by reading only what is near.

A place in a log is the offset of a byte, so neither its end nor its middle needs what is before
it. A piece is a line, or a part of one that is longer than a grid step (32 KiB): such a line is
cut at every step that has no line end in the step before it, which can be told from these bytes
alone.

Everything here reads the disk: it is for a thread, and for one at a time.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import TYPE_CHECKING

from engine.growing import BLOCK, GrowingFile
from tui.logs.pieces import Piece
from tui.logs.text import SEAM_REACH, clean_lines, seam

if TYPE_CHECKING:
    from pathlib import Path

GRID = 32 * 1024
_PIECES = 160
"""Pieces that are remembered: more than a screen has rows."""


class LogFile(GrowingFile):
    """One file, followed by name. `block` and `grid` are in bytes, one a multiple of the other."""

    def __init__(self, path: Path, *, block: int = BLOCK, grid: int = GRID) -> None:
        assert block % grid == 0
        super().__init__(path, block=block)
        self._grid = grid
        self._reach = min(SEAM_REACH, grid // 2)
        self._pieces: OrderedDict[int, Piece] = OrderedDict()

    def _grew(self, before: int) -> None:
        for start in [s for s, piece in self._pieces.items() if piece.end >= before]:
            del self._pieces[start]

    def _forget(self) -> None:
        super()._forget()
        self._pieces.clear()

    # -- pieces ----------------------------------------------------------------------------

    def _cut(self, step: int) -> int | None:
        """Return where a line is cut at a step of the grid, None if none is."""
        at = step * self._grid
        if not 0 < at < self.size or self._last_line_end(at - self._grid, at) >= 0:
            return None
        return at - seam(self.bytes(at - self._reach, at), self.bytes(at, at + 1))

    def cuts(self, start: int, end: int) -> list[int]:
        """Return where lines are cut after `start` and before `end`."""
        steps = range(start // self._grid + 1, end // self._grid + 2)
        return [cut for step in steps if (cut := self._cut(step)) is not None and start < cut < end]

    def start_of(self, place: int) -> int:
        """Return where the piece begins that byte `place` is in; the last one past the end."""
        place = max(0, min(place, self.size - 1))
        step = place // self._grid
        after = self._cut(step + 1)
        if after is not None and after <= place:
            return after
        found = self._last_line_end(step * self._grid, place) if place % self._grid else -1
        if found >= 0:
            return found + 1
        if step == 0:
            return 0
        cut = self._cut(step)
        if cut is not None:
            return cut
        return self._last_line_end((step - 1) * self._grid, step * self._grid) + 1

    def end_of(self, start: int) -> int:
        """Return where the piece ends that begins at `start`: where the next one begins."""
        step = start // self._grid
        while True:
            edge = (step + 1) * self._grid
            found = self._line_end(max(start, edge - self._grid), edge)
            if found >= 0:
                return min(found + 1, self.size)
            if edge >= self.size:
                return self.size
            cut = self._cut(step + 1)
            if cut is not None and cut > start:
                return cut
            step += 1

    def piece(self, start: int) -> Piece:
        """Return the piece that begins at `start`."""
        piece = self._pieces.get(start)
        if piece is None:
            end = self.end_of(start)
            data = self.bytes(start, end)
            ends = data.endswith(b"\n")
            begins = start == 0 or self.bytes(start - 1, start) == b"\n"
            text = clean_lines(data.removesuffix(b"\n"))
            piece = self._pieces[start] = Piece(start, end, text, begins, ends)
            if len(self._pieces) > _PIECES:
                self._pieces.popitem(last=False)
        return piece

    def texts(self, start: int, end: int) -> list[tuple[int, int, str]]:
        """Return the clean text of whole pieces as runs: where each begins and ends, its lines.

        `start` and `end` are where pieces begin. A run holds no cut line's seam, so each line of
        its text is a piece.
        """
        edges = [start, *self.cuts(start, end), end]
        return [
            (a, b, clean_lines(self.bytes(a, b).removesuffix(b"\n"))) for a, b in pairwise(edges)
        ]
