"""A log that somebody else writes, read on from where it was read to, across restarts.

A position is a file (device, inode), an offset, and the bytes before it. The name may lead to
another file meanwhile (rotated), to the same one with less in it or with other bytes there (cut and
written anew), or to none: what is left of the former file is read first, for as long as anybody
writes to it, then the new one from its beginning.

A line counts once it has ended. One that has not, and does not grow for `_PATIENCE`, is handed out
as it is; whoever makes something of it says so, and hears of that once the line has ended.

Everything here reads the disk: it is for a thread, and for one at a time.
"""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

BLOCK = 1 << 20
"""Bytes that are read at a time."""
_LONGEST_LINE = 256 * 1024
"""What is longer counts as several lines."""
_MARK = 64
_PATIENCE = 2.0
"""Seconds after which a line that does not grow is looked at although it has not ended."""
_LINGER = 30.0
"""Seconds for which a file is read on whose name leads to another one by now, and for which nobody
must have written to it then: a program writes to the old one until it is told of the rotation."""
_SIBLINGS = 10_000
"""Files of a folder at most among which a rotated one is looked for."""


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


class _Stream:
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
        self.file.close()

    def measure(self, now: float) -> None:
        """Look how large the file is; begin anew if what was read is not there any more."""
        facts, at = os.fstat(self.file.fileno()), self.position
        if (facts.st_size, facts.st_mtime_ns) == (self.size, self._written):
            return
        self.size, self._written, self.grew_at = facts.st_size, facts.st_mtime_ns, now
        if self.size < at.offset or not (self._is_masked or self.holds(at)):
            self.before_cut = at
            self.position = Position(at.dev, at.ino)

    def holds(self, at: Position) -> bool:
        """Say whether the file has the same bytes before an offset as another had, or this one."""
        return self._pread(at.offset - len(at.mark), len(at.mark)) == at.mark

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
        at.mark = self._pread(max(0, end - _MARK), min(end, _MARK))

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
        at.mark = (at.mark + data[max(0, end - _MARK) : end])[-_MARK:]
        at.offset, at.told = at.offset + end, False
        return piece

    def _pread(self, start: int, length: int) -> bytes:
        return os.pread(self.file.fileno(), length, start) if length > 0 else b""


