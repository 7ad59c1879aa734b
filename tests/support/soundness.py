"""All tables of a store, read at once, and what must be true of them between two transactions.

It is worked out here from the plain rows, without the engine's own queries.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.clock import from_iso
from engine.dag import to_definition
from engine.machine import fold
from engine.model import Event, EventType, State, TaskDef

if TYPE_CHECKING:
    from engine.files import Layout

TASK_EVENTS = {kind for kind in EventType if kind.startswith("TASK_")} | {EventType.LEASE_EXPIRED}


def connect(layout: Layout) -> sqlite3.Connection:
    db = sqlite3.connect(layout.database, timeout=10)
    db.row_factory = sqlite3.Row
    return db


def rows_of(db: sqlite3.Connection, sql: str, *values: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in db.execute(sql, values)]


def read_tasks(db: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    rows = rows_of(db, "SELECT * FROM tasks ORDER BY position, id")
    for row in rows:
        for column in ("reasons", "deps", "payload"):
            row[column] = json.loads(row[column])
    return {row["id"]: row for row in rows}


def read_events(db: sqlite3.Connection) -> list[Event]:
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
        for row in db.execute("SELECT * FROM events ORDER BY seq")
    ]


@dataclass(frozen=True)
class Tables:
    """All that a store holds, read at once. `tasks` are by id, with their JSON as values."""

    tasks: dict[str, dict[str, Any]]
    events: list[Event]
    rows: dict[str, list[dict[str, Any]]]
    """The rows of the other tables, as they are."""

    @classmethod
    def read(cls, layout: Layout) -> Tables:
        names = (
            *("runs", "edges", "endings", "purged", "tallies", "workers", "holds", "meta"),
            "counters",
        )
        with closing(connect(layout)) as db:
            db.execute("BEGIN")  # another process may be writing
            rows = {name: rows_of(db, f"SELECT * FROM {name}") for name in names}
            return cls(read_tasks(db), read_events(db), rows)


def check_tables(tables: Tables) -> None:
    """Assert all that is true of a store between any two transactions."""
    tasks = tables.tasks
    # What came before may be forgotten, in part or whole.
    begins = [int(row["value"]) for row in tables.rows["meta"] if row["key"] == "log_from"] or [1]
    events = [event for event in tables.events if event.seq >= begins[0]]
    seqs = [event.seq for event in events]
    assert seqs == list(range(begins[0], begins[0] + len(events))), "seq has gaps"
    for event in events:
        assert (event.state is not None) == (event.type in TASK_EVENTS), event
    _check_transitions(events)
    _check_fold(tables)
    _check_counts(tasks, _tombstones(tables))
    _check_claims(tables)
    _check_endings(tables)
    _check_tallies(tables)
    if begins == [1]:
        _check_counters(tables)
    edges = {(row["dep"], row["task"]) for row in tables.rows["edges"]}
    assert edges == {(dep, task_id) for task_id, row in tasks.items() for dep in row["deps"]}


_HELD = {"CLAIMED", "RUNNING"}
_OVER = {"DONE", "FAILED", "CANCELLED"}
_MOVES: dict[str, tuple[set[str], set[str]]] = {
    "TASK_READY": ({"READY", "BLOCKED"}, {"READY"}),
    "TASK_CLAIMED": ({"READY"}, {"CLAIMED"}),
    "TASK_STARTED": ({"CLAIMED"}, {"RUNNING"}),
    "TASK_PROGRESS": ({"RUNNING"}, {"RUNNING"}),
    "TASK_COMPLETED": ({"RUNNING"}, {"DONE"}),
    "TASK_FAILED": (_HELD, {"READY", "FAILED"}),
    "TASK_BLOCKED": ({"READY", "BLOCKED", *_HELD}, {"BLOCKED"}),
    "TASK_RELEASED": (_HELD, {"READY"}),
    "LEASE_EXPIRED": (_HELD, {"READY"}),
    "TASK_CANCELLED": ({"READY", "BLOCKED", *_HELD}, {"CANCELLED"}),
    "TASK_RETRIED": ({"BLOCKED", *_OVER}, {"READY"}),
}
"""DESIGN §3, once more: what each event may find a task in, and leave it in."""


def _check_transitions(events: list[Event]) -> None:
    """Every event of a task follows from the one before; those of an older agentmux may not."""
    states: dict[str, str] = {}
    for event in events:
        if event.task_id is None or event.state is None or event.data.get("adopted"):
            continue
        before, after = states.get(event.task_id), str(event.state)
        match event.type:
            case "TASK_CREATED":
                assert before is None, event
            case "TASK_UPDATED":
                assert before == after, event
            case "TASK_PURGED":
                assert before == after, event
                assert after in _OVER, event
            case kind:
                source, target = _MOVES[kind]
                assert before in source, event
                assert after in target, event
        states[event.task_id] = after
        if event.type == "TASK_PURGED":
            del states[event.task_id]


def _check_fold(tables: Tables) -> None:
    folded, runs = fold(tables.events), tables.rows["runs"]
    assert folded.keys() == tables.tasks.keys()
    assert {run["task_id"] for run in runs} <= tables.tasks.keys(), "runs of a task that is gone"
    for task_id, row in tables.tasks.items():
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


def _tombstones(tables: Tables) -> dict[str, str]:
    """Return the deps that were purged, with the state that they had then."""
    last = {event.task_id: event for event in tables.events if event.type == "TASK_PURGED"}
    deps = {dep for row in tables.tasks.values() for dep in row["deps"]}
    states = {dep: str(last[dep].state) for dep in deps - tables.tasks.keys()}
    purged = {row["id"]: row["met"] for row in tables.rows["purged"]}
    assert purged == {dep: state == "DONE" for dep, state in states.items()}
    return states


def _check_counts(tasks: dict[str, dict[str, Any]], purged: dict[str, str]) -> None:
    """Check what follows from the deps; one that is gone counts by the state that it had."""
    for task_id, row in tasks.items():
        states = [tasks[dep]["state"] if dep in tasks else purged[dep] for dep in row["deps"]]
        broken = sum(state in {"FAILED", "CANCELLED", "BLOCKED"} for state in states)
        assert row["pending"] == sum(state != "DONE" for state in states), task_id
        assert row["broken"] == broken, task_id
        if row["state"] in {"READY", "BLOCKED"}:
            assert ("upstream" in row["reasons"]) == (broken > 0), task_id
            assert ("removed" in row["reasons"]) == bool(row["removed"]), task_id
            assert bool(row["reasons"]) == (row["state"] == "BLOCKED"), task_id
        else:
            assert row["reasons"] == [], task_id


def _check_claims(tables: Tables) -> None:
    """A task is active exactly while one run of it is open, and that run holds it."""
    runs = tables.rows["runs"]
    going = {run["task_id"]: run["id"] for run in runs if run["outcome"] is None}
    assert len(going) == sum(run["outcome"] is None for run in runs), "two open runs of one task"
    for task_id, row in tables.tasks.items():
        active = row["state"] in _HELD
        assert row["run_id"] == going.get(task_id), task_id
        assert active == (task_id in going), task_id
        assert active == (row["claimed_by"] is not None) == (row["lease_until"] is not None)
        assert (row["timeout_at"] is not None) == (row["state"] == "RUNNING"), task_id
        assert active or row["asked"] is None, task_id
    assert all((run["ended_at"] is None) == (run["outcome"] is None) for run in runs)


def _check_endings(tables: Tables) -> None:
    """A task waits exactly for the one run of it that is being ended; nobody runs it meanwhile."""
    tasks, endings = tables.tasks, tables.rows["endings"]
    waited_for = {task_id: row["ending"] for task_id, row in tasks.items() if row["ending"]}
    ending = {row["task_id"]: row["run_id"] for row in endings}
    assert waited_for == {t: run_id for t, run_id in ending.items() if t in tasks}
    assert len(ending) == len(endings), "two of one task"
    assert all(tasks[task_id]["run_id"] is None for task_id in waited_for)
    runs = {run["id"]: run for run in tables.rows["runs"]}
    for row in endings:
        run = runs.get(row["run_id"])
        if run is None:
            continue  # Purged.
        assert run["outcome"] is not None, "a run that still holds its task"
        for column in ("task_id", "agent", "worker_id", "host_pid", "host_started", "pid"):
            assert row[column] == run[column], column


def _check_tallies(tables: Tables) -> None:
    counted = Counter(
        (
            row["agent"],
            row["state"],
            row["state"] == "READY"
            and (row["pending"] > 0 or bool(row["not_before"]) or bool(row["ending"])),
        )
        for row in tables.tasks.values()
    )
    tallies = {
        (row["agent"], row["state"], bool(row["waiting"])): row["n"]
        for row in tables.rows["tallies"]
        if row["n"]
    }
    assert tallies == dict(counted)


def _check_counters(tables: Tables) -> None:
    """What ever happened is counted once, and nothing is forgotten with a task that is purged."""
    told: dict[tuple[str, str, str, float], list[int]] = {}

    def count(event: Event, name: str, outcome: str = "", bound: float = 0.0, ms: int = 0) -> None:
        sums = told.setdefault((name, event.agent or "", outcome, bound), [0, 0])
        sums[0] += 1
        sums[1] += ms

    for event in tables.events:
        data = event.data
        if data.get("adopted"):
            continue
        if event.type == "TASK_CLAIMED":
            count(event, "launched")
        elif event.type == "ALERT":
            count(event, "alerts")
        elif "outcome" in data and event.type != "LATE_RESULT":
            ms = data.get("durationMs", 0)
            bounds = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, math.inf)
            bound = next(bound for bound in bounds if ms <= bound * 1000)
            count(event, "ended", data["outcome"], bound, ms)
            if str(data.get("error", "")).startswith("no worktree: "):
                count(event, "worktree_errors")
            if data["outcome"] == "done" and "pullRequest" in data.get("result", {}):
                count(event, "pull_requests")
    assert {
        (row["name"], row["agent"], row["outcome"], row["bound"]): [row["n"], row["ms"]]
        for row in tables.rows["counters"]
    } == told
