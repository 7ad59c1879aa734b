"""The fleet in whole sentences, for those who hear their terminal or read line by line. Pure.

No symbol, no column, no colour: each line makes sense by itself, and says when it happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from engine.cli.tables import local_time
from engine.clock import to_iso
from engine.model import ACTIVE, ALL_AGENTS, EventType, State, to_json
from engine.narrate import describe
from engine.shapes import worker_json, worker_status
from engine.text import clean_text, plural

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from engine.model import Event, Spending
    from engine.views import AttentionRow, Progress, WorkerRow

LISTED = 10
"""Things of one kind that are told one by one; of more only the number is told."""

_MANY = {
    EventType.TASK_CREATED: "tasks were added",
    EventType.TASK_UPDATED: "tasks were redefined",
    EventType.TASK_READY: "tasks are ready",
    EventType.TASK_CLAIMED: "tasks were claimed",
    EventType.TASK_STARTED: "tasks were started",
    EventType.TASK_PROGRESS: "times tasks told how far they are",
    EventType.TASK_COMPLETED: "tasks were finished",
    EventType.TASK_FAILED: "runs failed",
    EventType.TASK_BLOCKED: "tasks are blocked",
    EventType.TASK_RELEASED: "tasks were released",
    EventType.LEASE_EXPIRED: "tasks were lost by silent workers",
    EventType.TASK_CANCELLED: "tasks were cancelled",
    EventType.TASK_RETRIED: "tasks will be tried again",
    EventType.TASK_PURGED: "tasks were purged",
    EventType.ISSUE_TOLD: "issues were told of results",
    EventType.WORKER_STARTED: "workers started",
    EventType.WORKER_STOPPING: "workers are stopping",
    EventType.WORKER_STOPPED: "workers stopped",
    EventType.WORKER_KILLED: "workers were killed",
    EventType.WORKER_LOST: "workers are lost",
    EventType.SEEDED: "times the DAG was seeded",
    EventType.RESET: "resets were done",
    EventType.HELD: "times claims were held",
    EventType.RESUMED: "times claims were resumed",
    EventType.LATE_RESULT: "late results were refused",
    EventType.ALERT: "alerts were raised",
    EventType.ALERT_ACKNOWLEDGED: "times alerts were acknowledged",
    EventType.SERVICE: "times services told how they stand",
    EventType.AGENT_REGISTERED: "agents were registered",
    EventType.AGENT_UNREGISTERED: "agents are registered no more",
}
_STATES = (
    (State.FAILED, "failed"),
    (State.BLOCKED, "blocked"),
    (State.CANCELLED, "cancelled"),
)


class Glance(Struct, frozen=True):
    """What a summary tells of. `workers` are those that live, or are believed to."""

    at: datetime
    progress: Progress
    workers: Sequence[WorkerRow]
    needs: Sequence[AttentionRow]
    stale_after: float

    @property
    def counts(self) -> tuple[object, ...]:
        """What must have changed to be worth another summary; spans and what is spent are not."""
        progress = self.progress
        return (
            *sorted(progress.by_state.items()),
            progress.ready,
            progress.held,
            progress.dag,
            *((one.id, one.task_id, worker_status(one, self.at, self.stale_after))
              for one in self.workers),
            *(need.key for need in self.needs),
        )  # fmt: skip

    @property
    def over(self) -> bool:
        """Whether no task is left that could be worked."""
        return not any(
            self.progress.by_state.get(state) for state in (State.READY, *sorted(ACTIVE))
        )

    @property
    def succeeded(self) -> bool:
        """Whether all tasks are DONE."""
        return self.progress.by_state.get(State.DONE, 0) == self.progress.total


class Happened(Struct):
    """Events since the last lines were told: the first few of each type, and how many there are."""

    _first: dict[EventType, list[Event]] = field(default_factory=dict)
    _counts: dict[EventType, int] = field(default_factory=dict)
    _last: dict[EventType, Event] = field(default_factory=dict)

    def add(self, events: Iterable[Event]) -> None:
        """Note what happened."""
        for event in events:
            first = self._first.setdefault(event.type, [])
            if len(first) < LISTED:
                first.append(event)
            self._counts[event.type] = self._counts.get(event.type, 0) + 1
            self._last[event.type] = event

    def lines(self, now: datetime) -> list[str]:
        """Return a line for each thing, in order; one for all of a type of which there are many."""
        told: list[tuple[int, str]] = []
        started = {one.run_id for one in self._first.get(EventType.TASK_STARTED, ())}
        for kind, first in self._first.items():
            if self._counts[kind] > LISTED:
                last = self._last[kind]
                words = f"{self._counts[kind]:,} {_MANY[kind]}"
                told.append((last.seq, f"{local_time(last.ts, now)} {words}"))
                continue
            told += [
                (event.seq, f"{local_time(event.ts, now)} {describe(event)}")
                for event in first
                # Whoever hears that a task was started need not hear that it was claimed.
                if kind is not EventType.TASK_CLAIMED or event.run_id not in started
            ]
        return [clean_text(line) for _, line in sorted(told)]


def summary(glance: Glance, known: Collection[str] = ()) -> list[str]:
    """Return the fleet in sentences, one a line.

    `known` are the keys of the needs that were told before: they are only counted.
    """
    progress, by_state = glance.progress, glance.progress.by_state
    moment = f"At {local_time(glance.at, glance.at)}"
    if not progress.total:
        return [f"{moment} there are no tasks."]
    done = by_state.get(State.DONE, 0)
    of = f" of {progress.dag}" if progress.dag else ""
    some = "all" if done == progress.total else f"{done:,} of"
    lines = [f"{moment} {some} {plural(progress.total, 'task')}{of} {_are(done)} done."]
    active = sum(by_state.get(state, 0) for state in ACTIVE)
    parts = [(active, "running"), (progress.ready, "ready"), (progress.waiting, "waiting")]
    parts += [(by_state.get(state, 0), word) for state, word in _STATES]
    left = [f"{count:,} {word}" for count, word in parts if count]
    if left:
        lines.append(f"Of the others: {', '.join(left)}.")
    lines += _workers(glance)
    lines += _spent(progress.spending)
    if progress.held:
        held = ", ".join("all agents" if one == ALL_AGENTS else one for one in progress.held)
        lines.append(f"Claims are held for {held}.")
    lines += _needs(glance, known)
    return [clean_text(line) for line in lines]


def summary_json(glance: Glance) -> dict[str, Any]:
    """Return the same as JSON values."""
    return {
        "at": to_iso(glance.at),
        "progress": to_json(glance.progress),
        "workers": [worker_json(one, glance.at, glance.stale_after) for one in glance.workers],
        "needs": to_json(list(glance.needs)),
    }


def span(seconds: float) -> str:
    """Write a span as it is said: 41 seconds, 2 minutes, 1 hour and 4 minutes, 3 days."""
    whole = max(0, int(seconds))
    if whole < 60:
        return plural(whole, "second")
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 60:
        return plural(minutes, "minute")
    if hours < 24:
        rest = minutes % 60
        return plural(hours, "hour") + (f" and {plural(rest, 'minute')}" if rest else "")
    return plural(days, "day")


def _workers(glance: Glance) -> list[str]:
    live = [one for one in glance.workers if one.alive]
    if not live:
        return ["No worker is live."]
    busy = [one for one in live if one.task_id is not None]
    are = f"{plural(len(live), 'worker')} {_are(len(live))} live, {len(busy):,} at work."
    lines = [
        f"{one.id} has run {one.task_id} for "
        f"{span((glance.at - (one.run_started_at or glance.at)).total_seconds())}."
        for one in busy[:LISTED]
    ]
    if len(busy) > LISTED:
        lines.append(f"And {plural(len(busy) - LISTED, 'worker')} more {_are(2)} at work.")
    return [are, *lines]


def _spent(spending: Spending) -> list[str]:
    told = [] if spending.tokens is None else [plural(spending.tokens, "token")]
    if spending.cost is not None:
        told.append(f"${spending.cost:,.2f}")
    return [f"Spent until now: {' and '.join(told)}."] if told else []


def _needs(glance: Glance, known: Collection[str]) -> list[str]:
    if not glance.needs:
        return ["Nothing needs you."]
    needs = [need for need in glance.needs if need.key not in known]
    count = len(glance.needs)
    need_you = f"{plural(count, 'thing')} {'needs' if count == 1 else 'need'} you"
    if not needs:
        return [f"{need_you}, as before."]
    lines = [f"{need_you}, {len(needs):,} of them new:" if len(needs) < count else f"{need_you}:"]
    for need in needs[:LISTED]:
        about = f"{need.subject}: " if need.task_id is not None else ""
        since = span((glance.at - need.since).total_seconds())
        lines.append(f"{about}{need.words}. It has been so for {since}.")
    if len(needs) > LISTED:
        lines.append(f"And {plural(len(needs) - LISTED, 'thing')} more.")
    return lines


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
