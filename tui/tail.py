"""The end of a run's output, read without ever reading a whole file."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.growing import Standing
from engine.text import clean_text
from engine.transcripts.telling import WHO, tell
from engine.transcripts.transcript import Transcript
from tui.logs.file import LogFile

if TYPE_CHECKING:
    from pathlib import Path

    from engine.transcripts.transcript import Said

_BYTES = 64 * 1024
_LINES = 500
_ENTRIES = 100
_LONGEST = 1000
"""Characters of an entry's first line: all of them are laid out at once."""
_BLOCKS, _FAR = 2, 128
"""How many blocks of a transcript are read, and how far back for one in which something is said."""


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


def read_words(folder: Path, *, over: bool) -> Tail:
    """Return what the agent of a run said and did last; `over`: the run has ended.

    Never raises for a file's sake.
    """
    with closing(Transcript(folder, over=over, block=_BYTES)) as transcript:
        try:
            transcript.look()
            if transcript.standing is Standing.REFUSED:
                return Tail(error=transcript.trouble)
            said: list[Said] = []
            first = transcript.blocks
            # A line may go through many blocks, and none of them begins an entry.
            far = max(0, first - _FAR)
            while first > far and (transcript.blocks - first < _BLOCKS or not said):
                first -= 1
                said[:0] = transcript.block(first).said
        except OSError as error:
            return Tail(error=f"cannot read the transcript: {error.strerror}")
    told = [tell(one.entry) for one in said[-_ENTRIES:]]
    lines = tuple(f"{one.who:<{WHO}} {_first_line(one.text)}" for one in told)
    return Tail(lines, cut=first > 0 or len(said) > _ENTRIES)


def _first_line(text: str) -> str:
    return text[:_LONGEST].partition("\n")[0]


def _tail(file: LogFile) -> Tail:
    lines: list[str] = []
    start = file.size
    while start > max(0, file.size - _BYTES) and len(lines) < _LINES:
        start = file.start_of(start - 1)
        lines.append(file.piece(start).text)
    return Tail(tuple(reversed(lines)), cut=start > 0)
