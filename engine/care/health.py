"""How the fleet is doing: counts, and alerts for what a person should look at.

`take_health` looks, at a cost that does not grow with the DAG, and a second time before it calls
anything an error: a worker's start and end leave traces for a moment. What is an alert is decided
in `alerts`; what only a deep look can find is `inspection`'s.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.care.alerts import STUCK_SECONDS, Alert, Facts, judge, stale
from engine.errors import StorageError
from engine.findings import Level
from engine.model import ACTIVE, ALL_AGENTS, State, WorkerStatus
from engine.processes.census import tagged
from engine.processes.signalling import seems_alive
from engine.store.vitals import read_vitals

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from engine.care.alerts import Kind
    from engine.clock import Clock
    from engine.config import Config
    from engine.files import Layout
    from engine.model import ProcessId

_SETTLE = 0.5


class Health(Struct, frozen=True):
    """The fleet in numbers. Its JSON form is what `agentmux health --json` prints.

    `running_count`: CLAIMED and RUNNING. `max_concurrent`: so many runs there can be at once now,
    which is the number of live workers, those of an agent with a limit counted up to it. Where
    claims are held these are the workers that have a run.
    `queued_count`: READY and claimable; `waiting_count`: READY with unmet deps, in backoff, or
    while a former run is being ended. `oldest_running_age` (None: nothing runs) and
    `stuck_threshold` are in milliseconds. `stale_workers` are ids.
    """

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
    def degraded(self) -> bool:
        """Whether something is wrong, and not only worth a look."""
        return any(alert.level is Level.ERROR for alert in self.alerts)


async def take_health(layout: Layout, config: Config, clock: Clock) -> Health:
    """Look at the store and at the processes of its runs.

    Raises:
        StorageError: the store cannot be read.

    """
    facts = await asyncio.to_thread(_look, layout, config, clock)
    suspects = {_key(alert) for alert in judge(facts) if alert.level is Level.ERROR}
    if suspects:
        await asyncio.sleep(_SETTLE)
        facts = await asyncio.to_thread(_look, layout, config, clock)
    alerts = tuple(
        alert for alert in judge(facts) if alert.level is not Level.ERROR or _key(alert) in suspects
    )
    return measure(facts, alerts)


def _look(layout: Layout, config: Config, clock: Clock) -> Facts:
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
    )


def _key(alert: Alert) -> tuple[Kind, str | None]:
    return alert.kind, alert.subject


def measure(facts: Facts, alerts: tuple[Alert, ...]) -> Health:
    """Count what was seen."""
    vitals = facts.vitals
    states: Counter[State] = Counter()
    for (_, state, _), n in vitals.tallies.items():
        states[state] += n
    waiting = sum(
        n for (_, state, waits), n in vitals.tallies.items() if waits and state is State.READY
    )
    since = [run.since for run in vitals.runs if run.since is not None]
    return Health(
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
