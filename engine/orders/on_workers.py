"""Orders on workers: stop, kill, add. Hosts obey through stop files, whatever process they are in.

A worker process of its own that does not obey is ended; one that several workers share is not,
and neither are this process and its ancestors (DESIGN §4.4).
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from engine.commands import AddWorkers, KillWorkers, OnWorkers, Receipt, Refusal, Stop
from engine.errors import (
    AgentmuxError,
    LeaseConflict,
    StorageError,
    ValidationError,
    WorkerNotFound,
)
from engine.model import WorkerStatus
from engine.orders.on_tasks import ANSWER
from engine.presence import DRAIN, KILL
from engine.processes.signalling import seems_alive
from engine.processes.trees import end_process, is_ours
from engine.store import orders
from engine.text import plural

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from engine.commands import EndedRun
    from engine.config import Config
    from engine.feed import Feed
    from engine.orders.on_tasks import TaskOrders
    from engine.presence import Presence
    from engine.store.lookout import Lookout
    from engine.store.rows import LiveWorker
    from engine.store.store import Store


class WorkerOrders:
    """Carries out orders on workers.

    `start` starts one more in this process, for an agent, and returns its id; `would_start`
    returns the ids that so many would get.
    """

    def __init__(
        self,
        *,
        store: Store,
        lookout: Lookout,
        feed: Feed,
        presence: Presence,
        tasks: TaskOrders,
        config: Config,
        start: Callable[[str], Awaitable[str]],
        would_start: Callable[[str, int], Awaitable[list[str]]],
    ) -> None:
        self._store = store
        self._lookout = lookout
        self._feed = feed
        self._presence = presence
        self._tasks = tasks
        self._start = start
        self._would_start = would_start
        self._grace = config.grace

    async def alive(self) -> list[LiveWorker]:
        """Return the workers that live."""
        return [one for one in await self._lookout.workers() if seems_alive(one.host)]

    async def trees(self, workers: Iterable[LiveWorker]) -> tuple[EndedRun, ...]:
        """Return the runs of workers with the processes of their trees."""
        held = {worker.run_id for worker in workers}
        active = await self._lookout.active()
        return await self._tasks.trees([run for run in active if run.run_id in held])

    async def carry_out(self, command: OnWorkers, *, dry_run: bool) -> Receipt:
        """Do what can be done to each worker, all at the same time, and report each refusal."""
        alive = {one.id: one for one in await self.alive()}
        wanted = tuple(alive) if command.workers is None else tuple(dict.fromkeys(command.workers))
        if isinstance(command, KillWorkers):
            act, counted = partial(self._kill, force=command.force), "killed"
        else:
            act = partial(self._stop, drain=command.drain)
            counted = "stopping" if command.drain else "stopped"
        # Looked at before anything is done: afterwards there is nobody left to be seen.
        trees = await self.trees(alive[name] for name in wanted if name in alive)
        done: dict[str, str] = {}
        refused: dict[str, Refusal] = {}

        async def one(worker_id: str) -> None:
            try:
                if worker_id not in alive:
                    raise WorkerNotFound(
                        f"no live worker {worker_id!r}; `agentmux ps` lists those that are"
                    )
                done[worker_id] = await act(alive[worker_id], dry_run=dry_run)
            except AgentmuxError as error:
                refused[worker_id] = Refusal(worker_id, error.code, str(error))

        async with asyncio.TaskGroup() as group:
            for worker_id in wanted:
                group.create_task(one(worker_id))
        drained = isinstance(command, Stop) and command.drain
        ends = () if drained else tuple(end for end in trees if end.worker_id in done)
        counts = {counted: len(done), "runs ended": len(ends), "refused": len(refused)}
        return Receipt(
            dry_run,
            {name: done[name] for name in wanted if name in done},
            tuple(refused[name] for name in wanted if name in refused),
            {name: count for name, count in counts.items() if count},
            ends,
        )

    async def add(self, command: AddWorkers, *, dry_run: bool) -> Receipt:
        """Start workers in this process, as many as can be.

        Raises:
            AgentmuxError: not even the first one can.

        """
        if command.count < 1:
            raise ValidationError(f"{command.count} workers cannot be started; at least 1 can")
        refused: tuple[Refusal, ...] = ()
        if dry_run:
            names = await self._would_start(command.agent, command.count)
        else:
            names = [await self._start(command.agent)]
            try:
                while len(names) < command.count:
                    names.append(await self._start(command.agent))
            except AgentmuxError as error:
                left = plural(command.count - len(names), "more worker")
                sentence = f"{left} of {command.agent} not started: {error}"
                refused = (Refusal(command.agent, error.code, sentence),)
        counts = {"started": len(names), "refused": len(refused)}
        done = dict.fromkeys(names, "started")
        return Receipt(dry_run, done, refused, {name: n for name, n in counts.items() if n})

    async def ask(self, worker: LiveWorker, word: str = "") -> str | None:
        """Write a worker's stop file; return what it said before, None if there was none."""
        try:
            return await asyncio.to_thread(self._presence.ask_stop, worker.agent, worker.id, word)
        except OSError as error:
            raise StorageError(f"{error.filename}: {error.strerror}; mend its folder") from error

    async def take_back(self, worker: LiveWorker, before: str | None) -> None:
        """Let a worker be that was asked to stop and has not obeyed yet. `before`: see ask."""
        try:
            await asyncio.to_thread(self._presence.take_back, worker.agent, worker.id, before)
        except OSError as error:
            raise StorageError(f"{error.filename}: {error.strerror}; mend its folder") from error

    async def over(self, worker: LiveWorker, within: float) -> bool:
        """Wait until a worker has ended; False: not in time."""

        async def ended() -> bool:
            rows = await self._lookout.workers()
            return not any(
                one.id == worker.id and one.host == worker.host and seems_alive(one.host)
                for one in rows
            )

        return await self._feed.until(ended, within)

    async def _stop(self, worker: LiveWorker, *, drain: bool, dry_run: bool) -> str:
        holds = f" after {worker.task_id}" if worker.task_id is not None else ""
        if dry_run:
            if drain:
                return f"stops{holds}"
            return "stopped" + (f", {worker.task_id} released" if worker.task_id else "")
        await self.ask(worker, DRAIN if drain else "")
        if drain:
            return f"stops{holds}"
        patience = self._grace + ANSWER
        if not await self.over(worker, patience):
            raise LeaseConflict(
                f"worker {worker.id!r} has not stopped for {patience:.0f} s; look at its "
                f"terminal, or kill it: `agentmux kill {worker.id}`"
            )
        # If it died over it, it has left its run to nobody.
        await self._tasks.take_back(worker)
        return "stopped"

    async def _kill(self, worker: LiveWorker, *, force: bool, dry_run: bool) -> str:
        what = "killed"
        if worker.task_id is not None:
            what += f"; {worker.task_id} failed"
        ends_process = worker.own_process and not is_ours(worker.host)
        if ends_process:
            what += f"; process {worker.host.pid} ended"
        if dry_run:
            return what
        # This word alone interrupts nothing: what it holds is taken from it by the next line.
        await self.ask(worker, KILL)
        change = partial(orders.kill_held, worker_id=worker.id, host=worker.host)
        await self._store.order(change)
        # All that it has not ended yet, also of an order before this one that was cut short.
        run_ids = {
            run.run_id
            for run in await self._lookout.endings()
            if (run.worker_id, run.host) == (worker.id, worker.host)
        }
        await self._tasks.see_gone(run_ids, force=force)
        if ends_process:
            if force or not await self.over(worker, self._grace):
                await end_process(worker.host, grace=0 if force else self._grace)
            await self.bury(worker)
        elif not await self.over(worker, self._grace + ANSWER):
            raise LeaseConflict(
                f"worker {worker.id!r} does not answer; its run was ended, but its process "
                f"{worker.host.pid} is not its alone: end that by hand"
            )
        return what

    async def force_out(self, worker: LiveWorker) -> str:
        """End a worker that does not stop when asked: its task is released, its tree killed.

        Its process goes too, if that is its alone.
        """
        if worker.own_process and not is_ours(worker.host):
            await end_process(worker.host, grace=0)
        await self._tasks.take_back(worker, force=True)
        await self.bury(worker)
        return "killed, its task released" if worker.task_id is not None else "killed"

    async def bury(self, worker: LiveWorker) -> None:
        """Say of a worker that was ended from outside that it is over, and remove its files."""
        await self._store.set_status(worker.id, worker.host, WorkerStatus.KILLED)
        # Also if it has said so itself: it may have been ended before it could remove them.
        leave = partial(self._presence.leave, worker.agent, worker.id, worker.host.pid)
        await asyncio.to_thread(leave)
