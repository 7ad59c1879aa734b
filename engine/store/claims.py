"""Getting and keeping a task: claim, start, progress, renew, and what ends a backoff.

Every function is one change, called inside a transaction on the writer's thread. Whatever names a
run is fenced by it: a run that no longer holds its task changes nothing (DESIGN §4.1).
"""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from engine.clock import to_iso
from engine.machine import LONGEST_BACKOFF, Trigger, check
from engine.model import ALL_AGENTS, Claim, EventType, ProcessId, State, TaskDef
from engine.store.held import EXPIRE, read_held, tell
from engine.store.roster import lift_due
from engine.store.spending import BUDGET, COSTLY, budget_of, may_begin, note, note_late
from engine.store.transaction import ClaimRule, Transaction, dump

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.model import Spending

CLAIMABLE = "state = 'READY' AND pending = 0 AND not_before IS NULL AND ending IS NULL"
"""Spelled as in the index claimable."""
SET_BACK = "(not_before > ?2 AND updated_at > ?1)"
"""A wait that was written before the clock was set back (?1: now, ?2: the longest backoff from
now). What an agent's own limits ask for is longer than any backoff, but not from tomorrow."""
RUNNING = (
    "SELECT (SELECT count(*) FROM tasks WHERE agent = ?1 AND state IN ('CLAIMED', 'RUNNING'))"
    " + (SELECT count(*) FROM endings WHERE agent = ?1)"
)
"""The runs of an agent as its limit counts them: a tree that is being ended is still at work."""

_NEXT = (
    "SELECT id, name, deps, priority, timeout, retries, payload, attempts"
    " FROM tasks INDEXED BY claimable"
    f" WHERE agent = ?1 AND {CLAIMABLE}"
    # One that was told to stop, or that was ended from outside, takes nothing more.
    " AND NOT EXISTS (SELECT 1 FROM workers WHERE id = ?2 AND status <> 'live')"
    " ORDER BY priority DESC, position LIMIT 1"
)
_TAKE = (
    "UPDATE tasks SET state = ?, attempts = ?, run_id = ?, claimed_by = ?, lease_until = ?,"
    " timeout_at = ?, asked = NULL, updated_at = ? WHERE id = ?"
)


def claim(
    tx: Transaction,
    *,
    agent: str,
    worker_id: str,
    host: ProcessId,
    lease: float,
    preparing: frozenset[str] = frozenset(),
) -> Claim | None:
    """Give the worker the next task of its agent, under a fresh run id, or None.

    The task is RUNNING at once unless its kind is in `preparing`; then it is CLAIMED until
    `start`. `lease` is in seconds. Where a budget could be passed, the agent is held instead.
    """
    rule = tx.rules.get(agent)
    if rule is None:
        rule = tx.rules[agent] = _read_rule(tx, agent)
    if rule.held or _is_full(tx, agent, rule):
        return None
    row = tx.db.execute(_NEXT, (agent, worker_id)).fetchone()
    if row is None:
        return None
    task_id, name, deps, priority, timeout, retries, payload, attempts = row
    task = TaskDef(
        task_id,
        name,
        agent,
        () if deps == "[]" else tuple(json.loads(deps)),
        priority,
        timeout,
        retries,
        json.loads(payload),
    )
    kind = task.payload.get("kind")
    if rule.budget is not None and not may_begin(tx, agent, rule.budget, costly=kind == COSTLY):
        return None
    if rule.stagger and not _take_turn(tx, agent, rule.stagger):
        return None
    state = State.CLAIMED if kind in preparing else State.RUNNING
    lease_until = tx.now + timedelta(seconds=lease)
    made = Claim(new_run_id(tx.now), task, worker_id, attempts + 1, state, tx.now, lease_until)
    started = tx.ts if state is State.RUNNING else None
    tx.db.execute(
        _TAKE,
        (
            state,
            made.attempt,
            made.run_id,
            worker_id,
            tx.later(lease),
            tx.later(timeout) if started else None,
            tx.ts,
            task_id,
        ),
    )
    tx.add_run(
        made.run_id,
        task_id,
        agent,
        worker_id,
        made.attempt,
        tx.ts,
        started,
        host.pid,
        host.started,
    )
    names = {"agent": agent, "worker_id": worker_id, "task_id": task_id, "run_id": made.run_id}
    tx.event(
        EventType.TASK_CLAIMED,
        **names,
        state=State.CLAIMED,
        data={"attempt": made.attempt, "attempts": made.attempt},
    )
    if started:
        tx.event(EventType.TASK_STARTED, **names, state=State.RUNNING)
    return made


def _is_full(tx: Transaction, agent: str, rule: ClaimRule) -> bool:
    """Whether as many runs of an agent are at work as may be."""
    if rule.limit is None:
        return False
    return bool(tx.db.execute(RUNNING, (agent,)).fetchone()[0] >= rule.limit)


