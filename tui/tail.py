"""The end of a run's output files, read without ever reading a whole file."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from engine.text import clean_text

if TYPE_CHECKING:
    from pathlib import Path

_BYTES = 64 * 1024
_LINES = 500


@dataclass(frozen=True, slots=True)
class Tail:
    """The last lines of a file, clean. `cut` says that there is more before them.

    `error` is why the file could not be read; a file that is not there yet has no lines.
    """

    lines: tuple[str, ...] = ()
    cut: bool = False
    error: str = ""


def _regular(path: Path) -> BinaryIO:
    """Open a file that is one: a run may have put a pipe, or a link out of its folder, there."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    file = os.fdopen(fd, "rb")
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return file


def read_tail(path: Path) -> Tail:
    """Return the last lines of `path`, at most 64 KiB of it. Never raises for a file's sake."""
    try:
        with _regular(path) as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - _BYTES)
            file.seek(start)
            data = file.read(_BYTES)
    except FileNotFoundError:
        return Tail()
    except OSError as error:
        return Tail(error=f"cannot read {clean_text(str(path))}: {error.strerror}")
    lines = data.decode(errors="replace").split("\n")
    if start:
        lines = lines[1:] or lines  # the first is a part of one
    if lines and not lines[-1]:
        lines.pop()
    kept = lines[-_LINES:]
    # A carriage return rewinds its line: progress bars show their last state, as in a terminal.
    shown = (clean_text(line.rstrip("\r").rsplit("\r", 1)[-1]) for line in kept)
    return Tail(tuple(shown), cut=bool(start) or len(kept) < len(lines))
