"""Keeping events.jsonl equal to the events table: append what it lacks, rotate, mend its end.

Synchronous; `journal` runs it on a thread of its own, `repair` for doctor. All writing happens
under the log's lock, and all of it follows from the table: whatever a crash leaves, the next
process that catches up completes it. Rotation too is only a rule of how lines are written: a
RESET is always the first line of its file.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sqlite3
import stat
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from engine.logfiles import (
    MARK_BYTES,
    REWRITING,
    End,
    find_end,
    is_regular,
    log_files,
    misplaced,
    open_log,
    parse_mark,
    reset_of,
    split_at_resets,
)
from engine.quarantine import quarantine
from engine.store.audit import events_are_whole
from engine.store.database import BUSY_MS, Home, WriteLock
from engine.store.recovery.rebuild import knows_more
from engine.text import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from engine.clock import Clock
    from engine.files import Layout
    from engine.logfiles import Reset

log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 2000
_BLOCK = 1 << 20

# One row a round: the lines are joined inside SQLite, where Python's lock is not held.
_NEXT_LINES = (
    "SELECT max(seq), group_concat(line, char(10)) FROM"
    " (SELECT seq, line FROM event_lines WHERE seq > ? ORDER BY seq LIMIT ?)"
)
_LINE = "SELECT CAST(line AS BLOB) FROM event_lines WHERE seq = ?"


class _Foreign(Exception):  # noqa: N818 - no error: it says what is to be done
    """The log goes on differently from its table: it must be written anew."""

    def __init__(self, seq: int) -> None:
        super().__init__(seq)
        self.seq = seq


class Mirror:
    """The log of a state folder, for one thread of a process.

    `notices` are sentences about what was found damaged and set aside; they only grow. The
    methods raise OSError and sqlite3.Error: then the log lags, and catching up again mends it.
    """

    def __init__(self, layout: Layout, clock: Clock) -> None:
        self._layout = layout
        self._clock = clock
        self._db: sqlite3.Connection | None = None
        self._home = Home(layout.database)
        self._known: tuple[int, int, int] | None = None
        self.notices: list[str] = []

    def close(self) -> None:
        """Close the connection; it is opened again when it is needed."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def catch_up(self) -> bool:
        """Append what the log lacks. False: another process is at it."""
        with self._lock_file() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self._catch_up(lock)
        return True

    def rewrite(self, differs: Callable[[], bool]) -> Path | None:
        """Set the log aside and write it anew if it `differs`, which is asked under its lock.

        Returns the folder in quarantine that holds the old files, None if it does not differ.
        Catches up in either case. Begun and cut short, it is completed by whoever catches up next.

        Raises:
            StorageError: another process kept the log's lock for 20 s.

        """
        with (
            closing(WriteLock(self._layout.log_lock)) as turn,
            turn.held(),
            self._lock_file() as lock,
        ):
            folder = None
            if differs():
                folder = self._begin_anew(lock)
            self._catch_up(lock)
        return folder

    @contextmanager
    def _lock_file(self) -> Iterator[int]:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(self._layout.log_lock, flags, 0o600)
        try:
            yield lock
        finally:
            os.close(lock)

    def _catch_up(self, lock: int) -> None:
        mark = os.pread(lock, MARK_BYTES, 0)
        if mark.startswith(REWRITING):
            folder = self._set_aside(lock)
            self._notice(f"the log is written anew; the old files are kept in {folder}")
        try:
            seq = self._append()
        except _Foreign as foreign:
            folder = self._begin_anew(lock)
            self._notice(
                f"event {foreign.seq}, the last of the log, was not what the events table says of "
                f"it: the log is written anew, the old files are kept in {folder}"
            )
            seq = self._append()
        if parse_mark(mark) != seq:
            # After the lines: a log that ends before its mark has lost some.
            _write_mark(lock, b"%d" % seq)

    def _begin_anew(self, lock: int) -> Path:
        """Set the log aside, so that whoever dies meanwhile has the next one write it anew."""
        _write_mark(lock, REWRITING)
        os.fsync(lock)
        return self._set_aside(lock)

    def _set_aside(self, lock: int) -> Path:
        """Move all files of the log to quarantine; return the folder there."""
        aside = quarantine(self._layout, self._clock.now())
        for path in dict.fromkeys([*log_files(self._layout), *misplaced(self._layout)]):
            aside.take(path)
        aside.sync()
        _write_mark(lock, b"0")
        return aside.folder

    def _append(self) -> int:
        """Write what the log lacks; return the seq that it goes up to."""
        db = self._connect()
        file = self._open()
        try:
            seq, torn = self._look(db, file)
            while True:
                last, lines = db.execute(_NEXT_LINES, (seq, _ROWS_AT_ONCE)).fetchone()
                text = b"" if last is None else f"{lines}\n".encode()
                if torn is not None:
                    self._cut(file, torn, text)
                    torn = None
                if last is None:
                    break
                for part in split_at_resets(text):
                    reset = reset_of(part)
                    if reset is not None:
                        file = self._rotate(file, reset)
                    _write_all(file, part)
                seq = last
            state = os.fstat(file)
            self._known = (state.st_ino, state.st_size, seq)
            return seq
        finally:
            os.close(file)

    def _open(self) -> int:
        """Open the newest file. What stands in its place is set aside: it may lead anywhere."""
        log_file = self._layout.log
        if os.path.lexists(log_file) and not is_regular(log_file):
            aside = quarantine(self._layout, self._clock.now())
            place = aside.take(log_file)
            aside.sync()
            self._notice(
                f"{log_file} was no regular file; it is {place} now, and the log is written anew"
            )
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        file = os.open(log_file, flags, 0o600)
        if not stat.S_ISREG(os.fstat(file).st_mode):  # somebody put it there just now
            os.close(file)
            raise OSError(errno.EINVAL, "it is no regular file", str(log_file))
        return file

    def _rotate(self, file: int, reset: Reset) -> int:
        """Begin a new file for a RESET; return it open, `file` is closed.

        The log is written without fsync, for the table is the truth: a power cut may take lines
        of the newest file, and the next start writes them again. That holds for its name, too: if
        the new file is gone the old one tells how far the log went, and if the rename is undone
        it is done once more. Only lines of an older file would be missed by nobody. So it is on
        the disk before it gets its new name.
        """
        if os.fstat(file).st_size == 0:
            return file
        os.fsync(file)
        name = self._layout.state / f"events.{reset.stamp}.jsonl"
        number = reset.seq
        while os.path.lexists(name):
            name = name.with_name(f"events.{reset.stamp}.{number}.jsonl")
            number += 1
        self._layout.log.rename(name)
        new = self._open()
        os.close(file)
        return new

    def _look(self, db: sqlite3.Connection, file: int) -> tuple[int, End | None]:
        """Return the last seq of the log, and where its last line ends if more follows.

        Cheap while nobody else wrote to it.

        Raises:
            _Foreign: its last line is not the table's, and the table knows all that the log does.

        """
        state = os.fstat(file)
        if self._known is not None and self._known[:2] == (state.st_ino, state.st_size):
            return self._known[2], None
        end = find_end(file)
        torn = end if end.offset < state.st_size else None
        if end.seq == 0:
            # Rotated, and cut short before the first line of the new file.
            end = self._end_of_rotated()
        if end.seq and db.execute(_LINE, (end.seq,)).fetchone() != (end.line,):
            if events_are_whole(self._layout.database) and not knows_more(db, self._layout):
                raise _Foreign(end.seq)
            # The log may know more than the table: nothing is decided while somebody is at work.
            self._notice(
                f"event {end.seq}, the last of the log, is not what the events table says of it; "
                "run `agentmux doctor`"
            )
        return end.seq, torn

    def _end_of_rotated(self) -> End:
        for path in reversed(log_files(self._layout)):
            if path != self._layout.log:
                with open_log(path) as rotated:
                    end = find_end(rotated.fileno())
                if end.seq:
                    return end
        return End()

    def _cut(self, file: int, end: End, coming: bytes) -> None:
        """Cut off what follows the last line.

        The beginning of what is written next is what a crash leaves. Everything else is kept in
        quarantine, on the disk before it is cut.
        """
        size = os.fstat(file).st_size - end.offset
        if size > len(coming) or os.pread(file, size, end.offset) != coming[:size]:
            kept = quarantine(self._layout, self._clock.now()).folder / "events.jsonl.tail"
            _copy(file, end.offset, size, kept)
            self._notice(
                f"the last {plural(size, 'byte')} of {self._layout.log} were no event; "
                f"they are kept in {kept}"
            )
        os.ftruncate(file, end.offset)

    def _notice(self, sentence: str) -> None:
        log.warning("%s", sentence)
        self.notices.append(sentence)

    def _connect(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = sqlite3.connect(
                self._layout.database, isolation_level=None, timeout=BUSY_MS / 1000
            )
            self._db.execute("PRAGMA query_only=ON")
            self._home = Home(self._layout.database)
        # Events of a database that was replaced since are not those of this log.
        self._home.check()
        return self._db


def _write_mark(lock: int, text: bytes) -> None:
    os.pwrite(lock, text.ljust(MARK_BYTES - 1) + b"\n", 0)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _copy(source: int, offset: int, size: int, path: Path) -> None:
    """Copy a part of an open file to a new one, and have it on the disk."""
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        while size > 0 and (block := os.pread(source, min(size, _BLOCK), offset)):
            _write_all(target, block)
            offset += len(block)
            size -= len(block)
        os.fsync(target)
    finally:
        os.close(target)
