"""The floor: a bare sqlite3 loop that commits the same rows, one task in one transaction, FULL.

Same schema, same indexes and triggers, same values; no claim query, no fencing, no dependents, no
asyncio. Three transitions and three events for each task, and its run.
"""

from __future__ import annotations

import sqlite3
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from engine.clock import to_iso
from engine.store.claims import new_run_id

if TYPE_CHECKING:
    from pathlib import Path

_EVENT = (
    "INSERT INTO events(ts, type, agent, worker_id, task_id, run_id, state, data)"
    " VALUES (?, ?, 'codex', 'codex-1', ?, ?, ?, ?)"
)


def drain(database: Path, tasks: int) -> float:
    """Carry `tasks` seeded tasks `t0`, `t1`, … through their life; return the seconds it took."""
    db = sqlite3.connect(database, isolation_level=None)
    db.execute("PRAGMA synchronous=FULL")
    begin = time.perf_counter()
    for number in range(tasks):
        _one(db, f"t{number}")
    took = time.perf_counter() - begin
    db.close()
    return took


def _one(db: sqlite3.Connection, task: str) -> None:
    now = datetime.now(UTC)
    ts, run = to_iso(now), new_run_id(now)
    db.execute("BEGIN IMMEDIATE")
    db.execute(
        "UPDATE tasks SET state = 'CLAIMED', attempts = 1, run_id = ?, claimed_by = 'codex-1',"
        " lease_until = ?, updated_at = ? WHERE id = ?",
        (run, ts, ts, task),
    )
    db.execute(_EVENT, (ts, "TASK_CLAIMED", task, run, "CLAIMED", '{"attempt":1,"attempts":1}'))
    db.execute(
        "INSERT INTO runs(id, task_id, agent, worker_id, attempt, claimed_at, host_pid,"
        " host_started) VALUES (?, ?, 'codex', 'codex-1', 1, ?, 1, '1')",
        (run, task, ts),
    )
    db.execute("UPDATE tasks SET state = 'RUNNING', updated_at = ? WHERE id = ?", (ts, task))
    db.execute("UPDATE runs SET started_at = ? WHERE id = ?", (ts, run))
    db.execute(_EVENT, (ts, "TASK_STARTED", task, run, "RUNNING", "{}"))
    db.execute(
        "UPDATE tasks SET state = 'DONE', run_id = NULL, claimed_by = NULL, lease_until = NULL,"
        " updated_at = ? WHERE id = ?",
        (ts, task),
    )
    result = '{"slept":0}'
    db.execute(
        "UPDATE runs SET outcome = 'done', ended_at = ?, result = ? WHERE id = ?",
        (ts, result, run),
    )
    data = f'{{"outcome":"done","result":{result}}}'
    db.execute(_EVENT, (ts, "TASK_COMPLETED", task, run, "DONE", data))
    db.execute("COMMIT")
