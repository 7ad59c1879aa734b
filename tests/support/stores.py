"""Stores for tests: small DAGs, a store that is opened alone, and what must be true of any store.

What a store must be is worked out here from its plain tables, without the engine's own queries.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.clock import ManualClock

from engine.clock import from_iso
from engine.dag import to_definition
from engine.files import Layout
from engine.machine import fold
from engine.model import AgentRule, Dag, Event, EventType, ProcessId, State, TaskDef
from engine.store.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from pathlib import Path

    from engine.clock import Clock
    from engine.model import Claim
    from engine.store.writer import Committed

HOST = ProcessId(4711, "12345")
OTHER_HOST = ProcessId(4712, "12346")
LEASE = 600.0
TASK_EVENTS = {kind for kind in EventType if kind.startswith("TASK_")} | {EventType.LEASE_EXPIRED}


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

    def row(self, task_id: str) -> dict[str, Any]:
        return tasks_of(self.layout)[task_id]

    def state(self, task_id: str) -> str:
        return str(self.row(task_id)["state"])

    def reasons(self, task_id: str) -> set[str]:
        return set(self.row(task_id)["reasons"])


@asynccontextmanager
async def opened(
    folder: Path, *, clock: Clock | None = None, lease: float = LEASE
) -> AsyncIterator[Opened]:
    layout = Layout(folder / "state")
    layout.create()
    clock = clock or ManualClock()
    commits: list[Committed] = []
    store = Store(layout, clock, lease=lease, on_commit=commits.append)
    await store.open()
    try:
        yield Opened(store, layout, clock, commits)
    finally:
        await store.close()


def select(layout: Layout, sql: str, *values: Any) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(layout.database, timeout=10)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(sql, values)]


def tasks_of(layout: Layout) -> dict[str, dict[str, Any]]:
    """Return the table of tasks by id; JSON columns as values."""
    rows = select(layout, "SELECT * FROM tasks ORDER BY position, id")
    for row in rows:
        for column in ("reasons", "deps", "payload"):
            row[column] = json.loads(row[column])
    return {row["id"]: row for row in rows}


def events_of(layout: Layout, task_id: str | None = None) -> list[Event]:
    """Return all events, or those of a task."""
    return [
        Event(
            row["seq"],
            from_iso(row["ts"]),
            EventType(row["type"]),
            row["agent"],
            row["worker_id"],
            row["task_id"],
            row["run_id"],
            State(row["state"]) if row["state"] else None,
            json.loads(row["data"]),
        )
        for row in select(layout, "SELECT * FROM events ORDER BY seq")
        if task_id is None or row["task_id"] == task_id
    ]


def kinds(events: Iterable[Event]) -> list[str]:
    return [str(event.type) for event in events]


def everything(layout: Layout) -> list[str]:
    """Return the whole database as SQL: two that are equal hold the same, down to the last row."""
    with closing(sqlite3.connect(layout.database, timeout=10)) as db:
        return list(db.iterdump())


def check_store(layout: Layout) -> None:
    """Assert all that is true of a store between any two transactions."""
    tasks, events = tasks_of(layout), events_of(layout)
    runs = select(layout, "SELECT * FROM runs ORDER BY n")
    assert [event.seq for event in events] == list(range(1, len(events) + 1)), "seq has gaps"
    for event in events:
        assert (event.state is not None) == (event.type in TASK_EVENTS), event
    _check_fold(tasks, events, runs)
    _check_counts(tasks)
    _check_claims(tasks, runs)
    _check_tallies(layout, tasks)
    edges = {(row["dep"], row["task"]) for row in select(layout, "SELECT dep, task FROM edges")}
    assert edges == {(dep, task_id) for task_id, row in tasks.items() for dep in row["deps"]}


def _check_fold(
    tasks: dict[str, dict[str, Any]], events: list[Event], runs: list[dict[str, Any]]
) -> None:
    folded = fold(events)
    assert folded.keys() == tasks.keys()
    for task_id, row in tasks.items():
        told = folded[task_id]
        assert dict(told.definition) == to_definition(
            TaskDef(
                task_id,
                row["name"],
                row["agent"],
                tuple(row["deps"]),
                row["priority"],
                row["timeout"],
                row["retries"],
                row["payload"],
            )
        )
        assert told.state == row["state"], task_id
        assert list(told.reasons) == row["reasons"], task_id
        assert told.attempts == row["attempts"], task_id
        assert {
            run_id: (run.worker_id, run.attempt, run.outcome) for run_id, run in told.runs.items()
        } == {
            run["id"]: (run["worker_id"], run["attempt"], run["outcome"])
            for run in runs
            if run["task_id"] == task_id
        }


def _check_counts(tasks: dict[str, dict[str, Any]]) -> None:
    for task_id, row in tasks.items():
        states = [tasks[dep]["state"] for dep in row["deps"]]
        broken = sum(state in {"FAILED", "CANCELLED", "BLOCKED"} for state in states)
        assert row["pending"] == sum(state != "DONE" for state in states), task_id
        assert row["broken"] == broken, task_id
        if row["state"] in {"READY", "BLOCKED"}:
            assert ("upstream" in row["reasons"]) == (broken > 0), task_id
            assert ("removed" in row["reasons"]) == bool(row["removed"]), task_id
            assert bool(row["reasons"]) == (row["state"] == "BLOCKED"), task_id
        else:
            assert row["reasons"] == [], task_id


def _check_claims(tasks: dict[str, dict[str, Any]], runs: list[dict[str, Any]]) -> None:
    """A task is active exactly while one run of it is open, and that run holds it."""
    going = {run["task_id"]: run["id"] for run in runs if run["outcome"] is None}
    assert len(going) == sum(run["outcome"] is None for run in runs), "two open runs of one task"
    for task_id, row in tasks.items():
        active = row["state"] in {"CLAIMED", "RUNNING"}
        assert row["run_id"] == going.get(task_id), task_id
        assert active == (task_id in going), task_id
        assert active == (row["claimed_by"] is not None) == (row["lease_until"] is not None)
        assert (row["timeout_at"] is not None) == (row["state"] == "RUNNING"), task_id
    assert all((run["ended_at"] is None) == (run["outcome"] is None) for run in runs)


def _check_tallies(layout: Layout, tasks: dict[str, dict[str, Any]]) -> None:
    counted = Counter(
        (
            row["agent"],
            row["state"],
            row["state"] == "READY" and (row["pending"] > 0 or row["not_before"] is not None),
        )
        for row in tasks.values()
    )
    tallies = {
        (row["agent"], row["state"], bool(row["waiting"])): row["n"]
        for row in select(layout, "SELECT * FROM tallies WHERE n <> 0")
    }
    assert tallies == dict(counted)


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
