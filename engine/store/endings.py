"""How a run lets go of its task: finish, release, expire; and how its tree is known to be gone.

Every function is one change, called inside a transaction on the writer's thread, and fenced by
the run that it names. The run's tree must be gone before, or the run is noted in `endings`: then
the task cannot be claimed until whoever ended the tree says so (DESIGN §4.2).
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from engine.clock import from_iso, to_iso
from engine.machine import LOST_LIMIT, Trigger, backoff, check, settle
from engine.model import EventType, HoldCause, Outcome, RunOutcome, Spending, State
from engine.store.held import EXPIRE, read_held, tell, tell_late
from engine.store.roster import hold
from engine.store.spending import note, note_late
from engine.store.transaction import dump

if TYPE_CHECKING:
    from engine.store.held import Held
    from engine.store.transaction import Transaction

NOBODY = "run_id = NULL, claimed_by = NULL, lease_until = NULL, timeout_at = NULL, asked = NULL"
"""What a task's row says once no run holds it any more."""

_LINGER = (
    "INSERT INTO endings SELECT id, task_id, agent, worker_id, ?, host_pid, host_started, pid,"
    " pid_started FROM runs WHERE id = ?"
)


def finish(
    tx: Transaction,
    *,
    run_id: str,
    task_id: str,
    outcome: Outcome,
    jitter: float,
    tree_gone: bool = True,
) -> bool:
    """End a run as its executor reports it: DONE, FAILED, TIMED_OUT, BLOCKED or RELEASED.

    False: the run no longer holds the task; LATE_RESULT was recorded and nothing else changed.
    `jitter` in 0..1 spreads the backoff of a retry.
    """
    task = read_held(tx, task_id)
    if task is None or task.run_id != run_id:
        _late(tx, run_id, task_id, outcome)
        if tree_gone:
            gone(tx, run_id=run_id)
        return False
    if task.asked == EXPIRE and outcome.kind is not RunOutcome.DONE:
        # It failed because it was ended from outside: that is no attempt of the task's own.
        if tree_gone:
            return expire(tx, run_id=run_id, task_id=task_id, spending=outcome.spending)
        note_late(tx, run_id=run_id, task_id=task_id, spending=outcome.spending)
        return True
    if not tree_gone:
        linger(tx, task)
    if outcome.kind is RunOutcome.DONE:
        check(Trigger.COMPLETE, task_id, task.state)
        data = end_run(tx, task, outcome)
        tx.db.execute(
            f"UPDATE tasks SET state = 'DONE', {NOBODY}, lost = 0, error = NULL, updated_at = ?"
            " WHERE id = ?",
            (tx.ts, task_id),
        )
        tell(tx, EventType.TASK_COMPLETED, task, State.DONE, data)
        tx.done += 1
        tx.spread(task_id, task.state, State.DONE)
    elif outcome.kind is RunOutcome.BLOCKED:
        check(Trigger.BLOCK, task_id, task.state)
        _block(tx, task, outcome)
    elif outcome.kind is RunOutcome.RELEASED:
        check(Trigger.RELEASE, task_id, task.state)
        _put_back(tx, task, outcome)
    else:
        check(Trigger.FAIL, task_id, task.state)
        _fail(tx, task, outcome, jitter)
    return True


def time_out(tx: Transaction, *, run_id: str, task_id: str, jitter: float) -> bool:
    """Take a task from a run whose time is over; its tree is ended afterwards.

    False: it holds the task no longer, or its tree is being ended already.
    """
    task = read_held(tx, task_id)
    if task is None or task.run_id != run_id or task.asked == EXPIRE:
        return False
    limit = tx.db.execute("SELECT timeout FROM tasks WHERE id = ?", (task_id,)).fetchone()[0]
    check(Trigger.FAIL, task_id, task.state)
    linger(tx, task)
    outcome = Outcome(RunOutcome.TIMED_OUT, error=f"timed out after {limit:g} s")
    _fail(tx, task, outcome, jitter)
    return True


def linger(tx: Transaction, task: Held) -> None:
    """Note that the run which holds `task` loses it while its tree may still live."""
    tx.flush_runs()
    tx.db.execute(_LINGER, (tx.ts, task.run_id))
    tx.db.execute("UPDATE tasks SET ending = ? WHERE id = ?", (task.run_id, task.id))
    assert task.run_id is not None, "a run holds the task"
    tx.taken.append(task.run_id)


def gone(tx: Transaction, *, run_id: str) -> None:
    """Say that the tree of a run which lost its task is gone: the task can be claimed again."""
    row = tx.db.execute(
        "DELETE FROM endings WHERE run_id = ? RETURNING task_id, agent", (run_id,)
    ).fetchone()
    if row is None:
        return
    tx.db.execute("UPDATE tasks SET ending = NULL WHERE id = ? AND ending = ?", (row[0], run_id))
    # One run fewer counts towards the agent's limit, whether this task is READY or another.
    tx.now_claimable(row[1])


def _fail(tx: Transaction, task: Held, outcome: Outcome, jitter: float) -> None:
    again = task.attempts <= task.retries
    not_before = (
        to_iso(tx.now + timedelta(seconds=backoff(task.attempts, jitter))) if again else None
    )
    state = State.READY if again else State.FAILED
    tx.db.execute(
        f"UPDATE tasks SET state = ?, {NOBODY}, lost = 0, error = ?, not_before = ?,"
        " updated_at = ? WHERE id = ?",
        (state, outcome.error, not_before, tx.ts, task.id),
    )
    data = end_run(tx, task, outcome)
    data |= {"attempts": task.attempts, "retries": task.retries}
    if not_before:
        data["notBefore"] = not_before
    tell(tx, EventType.TASK_FAILED, task, state, data)
    tx.failed += 1
    _come_to_rest(tx, task, state)


