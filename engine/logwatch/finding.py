"""Which lines of a log tell of trouble: bytes in, lines out. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.patterns import line_search

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_TRACEBACK = b"Traceback (most recent call last)"


class Finder:
    """Finds lines that match one of `errors` and none of `ignore`, patterns of RE2."""

    def __init__(self, errors: Iterable[str], ignore: Iterable[str]) -> None:
        self._is_trouble = line_search(errors)
        self._is_harmless = line_search(ignore)

    def find(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Yield where each such line begins and ends in `data`, which begins with a line.

        The whole of `data` is searched at once: that costs a tenth of a search for each line.
        """
        if self._is_trouble is None:
            return
        at = 0
        while (hit := self._is_trouble(data, at)) is not None:
            # Found from `at` on, which is the beginning of a line.
            start = max(at, data.rfind(b"\n", at, hit) + 1)
            end = data.find(b"\n", hit)
            if end < 0:
                end = len(data)
            if self._is_harmless is None or self._is_harmless(data, start, end) is None:
                yield start, end
            at = end + 1
            if at >= len(data):
                return

    def following(self, data: bytes, at: int, most: int) -> Iterator[tuple[int, int]]:
        """Yield the lines from `at` on that belong to the one before: indented ones.

        And the one after those of a traceback, which says what it was. Not what is trouble itself.
        """
        if at >= len(data):
            return
        is_traceback = data.startswith(_TRACEBACK, data.rfind(b"\n", 0, at - 1) + 1)
        for _ in range(most):
            end = data.find(b"\n", at)
            end = len(data) if end < 0 else end
            is_indented = data[at : at + 1] in {b" ", b"\t"}
            if at >= len(data) or not (is_indented or is_traceback) or self._is_hit(data, at, end):
                return
            yield at, end
            at = end + 1
            is_traceback = is_traceback and is_indented

    def _is_hit(self, data: bytes, start: int, end: int) -> bool:
        return self._is_trouble is not None and self._is_trouble(data, start, end) is not None
