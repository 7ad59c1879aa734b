"""The log that a name leads to, read on across rotations and restarts.

The name may lead to another file meanwhile (rotated), to the same one with less in it or with other
bytes there (cut and written anew), or to none: what is left of the former file is read first, for
as long as anybody writes to it, then the new one from its beginning. What was copied before a cut
is read from the copy.

Everything here reads the disk: it is for a thread, and for one at a time.
"""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from engine.files import open_regular
from engine.logwatch.stream import MARK, Position, Stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from engine.logwatch.stream import Piece

_LINGER = 30.0
"""Seconds for which a file is read on whose name leads to another one by now, and for which nobody
must have written to it then: a program writes to the old one until it is told of the rotation."""
_SIBLINGS = 10_000
"""Files of a folder at most among which a rotated one is looked for."""


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
        self._former: list[Stream] = []
        self._current: Stream | None = None

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
        self._measure(now)
        for stream in list(self._former):
            yield from self._rest_of(stream, now)
        if self._current is not None:
            while (piece := self._current.read(now, last=last)) is not None:
                yield piece

    def _rest_of(self, stream: Stream, now: float) -> Iterator[Piece]:
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

    def _open(self, path: Path, now: float) -> Stream:
        """Open what a path leads to, from its beginning. Raises OSError."""
        return Stream(open_regular(path, linked=True), now, is_masked=self._is_masked)

    def _streams(self) -> list[Stream]:
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

    def _take_up(self, stream: Stream, now: float) -> None:
        """Read on in a file that the path leads to by now."""
        self._step_back(now, stream)
        for other in self._others:
            if other is not self and (position := other.give(stream.position)) is not None:
                stream.position, self._from_end = position, False
        if not stream.position.offset and not self._from_end:
            self._skip_copied(stream)
        self._current = stream
        self._measure(now)
        if self._from_end:
            stream.skip()
        self._from_end = False

    def _measure(self, now: float) -> None:
        """Look how large the file is. If it was cut, what was not read until then may be a copy."""
        if self._current is None or not self._current.measure(now):
            return
        self._skip_copied(self._current)
        if (copy := self._copy(self._current, now)) is not None:
            self._former.append(copy)

    def _skip_copied(self, stream: Stream) -> None:
        """Go on, in a file that begins anew, from where it is no copy of what was read already."""
        others = (other for other in self._others if other is not self)
        copied = [at for other in others if (at := other.copied_to(stream)) is not None]
        if copied:
            stream.go_on(max(copied, key=lambda at: at.offset))

    def _copy(self, cut: Stream, now: float) -> Stream | None:
        """Return the copy that was made of a file before it was cut, if nobody else reads that."""
        at = cut.before_cut
        if at is None or len(at.mark) < MARK:
            return None
        for path, facts in self._siblings():
            if facts.st_size <= at.offset or _same(at, facts):
                continue
            if any(other.leads_to(facts) for other in self._others):
                continue
            with suppress(OSError):
                stream = self._open(path, now)
                if stream.holds(at):
                    stream.go_on(at)
                    return stream
                stream.close()
        return None

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

    def copied_to(self, stream: Stream) -> Position | None:
        """Return up to where a file is a copy of what was read here, as `copytruncate` makes it."""
        former = [self._current.before_cut] if self._current is not None else []
        for position in (*self.positions, *former):
            if position is not None and len(position.mark) == MARK and stream.holds(position):
                return position
        return None

    def _step_back(self, now: float, stream: Stream | None = None) -> None:
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

    def _find(self, position: Position, now: float) -> Stream | None:
        """Return a file that was read before, and that has another name by now."""
        for path, facts in self._siblings():
            if not _same(position, facts):
                continue
            with suppress(OSError):
                stream = self._open(path, now)
                if _same_file(stream.position, position):
                    stream.position = position
                    return stream
                stream.close()
        return None

    def _siblings(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield the files beside this one."""
        with suppress(OSError), os.scandir(self.path.parent) as entries:
            for entry in islice(entries, _SIBLINGS):
                with suppress(OSError):
                    if entry.is_file(follow_symlinks=False):
                        yield self.path.with_name(entry.name), entry.stat(follow_symlinks=False)


def _same(position: Position, facts: os.stat_result) -> bool:
    return (position.dev, position.ino) == (facts.st_dev, facts.st_ino)


def _same_file(one: Position, other: Position) -> bool:
    return (one.dev, one.ino) == (other.dev, other.ino)
