"""Finding text in a log, a slice at a time, so that nobody waits for it and it can be given up.

What is looked for is what one sees: clean text, a line at a time. A /regex/ goes to RE2, which
is linear in the text whatever the pattern; Python's own engine is not, and gets no user's pattern.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from engine.text import clean_text

if TYPE_CHECKING:
    from tui.logs.pieces import Pieces

SLICE = 512 * 1024
"""Bytes that a step looks through: about 10 ms where escape sequences have to be removed."""
_ESCAPED = re.compile(r"\\.", re.DOTALL)

Span = tuple[int, int]
"""Where a match begins and ends, in characters."""


class NeedleError(ValueError):
    """What is to be found cannot be read; the text says why."""


class Needle(Protocol):
    """What is looked for."""

    def first(self, text: str, start: int = 0) -> Span | None:
        """Return the first match that begins at `start` or later."""

    def last(self, text: str, before: int) -> Span | None:
        """Return the last match that begins before `before`."""

    def all(self, text: str, limit: int) -> list[Span]:
        """Return the first matches, at most `limit`; they do not overlap and are not empty."""


class PlainNeedle(Struct, frozen=True):
    """Text as it is; an upper-case letter in it makes case count."""

    text: str

    def first(self, text: str, start: int = 0) -> Span | None:
        """Return the first match that begins at `start` or later."""
        at = self._folded(text).find(self.text, start)
        return (at, at + len(self.text)) if at >= 0 else None

    def last(self, text: str, before: int) -> Span | None:
        """Return the last match that begins before `before`."""
        at = self._folded(text).rfind(self.text, 0, max(0, before - 1) + len(self.text))
        return (at, at + len(self.text)) if 0 <= at < before else None

    def all(self, text: str, limit: int) -> list[Span]:
        """Return the first matches, at most `limit`."""
        spans: list[Span] = []
        text = self._folded(text)
        at = text.find(self.text)
        while at >= 0 and len(spans) < limit:
            spans.append((at, at + len(self.text)))
            at = text.find(self.text, spans[-1][1])
        return spans

    def _folded(self, text: str) -> str:
        return _lower(text) if self.text == _lower(self.text) else text


class RegexNeedle:
    """A regular expression for RE2; an upper-case letter in it makes case count."""

    def __init__(self, pattern: str) -> None:
        try:
            import re2  # noqa: PLC0415 - only those who search with it wait for it
        except ImportError as error:
            raise NeedleError("regular expressions need the package google-re2") from error
        options = re2.Options()
        options.log_errors = False
        options.never_nl = True
        options.case_sensitive = (plain := _ESCAPED.sub("", pattern)) != plain.lower()
        try:
            self._regex = re2.compile(f"(?m){pattern}", options)
        except re2.error as error:
            reason = error.args[0] if error.args else "it is no regular expression"
            words = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
            raise NeedleError(clean_text(words)) from error

    def first(self, text: str, start: int = 0) -> Span | None:
        """Return the first match that begins at `start` or later; it may be empty."""
        found = self._regex.search(text, start)
        return (found.start(), found.end()) if found is not None else None

    def last(self, text: str, before: int) -> Span | None:
        """Return the last match that begins before `before`; those before it do not overlap it."""
        last: Span | None = None
        for found in self._regex.finditer(text):
            if found.start() >= before:
                break
            last = found.start(), found.end()
        return last

    def all(self, text: str, limit: int) -> list[Span]:
        """Return the first matches that are not empty, at most `limit`."""
        spans: list[Span] = []
        for found in self._regex.finditer(text):
            if found.start() < found.end():
                spans.append((found.start(), found.end()))
            if len(spans) >= limit:
                break
        return spans


def parse_needle(text: str) -> Needle | None:
    """Read what a user typed: text, or `/regex/`; None for nothing.

    Raises:
        NeedleError: a regular expression that RE2 does not take.

    """
    text = clean_text(text)
    if len(text) > 2 and text.startswith("/") and text.endswith("/"):
        return RegexNeedle(text[1:-1])
    return PlainNeedle(text) if text else None


def _lower(text: str) -> str:
    # One character for one: the places of matches must hold for the text as it is.
    return text.replace("\u0130", "i").lower()


class Spot(Struct, frozen=True):
    """A place in a log: the piece that begins at byte `start`, and a character of its text."""

    start: int
    index: int
    length: int = 0


TOP = Spot(0, -1)
"""Before everything."""


class Search:
    """Looks from a spot to the end, then from the top to the spot; or backwards.

    `step` goes on by one slice. After that `done` says whether it is over, `found` where the
    match is, `wrapped` whether the search went past the end (or the top) for it.
    """

    def __init__(
        self, needle: Needle, origin: Spot, *, forward: bool = True, inclusive: bool = False
    ) -> None:
        self.needle = needle
        self.origin = origin
        self.forward = forward
        self.done = False
        self.found: Spot | None = None
        self.wrapped = False
        self._inclusive = inclusive
        self._at: int | None = None
        self._seen = 0

    def share(self, size: int) -> float:
        """Return how much of the log was looked through, 0 to 1."""
        return min(1.0, self._seen / size) if size else 1.0

    def step(self, file: Pieces, limit: int = SLICE) -> None:
        """Look through about `limit` bytes more."""
        edge = file.end_of(file.start_of(self.origin.start)) if file.size else 0
        if self._at is None:
            self._at = file.start_of(self.origin.start) if self.forward else edge
        if self.forward:
            self._forward(file, self._at, limit, edge)
        else:
            self._backward(file, self._at, limit)

    # Both go over the origin's own piece twice: once for what is past the origin, and once at the
    # very end for what is before it.

    def _forward(self, file: Pieces, at: int, limit: int, edge: int) -> None:
        stop = edge if self.wrapped else file.size
        if at >= stop:
            self._turn(0)
            return
        end = file.start_of(at + limit) if at + limit < stop else stop
        end = end if end > at else file.end_of(at)
        for start, upto, text in file.texts(at, end):
            after = 0
            if start == self.origin.start and not self.wrapped:
                after = max(0, self.origin.index + (0 if self._inclusive else 1))
            if after <= len(text) and (span := self.needle.first(text, after)) is not None:
                self._hit(file, start, upto, text, span)
                return
        self._seen += end - at
        self._at = end

    def _backward(self, file: Pieces, at: int, limit: int) -> None:
        stop = self.origin.start if self.wrapped else 0
        if at <= stop:
            self._turn(file.size)
            return
        begin = max(stop, file.start_of(at - limit) if at > limit else 0)
        for start, upto, text in reversed(file.texts(begin, at)):
            if self.needle.first(text) is None:
                continue
            span = self._last(file, start, upto, text)
            if span is not None:
                self._hit(file, start, upto, text, span)
                return
        self._seen += at - begin
        self._at = begin

    def _last(self, file: Pieces, start: int, upto: int, text: str) -> Span | None:
        # Line by line from the end: where matches are many, the first line has one.
        holds_origin = not self.wrapped and start <= self.origin.start < upto
        end = len(text)
        while end >= 0:
            begin = text.rfind("\n", 0, end) + 1
            line = text[begin:end]
            before = len(line) + 1
            if holds_origin and _piece_start(file, start, upto, text, begin) == self.origin.start:
                before = self.origin.index
                holds_origin = False
            if (span := self.needle.last(line, before)) is not None:
                return begin + span[0], begin + span[1]
            end = begin - 1
        return None

    def _turn(self, at: int) -> None:
        if self.wrapped:
            self.done = True
        self.wrapped = True
        self._at = at

    def _hit(self, file: Pieces, start: int, upto: int, text: str, span: Span) -> None:
        begin = text.rfind("\n", 0, span[0]) + 1
        at = _piece_start(file, start, upto, text, begin)
        self.found = Spot(at, span[0] - begin, span[1] - span[0])
        self.done = True


def _piece_start(file: Pieces, start: int, upto: int, text: str, begin: int) -> int:
    """Return where the piece begins whose text begins at `begin` of the run's text."""
    lines = text.count("\n", 0, begin)
    data = file.bytes(start, upto)
    at = 0
    for _ in range(lines):
        at = data.find(b"\n", at) + 1
    return start + at
