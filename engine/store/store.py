"""The store as the rest of the engine sees it: typed, asynchronous, one method for each change."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from engine.dag import to_definition
from engine.errors import LeaseLost
from engine.store import (
    alerts,
    claims,
    endings,
    feeds,
    registry,
    resetting,
    roster,
    seeding,
    services,
    spending,
    watched,
)
from engine.store.writer import Committed, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from engine.clock import Clock
    from engine.commands import OnStep
    from engine.files import Layout
    from engine.model import (
        Budget,
        Claim,
        Dag,
        External,
        NewAlert,
        Outcome,
        ProcessId,
        Spending,
        TaskDef,
        WorkerStatus,
    )
    from engine.store.orders import Orders
    from engine.store.seeding import SeedReport
    from engine.store.services import Standing
    from engine.store.transaction import Transaction
    from engine.store.vitals import KnownWorker
    from engine.store.watched import Watching

T = TypeVar("T")


class Store:
    """All writing of a process. `lease` is in seconds; `on_commit` is called on the event loop.

    `on_step` is told, on another thread, how far a rebuild is when the store is opened; `deep`
    looks at every page then.

    Every method may raise StorageError; then nothing was changed.
    """

    def __init__(
        self,
        layout: Layout,
        clock: Clock,
        *,
        lease: float,
        on_commit: Callable[[Committed], None] = lambda _committed: None,
        is_alive: Callable[[ProcessId], bool] = lambda _process: True,
        on_step: OnStep | None = None,
        deep: bool = False,
    ) -> None:
        self._is_alive = is_alive
        self._lease = lease
        self._random = random.Random()
        self._writer = Writer(
            layout.database, layout.write_lock, clock, on_commit, on_step=on_step, deep=deep
        )

    @property
    def notices(self) -> Sequence[str]:
        """Sentences on what was done to the store when it was opened, as a rule none."""
        return self._writer.notices

    async def open(self) -> None:
        """Open the database, making it if there is none."""
        await self._writer.open()

    def check_home(self) -> None:
        """Raise StoreGone if the database is no longer where it was opened. One stat."""
        self._writer.check_home()

    async def close(self) -> None:
        """Commit what waits and close."""
        await self._writer.close()

    async def seed(
        self,
        dag: Dag,
        *,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
        unfit: Mapping[str, str] | None = None,
    ) -> SeedReport:
        """Upsert a DAG. `progress` is told the tasks that are through, on another thread.

        `unfit` says which of them cannot be done as things are, and why.
        """
        told = progress or (lambda _done: None)
        change = partial(
            seeding.seed,
            dag=dag,
            definition=to_definition,
            is_alive=self._is_alive,
            progress=told,
            unfit=unfit,
        )
        return await self._writer.write(change, dry_run=dry_run)

    async def begin_reset(self) -> None:
        """Hold all claims for a reset."""
        await self._writer.write(resetting.begin)

    async def abandon_reset(self) -> None:
        """Give up a reset that has begun; claims go on as before it."""
        await self._writer.write(resetting.abandon)

    async def reset(
        self,
        dag: Dag,
        *,
        fresh: bool,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
        unfit: Mapping[str, str] | None = None,
    ) -> SeedReport:
        """Complete a reset: RESET, seed, retries if `fresh`, resume, in one transaction."""
        change = partial(
            resetting.complete,
            dag=dag,
            fresh=fresh,
            definition=to_definition,
            is_alive=self._is_alive,
            progress=progress or (lambda _done: None),
            unfit=unfit,
        )
        return await self._writer.write(change, dry_run=dry_run)

    async def block(self, unfit: Mapping[str, str]) -> dict[str, str]:
        """Make READY tasks BLOCKED `human` that cannot be done as things are; return those."""
        return await self._writer.write(partial(seeding.block, unfit=unfit))

    async def add(self, tasks: Sequence[TaskDef], unfit: Mapping[str, str]) -> None:
        """Add tasks that stand in no DAG file; those that are there already are left alone."""
        change = partial(seeding.add, tasks=tasks, definition=to_definition, unfit=unfit)
        await self._writer.write(change)

    async def note_told(self, task_id: str, run_id: str) -> None:
        """Note that whoever asked for a task has heard of this run's result, and of no later."""
        await self._writer.write(partial(seeding.note_told, task_id=task_id, run_id=run_id))

    async def note_feed(self, name: str, error: str | None) -> None:
        """Note that a feed of tasks fails, and why, or (None) that it works."""
        await self._writer.write(partial(feeds.note_feed, name=name, error=error))

    async def begin_watching(self) -> None:
        """Let the output of runs be watched from now on, if it never was."""
        await self._writer.write(watched.begin)

    async def note_watched(self, watching: Watching) -> list[int]:
        """Note what a look at logs has found; return the numbers of the alerts it has raised."""
        return await self._writer.write(partial(watched.note, watching=watching))

    async def raise_alerts(self, new: Iterable[NewAlert], targets: Iterable[str] = ()) -> list[int]:
        """Raise alerts, to be handed to `targets`; return their numbers."""
        change = partial(alerts.raise_alerts, alerts=list(new), targets=list(targets))
        return await self._writer.write(change)

    async def acknowledge(
        self, numbers: Sequence[int] | None, *, dry_run: bool = False
    ) -> list[int]:
        """Acknowledge alerts (None: all); return the numbers of those that were not before."""
        change = partial(alerts.acknowledge, numbers=numbers)
        return await self._writer.write(change, dry_run=dry_run)

    async def forget_targets(self, but: Sequence[str]) -> None:
        """Hand alerts to no other targets than these."""
        await self._writer.write(partial(alerts.forget_targets, but=but))

    async def delivered(self, number: int, target: str) -> None:
        """Note that an alert was handed over."""
        await self._writer.write(partial(alerts.delivered, number=number, target=target))

    async def put_off(self, number: int, target: str, error: str, seconds: float) -> None:
        """Note that an alert could not be handed over, and is tried again in so many seconds."""
        await self._writer.write(
            partial(alerts.put_off, number=number, target=target, error=error, seconds=seconds)
        )

    async def give_up(self, number: int, target: str, alert: NewAlert | None) -> None:
        """Hand an alert over no more; raise the alert that says so, if there is one."""
        await self._writer.write(partial(alerts.give_up, number=number, target=target, alert=alert))

    async def register_agent(self, agent: External, *, dry_run: bool = False) -> bool:
        """Enter an agent that somebody else has started; False: it was there already.

        Raises LeaseConflict.
        """
        change = partial(registry.register, agent=agent, is_alive=self._is_alive)
        return await self._writer.write(change, dry_run=dry_run)

    async def beat_agents(self, ids: Iterable[str], *, dry_run: bool = False) -> list[str]:
        """Note a sign of life of registered agents; return those that there are."""
        change = partial(registry.beat, ids=list(ids))
        return await self._writer.write(change, dry_run=dry_run)

    async def unregister_agents(
        self,
        whys: Mapping[str, str],
        new: Iterable[NewAlert] = (),
        targets: Iterable[str] = (),
        *,
        dry_run: bool = False,
    ) -> list[str]:
        """Forget registered agents, for reasons in words; return those that there were."""
        change = partial(registry.unregister, whys=whys, alerts=list(new), targets=list(targets))
        return await self._writer.write(change, dry_run=dry_run)

    async def enter_services(self, ports: Mapping[str, int | None], keeper: ProcessId) -> None:
        """Note who keeps which services from now on."""
        await self._writer.write(partial(services.enter, ports=ports, keeper=keeper))

    async def stand_service(
        self,
        name: str,
        standing: Standing,
        new: Iterable[NewAlert] = (),
        targets: Iterable[str] = (),
    ) -> None:
        """Note how a service stands now, and raise alerts over it."""
        change = partial(
            services.stand, name=name, standing=standing, alerts=list(new), targets=list(targets)
        )
        await self._writer.write(change)

    async def ask_services(self, names: Iterable[str], what: str) -> list[str]:
        """Ask the keeper to start, stop or restart services; return those that there are."""
        return await self._writer.write(partial(services.ask, names=list(names), what=what))

    async def obey_service(self, names: Iterable[str], what: str) -> None:
        """Note that what was asked of services is done."""
        await self._writer.write(partial(services.obey, names=list(names), what=what))

    async def claim(
        self,
        agent: str,
        worker_id: str,
        host: ProcessId,
        preparing: frozenset[str] = frozenset(),
    ) -> Claim | None:
        """Claim the agent's next task for a worker of `host`; None: there is none now."""
        return await self._writer.write(self._claim(agent, worker_id, host, preparing))

    def _claim(
        self, agent: str, worker_id: str, host: ProcessId, preparing: frozenset[str]
    ) -> Callable[[Transaction], Claim | None]:
        return partial(
            claims.claim,
            agent=agent,
            worker_id=worker_id,
            host=host,
            lease=self._lease,
            preparing=preparing,
        )

    async def start(self, claim: Claim) -> None:
        """CLAIMED → RUNNING. Raises LeaseLost."""
        change = partial(claims.start, run_id=claim.run_id, task_id=claim.task.id)
        if not await self._writer.write(change):
            raise LeaseLost(claim.run_id)

    async def progress(self, claim: Claim, words: str, spending: Spending | None = None) -> None:
        """Tell how far a run is, and what it took until now, in all. Raises LeaseLost.

        What a run took that lost its task is noted all the same: it is spent.
        """
        change = partial(
            claims.progress,
            run_id=claim.run_id,
            task_id=claim.task.id,
            words=words,
            spending=spending,
        )
        if not await self._writer.write(change):
            raise LeaseLost(claim.run_id)

    async def lead(self, claim: Claim, process: ProcessId) -> None:
        """Record the process that leads a run's tree. Raises LeaseLost: it must not live."""
        change = partial(claims.lead, run_id=claim.run_id, task_id=claim.task.id, process=process)
        if not await self._writer.write(change):
            raise LeaseLost(claim.run_id)

    async def finish(self, claim: Claim, outcome: Outcome, *, tree_gone: bool = True) -> None:
        """End a run. Raises LeaseLost, after LATE_RESULT was recorded.

        Unless its tree is gone the task cannot be claimed until `gone` says so.
        """
        if not await self._writer.write(self._finish(claim, outcome, tree_gone=tree_gone)):
            raise LeaseLost(claim.run_id)

    async def time_out(self, task_id: str, run_id: str) -> bool:
        """Take a task from a run whose time is over; its tree is ended next.

        False: the run holds it no longer, or is being ended already.
        """
        change = partial(
            endings.time_out, run_id=run_id, task_id=task_id, jitter=self._random.random()
        )
        return await self._writer.write(change)

    async def gone(self, run_id: str) -> None:
        """Say that the tree of a run which lost its task is gone."""
        await self._writer.write(partial(endings.gone, run_id=run_id))

    async def finish_and_claim(
        self,
        claim: Claim,
        outcome: Outcome,
        host: ProcessId,
        preparing: frozenset[str] = frozenset(),
        *,
        tree_gone: bool = True,
    ) -> Claim | None:
        """End a run and claim the next task of the same agent, in one transaction.

        A lost lease is recorded and not raised: the worker goes on with its next claim.
        """
        finish = self._finish(claim, outcome, tree_gone=tree_gone)
        take = self._claim(claim.task.agent, claim.worker_id, host, preparing)

        def both(tx: Transaction) -> Claim | None:
            finish(tx)
            return take(tx)

        return await self._writer.write(both)

    def _finish(
        self, claim: Claim, outcome: Outcome, *, tree_gone: bool = True
    ) -> Callable[[Transaction], bool]:
        return partial(
            endings.finish,
            run_id=claim.run_id,
            task_id=claim.task.id,
            outcome=outcome,
            jitter=self._random.random(),
            tree_gone=tree_gone,
        )

    async def release(self, task_id: str, run_id: str, by: str) -> None:
        """Put a task back to READY; its run's tree must be gone. Raises LeaseLost."""
        change = partial(endings.release, run_id=run_id, task_id=task_id, by=by)
        if not await self._writer.write(change):
            raise LeaseLost(run_id)

    async def expire(self, task_id: str, run_id: str) -> bool:
        """Take a task from a silent run; its tree must be gone. False: it held it no longer."""
        return await self._writer.write(partial(endings.expire, run_id=run_id, task_id=task_id))

    async def condemn(self, task_id: str, run_id: str) -> bool:
        """Mark a run as one whose tree is being ended by others; False: it holds nothing now."""
        return await self._writer.write(partial(claims.condemn, run_id=run_id, task_id=task_id))

    async def renew(self, run_ids: Iterable[str]) -> datetime:
        """Renew the leases of runs that still hold their task; return until when."""
        change = partial(claims.renew, run_ids=list(run_ids), lease=self._lease)
        return await self._writer.write(change)

    async def end_backoff(self) -> None:
        """Make the tasks claimable whose backoff is over."""
        await self._writer.write(claims.end_backoff)

    async def mend(self) -> list[str]:
        """Derive anew what can be derived; say what was done."""
        from engine.store.mending import mend  # noqa: PLC0415 - seldom needed

        return await self._writer.write(mend)

    async def undisturbed(self, act: Callable[[Sequence[KnownWorker]], T]) -> T:
        """Call `act` with the workers that should live, while none can enter or leave."""
        from engine.store.mending import undisturbed  # noqa: PLC0415 - seldom needed

        return await self._writer.write(partial(undisturbed, act=act))

    async def forget(self, upto: int, at_most: int) -> int:
        """Remove events up to a seq, some at a time, for gc; return how many went."""
        from engine.store.forgetting import forget  # noqa: PLC0415 - seldom needed

        return await self._writer.write(partial(forget, upto=upto, at_most=at_most))

    async def order(
        self, order: Callable[[Transaction], Orders], *, dry_run: bool = False
    ) -> Orders:
        """Carry out one of `store.orders` on tasks; what was refused is in the answer."""
        return await self._writer.write(order, dry_run=dry_run)

    async def register(
        self,
        agent: str,
        worker_id: str | None,
        host: ProcessId,
        is_alive: Callable[[ProcessId], bool],
        *,
        own_process: bool = False,
    ) -> str:
        """Enter a worker; return its id. Raises LeaseConflict, ValidationError.

        `own_process`: `host` is there for this worker alone.
        """
        return await self._writer.write(
            partial(
                roster.register,
                agent=agent,
                worker_id=worker_id,
                host=host,
                own_process=own_process,
                is_alive=is_alive,
            )
        )

    async def would_register(
        self, agent: str, count: int, host: ProcessId, is_alive: Callable[[ProcessId], bool]
    ) -> list[str]:
        """Return the ids that `count` workers of `host` would get. Raises as register does."""

        def enter(tx: Transaction) -> list[str]:
            return [
                roster.register(
                    tx, agent=agent, worker_id=None, host=host, own_process=False, is_alive=is_alive
                )
                for _ in range(count)
            ]

        return await self._writer.write(enter, dry_run=True)

    async def beat(self, worker_ids: Iterable[str], note: str = "") -> None:
        """Note a sign of life of workers."""
        await self._writer.write(partial(roster.beat, worker_ids=list(worker_ids), note=note))

    async def set_status(self, worker_id: str, host: ProcessId, status: WorkerStatus) -> bool:
        """Move a worker of `host` to another status; False: it was over, or another's."""
        return await self._writer.write(
            partial(roster.set_status, worker_id=worker_id, host=host, status=status)
        )

    async def set_budget(self, budget: Budget) -> None:
        """Let a budget count from now on, for every process; lift what a smaller one had held."""
        await self._writer.write(partial(spending.set_budget, budget=budget))

    async def hold(self, agent: str, *, dry_run: bool = False) -> bool:
        """Hold claims; False: they were held already."""
        return await self._writer.write(partial(roster.hold, agent=agent), dry_run=dry_run)

    async def resume(
        self, agent: str, *, budget: Budget | None = None, dry_run: bool = False
    ) -> bool:
        """Resume claims; False: they were not held. `budget` is set first, if one is given.

        Raises CommandNotAllowed where that budget would hold them again at once.
        """
        change = partial(spending.resume, agent=agent, budget=budget)
        return await self._writer.write(change, dry_run=dry_run)
