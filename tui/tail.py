"""The end of a run's output files, read without ever reading a whole file."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.text import clean_text
from tui.logs.file import LogFile, Standing

if TYPE_CHECKING:
    from pathlib import Path

_BYTES = 64 * 1024
_LINES = 500


class Tail(Struct, frozen=True):
    """The last lines of a file, clean. `cut` says that there is more before them.

    `error` is why the file could not be read; a file that is not there yet has no lines.
    """

    lines: tuple[str, ...] = ()
    cut: bool = False
    error: str = ""


def read_tail(path: Path) -> Tail:
    """Return the last lines of `path`, about 64 KiB of it. Never raises for a file's sake."""
    with closing(LogFile(path, block=_BYTES)) as file:
        try:
            file.look()
            if file.standing is Standing.REFUSED:
                return Tail(error=file.trouble)
            return _tail(file)
        except OSError as error:
            return Tail(error=f"cannot read {clean_text(path.name)}: {error.strerror}")


def _tail(file: LogFile) -> Tail:
    lines: list[str] = []
    start = file.size
    while start > max(0, file.size - _BYTES) and len(lines) < _LINES:
        start = file.start_of(start - 1)
        lines.append(file.piece(start).text)
    return Tail(tuple(reversed(lines)), cut=start > 0)
