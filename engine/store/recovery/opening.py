"""What happens when a process opens a store to write to it, in whatever condition that is.

Under the write lock, and in this order: what a crash left half done is completed; the store of a
newer agentmux and a database that is none of ours are refused; an older agentmux's store is adopted
and an older schema brought up to date, each after a backup; a damaged or missing database is moved
to quarantine and rebuilt from the log. A full disk, a lock, permissions and I/O errors are no
damage: they are raised, and nothing is moved. What damage is, `condition` says.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from engine.commands import Step
from engine.errors import StorageError
from engine.files import open_regular
from engine.logfiles import is_regular
from engine.quarantine import backup, quarantine
from engine.store.adoption.adoption import convert, is_older
from engine.store.database import (
    BUSY_MS,
    OLDEST_SQLITE,
    SCHEMA_VERSION,
    Connection,
    Home,
    WriteLock,
    create_schema,
    is_damage,
    schema_names,
    schema_version,
    storage_error,
)
from engine.store.forgetting import in_words
from engine.store.recovery import replacing
from engine.store.recovery.condition import Damage, check_pages, look_over, note_boot
from engine.store.recovery.migrations import back_up, migrate
from engine.store.recovery.rebuild import Rebuilt, last_logged, rebuild
from engine.text import plural

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from engine.commands import OnStep
    from engine.files import Layout

log = logging.getLogger(__name__)

_HEAD = 1 << 16


class Opening:
    """One opening of a store. `notices` are sentences on everything that was done to it.

    `deep`: compare even the indexes with their tables first. `on_step` is called on the thread
    that opens.
    """

    def __init__(
        self, layout: Layout, now: datetime, *, deep: bool = False, on_step: OnStep | None = None
    ) -> None:
        self.notices: list[str] = []
        self._layout = layout
        self._path = layout.database
        self._now = now
        self._deep = deep
        self._on_step: OnStep = on_step or (lambda _step: None)
        self._rebuilt = False

    def open(self, lock: WriteLock) -> tuple[sqlite3.Connection, Home]:
        """Open the store; return the connection for writing and the mark of its file.

        Raises:
            StorageError: SQLite is too old, the store is not one for this agentmux, another
                process keeps the lock, or the disk refuses. Nothing was changed.

        """
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise StorageError(
                f"SQLite {sqlite3.sqlite_version} is too old: 3.35 or newer is needed; "
                "use a Python that is linked with a newer one"
            )
        self._await_turn(lock)
        try:
            self._complete()
            if replacing.is_missing(self._layout) and last_logged(self._layout):
                self._rebuild("was empty" if self._path.exists() else "was missing", None)
            while (connection := self._attempt()) is None:
                pass
            # Under the lock: nobody can replace the file in between.
            return connection, Home(self._path)
        except sqlite3.Error as error:
            raise storage_error(error, self._path) from error
        except OSError as error:
            # Often the log, or a file beside the database: the sentence names it.
            raise storage_error(error, self._layout.state) from error
        finally:
            lock.release()

    def _await_turn(self, lock: WriteLock) -> None:
        """Take the lock. Whoever makes a new database is waited for as long as that goes on."""
        while True:
            before = replacing.progress(self._layout)
            try:
                return lock.acquire()
            except StorageError:
                if replacing.progress(self._layout) == before:
                    raise
                self._on_step(Step("waiting for the process that rebuilds the store"))

    def _complete(self) -> None:
        """Complete what a crash left half done."""
        aside = quarantine(self._layout, self._now)
        if replacing.finish(self._layout, aside):
            self._tell(f"{self._path}, which was being replaced when that was cut short, is whole")
        if aside.used:
            self._tell(f"what was left of a lost {self._path} lies in {aside.folder}")

    def _attempt(self) -> sqlite3.Connection | None:
        """Open the database as it is; None: another one was put in its place."""
        if self._path.is_symlink():
            raise StorageError(
                f"{self._path} is a link, and nothing is written outside the state folder; move "
                "the database there, or make the whole folder a link"
            )
        if not self._path.exists():
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        with ExitStack() as stack:
            connection = sqlite3.connect(
                self._path, isolation_level=None, timeout=BUSY_MS / 1000, factory=Connection
            )
            # Not before its file was moved: it would write its -wal into it, and take it away.
            stack.callback(connection.close)
            try:
                self._refuse_newer(connection)
                if is_older(connection):
                    if last_logged(self._layout):
                        raise Damage("it is an older agentmux's, but the log is not")
                    self._adopt(connection)
                    return None
                self._bring_up_to_date(connection)
                look_over(connection, self._layout, deep=self._deep, on_step=self._on_step)
            except sqlite3.Error as error:
                if not (isinstance(error, Damage) or is_damage(error)):
                    raise
                self._rebuild(f"was damaged ({error})", self._path)
                return None
            stack.pop_all()
            return connection

    def _refuse_newer(self, connection: sqlite3.Connection) -> None:
        found = schema_version(connection)
        if found > SCHEMA_VERSION:
            raise StorageError(
                f"{self._path} was written by a newer agentmux (schema {found}, this one knows "
                f"{SCHEMA_VERSION}); upgrade agentmux"
            )

    def _bring_up_to_date(self, connection: sqlite3.Connection) -> None:
        found = schema_version(connection)
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        if names and (not found or names.isdisjoint(schema_names())):
            raise StorageError(
                f"{self._path} is not a database of agentmux; move it away and try again"
            )
        if not found and last_logged(self._layout):
            raise Damage("it is empty, but the log is not")
        connection.execute("PRAGMA journal_mode=WAL").fetchone()
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        if not found:
            self._put_older_log_away()
            create_schema(connection)
        elif found < SCHEMA_VERSION:
            copy = back_up(connection, backup(self._layout, self._now).folder)
            migrate(connection, found)
            self._tell(
                f"{self._path} was brought from schema {found} to {SCHEMA_VERSION}; "
                f"a copy of it as it was is {copy}"
            )
        else:
            self._put_older_log_away()

    def _put_older_log_away(self) -> None:
        """Put away the log of an older agentmux: an adoption was cut short before it was moved."""
        if is_older_log(self._layout):
            aside = backup(self._layout, self._now)
            place = aside.take(self._layout.log)
            aside.sync()
            self._tell(f"{self._layout.log} was written by an older agentmux; it is {place} now")

    def _adopt(self, old: sqlite3.Connection) -> None:
        """Put a store of today's schema in the place of an older agentmux's."""
        self._on_step(Step("adopting the store of an older agentmux"))
        try:
            with replacing.new_database(self._layout) as new:
                adopted = convert(old, self._layout.log, new, self._now)
                check_pages(new)
                note_boot(new)
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            raise StorageError(
                f"{self._path} was written by an older agentmux and is damaged ({error}), so it "
                "cannot be taken over; move it away to begin anew, nothing was changed"
            ) from error
        aside = backup(self._layout, self._now)
        replacing.clear(self._layout, aside)
        replacing.put_in_place(self._layout)
        self._tell(
            f"{self._path} was written by an older agentmux: {plural(adopted.tasks, 'task')} and "
            f"{plural(adopted.events, 'event')} were taken over; its files lie in {aside.folder}"
        )
        aside.take(self._layout.log)
        aside.sync()
        for note in adopted.notes:
            self._tell(note)

    def _rebuild(self, why: str, damaged: Path | None) -> None:
        """Put a store that is rebuilt from the log in the place of one that is lost."""
        if self._rebuilt:
            raise StorageError(f"{self._path} was rebuilt, and then {why}; look at the disk")
        if is_older_log(self._layout):
            raise StorageError(
                f"{self._path} {why}, and nothing can be rebuilt from the log of an older "
                "agentmux; move both away, then start again"
            )
        self._rebuilt = True
        log.warning("%s %s: it is being rebuilt from the log", self._path, why)
        aside = quarantine(self._layout, self._now)
        bad_lines = replacing.draft_file(self._layout, ".bad-lines")
        try:
            # A process that still writes to the lost database may also be about to rotate the log.
            with (
                closing(WriteLock(self._layout.log_lock)) as log_lock,
                log_lock.held(),
                replacing.new_database(self._layout) as new,
            ):
                rebuilt = rebuild(
                    self._layout,
                    new,
                    damaged=damaged,
                    bad_lines=bad_lines,
                    now=self._now,
                    on_step=self._on_step,
                )
                self._on_step(Step("checking the new database"))
                check_pages(new)
                note_boot(new)
            bad_place = aside.take(bad_lines, "bad-lines.jsonl")
            place = replacing.clear(self._layout, aside)
            replacing.put_in_place(self._layout)
        finally:
            bad_lines.unlink(missing_ok=True)
        where = f": it lies in {place.parent}" if place is not None else ""
        first, *more = _report(rebuilt, bad_place)
        self._tell(f"{self._path} {why}{where}; {first}")
        for sentence in more:
            self._tell(f"the rebuild of {self._path}: {sentence}")

    def _tell(self, notice: str) -> None:
        log.warning("%s", notice)
        self.notices.append(notice)


def is_older_log(layout: Layout) -> bool:
    """Say whether the log was written by an older agentmux: JSON objects, and none has a seq."""
    try:
        with open_regular(layout.log) as file:
            head = file.read(_HEAD)
    except FileNotFoundError:
        return False
    except OSError:
        if is_regular(layout.log):
            raise
        return False  # the journal sets it aside
    return any(map(_is_object, head.splitlines())) and not last_logged(layout)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _report(rebuilt: Rebuilt, bad_place: Path | None) -> Iterator[str]:
    """Say what was rebuilt, and what of it is lost."""
    tables = rebuilt.tables
    if rebuilt.events or rebuilt.salvaged:
        count = f"{plural(tables.tasks, 'task')} and {plural(rebuilt.events, 'event')}"
        yield f"{count} were rebuilt from the log"
    else:
        yield "the log holds no events, so the store is empty now"
    if rebuilt.salvaged:
        yield f"{plural(rebuilt.salvaged, 'event')} more came from the damaged file itself"
    if rebuilt.bad:
        yield (
            f"it could not use {plural(rebuilt.bad, 'line')} of the log, the first of them "
            f"{rebuilt.first_bad}: copies are in {bad_place}; `agentmux doctor --repair` writes "
            "the log anew without them"
        )
    if rebuilt.missing:
        yield f"the log lacks {in_words(rebuilt.missing)}, and what they told is lost"
    if tables.unknown:
        yield (
            f"it lacks {plural(tables.unknown, 'task')} whose creation is lost: "
            "`agentmux tasks seed` creates them anew"
        )
    if tables.added:
        yield f"it added {plural(tables.added, 'event')} to close what lost ones had left open"
