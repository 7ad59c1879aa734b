"""The store's part of a reset: the hold that begins it, and the one transaction that completes it.

Between the two workers stop, which may fail or take the operator's patience; the mark in `meta`
remembers that a reset is under way and whose the hold is, so that doing it again completes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.model import ALL_AGENTS, EventType
from engine.store import orders, roster, spending
from engine.store.seeding import SeedReport, block, seed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from engine.model import Dag, ProcessId, TaskDef
    from engine.store.transaction import Transaction

_OURS, _THEIRS = "ours", "theirs"


def begin(tx: Transaction) -> None:
    """Hold all claims for a reset, and remember whether somebody else had held them before."""
    if tx.db.execute("SELECT 1 FROM meta WHERE key = ?", (roster.RESET_MARK,)).fetchone() is None:
        whose = _OURS if roster.hold(tx, agent=ALL_AGENTS) else _THEIRS
        tx.db.execute("INSERT INTO meta VALUES (?, ?)", (roster.RESET_MARK, whose))
    else:
        # Begun before. Should the hold be gone, an operator wanted that; now it is ours again.
        roster.hold(tx, agent=ALL_AGENTS)


def abandon(tx: Transaction) -> None:
    """Give up a reset that has begun: claims go on unless somebody else held them."""
    _lift(tx)


def complete(
    tx: Transaction,
    dag: Dag,
    *,
    fresh: bool,
    definition: Callable[[TaskDef], dict[str, Any]],
    is_alive: Callable[[ProcessId], bool],
    progress: Callable[[int], None],
    unfit: Mapping[str, str] | None = None,
) -> SeedReport:
    """Write RESET, seed, retry all that is in the DAG if `fresh`, resume: all of it or nothing.

    The mirror begins a new file with RESET.

    Raises:
        ValidationError: an agent has the id of a worker that lives.

    """
    tx.event(EventType.RESET, data={"dag": dag.source, "fresh": fresh})
    spending.forget_all(tx)
    report = seed(tx, dag, definition=definition, is_alive=is_alive, progress=progress)
    if fresh:
        # What cannot be retried (it waits already, or left the DAG) is as a reset wants it.
        retried = orders.retry(tx, task_ids=[task.id for task in dag.tasks])
        report.retried += [task_id for task_id in retried.done if task_id not in retried.mended]
    # After the retries, which would lift it again.
    report.unfit = block(tx, unfit or {})
    _lift(tx)
    return report


def _lift(tx: Transaction) -> None:
    row = tx.db.execute(
        "DELETE FROM meta WHERE key = ? RETURNING value", (roster.RESET_MARK,)
    ).fetchone()
    if row is not None and row[0] == _OURS:
        roster.lift(tx, agent=ALL_AGENTS)
