"""Fills a new store with what an older agentmux left: its tasks and its history.

The old lines come first, marked so that `fold` skips them: they say less than it needs. Then come
the events of the tasks, so that the log folds to the table. Writes to the new database only; the
files of both stores are the caller's.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.clock import to_iso
from engine.model import BROKEN, EventType, State
from engine.parsing.cycles import find_cycles
from engine.store.adoption.adopted import ADD_RUN, ADD_TASK, AdoptedTask
from engine.store.adoption.loose import Notes
from engine.store.adoption.oldlog import Clue, History
from engine.store.adoption.oldtasks import COLUMNS, read_tasks
from engine.store.counting import count_all
from engine.store.database import schema_version
from engine.store.transaction import ADD_EVENT, event_row
from engine.text import cut_middle, plural

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

_LONGEST_WAY = 300

_READY_AGAIN = (
    "these tasks were claimed or running and are ready again; end the workers of the older "
    "agentmux if they are still at work"
)
_MET = "these deps are in no table and count as met"
_BROKEN = "these deps are in no table, did not succeed and count as broken"
_CIRCLE = "these deps run in a circle, and their tasks are blocked until the DAG is mended"


class Adopted(Struct, frozen=True):
    """What was taken over: tasks, and lines of the log. `notes` tell people what was odd."""

    tasks: int
    events: int
    notes: tuple[str, ...]


def is_older(connection: sqlite3.Connection) -> bool:
    """Say whether a database is the store of an agentmux that had no schema version yet."""
    found = {str(row[1]).lower() for row in connection.execute("PRAGMA table_info(tasks)")}
    return schema_version(connection) == 0 and found.issuperset(COLUMNS)


def convert(
    old: sqlite3.Connection, old_log: Path | None, new: sqlite3.Connection, now: datetime
) -> Adopted:
    """Fill `new`, an empty database of today's schema, from an older store, in one transaction.

    `old` is only read; no file at `old_log` means no history. DONE, FAILED and CANCELLED stay, the
    first two with one run that carries the old result. A task that was claimed or running is READY
    again, its run released: nobody renews that lease. BLOCKED is `upstream` if a dep is broken,
    else `human`, as is every state that is not ours. The old `retries` are taken as those that a
    task may have, not as used up. A dep that is in no table counts as met, unless the log says
    that it failed or was cancelled: then as broken.

    Raises:
        sqlite3.Error, OSError: a store or the log failed; `new` is empty again.

    """
    notes = Notes()
    old_tasks = read_tasks(old, now, notes)
    new.execute("BEGIN IMMEDIATE")
    try:
        history = History(now, notes)
        if old_log is not None and old_log.exists():
            new.executemany(ADD_EVENT, history.read(old_log))
        tasks = [AdoptedTask(task, history.clues.get(task.id, Clue()), now) for task in old_tasks]
        for task in tasks:
            if task.run is not None and not task.finished:
                worker = f"{task.id} ({task.run.worker_id})"
                notes.add(_READY_AGAIN, worker)
        purged = _find_purged(tasks, history.clues, notes)
        _settle(tasks, purged, notes)
        _write(new, tasks, purged, now)
        count = f"{plural(len(tasks), 'task')} and {plural(history.count, 'event')}"
        told = {"message": f"adopted {count} of an older agentmux", "notes": notes.told()}
        new.execute(ADD_EVENT, event_row(to_iso(now), EventType.ALERT, data=told))
        count_all(new)
        new.execute("COMMIT")
    except BaseException:
        if new.in_transaction:
            new.execute("ROLLBACK")
        raise
    return Adopted(len(tasks), history.count, notes.told())


def _find_purged(
    tasks: Sequence[AdoptedTask], clues: Mapping[str, Clue], notes: Notes
) -> dict[str, State]:
    """Return the deps that are in no table, each with the state in which it counts as purged."""
    known = {task.id for task in tasks}
    purged: dict[str, State] = {}
    for task in tasks:
        for dep in task.deps:
            if dep in known or dep in purged:
                continue
            ended = clues[dep].ended if dep in clues else None
            failed = ended in {EventType.TASK_FAILED, EventType.TASK_CANCELLED}
            purged[dep] = State.CANCELLED if failed else State.DONE
            notes.add(_BROKEN if failed else _MET, dep)
    return purged


def _settle(tasks: Sequence[AdoptedTask], purged: Mapping[str, State], notes: Notes) -> None:
    """Bring every task to rest, each after its deps: they decide whether it is `upstream`."""
    states = {**purged, **{task.id: task.state for task in tasks if task.finished}}
    left = {task.id: task for task in tasks if not task.finished}
    dependents: dict[str, list[AdoptedTask]] = defaultdict(list)
    waiting: dict[str, int] = {}
    for task in left.values():
        waits_for = [dep for dep in task.deps if dep in left]
        waiting[task.id] = len(waits_for)
        for dep in waits_for:
            dependents[dep].append(task)
    free: list[tuple[AdoptedTask, str | None]]
    free = [(task, None) for task in left.values() if not waiting[task.id]]
    while left:
        for task, trouble in free:  # grows while it is walked
            del left[task.id]
            broken = sum(states.get(dep) in BROKEN for dep in task.deps)
            states[task.id] = task.come_to_rest(broken=broken, trouble=trouble)
            for dependent in dependents[task.id]:
                waiting[dependent.id] -= 1
                if not waiting[dependent.id]:
                    free.append((dependent, None))
        # What is left waits for each other. A circle is cut where all that is in it is blocked.
        free = _find_circles(left, notes)
        waiting.update((task.id, 0) for task, _ in free)
    for task in tasks:
        task.count(states)


def _find_circles(
    left: Mapping[str, AdoptedTask], notes: Notes
) -> list[tuple[AdoptedTask, str | None]]:
    """Return tasks that wait for themselves in the end, each with what a human must know of it."""
    ids = list(left)
    index = {task_id: number for number, task_id in enumerate(ids)}
    graph = [[index[dep] for dep in task.deps if dep in index] for task in left.values()]
    found: list[tuple[AdoptedTask, str | None]] = []
    for circle in find_cycles(graph):
        way = cut_middle(" → ".join(ids[number] for number in circle), _LONGEST_WAY)
        notes.add(_CIRCLE, way)
        trouble = f"its deps run in a circle ({way}); mend the DAG, seed it, then retry the task"
        found += ((left[ids[number]], trouble) for number in circle[:-1])
    return found


def _write(
    new: sqlite3.Connection,
    tasks: Sequence[AdoptedTask],
    purged: Mapping[str, State],
    now: datetime,
) -> None:
    new.executemany(ADD_TASK, (task.row(position) for position, task in enumerate(tasks)))
    edges = ((dep, task.id) for task in tasks for dep in task.deps)
    new.executemany("INSERT INTO edges(dep, task) VALUES (?, ?)", edges)
    rows = ((dep, state is State.DONE) for dep, state in purged.items())
    new.executemany("INSERT INTO purged(id, met) VALUES (?, ?)", rows)
    runs = [(task.run, task) for task in tasks if task.run is not None]
    runs.sort(key=lambda pair: pair[0].claimed)
    new.executemany(ADD_RUN, (run.row(task) for run, task in runs))
    told = [event for task in tasks for event in task.events()]
    told += (
        event_row(to_iso(now), EventType.TASK_PURGED, task_id=dep, state=state)
        for dep, state in purged.items()
    )
    # A log is read by time; the events of one task are in that order already.
    told.sort(key=lambda event: event[0] or "")
    new.executemany(ADD_EVENT, told)
