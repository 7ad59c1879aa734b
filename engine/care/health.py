"""How the fleet is: ok, warning or degraded, why, its counts, and what a person should look at.

`take_health` looks, at a cost that does not grow with the DAG, and a second time before it calls
anything an error: a worker's start and end leave traces for a moment. What is an alert is decided
in `alerts`; what only a deep look can find is `inspection`'s. `HealthWatch` is for whoever asks
again and again: it looks no more often than pays.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.care.alerts import STUCK_SECONDS, judge, stale
from engine.care.facts import NEEDS_NOBODY, PARTS, Alert, Facts, Kind, Part
from engine.disks import disks_of
from engine.errors import StorageError
from engine.findings import Level
from engine.model import ACTIVE, ALL_AGENTS, State, WorkerStatus
from engine.processes.census import tagged
from engine.processes.signalling import seems_alive
from engine.store.vitals import read_vitals
from engine.text import clean_text
from engine.views import Health, HealthPart, HealthStatus
from engine.workspaces import failures, place_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from datetime import datetime
    from pathlib import Path

    from engine.clock import Clock
    from engine.config import Config
    from engine.files import Layout
    from engine.model import ProcessId
    from engine.store.vitals import Vitals

_SETTLE = 0.5
_GOOD_FOR = 5.0
"""Seconds for which a look is good, if anything was committed since."""
_GOOD_AT_REST = 10.0
"""And if nothing was: only processes can have come or gone."""
_PATIENCE = {Kind.RESET: 60.0, Kind.UNSERVED: 4.0}
"""Seconds for which something may be so and is nothing yet: a reset that goes on (it waits 15 s for
workers), a fleet whose workers are about to start."""


class Report(Struct, frozen=True):
    """How the fleet is, and its numbers: what `agentmux health --json` prints.

    `status` and `parts` are those of Health, which follow from the alerts.
    `running_count`: CLAIMED and RUNNING. `max_concurrent`: so many runs there can be at once now,
    which is the number of live workers, those of an agent with a limit counted up to it. Where
    claims are held these are the workers that have a run.
    `queued_count`: READY and claimable; `waiting_count`: READY with unmet deps, in backoff, or
    while a former run is being ended. `oldest_running_age` (None: nothing runs) and
    `stuck_threshold` are in milliseconds. `stale_workers` are ids.
    """

    status: HealthStatus
    parts: tuple[HealthPart, ...]
    running_count: int
    max_concurrent: int
    queued_count: int
    waiting_count: int
    blocked_count: int
    completed_count: int
    failed_count: int
    oldest_running_age: int | None
    stuck_threshold: int
    stale_workers: tuple[str, ...]
    alerts: tuple[Alert, ...]
    timestamp: datetime

    @property
    def health(self) -> Health:
        """How the fleet is, without its numbers."""
        return Health(self.status, self.parts)

    @property
    def degraded(self) -> bool:
        """Whether something is wrong, and not only worth a look."""
        return self.status is HealthStatus.DEGRADED


async def take_health(layout: Layout, project: Path, config: Config, clock: Clock) -> Report:
    """Look at the store, the processes of its runs, the folder of worktrees, and the disks.

    `project` is where a folder of worktrees in the settings is looked for.

    Raises:
        StorageError: the store cannot be read.

    """
    facts = await asyncio.to_thread(_look, layout, project, config, clock)
    suspects = {_key(alert) for alert in judge(facts) if alert.level is Level.ERROR}
    if suspects:
        await asyncio.sleep(_SETTLE)
        facts = await asyncio.to_thread(_look, layout, project, config, clock)
    alerts = tuple(
        alert for alert in judge(facts) if alert.level is not Level.ERROR or _key(alert) in suspects
    )
    return measure(facts, alerts)


def _look(layout: Layout, project: Path, config: Config, clock: Clock) -> Facts:
    # In this order: whatever carries the tag of a run by then was claimed before.
    try:
        processes: Mapping[ProcessId, str] | str = tagged(layout.state)
    except StorageError as error:
        processes = str(error)
    vitals = read_vitals(layout.database)
    hosts = {worker.host for worker in vitals.workers} | {run.host for run in vitals.leaving}
    hosts |= vitals.keepers
    return Facts(
        now=clock.now(),
        vitals=vitals,
        alive=frozenset(filter(seems_alive, hosts)),
        processes=processes,
        stale_after=config.stale_after,
        feed=config.github.repo if config.github is not None else None,
        worktree_failures=failures(place_of(layout, project, config.worktrees)),
        disks=disks_of(layout, project, config),
    )


def _key(alert: Alert) -> tuple[Kind, str | None]:
    return alert.kind, alert.subject


class HealthWatch:
    """Looks at the health now and then, and remembers since when each alert has been so.

    What may be so for a moment is told only once it has lasted.
    """

    def __init__(
        self,
        layout: Layout,
        project: Path,
        config: Config,
        clock: Clock,
        last_seq: Callable[[], Awaitable[int]],
    ) -> None:
        self._layout = layout
        self._project = project
        self._config = config
        self._clock = clock
        self._last_seq = last_seq
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")
        self._seq = -1
        self._since: dict[Alert, datetime] = {}

    async def alerts(self) -> list[tuple[Alert, datetime]]:
        """Return what has lasted, errors first, each with the moment since when it is so.

        Raises:
            StorageError: the store cannot be read.

        """
        async with self._looking:
            await self._look()
        now = self._clock.now()
        return [
            (alert, since)
            for alert, since in self._since.items()
            if (now - since).total_seconds() >= _PATIENCE.get(alert.kind, 0.0)
        ]

    async def health(self) -> Health:
        """Return how the fleet is. Raises as `alerts` does."""
        return assess(alert for alert, _ in await self.alerts())

    async def _look(self) -> None:
        age = self._clock.monotonic() - self._looked_at
        if age < _GOOD_FOR:
            return
        seq = await self._last_seq()
        if age < _GOOD_AT_REST and seq == self._seq:
            return
        report = await take_health(self._layout, self._project, self._config, self._clock)
        times: Mapping[tuple[Kind, str | None], datetime] = {}
        if report.alerts:
            times = _times(await asyncio.to_thread(read_vitals, self._layout.database))
        now = self._clock.now()
        # What is over is forgotten: if it comes again, it is new.
        before = {_key(alert): since for alert, since in self._since.items()}
        self._since = {
            alert: times.get(_key(alert)) or before.get(_key(alert), now) for alert in report.alerts
        }
        self._looked_at, self._seq = self._clock.monotonic(), seq


def _times(vitals: Vitals) -> dict[tuple[Kind, str | None], datetime]:
    """Return since when what alerts tell has been so, as far as the store knows."""
    times: dict[tuple[Kind, str | None], datetime] = {}
    times |= {(Kind.STALE, worker.id): worker.beat_at for worker in vitals.workers}
    times |= {(Kind.ENDING, run.run_id): run.since for run in vitals.leaving}
    times |= {(Kind.FEED, feed.name): feed.since for feed in vitals.feeds}
    for run in vitals.runs:
        if run.since is not None:
            times[Kind.STUCK, run.task_id] = run.since
    return times


def assess(alerts: Iterable[Alert]) -> Health:
    """Say how each part of the fleet is, and so the whole: as its worst alert.

    Notes make nothing worse, nor does what needs nobody.
    """
    found: dict[Part, list[Alert]] = {part: [] for part in Part}
    for alert in alerts:
        if alert.level is not Level.NOTE and alert.kind not in NEEDS_NOBODY:
            found[PARTS[alert.kind]].append(alert)
    parts = tuple(
        HealthPart(part, _status(those), tuple(clean_text(alert.message) for alert in those))
        for part, those in found.items()
    )
    return Health(_status(alert for those in found.values() for alert in those), parts)


def _status(alerts: Iterable[Alert]) -> HealthStatus:
    levels = {alert.level for alert in alerts}
    if Level.ERROR in levels:
        return HealthStatus.DEGRADED
    return HealthStatus.WARNING if levels else HealthStatus.OK


def measure(facts: Facts, alerts: tuple[Alert, ...]) -> Report:
    """Count what was seen."""
    vitals = facts.vitals
    states: Counter[State] = Counter()
    for (_, state, _), n in vitals.tallies.items():
        states[state] += n
    waiting = sum(
        n for (_, state, waits), n in vitals.tallies.items() if waits and state is State.READY
    )
    since = [run.since for run in vitals.runs if run.since is not None]
    health = assess(alerts)
    return Report(
        status=health.status,
        parts=health.parts,
        running_count=sum(states[state] for state in ACTIVE),
        max_concurrent=_most_at_once(facts),
        queued_count=states[State.READY] - waiting,
        waiting_count=waiting,
        blocked_count=states[State.BLOCKED],
        completed_count=states[State.DONE],
        failed_count=states[State.FAILED],
        oldest_running_age=_milliseconds(facts.now - min(since)) if since else None,
        stuck_threshold=int(STUCK_SECONDS * 1000),
        stale_workers=tuple(worker.id for worker in stale(facts)),
        alerts=alerts,
        timestamp=facts.now,
    )


def _milliseconds(span: timedelta) -> int:
    return max(0, span // timedelta(milliseconds=1))


def _most_at_once(facts: Facts) -> int:
    """A worker that is stopping takes no further task, nor one that is held: it may have one."""
    holders, held = {run.worker_id for run in facts.vitals.runs}, set(facts.vitals.held)
    counted = Counter(
        worker.agent
        for worker in facts.vitals.workers
        if worker.host in facts.alive
        and (
            worker.id in holders
            or (worker.status is WorkerStatus.LIVE and not held & {worker.agent, ALL_AGENTS})
        )
    )
    return sum(min(n, facts.vitals.limits.get(agent, n)) for agent, n in counted.items())
