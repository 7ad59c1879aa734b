"""Draws and prints: aligned tables, a little colour on a terminal, JSON. Knows no task.

On a terminal a table is fitted to its width by cutting ids in the middle; in a pipe nothing is
cut, coloured or wrapped. Everything printed is cleaned here (DESIGN §4.6).
"""

from __future__ import annotations

import os
import select
import shutil
import sys
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.shapes import as_json
from engine.text import ELLIPSIS, cells, clean_text, cut_middle

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.errors import Code

GAP = 2
_SGR = {
    "accent": "36",
    "dim": "2",
    "good": "32",
    "bad": "31",
    "human": "33",
    "stale": "38;5;208",
    "bold": "1",
}


class OutputClosedError(Exception):
    """Whoever read our output has gone; there is nobody left to tell."""


class Cell(Struct, frozen=True):
    """A piece of text and the meaning of its colour: a key of the palette, or empty."""

    text: str
    style: str = ""


class Column(Struct, frozen=True):
    """A column of a table.

    Where the terminal is too narrow, columns shrink in order of `yields`, the highest first,
    each down to `least` cells; 0 never shrinks. A `sentence` loses its end, an id its middle.
    Where even that is not enough, columns are left out in order of `drops`; 0 always stays.
    """

    title: str
    right: bool = False
    yields: int = 0
    least: int = 10
    sentence: bool = False
    drops: int = 0


def table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[Cell | str]],
    *,
    width: int | None = None,
    colour: bool = False,
) -> list[str]:
    """Return the lines of an aligned table, its header first.

    `width` is that of the terminal in cells; None cuts nothing. No line ends in spaces.
    """
    grid = [[Cell(column.title, "bold") for column in columns]]
    grid += [[_cleaned(cell) for cell in row] for row in rows]
    sizes = [max(cells(row[at].text) for row in grid) for at in range(len(columns))]
    kept = list(range(len(columns)))
    if width is not None:
        # A person misses no empty column; a program that reads a pipe counts on every one.
        kept = [at for at in kept if not columns[at].drops or any(row[at].text for row in grid[1:])]
        _drop(columns, sizes, kept, width)
        _shrink(columns, sizes, kept, width)
    return [_line(columns, sizes, kept, row, colour=colour) for row in grid]


def paint(text: str, style: str, *, colour: bool) -> str:
    """Return `text`, which must be clean, in the colour of a meaning."""
    return f"\x1b[{_SGR[style]}m{text}\x1b[0m" if colour and style and text else text


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[Cell | str]]) -> None:
    """Print a table as fits where it goes."""
    on_terminal = is_terminal()
    width = shutil.get_terminal_size().columns if on_terminal else None
    say_raw("\n".join(table(columns, rows, width=width, colour=use_colour())))


def say(text: str) -> None:
    """Print text for people, cleaned, lines kept."""
    say_raw(clean_text(text, newlines=True))


def heading(text: str) -> None:
    """Print the title of what follows, set off by an empty line."""
    say_raw(f"\n{paint(clean_text(text), 'bold', colour=use_colour())}")


def say_raw(text: str) -> None:
    """Print text that is clean already, and flush: a reader of a pipe sees it at once.

    Raises:
        OutputClosedError: the reader has gone.

    """
    try:
        print(text, flush=True)
    except BrokenPipeError as error:
        raise OutputClosedError from error


def say_json(value: Any) -> None:
    """Print one JSON value on one line."""
    say_raw(as_json(value))


def say_json_list(values: Iterable[Any]) -> None:
    """Print a JSON list with one element a line, so that line tools can work on it too."""
    body = ",\n".join(as_json(value) for value in values)
    say_raw(f"[\n{body}\n]" if body else "[]")


def complain(code: Code, sentence: str) -> None:
    """Say on stderr what was refused or failed: `agentmux: CODE: sentence`."""
    print(f"agentmux: {code}: {clean_text(sentence, newlines=True)}", file=sys.stderr, flush=True)


def hint(text: str) -> None:
    """Say something on stderr that is no result and no failure."""
    print(clean_text(text, newlines=True), file=sys.stderr, flush=True)


def check_reader() -> None:
    """Raise OutputClosedError if whoever read stdout has gone."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        gone = any(found & (select.POLLERR | select.POLLNVAL) for _, found in poll.poll(0))
    except (OSError, ValueError):  # no file behind it: nobody who could go
        return
    if gone:
        raise OutputClosedError


def is_terminal() -> bool:
    """Say whether a person reads stdout."""
    return sys.stdout.isatty()


def use_colour() -> bool:
    """Say whether stdout takes colour: a terminal, and no NO_COLOR (see no-color.org)."""
    dumb = os.environ.get("TERM") == "dumb" or bool(os.environ.get("NO_COLOR"))
    return is_terminal() and not dumb


def _cleaned(cell: Cell | str) -> Cell:
    if isinstance(cell, str):
        return Cell(clean_text(cell))
    return Cell(clean_text(cell.text), cell.style)


def _least(column: Column, size: int) -> int:
    return min(size, max(column.least, cells(column.title))) if column.yields else size


def _drop(columns: Sequence[Column], sizes: Sequence[int], kept: list[int], width: int) -> None:
    for at in sorted(kept, key=lambda at: -columns[at].drops):
        needed = sum(_least(columns[one], sizes[one]) for one in kept) + GAP * (len(kept) - 1)
        if needed <= width or not columns[at].drops:
            return
        kept.remove(at)


def _shrink(columns: Sequence[Column], sizes: list[int], kept: Sequence[int], width: int) -> None:
    excess = sum(sizes[at] for at in kept) + GAP * (len(kept) - 1) - width
    for at in sorted(kept, key=lambda at: -columns[at].yields):
        if excess <= 0:
            return
        taken = min(excess, sizes[at] - _least(columns[at], sizes[at]))
        sizes[at] -= taken
        excess -= taken


def _line(
    columns: Sequence[Column],
    sizes: Sequence[int],
    kept: Sequence[int],
    row: Sequence[Cell],
    *,
    colour: bool,
) -> str:
    parts: list[str] = []
    used = wanted = 0
    for at in kept:
        size, cell = sizes[at], row[at]
        text = _cut_end(cell.text, size) if columns[at].sentence else cut_middle(cell.text, size)
        # Padding is written only before text, so that a line never ends in spaces.
        lead = wanted - used + (size - cells(text) if columns[at].right else 0)
        wanted += size + GAP
        if text:
            parts.append(" " * lead + paint(text, cell.style, colour=colour))
            used += lead + cells(text)
    return "".join(parts)


def _cut_end(text: str, width: int) -> str:
    if cells(text) <= width:
        return text
    while text and cells(text) > width - 1:
        text = text[:-1]
    return text + ELLIPSIS
