"""What is known of a task while a run holds it, read under the write lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.errors import TaskNotFound
from engine.model import EventType, State
from engine.store.transaction import Standing, Transaction, read_reasons

if TYPE_CHECKING:
    from collections.abc import Mapping

RELEASE = "release"
"""`asked` of a task whose holder shall let go of it."""
EXPIRE = "expire"
"""`asked` of a task whose run is being ended by somebody else's reaper."""

_HELD = (
    "SELECT id, agent, state, reasons, broken, removed, run_id, claimed_by, attempts, retries,"
    " lost, asked, ending, (SELECT coalesce(started_at, claimed_at) FROM runs WHERE id = run_id)"
    " FROM tasks WHERE id = ?"
)


# The run may be purged while it ends.
_WHOSE = (
    "SELECT agent, worker_id FROM runs WHERE id = ?1"
    " UNION ALL SELECT agent, worker_id FROM endings WHERE run_id = ?1"
)


class Held(Standing):
    """A task and the run that holds it since then; None while nobody does.

    `ending` is the former run, while its tree may still live.
    """

    run_id: str | None
    claimed_by: str | None
    attempts: int
    retries: int
    lost: int
    asked: str | None
    ending: str | None
    since: str | None


def read_held(tx: Transaction, task_id: str) -> Held | None:
    """Return a task with its holder, None if there is no such task."""
    row = tx.db.execute(_HELD, (task_id,)).fetchone()
    if row is None:
        return None
    return Held(row[0], row[1], State(row[2]), read_reasons(row[3]), row[4], bool(row[5]), *row[6:])


def need_held(tx: Transaction, task_id: str) -> Held:
    """Return a task with its holder. Raises TaskNotFound."""
    task = read_held(tx, task_id)
    if task is None:
        raise TaskNotFound(task_id)
    return task


def tell(
    tx: Transaction, kind: EventType, task: Held, state: State, data: Mapping[str, Any]
) -> None:
    """Tell an event of the run that holds (or held) `task`."""
    tx.event(
        kind,
        agent=task.agent,
        worker_id=task.claimed_by,
        task_id=task.id,
        run_id=task.run_id,
        state=state,
        data=data,
    )


def tell_late(tx: Transaction, run_id: str, task_id: str, data: Mapping[str, Any]) -> None:
    """Tell what a run said that no longer holds its task: it changes nothing of that."""
    agent, worker_id = tx.db.execute(_WHOSE, (run_id,)).fetchone() or (None, None)
    tx.event(
        EventType.LATE_RESULT,
        agent=agent,
        worker_id=worker_id,
        task_id=task_id,
        run_id=run_id,
        data=data,
    )
