"""Where clean text is broken into rows of a width: after words where it can, at its lines. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.text import cells

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def rows_of(
    text: str, width: int, *, measure: Callable[[str], int] = cells, start: int = 0
) -> Iterator[tuple[int, int]]:
    """Yield where each row of `text` begins and ends, in characters; at least one row.

    `measure` says how many cells a text takes. A line end belongs to no row; a space at which a
    line is broken stays at the end of its row, and may stand beyond its width.
    """
    while start <= len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield from _broken(text, start, end, max(1, width), measure)
        start = end + 1


def _broken(
    text: str, start: int, end: int, width: int, measure: Callable[[str], int]
) -> Iterator[tuple[int, int]]:
    while True:
        upto = _fitting(text, start, end, width, measure)
        if upto >= end:
            yield start, end
            return
        if text[upto] == " ":
            upto += 1
        elif (space := text.rfind(" ", start, upto)) > start:
            upto = space + 1
        yield start, upto
        start = upto
        if start >= end:
            return


def _fitting(text: str, start: int, end: int, width: int, measure: Callable[[str], int]) -> int:
    """Return up to where the text fits into the width: a character at least."""
    piece = text[start : min(end, start + width)]
    if piece.isascii():
        return start + len(piece)
    used = 0
    # What takes no cell goes with what is before it, however much of it there is.
    for index in range(start, end):
        used += measure(text[index])
        if used > width:
            return max(index, start + 1)
    return end
