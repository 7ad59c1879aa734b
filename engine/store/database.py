"""Opening the database, its schema, and the lock that writers of all processes queue on."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA_VERSION: Final = 1
OLDEST_SQLITE: Final = (3, 35, 0)
SAFE_SQLITE: Final = (3, 51, 3)
"""Older ones can corrupt a WAL when a commit races a checkpoint (see `checkpoint`)."""

BUSY_MS: Final = 5000
LOCK_SECONDS: Final = 20.0
_SCHEMA: Final = Path(__file__).resolve().parents[1] / "sql" / "schema.sql"


class WriteLock:
    """A lock file that writers take before BEGIN.

    SQLite's own busy handler is unfair under load: waits of seconds were seen with four hot
    writers, none with a lock file. For one thread of a process; not reentrant.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

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
                        f"another process has held {self._path} for {timeout:.0f} s; "
                        "is one of them stopped (SIGSTOP)?"
                    ) from None
                time.sleep(pause)
                pause = min(pause * 1.5, 0.002)
            else:
                return

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
        """Raise StorageError if the file was removed or replaced while it was open."""
        if self._look() != self._mark:
            raise StorageError(
                f"{self._path} was removed or replaced while it was in use; end all agentmux "
                "processes of this folder, then start again"
            )

    def _look(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def open_writer(path: Path, lock: WriteLock) -> sqlite3.Connection:
    """Open the database for writing, with its schema made if it is new.

    Raises:
        StorageError: SQLite is too old, the file is no database of ours, or the disk refuses.

    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StorageError(
            f"SQLite {sqlite3.sqlite_version} is too old: 3.35 or newer is needed; "
            "use a Python that is linked with a newer one"
        )
    try:
        with lock.held():
            if not path.exists():
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_MS / 1000)
            try:
                connection.execute("PRAGMA journal_mode=WAL").fetchone()
                connection.execute("PRAGMA synchronous=FULL")
                connection.execute("PRAGMA foreign_keys=ON")
                connection.execute("PRAGMA wal_autocheckpoint=0")
                _ensure_schema(connection, path)
            except BaseException:
                connection.close()
                raise
            return connection
    except (sqlite3.Error, OSError) as error:
        raise storage_error(error, path) from error


def _ensure_schema(connection: sqlite3.Connection, path: Path) -> None:
    found = schema_version(connection)
    if found == SCHEMA_VERSION:
        return
    if found > SCHEMA_VERSION:
        raise StorageError(
            f"{path} was written by a newer agentmux (schema {found}, this one knows "
            f"{SCHEMA_VERSION}); upgrade agentmux"
        )
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StorageError(f"{path} is not a database of agentmux; move it away and try again")
    script = _SCHEMA.read_text(encoding="utf-8")
    connection.executescript(f"BEGIN;{script}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")


def schema_version(connection: sqlite3.Connection) -> int:
    """Return the schema version of an open database; 0 for a new or foreign one."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def checkpoint(connection: sqlite3.Connection) -> None:
    """Move the WAL into the database, as far as readers allow, without waiting for them.

    Only while the write lock is held: SQLite before 3.51.3 can corrupt the WAL if a commit of
    another connection runs at the same time. Hence autocheckpoint is off.
    """
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def storage_error(error: sqlite3.Error | OSError, path: Path) -> StorageError:
    """Say in a sentence what an error of SQLite or the file system means for the user."""
    text = str(error)
    hints = (
        ("full", "free some space; nothing was lost, the change was not made"),
        ("readonly", "mend the permissions of the file and its folder"),
        ("unable to open", "mend the permissions of the file and its folder"),
        ("Permission denied", "mend the permissions of the file and its folder"),
        ("locked", "another program holds the database; close it"),
        ("malformed", "run `agentmux doctor`"),
        ("not a database", "move it away and try again"),
    )
    hint = next((advice for word, advice in hints if word in text), "run `agentmux doctor`")
    return StorageError(f"{path}: {text}; {hint}")
