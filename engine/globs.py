"""Which paths a glob names. Blocks: it is for a thread."""

from __future__ import annotations

import glob
import os
from itertools import dropwhile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEEP = "**"


def is_glob(path: str) -> bool:
    """Say whether a path is a glob, and not the name of one file."""
    return glob.has_magic(path)


def named_by(pattern: str) -> Iterator[str]:
    """Yield the paths that a glob names, some perhaps twice; hidden ones only where it says so.

    As `glob` has it, but that `**` follows no links to folders: of those that lead in circles the
    paths double with each turn.
    """
    parts = Path(pattern).parts
    if _DEEP not in parts:
        yield from glob.iglob(pattern)  # noqa: PTH207 - a pattern is no path
        return
    at = parts.index(_DEEP)
    # One after another they say no more than one.
    below = Path(*dropwhile(_DEEP.__eq__, parts[at:])).parts or ("*",)
    for root in glob.iglob(str(Path(*parts[:at]))):  # noqa: PTH207
        for folder, folders, _ in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from named_by(str(Path(glob.escape(folder), *below)))
