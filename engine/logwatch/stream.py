"""A file that somebody else writes, read on from where it was read to.

A position is a file (device, inode), an offset, and the bytes before it: by those one sees that it
was cut or written anew. A line counts once it has ended. One that has not, and does not grow for
`_PATIENCE`, is handed out as it is; whoever makes something of it says so, and hears of that once
the line has ended.

Everything here reads the disk: it is for a thread, and for one at a time.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from typing import BinaryIO

BLOCK = 1 << 20
"""Bytes that are read at a time."""
MARK = 64
"""Bytes before a position by which it is known again."""
_LONGEST_LINE = 256 * 1024
"""What is longer counts as several lines."""
_PATIENCE = 2.0
"""Seconds after which a line that does not grow is looked at although it has not ended."""


class Position(Struct):
    """How far a file was read: up to `offset`, which is where a line begins.

    `mark` are the last bytes before it. `told`: that line had not ended, and was told of.
    """

    dev: int
    ino: int
    offset: int = 0
    mark: bytes = b""
    told: bool = False

    def to_json(self) -> list[int | str]:
        """Return it as JSON can hold it."""
        return [self.dev, self.ino, self.offset, self.mark.hex(), int(self.told)]

    @classmethod
    def from_json(cls, value: Any) -> Position:
        """Read what `to_json` returned. Raises ValueError or TypeError for anything else."""
        dev, ino, offset, mark, told = value
        return cls(int(dev), int(ino), int(offset), bytes.fromhex(mark), bool(told))


class Piece(Struct, frozen=True):
    """Bytes of a log, from where a line begins. `told`: of its first line was told before.

    `unended`: it is a line that has not ended; who tells of it sets `told` there.
    """

    data: bytes
    offset: int
    told: bool = False
    unended: Position | None = None


class Stream:
    """One open file, read on from a position."""

    def __init__(self, file: BinaryIO, now: float, *, is_masked: bool) -> None:
        facts = os.fstat(file.fileno())
        self.file = file
        self.position = Position(facts.st_dev, facts.st_ino)
        self._is_masked = is_masked
        self.size = self._looked_at = -1
        self.grew_at = now
        self.before_cut: Position | None = None
        self._written = -1

    def close(self) -> None:
        """Close the file; the position stays."""
        self.file.close()

    def measure(self, now: float) -> bool:
        """Look how large the file is; begin anew, True, if what was read is not there any more."""
        facts, at = os.fstat(self.file.fileno()), self.position
        if (facts.st_size, facts.st_mtime_ns) == (self.size, self._written):
            return False
        self.size, self._written, self.grew_at = facts.st_size, facts.st_mtime_ns, now
        if self.size < at.offset or not (self._is_masked or self.holds(at)):
            self.before_cut = at
            self.position = Position(at.dev, at.ino)
            return True
        return False

    def holds(self, at: Position) -> bool:
        """Say whether the file has the same bytes before an offset as another had, or this one."""
        return self._pread(at.offset - len(at.mark), len(at.mark)) == at.mark

    def go_on(self, at: Position) -> None:
        """Go on from where another file was read to, of which this one is a copy."""
        here = self.position
        self.position = Position(here.dev, here.ino, at.offset, at.mark, at.told)

    def skip(self) -> None:
        """Go on from the last line that has begun."""
        end = self.size
        at = self.position
        while end > 0:
            start = max(0, end - BLOCK)
            found = self._pread(start, end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        at.offset, at.told = end, False
        at.mark = self._pread(max(0, end - MARK), min(end, MARK))

    def read(self, now: float, *, last: bool = False) -> Piece | None:
        """Return what comes next: lines that have ended, or one that has not and does not grow.

        `last`: nothing more will come. The position is then behind the lines that have ended.
        """
        at = self.position
        if at.offset >= self.size:
            return None
        data = self._pread(at.offset, min(BLOCK, self.size - at.offset))
        end = data.rfind(b"\n") + 1
        if not end:
            if len(data) >= _LONGEST_LINE:
                end = len(data)
            elif (last or now - self.grew_at >= _PATIENCE) and self._looked_at != self.size:
                self._looked_at = self.size
                return None if at.told else Piece(data, at.offset, unended=at)
            else:
                return None
        piece = Piece(data[:end], at.offset, at.told)
        at.mark = (at.mark + data[max(0, end - MARK) : end])[-MARK:]
        at.offset, at.told = at.offset + end, False
        return piece

    def _pread(self, start: int, length: int) -> bytes:
        return os.pread(self.file.fileno(), length, start) if length > 0 else b""
