"""A file that somebody writes to, followed by name and read in blocks, whatever becomes of it.

It may come later, grow, be cut, be replaced or removed: `look` tells. Which number a line has is
known once the line ends before it were counted (`count_more`).

Everything here reads the disk: it is for a thread, and for one at a time. Knows nothing of what
the bytes mean.
"""

from __future__ import annotations

import os
from array import array
from collections import OrderedDict
from enum import StrEnum
from typing import TYPE_CHECKING

from engine.files import open_regular
from engine.text import clean_text

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

BLOCK = 256 * 1024
_BLOCKS = 12
_MARK = 64
"""The last bytes that were there: a file that was written anew has others in their place."""


class Standing(StrEnum):
    """What became of the file."""

    MISSING = "missing"
    THERE = "there"
    GONE = "gone"
    """It was removed while it was open: what it held can still be read."""
    REFUSED = "refused"


class News(StrEnum):
    """What a second look at the file found."""

    NOTHING = "nothing"
    GREW = "grew"
    ANEW = "anew"
    """Another file, or other bytes: no offset of before means anything any more."""


class GrowingFile:
    """One file. `block` is how many bytes are read at a time."""

    def __init__(self, path: Path, *, block: int = BLOCK) -> None:
        self.path = path
        self.size = 0
        self.standing = Standing.MISSING
        self.trouble = ""
        """Why the file cannot be read, if it cannot."""
        self.reads = 0
        """How often the disk was asked for bytes."""
        self._block = block
        self._file: BinaryIO | None = None
        self._identity = (0, 0)
        self._written = 0
        self._mark = b""
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._counts = array("Q")

    # -- the file --------------------------------------------------------------------------

    def look(self) -> News:
        """Look at the file again: whether it came, grew, was written anew or removed."""
        try:
            facts = self.path.lstat()
            if self._file is None or (facts.st_dev, facts.st_ino) != self._identity:
                return self._open()
        except FileNotFoundError:
            if self._file is None:
                return self._stand(Standing.MISSING)
            return self._stand(Standing.GONE)
        except OSError as error:
            return self._refuse(error)
        if (facts.st_size, facts.st_mtime_ns) == (self.size, self._written):
            return self._stand(Standing.THERE)
        return self._grown(facts)

    def close(self) -> None:
        """Close the file; nothing can be read any more."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> News:
        known = self._file is not None or self.standing is Standing.REFUSED
        file = open_regular(self.path)
        self.close()
        self._file = file
        facts = os.fstat(file.fileno())
        self._identity = facts.st_dev, facts.st_ino
        self.standing, self.trouble = Standing.THERE, ""
        self._forget()
        self._measure(facts)
        return News.ANEW if known or self.size else News.GREW

    def _stand(self, standing: Standing) -> News:
        before, self.standing = self.standing, standing
        self.trouble = ""
        return News.NOTHING if before is standing else News.GREW

    def _refuse(self, error: OSError) -> News:
        self.close()
        self._forget()
        self.size = 0
        trouble = (
            f"cannot read {clean_text(self.path.name)}: {clean_text(error.strerror or str(error))}"
        )
        before = self.standing, self.trouble
        self.standing, self.trouble = Standing.REFUSED, trouble
        return News.NOTHING if before == (self.standing, trouble) else News.ANEW

    def _grown(self, facts: os.stat_result) -> News:
        before, self.standing = self.size, Standing.THERE
        if facts.st_size < before or self._pread(before - len(self._mark), _MARK) != self._mark:
            self._forget()
            self._measure(facts)
            return News.ANEW
        self._measure(facts)
        # Only what was not whole can look different now.
        self._blocks.pop(before // self._block, None)
        self._grew(before)
        return News.GREW if self.size > before else News.NOTHING

    def _measure(self, facts: os.stat_result) -> None:
        self.size, self._written = facts.st_size, facts.st_mtime_ns
        length = min(_MARK, self.size)
        self._mark = self._pread(self.size - length, length)

    def _grew(self, before: int) -> None:
        """Forget what was known of the end of a file that had `before` bytes."""

    def _forget(self) -> None:
        """Forget all that was known: it is another file."""
        self._blocks.clear()
        self._counts = array("Q")

    # -- bytes -----------------------------------------------------------------------------

    def _pread(self, start: int, length: int) -> bytes:
        if self._file is None or length <= 0:
            return b""
        self.reads += 1
        return os.pread(self._file.fileno(), min(length, self.size - start), start)

    def _data(self, number: int) -> bytes:
        data = self._blocks.get(number)
        if data is None:
            data = self._pread(number * self._block, self._block)
            self._blocks[number] = data
            if len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(number)
        return data

    def bytes(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` to `end`; fewer if the file was cut meanwhile."""
        if start >= end:
            return b""
        first, last = start // self._block, (end - 1) // self._block
        at = start - first * self._block
        if first == last:
            return self._data(first)[at : at + end - start]
        return b"".join(map(self._data, range(first, last + 1)))[at : at + end - start]

    def _line_end(self, start: int, end: int) -> int:
        """Return the first line end from `start` to `end`, within one block; -1 without one."""
        number = start // self._block
        base = number * self._block
        found = self._data(number).find(b"\n", start - base, end - base)
        return found + base if found >= 0 else -1

    def _last_line_end(self, start: int, end: int) -> int:
        number = start // self._block
        base = number * self._block
        found = self._data(number).rfind(b"\n", start - base, end - base)
        return found + base if found >= 0 else -1

    # -- numbers ---------------------------------------------------------------------------

    @property
    def counted(self) -> bool:
        """Whether all lines are numbered."""
        return (len(self._counts) + 1) * self._block > self.size

    def count_more(self, blocks: int) -> bool:
        """Count the line ends of the next blocks, so that what follows them gets its numbers.

        Returns False if these bytes are not there any more.
        """
        for _ in range(blocks):
            if self.counted:
                break
            data = self._pread(len(self._counts) * self._block, self._block)
            if len(data) < self._block:
                return False
            self._counts.append((self._counts[-1] if self._counts else 0) + data.count(b"\n"))
        return True

    def number_of(self, start: int) -> int | None:
        """Return the number of the line that `start` is in, from 1; None if not counted yet."""
        number = start // self._block
        if number > len(self._counts):
            return None
        before = self._counts[number - 1] if number else 0
        if start == number * self._block:
            return before + 1
        return before + self._data(number).count(b"\n", 0, start - number * self._block) + 1

    @property
    def lines(self) -> int | None:
        """How many lines there are, None if not counted yet."""
        if not self.size:
            return 0
        return self.number_of(self.size - 1) if self.counted else None
