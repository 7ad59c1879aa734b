"""Lines of a log as text to copy: clean, whole, and not more than a terminal takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from tui.logs.pieces import Pieces

COPY_LIMIT = 1024 * 1024
"""Bytes that are copied at most: a terminal that takes more is rare."""


class Copied(Struct, frozen=True):
    """Text to copy, how many lines it is, and whether there was more than is copied."""

    text: str
    lines: int
    cut: bool


def copied(file: Pieces, first: int, last: int, limit: int = COPY_LIMIT) -> Copied:
    """Return the lines that the pieces from `first` to `last` belong to, at most `limit` bytes."""
    if not file.size:
        return Copied("", 0, cut=False)
    floor = max(0, first - limit)
    while first > floor and not file.piece(first).begins:
        first = file.start_of(first - 1)
    end = file.piece(last).end
    while end - first <= limit and end < file.size and not file.piece(last).ends:
        last, end = end, file.end_of(end)
    cut = end - first > limit
    if cut:
        end = max(file.start_of(first + limit), file.end_of(first))
    parts = []
    for _, upto, text in file.texts(first, end):
        whole = upto < end and file.bytes(upto - 1, upto) == b"\n"
        parts.append(text + "\n" if whole else text)
    text = "".join(parts)
    return Copied(text, text.count("\n") + 1, cut)
