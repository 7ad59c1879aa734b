"""One-line bars: pieces side by side, the least important ones going first when room is short."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from textual.message import Message

from tui.widgets.cells import Cell, Line, Painter, Tone, line_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.strip import Strip


class Piece(Struct, frozen=True):
    """A part of a bar. `name` is what a click on it means, empty for nothing.

    When room is short, pieces go in the order of `drop`, highest first; 0 stays for ever.
    """

    cells: Line
    name: str = ""
    drop: int = 0


class Bar(Painter):
    """Pieces on one line. It paints itself only when they have changed."""

    class Pressed(Message):
        """Somebody clicked on a piece that has a name."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    def __init__(self, *, gap: int = 2, id: str | None = None) -> None:  # noqa: A002 - Textual's own name for it
        super().__init__(id=id)
        self._gap = gap
        self._pieces: tuple[Piece, ...] = ()

    def put(self, pieces: Sequence[Piece]) -> None:
        """Show these pieces."""
        if tuple(pieces) != self._pieces:
            self._pieces = tuple(pieces)
            self.refresh()

    def _kept(self) -> list[Piece]:
        kept = list(self._pieces)

        def need() -> int:
            return sum(line_width(p.cells) for p in kept) + self._gap * max(0, len(kept) - 1)

        while need() > self.size.width - 2:
            losers = [piece for piece in kept if piece.drop]
            if not losers:
                break
            kept.remove(max(reversed(losers), key=lambda piece: piece.drop))
        return kept

    def render_line(self, y: int) -> Strip:
        """Paint the bar."""
        cells: list[Cell] = [(" ", Tone.TEXT)]
        for piece in self._kept() if y == 0 else ():
            cells += [*piece.cells, (" " * self._gap, Tone.TEXT)]
        return self.strip(cells, self.size.width)

    def on_click(self, event: events.Click) -> None:
        """Say which piece was clicked."""
        x = 1
        for piece in self._kept():
            width = line_width(piece.cells)
            if x <= event.x < x + width and piece.name:
                self.post_message(self.Pressed(piece.name))
            x += width + self._gap
