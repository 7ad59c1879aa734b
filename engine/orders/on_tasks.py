"""Orders on tasks: what `store.orders` writes, and the trees of the runs that lose their task.

An order is complete when those trees are gone. The host of a run ends it; for one that is dead or
silent it is done here.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from engine.commands import (
    Cancel,
    EndedRun,
    Kill,
    OnTasks,
    Purge,
    Receipt,
    Refusal,
    Release,
    Retry,
)
from engine.errors import AgentmuxError, LeaseConflict, LeaseLost
from engine.model import State
from engine.processes.census import tree_of
from engine.store import orders
from engine.store.orders import OPERATOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.config import Config
    from engine.feed import Feed
    from engine.files import Layout
    from engine.reaper import Reaper
    from engine.store.lookout import Lookout
    from engine.store.orders import Ordered, Orders
    from engine.store.queries import Queries
    from engine.store.rows import ActiveRun, EndingRun, LiveWorker
    from engine.store.store import Store

ANSWER = 10.0
"""Seconds beyond `grace` in which a live host must have obeyed."""
_PIDS_OF = 50
"""Runs whose processes a receipt lists; each costs a look at all processes."""


class TaskOrders:
    """Carries out orders on tasks, whatever process their runs are in."""

    def __init__(
        self,
        *,
        store: Store,
        queries: Queries,
        lookout: Lookout,
        feed: Feed,
        reaper: Reaper,
        layout: Layout,
        config: Config,
    ) -> None:
        self._store = store
        self._queries = queries
        self._lookout = lookout
        self._feed = feed
        self._reaper = reaper
        self._layout = layout
        self._patience = config.grace + ANSWER

    async def carry_out(self, command: OnTasks, *, dry_run: bool) -> Receipt:
        """Do what can be done to each task, and report each refusal."""
        ids = command.tasks
        if not isinstance(ids, tuple):
            ids = tuple(await self._queries.task_ids(ids))
        before = {run.run_id: run for run in await self._lookout.active()}
        # Looked at before anything is done: hosts end what is taken from them within milliseconds.
        named = set() if isinstance(command, Retry) else set(ids)
        seen = await self.trees(run for run in before.values() if run.task_id in named)
        answers = await self._store.order(_order_of(command, ids), dry_run=dry_run)
        runs = [one.run_id for one in answers.done.values() if one.run_id is not None]
        if isinstance(command, Release):
            held = [before[run_id] for run_id in runs if run_id in before]
            ends = await self._ends(runs, seen, held)
            words = _words(command, answers)
            late = {} if dry_run else await self._see_released(answers, words)
        else:
            losing: Iterable[ActiveRun | EndingRun]
            losing = before.values() if dry_run else await self._lookout.endings()
            losing = [run for run in losing if run.run_id in set(runs)]
            ends = await self._ends(runs, seen, losing)
            words = _words(command, answers)
            if not dry_run:
                force = isinstance(command, Kill) and command.force
                await self.see_gone({run.run_id for run in losing}, force=force)
            late = {} if dry_run else await self._still_there(answers)
        no = answers.refused | late
        # As they were asked for; what came along downstream stands behind.
        order = dict.fromkeys((*ids, *words, *no))
        refused = [Refusal(i, no[i].code, str(no[i])) for i in order if i in no]
        done = {i: words[i] for i in order if i in words and i not in late}
        return Receipt(dry_run, done, tuple(refused), _counts(command, answers, len(late)), ends)

    async def see_gone(self, run_ids: set[str], *, force: bool = False) -> None:
        """Wait until the trees of runs that lost their task are gone.

        Those of dead or silent hosts are ended here; all of them, with SIGKILL, if `force`.
        """
        if not run_ids:
            return
        if force:
            mine = [run for run in await self._lookout.endings() if run.run_id in run_ids]
            await asyncio.gather(*(self._reaper.end_for_good(run, grace=0) for run in mine))

        async def gone() -> bool:
            left = [run for run in await self._lookout.endings() if run.run_id in run_ids]
            due = [run for run in left if self._reaper.is_due(run)]
            await asyncio.gather(*map(self._reaper.end_for_good, due))
            return not left

        await self._feed.until(gone, self._patience)

    async def take_back(self, worker: LiveWorker, *, force: bool = False) -> None:
        """Release what a worker that is over has left held, once the tree is ended.

        `force`: whether it is over or not, and with SIGKILL at once.
        """
        for run in await self._lookout.active():
            its = (run.worker_id, run.host) == (worker.id, worker.host)
            if its and (force or self._reaper.is_lost(run)):
                await self._reaper.end(run, grace=0 if force else None)
                with suppress(LeaseLost):
                    await self._store.release(run.task_id, run.run_id, OPERATOR)

    async def _still_there(self, answers: Orders) -> dict[str, AgentmuxError]:
        """Return the tasks whose order was carried out while their run's tree still lives."""
        left = {run.run_id for run in await self._lookout.endings()}
        return {
            task_id: LeaseConflict(
                f"task {task_id!r} is {one.state or 'purged'}, but processes of its run "
                f"{one.run_id} still live; `agentmux doctor` shows them"
            )
            for task_id, one in answers.done.items()
            if one.run_id in left
        }

    async def _see_released(
        self, answers: Orders, words: dict[str, str]
    ) -> dict[str, AgentmuxError]:
        """Wait until every holder has let go; amend `words` by how that went."""
        late: dict[str, AgentmuxError] = {}

        async def one(task_id: str, ordered: Ordered) -> None:
            try:
                words[task_id] = await self._see_one_released(task_id, ordered)
            except AgentmuxError as error:
                late[task_id] = error

        async with asyncio.TaskGroup() as group:
            for task_id, ordered in answers.done.items():
                group.create_task(one(task_id, ordered))
        return late

    async def _see_one_released(self, task_id: str, ordered: Ordered) -> str:
        run_id = ordered.run_id
        assert run_id is not None, "what can be released is held by a run"

        run: ActiveRun | None = None

        async def let_go() -> bool:
            nonlocal run
            active = await self._lookout.active()
            run = next((run for run in active if run.run_id == run_id), None)
            # Its host may die over it, and there need not be anybody else who would see that.
            return run is None or self._reaper.is_lost(run)

        in_time = await self._feed.until(let_go, self._patience)
        if run is not None and not in_time and not self._reaper.is_silent(run):
            raise LeaseConflict(
                f"{run.worker_id} (pid {run.host.pid}) has not let go of {task_id!r} for "
                f"{self._patience:.0f} s; kill the task, or wait for the lease to expire"
            )
        if run is not None:
            if not in_time:
                # Should it wake up now, the end of its run is no failure of the task.
                await self._store.condemn(task_id, run_id)
            await self._reaper.end(run)
            try:
                await self._store.release(task_id, run_id, OPERATOR)
            except LeaseLost:
                return "its lease expired meanwhile"
            gone = "was gone" if in_time else "does not answer"
            return f"released from {run.worker_id}, whose process {gone}"
        ended = next((r for r in await self._queries.runs(task_id) if r.id == run_id), None)
        how = ended.outcome if ended is not None and ended.outcome is not None else "released"
        return f"released from {ordered.worker_id}" if how == "released" else f"{how} meanwhile"

    async def _ends(
        self,
        run_ids: Iterable[str],
        seen: Iterable[EndedRun],
        there: Iterable[ActiveRun | EndingRun],
    ) -> tuple[EndedRun, ...]:
        """Return runs as they were seen; those that came since are looked at now, if `there`."""
        known = {end.run_id: end for end in seen}
        late = await self.trees(run for run in there if run.run_id not in known)
        known |= {end.run_id: end for end in late}
        return tuple(known[run_id] for run_id in run_ids if run_id in known)

    async def trees(self, runs: Iterable[ActiveRun | EndingRun]) -> tuple[EndedRun, ...]:
        """Return runs with the processes of their trees, as far as these can be told."""

        async def look(run: ActiveRun | EndingRun, *, closely: bool) -> EndedRun:
            pids: tuple[int, ...] = ()
            if closely:
                roots = [run.leader] if run.leader is not None else []
                try:
                    tree = await asyncio.to_thread(tree_of, run.run_id, self._layout.state, roots)
                    pids = tuple(sorted(process.pid for process in tree))
                except AgentmuxError:
                    # They are ended all the same; only their numbers cannot be told.
                    pids = ()
            return EndedRun(run.run_id, run.task_id, run.worker_id, pids)

        looks = (look(run, closely=n < _PIDS_OF) for n, run in enumerate(runs))
        return tuple(await asyncio.gather(*looks))


