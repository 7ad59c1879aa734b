"""Seeding: the upsert of a DAG into the store, one change in one transaction (DESIGN §6)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from engine.errors import ValidationError
from engine.model import Dag, EventType, State, TaskDef
from engine.store.roster import live_workers
from engine.store.transaction import Standing, Transaction, dump, read_reasons

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from engine.model import ProcessId

_ADD_TASK = (
    "INSERT INTO tasks(id, name, agent, state, deps, priority, timeout, retries, payload, position,"
    " pending, created_at, updated_at) VALUES (?, ?, ?, 'READY', ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ADD_EDGE = "INSERT INTO edges(dep, task) VALUES (?, ?)"
_REDEFINE = (
    "UPDATE tasks SET name = ?, agent = ?, deps = ?, priority = ?, timeout = ?, retries = ?,"
    " payload = ?, updated_at = ? WHERE id = ?"
)
# A dep that is gone was purged: it counts as met if it was DONE, else as broken.
_RECOUNT = (
    "UPDATE tasks SET (pending, broken) = (SELECT"
    " coalesce(sum(coalesce(d.state <> 'DONE', NOT p.met)), 0),"
    " coalesce(sum(coalesce(d.state IN ('FAILED', 'CANCELLED', 'BLOCKED'), NOT p.met)), 0)"
    " FROM json_each(tasks.deps) e LEFT JOIN tasks d ON d.id = e.value"
    " LEFT JOIN purged p ON p.id = e.value) WHERE id = ?"
)
_AGENT_OF_RUN = "SELECT agent FROM runs WHERE id = ? AND task_id = ?"
_STANDING = "SELECT id, agent, state, reasons, broken, removed, pending FROM tasks WHERE id = ?"
TOLD = "told:"
"""What the keys in `meta` begin with that say of which run of a task its issue has heard."""


class SeedReport(Struct):
    """What seeding did, or would do: ids by what happened to them, in file order.

    `changed` has the fields that differ, for each updated task: field → (before, after). `unfit`
    are those that need a person before they can be done, and why.
    """

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: int = 0
    blocked: list[str] = field(default_factory=list)
    unblocked: list[str] = field(default_factory=list)
    retried: list[str] = field(default_factory=list)
    unfit: dict[str, str] = field(default_factory=dict)
    changed: dict[str, dict[str, tuple[Any, Any]]] = field(default_factory=dict)


def seed(
    tx: Transaction,
    dag: Dag,
    *,
    definition: Callable[[TaskDef], dict[str, Any]],
    is_alive: Callable[[ProcessId], bool],
    progress: Callable[[int], None] = lambda _done: None,
    unfit: Mapping[str, str] | None = None,
) -> SeedReport:
    """Upsert `dag`: new → READY, changed → redefined, gone → BLOCKED `removed`, back → unblocked.

    `definition` gives the JSON form that events carry. `progress` is told how many tasks are
    through, now and then, on the writer's thread. `unfit` says why tasks cannot be done as things
    are: those that could be claimed become BLOCKED `human` instead.

    Raises:
        ValidationError: an agent has the id of a worker that lives.

    """
    _refuse_worker_ids(tx, dag, is_alive)
    report = SeedReport()
    known = {
        row[0]: row[1:]
        for row in tx.db.execute(
            "SELECT id, name, agent, deps, priority, timeout, retries, payload, position, state,"
            " removed FROM tasks"
        )
    }
    fresh: list[TaskDef] = []
    for position, task in enumerate(dag.tasks):
        if position % 2000 == 0:
            progress(position)
        before = known.get(task.id)
        if before is None:
            fresh.append(task)
            report.created.append(task.id)
            continue
        _compare(tx, task, before, position, report, definition)
    if fresh:
        places = {task.id: position for position, task in enumerate(dag.tasks)}
        _create(tx, places, fresh, definition)
    _mark_removed(tx, dag, known, report)
    revived = _revive(tx, fresh)
    affected = [*report.updated, *report.unblocked, *_on_old_deps(dag, fresh), *revived]
    _recount(tx, list(dict.fromkeys(affected)))
    _set_agents(tx, dag)
    report.unfit = block(tx, unfit or {})
    tx.db.execute(
        "INSERT INTO meta VALUES ('dag', ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        (dag.source,),
    )
    tx.event(
        EventType.SEEDED,
        data={
            "dag": dag.source,
            "created": len(report.created),
            "updated": len(report.updated),
            "unchanged": report.unchanged,
            "blocked": len(report.blocked),
            "unblocked": len(report.unblocked),
            "agents": {
                name: {"limit": rule.limit, "stagger": rule.stagger}
                for name, rule in dag.agents.items()
            },
        },
    )
    progress(len(dag.tasks))
    return report


def block(tx: Transaction, unfit: Mapping[str, str]) -> dict[str, str]:
    """Make tasks BLOCKED `human` that cannot be done as things are; return those, and why.

    Those that are held, finished or known to need somebody stay as they are. One that waits for
    another of these is BLOCKED by then, and told all the same: or one would hear of it only after
    the other is mended.
    """
    blocked = {}
    for task_id, error in unfit.items():
        if tx.db.execute(_STANDING, (task_id,)).fetchone() is None:
            continue
        task = _standing(tx, task_id)
        if task.state not in {State.READY, State.BLOCKED} or task.human:
            continue
        tx.rest(task, human=True, error=error)
        blocked[task_id] = error
    return blocked


def _refuse_worker_ids(tx: Transaction, dag: Dag, is_alive: Callable[[ProcessId], bool]) -> None:
    """heartbeats/ holds a file for each worker and one for each agent: their names may not meet."""
    clash = {task.agent for task in dag.tasks} & live_workers(tx, is_alive).keys()
    if clash:
        names = ", ".join(sorted(clash))
        raise ValidationError(
            f"{names}: a live worker has this id, so no agent can; stop it or rename the agent"
        )


def _create(
    tx: Transaction,
    places: Mapping[str, int],
    fresh: list[TaskDef],
    definition: Callable[[TaskDef], dict[str, Any]],
) -> None:
    def rows() -> Iterable[tuple[Any, ...]]:
        for task in fresh:
            yield (
                task.id,
                task.name,
                task.agent,
                dump(task.deps) if task.deps else "[]",
                task.priority,
                task.timeout,
                task.retries,
                dump(task.payload),
                places[task.id],
                len(task.deps),
                tx.ts,
                tx.ts,
            )

    tx.db.executemany(_ADD_TASK, rows())
    tx.db.executemany(_ADD_EDGE, ((dep, task.id) for task in fresh for dep in task.deps))
    for task in fresh:
        tx.event(
            EventType.TASK_CREATED,
            agent=task.agent,
            task_id=task.id,
            state=State.READY,
            data={"definition": definition(task)},
        )
        if not task.deps:
            tx.now_claimable(task.agent)


def _compare(
    tx: Transaction,
    task: TaskDef,
    before: tuple[Any, ...],
    position: int,
    report: SeedReport,
    definition: Callable[[TaskDef], dict[str, Any]],
) -> None:
    fields = ("name", "agent", "deps", "priority", "timeout", "retries", "payload")
    now = (
        task.name,
        task.agent,
        dump(task.deps) if task.deps else "[]",
        task.priority,
        task.timeout,
        task.retries,
        dump(task.payload),
    )
    *old, old_position, state, removed = before
    if position != old_position or removed:
        tx.db.execute(
            "UPDATE tasks SET position = ?, removed = 0 WHERE id = ?", (position, task.id)
        )
    unblocked = removed and state == State.BLOCKED
    if unblocked:
        report.unblocked.append(task.id)
    differs = tuple(
        name
        for name, a, b in zip(fields, old, now, strict=True)
        # The order of a payload's keys means nothing.
        if a != b and not (name == "payload" and json.loads(old[-1]) == task.payload)
    )
    if not differs:
        report.unchanged += not unblocked
        return
    report.updated.append(task.id)
    report.changed[task.id] = {
        name: (_read(name, a), _read(name, b))
        for name, a, b in zip(fields, old, now, strict=True)
        if name in differs
    }
    tx.db.execute(_REDEFINE, (*now, tx.ts, task.id))
    if "deps" in differs:
        tx.db.executemany(
            "DELETE FROM edges WHERE dep = ? AND task = ?",
            ((dep, task.id) for dep in json.loads(before[2])),
        )
        tx.db.executemany(_ADD_EDGE, ((dep, task.id) for dep in task.deps))
    tx.event(
        EventType.TASK_UPDATED,
        agent=task.agent,
        task_id=task.id,
        state=State(state),
        data={"definition": definition(task), "changed": differs},
    )


def _read(name: str, stored: Any) -> Any:
    return json.loads(stored) if name in {"deps", "payload"} else stored


def _mark_removed(
    tx: Transaction, dag: Dag, known: dict[str, tuple[Any, ...]], report: SeedReport
) -> None:
    here = {task.id for task in dag.tasks}
    for task_id, before in known.items():
        if task_id in here or before[-1] or _is_issue(before[6]):
            continue
        tx.db.execute("UPDATE tasks SET removed = 1 WHERE id = ?", (task_id,))
        task = _standing(tx, task_id)
        if task.state in (State.READY, State.BLOCKED):
            tx.rest(task)
            report.blocked.append(task_id)


def _is_issue(payload: str) -> bool:
    """Say whether a task came from an issue: no DAG file has it, and none can take it back."""
    return '"issue":' in payload and isinstance(json.loads(payload).get("issue"), dict)


def add(
    tx: Transaction,
    tasks: Sequence[TaskDef],
    *,
    definition: Callable[[TaskDef], dict[str, Any]],
    unfit: Mapping[str, str],
) -> None:
    """Add tasks that stand in no DAG file, after all others; see Store.add."""
    here = "SELECT 1 FROM tasks WHERE id = ?"
    fresh = [task for task in tasks if tx.db.execute(here, (task.id,)).fetchone() is None]
    first = int(tx.db.execute("SELECT coalesce(max(position), -1) FROM tasks").fetchone()[0]) + 1
    _create(tx, {task.id: first + n for n, task in enumerate(fresh)}, fresh, definition)
    _recount(tx, _revive(tx, fresh))
    block(tx, unfit)


def note_told(tx: Transaction, task_id: str, run_id: str) -> None:
    """Note that whoever asked for a task has heard of a run of it; see Store.note_told."""
    tx.flush_runs()
    run = tx.db.execute(_AGENT_OF_RUN, (run_id, task_id)).fetchone()
    if run is None:
        return  # purged meanwhile
    (agent,) = run
    tx.db.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        (f"{TOLD}{task_id}", run_id),
    )
    tx.event(EventType.ISSUE_TOLD, agent=agent, task_id=task_id, run_id=run_id)


def _recount(tx: Transaction, task_ids: Sequence[str]) -> None:
    """Count deps anew, of all before any is settled: nothing may be told that was never true."""
    tx.db.executemany(_RECOUNT, ((task_id,) for task_id in task_ids))
    for task_id in task_ids:
        task = _standing(tx, task_id)
        if task.state in (State.READY, State.BLOCKED):
            tx.rest(task)
        if task.state is State.READY:
            tx.now_claimable(task.agent)


def _on_old_deps(dag: Dag, fresh: Sequence[TaskDef]) -> list[str]:
    """New tasks that depend on old ones: those may be DONE or broken already."""
    if len(fresh) == len(dag.tasks):
        return []
    new = {task.id for task in fresh}
    return [task.id for task in fresh if any(dep not in new for dep in task.deps)]


def _revive(tx: Transaction, fresh: Iterable[TaskDef]) -> list[str]:
    """Bring purged tasks back into the books; return who depends on them.

    A former run whose tree may still live keeps the new task from being claimed, too.
    """
    tx.db.execute(
        "UPDATE tasks SET ending = e.run_id FROM endings e"
        " WHERE e.task_id = tasks.id AND tasks.ending IS NULL"
    )
    tx.db.execute("DELETE FROM purged WHERE id NOT IN (SELECT dep FROM edges)")
    purged = {row[0] for row in tx.db.execute("SELECT id FROM purged")}
    dependents: list[str] = []
    for task in fresh if purged else ():
        if task.id in purged:
            tx.db.execute("DELETE FROM purged WHERE id = ?", (task.id,))
            rows = tx.db.execute("SELECT task FROM edges WHERE dep = ?", (task.id,))
            dependents += (row[0] for row in rows)
    return dependents


def _standing(tx: Transaction, task_id: str) -> Standing:
    row = tx.db.execute(_STANDING, (task_id,)).fetchone()
    return Standing(row[0], row[1], State(row[2]), read_reasons(row[3]), row[4], bool(row[5]))


def _set_agents(tx: Transaction, dag: Dag) -> None:
    tx.rules.clear()
    tx.db.execute("UPDATE agents SET run_limit = NULL, stagger = 0")
    tx.db.executemany(
        "INSERT INTO agents(name, run_limit, stagger) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET"
        " run_limit = excluded.run_limit, stagger = excluded.stagger",
        ((name, rule.limit, rule.stagger) for name, rule in dag.agents.items()),
    )
