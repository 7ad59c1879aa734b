"""What ever happened is counted with the events that tell it, and nothing lowers that."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from support.clock import ManualClock
from support.engines import until
from support.pasts import any_past
from support.stores import HOST, a_dag, a_task, check_store, opened, select, tuples

from engine.commands import Purge, Seed
from engine.errors import LeaseLost
from engine.model import AlertKind, NewAlert, Outcome, RunOutcome, Spending, State
from engine.store import orders
from engine.store.audit import audit
from engine.store.forgetting import LOG_FROM
from engine.store.queries import Queries
from engine.store.reader import Reader
from engine.views import DURATION_BOUNDS, Counter, Durations

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.engines import Project
    from support.stores import Opened

    from engine.views import Metrics

DONE = Outcome(RunOutcome.DONE)


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Opened]:
    async with opened(tmp_path) as store:
        yield store


async def metrics_of(it: Opened) -> Metrics:
    async with Reader(it.layout.database) as reader:
        return await Queries(reader, it.clock, lambda _process: True).metrics()


async def run(it: Opened, outcome: Outcome, *, seconds: float = 0, agent: str = "codex") -> None:
    claim = await it.claim(f"{agent}-1", agent)
    assert isinstance(it.clock, ManualClock)
    await it.clock.advance(seconds)
    await it.store.finish(claim, outcome)


async def test_runs_are_counted_by_agent_and_by_how_they_ended(it: Opened) -> None:
    await it.store.seed(a_dag(*(a_task(f"t{n}") for n in range(6)), a_task("c", agent="claude")))
    await run(it, DONE)
    await run(it, Outcome(RunOutcome.FAILED, error="no worktree: the disk is full"))
    await run(it, Outcome(RunOutcome.BLOCKED, error="no worktree: no repository"))
    await run(it, Outcome(RunOutcome.FAILED, error="it says: no worktree: nothing"))
    await run(it, Outcome(RunOutcome.DONE, result={"pullRequest": {"number": 7}}), agent="claude")
    killed = await it.claim()
    await it.order(orders.kill, killed.task.id)
    timed_out = await it.claim()
    await it.store.time_out(timed_out.task.id, timed_out.run_id)
    await it.store.raise_alerts([NewAlert(AlertKind.LOG, "app.log", "2 lines")])
    seen = await metrics_of(it)
    assert seen.counters == {
        Counter.LAUNCHED: {"claude": 1, "codex": 6},
        Counter.WORKTREE_ERRORS: {"codex": 2},
        Counter.PULL_REQUESTS: {"claude": 1},
        Counter.ALERTS: {"": 1},
    }
    assert {(one.agent, one.outcome): one.count for one in seen.durations} == {
        ("claude", RunOutcome.DONE): 1,
        ("codex", RunOutcome.DONE): 1,
        ("codex", RunOutcome.FAILED): 2,
        ("codex", RunOutcome.BLOCKED): 1,
        ("codex", RunOutcome.KILLED): 1,
        ("codex", RunOutcome.TIMED_OUT): 1,
    }
    claude, codex = seen.of_agents()
    assert (claude.launched, codex.launched) == (1, 6)
    assert (codex.ended(), codex.ended(RunOutcome.FAILED, RunOutcome.TIMED_OUT)) == (6, 3)
    assert seen.total(Counter.LAUNCHED) == 7
    check_store(it.layout)


async def test_how_long_runs_took_is_told_in_classes_that_hold_those_before_them(
    it: Opened,
) -> None:
    await it.store.seed(a_dag(*(a_task(f"t{n}", timeout=9e5) for n in range(5))))
    for seconds in (0, 1, 1.5, 3600, 3600.5):
        await run(it, DONE, seconds=seconds)
    (took,) = (await metrics_of(it)).durations
    assert took == Durations("codex", RunOutcome.DONE, (2, 3, 3, 3, 3, 3, 4), 5, 7203.0)
    assert len(took.buckets) == len(DURATION_BOUNDS)


async def test_neither_a_purge_nor_a_reset_lowers_what_was_counted(it: Opened) -> None:
    dag = a_dag(a_task("a"), a_task("b"))
    await it.store.seed(dag)
    for dollars in (0.5, 0.25):
        await run(it, Outcome(RunOutcome.DONE, spending=Spending(1, 100, 60, 10, dollars)))
    before = await metrics_of(it)
    await it.order(orders.purge, "a")
    await it.store.begin_reset()
    await it.store.reset(dag, fresh=False)
    after = await metrics_of(it)
    assert (after.counters, after.durations) == (before.counters, before.durations)
    assert after.spent == before.spent == {"codex": Spending(None, 200, 120, 20, 0.75)}
    await run(it, Outcome(RunOutcome.DONE, spending=Spending(cost=1.0)))
    await it.store.begin_reset()
    await it.store.reset(dag, fresh=True)
    assert (await metrics_of(it)).spent["codex"].cost == 1.75
    check_store(it.layout)


async def test_what_did_not_happen_is_not_counted(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b")))
    claim = await it.claim()
    before = await metrics_of(it)
    await it.order(orders.kill, "a", dry_run=True)
    assert await metrics_of(it) == before
    await it.order(orders.cancel, "a")
    with pytest.raises(LeaseLost):
        await it.store.finish(claim, DONE)
    seen = await metrics_of(it)
    assert [(one.outcome, one.count) for one in seen.durations] == [(RunOutcome.CANCELLED, 1)]
    check_store(it.layout)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_is_counted_once(tmp_path: Path, seed: int) -> None:
    async with opened(tmp_path) as it:
        await any_past(it, seed, 150)
        check_store(it.layout)
        assert not [one for one in audit(it.layout.database) if "counters" in one.message]


async def test_the_gauges_tell_how_things_are_now(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b"), a_task("c", agent="claude")))
    await it.store.register("codex", "codex-1", HOST, lambda _host: True)
    await it.claim()
    assert isinstance(it.clock, ManualClock)
    await it.clock.advance(90)
    seen = await metrics_of(it)
    assert seen.tasks == {
        "claude": {State.READY: 1},
        "codex": {State.READY: 1, State.RUNNING: 1},
    }
    assert (seen.workers, seen.services, seen.oldest_running) == ({"codex": 1}, 0, 90.0)


async def repaired(project: Project, change: str) -> tuple[list[str], list[str]]:
    """Change the database by hand; return what doctor finds and what repair says it did."""
    with closing(sqlite3.connect(project.layout.database)) as db:
        db.execute(change)
        db.commit()
    found = [one.message for one in audit(project.layout.database) if one.check == "derived"]
    async with project.engine() as engine:
        done = await engine.repair()
    check_store(project.layout)
    return found, done


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            "DELETE FROM counters WHERE name = 'launched'",
            "the counters table says [0, 0] of ['launched', 'codex', '', 0.0], the events [2, 0]",
        ),
        (
            "UPDATE counters SET n = 'x' WHERE name = 'launched'",
            "the counters table says ['x', 0] of ['launched', ",
        ),
        ("UPDATE counters SET n = 99 WHERE name = 'ended'", "the counters table says [99, "),
    ],
)
async def test_what_was_miscounted_is_found_and_counted_anew(
    project: Project, change: str, told: str
) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a"), a_task("b"))))
        await engine.start_worker("codex", until_idle=True)
        await engine.wait_workers()
    (found,), done = await repaired(project, change)
    assert found.startswith(told)
    assert done == ["what ever happened was counted anew"]


async def test_what_was_forgotten_stays_counted(project: Project) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a"))))
        await engine.start_worker("codex", until_idle=True)
        await engine.wait_workers()
        await engine.execute(Purge(("a",)))
    forgotten = "DELETE FROM events"
    with closing(sqlite3.connect(project.layout.database)) as db:
        last = db.execute("SELECT max(seq) FROM events").fetchone()[0]
        db.execute("INSERT INTO meta VALUES (?, ?)", (LOG_FROM, str(last)))
        db.execute(f"{forgotten} WHERE seq < {last}")
        db.commit()
    assert not [one for one in audit(project.layout.database) if one.check == "derived"]
    assert tuples(project.layout, "SELECT name, agent, n FROM counters ORDER BY name DESC") == [
        *(("launched", "codex", 1), ("ended", "codex", 1))
    ]


async def test_two_processes_of_which_one_is_killed_count_each_run_once(project: Project) -> None:
    tasks = [a_task(f"t{n}", payload={"kind": "noop", "seconds": 0.01}) for n in range(80)]
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(*tasks)))
    first, second = project.work("codex-1"), project.work("codex-2")

    def done() -> int:
        rows = select(project.layout, "SELECT sum(n) AS n FROM counters WHERE outcome = 'done'")
        return rows[0]["n"] or 0

    await until(lambda: done() > 10, "some are done")
    first.kill()
    await asyncio.to_thread(first.wait)
    check_store(project.layout)
    await until(lambda: done() == len(tasks), "the other does the rest")
    second.terminate()
    await asyncio.to_thread(second.wait)
    check_store(project.layout)
