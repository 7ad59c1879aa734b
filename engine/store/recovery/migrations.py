"""Numbered steps from the schema of an older release to today's, and the copy made before them.

engine/sql/migrations/NNNN.sql leads from schema NNNN - 1 to NNNN, its data included. A step that
was released is never changed; tests/golden/ holds a database of each released schema. Who calls
this holds the write lock; what version is found, and what is refused, is decided there.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from engine.files import sync
from engine.store.database import SCHEMA_VERSION

_STEPS: Final = Path(__file__).resolve().parents[2] / "sql" / "migrations"


def migrate(connection: sqlite3.Connection, found: int) -> None:
    """Bring an open store from schema `found` (1 or more) to SCHEMA_VERSION, in one transaction.

    `connection` is in autocommit mode. After an error the store is as it was, version included.

    Raises:
        sqlite3.Error: SQLite refused a step.
        OSError: a step's file cannot be read.

    """
    numbers = range(found + 1, SCHEMA_VERSION + 1)
    steps = "".join(f"{_read(number)}\nPRAGMA user_version={number};\n" for number in numbers)
    try:
        # Not `execute("BEGIN")`: executescript would commit that before it starts.
        connection.executescript(f"BEGIN IMMEDIATE;\n{steps}COMMIT;")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _read(number: int) -> str:
    return (_STEPS / f"{number:04d}.sql").read_text(encoding="utf-8")


def back_up(connection: sqlite3.Connection, folder: Path) -> Path:
    """Copy an open store, as it was last committed, to `folder`/tasks.db; return that path.

    `folder` (state/backup/<UTC stamp>) and its parent are made, 0700; the file is 0600, whole and
    on the disk when this returns, and needs no other file beside it. A copy is never overwritten.

    Raises:
        sqlite3.Error, OSError: it could not be made (disk full, say); none is left half-written.

    """
    for place in (folder.parent, folder):
        place.mkdir(mode=0o700, exist_ok=True)
    copy = folder / "tasks.db"
    if copy.exists():
        raise FileExistsError(errno.EEXIST, "a copy is there already", str(copy))
    draft = folder / ".tasks.db.part"
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(draft, isolation_level=None)) as target:
            connection.backup(target)
            # The copy of a store in WAL mode would want a -wal file as soon as it is opened.
            target.execute("PRAGMA journal_mode=DELETE").fetchone()
        draft.rename(copy)
    finally:
        draft.unlink(missing_ok=True)
    sync(folder)
    return copy
