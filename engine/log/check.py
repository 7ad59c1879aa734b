"""The log against the events table: nothing missing, doubled, foreign, moved or changed.

Reads in short steps and holds no snapshot: events are only ever added. What is committed and not
yet written is no fault, and can be told from lines that were lost: the mirror notes how far it
went. Every RESET begins a file, and every file but the oldest begins with one. Mends nothing.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from msgspec import Struct

from engine.findings import Finding, Findings, Level
from engine.logfiles import is_reset, log_files, misplaced, open_log, read_mark, seq_of
from engine.store.forgetting import log_from
from engine.store.vitals import open_for_reading
from engine.text import plural

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.files import Layout

_ROWS_AT_ONCE = 2000
_NEXT_ROWS = (
    "SELECT seq, CAST(line AS BLOB) FROM event_lines"
    " WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
)
_ROW = "SELECT CAST(line AS BLOB) FROM event_lines WHERE seq = ?"
_ROUNDS = 20
_CATCHES_UP = "the next command that writes to the store, `agentmux resume` for one, catches up"
_AT_WORK = "whoever is at work catches up"


class _Row(NamedTuple):
    seq: int
    line: bytes


class _Log(Struct):
    """A log file as far as it went when we began: what is appended later is not looked at."""

    path: Path
    file: BinaryIO
    size: int
    torn: bytes = b""

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number of each whole line, and the line; keep what follows them as `torn`."""
        read = 0
        for number, line in enumerate(self.file, 1):
            read += len(line)
            if read > self.size or not line.endswith(b"\n"):
                self.torn = line[: len(line) - max(0, read - self.size)]
                return
            yield number, line[:-1]
            if read == self.size:
                return


def check_log(layout: Layout, *, at_work: bool) -> list[Finding]:
    """Compare the log, rotated files first, with the events table, line by line.

    `at_work`: some process holds workers, so it will soon write what is missing at the end. Blocks
    for about 6 s for a million events; call it off the event loop. What cannot be read is a
    finding.
    """
    try:
        return compare_log(layout, at_work=at_work)
    except (OSError, sqlite3.Error) as error:
        message = f"the log cannot be compared with its table: {error}"
        return [Finding(Level.ERROR, "log", message, "mend what is said there, then look again")]


def compare_log(layout: Layout, *, at_work: bool) -> list[Finding]:
    """Do as `check_log` does, but raise what stands in the way: OSError, sqlite3.Error."""
    mark = read_mark(layout)
    with ExitStack() as stack:
        logs = _open(layout, stack)
        db = stack.enter_context(closing(open_for_reading(layout.database)))
        # After the sizes: every line up to them was committed before it was written.
        last = int(db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])
        comparison = _Comparison(db, last)
        comparison.refuse(misplaced(layout))
        for log in logs:
            comparison.read(log, oldest=log is logs[0])
        return comparison.found(logs) + comparison.tail(logs, mark, at_work=at_work)


def _open(layout: Layout, stack: ExitStack) -> list[_Log]:
    """Open all files of the log as they are at one moment: a reset may rename one meanwhile."""
    for _ in range(_ROUNDS):
        with ExitStack() as attempt:
            try:
                files = [(p, attempt.enter_context(open_log(p))) for p in log_files(layout)]
                found = [(path, os.fstat(file.fileno())) for path, file in files]
                same = [(path, path.stat().st_ino) for path in log_files(layout)]
            except FileNotFoundError:
                continue
            if [(path, state.st_ino) for path, state in found] != same:
                continue
            stack.push(attempt.pop_all())
            return [
                _Log(path, file, state.st_size)
                for (path, file), (_, state) in zip(files, found, strict=True)
            ]
    raise OSError(f"the files of the log in {layout.state} do not stay the same; look again")


