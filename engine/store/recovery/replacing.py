"""A new database in the place of another: made beside it, and put there in one step or not at all.

A crash at any moment leaves either what was there before or the new one, never one with the
-wal file of the other, which SQLite would take for its own:

1. the new one is made as a draft, checked, made durable, and only then called READY;
2. the old file is moved aside, its -wal and -shm after it, and that is made durable;
3. READY gets the name of the database.

So a -wal without a database is nobody's, and READY without a database is what is missing there.
READY beside a database was not needed yet: whoever opens that decides anew.

All of it happens under the write lock. Everything may raise sqlite3.Error and OSError.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from engine.files import sync
from engine.store.database import create_schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.files import Layout
    from engine.quarantine import Aside

_BESIDE = ("-wal", "-shm", "-journal")
_DRAFTS = ".tasks.db.rebuild-"
_CACHE_KIB = 65536


def is_missing(layout: Layout) -> bool:
    """Whether there is no database, or a file that is empty and so was never one."""
    try:
        return layout.database.stat().st_size == 0
    except FileNotFoundError:
        return True


def finish(layout: Layout, aside: Aside) -> bool:
    """Complete what a crash left half done; say whether a database was put in place.

    `aside`: where a -wal goes that belongs to no database.
    """
    for draft in layout.state.glob(f"{_DRAFTS}*"):
        draft.unlink()
    ready = _ready(layout)
    if not is_missing(layout):
        ready.unlink(missing_ok=True)
        return False
    if any(os.path.lexists(_beside(layout, suffix)) for suffix in _BESIDE):
        clear(layout, aside)
    if not ready.exists():
        return False
    put_in_place(layout)
    return True


def clear(layout: Layout, aside: Aside) -> Path | None:
    """Move the database aside, and then what SQLite keeps beside it; return where it is now."""
    place = aside.take(layout.database)
    for suffix in _BESIDE:
        aside.take(_beside(layout, suffix))
    aside.sync()
    sync(layout.state)
    return place


def put_in_place(layout: Layout) -> None:
    """Make the finished draft the database. `clear` was called before."""
    _ready(layout).rename(layout.database)
    sync(layout.state)


@contextmanager
def new_database(layout: Layout) -> Iterator[sqlite3.Connection]:
    """Make a new database with today's schema; READY once the block has ended without an error.

    After an error there is nothing of it any more.
    """
    draft = draft_file(layout)
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=MEMORY").fetchone()
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
            create_schema(connection)
            yield connection
        sync(draft)
        draft.rename(_ready(layout))
        sync(layout.state)
    finally:
        draft.unlink(missing_ok=True)


def draft_file(layout: Layout, what: str = "") -> Path:
    """Return where this process may write until the end of its block; `what`: beside the draft."""
    return layout.state / f"{_DRAFTS}{os.getpid()}{what}"


def progress(layout: Layout) -> object:
    """Return what changes while some process makes a new database; None if none does."""
    marks = []
    for draft in sorted(layout.state.glob(f"{_DRAFTS}*")):
        try:
            state = draft.stat()
        except FileNotFoundError:
            continue
        marks.append((draft.name, state.st_size, state.st_mtime_ns))
    return marks or None


def _ready(layout: Layout) -> Path:
    return layout.state / ".tasks.db.ready"


def _beside(layout: Layout, suffix: str) -> Path:
    return layout.database.with_name(layout.database.name + suffix)