def _block(tx: Transaction, task: Held, outcome: Outcome) -> None:
    _, reasons = settle(human=True, broken=task.broken, removed=task.removed)
    tx.db.execute(
        f"UPDATE tasks SET state = 'BLOCKED', reasons = ?, {NOBODY}, error = ?, updated_at = ?"
        " WHERE id = ?",
        (dump(reasons), outcome.error, tx.ts, task.id),
    )
    data = end_run(tx, task, outcome)
    data["reasons"] = reasons
    tell(tx, EventType.TASK_BLOCKED, task, State.BLOCKED, data)
    tx.spread(task.id, task.state, State.BLOCKED)


def release(tx: Transaction, *, run_id: str, task_id: str, by: str) -> bool:
    """Put a task back to READY; uses no retry. False: the run no longer holds it.

    `by` says in words who asked. The run's tree must be gone before this is called.
    """
    task = read_held(tx, task_id)
    if task is None or task.run_id != run_id:
        return False
    check(Trigger.RELEASE, task_id, task.state)
    _put_back(tx, task, Outcome(RunOutcome.RELEASED), by)
    return True


def _put_back(tx: Transaction, task: Held, outcome: Outcome, by: str = "agent") -> None:
    """Make a task READY again, from a moment on if there is one, as if it had not been run."""
    not_before = None if outcome.not_before is None else to_iso(outcome.not_before)
    data = end_run(tx, task, outcome)
    tx.db.execute(
        f"UPDATE tasks SET state = 'READY', {NOBODY}, attempts = attempts - 1, lost = 0,"
        " error = coalesce(?, error), not_before = ?, updated_at = ? WHERE id = ?",
        (outcome.error, not_before, tx.ts, task.id),
    )
    data |= {"attempts": task.attempts - 1, "by": by}
    if not_before:
        data["notBefore"] = not_before
    tell(tx, EventType.TASK_RELEASED, task, State.READY, data)
    if outcome.holds:
        cause = HoldCause.LIMIT if not_before else HoldCause.LOGIN
        hold(tx, agent=task.agent, cause=cause, reason=outcome.error or "", until=not_before)
    _come_to_rest(tx, task, State.READY)


def expire(tx: Transaction, *, run_id: str, task_id: str, spending: Spending | None = None) -> bool:
    """Take a task from a run that went silent; uses no retry. False: it holds it no longer.

    The run's tree must be gone before this is called. Three lost runs in a row → BLOCKED `human`.
    `spending` is what it told of itself, if it did.
    """
    task = read_held(tx, task_id)
    if task is None or task.run_id != run_id:
        return False
    check(Trigger.EXPIRE, task_id, task.state)
    lost = task.lost + 1
    outcome = Outcome(RunOutcome.EXPIRED, error="the worker went silent", spending=spending)
    data = end_run(tx, task, outcome)
    tx.db.execute(
        f"UPDATE tasks SET state = 'READY', {NOBODY}, attempts = attempts - 1, lost = ?,"
        " updated_at = ? WHERE id = ?",
        (lost, tx.ts, task_id),
    )
    data |= {"attempts": task.attempts - 1, "lost": lost}
    tell(tx, EventType.LEASE_EXPIRED, task, State.READY, data)
    _come_to_rest(tx, task, State.READY, too_often=lost >= LOST_LIMIT)
    return True


def _come_to_rest(tx: Transaction, task: Held, state: State, *, too_often: bool = False) -> None:
    """After a run: a task that nobody holds any more is READY, BLOCKED or finished."""
    tx.spread(task.id, task.state, state)
    if state is not State.READY:
        return
    task.state, task.reasons = State.READY, ()
    error = f"lost {LOST_LIMIT} runs in a row; see its logs, then retry it" if too_often else None
    if tx.rest(task, human=too_often, error=error) is State.READY:
        tx.now_claimable(task.agent)


def end_run(tx: Transaction, task: Held, outcome: Outcome) -> dict[str, Any]:
    """End the row of the run that holds `task`; return what the event of its end says of it."""
    result = None if outcome.result is None else dump(outcome.result)
    tx.end_run(outcome.kind, tx.ts, outcome.exit_code, outcome.error, result, task.run_id)
    # No row of the run: somebody has edited the store. Its task must be let go all the same.
    began = from_iso(task.since) if task.since is not None else tx.now
    took = max(0, round((tx.now - began).total_seconds() * 1000))
    told: dict[str, Any] = {"outcome": outcome.kind, "durationMs": took}
    if outcome.exit_code is not None:
        told["exitCode"] = outcome.exit_code
    if outcome.error is not None:
        told["error"] = outcome.error
    if outcome.result is not None:
        told["result"] = outcome.result
    if outcome.spending is not None and task.run_id is not None:
        # What was put back, or said nothing, tells nobody what such a run costs.
        silent = outcome.spending == Spending() and outcome.kind is not RunOutcome.DONE
        over = outcome.kind is not RunOutcome.RELEASED and not silent
        spent = note(tx, task.run_id, task.id, outcome.spending, over=over)
        if spent or over:
            told["spending"] = spent
    return told


def _late(tx: Transaction, run_id: str, task_id: str, outcome: Outcome) -> None:
    data: dict[str, Any] = {"outcome": outcome.kind}
    if outcome.error is not None:
        data["error"] = outcome.error
    if outcome.result is not None:
        # Refused, but not lost: somebody may want to look at what it was.
        data["result"] = outcome.result
    if outcome.spending is not None:
        spent = note(tx, run_id, task_id, outcome.spending)
        data |= {"spending": spent} if spent else {}
    tell_late(tx, run_id, task_id, data)
