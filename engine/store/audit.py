"""The database against itself: what `doctor` asks of it. Reads only, from a file opened read-only.

All that is compared is read in one snapshot, and a large store costs time but no memory. Says what
differs; mends nothing and knows no process and no file.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from engine.findings import NO_TAMPERING, REBUILD, REPAIR, Finding, Findings, Level
from engine.store import derived
from engine.store.counting import miscounted
from engine.store.database import (
    SAFE_SQLITE,
    SCHEMA_VERSION,
    is_damage,
    other_schema,
    remedy,
    schema_names,
    schema_version,
)
from engine.store.foldcheck import check_fold
from engine.store.forgetting import gaps, in_words, log_from, lost_for_good
from engine.store.rows import WORKER, read_worker
from engine.store.vitals import holding_runs, open_for_reading
from engine.text import plural

if TYPE_CHECKING:
    from pathlib import Path

UNREADABLE = "access"
"""The check of a database that the disk or its permissions keep from us: it may well be sound."""

_LEFT_BEHIND = (
    "SELECT id, state, run_id, claimed_by FROM tasks WHERE state NOT IN ('CLAIMED', 'RUNNING')"
    " AND (run_id IS NOT NULL OR claimed_by IS NOT NULL OR lease_until IS NOT NULL)"
)
_DOUBLY = (
    "SELECT id, state, ending FROM tasks"
    " WHERE state IN ('CLAIMED', 'RUNNING') AND ending IS NOT NULL"
)


def audit(database: Path) -> list[Finding]:
    """Check a database: its pages, and all that can be derived from something else in it.

    Blocks for about 16 s for a million events; call it off the event loop. What cannot be read is a
    finding, not an exception.
    """
    try:
        with closing(open_for_reading(database)) as db:
            # Pages that are damaged make every further answer worthless.
            return _schema(db) or _integrity(db) or _snapshot(db)
    except sqlite3.Error as error:
        message = f"{database} cannot be read: {error}"
        if is_damage(error) or not os.path.lexists(database):
            return [Finding(Level.ERROR, "integrity", message, REBUILD)]
        return [Finding(Level.ERROR, UNREADABLE, message, remedy(error) or NO_TAMPERING)]


def events_are_whole(database: Path) -> bool:
    """Whether the events table lacks nothing that is not known to be lost.

    What cannot be read is not whole.
    """
    try:
        with closing(open_for_reading(database)) as db:
            return not gaps(db)
    except sqlite3.Error:
        return False


def sqlite_trouble() -> list[Finding]:
    """Say whether this SQLite can corrupt a WAL when a commit races a checkpoint."""
    if sqlite3.sqlite_version_info >= SAFE_SQLITE:
        return []
    safe = ".".join(map(str, SAFE_SQLITE))
    message = (
        f"SQLite {sqlite3.sqlite_version} has the WAL-reset bug, mended in {safe}; "
        "agentmux works around it, other programs that write to the store do not"
    )
    advice = f"let no other program write to the store, or use a Python with SQLite {safe}"
    return [Finding(Level.NOTE, "sqlite", message, advice)]


def _schema(db: sqlite3.Connection) -> list[Finding]:
    version = schema_version(db)
    if version == SCHEMA_VERSION:
        return []
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    what, advice = other_schema(version, tables=tables)
    return [Finding(Level.ERROR, "schema", f"the store {what}", advice)]


def _integrity(db: sqlite3.Connection) -> list[Finding]:
    found = Findings("integrity", advice=REBUILD)
    there = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
    for name in sorted(schema_names() - there):
        found.add(f"the database has no {name}")
    for (answer,) in db.execute("PRAGMA integrity_check"):
        if answer != "ok":
            found.add(f"SQLite: {answer}")
    for table, rowid, parent, _ in db.execute("PRAGMA foreign_key_check"):
        found.add(f"SQLite: row {rowid} of {table} points at nothing in {parent}")
    return found.all()


def _snapshot(db: sqlite3.Connection) -> list[Finding]:
    db.execute("BEGIN")
    try:
        return [
            *_events(db),
            *_workers(db),
            *check_fold(db),
            *_derived(db),
            *_purged(db),
            *_endings(db),
            *_claims(db),
        ]
    finally:
        db.execute("ROLLBACK")


def _events(db: sqlite3.Connection) -> list[Finding]:
    found = Findings("events", advice=NO_TAMPERING)
    begin = log_from(db)
    for gap in gaps(db):
        if gap.first == begin:
            found.add(f"the events table begins with {gap.last + 1}, not with {begin}")
        else:
            between = f"between {gap.first - 1} and {gap.last + 1}"
            found.add(f"the events table has nothing {between}: {gap.size} lost")
    lost = lost_for_good(db)
    if lost:
        message = f"when the store was rebuilt, {in_words(lost)} could be found nowhere"
        advice = "what they told is lost; what was damaged lies in state/quarantine"
        return [*found.all(), Finding(Level.NOTE, "events", message, advice)]
    return found.all()


def _workers(db: sqlite3.Connection) -> list[Finding]:
    """Check that every worker can be read, also one that is long over: lists show them all."""
    found = Findings("workers", advice=NO_TAMPERING)
    for row in db.execute(f"SELECT {WORKER.columns} FROM workers w {WORKER.join}"):
        try:
            read_worker(row, lambda _host: False)
        except (ValueError, TypeError) as error:
            found.add(f"worker {row[0]!r} cannot be read: {error}")
    return found.all()


def _derived(db: sqlite3.Connection) -> list[Finding]:
    found = Findings("derived")
    for task_id, _, pending, right_pending, broken, right_broken in db.execute(derived.COUNTS):
        found.add(
            f"task {task_id!r}: its deps make pending {right_pending} and broken {right_broken}, "
            f"the table says {pending} and {broken}"
        )
    for what, query in (
        ("is missing from", derived.MISSING_EDGES),
        ("does not belong into", derived.FOREIGN_EDGES),
    ):
        for dep, task_id in db.execute(query):
            found.add(f"task {task_id!r}: its dep {dep!r} {what} the edges table")
    counted = {row[:3]: row[3] for row in db.execute(derived.COUNTED)}
    tallies = {row[:3]: row[3] for row in db.execute(derived.TALLIES)}
    for key in sorted({*counted, *tallies}):
        right, tally = counted.get(key, 0), tallies.get(key, 0)
        if right != tally:
            agent, state, waiting = key
            found.add(
                f"{agent} has {plural(right, 'task')} {state}{' (waiting)' if waiting else ''}, "
                f"the tallies table says {tally}"
            )
    wrong = derived.misspent(db.execute(derived.SPENT), db.execute(derived.SPENT_NOW))
    for agent, (told, spent) in sorted(wrong.items()):
        found.add(
            f"the runs of {agent} took {list(told)}, the spent table says {list(spent)} (runs,"
            " priced, unpriced, free, tokens read, from a cache, written, US dollars)"
        )
    for key, (has, right) in miscounted(db, whole=log_from(db) == 1).items():
        found.add(f"the counters table says {list(has)} of {list(key)}, the events {list(right)}")
    return found.all()


def _purged(db: sqlite3.Connection) -> list[Finding]:
    found = Findings("purged")
    for (task_id,) in db.execute(derived.PURGED_THERE):
        found.add(f"task {task_id!r} is there, but the purged table has it too")
    for task_id, met, right in db.execute(derived.PURGED_WRONG):
        words = ("unfinished", "done")
        found.add(
            f"task {task_id!r} was {words[right]} when it was purged, the purged table says "
            f"{words[bool(met)]}"
        )
    missing = {dep for dep, _ in db.execute(derived.PURGED_MISSING)}
    for dep in sorted(missing):
        found.add(f"task {dep!r} was purged and others depend on it; the purged table lacks it")
    lost = Findings("deps", advice="seed a DAG that has the dep, or purge the task")
    for task_id, dep in db.execute(derived.UNKNOWN):
        if dep not in missing:
            lost.add(f"task {task_id!r}: its dep {dep!r} is neither there nor purged")
    return [*found.all(), *lost.all()]


def _endings(db: sqlite3.Connection) -> list[Finding]:
    found = Findings("endings")
    for task_id, run_id in db.execute(derived.ENDING_LOST):
        found.add(
            f"task {task_id!r} waits for the end of run {run_id}, which the endings table lacks"
        )
    for task_id, run_id in db.execute(derived.ENDING_UNSEEN):
        found.add(
            f"task {task_id!r} does not wait for its former run {run_id}, which is being ended"
        )
    for task_id, state, run_id in db.execute(_DOUBLY):
        found.add(f"task {task_id!r} is {state} while its former run {run_id} is being ended")
    return found.all()


def _claims(db: sqlite3.Connection) -> list[Finding]:
    """Check that exactly the active tasks are held, each by one open run of its own."""
    found = Findings("claims", advice=f"{REPAIR} if the log knows more; else, {NO_TAMPERING}")
    for task_id, state, run_id, worker in db.execute(_LEFT_BEHIND):
        found.add(f"task {task_id!r} is {state}, but run {run_id} of {worker} still holds it")
    try:
        flaws = [run.flaw for run in holding_runs(db) if run.flaw]
    except ValueError as error:
        flaws = [f"active runs cannot be read: {error}"]
    for flaw in flaws:
        found.add(flaw)
    for run_id, task_id in db.execute(derived.OPEN_RUNS):
        found.add(f"run {run_id} of {task_id!r} has not ended, but does not hold its task")
    return found.all()
