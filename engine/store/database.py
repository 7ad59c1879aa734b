"""The schema of the database, its errors in words, and the lock that all writers queue on."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.errors import StorageError, StoreGone

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA_VERSION: Final = 4
OLDEST_SQLITE: Final = (3, 35, 0)
SAFE_SQLITE: Final = (3, 51, 3)
"""Older ones can corrupt a WAL when a commit races a checkpoint (see `checkpoint`)."""

BUSY_MS: Final = 5000
LOCK_SECONDS: Final = 20.0
_SCHEMA: Final = Path(__file__).resolve().parents[1] / "sql" / "schema.sql"


class Connection(sqlite3.Connection):
    """As sqlite3's, but damage to a name in the schema is an error of SQLite like any other.

    SQLite's message quotes the name, and sqlite3 raises a bare UnicodeDecodeError over that.
    """

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Run one statement; raises sqlite3.Error."""
        try:
            return super().execute(sql, parameters)
        except UnicodeDecodeError as error:
            raise _undecodable(error) from error

    def executescript(self, script: str, /) -> sqlite3.Cursor:
        """Run statements; raises sqlite3.Error."""
        try:
            return super().executescript(script)
        except UnicodeDecodeError as error:
            raise _undecodable(error) from error


def _undecodable(error: UnicodeDecodeError) -> sqlite3.DatabaseError:
    text = bytes(error.object).decode(errors="backslashreplace")
    return sqlite3.DatabaseError(f"Could not decode {text!r}")


class WriteLock:
    """A lock file that writers take before BEGIN.

    SQLite's own busy handler is unfair under load: waits of seconds were seen with four hot
    writers, none with a lock file. For one thread of a process; not reentrant.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # A link could make it a file that others lock, or that is none of ours.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o600)

    def acquire(self, timeout: float = LOCK_SECONDS) -> None:
        """Wait for the lock.

        Raises:
            StorageError: another process kept it for `timeout` seconds.

        """
        deadline = time.monotonic() + timeout
        pause = 0.0001
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StorageError(
                        f"{self._holder()} has held {self._path} for {timeout:.0f} s; is it "
                        "stopped (SIGSTOP, ctrl+z)? Continue or end it"
                    ) from None
                time.sleep(pause)
                pause = min(pause * 1.5, 0.002)
            else:
                return

    def _holder(self) -> str:
        """Name the process that holds the lock, as far as the system tells."""
        file = os.fstat(self._fd)
        mark = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
        with suppress(OSError, IndexError):
            for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
                words = line.split()
                if words[1] == "FLOCK" and words[5] == mark:
                    return f"process {words[4]}"
        return "another process"

    def release(self) -> None:
        """Let the next one in."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for a block."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def close(self) -> None:
        """Give the file back; a held lock is released with it."""
        os.close(self._fd)


class Home:
    """The place of an open database: checks that the file is still the one that was opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mark = self._look()

    def check(self) -> None:
        """Raise StoreGone if the file was removed or replaced while it was open."""
        if self._look() != self._mark:
            raise StoreGone(
                f"{self._path} was removed or replaced while it was in use; end all agentmux "
                "processes of this folder, then start again"
            )

    def _look(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def create_schema(connection: sqlite3.Connection) -> None:
    """Make today's schema in an empty database, in one transaction."""
    script = _SCHEMA.read_text(encoding="utf-8")
    connection.executescript(f"BEGIN;{script}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")


@cache
def schema_names() -> frozenset[str]:
    """Return the names of all tables, indexes, views and triggers of today's schema."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        create_schema(connection)
        return frozenset(row[0] for row in connection.execute("SELECT name FROM sqlite_master"))


def schema_version(connection: sqlite3.Connection) -> int:
    """Return the schema version of an open database; 0 for a new or foreign one."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def checkpoint(connection: sqlite3.Connection) -> None:
    """Move the WAL into the database, as far as readers allow, without waiting for them.

    Only while the write lock is held: SQLite before 3.51.3 can corrupt the WAL if a commit of
    another connection runs at the same time. Hence autocheckpoint is off.
    """
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def is_damage(error: sqlite3.Error) -> bool:
    """Say whether an error means that the database itself is damaged.

    A full disk, a lock, missing permissions or an I/O error say nothing about what is stored.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return "Could not decode" in str(error)  # text that is none, found by Python itself
    return code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def storage_error(error: sqlite3.Error | OSError, path: Path) -> StorageError:
    """Say in a sentence what an error of SQLite or the file system means for the user."""
    for place in (path, *(path.with_name(f"{path.name}-{end}") for end in ("wal", "shm"))):
        if path.suffix == ".db" and place.is_dir():
            return StorageError(f"{place} is a folder; move it away, then try again")
    return StorageError(f"{path}: {error}; {remedy(error) or 'run `agentmux doctor`'}")


def remedy(error: sqlite3.Error | OSError) -> str:
    """Say what to do about an error of SQLite or the file system; empty where nobody knows."""
    text = f"{error} {getattr(error, 'sqlite_errorname', '')}"
    rebuild = "`agentmux doctor --repair` keeps it in quarantine and rebuilds it from the log"
    hints = (
        ("full", "free some space; nothing was lost, the change was not made"),
        ("No space", "free some space; nothing was lost, the change was not made"),
        ("readonly", "mend the permissions of the file and its folder"),
        ("unable to open", "mend the permissions of the file and its folder"),
        ("Permission denied", "mend the permissions of the file and its folder"),
        ("locked", "another program holds the database; close it"),
        # The index of the WAL finds no room, already when somebody wants to read.
        ("IOERR_SHMSIZE", "the disk is full: free some space; nothing was lost"),
        ("disk I/O", "the disk or its file system fails: look at the system's log"),
        ("Input/output", "the disk or its file system fails: look at the system's log"),
        ("malformed", rebuild),
        ("not a database", rebuild),
        ("Could not decode", rebuild),
    )
    return next((advice for word, advice in hints if word in text), "")


def other_schema(found: int, *, tables: int) -> tuple[str, str]:
    """Say of a database that has another schema than today's what it is, and what to do.

    `tables`: how many rows its sqlite_master has.
    """
    if not found and not tables:
        return "is empty", (
            "`agentmux doctor --repair`, or the next command that writes to it, rebuilds it from "
            "the log"
        )
    advice = (
        "upgrade agentmux, or look with the one that wrote it"
        if found > SCHEMA_VERSION
        else "the next command that writes to it, `agentmux resume` for one, brings it up to date"
    )
    return f"has schema {found}, this agentmux knows {SCHEMA_VERSION}", advice
