"""The one door for commands: what an operator asks is done here and answered by a receipt."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from engine.commands import (
    NEEDS_YOU,
    Acknowledge,
    AddWorkers,
    BeatAgents,
    Cancel,
    Command,
    Hold,
    Kill,
    KillWorkers,
    Purge,
    Receipt,
    Refusal,
    RegisterAgent,
    Release,
    Reset,
    RestartServices,
    Resume,
    Retry,
    Seed,
    StartServices,
    Step,
    Stop,
    StopServices,
    UnregisterAgents,
)
from engine.dag import load_dag
from engine.errors import Code
from engine.files import check_name
from engine.model import ALL_AGENTS
from engine.narrate import describe_changes
from engine.orders.on_tasks import TaskOrders
from engine.orders.on_workers import WorkerOrders
from engine.orders.reset import FindUnfit, Resetter, add_workers
from engine.presence import Presence

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from engine.clock import Clock
    from engine.commands import OnStep
    from engine.config import Config
    from engine.feed import Feed
    from engine.files import Layout
    from engine.host import Host
    from engine.model import Budget, Dag
    from engine.orders.on_agents import AgentOrders
    from engine.orders.on_services import ServiceOrders
    from engine.reaper import Reaper
    from engine.services.keeper import Keeper
    from engine.store.lookout import Lookout
    from engine.store.queries import Queries
    from engine.store.seeding import SeedReport
    from engine.store.store import Store

NO_ALERT = "there is no such alert; `agentmux alerts` lists them"
DEFAULT_DAG = Path("agentmux/dag.yaml")


class Control:
    """Hands each command to who carries it out."""

    def __init__(
        self,
        *,
        store: Store,
        queries: Queries,
        lookout: Lookout,
        feed: Feed,
        host: Host,
        reaper: Reaper,
        layout: Layout,
        project: Path,
        config: Config,
        clock: Clock,
        start: Callable[..., Awaitable[str]],
        would_start: Callable[[str, int], Awaitable[list[str]]],
        find_unfit: FindUnfit,
        read_budget: Callable[[], Awaitable[Budget]],
        keeper: Callable[[], Keeper],
        keeps_services: bool,
    ) -> None:
        self._store = store
        self._queries = queries
        self._lookout = lookout
        self._feed = feed
        self._layout = layout
        self._project = project
        self._config = config
        self._find_unfit = find_unfit
        self._read_budget = read_budget
        self._keeper = keeper
        self._keeps_services = keeps_services
        self._tasks = TaskOrders(
            store=store,
            queries=queries,
            lookout=lookout,
            feed=feed,
            reaper=reaper,
            layout=layout,
            config=config,
        )
        self._workers = WorkerOrders(
            store=store,
            lookout=lookout,
            feed=feed,
            presence=Presence(layout, clock),
            tasks=self._tasks,
            config=config,
            start=start,
            would_start=would_start,
        )
        self._resetter = Resetter(
            store=store,
            feed=feed,
            workers=self._workers,
            host=host,
            reaper=reaper,
            layout=layout,
            clock=clock,
            start=start,
            find_unfit=find_unfit,
        )

    @property
    def _services(self) -> ServiceOrders:
        from engine.orders.on_services import ServiceOrders  # noqa: PLC0415 - most ask for none

        return ServiceOrders(
            services=self._config.services,
            keeper=self._keeper(),
            store=self._store,
            queries=self._queries,
            feed=self._feed,
            may_keep=self._keeps_services,
        )

    @property
    def _agents(self) -> AgentOrders:
        from engine.orders.on_agents import AgentOrders  # noqa: PLC0415 - likewise

        return AgentOrders(
            store=self._store, lookout=self._lookout, layout=self._layout, config=self._config
        )

    async def execute(
        self, command: Command, *, dry_run: bool, on_step: OnStep, hurry: asyncio.Event
    ) -> Receipt:
        """Carry out a command; see Engine.execute."""
        work: Awaitable[Receipt]
        match command:
            case Seed():
                work = self._seed(command, dry_run=dry_run, on_step=on_step)
            case Reset():
                work = self._reset(command, dry_run=dry_run, on_step=on_step, hurry=hurry)
            case Hold() | Resume():
                work = self._hold(command, dry_run=dry_run)
            case Acknowledge():
                work = self._acknowledge(command, dry_run=dry_run)
            case StartServices() | StopServices() | RestartServices():
                work = self._services.carry_out(command, dry_run=dry_run)
            case RegisterAgent() | BeatAgents() | UnregisterAgents():
                work = self._agents.carry_out(command, dry_run=dry_run)
            case AddWorkers():
                work = self._workers.add(command, dry_run=dry_run)
            case Stop() | KillWorkers():
                work = self._workers.carry_out(command, dry_run=dry_run)
            case Release() | Cancel() | Kill() | Retry() | Purge():
                work = self._tasks.carry_out(command, dry_run=dry_run)
        return await work

    async def _reset(
        self, command: Reset, *, dry_run: bool, on_step: OnStep, hurry: asyncio.Event
    ) -> Receipt:
        dag = await self._load(command.path)
        report, fate, ends = await self._resetter.carry_out(
            command, dag, dry_run=dry_run, on_step=on_step, hurry=hurry
        )
        return add_workers(_seeded(report, dry_run=dry_run), fate, ends)

    async def _hold(self, command: Hold | Resume, *, dry_run: bool) -> Receipt:
        agent = command.agent
        if isinstance(command, Resume):
            # The budget counts as the settings name it now: whoever raised it need not start anew.
            budget = await self._read_budget()
            resumed = await self._store.resume(agent, budget=budget, dry_run=dry_run)
            return Receipt(dry_run, {agent: "resumed" if resumed else "was not held"})
        if agent != ALL_AGENTS:
            check_name(agent, "agent")
        held = await self._store.hold(agent, dry_run=dry_run)
        return Receipt(dry_run, {agent: "held" if held else "was held already"})

    async def _acknowledge(self, command: Acknowledge, *, dry_run: bool) -> Receipt:
        found = await self._store.acknowledge(command.alerts, dry_run=dry_run)
        refused = []
        for number in sorted(set(command.alerts or ()) - set(found)):
            known = await self._queries.alert(number)
            why = "was acknowledged already" if known is not None else NO_ALERT
            refused.append(Refusal(str(number), Code.VALIDATION_ERROR, f"alert {number}: {why}"))
        done = dict.fromkeys((f"alert {number}" for number in found), "acknowledged")
        return Receipt(dry_run, done, tuple(refused), {"acknowledged": len(found)})

    async def _seed(self, command: Seed, *, dry_run: bool, on_step: OnStep) -> Receipt:
        dag = command.dag if command.dag is not None else await self._load(command.path)
        unfit = await self._find_unfit(dag.tasks)
        report = await self._store.seed(
            dag,
            dry_run=dry_run,
            progress=lambda through: on_step(Step("seeding", through)),
            unfit=unfit,
        )
        return _seeded(report, dry_run=dry_run)

    async def _load(self, path: Path | None) -> Dag:
        if path is None:
            known = (await self._queries.progress()).dag
            path = Path(known) if known else self._project / DEFAULT_DAG
        return await asyncio.to_thread(load_dag, path.absolute())


def _seeded(report: SeedReport, *, dry_run: bool) -> Receipt:
    done = dict.fromkeys(report.retried, "ready again")
    done |= dict.fromkeys(report.created, "created")
    for task_id, fields in report.changed.items():
        done[task_id] = f"updated: {'; '.join(describe_changes(fields))}"
    done |= dict.fromkeys(report.blocked, "blocked: no longer in the DAG")
    done |= dict.fromkeys(report.unblocked, "unblocked: back in the DAG")
    done |= {task_id: f"{NEEDS_YOU}{why}" for task_id, why in report.unfit.items()}
    counts = {
        "created": len(report.created),
        "updated": len(report.updated),
        "unchanged": report.unchanged,
        "blocked": len(report.blocked),
        "unblocked": len(report.unblocked),
    }
    if report.unfit:
        counts["need you"] = len(report.unfit)
    if report.retried:
        counts["ready again"] = len(report.retried)
    return Receipt(dry_run, done, (), counts)
