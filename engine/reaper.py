"""Who cleans up: runs whose host is dead or silent lose their task once their tree is gone, and
runs that lost their task lose their tree. What they left uncommitted in a worktree is saved first.

Any process that holds workers runs one; they do not hinder each other, for all that they write
names its run.
"""  # noqa: D205

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from engine.errors import AgentmuxError, StorageError, StoreGone
from engine.model import SERVICE, ProcessId, WorkerStatus
from engine.presence import Presence
from engine.processes.census import tagged
from engine.processes.signalling import is_alive, seems_alive
from engine.processes.trees import end_tree
from engine.workspaces import finished, place_of, saved_run

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from pathlib import Path

    from engine.clock import Clock
    from engine.config import Config
    from engine.files import Layout
    from engine.store.lookout import Lookout
    from engine.store.rows import ActiveRun, EndingRun
    from engine.store.store import Store

log = logging.getLogger(__name__)

_EVERY = 1.0
_GAP = 5.0
"""So many seconds between two looks, and somebody slept: this process, or the whole machine."""
_NOTICE = 3.0
"""Seconds beyond `grace` in which a live host has ended a run that lost its task."""
_AGAIN = 30.0
"""Seconds until a tree that could not be ended is tried again."""


class Reaper:
    """Looks every second. `me` is this process: its own runs are its Host's business."""

    def __init__(
        self,
        *,
        store: Store,
        lookout: Lookout,
        layout: Layout,
        project: Path,
        config: Config,
        clock: Clock,
        me: ProcessId,
    ) -> None:
        self._store = store
        self._lookout = lookout
        self._layout = layout
        self._place = place_of(layout, project, config.worktrees)
        self._config = config
        self._clock = clock
        self._me = me
        self._last: datetime | None = None
        self._patient_until = datetime.min.replace(tzinfo=UTC)
        self._tried: dict[str, datetime] = {}
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """End what earlier hosts left behind, then look on.

        The first look is over when this returns: whoever starts works on cleared ground.
        """
        for act in (self.sweep, self.look):
            try:
                await act()
            except AgentmuxError as error:
                log.warning("reaper: %s", error)
        self._task = asyncio.create_task(self._reap_forever(), name="reaper")

    async def close(self) -> None:
        """Stop looking; a tree that is being ended is ended first."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _reap_forever(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            try:
                await self.look()
            except StoreGone:
                continue  # the host tells
            except AgentmuxError as error:
                log.warning("reaper: %s", error)
            except Exception:
                # Whatever it is, dead hosts must be looked for all the same.
                log.exception("reaper")

    async def look(self) -> None:
        """Judge every active run and every live worker once.

        After a gap in the clock, silence proves nothing: whoever slept gets one renewal's time.
        So it is before the first look, for nobody knows what was before it.
        """
        now = self._clock.now()
        if self._last is None or abs(now - self._last) > timedelta(seconds=_GAP):
            self._patient_until = now + timedelta(seconds=self._config.renew)
        patient = now < self._patient_until
        active = await self._lookout.active()
        lost = [run for run in active if self.is_lost(run) or (self.is_silent(run) and not patient)]
        for run in active:
            if run not in lost and not patient and self._is_overdue(run, now):
                await self._store.time_out(run.task_id, run.run_id)
        # At the same time: each tree may take its whole grace to end.
        await _all(
            *map(self._take_away, lost),
            *(self.end_for_good(run) for run in await self._lookout.endings() if self.is_due(run)),
        )
        for worker_id, agent, host in await self._lookout.idle_live():
            if not seems_alive(host):
                await self._bury(worker_id, agent, host)
        # Taken at the end: ending trees takes its time, and that is no gap.
        self._last = self._clock.now()

    async def sweep(self) -> list[str]:
        """End whatever carries the tag of a run that holds no task; return those runs.

        What carries the tag of a run that does is its host's business, or `look`'s.
        """
        # In this order: a run that appears in the processes has long been claimed.
        processes = await asyncio.to_thread(tagged, self._layout.state)
        known = {run.run_id for run in await self._lookout.active()}
        known |= {run.run_id for run in await self._lookout.endings()}
        services = await self._lookout.known_services()
        kept = any(one.keeper is not None and seems_alive(one.keeper) for one in services)
        roots: dict[str, set[ProcessId]] = {}
        for process, run_id in processes.items():
            # What is left of services is the business of who keeps them, if anybody does.
            if run_id not in known and not (kept and run_id.startswith(SERVICE)):
                roots.setdefault(run_id, set()).add(process)
        await _all(*(self._end_tree(run_id, found) for run_id, found in roots.items()))
        for run_id, found in roots.items():
            pids = ", ".join(str(process.pid) for process in found)
            log.warning("ended what was left of run %s: %s", run_id, pids)
        return list(roots)

    def _is_overdue(self, run: ActiveRun, now: datetime) -> bool:
        """Whether the time of a run is over and its host is too silent to see to it.

        A host that beats does so by its own clock, which does not count the hours of a sleep.
        """
        if run.timeout_at is None or run.beat_at is None or self._mine(run):
            return False
        silent = timedelta(seconds=self._config.stale_after)
        return run.timeout_at < now and run.beat_at + silent < now

    def is_due(self, run: EndingRun) -> bool:
        """Whether nobody else seems to end the tree of a run that lost its task."""
        now = self._clock.now()
        tried = self._tried.get(run.run_id)
        if tried is not None and now - tried < timedelta(seconds=_AGAIN):
            return False
        patience = timedelta(seconds=self._config.grace + _NOTICE)
        return not seems_alive(run.host) or abs(now - run.since) > patience

    async def end_for_good(self, run: EndingRun, *, grace: float | None = None) -> None:
        """End the tree of a run that lost its task, and say that it is gone."""
        self._tried[run.run_id] = self._clock.now()
        await self.end(run, grace=grace)
        await self._rescue(run)
        await self._store.gone(run.run_id)
        self._tried.pop(run.run_id, None)

    def is_lost(self, run: ActiveRun) -> bool:
        """Whether nobody can be working on a run any more; what cannot be known is not lost."""
        if run.worker_over:
            return True
        try:
            return not is_alive(run.host)
        except StorageError:
            return False

    def is_silent(self, run: ActiveRun) -> bool:
        """Whether a run's lease is over: its host had its time, and more than that."""
        return run.lease_until < self._clock.now() and not self._mine(run)

    def _mine(self, run: ActiveRun) -> bool:
        return run.host == self._me

    async def _take_away(self, run: ActiveRun) -> None:
        # Marked first: what its host reports of a run that we end is no failure of the task, and
        # a host that wakes up in this moment must not renew. If the store cannot be written to,
        # nothing is ended either: its host may be as healthy as we are, and as helpless.
        if not await self._store.condemn(run.task_id, run.run_id):
            return
        await self.end(run)
        await self._rescue(run)
        if await self._store.expire(run.task_id, run.run_id):
            log.info("%s lost its run %s", run.task_id, run.run_id)

    async def end(self, run: ActiveRun | EndingRun, *, grace: float | None = None) -> None:
        """End a run's tree, wherever its host is. `grace`: default, that of the settings."""
        roots = [run.leader] if run.leader is not None else []
        await self._end_tree(run.run_id, roots, grace=grace)

    async def _rescue(self, run: ActiveRun | EndingRun) -> None:
        """Save what a run left uncommitted, before the next attempt may find it."""
        try:
            await saved_run(self._place, run.task_id, run.run_id)
            await finished(self._place, run.task_id, run.run_id, self._clock)
        except AgentmuxError as error:
            # It stays in its worktree, which nothing removes before it is saved.
            log.warning("the work of %s is not saved yet: %s", run.run_id, error)

    async def _end_tree(
        self, run_id: str, roots: Iterable[ProcessId], *, grace: float | None = None
    ) -> None:
        wait = self._config.grace if grace is None else grace
        await end_tree(run_id, self._layout.state, roots, grace=wait)

    async def _bury(self, worker_id: str, agent: str, host: ProcessId) -> None:
        """A worker whose process is gone is lost, and so are the files that it left.

        `host` fences: whoever has taken the id since is another worker.
        """
        if await self._store.set_status(worker_id, host, WorkerStatus.LOST):
            presence = Presence(self._layout, self._clock)
            await asyncio.to_thread(presence.leave, agent, worker_id, host.pid)


async def _all(*works: Coroutine[None, None, None]) -> None:
    """Do all of it, whatever becomes of one; foreseen errors are told, others raised."""
    for trouble in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(trouble, AgentmuxError):
            log.warning("reaper: %s", trouble)
        elif trouble is not None:
            raise trouble