class Tail:
    """The log that a path leads to. `positions` are how far it was read, rotated files first.

    `from_end`: what is in a file when it is seen first was written before anybody watched it.
    `is_masked`: somebody writes over secrets in it, so other bytes do not make another file.
    `others` are tails of other paths, this one may be among them: a file that one of them has read
    from is not begun anew when it is rotated to this path, nor read twice while both lead to it.
    """

    def __init__(
        self,
        path: Path,
        positions: tuple[Position, ...] = (),
        *,
        from_end: bool = False,
        is_masked: bool = False,
        others: Iterable[Tail] = (),
    ) -> None:
        self.path = path
        self._others = others
        self.trouble = ""
        """Why the file cannot be read, if it cannot."""
        self._known = positions
        self._from_end = from_end
        self._is_masked = is_masked
        self._former: list[_Stream] = []
        self._current: _Stream | None = None

    @property
    def positions(self) -> tuple[Position, ...]:
        """How far it was read: for the next who reads it."""
        return (*self._known, *(stream.position for stream in self._streams()))

    def close(self) -> None:
        """Close what is open; positions stay."""
        self._known = self.positions
        for stream in self._streams():
            stream.close()
        self._former.clear()
        self._current = None

    def read(self, now: float, *, last: bool = False) -> Iterator[Piece]:
        """Yield what was written since, in order. `now` is a monotonic time in seconds.

        Positions are behind a piece as soon as it is yielded. `last`: nothing more will be written.
        """
        self._look(now)
        for stream in list(self._former):
            yield from self._rest_of(stream, now)
        if self._current is not None:
            self._current.measure(now)
            while (piece := self._current.read(now, last=last)) is not None:
                yield piece

    def _rest_of(self, stream: _Stream, now: float) -> Iterator[Piece]:
        """Yield what was written to a file whose name leads elsewhere by now, or nowhere."""
        stream.measure(now)
        while (piece := stream.read(now)) is not None:
            yield piece
        if now - stream.grew_at >= _LINGER:
            # Its writer has gone on to another file.
            if (piece := stream.read(now, last=True)) is not None:
                yield piece
            self._former.remove(stream)
            stream.close()

    def _open(self, path: Path, now: float) -> _Stream:
        """Open what a path leads to, from its beginning. Raises OSError."""
        return _Stream(open_regular(path, linked=True), now, is_masked=self._is_masked)

    def _streams(self) -> list[_Stream]:
        return [*self._former, *([self._current] if self._current is not None else [])]

    def _look(self, now: float) -> None:
        """Open what the path leads to by now, if that is another file than before."""
        self.trouble = ""
        try:
            facts = self.path.stat()
            if self._current is not None and _same(self._current.position, facts):
                return
            if any(other.leads_to(facts) for other in self._others if other is not self):
                self._step_back(now)
                return
            stream = self._open(self.path, now)
        except FileNotFoundError:
            self._step_back(now)
        except OSError as error:
            self.trouble = error.strerror or str(error)
        else:
            self._take_up(stream, now)

    def _take_up(self, stream: _Stream, now: float) -> None:
        """Read on in a file that the path leads to by now."""
        self._step_back(now, stream)
        for other in self._others:
            if other is not self and (position := other.give(stream.position)) is not None:
                stream.position, self._from_end = position, False
        if not stream.position.offset and not self._from_end:
            copied = (other.copied_to(stream) for other in self._others if other is not self)
            stream.position.offset = max(copied, default=0)
        self._current = stream
        stream.measure(now)
        if self._from_end:
            stream.skip()
        self._from_end = False

    def leads_to(self, facts: os.stat_result) -> bool:
        """Say whether this path leads to a file, and it is read here."""
        if self._current is None or not _same(self._current.position, facts):
            return False
        try:
            return _same(self._current.position, self.path.stat())
        except OSError:
            return False

    def give(self, file: Position) -> Position | None:
        """Give up a file that another path leads to by now; return how far it was read."""
        for position in self._known:
            if _same_file(position, file):
                self._known = tuple(one for one in self._known if one is not position)
                return position
        for stream in self._streams():
            if _same_file(stream.position, file):
                if stream is self._current:
                    self._current = None
                else:
                    self._former.remove(stream)
                stream.close()
                return stream.position
        return None

    def copied_to(self, stream: _Stream) -> int:
        """Return up to where a file is a copy of what was read here, as `copytruncate` makes it."""
        former = [self._current.before_cut] if self._current is not None else []
        for position in (*self.positions, *former):
            if position is not None and len(position.mark) == _MARK and stream.holds(position):
                return position.offset
        return 0

    def _step_back(self, now: float, stream: _Stream | None = None) -> None:
        """Count what was read until now as former files, but for what `stream` goes on with."""
        if self._current is not None:
            # Another tail may be about to find it under its new name, however old it is.
            self._current.grew_at = now
            self._former.append(self._current)
            self._current = None
        if stream is None:
            if not self.path.parent.is_dir():
                return  # a disk that is not mounted now may come back
            self._from_end = False  # what comes later comes while it is watched
        known, self._known = self._known, ()
        for position in known:
            if stream is not None and _same_file(stream.position, position):
                stream.position, self._from_end = position, False
            elif (former := self._find(position, now)) is not None:
                self._former.append(former)
                self._from_end = False

    def _find(self, position: Position, now: float) -> _Stream | None:
        """Return a file that was read before, and that has another name by now."""
        with suppress(OSError), os.scandir(self.path.parent) as entries:
            for entry in islice(entries, _SIBLINGS):
                if entry.inode() == position.ino and entry.is_file(follow_symlinks=False):
                    stream = self._open(self.path.with_name(entry.name), now)
                    if _same_file(stream.position, position):
                        stream.position = position
                        return stream
                    stream.close()
        return None


def _same(position: Position, facts: os.stat_result) -> bool:
    return (position.dev, position.ino) == (facts.st_dev, facts.st_ino)


def _same_file(one: Position, other: Position) -> bool:
    return (one.dev, one.ino) == (other.dev, other.ino)
