"""Mending: what can be derived is derived anew, in one transaction, and told in sentences.

The tasks are taken as they stand, with their states, deps and definitions; what the log knows of
lost rows is put back. Nothing here decides whom to believe where the two contradict each other.
Every change is one that `store.audit` has asked for: a sound store is left as it is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from engine.findings import cut
from engine.model import EventType, ProcessId, State
from engine.store import derived
from engine.store.counting import recount
from engine.store.endings import NOBODY
from engine.store.forgetting import log_from
from engine.store.transaction import ADD_RUN, END_RUN, Standing, dump, read_reasons
from engine.store.vitals import KnownWorker, known_workers
from engine.text import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.store.transaction import Transaction

T = TypeVar("T")

_NO_PROCESS = ProcessId(0, "")
"""A host of which nothing is known: no process has this identity, so it counts as gone."""

_LOST_RUNS = (
    "SELECT t.id, t.run_id, t.claimed_by FROM tasks t WHERE t.state IN ('CLAIMED', 'RUNNING')"
    " AND t.claimed_by IS NOT NULL AND t.run_id IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM runs WHERE id = t.run_id)"
)
_TOLD = (
    "SELECT type, ts, agent, worker_id, data FROM events INDEXED BY events_of_task"
    " WHERE task_id = ? AND run_id = ? AND type <> 'LATE_RESULT' AND json_valid(data) ORDER BY seq"
)
_HOST = "SELECT pid, pid_started FROM workers WHERE id = ? AND started_at <= ?"
_FREE = (
    f"UPDATE tasks SET {NOBODY} WHERE state NOT IN ('CLAIMED', 'RUNNING')"
    " AND (run_id IS NOT NULL OR claimed_by IS NOT NULL OR lease_until IS NOT NULL)"
    " AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = tasks.run_id AND r.outcome IS NULL)"
    " RETURNING id"
)
_ADD_ENDING = (
    "INSERT OR IGNORE INTO endings SELECT t.ending, t.id, t.agent, coalesce(r.worker_id, ''), ?,"
    " coalesce(r.host_pid, ?), coalesce(r.host_started, ?), r.pid, r.pid_started"
    " FROM tasks t LEFT JOIN runs r ON r.id = t.ending WHERE t.id = ?"
)
_STANDING = "SELECT id, agent, state, reasons, broken, removed FROM tasks"


def undisturbed(tx: Transaction, act: Callable[[Sequence[KnownWorker]], T]) -> T:
    """Call `act` with the workers that the table believes to live, while none can enter or leave.

    A worker writes its files after it was entered, and takes them away after it was entered as
    over: whoever touches files of nobody does it here, and needs not fear to meet their owner.
    """
    return act(known_workers(tx.db))


def mend(tx: Transaction) -> list[str]:
    """Mend all that can be derived; say in sentences what was done, none if nothing was.

    Keeps the write lock for about 2.5 s for 100,000 tasks.
    """
    tx.flush_runs()
    done: list[str] = []
    # In this order: the books first, then what is counted by them, then what follows from that.
    for step in (_runs, _claims, _purges, _endings, _edges, _counts, _tallies, _spent, _counters):
        done += cut(step(tx))
    return done


def _runs(tx: Transaction) -> list[str]:
    """Put back, as the log tells them, rows of runs that hold a task, and ends of runs.

    A task whose run has no row can be let go by nobody.
    """
    done = []
    for task_id, run_id, worker_id in tx.db.execute(_LOST_RUNS).fetchall():
        told = _told(tx, task_id, run_id)
        claim = told.get(EventType.TASK_CLAIMED)
        if claim is None or claim["worker_id"] != worker_id:
            continue
        host = tx.db.execute(_HOST, (worker_id, claim["ts"])).fetchone()
        start = told.get(EventType.TASK_STARTED)
        tx.db.execute(
            ADD_RUN,
            (
                *(run_id, task_id, claim["agent"], worker_id, claim["data"]["attempt"]),
                *(claim["ts"], None if start is None else start["ts"]),
                *(host or (_NO_PROCESS.pid, _NO_PROCESS.started)),
            ),
        )
        done.append(f"run {run_id} of task {task_id!r} was put back into the runs table")
    for run_id, task_id in tx.db.execute(derived.OPEN_RUNS).fetchall():
        ends = [one for one in _told(tx, task_id, run_id).values() if "outcome" in one["data"]]
        if not ends:
            continue
        data = ends[-1]["data"]
        result = dump(data["result"]) if "result" in data else None
        values = (data["outcome"], ends[-1]["ts"], data.get("exitCode"), data.get("error"), result)
        tx.db.execute(END_RUN, (*values, run_id))
        done.append(f"run {run_id} of task {task_id!r} is ended, as the log says")
    return done


def _told(tx: Transaction, task_id: str, run_id: str) -> dict[str, dict[str, Any]]:
    """Return what the log says of a run, by type."""
    return {
        kind: {"ts": ts, "agent": agent, "worker_id": worker, "data": json.loads(data)}
        for kind, ts, agent, worker, data in tx.db.execute(_TOLD, (task_id, run_id))
    }


def _claims(tx: Transaction) -> list[str]:
    """Free tasks that no run holds of what their last one left in their row."""
    freed = [f"task {row[0]!r} names no run any more" for row in tx.db.execute(_FREE).fetchall()]
    cleared = tx.db.execute(
        "UPDATE tasks SET reasons = '[]' WHERE state NOT IN ('READY', 'BLOCKED')"
        " AND reasons <> '[]' RETURNING id, state"
    ).fetchall()
    return [*freed, *(f"task {row[0]!r}, which is {row[1]}, has no reasons" for row in cleared)]


def _purges(tx: Transaction) -> list[str]:
    done = []
    for (task_id,) in tx.db.execute(derived.PURGED_THERE).fetchall():
        tx.db.execute("DELETE FROM purged WHERE id = ?", (task_id,))
        done.append(f"task {task_id!r}, which is there, no longer counts as purged")
    for task_id, _, met in tx.db.execute(derived.PURGED_WRONG).fetchall():
        tx.db.execute("UPDATE purged SET met = ? WHERE id = ?", (met, task_id))
        done.append(f"task {task_id!r} counts as purged {'done' if met else 'unfinished'} now")
    for task_id, met in tx.db.execute(derived.PURGED_MISSING).fetchall():
        tx.db.execute("INSERT INTO purged VALUES (?, ?)", (task_id, met))
        done.append(f"task {task_id!r} counts as purged {'done' if met else 'unfinished'} again")
    return done


def _endings(tx: Transaction) -> list[str]:
    """Let a task wait for its former run wherever one of the two sides says so.

    So whoever ends trees ends that one, too, and only then the task can be claimed.
    """
    done = []
    for task_id, run_id in tx.db.execute(derived.ENDING_LOST).fetchall():
        tx.db.execute(_ADD_ENDING, (tx.ts, _NO_PROCESS.pid, _NO_PROCESS.started, task_id))
        done.append(f"run {run_id} is being ended again, so that task {task_id!r} can be claimed")
    for task_id, run_id in tx.db.execute(derived.ENDING_UNSEEN).fetchall():
        tx.db.execute("UPDATE tasks SET ending = ? WHERE id = ?", (run_id, task_id))
        done.append(f"task {task_id!r} waits for the end of its former run {run_id}")
    return done


def _edges(tx: Transaction) -> list[str]:
    missing = tx.db.execute(derived.MISSING_EDGES).fetchall()
    foreign = tx.db.execute(derived.FOREIGN_EDGES).fetchall()
    tx.db.executemany("INSERT INTO edges(dep, task) VALUES (?, ?)", missing)
    tx.db.executemany("DELETE FROM edges WHERE dep = ? AND task = ?", foreign)
    told = ((missing, "added to"), (foreign, "removed from"))
    return [f"{plural(len(rows), 'dep')} {what} the edges table" for rows, what in told if rows]


def _counts(tx: Transaction) -> list[str]:
    """Count deps anew, of all before any is settled: nothing may be told that was never true."""
    wrong = tx.db.execute(derived.COUNTS).fetchall()
    tx.db.executemany(
        "UPDATE tasks SET pending = ?, broken = ? WHERE id = ?",
        ((right_pending, right_broken, row[0]) for *row, right_pending, _, right_broken in wrong),
    )
    done = [f"the deps of {plural(len(wrong), 'task')} were counted anew"] if wrong else []
    done += _settle(tx)
    for task_id, state, pending, right_pending, *_ in wrong:
        if state == State.READY and pending and not right_pending:
            _tell_ready(tx, task_id)
    return done


def _settle(tx: Transaction) -> list[str]:
    unfinished = f"{_STANDING} WHERE state IN ('READY', 'BLOCKED') ORDER BY position, id"
    tasks = filter(None, map(_standing, tx.db.execute(unfinished).fetchall()))
    done = []
    for before in [task for task in tasks if not _is_settled(task)]:
        # Read again: another one may have carried it with it.
        task = _standing(tx.db.execute(f"{_STANDING} WHERE id = ?", (before.id,)).fetchone())
        assert task is not None, "it could be read before"
        tx.rest(task)
        why = f" ({', '.join(task.reasons)})" if task.reasons else ""
        done.append(f"task {task.id!r} is {task.state}{why} now, as its deps and the DAG say")
    return done


def _standing(row: Sequence[Any]) -> Standing | None:
    """Read a row of _STANDING; None if its reasons cannot be read: nothing follows from them."""
    try:
        reasons = read_reasons(row[3])
    except (ValueError, TypeError):
        return None
    return Standing(row[0], row[1], State(row[2]), reasons, row[4], bool(row[5]))


def _is_settled(task: Standing) -> bool:
    right = derived.settled(task.state, task.reasons, broken=task.broken, removed=task.removed)
    return (task.state, task.reasons) == right


def _tell_ready(tx: Transaction, task_id: str) -> None:
    """Tell that a task waits for nothing any more, and let a worker take it."""
    row = tx.db.execute(
        "SELECT agent, not_before IS NULL AND ending IS NULL FROM tasks"
        " WHERE id = ? AND state = 'READY'",
        (task_id,),
    ).fetchone()
    if row is None:
        return
    tx.event(EventType.TASK_READY, agent=row[0], task_id=task_id, state=State.READY)
    if row[1]:
        tx.now_claimable(row[0])


def _tallies(tx: Transaction) -> list[str]:
    counted = set(tx.db.execute(derived.COUNTED).fetchall())
    if counted == set(tx.db.execute(derived.TALLIES).fetchall()):
        return []
    tx.db.execute("DELETE FROM tallies")
    tx.db.executemany("INSERT INTO tallies VALUES (?, ?, ?, ?)", sorted(counted))
    return ["the tasks were tallied anew"]


def _spent(tx: Transaction) -> list[str]:
    told = tx.db.execute(derived.SPENT).fetchall()
    if not derived.misspent(told, tx.db.execute(derived.SPENT_NOW)):
        return []
    tx.db.execute("DELETE FROM spent")
    tx.db.executemany("INSERT INTO spent VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", told)
    return ["what the runs took was summed up anew"]


def _counters(tx: Transaction) -> list[str]:
    wrong = recount(tx.db, whole=log_from(tx.db) == 1)
    return ["what ever happened was counted anew"] if wrong else []
