"""events.jsonl against the events table: nothing missing, doubled, foreign, moved or changed.

Reads in short steps and holds no snapshot: events are only ever added. A log that lags is no
fault while somebody is at work on it; what this must not do is mend it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from engine.findings import Finding, Findings, Level
from engine.store.audit import open_for_reading
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
_WATCH = 1.0
"""Seconds in which a log that lags must grow if somebody is at work on it."""


class _Row(NamedTuple):
    seq: int
    line: bytes


@dataclass(slots=True)
class _Log:
    """A log file as far as it went when we began: what is appended later is not looked at."""

    path: Path
    file: BinaryIO
    size: int
    torn: bytes = b""

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """Yield where each whole line is, and the line; keep what follows the last as `torn`."""
        read = 0
        for number, line in enumerate(self.file, 1):
            read += len(line)
            if read > self.size or not line.endswith(b"\n"):
                self.torn = line[: len(line) - max(0, read - self.size)]
                return
            yield f"line {number} of {self.path.name}", line[:-1]
            if read == self.size:
                return

    def grows(self) -> bool:
        """Watch for a moment whether somebody appends."""
        deadline = time.monotonic() + _WATCH
        while time.monotonic() < deadline:
            if os.fstat(self.file.fileno()).st_size != self.size:
                return True
            time.sleep(_WATCH / 20)
        return False


def check_log(layout: Layout, *, at_work: bool) -> list[Finding]:
    """Compare the log, rotated files first, with the events table, line by line.

    `at_work`: some process holds workers, so the end of the log may lag. Blocks for about 6 s for
    a million events; call it off the event loop. What cannot be read is a finding.
    """
    try:
        with ExitStack() as stack:
            logs = [_open(path, stack) for path in _paths(layout)]
            db = stack.enter_context(closing(open_for_reading(layout.database)))
            # After the sizes: every line up to them was committed before it was written.
            last = int(db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])
            comparison = _Comparison(db, last)
            for log in logs:
                comparison.read(log)
            return [*comparison.found(), *comparison.tail(logs, at_work=at_work)]
    except (OSError, sqlite3.Error) as error:
        return [Finding(Level.ERROR, "log", f"the log cannot be compared with its table: {error}")]


def _paths(layout: Layout) -> list[Path]:
    """Return the files of the log, oldest first: their stamps sort as text."""
    rotated = sorted(layout.state.glob("events.*.jsonl"))
    return [*rotated, layout.log] if layout.log.exists() else rotated


def _open(path: Path, stack: ExitStack) -> _Log:
    file = stack.enter_context(path.open("rb"))
    return _Log(path, file, os.fstat(file.fileno()).st_size)


class _Comparison:
    """Walks along the rows; `expected` is the first one whose line did not come yet."""

    def __init__(self, db: sqlite3.Connection, last: int) -> None:
        self._db = db
        self._last = last
        self._rows = self._read_rows()
        self._expected = next(self._rows, None)
        self._skipped: set[int] = set()
        self._findings = Findings("log")

    def _read_rows(self) -> Iterator[_Row]:
        seq = 0
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

    def read(self, log: _Log) -> None:
        """Compare the lines of one file."""
        for place, line in log.lines():
            if self._expected is not None and line == self._expected.line:
                self._advance()
            else:
                self._judge(place, line)

    def _judge(self, place: str, line: bytes) -> None:
        """Say what is wrong with a line that is not the expected one, and find the way on."""
        seq = _seq_of(line)
        if seq is None:
            self._findings.add(f"{place} is no event: {line[:80]!r}")
            return
        if self._expected is not None and seq == self._expected.seq:
            self._findings.add(f"{place} does not say what the events table says of event {seq}")
            self._advance()
            return
        row = self._db.execute(_ROW, (seq,)).fetchone()
        if row is None:
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

    def found(self) -> list[Finding]:
        """Return what is wrong up to the last line."""
        for seq in sorted(self._skipped):
            self._findings.add(f"the log lacks event {seq}")
        return self._findings.all()

    def tail(self, logs: list[_Log], *, at_work: bool) -> list[Finding]:
        """Judge the end: what is committed but not yet written, and half a line.

        Half a line of the very event that comes next is what a crash leaves. The next process
        that opens the store mends it.
        """
        found: list[Finding] = []
        for log in logs[:-1]:
            if log.torn:
                message = f"{log.path.name} ends in half a line: {log.torn[:80]!r}"
                found.append(Finding(Level.ERROR, "log", message))
        torn = logs[-1].torn if logs else b""
        first = self._expected
        if first is not None:
            missing = 1 + sum(1 for _ in self._rows)
            message = f"the log lacks its last {plural(missing, 'event')}, from {first.seq} on"
            message += ", and ends in half a line" if torn else ""
        elif torn:
            message = f"the log ends in half a line that is no event: {torn[:80]!r}"
        else:
            return found
        crashed = first is not None and bool(torn) and first.line.startswith(torn)
        lags = at_work or crashed or (bool(logs) and logs[-1].grows())
        mended = (
            "whoever is at work mends it"
            if at_work
            else "any command that writes to the store, `agentmux resume` for one, mends it"
        )
        found.append(Finding(Level.NOTE if lags else Level.ERROR, "log", f"{message}; {mended}"))
        return found


def _seq_of(line: bytes) -> int | None:
    """Return the seq that a line names, None if it is no event at all."""
    try:
        seq = json.loads(line)["seq"]
    except (ValueError, KeyError, TypeError):
        return None
    return seq if type(seq) is int and abs(seq) < 1 << 63 else None