def _order_of(command: OnTasks, ids: tuple[str, ...]) -> partial[Orders]:
    match command:
        case Release():
            return partial(orders.release, task_ids=ids)
        case Cancel():
            return partial(orders.cancel, task_ids=ids)
        case Kill():
            return partial(orders.kill, task_ids=ids)
        case Retry():
            return partial(orders.retry, task_ids=ids, downstream=command.downstream)
        case Purge():
            return partial(orders.purge, task_ids=ids)


_DONE = {Release: "released", Cancel: "cancelled", Kill: "killed", Purge: "purged"}


def _words(command: OnTasks, answers: Orders) -> dict[str, str]:
    """Say for each task what was done to it."""
    words = {}
    for task_id, one in answers.done.items():
        if isinstance(command, Retry):
            ready = one.state is State.READY
            words[task_id] = "ready again" if ready else "retried, but something else blocks it"
        elif isinstance(command, Release):
            words[task_id] = f"released from {one.worker_id}"
        else:
            words[task_id] = _DONE[type(command)]
            if one.run_id is not None:
                words[task_id] += f"; its run by {one.worker_id} ended"
    return words


def _counts(command: OnTasks, answers: Orders, late: int) -> Mapping[str, int]:
    """Sum up; the `late`, whose processes are still there, count as refused."""
    runs = sum(one.run_id is not None for one in answers.done.values())
    word = "ready again" if isinstance(command, Retry) else _DONE[type(command)]
    counts = {
        word: len(answers.done) - late,
        "runs ended": runs - late,
        "tasks blocked by it": answers.blocked,
        "tasks unblocked by it": answers.unblocked,
        "refused": len(answers.refused) + late,
    }
    return {name: count for name, count in counts.items() if count}
