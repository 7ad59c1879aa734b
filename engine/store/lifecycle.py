"""The life of a run in the store: claim, start, progress, finish, release, renew, expire.

Every function is one change, called inside a transaction on the writer's thread. Whatever names a
run is fenced by it: a run that no longer holds its task changes nothing (DESIGN §4.1).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from engine.clock import from_iso, to_iso
from engine.errors import TaskNotFound
from engine.machine import LOST_LIMIT, Trigger, backoff, check, settle
from engine.model import (
    ALL_AGENTS,
    Claim,
    EventType,
    Outcome,
    ProcessId,
    RunOutcome,
    State,
    TaskDef,
)
from engine.store.transaction import ClaimRule, Standing, Transaction, dump, read_reasons

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NOBODY = "run_id = NULL, claimed_by = NULL, lease_until = NULL, timeout_at = NULL, asked = NULL"

_NEXT = (
    "SELECT id, name, deps, priority, timeout, retries, payload, attempts"
    " FROM tasks INDEXED BY claimable"
    " WHERE agent = ? AND state = 'READY' AND pending = 0 AND not_before IS NULL"
    " ORDER BY priority DESC, position LIMIT 1"
)
_TAKE = (
    "UPDATE tasks SET state = ?, attempts = ?, run_id = ?, claimed_by = ?, lease_until = ?,"
    " timeout_at = ?, asked = NULL, updated_at = ? WHERE id = ?"
)
_ADD_RUN = (
    "INSERT INTO runs(id, task_id, agent, worker_id, attempt, claimed_at, started_at, host_pid,"
    " host_started) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_HELD = (
    "SELECT id, agent, state, reasons, broken, removed, run_id, claimed_by, attempts, retries,"
    " lost, lease_until FROM tasks WHERE id = ?"
)


@dataclass(slots=True)
class _Held(Standing):
    run_id: str | None
    claimed_by: str | None
    attempts: int
    retries: int
    lost: int
    lease_until: str | None


def _read(tx: Transaction, task_id: str) -> _Held | None:
    row = tx.db.execute(_HELD, (task_id,)).fetchone()
    if row is None:
        return None
    return _Held(
        row[0], row[1], State(row[2]), read_reasons(row[3]), row[4], bool(row[5]), *row[6:]
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
    `start`. `lease` is in seconds.
    """
    if not _may_claim(tx, agent):
        return None
    row = tx.db.execute(_NEXT, (agent,)).fetchone()
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
    state = State.CLAIMED if task.payload.get("kind") in preparing else State.RUNNING
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
            to_iso(lease_until),
            to_iso(tx.now + timedelta(seconds=timeout)) if started else None,
            tx.ts,
            task_id,
        ),
    )
    tx.db.execute(
        _ADD_RUN,
        (
            made.run_id,
            task_id,
            agent,
            worker_id,
            made.attempt,
            tx.ts,
            started,
            host.pid,
            host.started,
        ),
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


def _may_claim(tx: Transaction, agent: str) -> bool:
    """Whether holds, the agent's limit and its stagger let one more run start."""
    rule = tx.rules.get(agent)
    if rule is None:
        rule = tx.rules[agent] = _read_rule(tx, agent)
    if rule.held:
        return False
    if rule.limit is not None:
        count = "SELECT count(*) FROM tasks WHERE agent = ? AND state IN ('CLAIMED', 'RUNNING')"
        if tx.db.execute(count, (agent,)).fetchone()[0] >= rule.limit:
            return False
    return not rule.stagger or _take_turn(tx, agent, rule.stagger)


def _read_rule(tx: Transaction, agent: str) -> ClaimRule:
    row = tx.db.execute(
        "SELECT EXISTS(SELECT 1 FROM holds WHERE agent IN (?, ?)), run_limit, coalesce(stagger, 0)"
        " FROM (SELECT 1) LEFT JOIN agents ON name = ?",
        (ALL_AGENTS, agent, agent),
    ).fetchone()
    return ClaimRule(bool(row[0]), row[1], row[2])


def _take_turn(tx: Transaction, agent: str, stagger: float) -> bool:
    """Note a start if the last one is `stagger` seconds ago and there is something to start."""
    return bool(
        tx.db.execute(
            "UPDATE agents SET last_start = ? WHERE name = ?"
            " AND (last_start IS NULL OR last_start <= ?) AND EXISTS (SELECT 1 FROM tasks"
            "  INDEXED BY claimable WHERE agent = ? AND state = 'READY' AND pending = 0"
            "  AND not_before IS NULL)",
            (tx.ts, agent, to_iso(tx.now - timedelta(seconds=stagger)), agent),
        ).rowcount
    )


def start(tx: Transaction, *, run_id: str, task_id: str) -> bool:
    """CLAIMED → RUNNING. False: the run no longer holds the task."""
    task = _read(tx, task_id)
    if task is None or task.run_id != run_id:
        return False
    check(Trigger.START, task_id, task.state)
    row = tx.db.execute("SELECT timeout FROM tasks WHERE id = ?", (task_id,)).fetchone()
    timeout_at = to_iso(tx.now + timedelta(seconds=row[0]))
    tx.db.execute(
        "UPDATE tasks SET state = 'RUNNING', timeout_at = ?, updated_at = ? WHERE id = ?",
        (timeout_at, tx.ts, task_id),
    )
    tx.db.execute("UPDATE runs SET started_at = ? WHERE id = ?", (tx.ts, run_id))
    _tell(tx, EventType.TASK_STARTED, task, State.RUNNING, {})
    return True


def progress(tx: Transaction, *, run_id: str, task_id: str, note: str) -> bool:
    """Tell how far a run is. False: the run no longer holds the task."""
    task = _read(tx, task_id)
    if task is None or task.run_id != run_id or task.state is not State.RUNNING:
        return False
    _tell(tx, EventType.TASK_PROGRESS, task, task.state, {"note": note})
    return True


def lead(tx: Transaction, *, run_id: str, process: ProcessId) -> None:
    """Record the process that leads a run's tree, so that others can end it."""
    tx.db.execute(
        "UPDATE runs SET pid = ?, pid_started = ? WHERE id = ?",
        (process.pid, process.started, run_id),
    )


def finish(tx: Transaction, *, run_id: str, task_id: str, outcome: Outcome, jitter: float) -> bool:
    """End a run as its executor reports it: DONE, FAILED, TIMED_OUT or BLOCKED.

    False: the run no longer holds the task; LATE_RESULT was recorded and nothing else changed.
    `jitter` in 0..1 spreads the backoff of a retry.
    """
    task = _read(tx, task_id)
    if task is None or task.run_id != run_id:
        _late(tx, run_id, task_id, outcome)
        return False
    if outcome.kind is RunOutcome.DONE:
        check(Trigger.COMPLETE, task_id, task.state)
        data = _end_run(tx, run_id, outcome)
        tx.db.execute(
            f"UPDATE tasks SET state = 'DONE', {_NOBODY}, lost = 0, error = NULL, updated_at = ?"
            " WHERE id = ?",
            (tx.ts, task_id),
        )
        _tell(tx, EventType.TASK_COMPLETED, task, State.DONE, data)
        tx.done += 1
        tx.spread(task_id, task.state, State.DONE)
    elif outcome.kind is RunOutcome.BLOCKED:
        check(Trigger.BLOCK, task_id, task.state)
        _block(tx, task, outcome)
    else:
        check(Trigger.FAIL, task_id, task.state)
        _fail(tx, task, outcome, jitter)
    return True


def _fail(tx: Transaction, task: _Held, outcome: Outcome, jitter: float) -> None:
    again = task.attempts <= task.retries
    not_before = (
        to_iso(tx.now + timedelta(seconds=backoff(task.attempts, jitter))) if again else None
    )
    state = State.READY if again else State.FAILED
    tx.db.execute(
        f"UPDATE tasks SET state = ?, {_NOBODY}, lost = 0, error = ?, not_before = ?,"
        " updated_at = ? WHERE id = ?",
        (state, outcome.error, not_before, tx.ts, task.id),
    )
    data = _end_run(tx, str(task.run_id), outcome)
    data |= {"error": outcome.error, "attempts": task.attempts, "retries": task.retries}
    if not_before:
        data["notBefore"] = not_before
    _tell(tx, EventType.TASK_FAILED, task, state, data)
    _come_to_rest(tx, task, state)


def _block(tx: Transaction, task: _Held, outcome: Outcome) -> None:
    _, reasons = settle(human=True, broken=task.broken, removed=task.removed)
    tx.db.execute(
        f"UPDATE tasks SET state = 'BLOCKED', reasons = ?, {_NOBODY}, error = ?, updated_at = ?"
        " WHERE id = ?",
        (dump(reasons), outcome.error, tx.ts, task.id),
    )
    data = _end_run(tx, str(task.run_id), outcome)
    data |= {"reasons": reasons, "error": outcome.error}
    _tell(tx, EventType.TASK_BLOCKED, task, State.BLOCKED, data)
    tx.spread(task.id, task.state, State.BLOCKED)


def release(tx: Transaction, *, run_id: str, task_id: str, by: str) -> bool:
    """Put a task back to READY; uses no retry. False: the run no longer holds it.

    `by` says in words who asked. The run's tree must be gone before this is called.
    """
    task = _read(tx, task_id)
    if task is None or task.run_id != run_id:
        return False
    check(Trigger.RELEASE, task_id, task.state)
    data = _end_run(tx, run_id, Outcome(RunOutcome.RELEASED))
    tx.db.execute(
        f"UPDATE tasks SET state = 'READY', {_NOBODY}, attempts = attempts - 1, updated_at = ?"
        " WHERE id = ?",
        (tx.ts, task_id),
    )
    data |= {"attempts": task.attempts - 1, "by": by}
    _tell(tx, EventType.TASK_RELEASED, task, State.READY, data)
    _come_to_rest(tx, task, State.READY)
    return True


def expire(tx: Transaction, *, run_id: str, task_id: str) -> bool:
    """Take a task from a run that went silent; uses no retry. False: it holds it no longer.

    The run's tree must be gone before this is called. Three lost runs in a row → BLOCKED `human`.
    """
    task = _read(tx, task_id)
    if task is None or task.run_id != run_id:
        return False
    check(Trigger.EXPIRE, task_id, task.state)
    lost = task.lost + 1
    data = _end_run(tx, run_id, Outcome(RunOutcome.EXPIRED, error="the worker went silent"))
    tx.db.execute(
        f"UPDATE tasks SET state = 'READY', {_NOBODY}, attempts = attempts - 1, lost = ?,"
        " updated_at = ? WHERE id = ?",
        (lost, tx.ts, task_id),
    )
    data |= {"attempts": task.attempts - 1, "lost": lost}
    _tell(tx, EventType.LEASE_EXPIRED, task, State.READY, data)
    _come_to_rest(tx, task, State.READY, too_often=lost >= LOST_LIMIT)
    return True


def _come_to_rest(tx: Transaction, task: _Held, state: State, *, too_often: bool = False) -> None:
    """After a run: a task that nobody holds any more is READY, BLOCKED or finished."""
    tx.spread(task.id, task.state, state)
    if state is not State.READY:
        return
    task.state, task.reasons = State.READY, ()
    error = f"lost {LOST_LIMIT} runs in a row; see its logs, then retry it" if too_often else None
    if tx.rest(task, human=too_often, error=error) is State.READY:
        tx.now_claimable(task.agent)


def renew(tx: Transaction, *, run_ids: Iterable[str], lease: float) -> datetime:
    """Move the leases of runs that still hold their task to `lease` seconds from now."""
    until = tx.now + timedelta(seconds=lease)
    tx.db.execute(
        "UPDATE tasks SET lease_until = ? WHERE state IN ('CLAIMED', 'RUNNING')"
        " AND run_id IN (SELECT value FROM json_each(?))",
        (to_iso(until), dump(list(run_ids))),
    )
    return until


def end_backoff(tx: Transaction) -> None:
    """Make the tasks claimable whose backoff is over."""
    rows = tx.db.execute(
        "UPDATE tasks SET not_before = NULL WHERE not_before <= ? RETURNING agent, state, pending",
        (tx.ts,),
    ).fetchall()
    for agent, state, pending in rows:
        if state == State.READY and not pending:
            tx.now_claimable(agent)


def ask_release(tx: Transaction, *, task_id: str) -> str:
    """Ask the holder of a task to release it; return the run that holds it.

    Raises:
        TaskNotFound, IllegalTransition: there is nothing to release.

    """
    task = _read(tx, task_id)
    if task is None:
        raise TaskNotFound(task_id)
    check(Trigger.RELEASE, task_id, task.state)
    tx.db.execute("UPDATE tasks SET asked = 'release' WHERE id = ?", (task_id,))
    return str(task.run_id)


def new_run_id(now: datetime) -> str:
    """Make a run id: sorts by time, and nobody can guess the next one."""
    return f"{int(now.timestamp() * 1000):011x}{os.urandom(5).hex()}"


def _tell(
    tx: Transaction, kind: EventType, task: _Held, state: State, data: Mapping[str, Any]
) -> None:
    tx.event(
        kind,
        agent=task.agent,
        worker_id=task.claimed_by,
        task_id=task.id,
        run_id=task.run_id,
        state=state,
        data=data,
    )


def _end_run(tx: Transaction, run_id: str, outcome: Outcome) -> dict[str, Any]:
    """End the run's row; return what the event of its end says of it."""
    row = tx.db.execute(
        "UPDATE runs SET outcome = ?, ended_at = ?, exit_code = ?, error = ?, result = ?"
        " WHERE id = ? RETURNING coalesce(started_at, claimed_at)",
        (
            outcome.kind,
            tx.ts,
            outcome.exit_code,
            outcome.error,
            dump(outcome.result) if outcome.result is not None else None,
            run_id,
        ),
    ).fetchone()
    took = max(0, round((tx.now - from_iso(row[0])).total_seconds() * 1000))
    told: dict[str, Any] = {"outcome": outcome.kind, "durationMs": took}
    if outcome.result is not None:
        told["result"] = outcome.result
    return told


def _late(tx: Transaction, run_id: str, task_id: str, outcome: Outcome) -> None:
    row = tx.db.execute("SELECT agent, worker_id FROM runs WHERE id = ?", (run_id,)).fetchone()
    agent, worker_id = row or (None, None)
    data: dict[str, Any] = {"outcome": outcome.kind}
    if outcome.error is not None:
        data["error"] = outcome.error
    if outcome.result is not None:
        # Refused, but not lost: somebody may want to look at what it was.
        data["result"] = outcome.result
    tx.event(
        EventType.LATE_RESULT,
        agent=agent,
        worker_id=worker_id,
        task_id=task_id,
        run_id=run_id,
        data=data,
    )
