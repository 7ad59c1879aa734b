"""A fleet under fire: hosts that die at random moments while orders of all kinds come in."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil
from msgspec.structs import replace
from support.engines import suspend, until
from support.reckoning import SHAPES, acting, guards_of, has_no_zombie
from support.stores import a_task, select

from engine.commands import (
    Cancel,
    Hold,
    Kill,
    KillWorkers,
    Release,
    Reset,
    Resume,
    Retry,
    Seed,
    Stop,
)
from engine.errors import AgentmuxError, Code
from engine.model import FINISHED, Reason, State
from engine.processes.signalling import send

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from support.engines import Project
    from support.nursery import Host, Nursery

    from engine.commands import Command
    from engine.core import Engine
    from engine.model import TaskDef

AGENTS = ("claude", "codex", "gemini")
HOSTS = 5
"""Worker processes that are alive at once, besides the test's own engine."""

_RAGE = 4.0
"""Seconds for each kill after which a storm has failed; it takes about half of one."""
_CALM = 60.0
"""Seconds after which what must come to an end has not."""

_FAIR = frozenset({Code.ILLEGAL_TRANSITION, Code.TASK_NOT_FOUND, Code.WORKER_NOT_FOUND})
"""What an order may be answered in a storm: the other was faster. Not: that processes live."""


def a_storms_dag(dice: random.Random, size: int) -> list[TaskDef]:
    """Make tasks of all kinds: short sleeps, programs with children, some that fail at first."""
    tasks = []
    for n in range(size):
        task_id = f"t{n:04}"
        near = range(max(0, n - 40), n)
        deps = [
            f"t{dep:04}" for dep in dice.sample(near, min(len(near), dice.choice((0, 0, 1, 2))))
        ]
        failures = int(dice.random() < 0.1)
        more: dict[str, Any] = {
            "agent": dice.choice(AGENTS),
            "retries": failures + dice.randrange(2),
            "priority": dice.randrange(3),
        }
        if dice.random() < 0.5:
            seconds = round(dice.uniform(0, 0.05), 3)
            payload = {"kind": "noop", "seconds": seconds, "fail_attempts": failures}
            tasks.append(a_task(task_id, *deps, payload=payload, **more))
            continue
        tasks.append(
            acting(
                task_id,
                *deps,
                seconds=round(dice.uniform(0, 0.4), 3),
                shape=dice.choices(SHAPES, (6, 2, 2, 1))[0],
                failures=failures,
                through_sh=dice.random() < 0.3,
                **more,
            )
        )
    return tasks


@dataclass
class Tally:
    """What the storm did, in numbers. `errors` are answers that no order may get."""

    kills: int = 0
    in_flight: int = 0
    guards: int = 0
    terms: int = 0
    suspensions: int = 0
    orders: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        orders = ", ".join(f"{n} {name}" for name, n in sorted(self.orders.items()))
        return (
            f"{self.kills} SIGKILLs ({self.in_flight} over a run in flight, {self.guards} with"
            f" the guard), {self.terms} SIGTERMs, {self.suspensions} SIGSTOPs; orders: {orders}"
        )


