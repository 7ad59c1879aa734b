"""state/status.md: the fleet on one page, for people and for agents that read files. Pure.

All text from outside is cleaned and Markdown-escaped, so no id or error can forge a line.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.clock import to_iso
from engine.figures import describe_health
from engine.model import Spending, State, to_json
from engine.narrate import describe, describe_reasons, event_symbol, how_lifted
from engine.shapes import event_json, worker_json, worker_status
from engine.text import age, clean_text, money, plural, tokens
from engine.views import Health, SpentRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from engine.model import Event
    from engine.views import HoldRow, Progress, TaskRow, WorkerRow

LISTED = 50
"""Blocked tasks that are listed; the rest is only counted."""

_ACTIVE = re.compile(r"[\\`*_\[\]<>|~&#!$]|://")
_ESCAPED = re.compile(rf"\\({_ACTIVE.pattern})")


class Status(Struct, frozen=True):
    """All that the report tells. `blocked` are the first LISTED of `blocked_count`.

    `workers` are those that live, or are believed to.
    """

    at: datetime
    progress: Progress
    agents: Mapping[str, Mapping[State, int]]
    blocked: Sequence[TaskRow]
    blocked_count: int
    workers: Sequence[WorkerRow]
    events: Sequence[Event]
    stale_after: float
    spent: Sequence[SpentRow] = ()
    holds: Sequence[HoldRow] = ()
    health: Health = Health()


def escape(text: str) -> str:
    """Return `text` cleaned, and as plain words to any reader of Markdown."""
    return _ACTIVE.sub(lambda found: "\\" + found[0], clean_text(text))


def as_read(markdown: str) -> str:
    """Return a report for eyes: what no renderer takes away, and only files need, is gone."""
    return _ESCAPED.sub(r"\1", markdown)


def as_markdown(status: Status) -> str:
    """Write the report; it ends in a newline."""
    progress = status.progress
    done = progress.by_state.get(State.DONE, 0)
    running = progress.by_state.get(State.RUNNING, 0) + progress.by_state.get(State.CLAIMED, 0)
    lines = ["# agentmux status", "", f"Written {to_iso(status.at)}."]
    if progress.dag:
        lines.append(f"DAG: {escape(progress.dag)}.")
    lines.append(
        f"{done:,} of {plural(progress.total, 'task')} done, {running:,} running, "
        f"{progress.ready:,} ready, {progress.waiting:,} waiting, "
        f"{progress.by_state.get(State.FAILED, 0):,} failed, "
        f"{progress.by_state.get(State.BLOCKED, 0):,} blocked, "
        f"{progress.by_state.get(State.CANCELLED, 0):,} cancelled; "
        f"{progress.needs_human:,} in need of a human."
    )
    lines.append(f"Health: {escape(describe_health(status.health))}.")
    if progress.held:
        held = ", ".join("all agents" if one == "*" else escape(one) for one in progress.held)
        lines.append(f"Claims are held for {held}.")
    for hold in status.holds:
        if hold.reason:
            wait = (hold.until - status.at).total_seconds() if hold.until else None
            how = how_lifted(hold.cause, hold.agent, wait)
            lines.append(escape(f"{hold.agent}: {hold.reason}; {how}."))
    lines += ["", "## Tasks by agent and state", "", *_counts(status.agents)]
    lines += ["", f"## Blocked ({status.blocked_count:,})", "", *_blocked(status)]
    if status.spent:
        lines += ["", "## Spent since the last reset", "", *_spent(status.spent)]
    lines += ["", "## Heartbeats", "", *_workers(status)]
    lines += ["", "## Last events", "", *_events(status.events)]
    return "\n".join(lines) + "\n"


def as_json(status: Status) -> dict[str, Any]:
    """Return the same as JSON values."""
    return {
        "at": to_iso(status.at),
        "progress": to_json(status.progress),
        "agents": to_json(status.agents),
        "blocked": to_json(list(status.blocked)),
        "blockedCount": status.blocked_count,
        "spent": to_json(list(status.spent)),
        "holds": to_json(list(status.holds)),
        "health": to_json(status.health),
        "workers": [
            worker_json(worker, status.at, status.stale_after) for worker in status.workers
        ],
        "events": [event_json(event) for event in status.events],
    }


def _counts(agents: Mapping[str, Mapping[State, int]]) -> list[str]:
    if not agents:
        return ["No tasks."]
    rows = [
        [escape(agent), *(str(counts.get(state, 0)) for state in State), str(sum(counts.values()))]
        for agent, counts in agents.items()
    ]
    totals = [str(sum(counts.get(state, 0) for counts in agents.values())) for state in State]
    whole = str(sum(sum(counts.values()) for counts in agents.values()))
    return _table(["agent", *State, "total"], [*rows, ["all", *totals, whole]])


def _blocked(status: Status) -> list[str]:
    if not status.blocked:
        return ["None."]
    rows = [
        [
            escape(task.id),
            escape(task.agent),
            ", ".join(task.reasons),
            escape(describe_reasons(task.reasons, task.error)),
        ]
        for task in status.blocked
    ]
    lines = _table(["task", "agent", "reasons", "why"], rows)
    more = status.blocked_count - len(status.blocked)
    return [*lines, "", f"… and {more:,} more."] if more > 0 else lines


def _spent(spent: Sequence[SpentRow]) -> list[str]:
    whole = Spending(
        input_tokens=sum(row.spending.input_tokens or 0 for row in spent),
        cached_tokens=sum(row.spending.cached_tokens or 0 for row in spent),
        output_tokens=sum(row.spending.output_tokens or 0 for row in spent),
        cost=sum(row.spending.cost or 0.0 for row in spent),
    )
    rows = [*spent, SpentRow("all", sum(row.runs for row in spent), whole)]
    return _table(
        ["agent", "runs with a cost", "tokens in", "cached", "tokens out", "cost"],
        [
            [
                escape(row.agent),
                str(row.runs),
                tokens(row.spending.input_tokens or 0),
                tokens(row.spending.cached_tokens or 0),
                tokens(row.spending.output_tokens or 0),
                _price(row),
            ]
            for row in rows
        ],
    )


def _price(row: SpentRow) -> str:
    cost = row.spending.cost or 0.0
    return escape(money(cost)) if cost or row.runs else "unknown"


def _workers(status: Status) -> list[str]:
    if not status.workers:
        return ["No worker is live."]
    rows = [
        [
            escape(worker.id),
            escape(worker.agent),
            str(worker.pid),
            worker_status(worker, status.at, status.stale_after),
            escape(worker.task_id or ""),
            f"{age((status.at - worker.beat_at).total_seconds())} ago",
        ]
        for worker in status.workers
    ]
    return _table(["worker", "agent", "pid", "status", "task", "heartbeat"], rows)


def _events(events: Sequence[Event]) -> list[str]:
    if not events:
        return ["Nothing has happened yet."]
    rows = [
        [str(event.seq), to_iso(event.ts), f"{event_symbol(event)} {escape(describe(event))}"]
        for event in events
    ]
    return _table(["seq", "time", "event"], rows)


def _table(titles: Iterable[str], rows: Iterable[Sequence[str]]) -> list[str]:
    titles = list(titles)
    lines = [titles, ["---"] * len(titles), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
