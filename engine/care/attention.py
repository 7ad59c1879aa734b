"""What only a person can settle: tasks that wait for somebody, alerts, what `health` finds wrong.

Each thing is told once. Not told, for they need nobody: notes; a long queue, which is work that
goes on as it can; held claims, which somebody wanted and every screen shows, or which go on by
themselves; and a reset while it may still be going on. Told for as long as they are so: an agent
that is not logged in or has spent its budget, a run that takes very long, a reset that was never
completed, a feed of issues that fails, whatever contradicts itself.

Asked every few seconds by a screen on which nothing moves, so it looks no more often than pays: at
tasks when something happened, at health as HealthWatch does.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from engine.care.facts import NEEDS_NOBODY, Kind
from engine.findings import Level
from engine.store.needs import read_needs
from engine.text import plural
from engine.views import AttentionRow, Need

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from engine.care.facts import Alert
    from engine.care.health import HealthWatch
    from engine.clock import Clock
    from engine.files import Layout
    from engine.store.needs import NeedyTask, NeedyTasks
    from engine.views import AlertRow

MOST = 1000
"""So many tasks are told, those that have waited longest; the rest is counted in a last row."""

_CHEAP = 0.02
"""Seconds; a look at tasks that took no longer is taken again after whatever happens."""
_SHARE = 50
"""One that took longer is good for so many times as long: 2 % of a core at most."""
_SAYS_RETRY = re.compile(r"\bretry (it|the task)\b")
_NEEDS = {Kind.STALE: Need.STALE, Kind.ORPHAN: Need.ORPHAN, Kind.ENDING: Need.ORPHAN}
_TOLD_ELSEWHERE = NEEDS_NOBODY | {Kind.NOTICED}
"""Each alert that was noticed has a row of its own."""
_ALSO_NOTICED = frozenset({Kind.SERVICE, Kind.DISK})
"""Of these there is an alert, too; until it is acknowledged it has the row."""
_HELD = frozenset({Kind.LOGIN, Kind.BUDGET})
"""What holds the claims of an agent until somebody mends it and resumes them."""


class Attention:
    """Knows what needs a person."""

    def __init__(
        self,
        layout: Layout,
        clock: Clock,
        health: HealthWatch,
        last_seq: Callable[[], Awaitable[int]],
        alerts: Callable[[int], Awaitable[list[AlertRow]]],
    ) -> None:
        self._layout = layout
        self._clock = clock
        self._health = health
        self._last_seq = last_seq
        self._alerts = alerts
        self._looking = asyncio.Lock()
        self._seq = -1
        self._task_rows: list[AttentionRow] = []
        self._rest: list[AttentionRow] = []
        self._alert_rows: list[AttentionRow] = []
        self._tasks_good_until = 0.0

    async def rows(self) -> list[AttentionRow]:
        """Return what needs a person, oldest first; a last row counts what is not told.

        Raises:
            StorageError: the store cannot be read.

        """
        async with self._looking:
            await self._look_at_tasks()
            wrong = await self._wrong()
        rows = [*self._task_rows, *self._alert_rows, *wrong]
        rows.sort(key=lambda row: (row.since, row.key))
        return [*rows, *self._rest]

    async def _look_at_tasks(self) -> None:
        began = self._clock.monotonic()
        if self._seq >= 0 and began < self._tasks_good_until:
            return
        seq = await self._last_seq()
        if seq == self._seq:
            return
        tasks, took = await asyncio.to_thread(self._read)
        self._task_rows, self._rest = [*map(_task_row, tasks.tasks)], _rest(tasks)
        self._alert_rows = [*map(_noticed_row, await self._alerts(MOST))]
        self._seq = seq
        self._tasks_good_until = began + (took * _SHARE if took > _CHEAP else 0)

    def _read(self) -> tuple[NeedyTasks, float]:
        began = self._clock.monotonic()
        return read_needs(self._layout.database, MOST), self._clock.monotonic() - began

    async def _wrong(self) -> list[AttentionRow]:
        """Return what health finds wrong, but for what an alert that was noticed tells of."""
        noticed = {row.subject for row in self._alert_rows}
        return [
            _alert_row(alert, since)
            for alert, since in await self._health.alerts()
            if _needs_somebody(alert)
            and not (alert.kind in _ALSO_NOTICED and alert.subject in noticed)
        ]


def _needs_somebody(alert: Alert) -> bool:
    return alert.level is not Level.NOTE and alert.kind not in _TOLD_ELSEWHERE


def _key(alert: Alert) -> str:
    return f"{alert.kind}:{alert.subject or ''}"


def _alert_row(alert: Alert, since: datetime) -> AttentionRow:
    return AttentionRow(
        key=_key(alert),
        need=_NEEDS.get(alert.kind, Need.ALERT),
        subject=alert.subject or alert.kind.value,
        since=since,
        words=alert.message,
        task_id=alert.subject if alert.kind is Kind.STUCK else None,
        worker_id=alert.subject if alert.kind is Kind.STALE else None,
        agent=alert.subject if alert.kind is Kind.UNSERVED else None,
        held=alert.subject if alert.kind in _HELD else None,
    )


def _noticed_row(alert: AlertRow) -> AttentionRow:
    return AttentionRow(
        key=f"alert:{alert.id}",
        need=Need.ALERT,
        subject=alert.subject,
        since=alert.ts,
        words=f"{alert.summary}; `agentmux alerts ack {alert.id}` acknowledges it",
        task_id=alert.task_id,
        alert=alert.id,
    )


def _task_row(task: NeedyTask) -> AttentionRow:
    need = Need.EXHAUSTED if task.failed else Need.HUMAN
    return AttentionRow(
        key=f"{need}:{task.id}",
        need=need,
        subject=task.id,
        since=task.since,
        words=_words(task),
        task_id=task.id,
    )


def _words(task: NeedyTask) -> str:
    why = f": {task.error}" if task.error else ""
    # Most errors that a person can mend say so themselves.
    retry = "" if _SAYS_RETRY.search(why) else "retry begins it anew, "
    if task.failed:
        times = f" after {plural(task.attempts, 'attempt')}" if task.attempts > 1 else ""
        left = ", no retry is left" if task.retries and task.attempts > task.retries else ""
        return f"failed{times}{left}{why}; {retry}purge removes it"
    if task.removed:
        return f"needs you{why}; it left the DAG: purge removes it, a reseed brings it back"
    return f"needs you{why}; {retry}cancel gives it up"


def _rest(tasks: NeedyTasks) -> list[AttentionRow]:
    more = tasks.more_blocked + tasks.more_failed
    if not more:
        return []
    parts = [
        f"{count:,} {what}"
        for count, what in ((tasks.more_failed, "failed"), (tasks.more_blocked, "blocked"))
        if count
    ]
    return [
        AttentionRow(
            key="more",
            need=Need.EXHAUSTED if tasks.more_failed else Need.HUMAN,
            subject=f"{more:,} more",
            since=tasks.tasks[-1].since,
            words=f"and {plural(more, 'more task')}: {' and '.join(parts)}",
        )
    ]