class Storm:
    """Hosts come and die while the fleet works through `tasks`; then all of it is finished.

    The same seed throws the same dice; what they strike depends on the machine.
    """

    def __init__(
        self, project: Project, nursery: Nursery, tasks: Sequence[TaskDef], dice: random.Random
    ) -> None:
        self.tally = Tally()
        self._nursery = nursery
        self._project = project
        self._tasks = list(tasks)
        self._dice = dice
        self._hosts: list[Host] = []
        self._started = 0
        self._orders: set[asyncio.Task[None]] = set()
        self._reset: asyncio.Task[None] | None = None
        self._leaves = {task.id for task in tasks} - {dep for task in tasks for dep in task.deps}

    async def rage(self, engine: Engine, *, kills: int, resets: int = 2) -> None:
        """Kill so many hosts, and do all else in between."""
        begun = self.tally.kills
        due = [begun + kills * (n + 1) // (resets + 1) for n in range(resets)]
        deadline = time.monotonic() + _RAGE * kills
        while self.tally.kills < begun + kills:
            assert time.monotonic() < deadline, f"there is nobody to kill: {self.tally}"
            self._muster()
            # Not to wait for something: the moment is to be a random one.
            await asyncio.sleep(self._dice.uniform(0.0, 0.3))
            await self._hear(wait=False)
            if due and self.tally.kills >= due[0] and (self._reset is None or self._reset.done()):
                due.pop(0)
                self._reset = self._order(engine, Reset(force=True, timeout=3.0))
            strikes = (self._kill, self._term, self._suspend, self._interfere)
            await self._dice.choices(strikes, (12, 1, 2, 6))[0](engine)

    async def calm(self, engine: Engine) -> None:
        """Mend what was ordered, work until every task is DONE, and end all hosts."""
        await self._hear(wait=True)
        await engine.execute(Seed(self._project.dag(*self._tasks)))
        deadline = time.monotonic() + _CALM
        while True:
            await engine.execute(Resume())
            async with asyncio.timeout(_CALM):
                await engine.settled()
            undone = [task for task in await engine.queries.tasks() if task.state != State.DONE]
            if not undone:
                break
            stuck = [t.id for t in undone if t.state in FINISHED or Reason.HUMAN in t.reasons]
            assert time.monotonic() < deadline, undone
            await engine.execute(Retry(tuple(stuck)))
        await self._retire(engine)

    async def _hear(self, *, wait: bool) -> None:
        """See what became of orders."""
        if wait and self._orders:
            _, late = await asyncio.wait(self._orders, timeout=_CALM)
            assert not late, "an order has no answer"
        for order in [order for order in self._orders if order.done()]:
            self._orders.discard(order)
            order.result()

    async def _retire(self, engine: Engine) -> None:
        """End all hosts gracefully; before it no zombie of theirs stays."""
        for host in self._hosts:
            if host.lives and not host.doomed:
                await until(partial(has_no_zombie, host.pid), f"children of {host.pid} are reaped")
                entered = host.identity in {one.host for one in await engine._lookout.workers()}
                host.send_signal(signal.SIGTERM)
                code = await self._nursery.ended(host)
                # Before it knew what to do with a signal it may have died of this one.
                assert code == 0 or not entered, (code, self._project.said(host.worker_id))
        for host in self._hosts:
            await self._nursery.ended(host)
        self._hosts.clear()

    def _muster(self) -> None:
        """Start hosts until there are enough, often under a name that another one had."""
        for _ in range(HOSTS - sum(host.lives and not host.doomed for host in self._hosts)):
            self._started += 1
            agent = AGENTS[self._started % len(AGENTS)]
            number = self._started if self._dice.random() < 0.5 else self._started % 9
            self._hosts.append(self._nursery.start(agent, f"{agent}-w{number}"))

    async def _kill(self, engine: Engine) -> None:
        """SIGKILL a host, mostly one with a run in flight, and now and then its guard with it."""
        lives = [host for host in self._hosts if host.lives]
        holding = {run.host for run in await engine._lookout.active()}
        busy = [host for host in lives if host.identity in holding]
        if self._dice.random() < 0.9:
            lives = busy
        if not lives:
            return
        host = self._dice.choice(lives)
        guards = guards_of(self._project.layout, host.pid) if self._dice.random() < 0.3 else []
        host.doomed = True
        host.send_signal(signal.SIGKILL)
        for guard in guards:
            send(guard, signal.SIGKILL)
        await self._nursery.ended(host)
        self.tally.kills += 1
        self.tally.in_flight += host in busy
        self.tally.guards += bool(guards)

    async def _term(self, engine: Engine) -> None:
        if (host := await self._some_worker(engine)) is not None:
            host.doomed = True
            host.send_signal(signal.SIGTERM)
            self.tally.terms += 1

    async def _suspend(self, engine: Engine) -> None:
        """SIGSTOP a host for a while, often past its lease."""
        host = await self._some_worker(engine)
        if host is None or sum(one.suspended for one in self._hosts if one.lives) >= 2:
            return
        seconds = self._dice.uniform(0.2, 3.5)

        async def nap() -> None:
            # It may be killed in its sleep, or before it sleeps.
            with suppress(psutil.NoSuchProcess):
                await suspend(host, self._project.layout)  # type: ignore[arg-type] # it has a pid
                self.tally.suspensions += 1
                await asyncio.sleep(seconds)
            host.send_signal(signal.SIGCONT)
            host.suspended = False

        host.suspended = True
        self._orders.add(asyncio.create_task(nap(), name=f"nap of {host.worker_id}"))

    async def _some_worker(self, engine: Engine) -> Host | None:
        """Return a host that has entered its worker, and to which nothing is being done."""
        known = {one.host for one in await engine._lookout.workers()}
        hosts = [
            host
            for host in self._hosts
            if host.lives and not host.suspended and not host.doomed and host.identity in known
        ]
        return self._dice.choice(hosts) if hosts else None

    async def _interfere(self, engine: Engine) -> None:
        """Give a random order."""
        dice, active = self._dice, [run.task_id for run in await engine._lookout.active()]
        any_task = dice.choice(self._tasks).id
        tasks = (any_task, *dice.sample(active, min(2, len(active))))
        makers: list[tuple[int, Callable[[], Command]]] = [
            (3, lambda: Cancel(tasks)),
            (3, lambda: Kill(tasks, force=dice.random() < 0.3)),
            (3, lambda: Release(tasks)),
            (6, lambda: Retry(self._finished(5), downstream=dice.random() < 0.2)),
            (2, lambda: Hold(dice.choice((*AGENTS, "*")))),
            (2, lambda: Seed(self._project.dag(*self._varied()))),
        ]
        host = await self._some_worker(engine)
        if host is not None:
            names = (host.worker_id,)
            makers.append((1, lambda: Stop(names, drain=dice.random() < 0.3)))
            makers.append((1, lambda: KillWorkers(names, force=dice.random() < 0.3)))
        make = dice.choices([make for _, make in makers], [weight for weight, _ in makers])[0]
        command = make()
        if host is not None and isinstance(command, Stop | KillWorkers):
            host.doomed = True
        self._order(engine, command)

    def _order(self, engine: Engine, command: Command) -> asyncio.Task[None]:
        name = type(command).__name__

        async def give() -> None:
            self.tally.orders[name] += 1
            try:
                receipt = await engine.execute(command)
                if isinstance(command, Hold):
                    await asyncio.sleep(0.5)
                    await engine.execute(Resume(command.agent))
            except AgentmuxError as error:
                self.tally.errors.append(f"{name}: {error.code}: {error}")
                return
            self.tally.errors += (
                f"{name}: {refusal.code}: {refusal.message}"
                for refusal in receipt.refused
                if refusal.code not in _FAIR
            )

        order = asyncio.create_task(give(), name=f"order {command}")
        self._orders.add(order)
        return order

    def _finished(self, count: int) -> tuple[str, ...]:
        """Return some tasks that can be retried, those first that others wait for."""
        rows = select(
            self._project.layout,
            "SELECT id FROM tasks WHERE state IN ('DONE', 'FAILED', 'CANCELLED')"
            " OR (state = 'BLOCKED' AND instr(reasons, 'human') > 0) ORDER BY state = 'DONE', id",
        )
        ids = [row["id"] for row in rows]
        return (*ids[:count], *self._dice.sample(ids, min(count, len(ids))))

    def _varied(self) -> list[TaskDef]:
        """Return the DAG with other priorities here and there, and a few leaves left out."""
        dice = self._dice
        out = set(dice.sample(sorted(self._leaves), min(5, len(self._leaves))))
        return [
            replace(task, priority=dice.randrange(3)) if dice.random() < 0.05 else task
            for task in self._tasks
            if task.id not in out
        ]
