"""A store from its log: all events of the log's files into an empty database, then all tables.

Reads the log, and of a damaged database what the log lacks; writes to the new database and to the
file of bad lines, and to nothing else. What becomes of the files is decided in `opening`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from engine.commands import Step
from engine.files import private
from engine.logfiles import find_end, log_files, open_log, read_mark
from engine.store.database import BUSY_MS, Connection
from engine.store.forgetting import Gap, note_missing
from engine.store.recovery.loglines import Row, read_line
from engine.store.recovery.refolding import Refolded, refold

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from engine.commands import OnStep
    from engine.files import Layout

_ADD_EVENT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_KNOWN = "SELECT 1 FROM events WHERE seq = ?"
_GAPS = (
    "SELECT before, seq FROM (SELECT seq, lag(seq, 1, 0) OVER (ORDER BY seq) AS before FROM events)"
    " WHERE seq > before + 1"
)
_LINES = "SELECT seq, line FROM event_lines WHERE seq > ? AND seq < ? ORDER BY seq"
_BEYOND = (1 << 63) - 1
_AT_ONCE = 2000


class Rebuilt(Struct, frozen=True):
    """What was rebuilt. `events` are those of the log, `salvaged` those of the damaged database.

    `bad` lines are no events, or come a second time; `first_bad` says where the first one is.
    `missing` are the events that nothing tells of any more.
    """

    tables: Refolded
    events: int
    salvaged: int
    bad: int
    first_bad: str
    missing: tuple[Gap, ...]


class Line(NamedTuple):
    """A line of the log, without its line end, and where it is."""

    path: Path
    number: int
    text: bytes


def rebuild(
    layout: Layout,
    new: sqlite3.Connection,
    *,
    damaged: Path | None,
    bad_lines: Path,
    now: datetime,
    on_step: OnStep,
) -> Rebuilt:
    """Fill `new`, an empty database of today's schema, from the log, in one transaction.

    `damaged`: a database that may still hold events which the log lacks, None if there is none.
    `bad_lines`: where copies of the lines go that are no events; not made if there are none.

    Raises:
        sqlite3.Error, OSError: the log or the disk failed; `new` is of no use then.

    """
    new.execute("BEGIN")
    loading = _Loading(new, bad_lines, on_step)
    with _index_later(new, "events"):
        for path in log_files(layout):
            loading.read(path)
        loading.end()
        salvaged = _salvage(new, damaged) if damaged is not None else 0
    missing = note_missing(new)
    last = int(new.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])
    if (mark := read_mark(layout)) is not None and mark > last:
        missing.append(Gap(last + 1, mark))
    tables = refold(new, now, lambda count: on_step(Step("rebuilding tasks", count)))
    new.execute("COMMIT")
    return Rebuilt(
        tables=tables,
        events=loading.count,
        salvaged=salvaged,
        bad=loading.bad,
        first_bad=loading.first_bad,
        missing=tuple(missing),
    )


@contextmanager
def _index_later(db: sqlite3.Connection, table: str) -> Iterator[None]:
    """Fill a table first and make its indexes then: an index that is made at once is faster."""
    indexes = db.execute(
        "SELECT name, sql FROM sqlite_master"
        " WHERE type = 'index' AND tbl_name = ? AND sql NOT NULL",
        (table,),
    ).fetchall()
    for name, _ in indexes:
        db.execute(f"DROP INDEX {name}")
    yield
    for _, sql in indexes:
        db.execute(sql)


def last_logged(layout: Layout) -> int:
    """Return the seq of the last event in the log, 0 if it holds none. Reads the end only.

    Raises:
        OSError: a file cannot be read.

    """
    for path in reversed(log_files(layout)):
        try:
            with open_log(path) as file:
                end = find_end(file.fileno())
        except FileNotFoundError:  # another process has just rotated it
            return last_logged(layout)
        if end.seq:
            return end.seq
    return 0


def is_behind(db: sqlite3.Connection, layout: Layout) -> bool:
    """Say whether a database has lost its last events: the log goes on where it ends.

    Events are in the log only after they were committed. One line that tells of the future is
    no proof, for a damaged digit can do that: the log must tell of the next event, and of the
    last known one as the database does. Cheap unless there is such a line.

    Raises:
        sqlite3.Error, OSError: one of them cannot be read.

    """
    known, following = _compare_ends(db, layout)
    return known and following


def knows_more(db: sqlite3.Connection, layout: Layout) -> bool:
    """Say whether the log tells of the event that comes next in a database.

    Either the database `is_behind`, or the two went different ways: then an older database was
    put in its place, and only a person can tell which of them to believe.

    Raises:
        sqlite3.Error, OSError: one of them cannot be read.

    """
    return _compare_ends(db, layout)[1]


def _compare_ends(db: sqlite3.Connection, layout: Layout) -> tuple[bool, bool]:
    """Say whether the log has the last event of a database, and whether it has the next one.

    Both False, and cheap, unless the log ends with a later event.
    """
    logged = last_logged(layout)
    row = db.execute("SELECT seq, line FROM event_lines ORDER BY seq DESC LIMIT 1").fetchone()
    last, line = row or (0, "")
    if logged <= last:
        return False, False
    known, following = last == 0, False
    ours, next_one = line.encode(), b'{"seq":%d,' % (last + 1)
    for path in log_files(layout):
        for found in _lines(path):
            known = known or found.text == ours
            following = following or (
                found.text.startswith(next_one) and read_line(found.text) is not None
            )
    return known, following


def _lines(path: Path) -> Iterator[Line]:
    with open_log(path) as file:
        for number, text in enumerate(file, 1):
            yield Line(path, number, text.removesuffix(b"\n"))


class _Loading:
    """Lines of the log on their way into the events table, some at a time.

    A line can be looked at only once the next one is known: one whose seq is far ahead of both
    its neighbours has a damaged digit, and would be told after all others.
    """

    def __init__(self, db: sqlite3.Connection, bad_lines: Path, on_step: OnStep) -> None:
        self._db = db
        self._bad_lines = bad_lines
        self._on_step = on_step
        self._rows: list[Row] = []
        self._held: tuple[Line, Row] | None = None
        self._last = 0
        self._highest = 0
        self.count = 0
        self.bad = 0
        self.first_bad = ""

    def read(self, path: Path) -> None:
        """Take the lines of a file."""
        for line in _lines(path):
            row = read_line(line.text)
            if row is None:
                self._refuse(line)
                continue
            held, self._held = self._held, (line, row)
            if held is None:
                continue
            if self._last < row.seq < held[1].seq:
                self._refuse(held[0])
            else:
                self._take(*held)

    def end(self) -> None:
        """Write what is left."""
        if self._held is not None:
            self._take(*self._held)
        self._flush()

    def _take(self, line: Line, row: Row) -> None:
        self._last = row.seq
        if row.seq <= self._highest:
            self._flush()
            if self._db.execute(_KNOWN, (row.seq,)).fetchone() is not None:
                self._refuse(line)
                return
        self._highest = max(self._highest, row.seq)
        self._rows.append(row)
        if len(self._rows) == _AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        self._db.executemany(_ADD_EVENT, self._rows)
        self.count += len(self._rows)
        self._rows.clear()
        self._on_step(Step("reading the log", self.count, next="rebuilding tasks"))

    def _refuse(self, line: Line) -> None:
        if not self.bad:
            self.first_bad = f"line {line.number} of {line.path.name}"
        self.bad += 1
        with open(self._bad_lines, "ab", opener=private) as file:
            file.write(line.text + b"\n")


def _salvage(new: sqlite3.Connection, damaged: Path) -> int:
    """Take over the events that the log lacks from a damaged database, as far as it can be read.

    Behind the log's end only what follows without a gap: what a damaged file says of the distant
    future is not to be trusted.
    """
    gaps = new.execute(_GAPS).fetchall()
    last = int(new.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])
    found: list[Row] = []
    # Whoever closes it last would move its -wal into it; the caller has it open, too.
    uri = f"{damaged.absolute().as_uri()}?mode=ro"
    seconds = BUSY_MS / 1000
    with closing(sqlite3.connect(uri, uri=True, timeout=seconds, factory=Connection)) as old:
        for before, seq in gaps:
            found += _readable(old, before, seq)
        for row in _readable(old, last, _BEYOND):
            if row.seq != last + 1:
                break
            found.append(row)
            last = row.seq
    new.executemany(_ADD_EVENT, found)
    return len(found)


def _readable(old: sqlite3.Connection, after: int, before: int) -> Iterator[Row]:
    """Yield the events between two seqs, as far as a damaged database can be read."""
    try:
        for seq, text in old.execute(_LINES, (after, before)):
            row = read_line(text.encode()) if type(text) is str else None
            if row is not None and row.seq == seq:
                yield row
    except sqlite3.Error:
        return  # It is damaged, which is why we are here; what lies behind this page is lost.
