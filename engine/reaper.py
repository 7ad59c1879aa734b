"""Who cleans up: runs whose host is dead or silent lose their task once their tree is gone.

Any process that holds workers runs one; they do not hinder each other, for every expiry names
its run.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from engine.errors import AgentmuxError, StorageError
from engine.model import ProcessId, WorkerStatus
from engine.presence import Presence
from engine.processes import end_tree, is_alive, seems_alive

if TYPE_CHECKING:
    from engine.clock import Clock
    from engine.config import Config
    from engine.files import Layout
    from engine.store.lookout import Lookout
    from engine.store.rows import ActiveRun
    from engine.store.store import Store

log = logging.getLogger(__name__)

_EVERY = 1.0
_GAP = 5.0
"""So many seconds between two looks, and somebody slept: this process, or the whole machine."""


class Reaper:
    """Looks every second. `me` is this process: its own runs are its Host's business."""

    def __init__(
        self,
        *,
        store: Store,
        lookout: Lookout,
        layout: Layout,
        config: Config,
        clock: Clock,
        me: ProcessId,
    ) -> None:
        self._store = store
        self._lookout = lookout
        self._layout = layout
        self._config = config
        self._clock = clock
        self._me = me
        self._last: datetime | None = None
        self._patient_until = datetime.min.replace(tzinfo=UTC)
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._reap_forever(), name="reaper")

    async def close(self) -> None:
        """Stop looking; a tree that is being ended is ended first."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _reap_forever(self) -> None:
        while True:
            try:
                await self.look()
            except AgentmuxError as error:
                log.warning("reaper: %s", error)
            await asyncio.sleep(_EVERY)

    async def look(self) -> None:
        """Judge every active run and every live worker once.

        After a gap in the clock, silence proves nothing: whoever slept gets one renewal's time.
        So it is before the first look, for nobody knows what was before it.
        """
        now = self._clock.now()
        if self._last is None or abs(now - self._last) > timedelta(seconds=_GAP):
            self._patient_until = now + timedelta(seconds=self._config.renew)
        patient = now < self._patient_until
        lost = [
            run
            for run in await self._lookout.active()
            if self.is_lost(run) or (run.lease_until < now and not patient and not self._mine(run))
        ]
        # At the same time: each tree may take its whole grace to end.
        for trouble in await asyncio.gather(*map(self._take_away, lost), return_exceptions=True):
            if isinstance(trouble, AgentmuxError):
                log.warning("reaper: %s", trouble)
            elif trouble is not None:
                raise trouble
        for worker_id, agent, host in await self._lookout.idle_live():
            if not seems_alive(host):
                await self._bury(worker_id, agent, host)
        # Taken at the end: ending trees takes its time, and that is no gap.
        self._last = self._clock.now()

    def is_lost(self, run: ActiveRun) -> bool:
        """Whether nobody can be working on a run any more; what cannot be known is not lost."""
        if run.worker_over:
            return True
        try:
            return not is_alive(run.host)
        except StorageError:
            return False

    def _mine(self, run: ActiveRun) -> bool:
        return run.host == self._me

    async def _take_away(self, run: ActiveRun) -> None:
        # Marked first: what its host reports of a run that we end is no failure of the task, and
        # a host that wakes up in this moment must not renew. If the store cannot be written to,
        # nothing is ended either: its host may be as healthy as we are, and as helpless.
        if not await self._store.condemn(run.task_id, run.run_id):
            return
        await self.end(run)
        if await self._store.expire(run.task_id, run.run_id):
            log.info("%s lost its run %s", run.task_id, run.run_id)

    async def end(self, run: ActiveRun) -> None:
        """End a run's tree, wherever its host is."""
        roots = [run.leader] if run.leader is not None else []
        await end_tree(run.run_id, self._layout.state, roots, grace=self._config.grace)

    async def _bury(self, worker_id: str, agent: str, host: ProcessId) -> None:
        """A worker whose process is gone is lost, and so are the files that it left.

        `host` fences: whoever has taken the id since is another worker.
        """
        if await self._store.set_status(worker_id, host, WorkerStatus.LOST):
            presence = Presence(self._layout, self._clock)
            await asyncio.to_thread(presence.leave, agent, worker_id, host.pid)
