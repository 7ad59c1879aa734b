"""What an operator orders of tasks: release, cancel, kill, retry, purge.

Every order is one change over any number of tasks, called inside a transaction on the writer's
thread. It does what can be done and answers for each task; a dry run is the same, rolled back. A
run that loses its task here is noted in `endings` until its tree is gone (DESIGN §4.2).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from msgspec import Struct, field

from engine.errors import AgentmuxError
from engine.machine import Trigger, allowed, check
from engine.model import ACTIVE, FINISHED, EventType, Outcome, RunOutcome, State, WorkerStatus
from engine.store.endings import NOBODY, end_run, linger
from engine.store.held import RELEASE, Held, need_held, tell
from engine.store.roster import set_status
from engine.store.seeding import TOLD
from engine.store.transaction import dump

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from engine.model import ProcessId
    from engine.store.transaction import Transaction

OPERATOR = "operator"
_KILLED = "killed by operator"
_STATES = "SELECT t.id, t.state FROM json_each(?) j JOIN tasks t ON t.id = j.value"


class Ordered(Struct, frozen=True):
    """What an order did to a task. `state` is where it stands now, None if it is gone.

    `run_id` and `worker_id` are of the run that held it.
    """

    state: State | None
    run_id: str | None = None
    worker_id: str | None = None


class Orders(Struct):
    """What an order did to each task, or why not.

    `blocked` and `unblocked` count the tasks that others carried with them. `mended` are those
    of `done` that a retry of what they depend on has made READY: their attempts are as before.
    """

    done: dict[str, Ordered] = field(default_factory=dict)
    refused: dict[str, AgentmuxError] = field(default_factory=dict)
    mended: set[str] = field(default_factory=set)
    blocked: int = 0
    unblocked: int = 0


def each(
    tx: Transaction, task_ids: Iterable[str], act: Callable[[Transaction, str], Ordered]
) -> Orders:
    """Carry out an order on every task; each answers before it changes anything."""
    orders = Orders()
    blocked, unblocked = tx.blocked, tx.unblocked
    for task_id in dict.fromkeys(task_ids):
        try:
            orders.done[task_id] = act(tx, task_id)
        except AgentmuxError as error:
            orders.refused[task_id] = error
    orders.blocked = tx.blocked - blocked
    orders.unblocked = tx.unblocked - unblocked
    return orders


def release(tx: Transaction, *, task_ids: Sequence[str]) -> Orders:
    """Ask the holders of tasks to release them; that is complete when their trees are gone."""
    return each(tx, task_ids, _ask_release)


def _ask_release(tx: Transaction, task_id: str) -> Ordered:
    task = need_held(tx, task_id)
    check(Trigger.RELEASE, task_id, task.state, task.reasons)
    tx.db.execute("UPDATE tasks SET asked = ? WHERE id = ? AND asked IS NULL", (RELEASE, task_id))
    return Ordered(task.state, task.run_id, task.claimed_by)


def cancel(tx: Transaction, *, task_ids: Sequence[str]) -> Orders:
    """End tasks for good, at once: a success that comes later is refused."""
    return each(tx, _leaves_first(tx, task_ids), _cancel)


def _cancel(tx: Transaction, task_id: str) -> Ordered:
    task = need_held(tx, task_id)
    check(Trigger.CANCEL, task_id, task.state, task.reasons)
    data = _take_run(tx, task, Outcome(RunOutcome.CANCELLED, error="cancelled by operator"))
    tx.db.execute(
        f"UPDATE tasks SET state = 'CANCELLED', reasons = '[]', {NOBODY}, not_before = NULL,"
        " lost = 0, error = NULL, updated_at = ? WHERE id = ?",
        (tx.ts, task_id),
    )
    tell(tx, EventType.TASK_CANCELLED, task, State.CANCELLED, data)
    tx.spread(task_id, task.state, State.CANCELLED)
    return Ordered(State.CANCELLED, task.run_id, task.claimed_by)


def kill(tx: Transaction, *, task_ids: Sequence[str]) -> Orders:
    """End the runs of tasks, which become FAILED whatever retries are left."""
    return each(tx, task_ids, _kill)


def _kill(tx: Transaction, task_id: str) -> Ordered:
    task = need_held(tx, task_id)
    check(Trigger.KILL, task_id, task.state, task.reasons)
    data = _take_run(tx, task, Outcome(RunOutcome.KILLED, error=_KILLED))
    tx.db.execute(
        f"UPDATE tasks SET state = 'FAILED', {NOBODY}, not_before = NULL, lost = 0, error = ?,"
        " updated_at = ? WHERE id = ?",
        (_KILLED, tx.ts, task_id),
    )
    data |= {"attempts": task.attempts, "retries": task.retries}
    tell(tx, EventType.TASK_FAILED, task, State.FAILED, data)
    tx.spread(task_id, task.state, State.FAILED)
    return Ordered(State.FAILED, task.run_id, task.claimed_by)


def kill_held(tx: Transaction, *, worker_id: str, host: ProcessId) -> Orders:
    """End the run of a worker; from here on it claims nothing more.

    `host` fences: what a newer worker of the same id holds is left alone.
    """
    set_status(tx, worker_id=worker_id, host=host, status=WorkerStatus.STOPPING)
    # A claim of this very transaction has no row yet that says whose it is.
    tx.flush_runs()
    rows = tx.db.execute(
        "SELECT t.id FROM tasks t INDEXED BY held JOIN runs r ON r.id = t.run_id"
        " WHERE t.state IN ('CLAIMED', 'RUNNING') AND t.claimed_by = ?"
        " AND r.host_pid = ? AND r.host_started = ?",
        (worker_id, host.pid, host.started),
    )
    return kill(tx, task_ids=[row[0] for row in rows.fetchall()])


def _take_run(tx: Transaction, task: Held, outcome: Outcome) -> dict[str, object]:
    """Take a task from the run that holds it, if one does; return what the event says of it."""
    if task.state not in ACTIVE:
        return {}
    linger(tx, task)
    # Read again: a claim of this very transaction has a row only now.
    return end_run(tx, need_held(tx, task.id), outcome)


def retry(tx: Transaction, *, task_ids: Sequence[str], downstream: bool = False) -> Orders:
    """Give finished or BLOCKED `human` tasks a fresh count of attempts.

    Each is READY then, or BLOCKED for what else holds it up. One that was BLOCKED by nothing but
    what is retried with it is READY by that: it counts as done, not as refused. `downstream`: and
    what depends on them, as far as it is finished or runs (that is refused); what waits anyway is
    left alone.
    """
    before = _states(tx, task_ids)
    orders = each(tx, _deps_first(tx, task_ids), _retry)
    if downstream:
        below = [
            task_id
            for task_id in _below(tx, list(orders.done))
            if task_id not in orders.done
            and task_id not in orders.refused
            and _has_run(tx, task_id)
        ]
        more = each(tx, _deps_first(tx, below), _retry)
        orders.done |= more.done
        orders.refused |= more.refused
        orders.blocked += more.blocked
        orders.unblocked += more.unblocked
    # A dep that was retried after it has moved it since.
    now = _states(tx, [*orders.done, *orders.refused])
    for task_id in list(orders.refused):
        if before.get(task_id) is State.BLOCKED and now.get(task_id) is State.READY:
            del orders.refused[task_id]
            orders.done[task_id] = Ordered(State.READY)
            orders.mended.add(task_id)
            orders.unblocked -= 1
    orders.done = {task_id: Ordered(now[task_id]) for task_id in orders.done}
    return orders


def _states(tx: Transaction, task_ids: Iterable[str]) -> dict[str, State]:
    rows = tx.db.execute(_STATES, (dump(list(task_ids)),))
    return {task_id: State(state) for task_id, state in rows}


def _retry(tx: Transaction, task_id: str) -> Ordered:
    task = need_held(tx, task_id)
    check(Trigger.RETRY, task_id, task.state, task.reasons)
    old, task.state, task.reasons = task.state, State.READY, ()
    tx.db.execute(
        "UPDATE tasks SET state = 'READY', reasons = '[]', attempts = 0, lost = 0, error = NULL,"
        " not_before = NULL, updated_at = ? WHERE id = ?",
        (tx.ts, task_id),
    )
    tx.event(
        EventType.TASK_RETRIED,
        agent=task.agent,
        task_id=task_id,
        state=State.READY,
        data={"attempts": 0, "reasons": []},
    )
    # In this order: what depends on it stays blocked throughout if it comes to rest as BLOCKED.
    # The other way round all of that would be unblocked and blocked again, task by task.
    if tx.rest(task) is State.READY:
        tx.now_claimable(task.agent)
    tx.spread(task_id, old, State.READY)
    return Ordered(task.state)


def _has_run(tx: Transaction, task_id: str) -> bool:
    task = need_held(tx, task_id)
    return task.state in ACTIVE or allowed(Trigger.RETRY, task.state, task.reasons)


def _below(tx: Transaction, task_ids: Sequence[str]) -> list[str]:
    """Return the tasks that depend on these, however far down, in the order of the file."""
    rows = tx.db.execute(
        "WITH RECURSIVE below(id) AS (SELECT e.task FROM json_each(?) j"
        "  JOIN edges e ON e.dep = j.value UNION SELECT e.task FROM below"
        "  JOIN edges e ON e.dep = below.id)"
        " SELECT t.id FROM below JOIN tasks t ON t.id = below.id ORDER BY t.position, t.id",
        (dump(task_ids),),
    )
    return [row[0] for row in rows]


def purge(tx: Transaction, *, task_ids: Sequence[str]) -> Orders:
    """Remove tasks and their runs; an unfinished one is cancelled first.

    For what depends on it, one that was DONE counts as met for good, any other as broken.
    """
    return each(tx, _leaves_first(tx, task_ids), _purge)


def _purge(tx: Transaction, task_id: str) -> Ordered:
    task = need_held(tx, task_id)
    check(Trigger.PURGE, task_id, task.state, task.reasons)
    run = Ordered(None)
    if task.state not in FINISHED:
        cancelled = _cancel(tx, task_id)
        run = Ordered(None, cancelled.run_id, cancelled.worker_id)
        task.state = State.CANCELLED
    tx.event(EventType.TASK_PURGED, agent=task.agent, task_id=task_id, state=task.state)
    # The rows of its runs must be there before they can be removed.
    tx.flush_runs()
    deps = tx.db.execute("DELETE FROM tasks WHERE id = ? RETURNING deps", (task_id,)).fetchone()[0]
    tx.db.execute("DELETE FROM runs WHERE task_id = ?", (task_id,))
    tx.db.execute("DELETE FROM meta WHERE key = ?", (f"{TOLD}{task_id}",))
    for dep in json.loads(deps) if deps != "[]" else ():
        tx.db.execute("DELETE FROM edges WHERE dep = ? AND task = ?", (dep, task_id))
        # Nobody asks any more what became of a dep that is gone, too.
        tx.db.execute(
            "DELETE FROM purged WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM edges WHERE dep = ?1)",
            (dep,),
        )
    tx.db.execute(
        "INSERT INTO purged SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM edges WHERE dep = ?1)",
        (task_id, task.state is State.DONE),
    )
    return run


def _deps_first(tx: Transaction, task_ids: Iterable[str]) -> list[str]:
    """Order tasks so that each comes after those of them that it depends on."""
    waits = dict.fromkeys(task_ids, 0)
    if len(waits) < 2:
        return list(waits)
    rows = tx.db.execute(
        "SELECT e.dep, e.task FROM json_each(?) j JOIN edges e ON e.dep = j.value",
        (dump(list(waits)),),
    )
    above: dict[str, list[str]] = {}
    for dep, task_id in rows:
        if task_id in waits:
            above.setdefault(dep, []).append(task_id)
            waits[task_id] += 1
    order = [task_id for task_id, deps in waits.items() if not deps]
    for dep in order:  # It grows on the way.
        for task_id in above.get(dep, ()):
            waits[task_id] -= 1
            if not waits[task_id]:
                order.append(task_id)
    return order


def _leaves_first(tx: Transaction, task_ids: Iterable[str]) -> list[str]:
    """Order tasks so that each comes before those of them that it depends on.

    So nothing is blocked on the way by a dep that is ended with it.
    """
    return _deps_first(tx, task_ids)[::-1]
