"""Tasks that go on only if a person says so: those that wait for somebody, those that failed.

Reads on a connection of its own: the failed ones stand in no index by age, and looking through a
hundred thousand must hold up nobody else's reads. What left the DAG and failed before needs nobody.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.clock import from_iso
from engine.errors import StorageError
from engine.store.database import storage_error
from engine.store.rows import ON_SCREEN
from engine.store.vitals import open_for_reading

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

_SHOWN = "id, state, error, attempts, retries, removed, updated_at"
_HUMAN = "FROM tasks WHERE state = 'BLOCKED' AND instr(reasons, 'human') > 0"
_FAILED = f"FROM tasks WHERE {ON_SCREEN} = 2 AND removed = 0"


class NeedyTask(Struct, frozen=True):
    """A task that waits for a person since then. `failed`: it is FAILED, else BLOCKED `human`.

    `removed`: it left the DAG.
    """

    id: str
    failed: bool
    error: str | None
    attempts: int
    retries: int
    removed: bool
    since: datetime


class NeedyTasks(Struct, frozen=True):
    """Those that have waited longest, oldest first, and how many more of either kind there are."""

    tasks: tuple[NeedyTask, ...] = ()
    more_blocked: int = 0
    more_failed: int = 0


def read_needs(database: Path, limit: int) -> NeedyTasks:
    """Return the `limit` tasks that have waited longest; blocks while it reads.

    Raises:
        StorageError: the database cannot be read.

    """
    try:
        with closing(open_for_reading(database)) as db:
            found: list[NeedyTask] = []
            for condition in (_HUMAN, _FAILED):
                rows = db.execute(
                    f"SELECT {_SHOWN} {condition} ORDER BY updated_at, id LIMIT ?", (limit,)
                )
                found += map(_read, rows)
            found.sort(key=lambda task: (task.since, task.id))
            blocked, failed = (
                _count(db, condition, sum(task.failed is is_failed for task in found), limit)
                for condition, is_failed in ((_HUMAN, False), (_FAILED, True))
            )
    except sqlite3.Error as error:
        raise storage_error(error, database) from error
    except (ValueError, TypeError) as error:
        raise StorageError(f"{database}: {error}; run `agentmux doctor`") from error
    told = found[:limit]
    told_failed = sum(task.failed for task in told)
    return NeedyTasks(tuple(told), blocked - (len(told) - told_failed), failed - told_failed)


def _count(db: sqlite3.Connection, condition: str, found: int, limit: int) -> int:
    """Count those that match, if `found` of them filled the limit."""
    return (
        int(db.execute(f"SELECT count(*) {condition}").fetchone()[0]) if found >= limit else found
    )


def _read(row: tuple[str, str, str | None, int, int, int, str]) -> NeedyTask:
    task_id, state, error, attempts, retries, removed, since = row
    return NeedyTask(
        task_id, state == "FAILED", error, attempts, retries, bool(removed), from_iso(since)
    )
