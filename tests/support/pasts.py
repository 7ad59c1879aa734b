"""Stores with a past: one in which everything happens that can, and those that chance makes."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from support.clock import ManualClock
from support.stores import HOST, a_dag, a_task, select

from engine.errors import LeaseLost
from engine.model import (
    AgentRule,
    AlertKind,
    Claim,
    Dag,
    External,
    NewAlert,
    Outcome,
    RunOutcome,
    ServiceState,
    Spending,
    TaskDef,
    WorkerStatus,
)
from engine.store import orders
from engine.store.services import Standing

if TYPE_CHECKING:
    from support.stores import Opened

DONE = Outcome(RunOutcome.DONE, result={"files": ["a.py", "ü.py"], "ratio": 0.1}, exit_code=0)
FAILED = Outcome(RunOutcome.FAILED, error="exit code 1\n\x1b[31mred", exit_code=1)
LIMITED = Outcome(RunOutcome.RELEASED, error="usage limit", spending=Spending(cost=0.7))
COSTLY = Outcome(RunOutcome.DONE, result={"text": "done"}, spending=Spending(4, 1200, 800, 90, 0.1))
LOGGED_OUT = Outcome(RunOutcome.RELEASED, error="not logged in", holds=True)
BLOCKED = Outcome(RunOutcome.BLOCKED, error="not allowed")


def _own(task_id: str, *deps: str, **values: Any) -> TaskDef:
    """Make a task whose agent has its name, so that a claim can be aimed at it."""
    return a_task(task_id, *deps, agent=task_id, **values)


FIRST = a_dag(
    _own("plan", name='The "plan", ünïcode 🚀 \\ and more', retries=2),
    _own("build", "plan", priority=2, timeout=60, payload={"kind": "shell", "cmd": "x", "n": 1e-7}),
    _own("test", "build"),
    _own("flaky", retries=3),
    _own("hopeless"),
    _own("after-hopeless", "hopeless"),
    _own("forbidden"),
    _own("lossy"),
    _own("doomed"),
    _own("gone-done"),
    _own("on-gone-done", "gone-done"),
    _own("gone"),
    _own("on-gone", "gone"),
    _own("leaving"),
    _own("slow", retries=1),
    _own("slowest"),
    agents={"plan": AgentRule(3, 0.5), "build": AgentRule()},
)
SECOND = a_dag(
    _own("plan", name="plan anew", retries=1),
    _own("build", timeout=60, payload={"kind": "noop", "seconds": 1}),
    _own("test", "build", "plan"),
    _own("flaky", retries=3),
    _own("hopeless"),
    _own("after-hopeless"),
    _own("forbidden"),
    _own("lossy"),
    _own("doomed"),
    _own("slow", retries=1),
    _own("slowest"),
    _own("gone"),
    _own("on-gone", "gone"),
    _own("new", "plan"),
    agents={"plan": AgentRule(5, 0.5), "slow": AgentRule(1)},
)


async def a_past(it: Opened) -> None:
    """Let everything happen to a store that can: every event, every state, every reason."""
    past = _Past(it)
    await it.store.seed(FIRST)
    await past.workers_come()
    await past.runs_end()
    await past.an_operator_steers()
    await past.workers_go()
    await past.advance(100)
    await it.store.end_backoff()
    await it.store.begin_reset()
    await it.store.reset(SECOND, fresh=False)
    await past.some_go_on()
    await past.alerts_come()
    await past.others_come()


@dataclass
class _Past:
    it: Opened
    timed_out: Claim = field(init=False)
    purged: Claim = field(init=False)

    async def advance(self, seconds: float) -> None:
        assert isinstance(self.it.clock, ManualClock)
        await self.it.clock.advance(seconds)

    async def take(self, task_id: str, *, prepared: bool = False) -> Claim:
        preparing = frozenset({"noop", "shell"} if prepared else ())
        claim = await self.it.store.claim(task_id, f"{task_id}-1", HOST, preparing)
        assert claim is not None, f"{task_id} cannot be claimed"
        await self.advance(0.125)
        return claim

    async def run(self, task_id: str, outcome: Outcome) -> Claim:
        claim = await self.take(task_id)
        await self.it.store.progress(claim, "half way")
        await self.advance(1.25)
        await self.it.store.finish(claim, outcome)
        return claim

    async def workers_come(self) -> None:
        store = self.it.store
        for name in ("w-1", "w-2", "w-3", "w-4", "w-5"):
            await store.register("w", name, HOST, lambda _host: True)
        await store.hold("gemini")
        await store.hold("*")
        await store.resume("*")
        await store.hold("held")

    async def alerts_come(self) -> None:
        told = [
            NewAlert(AlertKind.LOG, "app.log", f"{n} lines", count=n, body=f"alerts/{n}.md")
            for n in range(3)
        ]
        run = NewAlert(AlertKind.LOG, "plan", "it failed", error=True, task_id="plan", run_id="r")
        await self.it.store.raise_alerts([*told, run])
        await self.advance(0.5)
        await self.it.store.acknowledge([1, 3])

    async def others_come(self) -> None:
        store = self.it.store
        await store.enter_services({"web": 8080, "db": None}, HOST)
        await store.stand_service("web", Standing(ServiceState.READY, run_id="s", leader=HOST))
        await store.stand_service("db", Standing(ServiceState.FAILED, "exit code 1", restarts=3))
        await store.register_agent(External("bot", "robot", HOST, meta={"of": "ünï"}))
        await store.register_agent(External("hand", "claude", tmux="work:1"))
        await store.unregister_agents({"hand": "its window is gone"})

    async def runs_end(self) -> None:
        store = self.it.store
        plan = await self.run("plan", DONE)
        with pytest.raises(LeaseLost):
            await store.finish(plan, DONE)
        await self.run("flaky", FAILED)
        await self.run("hopeless", FAILED)
        await self.run("forbidden", BLOCKED)
        told = await self.run("gone-done", COSTLY)
        await store.note_told("gone-done", told.run_id)
        for _ in range(3):
            lost = await self.take("lossy")
            await store.expire("lossy", lost.run_id)
        slow = await self.take("slow")
        await store.time_out("slow", slow.run_id)
        await self.tell_late(slow, 0.1)
        self.timed_out = slow
        await store.gone(slow.run_id)

    async def tell_late(self, claim: Claim, dollars: float) -> None:
        """Tell what a run took in all that has lost its task."""
        with pytest.raises(LeaseLost):
            await self.it.store.progress(claim, "late", Spending(cost=dollars))

    async def an_operator_steers(self) -> None:
        store = self.it.store
        self.purged = await self.take("gone")
        await self.it.order(orders.purge, "gone-done", "gone")
        await store.gone(self.purged.run_id)
        await self.tell_late(self.purged, 0.2)
        await self.tell_late(self.purged, 0.3)
        await self.it.order(orders.retry, "hopeless")
        released = await self.take("hopeless", prepared=True)
        await store.start(released)
        await store.release("hopeless", released.run_id, "operator")
        killed = await self.take("build")
        await self.it.order(orders.kill, "build")
        await store.gone(killed.run_id)

    async def workers_go(self) -> None:
        for name, status in (
            ("w-1", WorkerStatus.STOPPING),
            ("w-1", WorkerStatus.STOPPED),
            ("w-2", WorkerStatus.LOST),
            ("w-3", WorkerStatus.KILLED),
        ):
            await self.it.store.set_status(name, HOST, status)

    async def some_go_on(self) -> None:
        """At the end, two runs are being ended and one goes on."""
        await self.tell_late(self.timed_out, 0.4)
        await self.tell_late(self.purged, 0.6)
        told = await self.run("hopeless", COSTLY)
        await self.it.store.note_told("hopeless", told.run_id)
        await self.it.order(orders.purge, "after-hopeless")
        limited = await self.take("slow")
        await self.it.store.progress(limited, "thinks", Spending(1, 100, 50, 10, 0.5))
        later = self.it.clock.now() + timedelta(hours=5)
        await self.it.store.finish(limited, replace(LIMITED, not_before=later))
        await self.run("gone", LOGGED_OUT)
        slowest = await self.take("slowest")
        await self.it.store.time_out("slowest", slowest.run_id)
        await self.take("doomed")
        await self.it.order(orders.cancel, "doomed")
        await self.run("flaky", FAILED)
        await self.take("new")


async def any_past(it: Opened, seed: int, steps: int) -> None:
    """Do `steps` things to a store, each chosen by chance."""
    past = _AnyPast(it, random.Random(seed))
    await past.reseed()
    doings = [past.claim] * 3 + [past.end] * 3 + [past.order, past.others, past.reseed]
    for _ in range(steps):
        await past.chance.choice(doings)()


@dataclass
class _AnyPast:
    it: Opened
    chance: random.Random
    claims: list[Claim] = field(default_factory=list)

    async def claim(self) -> None:
        agent = self.chance.choice(("codex", "claude"))
        preparing = frozenset({"noop"} if self.chance.random() < 0.3 else ())
        found = await self.it.store.claim(agent, f"{agent}-1", HOST, preparing)
        if found is not None:
            self.claims.append(found)

    async def end(self) -> None:
        if not self.claims:
            return
        claim = self.claims.pop(self.chance.randrange(len(self.claims)))
        store, task_id, run_id = self.it.store, claim.task.id, claim.run_id
        (row,) = select(self.it.layout, "SELECT count(*) AS n FROM tasks WHERE run_id = ?", run_id)
        if not row["n"]:
            return  # an order took its task away
        if self.it.state(task_id) == "CLAIMED":
            await store.start(claim)
        if self.chance.random() < 0.3:
            half = Spending(
                1, self.chance.randint(0, 900), None, 5, self.chance.choice((None, 0.1, 0.3))
            )
            await store.progress(claim, "half way", half)
        later = self.it.clock.now() + timedelta(seconds=self.chance.choice((20, 2000)))
        limited = replace(LIMITED, not_before=later, holds=self.chance.random() < 0.4)
        match self.chance.choice(("finish", "finish", "finish", "lost", "freed", "late")):
            case "finish":
                outcomes = (DONE, DONE, COSTLY, FAILED, BLOCKED, limited)
                await store.finish(claim, self.chance.choice(outcomes))
            case "lost":
                await store.expire(task_id, run_id)
            case "freed":
                await store.release(task_id, run_id, "operator")
            case _:
                await store.time_out(task_id, run_id)
                with pytest.raises(LeaseLost):
                    await store.progress(claim, "late", Spending(2, 950, cost=0.7))

    async def order(self) -> None:
        what = self.chance.choice((orders.cancel, orders.kill, orders.retry, orders.purge))
        await self.it.order(what, *self.chance.sample("abcdefgh", self.chance.randint(1, 3)))

    async def others(self) -> None:
        store, chance = self.it.store, self.chance
        agent = chance.choice(("codex", "claude", "*"))
        await (store.hold(agent) if chance.random() < 0.2 else store.resume(agent))
        assert isinstance(self.it.clock, ManualClock)
        await self.it.clock.advance(chance.choice((0.5, 30, 400)))
        await store.end_backoff()
        for row in select(self.it.layout, "SELECT run_id FROM endings"):
            if chance.random() < 0.7:
                await store.gone(row["run_id"])

    async def reseed(self) -> None:
        await self.it.store.seed(_any_dag(self.chance))


def _any_dag(chance: random.Random) -> Dag:
    names = chance.sample("abcdefgh", chance.randint(3, 8))
    tasks = [
        a_task(
            name,
            *chance.sample(names[:place], min(place, chance.choice((0, 0, 1, 2)))),
            agent=chance.choice(("codex", "claude")),
            retries=chance.randint(0, 2),
            timeout=float(chance.choice((60, 600))),
        )
        for place, name in enumerate(names)
    ]
    chance.shuffle(tasks)
    return a_dag(*tasks, agents={"codex": AgentRule(chance.choice((None, 2)))})
