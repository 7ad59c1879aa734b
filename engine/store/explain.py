"""Why a task is not running, in sentences. Reads; decides nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from engine.clock import from_iso
from engine.model import HoldCause, Reason, RunOutcome, State, WorkerStatus
from engine.narrate import describe_hold
from engine.store.claims import RUNNING
from engine.store.spending import (
    AT_WORK,
    BUDGET,
    COSTLY,
    SPENT,
    accounts,
    budget_of,
    must_wait,
)
from engine.text import age, plural

if TYPE_CHECKING:
    from datetime import datetime

    from engine.views import TaskRow, WorkerRow

Rows = Callable[[str, Iterable[Any]], Awaitable[list[Any]]]

_SHOWN = 5

_UNMET = (
    "SELECT e.value, d.state FROM tasks t, json_each(t.deps) e LEFT JOIN tasks d ON d.id = e.value"
    " WHERE t.id = ? AND (d.state IS NULL OR d.state <> 'DONE') AND NOT EXISTS"
    " (SELECT 1 FROM purged p WHERE p.id = e.value AND p.met) ORDER BY e.key LIMIT ?"
)
# Follow broken deps down to what really went wrong; UNION ends the walk at tasks seen before.
_ROOTS = (
    "WITH RECURSIVE up(id) AS (SELECT e.value FROM tasks t, json_each(t.deps) e WHERE t.id = ?"
    " UNION SELECT e.value FROM up JOIN tasks t ON t.id = up.id AND t.state = 'BLOCKED',"
    " json_each(t.deps) e)"
    " SELECT t.id, t.state, t.error, t.reasons FROM up JOIN tasks t ON t.id = up.id"
    " WHERE t.state IN ('FAILED', 'CANCELLED') OR (t.state = 'BLOCKED' AND"
    " (instr(t.reasons, 'human') > 0 OR instr(t.reasons, 'removed') > 0)) LIMIT ?"
)


async def explain(
    task: TaskRow, workers: Sequence[WorkerRow], rows: Rows, now: datetime
) -> tuple[str, ...]:
    """Say why `task` is not running. `workers` are the live ones of its agent."""
    match task.state:
        case State.RUNNING | State.CLAIMED:
            return _active(task, workers, now)
        case State.DONE:
            return ("It is done.",)
        case State.CANCELLED:
            return ("It was cancelled; retry it to run it again.",)
        case State.FAILED:
            tries = f"{plural(task.attempts, 'attempt')} of {task.retries + 1}"
            return (f"It failed for good after {tries}: {task.error or 'no error was given'}.",)
        case State.BLOCKED:
            return await _blocked(task, rows)
        case _:
            return await _ready(task, workers, rows, now)


def _active(task: TaskRow, workers: Sequence[WorkerRow], now: datetime) -> tuple[str, ...]:
    since = age((now - task.updated_at).total_seconds())
    doing = "is running" if task.state is State.RUNNING else "is being prepared"
    said = f"It {doing}: {task.claimed_by} took it {since} ago."
    if any(worker.id == task.claimed_by for worker in workers):
        return (said,)
    # Not among the live ones: nobody is at work on it, and nobody has noticed yet.
    return (said, "That worker is gone: any worker that starts takes the task back.")


async def _blocked(task: TaskRow, rows: Rows) -> tuple[str, ...]:
    said = []
    if Reason.HUMAN in task.reasons:
        error = task.error or "no retry can help"
        said.append(f"It needs you: {error}." + ("" if "retry" in error else " Then retry it."))
    if Reason.REMOVED in task.reasons:
        said.append("It is no longer in the DAG file; put it back and reseed.")
    if Reason.UPSTREAM in task.reasons:
        roots = await rows(_ROOTS, (task.id, _SHOWN))
        if not roots:
            said.append("Something that it depends on was purged before it was done.")
        for dep, state, error, _ in roots:
            why = f" ({error})" if error else ""
            said.append(f"It cannot start because {dep} is {state}{why}.")
    return tuple(said)


async def _ready(
    task: TaskRow, workers: Sequence[WorkerRow], rows: Rows, now: datetime
) -> tuple[str, ...]:
    said = []
    if task.pending:
        unmet = await rows(_UNMET, (task.id, _SHOWN))
        names = ", ".join(f"{dep} ({state or 'gone'})" for dep, state in unmet)
        more = f" and {task.pending - len(unmet)} more" if task.pending > len(unmet) else ""
        said.append(f"It waits for {names}{more}.")
    if task.not_before is not None:
        said.append(await _waits(task, task.not_before, rows, now))
    if task.ending is not None:
        said.append(f"The processes of its former run {task.ending} are being ended first.")
    held = await rows(
        "SELECT agent, cause, reason, until FROM holds WHERE agent IN ('*', ?)", (task.agent,)
    )
    said.extend(_held(now, *row) for row in held)
    said.extend(await _unknown(task, rows))
    said.extend(await _crowded(task, rows, now))
    able = [worker for worker in workers if worker.status is not WorkerStatus.STOPPING]
    if not able:
        what = (
            f"The last workers of {task.agent} are stopping"
            if workers
            else (f"No worker of {task.agent} is alive")
        )
        said.append(
            f"{what}; start one with"
            f" `agentmux worker --agent {task.agent} --worker-id {task.agent}-1`."
        )
    elif not said:
        busy = sum(worker.task_id is not None for worker in able)
        said.append(f"It can be claimed now; busy workers of {task.agent}: {busy} of {len(able)}.")
    return tuple(said)


async def _waits(task: TaskRow, until: datetime, rows: Rows, now: datetime) -> str:
    wait = age((until - now).total_seconds())
    why = f" ({task.error})" if task.error else ""
    last = await rows(
        "SELECT outcome FROM runs WHERE task_id = ? ORDER BY n DESC LIMIT 1", (task.id,)
    )
    if last and last[0][0] == RunOutcome.RELEASED:
        lifted = f"in {wait}, or after `agentmux resume {task.agent}`"
        return f"Its last run was put back{why}; the next one starts {lifted}."
    tries = f"Attempt {task.attempts} of {task.retries + 1}"
    return f"{tries} failed{why}; the next one starts in {wait}."


def _held(now: datetime, held: str, cause: str, reason: str, until: str | None) -> str:
    wait = (from_iso(until) - now).total_seconds() if until else None
    return f"It cannot be claimed: {describe_hold(held, HoldCause(cause), reason, wait)}."


async def _unknown(task: TaskRow, rows: Rows) -> list[str]:
    """Say so if a first run must show what one costs."""
    if task.kind != COSTLY:
        return []
    (budget,), *_ = await rows("SELECT (SELECT value FROM meta WHERE key = ?)", (BUDGET,))
    kept = budget_of(budget, task.agent)
    if kept is None:
        return []
    found = accounts(await rows(SPENT, ()), await rows(AT_WORK, ()))
    first = must_wait(found, kept, task.agent)
    if first is None:
        return []
    costs = f"what a run of {first} costs before the first one is over"
    return [f"It has a budget to keep, and nobody knows {costs}: that works alone."]


async def _crowded(task: TaskRow, rows: Rows, now: datetime) -> list[str]:
    found = await rows(
        f"SELECT run_limit, ({RUNNING}), stagger, last_start FROM agents WHERE name = ?1",
        (task.agent,),
    )
    said = []
    for limit, active, stagger, last_start in found:
        if limit is not None and active >= limit:
            runs = plural(limit, "run")
            said.append(f"The limit of {runs} at once for {task.agent} is reached.")
        if stagger and last_start:
            left = stagger - (now - from_iso(last_start)).total_seconds()
            if 0 < left <= stagger:
                said.append(
                    f"Runs of {task.agent} start {age(stagger)} apart; the next may in {age(left)}."
                )
    return said
