"""Which logs the settings name: files, and what globs find. Blocks: it is for a thread."""

from __future__ import annotations

import os
import resource
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.files import shown_path
from engine.globs import is_glob, named_by

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST = 2000
"""Files at most that are watched; each is looked at every other second."""
_SHARE = 4
"""That part of the files which a process may have open at once may be logs: runs need the rest."""


class NamedLog(Struct, frozen=True):
    """A log, and the pattern of the settings that names it. `source` is its name in the store."""

    source: str
    path: Path
    label: str
    pattern: str


class Discovery(Struct, frozen=True):
    """What the settings name now. `folders` are where it may change, `deep` those with all in them.

    `more`: further files that are not watched, for there are too many. `unnamed`: those whose name
    is no UTF-8, so that nothing can be noted of them.
    """

    logs: tuple[NamedLog, ...]
    folders: frozenset[Path]
    deep: frozenset[Path]
    more: int
    unnamed: int


def most_at_once() -> int:
    """Return how many logs may be open at once: each that is watched is."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else min(_MOST, soft // _SHARE)


def discover(patterns: Iterable[str], project: Path, most: int) -> Discovery:
    """Find the logs that files and globs name, from the project's folder on: at most so many."""
    logs: dict[str, NamedLog] = {}
    folders: set[Path] = set()
    deep: set[Path] = set()
    more = unnamed = 0
    for pattern in patterns:
        wanted = os.path.join(project, os.path.expanduser(pattern))  # noqa: PTH111, PTH118
        if not is_glob(wanted):
            found = [wanted]
            folders.add(_there(Path(wanted).parent))
        else:
            (deep if "**" in pattern else folders).add(_there(_root(wanted)))
            # One more than can be watched, to say so.
            found = sorted(islice(named_by(wanted), most * 10))
        for name in found:
            path = Path(os.path.normpath(name))
            source = f"file:{path}"
            if source in logs or (found != [wanted] and path.is_dir()):
                continue
            if not _is_text(name):
                unnamed += 1
                continue
            if len(logs) >= most:
                more += 1
                continue
            folders.add(_there(path.parent))
            logs[source] = NamedLog(source, path, shown_path(path, project), pattern)
    named = tuple(logs.values())
    return Discovery(named, frozenset(folders - deep), frozenset(deep), more, unnamed)


def _root(pattern: str) -> Path:
    """Return the folder below which a glob looks."""
    parts = Path(pattern).parts
    plain = next(index for index, part in enumerate(parts) if is_glob(part))
    return Path(*parts[:plain])


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _there(folder: Path) -> Path:
    """Return the folder, or the one above it that is there: where it would appear."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder
