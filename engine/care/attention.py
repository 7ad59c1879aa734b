"""What only a person can settle: tasks that wait for somebody, alerts, what `health` finds wrong.

Each thing is told once. Not told, for they need nobody: notes; a long queue, which is work that
goes on as it can; held claims, which somebody wanted and every screen shows, or which go on by
themselves; and a reset while it may still be going on. Told for as long as they are so: an agent
that is not logged in or has spent its budget, a run that takes very long, a reset that was never
completed, a feed of issues that fails, whatever contradicts itself.

Asked every few seconds by a screen on which nothing moves, so it looks no more often than pays: at
tasks when something happened, at health every five seconds. A look at something that seems wrong
takes half a second, for health looks twice.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from msgspec import Struct, field

from engine.care.alerts import Kind
from engine.care.health import take_health
from engine.findings import Level
from engine.store.needs import read_needs
from engine.store.vitals import read_vitals
from engine.text import plural
from engine.views import AttentionRow, Need

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from datetime import datetime

    from engine.care.alerts import Alert
    from engine.clock import Clock
    from engine.config import Config
    from engine.files import Layout
    from engine.store.needs import NeedyTask, NeedyTasks
    from engine.store.vitals import Vitals
    from engine.views import AlertRow

MOST = 1000
"""So many tasks are told, those that have waited longest; the rest is counted in a last row."""

_HEALTH_EVERY = 5.0
"""Seconds for which a look at the health is good, if anything was committed since."""
_HEALTH_AT_REST = 10.0
"""And if nothing was: only processes can have come or gone."""
_CHEAP = 0.02
"""Seconds; a look at tasks that took no longer is taken again after whatever happens."""
_SHARE = 50
"""One that took longer is good for so many times as long: 2 % of a core at most."""
_PATIENCE = {Kind.RESET: 60.0, Kind.UNSERVED: 4.0}
"""Seconds for which something may be so and needs nobody: a reset that goes on (it waits 15 s for
workers), a fleet whose workers are about to start."""
_SAYS_RETRY = re.compile(r"\bretry (it|the task)\b")
_NEEDS = {Kind.STALE: Need.STALE, Kind.ORPHAN: Need.ORPHAN, Kind.ENDING: Need.ORPHAN}
_NEEDS_NOBODY = frozenset({Kind.QUEUE, Kind.HELD})
_HELD = frozenset({Kind.LOGIN, Kind.BUDGET})
"""What holds the claims of an agent until somebody mends it and resumes them."""


class _Wrong(Struct):
    """What health told last: its alerts, each with the moment since when it has been so."""

    looked_at: float = float("-inf")
    seq: int = -1
    alerts: tuple[tuple[Alert, datetime], ...] = ()
    first_seen: dict[str, datetime] = field(default_factory=dict)


class Attention:
    """Knows what needs a person; remembers when it first saw what has no time of its own."""

    def __init__(
        self,
        layout: Layout,
        config: Config,
        clock: Clock,
        last_seq: Callable[[], Awaitable[int]],
        alerts: Callable[[int], Awaitable[list[AlertRow]]],
    ) -> None:
        self._layout = layout
        self._config = config
        self._clock = clock
        self._last_seq = last_seq
        self._alerts = alerts
        self._looking = asyncio.Lock()
        self._seq = -1
        self._task_rows: list[AttentionRow] = []
        self._rest: list[AttentionRow] = []
        self._tasks_good_until = 0.0
        self._wrong = _Wrong()

    async def rows(self) -> list[AttentionRow]:
        """Return what needs a person, oldest first; a last row counts what is not told.

        Raises:
            StorageError: the store cannot be read.

        """
        async with self._looking:
            await self._look_at_tasks()
            await self._look_at_health()
        rows = [*self._task_rows, *self._alert_rows()]
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
        self._task_rows += map(_noticed_row, await self._alerts(MOST))
        self._seq = seq
        self._tasks_good_until = began + (took * _SHARE if took > _CHEAP else 0)

    def _read(self) -> tuple[NeedyTasks, float]:
        began = self._clock.monotonic()
        return read_needs(self._layout.database, MOST), self._clock.monotonic() - began

    async def _look_at_health(self) -> None:
        wrong = self._wrong
        age = self._clock.monotonic() - wrong.looked_at
        if age < (_HEALTH_AT_REST if self._seq == wrong.seq else _HEALTH_EVERY):
            return
        health = await take_health(self._layout, self._config, self._clock)
        alerts = [alert for alert in health.alerts if _needs_somebody(alert)]
        times: Mapping[str, datetime] = {}
        if alerts:
            times = _times(await asyncio.to_thread(read_vitals, self._layout.database))
        now = self._clock.now()
        # What is over is forgotten: if it comes again, it is new.
        seen = {key: wrong.first_seen.get(key, now) for key in map(_key, alerts)}
        self._wrong = _Wrong(
            looked_at=self._clock.monotonic(),
            seq=self._seq,
            alerts=tuple((one, times.get(_key(one), seen[_key(one)])) for one in alerts),
            first_seen=seen,
        )

    def _alert_rows(self) -> Iterable[AttentionRow]:
        now = self._clock.now()
        for alert, since in self._wrong.alerts:
            if (now - since).total_seconds() < _PATIENCE.get(alert.kind, 0.0):
                continue
            yield _alert_row(alert, since)


def _needs_somebody(alert: Alert) -> bool:
    return alert.level is not Level.NOTE and alert.kind not in _NEEDS_NOBODY


def _key(alert: Alert) -> str:
    return f"{alert.kind}:{alert.subject or ''}"


def _times(vitals: Vitals) -> dict[str, datetime]:
    """Return since when what alerts tell has been so, by their keys, as far as the store knows."""
    times = {f"{Kind.STALE}:{worker.id}": worker.beat_at for worker in vitals.workers}
    times |= {f"{Kind.ENDING}:{run.run_id}": run.since for run in vitals.leaving}
    times |= {f"{Kind.FEED}:{feed.name}": feed.since for feed in vitals.feeds}
    for run in vitals.runs:
        if run.since is not None:
            times[f"{Kind.STUCK}:{run.task_id}"] = run.since
    return times


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
