"""The engine: one object that opens everything in the right order and closes it in the reverse.

    async with Engine(Path("state")) as engine:
        await engine.execute(Seed(Path("agentmux/dag.yaml")))
        await engine.start_workers()
        await engine.settled()

Screens and commands ask through `queries`, `changes()` and `execute(command)`; nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from engine.clock import Clock, SystemClock
from engine.commands import Cancel
from engine.config import Config, load_config, settings_file
from engine.errors import CommandNotAllowed, StorageError, ValidationError
from engine.feed import Feed
from engine.files import Layout, read_regular
from engine.host import Host
from engine.log.journal import Journal
from engine.meter import Meter
from engine.model import Budget, ServiceState
from engine.orders.control import Control
from engine.ownlog import OwnLog
from engine.preflight import Preflight
from engine.processes.census import own_run
from engine.processes.signalling import seems_alive
from engine.reaper import Reaper
from engine.retention import Retention
from engine.shield import shielded
from engine.staffing import Staffing
from engine.store.lookout import Lookout
from engine.store.queries import Queries
from engine.store.reader import Reader
from engine.store.store import Store
from engine.text import clean_text
from engine.watch import Watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from engine.care.attention import Attention
    from engine.care.health import HealthWatch
    from engine.commands import Command, OnStep, Receipt
    from engine.issues import IssueFeed
    from engine.model import Needed
    from engine.services.keeper import Keeper
    from engine.store.writer import Committed
    from engine.views import AttentionRow, Health, ProcessRow, Usage

log = logging.getLogger(__name__)

T = TypeVar("T")

_SETTLED_PAUSE = 0.02


def _budget(config: Config) -> Budget:
    agents = {name: a.budget for name, a in config.agents.items() if a.budget is not None}
    return Budget(config.budget, agents)


class Engine:
    """The engine of one process over one state folder.

    `project` is where relative paths start and agentmux.yaml is looked for (default: the current
    folder; the settings may also lie beside the state folder). `read_only` opens nothing that
    writes: no store is made, no commands are taken. `keeps_services`: a command to start services
    is carried out here if no other process keeps them.

    Opening a store mends what it must: `on_step` is told how far that is, on another thread, and
    `notices` says afterwards what was done. `deep` looks at every page of the database first.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        project: Path | None = None,
        clock: Clock | None = None,
        read_only: bool = False,
        keeps_services: bool = False,
        on_step: OnStep | None = None,
        deep: bool = False,
    ) -> None:
        self.layout = Layout(state_dir.absolute())
        self.project = (project or Path.cwd()).absolute()
        self.clock: Clock = clock or SystemClock()
        self.read_only = read_only
        self.config = self._load_config()
        self._reader = Reader(self.layout.database)
        self.queries = Queries(self._reader, self.clock, seems_alive)
        self._lookout = Lookout(self._reader, self.clock)
        self.feed = Feed(self._reader, self.layout.database)
        self._journal = Journal(self.layout, self.clock)
        self._store = Store(
            self.layout,
            self.clock,
            lease=self.config.lease,
            on_commit=self._committed,
            is_alive=seems_alive,
            on_step=on_step,
            deep=deep,
        )
        self._cleaned: list[str] = []
        self._preflight = Preflight(
            store=self._store,
            lookout=self._lookout,
            layout=self.layout,
            project=self.project,
            config=self.config,
        )
        self._issues: IssueFeed | None = None
        self._host = Host(
            store=self._store,
            lookout=self._lookout,
            feed=self.feed,
            executors=self._preflight.executors,
            layout=self.layout,
            project=self.project,
            config=self.config,
            clock=self.clock,
        )
        self._reaper = Reaper(
            store=self._store,
            lookout=self._lookout,
            layout=self.layout,
            project=self.project,
            config=self.config,
            clock=self.clock,
            me=self._host.identity,
        )
        self._retention = Retention(
            lookout=self._lookout,
            layout=self.layout,
            project=self.project,
            config=self.config,
            clock=self.clock,
        )
        self._watch = Watch(
            store=self._store,
            lookout=self._lookout,
            feed=self.feed,
            layout=self.layout,
            project=self.project,
            config=self.config,
            clock=self.clock,
        )
        self._keeper: Keeper | None = None
        self._own_log = OwnLog(self.layout.own_log, self.clock)
        self._control = Control(
            store=self._store,
            queries=self.queries,
            lookout=self._lookout,
            feed=self.feed,
            host=self._host,
            reaper=self._reaper,
            layout=self.layout,
            project=self.project,
            config=self.config,
            clock=self.clock,
            start=self.start_worker,
            would_start=self._would_start_workers,
            find_unfit=self._preflight.find_unfit,
            read_budget=self._read_budget,
            keeper=lambda: self.keeper,
            keeps_services=keeps_services,
        )
        self._meter = Meter(self.layout, self._lookout, self.clock)
        self._attention: Attention | None = None
        self._health: HealthWatch | None = None
        self._reaping = False
        self._staffing = Staffing(
            agents=self._lookout.agents,
            start=self.start_worker,
            changes=self.changes,
            services_ready=self._services_ready,
        )
        self._stack = AsyncExitStack()

    @property
    def keeper(self) -> Keeper:
        """Who keeps the services, if this process does."""
        if self._keeper is None:
            from engine.services.keeper import Keeper  # noqa: PLC0415 - few processes keep any

            self._keeper = Keeper(
                services=self.config.services,
                targets=self.config.alerts.targets,
                me=self._host.identity,
                store=self._store,
                lookout=self._lookout,
                feed=self.feed,
                layout=self.layout,
                project=self.project,
                clock=self.clock,
                watch=self._begin_watching,
            )
        return self._keeper

    async def _close_keeper(self) -> None:
        if self._keeper is not None:
            await self._keeper.close()

    async def _read_budget(self) -> Budget:
        """Return the budget that the settings name by now. Raises as load_config does."""
        return _budget(await asyncio.to_thread(self._load_config))

    def _load_config(self) -> Config:
        try:
            return load_config(settings_file(self.project, self.layout.state))
        except ValidationError as error:
            if not self.read_only:
                raise
            # Who only looks must see the fleet all the more when its settings are broken.
            log.warning("the defaults are used: %s", error)
            return Config()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            if not self.read_only:
                self.layout.create()
                self._own_log.open()
                stack.callback(self._own_log.close)
                await self._store.open()
                stack.push_async_callback(self._store.close)
            await stack.enter_async_context(self._reader)
            if not self.read_only:
                await self._journal.open()
                stack.push_async_callback(self._journal.close)
            await self.feed.open()
            stack.push_async_callback(self.feed.close)
            stack.push_async_callback(self._close_keeper)
            stack.push_async_callback(self._watch.close)
            stack.push_async_callback(self._retention.close)
            stack.push_async_callback(self._reaper.close)
            stack.push_async_callback(self._host.close)
            stack.push_async_callback(self._staffing.close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A second cancellation must not cut short the release of what this process holds.
        await shielded(self._stack.aclose(), reraise=error is None)

    @property
    def notices(self) -> list[str]:
        """Sentences on what was found damaged or left behind, and what was done about it."""
        return [*self._store.notices, *self._journal.notices, *self._cleaned]

    async def attach(self, context: AbstractAsyncContextManager[T]) -> T:
        """Enter a context that is over before anything of the open engine is closed."""
        return await self._stack.enter_async_context(context)

    async def repair(self) -> list[str]:
        """Mend what can be mended safely; say what was done. See engine.care.repair.

        Raises:
            StorageError: the store refuses; what was done until then is done.

        """
        from engine.care.repair import Repair  # noqa: PLC0415 - what only reads must not pay for it

        repair = Repair(
            layout=self.layout,
            store=self._store,
            reaper=self._reaper,
            config=self.config,
            clock=self.clock,
        )
        return await repair.run()

    async def forget(self, upto: int, at_most: int) -> int:
        """Remove events that no rebuild needs; for engine.care.gc, which knows them."""
        return await self._store.forget(upto, at_most)

    def changes(self) -> AsyncIterator[None]:
        """Yield at once, and then after every commit by any process, coalesced."""
        return self.feed.changes()

    async def start_worker(
        self,
        agent: str,
        worker_id: str | None = None,
        *,
        until_idle: bool = False,
        own_process: bool = False,
    ) -> str:
        """Start a worker in this process; return its id. Raises as Host.start does.

        `own_process`: this process is there for this worker alone, and is ended with it if need be.
        """
        self._refuse_workers()
        await self._preflight.find_executors()
        if not self._reaping:
            from engine.care.repair import tidy  # noqa: PLC0415 - likewise

            self._reaping = True
            self._cleaned += await tidy(self.layout, self._store, self.clock)
            await self._store.set_budget(_budget(self.config))
            await self._reaper.open()
            self._retention.open()
            await self._begin_watching()
            self._open_issues()
        await self._preflight.block_unfit(agent)
        worker = await self._host.start(
            agent, worker_id, until_idle=until_idle, own_process=own_process
        )
        return worker.id

    async def _begin_watching(self) -> None:
        await self._store.begin_watching()
        self._watch.open()

    def _open_issues(self) -> None:
        """Ask GitHub for issues, if the settings say so and nobody does yet."""
        if self.config.github is None or self._issues is not None:
            return
        from engine.issues import IssueFeed  # noqa: PLC0415 - most fleets have no such feed

        self._issues = IssueFeed(
            config=self.config.github,
            store=self._store,
            lookout=self._lookout,
            layout=self.layout,
            cancel=lambda task_id: self.execute(Cancel((task_id,))),
            find_unfit=self._preflight.find_unfit,
        )
        self._issues.open()
        self._stack.push_async_callback(self._issues.close)

    async def _would_start_workers(self, agent: str, count: int) -> list[str]:
        """Return the ids that `count` more workers would get. Raises as start_worker does."""
        self._refuse_workers()
        return await self._host.would_start(agent, count)

    def _refuse_workers(self) -> None:
        """Raise if this process may have no workers."""
        if self.read_only:
            raise StorageError("the store was opened for reading only")
        run_id = own_run(self.layout.state)
        if run_id is not None:
            raise CommandNotAllowed(
                f"this terminal is part of run {run_id} of the same fleet: a worker here would end "
                "with it; start it elsewhere, or name another --state-dir"
            )

    async def start_workers(self, per_agent: int = 1, *, after_services: bool = False) -> None:
        """Start `per_agent` workers in this process for each agent of the store's tasks.

        Agents that come later, with a reseed, get theirs too, until the workers are stopped. With
        `after_services` none starts before all services are ready; this does not wait for them.
        """
        await self._staffing.open(per_agent, after_services=after_services)

    async def _services_ready(self) -> bool:
        states = self.keeper.states()
        if not self.keeper.is_open:
            states = {row.name: row.state for row in await self.queries.services() if row.keeper}
        ready = {name for name, state in states.items() if state is ServiceState.READY}
        return ready >= self.config.services.keys()

    @property
    def workers_wait(self) -> bool:
        """Whether workers are to start here once all services are ready."""
        return self._staffing.waits

    async def wait_workers(self) -> None:
        """Wait until all workers of this process have ended."""
        await self._host.wait()

    async def stop_workers(self, *, drain: bool = False) -> None:
        """Stop the workers of this process and wait: tasks released, or finished with `drain`."""
        await self._staffing.close()
        await self._host.stop(drain=drain)

    async def attention(self) -> list[AttentionRow]:
        """Return what only a person can settle, oldest first. See engine.care.attention.

        A look that finds something wrong takes half a second, the others milliseconds.
        """
        from engine.care.attention import Attention  # noqa: PLC0415 - short commands start without

        if self._attention is None:
            read = self.queries
            self._attention = Attention(
                self.layout, self.clock, self._health_watch(), read.last_seq, read.alerts
            )
        return await self._attention.rows()

    async def health(self) -> Health:
        """Return how the fleet is, and why. See engine.care.health.HealthWatch.

        As cheap as `attention`, however often it is asked. Raises StorageError.
        """
        return await self._health_watch().health()

    def _health_watch(self) -> HealthWatch:
        from engine.care.health import HealthWatch  # noqa: PLC0415 - short commands start without

        if self._health is None:
            self._health = HealthWatch(
                self.layout, self.project, self.config, self.clock, self.queries.last_seq
            )
        return self._health

    async def alert_text(self, number: int) -> str:
        """Return what an alert tells that does not fit into a line; clean, empty if nothing.

        Raises:
            StorageError: the store cannot be read, or the file that tells it.

        """
        alert = await self.queries.alert(number)
        if alert is None or alert.body is None:
            return ""
        path = self.layout.alert_file(alert.body)
        try:
            text = await asyncio.to_thread(read_regular, path)
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from error
        return clean_text(text, newlines=True).strip("\n")

    async def usage(self) -> Mapping[str, Usage]:
        """Return what the process tree of each run of any host takes, by run id. See Meter."""
        return await self._meter.usage()

    async def processes_of(self, run_id: str) -> list[ProcessRow]:
        """Return the process tree of a run, parents before their children. See Meter."""
        return await self._meter.processes_of(run_id)

    async def needed_runs(self, runs: Iterable[str]) -> Needed:
        """Return all runs of any host that are at work, and those of `runs` that wait."""
        return await self._lookout.needed(runs)

    def active_runs(self) -> int:
        """Count the runs of this process."""
        return self._host.active_runs()

    def own_workers(self) -> tuple[str, ...]:
        """Return the ids of the workers of this process."""
        return tuple(worker.id for worker in self._host.workers.values())

    def own_services(self) -> tuple[str, ...]:
        """Return the services that this process keeps and that have not ended."""
        return () if self._keeper is None else self._keeper.alive

    async def stop_services(self) -> None:
        """End the services that this process keeps, as closing does, and keep none any more."""
        await self._close_keeper()

    async def settled(self) -> None:
        """Wait until nothing more can run: nothing is active, claimable or waits for such."""
        async for _ in self.changes():
            if await self._lookout.unfinished() == 0:
                return
            # Under load there are hundreds of commits a second; a few looks will do.
            await asyncio.sleep(_SETTLED_PAUSE)

    async def execute(
        self,
        command: Command,
        *,
        dry_run: bool = False,
        on_step: OnStep = lambda _step: None,
        hurry: asyncio.Event | None = None,
    ) -> Receipt:
        """Carry out a command, or with `dry_run` only say what it would do.

        `on_step` is told how far a Seed or a Reset is, sometimes on another thread. A Reset that
        waits for workers kills those that are left as soon as `hurry` is set.

        Raises:
            AgentmuxError: nothing of the command was done. What was refused in part is in the
                receipt.

        """
        if self.read_only:
            raise StorageError("this engine only watches; it takes no commands")
        return await self._control.execute(
            command, dry_run=dry_run, on_step=on_step, hurry=hurry or asyncio.Event()
        )

    def _committed(self, committed: Committed) -> None:
        self._journal.poke()
        self._host.end_taken(committed.taken)
        self._host.wake(committed.ready)
        self.feed.publish()
