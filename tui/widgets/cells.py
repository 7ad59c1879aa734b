"""Lines made of toned cells, painted without markup. The ground of every widget here.

Knows how wide a cell is and which style a tone has; knows nothing of what the text says.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from engine.text import cut_middle

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.style import Style


class Tone(StrEnum):
    """A meaning that has a colour. The stylesheet maps `tone-…` classes to the theme."""

    TEXT = "tone-text"
    DIM = "tone-dim"
    BOLD = "tone-bold"
    RUNNING = "tone-running"
    DONE = "tone-done"
    FAILED = "tone-failed"
    HUMAN = "tone-human"
    STALE = "tone-stale"
    RULE = "tone-rule"
    OFF = "tone-off"


TONES = {str(tone) for tone in Tone}

Cell = tuple[str, Tone]
"""Clean text and its tone."""
Line = tuple[Cell, ...]


def cut_end(text: str, width: int) -> str:
    """Return `text` in at most `width` cells, its end replaced by `…` if it is longer."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…" if width > 0 else ""


def fitted(text: str, width: int, *, right: bool = False, middle: bool = False) -> str:
    """Return `text` in exactly `width` cells."""
    short = cut_middle(text, width) if middle else cut_end(text, width)
    if right and (room := width - cell_len(short)) > 0:
        short = " " * room + short
    return set_cell_size(short, width)


def line_width(line: Iterable[Cell]) -> int:
    """Return how many cells a line takes."""
    return sum(cell_len(text) for text, _ in line)


def wrapped(text: str, width: int) -> list[str]:
    """Break clean text into lines of at most `width` cells, between words where it can."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        candidate = f"{line} {word}" if line else word
        if cell_len(candidate) <= width:
            line = candidate
            continue
        if line:
            lines.append(line)
        while cell_len(word) > width > 1:
            head = set_cell_size(word, width).rstrip()
            lines.append(head)
            word = word[len(head) :]  # noqa: PLW2901 - what is left of this word
        line = word
    return [*lines, line]


class Painter(Widget):
    """A widget that paints toned cells. Subclasses give `render_line`."""

    COMPONENT_CLASSES = TONES
    ALLOW_SELECT = False

    def tone(self, tone: Tone, under: str = "") -> Style:
        """Return the style of a tone, on the widget's ground or on that of class `under`."""
        style = self.rich_style + self.get_component_rich_style(tone, partial=True)
        if under:
            style += self.get_component_rich_style(under, partial=True)
        return style

    def strip(self, cells: Sequence[Cell], width: int, under: str = "") -> Strip:
        """Paint cells from the left, cut or filled to `width`."""
        segments = [Segment(text, self.tone(tone, under)) for text, tone in cells if text]
        return Strip(segments).adjust_cell_length(width, self.tone(Tone.TEXT, under))