class _Comparison:
    """Walks along the rows; `expected` is the first one whose line did not come yet."""

    def __init__(self, db: sqlite3.Connection, last: int) -> None:
        self._db = db
        self._last = last
        self._begin = log_from(db)
        self._forgotten = 0
        self._rows = self._read_rows()
        self._expected = next(self._rows, None)
        self._skipped: set[int] = set()
        self._findings = Findings("log")

    def _read_rows(self) -> Iterator[_Row]:
        seq = self._begin - 1
        while rows := self._db.execute(_NEXT_ROWS, (seq, self._last, _ROWS_AT_ONCE)).fetchall():
            for row in rows:
                yield _Row(*row)
            seq = rows[-1][0]

    def _advance(self) -> None:
        self._expected = next(self._rows, None)

    def _skip_to(self, seq: int) -> None:
        while (row := self._expected) is not None and row.seq < seq:
            self._skipped.add(row.seq)
            self._advance()

    def refuse(self, paths: list[Path]) -> None:
        """Tell of what stands in the place of a file of the log."""
        for path in paths:
            what = "a link" if path.is_symlink() else "no regular file"
            self._findings.add(f"{path.name} is {what}, and no file of the log")

    def read(self, log: _Log, *, oldest: bool) -> None:
        """Compare the lines of one file."""
        name = log.path.name
        for number, line in log.lines():
            if is_reset(line):
                if number > 1:
                    self._findings.add(f"line {number} of {name} is a RESET; that begins a file")
            elif number == 1 and not oldest:
                self._findings.add(f"{name} does not begin with RESET and is not the oldest")
            if self._expected is not None and line == self._expected.line:
                self._advance()
            else:
                self._judge(f"line {number} of {name}", line)

    def _judge(self, place: str, line: bytes) -> None:
        """Say what is wrong with a line that is not the expected one, and find the way on."""
        seq = seq_of(line)
        if seq is None:
            self._findings.add(f"{place} is no event: {line[:80]!r}")
            return
        if seq < self._begin:
            self._forgotten += 1
            return
        if self._expected is not None and seq == self._expected.seq:
            self._findings.add(f"{place} does not say what the events table says of event {seq}")
            self._advance()
            return
        row = self._db.execute(_ROW, (seq,)).fetchone()
        if row is None and seq < log_from(self._db):
            self._forgotten += 1  # it was forgotten while we looked
        elif row is None:
            self._findings.add(f"{place} tells of event {seq}, which the events table lacks")
        elif row[0] != line:
            self._findings.add(f"{place} does not say what the events table says of event {seq}")
        elif seq in self._skipped:
            self._skipped.remove(seq)
            self._findings.add(f"{place} tells of event {seq} out of order")
        elif self._expected is None or seq < self._expected.seq:
            self._findings.add(f"{place} tells of event {seq} once more")
        else:
            self._skip_to(seq)
            self._advance()

    def found(self, logs: list[_Log]) -> list[Finding]:
        """Return what is wrong up to the last line."""
        for log in logs[:-1]:
            if log.torn:
                self._findings.add(f"{log.path.name} ends in half a line: {log.torn[:80]!r}")
        for seq in sorted(self._skipped):
            self._findings.add(f"the log lacks event {seq}")
        return self._findings.all()

    def tail(self, logs: list[_Log], mark: int | None, *, at_work: bool) -> list[Finding]:
        """Judge the end: what is committed but not yet written, half a line, what is left of a gc.

        Half a line of the very event that comes next is what a crash leaves. The next process
        that opens the store mends it.
        """
        found: list[Finding] = []
        if self._forgotten:
            message = f"{plural(self._forgotten, 'event')} of the log are forgotten by the store"
            advice = "`agentmux gc` removes them; it was cut short"
            found.append(Finding(Level.NOTE, "log", message, advice))
        torn = logs[-1].torn if logs else b""
        first = self._expected
        advice = _AT_WORK if at_work else _CATCHES_UP
        half = first is not None and bool(torn) and first.line.startswith(torn)
        if torn and not half:
            message = f"the log ends in half a line that is no event: {torn[:80]!r}"
            found.append(Finding(Level.ERROR, "log", message, advice))
        if first is None:
            return found
        missing = plural(1 + sum(1 for _ in self._rows), "event")
        if half or (mark is not None and first.seq > mark) or (mark is None and at_work):
            message = f"the log is {missing} behind its table"
            message += ", the first of them half-written" if half else ""
            found.append(Finding(Level.NOTE, "log", message, advice))
        else:
            message = f"the log lacks its last {missing}, from {first.seq} on"
            found.append(Finding(Level.ERROR, "log", message, advice))
        return found