def _read_rule(tx: Transaction, agent: str) -> ClaimRule:
    row = tx.db.execute(
        "SELECT EXISTS(SELECT 1 FROM holds WHERE agent IN (?, ?)), run_limit, coalesce(stagger, 0),"
        " (SELECT value FROM meta WHERE key = ?) FROM (SELECT 1) LEFT JOIN agents ON name = ?",
        (ALL_AGENTS, agent, BUDGET, agent),
    ).fetchone()
    return ClaimRule(bool(row[0]), row[1], row[2], budget_of(row[3], agent))


def _take_turn(tx: Transaction, agent: str, stagger: float) -> bool:
    """Note a start if the last one is `stagger` seconds ago. False: it is not yet time."""
    return bool(
        tx.db.execute(
            "UPDATE agents SET last_start = ? WHERE name = ?"
            # In the future: the clock was set back since.
            " AND (last_start IS NULL OR last_start <= ? OR last_start > ?)",
            (tx.ts, agent, to_iso(tx.now - timedelta(seconds=stagger)), tx.ts),
        ).rowcount
    )


def start(tx: Transaction, *, run_id: str, task_id: str) -> bool:
    """CLAIMED → RUNNING. False: the run no longer holds the task."""
    task = read_held(tx, task_id)
    if task is None or task.run_id != run_id:
        return False
    check(Trigger.START, task_id, task.state)
    row = tx.db.execute("SELECT timeout FROM tasks WHERE id = ?", (task_id,)).fetchone()
    timeout_at = tx.later(row[0])
    tx.db.execute(
        "UPDATE tasks SET state = 'RUNNING', timeout_at = ?, updated_at = ? WHERE id = ?",
        (timeout_at, tx.ts, task_id),
    )
    tx.db.execute("UPDATE runs SET started_at = ? WHERE id = ?", (tx.ts, run_id))
    tell(tx, EventType.TASK_STARTED, task, State.RUNNING, {})
    return True


def progress(
    tx: Transaction, *, run_id: str, task_id: str, words: str, spending: Spending | None = None
) -> bool:
    """Tell how far a run is, and what it took until now. False: it no longer holds the task;
    what it took is noted all the same.
    """  # noqa: D205
    task = read_held(tx, task_id)
    if task is None or task.run_id != run_id or task.state is not State.RUNNING:
        note_late(tx, run_id, task_id, spending)
        return False
    data: dict[str, Any] = {"note": words}
    if spending is not None and (spent := note(tx, run_id, task_id, spending)):
        data["spending"] = spent
    tell(tx, EventType.TASK_PROGRESS, task, task.state, data)
    return True


def lead(tx: Transaction, *, run_id: str, task_id: str, process: ProcessId) -> bool:
    """Record the process that leads a run's tree, so that others can end it.

    False: the run no longer holds the task, and whoever started the process must end it.
    """
    task = read_held(tx, task_id)
    if task is None or task.run_id != run_id or task.asked == EXPIRE:
        return False
    tx.db.execute(
        "UPDATE runs SET pid = ?, pid_started = ? WHERE id = ?",
        (process.pid, process.started, run_id),
    )
    return True


def condemn(tx: Transaction, *, run_id: str, task_id: str) -> bool:
    """Mark a run whose tree others are about to end. False: it no longer holds the task.

    From here on it is not renewed, and a failure that it reports counts as an expiry.
    """
    marked = tx.db.execute(
        "UPDATE tasks SET asked = ? WHERE id = ? AND run_id = ?", (EXPIRE, task_id, run_id)
    )
    return bool(marked.rowcount)


def renew(tx: Transaction, *, run_ids: Iterable[str], lease: float) -> datetime:
    """Move the leases of runs that still hold their task to `lease` seconds from now."""
    until = tx.now + timedelta(seconds=lease)
    tx.db.execute(
        "UPDATE tasks SET lease_until = ? WHERE state IN ('CLAIMED', 'RUNNING')"
        " AND run_id IN (SELECT value FROM json_each(?)) AND asked IS NOT ?",
        (to_iso(until), dump(list(run_ids)), EXPIRE),
    )
    return until


def end_backoff(tx: Transaction) -> None:
    """Make the tasks claimable whose backoff is over, and lift the holds whose time is."""
    lift_due(tx)
    rows = tx.db.execute(
        f"UPDATE tasks SET not_before = NULL WHERE not_before <= ?1 OR {SET_BACK}"
        " RETURNING agent, state, pending",
        (tx.ts, tx.later(LONGEST_BACKOFF)),
    ).fetchall()
    for agent, state, pending in rows:
        if state == State.READY and not pending:
            tx.now_claimable(agent)


def new_run_id(now: datetime) -> str:
    """Make a run id: sorts by time, and nobody can guess the next one."""
    return f"{int(now.timestamp() * 1000):011x}{os.urandom(5).hex()}"
