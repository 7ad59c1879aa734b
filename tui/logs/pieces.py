"""What a text of any size is made of: pieces, each found from any place in it. No I/O in here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from engine.growing import News, Standing


class Piece(Struct, frozen=True):
    """A line or a part of one: bytes `start` to `end`, with the line end.

    `begins` and `ends` say whether the line does so here; the last one of a file may not end.
    """

    start: int
    end: int
    text: str
    begins: bool = True
    ends: bool = True


class Pieces(Protocol):
    """A file as its pieces: all that rows, viewports and searches need of it.

    A place is a byte of the file. Whatever it is in, a piece is found from it alone.
    """

    @property
    def size(self) -> int:
        """How many bytes there are."""

    @property
    def standing(self) -> Standing:
        """What became of the file."""

    @property
    def trouble(self) -> str:
        """Why the file cannot be read, if it cannot."""

    @property
    def counted(self) -> bool:
        """Whether all that is found out in the background is known."""

    @property
    def lines(self) -> int | None:
        """How many lines there are, or entries; None if not counted yet."""

    def look(self) -> News:
        """Look at the file again."""

    def close(self) -> None:
        """Close the file."""

    def count_more(self, blocks: int) -> bool:
        """Go on in the background; False if these bytes are not there any more."""

    def number_of(self, start: int) -> int | None:
        """Return the number of the line, or entry, that `start` is in, from 1.

        None if not counted yet.
        """

    def bytes(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` to `end`; fewer if the file was cut meanwhile."""

    def start_of(self, place: int) -> int:
        """Return where the piece begins that byte `place` is in; the last one past the end."""

    def end_of(self, start: int) -> int:
        """Return where the piece ends that begins at `start`: where the next one begins."""

    def piece(self, start: int) -> Piece:
        """Return the piece that begins at `start`."""

    def texts(self, start: int, end: int) -> list[tuple[int, int, str]]:
        """Return the text of whole pieces as runs: where each begins and ends, its lines."""
