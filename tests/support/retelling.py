"""What a store tells, and that one which was rebuilt from its log tells the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.checkup import audit_errors, only_errors
from support.stores import check_store, select

from engine.log.check import check_log as compare_with_log

if TYPE_CHECKING:
    from engine.files import Layout

_UNTOLD = {
    "tasks": {"lease_until", "position", "asked"},
    "runs": {"n", "host_pid", "host_started", "pid", "pid_started"},
    "endings": {"host_pid", "host_started", "pid", "pid_started"},
    "workers": {"pid_started", "own_process", "note", "status", "beat_at"},
}
"""Columns that the log does not tell; see the docstring of engine.store.recovery.refolding."""
_ORDER = {
    "tasks": "id",
    "runs": "n",
    "endings": "run_id",
    "workers": "id",
    "events": "seq",
    "edges": "dep, task",
    "purged": "id",
    "holds": "agent",
    "spent": "agent",
    "spent_before": "agent",
    "counters": "name, agent, outcome, bound",
    "agents": "name",
    "meta": "key",
    "pace": "minute",
    "alerts": "id",
    "tallies": "agent, state, waiting",
}


def told(layout: Layout) -> dict[str, list[dict[str, Any]]]:
    """Return all tables without what the log does not tell."""
    tables = {}
    for table, order in _ORDER.items():
        rows = select(layout, f"SELECT * FROM {table} ORDER BY {order}")
        for row in rows:
            for column in _UNTOLD.get(table, ()):
                del row[column]
        tables[table] = rows
    for task in tables["tasks"]:
        if task["state"] not in {"READY", "BLOCKED"}:
            del task["removed"]
    tables["tallies"] = [row for row in tables["tallies"] if row["n"]]
    mine = ("boot", "watched:")
    tables["meta"] = [row for row in tables["meta"] if not row["key"].startswith(mine)]
    tables["agents"] = [row for row in tables["agents"] if row["run_limit"] or row["stagger"]]
    return tables


def same(now: dict[str, list[dict[str, Any]]], before: dict[str, list[dict[str, Any]]]) -> None:
    """Assert that two stores tell the same; name what differs."""
    assert now.keys() == before.keys()
    differences = [
        (table, place, {key: (old.get(key), new.get(key)) for key in old if old[key] != new[key]})
        for table in now
        for place, (old, new) in enumerate(zip(before[table], now[table], strict=False))
        if old != new
    ]
    assert differences == [], "table, row, column: (before, now)"
    assert {table: len(rows) for table, rows in now.items()} == {
        table: len(rows) for table, rows in before.items()
    }


def sound(layout: Layout) -> None:
    """Assert that a store and its log are free of errors, whoever looks."""
    check_store(layout)
    assert audit_errors(layout) == []
    assert only_errors(compare_with_log(layout, at_work=False)) == []
