"""Where clean text is broken into rows of cells, and what of it a window of cells shows. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import get_character_cell_size

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDENS = "\ufe0f"
"""Shows the character before it as a picture, which may take one cell more."""


def cells_of(char: str) -> int:
    """Return the most cells that a character takes."""
    return 1 if char == _WIDENS else get_character_cell_size(char)


def span_cells(text: str) -> int:
    """Return the most cells that `text` takes."""
    return len(text) if text.isascii() else sum(map(cells_of, text))


def row_starts(text: str, width: int) -> Sequence[int]:
    """Return where the rows begin if `text` is broken after `width` cells; at least one row."""
    if text.isascii():
        return range(0, max(1, len(text)), width)
    starts = [0]
    used = 0
    for index, char in enumerate(text):
        cells = cells_of(char)
        if used + cells > width:
            starts.append(index)
            used = 0
        used += cells
    return starts


def window(text: str, column: int, width: int) -> tuple[int, int, str]:
    """Return the part of `text` in `width` cells from `column` on: its begin, its end, a padding.

    A wide character that the window would halve is left out; at the left, the padding stands in.
    """
    if text.isascii():
        begin = min(column, len(text))
        return begin, min(len(text), begin + width), ""
    begin = used = 0
    while begin < len(text) and used < column:
        used += cells_of(text[begin])
        begin += 1
    pad = " " * min(used - column, width) if used > column else ""
    end, used = begin, len(pad)
    while end < len(text) and (used := used + cells_of(text[end])) <= width:
        end += 1
    return begin, end, pad
