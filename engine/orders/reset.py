"""Reset: hold claims, stop all workers, rotate the log, reseed, resume.

Two commits carry it: one holds and marks, one does all the rest, so there is little that can be
half-done. A reset that was cut short between them is completed by doing it again.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.commands import GIVEN_UP, Receipt, Reset, Step
from engine.errors import AgentmuxError, LeaseConflict, StorageError
from engine.model import TaskDef
from engine.orders.on_tasks import ANSWER
from engine.shield import shielded
from engine.text import plural

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from engine.clock import Clock
    from engine.commands import EndedRun, OnStep
    from engine.feed import Feed
    from engine.files import Layout
    from engine.host import Host
    from engine.model import Dag
    from engine.orders.on_workers import WorkerOrders
    from engine.reaper import Reaper
    from engine.store.rows import LiveWorker
    from engine.store.seeding import SeedReport
    from engine.store.store import Store

FindUnfit = Callable[[Iterable[TaskDef]], Awaitable[Mapping[str, str]]]
"""Returns why tasks cannot be done as things are, by id."""

_NEXT = "then the log is rotated, the DAG is seeded and claims go on"
_HEARD = 0.3
"""Seconds after which it shows whether a worker had read its stop file before it was taken back."""


class _Asked(Struct, frozen=True):
    """A worker that was asked to stop, and what its stop file said before."""

    worker: LiveWorker
    before: str | None


class Resetter:
    """Carries out a Reset. `start` starts a worker of this process again."""

    def __init__(
        self,
        *,
        store: Store,
        feed: Feed,
        workers: WorkerOrders,
        host: Host,
        reaper: Reaper,
        layout: Layout,
        clock: Clock,
        start: Callable[[str, str], Awaitable[str]],
        find_unfit: FindUnfit,
    ) -> None:
        self._store = store
        self._feed = feed
        self._workers = workers
        self._host = host
        self._reaper = reaper
        self._layout = layout
        self._clock = clock
        self._start = start
        self._find_unfit = find_unfit

    async def carry_out(
        self,
        command: Reset,
        dag: Dag,
        *,
        dry_run: bool,
        on_step: OnStep,
        hurry: asyncio.Event,
    ) -> tuple[SeedReport, dict[str, str], tuple[EndedRun, ...]]:
        """Return what the seed did, what became of each worker, and the runs that this ended.

        Raises:
            LeaseConflict: workers still live, or another reset is under way; claims go on.
            StorageError: the store refused; what was done is said, and again completes it.

        """
        alive = await self._workers.alive()
        unfit = await self._find_unfit(dag.tasks)
        if dry_run:
            report = await self._store.reset(dag, fresh=command.fresh, dry_run=True, unfit=unfit)
            fate = {worker.id: _stopped(worker) for worker in alive}
            return report, fate, await self._workers.trees(alive)
        async with self._only_one():
            mine = [(worker.agent, worker.id) for worker in self._host.workers.values()]
            ends = await self._workers.trees(alive)
            asked: dict[str, _Asked] = {}
            try:
                await self._store.begin_reset()
                fate = await self._stop_all(command, asked, on_step, hurry)
            except LeaseConflict as error:
                stands = await shielded(self._give_up(asked, mine))
                raise LeaseConflict(
                    f"{error}; nothing was reset: {stands}; "
                    "wait and reset again, or --force kills them"
                ) from None
            except (asyncio.CancelledError, AgentmuxError):
                stands = await shielded(self._give_up(asked, mine))
                on_step(Step(GIVEN_UP, next=stands))
                raise
            # Too late to give up: what follows takes no time worth cutting short.
            seed = partial(self._store.reset, dag, fresh=command.fresh, unfit=unfit)
            report = await shielded(self._complete(seed, asked, mine, fate, on_step))
            return report, fate, ends

    async def _complete(
        self,
        seed: Callable[..., Awaitable[SeedReport]],
        asked: dict[str, _Asked],
        mine: list[tuple[str, str]],
        fate: dict[str, str],
        on_step: OnStep,
    ) -> SeedReport:
        on_step(Step("rotating the log and seeding", next="claims go on"))
        try:
            # What dead hosts still hold goes back now, so that nothing old is left running.
            await self._reaper.look()
            report = await seed(progress=lambda through: on_step(Step("seeding", through)))
        except StorageError as error:
            raise StorageError(
                f"the reset is half-done: claims are held and "
                f"{plural(len(fate), 'worker')} stopped, but nothing was seeded: {error}; "
                "reset again to complete it, or resume to go on as before"
            ) from error
        except AgentmuxError:
            on_step(Step(GIVEN_UP, next=await self._give_up(asked, mine)))
            raise
        for agent, worker_id in mine:
            try:
                await self._start(agent, worker_id)
            except AgentmuxError as error:
                # The reset is done all the same, and its report must not be lost over this.
                fate[worker_id] = f"stopped, and not started again: {error}"
        return report

    async def _give_up(self, asked: dict[str, _Asked], mine: list[tuple[str, str]]) -> str:
        """Undo what was done so far; return how things stand then.

        Who has not obeyed yet is asked no longer. Of those that have, ours (`mine`) start again.
        """
        try:
            await self._store.abandon_reset()
        except StorageError as error:
            raise StorageError(
                f"the reset is given up, but claims may still be held: {error}; "
                "`agentmux resume` lets them go on"
            ) from error
        for one in asked.values():
            await self._workers.take_back(one.worker, one.before)
        if asked:
            await asyncio.sleep(_HEARD)
        for agent, worker_id in mine:
            if worker_id not in asked or asked[worker_id].before is not None:
                continue
            # One that is stopping goes first, or nobody would work here from now on.
            here = self._host.workers.get(worker_id)
            if here is not None and not here.stopping:
                continue
            if await self._feed.until(partial(self._has_left, worker_id), ANSWER):
                await self._start(agent, worker_id)
        stopped = await self._stopped_for_good(asked)
        if not stopped:
            return "claims go on"
        them = "it" if len(stopped) == 1 else "them"
        return f"claims go on, but {', '.join(stopped)} stopped: start {them} again"

    async def _has_left(self, worker_id: str) -> bool:
        return worker_id not in self._host.workers

    async def _stopped_for_good(self, asked: dict[str, _Asked]) -> list[str]:
        """Return who has stopped, or is about to, because it was asked, and will not come back."""
        going_on = {worker.id for worker in await self._workers.alive() if not worker.stopping}
        return [name for name, one in asked.items() if name not in going_on and one.before is None]

    async def _stop_all(
        self,
        command: Reset,
        asked: dict[str, _Asked],
        on_step: OnStep,
        hurry: asyncio.Event,
    ) -> dict[str, str]:
        """Ask all workers to stop and wait; return what became of each. Fills `asked`.

        Once `hurry` is set nobody is waited for any longer: those left are killed.
        """
        deadline = self._clock.monotonic() + command.timeout
        left: list[LiveWorker] = []

        async def all_stopped() -> bool:
            nonlocal left
            left = await self._workers.alive()
            for worker in left:
                # Also one that has come since: nobody may start while we wait.
                if worker.id not in asked or asked[worker.id].worker.host != worker.host:
                    before = await self._workers.ask(worker)
                    asked[worker.id] = _Asked(worker, before)
            if left:
                wait = max(0.0, deadline - self._clock.monotonic())
                names = tuple(_name(worker) for worker in left)
                on_step(Step("waiting for workers to stop", 0, names, wait, _NEXT))
            return not left or hurry.is_set()

        in_time = await self._feed.until(all_stopped, command.timeout)
        if left and (hurry.is_set() or not in_time):
            if not (command.force or hurry.is_set()):
                names = ", ".join(_name(worker) for worker in left)
                raise LeaseConflict(f"still alive after {command.timeout:g} s: {names}")
            for worker in left:
                on_step(Step(f"killing {_name(worker)}", next=_NEXT))
                await self._workers.force_out(worker)
        forced = {worker.id for worker in left}
        return {
            name: "killed" if name in forced else _stopped(one.worker)
            for name, one in asked.items()
        }

    @asynccontextmanager
    async def _only_one(self) -> AsyncIterator[None]:
        """Let one process of all reset at a time."""
        try:
            lock = os.open(self._layout.reset_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"{error.filename}: {error.strerror}; mend its folder") from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LeaseConflict("another reset is under way; wait for its end") from None
            yield
        finally:
            os.close(lock)


def _name(worker: LiveWorker) -> str:
    holds = f" with {worker.task_id}" if worker.task_id is not None else ""
    return f"{worker.id} (pid {worker.host.pid}){holds}"


def _stopped(worker: LiveWorker) -> str:
    return f"stopped, {worker.task_id} released" if worker.task_id is not None else "stopped"


def add_workers(receipt: Receipt, fate: dict[str, str], ends: tuple[EndedRun, ...]) -> Receipt:
    """Tell in a seed's receipt what became of the workers and their runs, too."""
    counts = {"workers stopped": len(fate)} if fate else {}
    done = fate | dict(receipt.done)
    return Receipt(receipt.dry_run, done, receipt.refused, {**counts, **receipt.counts}, ends)
