"""Lines made of toned cells, painted without markup. The ground of every widget here.

Knows how wide a cell is and which style a tone has; knows nothing of what the text says.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, chop_cells, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.strip import Strip
from textual.widget import Widget

from engine.text import cut_middle

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Tone(StrEnum):
    """A meaning that has a colour: its value is the theme variable that says which."""

    TEXT = "ready"
    DIM = "waiting"
    BOLD = "ready bold"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    HUMAN = "human"
    STALE = "stale"
    RULE = "rule"
    OFF = "off"


Cell = tuple[str, Tone]
"""Clean text and its tone."""
Line = tuple[Cell, ...]
CURSOR = "row-cursor"
"""The theme variable of the ground where the cursor is."""


def cut_end(text: str, width: int) -> str:
    """Return `text` in at most `width` cells, its end replaced by `…` if it is longer."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…" if width > 0 else ""


def fitted(text: str, width: int, *, right: bool = False, middle: bool = False) -> str:
    """Return `text` in exactly `width` cells."""
    if text.isascii() and len(text) <= width:  # nearly all, many times a second
        return text.rjust(width) if right else text.ljust(width)
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
        # In one go: cutting one piece after the other off costs the square of the length.
        *full, line = chop_cells(word, width) if cell_len(word) > width > 1 else [word]
        lines += full
    return [*lines, line]


class Painter(Widget):
    """A widget that paints toned cells. Subclasses give `render_line`.

    Colours come straight from the theme's variables: a component class for each tone would have
    every stylesheet rule matched against every tone of every widget at each update.
    """

    ALLOW_SELECT = False

    def __init__(self, *children: Widget, **more: Any) -> None:
        super().__init__(*children, **more)  # a mix-in passes on what is meant for the others
        self._styles_of: dict[tuple[Tone, str], Style] = {}

    def tone(self, tone: Tone, under: str = "") -> Style:
        """Return the style of a tone on the widget's ground, or on that of variable `under`."""
        style = self._styles_of.get((tone, under))
        if style is None:
            variables = self.app.theme_variables
            name, _, bold = tone.partition(" ")
            colour = Color.parse(variables[name]).rich_color
            ground = Color.parse(variables[under]).rich_color if under else None
            style = self.rich_style + Style(color=colour, bgcolor=ground, bold=bool(bold) or None)
            if under == CURSOR and self.app.native_ansi_color:
                # None of 16 colours, and certainly no colour at all, is a ground for the others.
                style += Style(color="default", bgcolor="default", reverse=True)
            self._styles_of[tone, under] = style
        return style

    def strip(self, cells: Sequence[Cell], width: int, under: str = "") -> Strip:
        """Paint cells from the left, cut or filled to `width`."""
        segments = [Segment(text, self.tone(tone, under)) for text, tone in cells if text]
        return Strip(segments).adjust_cell_length(width, self.tone(Tone.TEXT, under))

    def sync_scrollbar(self) -> None:
        """Put the scrollbar where the text is: one that has only just appeared does not know."""
        if self.show_vertical_scrollbar:
            self.vertical_scrollbar.position = self.scroll_y

    def notify_style_update(self) -> None:
        """Forget the old colours."""
        super().notify_style_update()
        self._styles_of.clear()
