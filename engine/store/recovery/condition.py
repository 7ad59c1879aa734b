"""What tells a sound database from a damaged one: at every start, and the deep look.

At every start, at a cost that is the same for any size: the header, that the schema is complete,
all of the small tables, the ends of the large ones, and whether the log is ahead of the events
table, which it never is unless commits were lost. A process that is killed cannot damage a
database, but a power cut or a failing disk can. So the pages are all read (`PRAGMA quick_check`,
about 1 s for 300 MB) when the machine was restarted since the store was last opened for writing,
and in a database that was rebuilt; `PRAGMA integrity_check`, indexes against tables, if asked for.

Decides nothing: what is damaged raises, and `opening` knows what to do then.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine.commands import Step
from engine.store.database import schema_names
from engine.store.recovery.rebuild import is_behind

if TYPE_CHECKING:
    from engine.commands import OnStep
    from engine.files import Layout

_BOOT: Final = "boot"
"""The key in `meta` of the boot in which the store was last opened for writing."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_SMALL: Final = ("meta", "holds", "agents", "tallies", "endings", "purged", "workers", "spent")
_ENDS: Final = (
    "SELECT * FROM tasks ORDER BY position LIMIT 1",
    "SELECT * FROM tasks ORDER BY position DESC LIMIT 1",
    "SELECT * FROM runs ORDER BY n DESC LIMIT 1",
    "SELECT * FROM events ORDER BY seq LIMIT 1",
    "SELECT * FROM events ORDER BY seq DESC LIMIT 1",
    "SELECT * FROM edges LIMIT 1",
    "SELECT * FROM pace ORDER BY minute DESC LIMIT 1",
)


class Damage(sqlite3.DatabaseError):
    """What was found says that the database is damaged, though SQLite does not mind."""


def look_over(
    connection: sqlite3.Connection, layout: Layout, *, deep: bool, on_step: OnStep
) -> None:
    """Look at an open store of today's schema; note the boot in which it was sound.

    Raises:
        Damage: it is damaged.
        sqlite3.Error, OSError: it is damaged (see `database.is_damage`), or cannot be looked at.

    """
    missing = schema_names() - {
        row[0] for row in connection.execute("SELECT name FROM sqlite_master")
    }
    if missing:
        raise Damage(f"it has no {', '.join(sorted(missing))}")
    for table in _SMALL:
        connection.execute(f"SELECT * FROM {table}").fetchall()
    for sql in _ENDS:
        connection.execute(sql).fetchall()
    if is_behind(connection, layout):
        raise Damage("its last events are lost, the log still has them")
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (_BOOT,)).fetchone()
    restarted = row is None or row[0] != _boot()
    if deep or restarted:
        on_step(Step("checking the database"))
        check_pages(connection, deep=deep)
    if restarted:
        note_boot(connection)


def check_pages(connection: sqlite3.Connection, *, deep: bool = False) -> None:
    """Read the whole database; `deep`: and compare the indexes with their tables.

    Raises:
        Damage, sqlite3.Error: as look_over.

    """
    check = "integrity_check" if deep else "quick_check"
    answer = connection.execute(f"PRAGMA {check}(1)").fetchone()[0]
    if answer != "ok":
        raise Damage(" ".join(answer.split()))


def note_boot(connection: sqlite3.Connection) -> None:
    """Note that the database was sound in this boot of the machine."""
    connection.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        (_BOOT, _boot()),
    )


def _boot() -> str:
    """Return what tells this boot of the machine from others."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except (FileNotFoundError, PermissionError):
        import psutil  # noqa: PLC0415 - slow to load, and needed only where there is no boot id

        return str(round(psutil.boot_time()))
