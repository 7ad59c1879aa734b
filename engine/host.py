"""A host: this process as the home of its workers. Beats, renews, obeys stop files, wakes.

One loop ticks for all workers: signs of life, leases, stop files, claims that were taken away.
One loop listens to the feed: who waits for work is woken when there is some.
"""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace

from engine.errors import AgentmuxError, StorageError, StoreGone
from engine.files import Layout, check_name
from engine.model import Claim, WorkerStatus
from engine.presence import DRAIN, KILL, Beat, Presence
from engine.processes.guard import Guard
from engine.processes.signalling import identify, seems_alive
from engine.shield import shielded
from engine.store.held import EXPIRE, RELEASE
from engine.worker import Why, Worker

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from engine.clock import Clock
    from engine.config import Config
    from engine.executors.base import Executor
    from engine.feed import Feed
    from engine.presence import Marks
    from engine.store.lookout import Lookout
    from engine.store.store import Store

log = logging.getLogger(__name__)

_TICK = 0.5
_SETTLED = 0.3
"""A run that is older than this is told in the heartbeat file at the next tick."""
_LISTEN_PAUSE = 0.02


class Host:
    """The workers of this process. Open it after the store, close it before."""

    def __init__(
        self,
        *,
        store: Store,
        lookout: Lookout,
        feed: Feed,
        executors: Mapping[str, Executor],
        layout: Layout,
        project: Path,
        config: Config,
        clock: Clock,
    ) -> None:
        me = identify(os.getpid())
        assert me is not None
        self.identity = me
        self.workers: dict[str, Worker] = {}
        self._store = store
        self._lookout = lookout
        self._feed = feed
        self._executors = executors
        self._layout = layout
        self._presence = Presence(layout, clock)
        self._guard = Guard(layout.state)
        # Leases so short that they need more are for tests and demonstrations.
        self._tick = min(_TICK, config.renew / 2, config.heartbeat)
        self._project = project
        self._config = config
        self._clock = clock
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._told: dict[str, str | None] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._gone_since: float | None = None
        self._given_up: StoreGone | None = None

    async def close(self) -> None:
        """Stop all workers, release their tasks, end the loops."""
        await self.stop()
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops.clear()
        await asyncio.to_thread(self._guard.close)

    async def start(
        self,
        agent: str,
        worker_id: str | None = None,
        *,
        until_idle: bool = False,
        own_process: bool = False,
    ) -> Worker:
        """Start a worker; None: it gets the first free `<agent>-<n>`.

        `own_process`: this process is there for this worker alone, and may be ended with it.

        Raises:
            ValidationError, LeaseConflict: the names are not free or not allowed.
            StorageError: the store or the state folder refuses.

        """
        check_name(agent, "agent")
        if worker_id is not None:
            check_name(worker_id, "worker")
        if not self._loops:
            self._loops = [
                asyncio.create_task(self._tick_forever(), name="host tick"),
                asyncio.create_task(self._listen(), name="host feed"),
            ]
        old = await asyncio.to_thread(self._presence.marks)
        worker_id = await self._store.register(
            agent, worker_id, self.identity, seems_alive, own_process=own_process
        )

        # The store frees a name a moment before its former owner here has put its files away.
        former = self._lives.get(worker_id)
        try:
            if former is not None:
                await asyncio.wait({former})
            return await self._enter(agent, worker_id, old, until_idle=until_idle)
        except BaseException:
            # A cancellation, too: nobody may be shown as alive who never began.
            await shielded(self._take_back(agent, worker_id), reraise=False)
            raise

    async def _take_back(self, agent: str, worker_id: str) -> None:
        """Free the name of a worker that did not begin. An error must not hide why it did not."""
        self._presence.leave(agent, worker_id, self.identity.pid)
        try:
            await self._store.set_status(worker_id, self.identity, WorkerStatus.STOPPED)
        except AgentmuxError:
            log.exception("%s did not begin, and could not say so", worker_id)

    async def _enter(self, agent: str, worker_id: str, old: Marks, *, until_idle: bool) -> Worker:
        """Begin a worker's life under a name that the store has given it."""

        async def is_idle() -> bool:
            return await self._lookout.unfinished(agent) == 0

        worker = Worker(
            agent,
            worker_id,
            host=self.identity,
            store=self._store,
            executors=self._executors,
            layout=self._layout,
            project=self._project,
            config=self._config,
            clock=self._clock,
            guard=self._guard,
            lookout=self._lookout,
            is_idle=is_idle if until_idle else None,
        )
        try:
            # To its end in any case: what it writes is taken back only then.
            entering = asyncio.to_thread(
                self._presence.enter, _beat_of(worker), self.identity.pid, old
            )
            await shielded(entering)
        except OSError as error:
            raise StorageError(f"{error.filename}: {error.strerror}") from error
        self.workers[worker_id] = worker
        self._lives[worker_id] = asyncio.create_task(self._live(worker), name=f"worker {worker_id}")
        return worker

    async def would_start(self, agent: str, count: int) -> list[str]:
        """Return the ids that `count` more workers of an agent would get. Raises as start does."""
        check_name(agent, "agent")
        return await self._store.would_register(agent, count, self.identity, seems_alive)

    async def stop(self, *, drain: bool = False) -> None:
        """Stop all workers and wait: their runs are released, or finished first with `drain`."""
        for worker in self.workers.values():
            worker.stop(drain=drain)
        await self._all_ended()

    async def wait(self) -> None:
        """Wait until every worker has ended.

        Raises:
            StoreGone: the database was removed or replaced, so their work was given up.

        """
        await self._all_ended()
        if self._given_up is not None:
            raise self._given_up

    async def _all_ended(self) -> None:
        while self._lives:
            # Not gather: whoever gives up waiting must not cancel the workers with it. One that
            # is cut short while its next claim is being committed would never know of it.
            await asyncio.wait(self._lives.values())

    def active_runs(self) -> int:
        """Count the runs of this process."""
        return sum(worker.claim is not None for worker in self.workers.values())

    def end_taken(self, run_ids: Iterable[str]) -> None:
        """End the runs of this process that have just lost their task."""
        holding = {w.claim.run_id: w for w in self.workers.values() if w.claim is not None}
        for run_id in run_ids:
            if run_id in holding:
                holding[run_id].interrupt(Why.LOST)

    def wake(self, ready: Mapping[str, int]) -> None:
        """Wake as many idle workers as tasks of their agent became claimable."""
        if not ready:
            return
        left = dict(ready)
        for worker in self.workers.values():
            if worker.idle and left.get(worker.agent, 0) > 0:
                left[worker.agent] -= 1
                worker.wake()

    async def _live(self, worker: Worker) -> None:
        """A worker's life and its traces: whatever ends it, its claim and its files go too."""
        try:
            await worker.run()
        except Exception:
            log.exception("worker %s died", worker.id)
        finally:
            await self._leave(worker)

    async def _leave(self, worker: Worker) -> None:
        worker.stopping = True
        try:
            if worker.claim is not None:
                await worker.give_back(worker.claim, Why.STOP)
        except AgentmuxError:
            log.exception("%s leaves its task to the reaper", worker.id)
        try:
            over = WorkerStatus.KILLED if worker.killed else WorkerStatus.STOPPED
            await self._store.set_status(worker.id, self.identity, over)
            await asyncio.to_thread(self._presence.tell, [_beat_of(worker)])
        except StoreGone:
            pass  # nobody is left to be told
        except (StorageError, OSError):
            log.exception("%s could not say that it stopped", worker.id)
        finally:
            self._presence.leave(worker.agent, worker.id, self.identity.pid)
            self.workers.pop(worker.id, None)
            self._lives.pop(worker.id, None)

    async def _tick_forever(self) -> None:
        next_beat = self._clock.monotonic() + self._config.heartbeat
        said = ""
        while True:
            await asyncio.sleep(self._tick)
            now = self._clock.monotonic()
            beat_due = now >= next_beat
            self._guard.tend()
            try:
                self._store.check_home()
                self._gone_since = None
                await self._renew()
                await self._check_claims()
                await self._obey_stop_files()
                await self._beat(all_of_them=beat_due)
                if beat_due:
                    next_beat = now + self._config.heartbeat
                    said = ""
            except StoreGone as error:
                self._miss_store(error, now)
            except (AgentmuxError, OSError) as error:
                # Tried again at the next tick; the lease gives it minutes.
                if str(error) != said:
                    said = str(error)
                    log.warning("%s", error)
            except Exception:
                # Whatever it is, leases must be renewed and orders obeyed all the same.
                log.exception("host tick")

    def _miss_store(self, error: StoreGone, now: float) -> None:
        """Wait for the database to come back, as long as a silent worker is waited for.

        Then give up: what is at its place knows nothing of our runs, and may begin them anew.
        """
        if self._gone_since is None:
            self._gone_since = now
            log.warning("%s", error)
        elif now - self._gone_since >= self._config.stale_after and self._given_up is None:
            self._given_up = error
            for worker in self.workers.values():
                worker.give_up()

    async def _check_claims(self) -> None:
        """End the runs whose claim was taken away or is asked back."""
        holding = {w.claim.run_id: w for w in self.workers.values() if w.claim is not None}
        if not holding:
            return
        active = {run.run_id: run for run in await self._lookout.active()}
        for run_id, worker in holding.items():
            if worker.claim is None or worker.claim.run_id != run_id:
                continue
            run = active.get(run_id)
            if run is None or run.asked == EXPIRE:
                worker.interrupt(Why.LOST)
            elif run.asked == RELEASE:
                worker.interrupt(Why.ASKED)

    async def _obey_stop_files(self) -> None:
        found = await asyncio.to_thread(self._presence.stop_requests)
        for worker in list(self.workers.values()):
            word = found.get(self._layout.stop_file(worker.agent, worker.id).name)
            if word is None:
                continue
            worker.killed = worker.killed or word == KILL
            if not worker.stopping:
                await self._store.set_status(worker.id, self.identity, WorkerStatus.STOPPING)
            # What a kill ends was taken from it in the store; nothing else must be interrupted.
            worker.stop(drain=word in {DRAIN, KILL})

    async def _renew(self) -> None:
        """Renew all leases once one is older than `renew`, by the clock that the reaper reads.

        So a laptop that slept renews at its first tick, long before anybody's patience ends.
        """
        holding = [(w, w.claim) for w in self.workers.values() if w.claim is not None]
        fresh = self._clock.now() + timedelta(seconds=self._config.lease - self._config.renew)
        if all(claim.lease_until > fresh for _, claim in holding):
            return
        until = await self._store.renew(claim.run_id for _, claim in holding)
        for worker, claim in holding:
            if worker.claim is claim:
                worker.claim = replace(claim, lease_until=until)

    async def _beat(self, *, all_of_them: bool) -> None:
        oldest = self._clock.now().timestamp() - _SETTLED
        due = [
            worker
            for worker in self.workers.values()
            if all_of_them
            or (
                _task_of(worker.claim) != self._told.get(worker.id)
                and (worker.claim is None or worker.claim.claimed_at.timestamp() < oldest)
            )
        ]
        if due:
            await self._store.beat([worker.id for worker in due])
            beats = [_beat_of(worker) for worker in due]
            self._told |= {beat.worker_id: _task_of(beat.claim) for beat in beats}
            await asyncio.to_thread(self._presence.tell, beats)

    async def _listen(self) -> None:
        """Wake idle workers for what others made claimable, and end backoffs in time."""
        async with self._feed.subscribe() as changed:
            while True:
                changed.clear()
                wait: float | None = 1.0
                try:
                    wait = await self._look_for_work()
                except StoreGone:
                    pass  # the tick sees it, too
                except StorageError as error:
                    log.warning("host feed: %s", error)
                except Exception:
                    # Whatever it is, idle workers must be woken all the same.
                    log.exception("host feed")
                try:
                    async with asyncio.timeout(wait):
                        await changed.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(_LISTEN_PAUSE)

    async def _look_for_work(self) -> float | None:
        """Wake whom there is work for; return the seconds until the next backoff is over.

        Whoever lost a run to an order of another process ends it at once, too.
        """
        if self.active_runs() and await self._lookout.some_endings():
            await self._check_claims()
        due = await self._lookout.next_due()
        if due is not None and due <= self._clock.now():
            await self._store.end_backoff()
            due = await self._lookout.next_due()
        idle: dict[str, list[Worker]] = {}
        for worker in self.workers.values():
            if worker.idle:
                idle.setdefault(worker.agent, []).append(worker)
        for agent, workers in idle.items():
            count = await self._lookout.claimable(agent, len(workers))
            for worker in workers[:count]:
                worker.wake()
            if any(w.until_idle for w in workers) and not await self._lookout.unfinished(agent):
                for worker in workers:
                    worker.wake()
        if due is None:
            return None
        return max(0.0, (due - self._clock.now()).total_seconds()) + 0.001


def _beat_of(worker: Worker) -> Beat:
    note = "stopping" if worker.stopping else ""
    return Beat(worker.agent, worker.id, worker.claim, note)


def _task_of(claim: Claim | None) -> str | None:
    return claim.task.id if claim is not None else None
