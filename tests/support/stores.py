"""Stores for tests: small DAGs, a store that is opened alone, and looks into any store's file.

What must be true of a store stands in support.soundness.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from support.clock import ManualClock
from support.soundness import Tables, check_tables, connect, read_events, read_tasks, rows_of

from engine.files import Layout
from engine.model import AgentRule, Dag, Event, ProcessId, TaskDef
from engine.store.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from pathlib import Path

    from engine.clock import Clock
    from engine.model import Budget, Claim
    from engine.store.orders import Ordered, Orders
    from engine.store.writer import Committed

HOST = ProcessId(4711, "12345")
OTHER_HOST = ProcessId(4712, "12346")
LEASE = 600.0


def a_task(
    task_id: str,
    *deps: str,
    agent: str = "codex",
    name: str | None = None,
    retries: int = 0,
    priority: int = 0,
    timeout: float = 3600.0,
    payload: Mapping[str, Any] | None = None,
) -> TaskDef:
    return TaskDef(
        task_id,
        name or task_id,
        agent,
        deps,
        priority,
        timeout,
        retries,
        payload or {"kind": "noop", "seconds": 0},
    )


def a_dag(*tasks: TaskDef, agents: Mapping[str, AgentRule] | None = None) -> Dag:
    return Dag(tasks, agents or {}, "dag.yaml")


@dataclass
class Opened:
    """A store that a test holds open, with its clock and what its commits told."""

    store: Store
    layout: Layout
    clock: Clock
    commits: list[Committed] = field(default_factory=list)

    async def claim(self, worker_id: str = "codex-1", agent: str = "codex") -> Claim:
        claim = await self.store.claim(agent, worker_id, HOST)
        assert claim is not None, f"nothing to claim for {agent}"
        return claim

    async def order(
        self, what: Callable[..., Orders], *task_ids: str, dry_run: bool = False, **options: Any
    ) -> Orders:
        """Carry out one of engine.store.orders on tasks."""
        change = partial(what, task_ids=task_ids, **options)
        return await self.store.order(change, dry_run=dry_run)

    async def order_one(
        self, what: Callable[..., Orders], task_id: str, *, dry_run: bool = False, **options: Any
    ) -> Ordered:
        """Carry out an order on one task; raise what was refused."""
        answers = await self.order(what, task_id, dry_run=dry_run, **options)
        for error in answers.refused.values():
            raise error
        return answers.done[task_id]

    def row(self, task_id: str) -> dict[str, Any]:
        return tasks_of(self.layout)[task_id]

    def state(self, task_id: str) -> str:
        return str(self.row(task_id)["state"])

    def reasons(self, task_id: str) -> set[str]:
        return set(self.row(task_id)["reasons"])


@asynccontextmanager
async def opened(
    folder: Path,
    *,
    clock: Clock | None = None,
    lease: float = LEASE,
    budget: Budget | None = None,
) -> AsyncIterator[Opened]:
    layout = Layout(folder / "state")
    layout.create()
    clock = clock or ManualClock()
    commits: list[Committed] = []
    store = Store(layout, clock, lease=lease, on_commit=commits.append)
    await store.open()
    try:
        if budget is not None:
            await store.set_budget(budget)
        yield Opened(store, layout, clock, commits)
    finally:
        await store.close()


def select(layout: Layout, sql: str, *values: Any) -> list[dict[str, Any]]:
    with closing(connect(layout)) as db:
        return rows_of(db, sql, *values)


def tuples(layout: Layout, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return rows as tuples; `select` returns them as dicts."""
    with closing(sqlite3.connect(layout.database, timeout=10)) as db:
        return db.execute(sql, values).fetchall()


def tasks_of(layout: Layout) -> dict[str, dict[str, Any]]:
    """Return the table of tasks by id; JSON columns as values."""
    with closing(connect(layout)) as db:
        return read_tasks(db)


def states_of(layout: Layout) -> dict[str, str]:
    """Return the state of every task."""
    return {task_id: str(row["state"]) for task_id, row in tasks_of(layout).items()}


def events_of(layout: Layout, task_id: str | None = None) -> list[Event]:
    """Return all events, or those of a task."""
    with closing(connect(layout)) as db:
        events = read_events(db)
    return [event for event in events if task_id is None or event.task_id == task_id]


def kinds(events: Iterable[Event]) -> list[str]:
    return [str(event.type) for event in events]


def in_words(answers: Orders) -> dict[str, Any]:
    """Return all that an order answered, in values that can be compared."""
    return {
        "done": dict(answers.done),
        "refused": {task_id: repr(error) for task_id, error in answers.refused.items()},
        "blocked": answers.blocked,
        "unblocked": answers.unblocked,
    }


def everything(layout: Layout) -> list[str]:
    """Return the whole database as SQL: two that are equal hold the same, down to the last row."""
    with closing(sqlite3.connect(layout.database, timeout=10)) as db:
        return list(db.iterdump())


def check_store(layout: Layout) -> None:
    """Assert all that is true of a store; see support.soundness."""
    check_tables(Tables.read(layout))


def check_log(layout: Layout) -> None:
    """Assert that events.jsonl tells every event once, in order, and exactly as the table does."""
    text = layout.log.read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n")
    told = [json.loads(line) for line in text.split("\n")[:-1]]
    rows = select(layout, "SELECT * FROM events ORDER BY seq")
    columns = {"agent": "agent", "workerId": "worker_id", "taskId": "task_id", "runId": "run_id"}
    expected = []
    for row in rows:
        line = {"seq": row["seq"], "ts": row["ts"], "type": row["type"]}
        line |= {key: row[column] for key, column in columns.items() if row[column] is not None}
        if row["state"] is not None:
            line["state"] = row["state"]
        expected.append(line | json.loads(row["data"]))
    assert told == expected
