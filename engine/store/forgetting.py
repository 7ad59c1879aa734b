"""What the events table may lack: what was forgotten on purpose, and what was lost for good.

The oldest events may be forgotten once nothing that is still there was told in them.

The log is the backup of the store: a corrupt database is rebuilt by folding it. So events go only
from the front, up to a RESET where a file of the log begins, and only if all that a rebuild needs
comes later: the creation of every task, of every purged one that others still depend on, every
hold that still holds, and every alert that nobody has acknowledged. What is left folds to the same
tasks then (`fold` skips what it hears of a task whose creation it did not hear). A log that still
holds the creation of one living task stays, however old it is; purging the task frees it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.errors import CommandNotAllowed
from engine.model import ADOPTED
from engine.store.transaction import dump
from engine.text import plural

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from engine.store.transaction import Transaction

LOG_FROM = "log_from"
"""The key in `meta` of the first seq that table and log must hold; none: all of them."""
LOST = "lost"
"""The key in `meta` of the seqs that a rebuild found nowhere, as JSON: pairs of first and last."""

_GAPS_TOLD = 5

_NOTE = "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
_GAPS = (
    "SELECT before + 1, seq - 1 FROM (SELECT seq, lag(seq, 1, ?1 - 1) OVER (ORDER BY seq) AS before"
    " FROM events WHERE seq >= ?1) WHERE seq > before + 1"
)

# The first event after `upto` is nearly always the creation that is looked for, so this is one
# step down the index a task. What an older agentmux left (`adopted`) rebuilds nothing.
_UNTOLD = (
    "SELECT id FROM (SELECT id FROM tasks UNION ALL SELECT id FROM purged"
    " UNION ALL SELECT task_id FROM endings) named WHERE NOT EXISTS (SELECT 1 FROM events e"
    " INDEXED BY events_of_task WHERE e.task_id = named.id AND e.seq > ?1"
    f" AND e.type = 'TASK_CREATED' AND json_extract(e.data, '$.{ADOPTED}') IS NULL) LIMIT 1"
)
_HELD_BEFORE = (
    "SELECT agent FROM holds h WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.seq > ?1"
    " AND e.type = 'HELD' AND e.agent = h.agent) LIMIT 1"
)
_ALERTED_BEFORE = (
    "SELECT id FROM alerts WHERE acknowledged_at IS NULL"
    " AND ts <= (SELECT ts FROM events WHERE seq = ?1) LIMIT 1"
)
_DELETE = (
    "DELETE FROM events WHERE seq <= (SELECT max(seq) FROM"
    " (SELECT seq FROM events WHERE seq <= ? ORDER BY seq LIMIT ?))"
)


class Gap(NamedTuple):
    """Seqs that are not in the events table, from the first to the last."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """How many they are."""
        return self.last - self.first + 1

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"


def in_words(gaps: Sequence[Gap]) -> str:
    """Say how many events are missing, and which: the first few by their seqs."""
    count = plural(sum(gap.size for gap in gaps), "event")
    more = ", …" if len(gaps) > _GAPS_TOLD else ""
    return f"{count} ({', '.join(map(str, gaps[:_GAPS_TOLD]))}{more})"


def log_from(db: sqlite3.Connection) -> int:
    """Return the first seq that table and log must hold; what lies before may be gone."""
    seq = _read(_value(db, LOG_FROM))
    return seq if type(seq) is int else 1


def gaps(db: sqlite3.Connection) -> list[Gap]:
    """Return what the table must hold and does not, but for what is known to be lost."""
    lost = lost_for_good(db)
    return [
        gap
        for gap in (Gap(*row) for row in db.execute(_GAPS, (log_from(db),)))
        if not any(known.first <= gap.first and gap.last <= known.last for known in lost)
    ]


def lost_for_good(db: sqlite3.Connection) -> list[Gap]:
    """Return the seqs of which nothing tells any more, since a rebuild did not find them."""
    begin = log_from(db)
    return [gap for gap in read_lost(_value(db, LOST)) if gap.last >= begin]


def read_lost(value: object) -> list[Gap]:
    """Return the gaps that the value of LOST tells of; none if it is not what was written there."""
    noted = _read(value)
    pairs = noted if type(noted) is list else []
    return [Gap(*pair) for pair in pairs if _is_pair(pair)]


def _value(db: sqlite3.Connection, key: str) -> object:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return row[0] if row is not None else None


def _read(value: Any) -> object:
    """Return what a value of `meta` says; None if that is nothing, or no JSON: it was edited."""
    try:
        return json.loads(value)
    except (ValueError, TypeError):
        return None


def _is_pair(pair: object) -> bool:
    return type(pair) is list and len(pair) == 2 and all(type(seq) is int for seq in pair)


def note_missing(db: sqlite3.Connection) -> list[Gap]:
    """Note where table and log begin and what is lost, once a rebuild has read all there is.

    Return the latter. Only what was forgotten is missing before a RESET: a log whose oldest file
    was lost cannot be told apart from it, but then events of tasks that nobody created follow.
    """
    first = db.execute("SELECT seq, type FROM events ORDER BY seq LIMIT 1").fetchone()
    if first is not None and first[0] > 1 and first[1] == "RESET":
        db.execute(_NOTE, (LOG_FROM, str(first[0])))
    lost = gaps(db)
    if lost:
        db.execute(_NOTE, (LOST, dump(lost)))
    return lost


def still_needed(db: sqlite3.Connection, upto: int) -> str | None:
    """Say in a sentence why the events up to this seq cannot be forgotten; None: they can.

    What may be forgotten once may be so for ever: tasks only come, later than this, or go.
    """
    begins = db.execute("SELECT type FROM events WHERE seq = ?", (upto + 1,)).fetchone()
    if begins is None or begins[0] != "RESET":
        return f"no file of the log begins behind event {upto}"
    task = db.execute(_UNTOLD, (upto,)).fetchone()
    if task is not None:
        return f"task {task[0]!r} was created before it ends and is not purged"
    hold = db.execute(_HELD_BEFORE, (upto,)).fetchone()
    if hold is not None:
        return f"the hold of {hold[0]} began before it ends"
    alert = db.execute(_ALERTED_BEFORE, (upto,)).fetchone()
    if alert is not None:
        return f"alert {alert[0]} was raised before it ends and is not acknowledged"
    return None


def forget(tx: Transaction, *, upto: int, at_most: int) -> int:
    """Remove up to `at_most` of the events up to a seq, oldest first; return how many. 0: all done.

    In steps, so that nobody waits long for the write lock: the first one says for good where
    table and log begin from now on, so nothing between two steps is inconsistent.

    Raises:
        CommandNotAllowed: a rebuild would need one of them.

    """
    if log_from(tx.db) <= upto:
        reason = still_needed(tx.db, upto)
        if reason is not None:
            raise CommandNotAllowed(f"the events up to {upto} cannot go: {reason}")
        tx.db.execute(_NOTE, (LOG_FROM, str(upto + 1)))
    gone = tx.db.execute(_DELETE, (upto, at_most)).rowcount
    tx.bulk += gone
    return gone
