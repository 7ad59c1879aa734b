"""Workers and holds in the store: who is there, and who may not claim."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from engine.errors import LeaseConflict, ValidationError
from engine.model import ALL_AGENTS, EventType, HoldCause, ProcessId, State, WorkerStatus
from engine.store.transaction import Transaction, dump

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

RESET_MARK = "reset"
"""The key in `meta` of a reset that has begun; see store.resetting."""

_LIVE = "('live', 'stopping')"
# One that waits for its next attempt has failed in its last.
_LIFT_WAITS = (
    "UPDATE tasks SET not_before = NULL WHERE not_before IS NOT NULL AND state = 'READY'"
    " AND ?1 IN (agent, ?2) AND (SELECT outcome FROM runs WHERE task_id = tasks.id"
    " ORDER BY n DESC LIMIT 1) = 'released' RETURNING id, agent, pending"
)


def register(
    tx: Transaction,
    *,
    agent: str,
    worker_id: str | None,
    host: ProcessId,
    own_process: bool,
    is_alive: Callable[[ProcessId], bool],
) -> str:
    """Enter a worker; return its id. None: the first free `<agent>-<n>`.

    `own_process`: the host is there for this worker alone, and may be ended with it.

    Raises:
        LeaseConflict: a live worker has this id, or files of the same name.
        ValidationError: the id is an agent's name, or the agent a worker's id.

    """
    live = live_workers(tx, is_alive)
    files = {f"{other_agent}-{other}" for other, other_agent in live.items()}
    if worker_id is None:
        worker_id = next(
            name
            for name in (f"{agent}-{number}" for number in count(1))
            if name not in live and f"{agent}-{name}" not in files and not _is_agent(tx, name)
        )
    elif worker_id in live:
        raise LeaseConflict(f"a worker {worker_id!r} is alive already; choose another --worker-id")
    elif f"{agent}-{worker_id}" in files:
        raise LeaseConflict(
            f"worker {worker_id!r} of agent {agent!r} would share the files {agent}-{worker_id} "
            "with a live worker; choose another --worker-id"
        )
    _refuse_agent_names(tx, agent, worker_id, live)
    tx.db.execute(
        "INSERT INTO workers(id, agent, pid, pid_started, own_process, status, started_at, beat_at)"
        " VALUES (?, ?, ?, ?, ?, 'live', ?, ?) ON CONFLICT(id) DO UPDATE SET"
        " agent = excluded.agent, pid = excluded.pid, pid_started = excluded.pid_started,"
        " own_process = excluded.own_process, status = 'live', started_at = excluded.started_at,"
        " beat_at = excluded.beat_at, note = ''",
        (worker_id, agent, host.pid, host.started, own_process, tx.ts, tx.ts),
    )
    tx.event(EventType.WORKER_STARTED, agent=agent, worker_id=worker_id, data={"pid": host.pid})
    return worker_id


def live_workers(tx: Transaction, is_alive: Callable[[ProcessId], bool]) -> dict[str, str]:
    """Return the agents of the workers that live, by id."""
    rows = tx.db.execute(f"SELECT id, agent, pid, pid_started FROM workers WHERE status IN {_LIVE}")
    return {row[0]: row[1] for row in rows if is_alive(ProcessId(row[2], row[3]))}


def _refuse_agent_names(tx: Transaction, agent: str, worker_id: str, live: Collection[str]) -> None:
    """heartbeats/ holds a file for each worker and one for each agent: their names may not meet."""
    if worker_id == agent or _is_agent(tx, worker_id):
        raise ValidationError(
            f"{worker_id!r} is the name of an agent; choose another --worker-id, "
            f"for example {agent}-1"
        )
    if agent in live:
        raise ValidationError(f"{agent!r} is the id of a worker; an agent needs another name")


def _is_agent(tx: Transaction, name: str) -> bool:
    agents = (
        "SELECT 1 FROM tallies WHERE agent = ?1 AND n > 0"
        f" UNION SELECT 1 FROM workers WHERE agent = ?1 AND status IN {_LIVE}"
    )
    return bool(tx.db.execute(f"SELECT EXISTS({agents})", (name,)).fetchone()[0])


def beat(tx: Transaction, *, worker_ids: Iterable[str], note: str = "") -> None:
    """Note a sign of life of workers."""
    tx.db.execute(
        "UPDATE workers SET beat_at = ?, note = ? WHERE id IN (SELECT value FROM json_each(?))",
        (tx.ts, note, dump(list(worker_ids))),
    )


def set_status(tx: Transaction, *, worker_id: str, host: ProcessId, status: WorkerStatus) -> bool:
    """Move a worker to stopping, stopped, lost or killed. False: it was not this host's, or over.

    `host` fences: an id that a newer process took over is left alone.
    """
    told = {
        WorkerStatus.STOPPING: EventType.WORKER_STOPPING,
        WorkerStatus.STOPPED: EventType.WORKER_STOPPED,
        WorkerStatus.LOST: EventType.WORKER_LOST,
        WorkerStatus.KILLED: EventType.WORKER_KILLED,
    }[status]
    row = tx.db.execute(
        "UPDATE workers SET status = ?, beat_at = iif(? IN ('stopping', 'stopped'), ?, beat_at)"
        f" WHERE id = ? AND pid = ? AND pid_started = ? AND status <> ? AND status IN {_LIVE}"
        " RETURNING agent",
        (status, status, tx.ts, worker_id, host.pid, host.started, status),
    ).fetchone()
    if row is None:
        return False
    tx.event(told, agent=row[0], worker_id=worker_id, data={"pid": host.pid})
    return True


def hold(
    tx: Transaction,
    *,
    agent: str,
    cause: HoldCause = HoldCause.OPERATOR,
    reason: str = "",
    until: str | None = None,
) -> bool:
    """Let nobody claim for `agent` (`*`: for none). False: that was so already.

    `reason` says in words why, if it was no operator's wish; `until` when it lifts by itself. One
    that lifts by itself gives way to one that does not, and whatever it is to an operator's: that
    nothing but an operator lifts.
    """
    tx.rules.clear()
    added = tx.db.execute(
        "INSERT INTO holds VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT(agent) DO UPDATE SET"
        " since = ?2, cause = ?3, reason = ?4, until = ?5 WHERE until < ?5 OR"
        " (until IS NOT NULL AND ?5 IS NULL) OR (?3 = 'operator' AND cause <> ?3)",
        (agent, tx.ts, cause, reason, until),
    ).rowcount
    if added:
        why = {} if cause is HoldCause.OPERATOR else {"cause": cause, "reason": reason}
        tx.event(EventType.HELD, agent=agent, data=why | ({"until": until} if until else {}))
    return bool(added)


def resume(tx: Transaction, *, agent: str, but: Collection[str] = ()) -> bool:
    """Lift a hold; resuming all lifts every agent's too. False: there was none, nor a wait.

    What the agent's own limits have put back until a moment need not wait for it any longer. A
    backoff stays. Resuming all is also the end of a reset that was begun and never completed.
    `but`: the agents whose hold stays then.
    """
    if agent != ALL_AGENTS:
        return any([lift(tx, agent=agent), _lift_waits(tx, agent)])
    tx.db.execute("DELETE FROM meta WHERE key = ?", (RESET_MARK,))
    names = [row[0] for row in tx.db.execute("SELECT agent FROM holds")]
    lifted = [lift(tx, agent=name) for name in names if name not in but]
    return any([*lifted, _lift_waits(tx, ALL_AGENTS)])


def _lift_waits(tx: Transaction, agent: str) -> bool:
    """End the waits of tasks whose last run was put back until a moment. False: there are none."""
    tx.flush_runs()
    rows = tx.db.execute(_LIFT_WAITS, (agent, ALL_AGENTS)).fetchall()
    for task_id, whose, pending in rows:
        tx.event(
            EventType.TASK_READY,
            agent=whose,
            task_id=task_id,
            state=State.READY,
            data={"notBefore": tx.ts},
        )
        if not pending:
            tx.now_claimable(whose)
    return bool(rows)


def lift_due(tx: Transaction) -> None:
    """Lift the holds whose time is over, and those from before the clock was set back."""
    rows = tx.db.execute(
        "SELECT agent FROM holds WHERE until <= ?1 OR (until IS NOT NULL AND since > ?1)", (tx.ts,)
    ).fetchall()
    for (agent,) in rows:
        lift(tx, agent=agent)


def lift(tx: Transaction, *, agent: str) -> bool:
    """Lift the hold of an agent, or the one (`*`) of all. False: there was none."""
    tx.rules.clear()
    lifted = tx.db.execute("DELETE FROM holds WHERE agent = ?", (agent,)).rowcount
    if lifted:
        tx.event(EventType.RESUMED, agent=agent)
        tx.now_claimable(agent)
    return bool(lifted)
