"""What the store may forget: the oldest events, once nothing that is still there was told in them.

The log is the backup of the store: a corrupt database is rebuilt by folding it. So events go only
from the front, up to a RESET where a file of the log begins, and only if all that a rebuild needs
comes later: the creation of every task, of every purged one that others still depend on, and
every hold that still holds. What is left folds to the same tasks then (`fold` skips what it hears
of a task whose creation it did not hear). A log that still holds the creation of one living task
stays, however old it is; purging the task frees it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import CommandNotAllowed
from engine.model import ADOPTED

if TYPE_CHECKING:
    import sqlite3

    from engine.store.transaction import Transaction

LOG_FROM = "log_from"
"""The key in `meta` of the first seq that table and log must hold; none: all of them."""

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
_DELETE = (
    "DELETE FROM events WHERE seq <= (SELECT max(seq) FROM"
    " (SELECT seq FROM events WHERE seq <= ? ORDER BY seq LIMIT ?))"
)


def log_from(db: sqlite3.Connection) -> int:
    """Return the first seq that table and log must hold; what lies before may be gone."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (LOG_FROM,)).fetchone()
    return int(row[0]) if row is not None else 1


def begin_at_reset(db: sqlite3.Connection) -> int:
    """Note where table and log begin, after all events of the log were read into an empty table.

    Return that seq. Only what was forgotten is missing before a RESET: a log whose oldest file
    was lost cannot be told apart from it, but then events of tasks that nobody created follow.
    """
    first = db.execute("SELECT seq, type FROM events ORDER BY seq LIMIT 1").fetchone()
    if first is None or first[0] == 1 or first[1] != "RESET":
        return 1
    _begin(db, first[0])
    return int(first[0])


def _begin(db: sqlite3.Connection, seq: int) -> None:
    db.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        (LOG_FROM, str(seq)),
    )


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
        _begin(tx.db, upto + 1)
    gone = tx.db.execute(_DELETE, (upto, at_most)).rowcount
    tx.bulk += gone
    return gone
