"""Notices that the DAG file has changed on disk. Reads it only when its stat says so."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from pathlib import Path

MOST = 256 * 1024 * 1024
"""Bytes of a file that are compared; a larger one counts as changed when its stat changes."""


class Seen(Struct, frozen=True):
    """A file as it was. `digest` is empty for one that could not be read."""

    mtime: int
    size: int
    inode: int
    digest: bytes = b""


class DagFile:
    """Compares a file with what it was when it was last taken for known.

    Blocking: for a thread.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = _look(path, None)
        self._last = self._known

    def changed(self) -> bool:
        """Say whether what is in the file now differs from what is known."""
        self._last = _look(self.path, self._last)
        if self._last is None or self._known is None:
            # Gone for a moment, as editors do it; or it was never there to be compared with.
            return self._last is not None
        return self._last.digest != self._known.digest

    def know(self) -> None:
        """Take the file as it is for known: it was read."""
        self._known = self._last = _look(self.path, self._last)


def _look(path: Path, before: Seen | None) -> Seen | None:
    try:
        stat = path.stat()
        facts = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if before is not None and facts == (before.mtime, before.size, before.inode):
            return before
        if stat.st_size > MOST:
            return Seen(*facts, digest=repr(facts).encode())
        with path.open("rb") as file:
            return Seen(*facts, digest=hashlib.file_digest(file, "blake2b").digest())
    except OSError:
        return None
