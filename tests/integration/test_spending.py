"""What runs cost is known by run and by agent, and a budget holds claims before it is passed."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from support.clock import ManualClock
from support.stores import HOST, a_dag, a_task, check_store, events_of, kinds, opened, select

from engine.clock import to_iso
from engine.errors import LeaseLost
from engine.model import Budget, EventType, HoldCause, Outcome, RunOutcome, Spending
from engine.store import orders
from engine.store.lookout import Lookout
from engine.store.queries import Queries
from engine.store.reader import Reader
from engine.store.spending import MOST_DOLLARS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from support.stores import Opened

    from engine.model import Claim, TaskDef

SPENDING = Spending(3, 1000, 600, 50, 0.5)


def cost(dollars: float) -> Outcome:
    return Outcome(RunOutcome.DONE, spending=Spending(cost=dollars))


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Opened]:
    async with opened(tmp_path) as store:
        yield store


async def asked(it: Opened) -> tuple[Queries, Reader]:
    reader = Reader(it.layout.database)
    await reader.__aenter__()
    return Queries(reader, it.clock, lambda _process: True), reader


async def work(it: Opened, *costs: float, agent: str = "codex") -> None:
    for dollars in costs:
        await it.store.finish(await it.claim(f"{agent}-1", agent), cost(dollars))


def spent(it: Opened) -> Mapping[str, tuple[int, float]]:
    rows = select(it.layout, "SELECT agent, runs, cost FROM spent ORDER BY agent")
    return {row["agent"]: (row["runs"], row["cost"]) for row in rows}


def held(it: Opened) -> dict[str, str]:
    return {row["agent"]: row["cause"] for row in select(it.layout, "SELECT * FROM holds")}


# -- what runs cost --------------------------------------------------------------------------


async def test_a_run_says_what_it_took_and_its_event_does(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a")))
    claim = await it.claim()
    await it.store.finish(claim, Outcome(RunOutcome.DONE, spending=SPENDING))
    (event,) = [e for e in events_of(it.layout, "a") if e.type is EventType.TASK_COMPLETED]
    assert event.data["spending"] == {
        "turns": 3,
        "inputTokens": 1000,
        "cachedTokens": 600,
        "outputTokens": 50,
        "cost": 0.5,
    }
    queries, reader = await asked(it)
    async with reader:
        detail = await queries.detail("a")
        assert detail.runs[0].spending == SPENDING
        (row,) = await queries.spent()
        assert (row.agent, row.runs) == ("codex", 1)
        assert row.spending == Spending(None, 1000, 600, 50, 0.5)
        assert (await queries.progress()).spending == Spending(None, 1000, 600, 50, 0.5)


async def test_without_a_word_nothing_is_spent_and_nothing_is_told(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a")))
    await it.store.finish(await it.claim(), Outcome(RunOutcome.DONE))
    assert "spending" not in events_of(it.layout, "a")[-1].data
    queries, reader = await asked(it)
    async with reader:
        assert await queries.spent() == []
        assert (await queries.progress()).spending == Spending()


async def test_what_a_run_tells_on_its_way_is_its_total_and_counts_once(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a")))
    claim = await it.claim()
    await it.store.progress(claim, "Edit a.py", Spending(1, 100, None, 10, 0.25))
    await it.store.progress(claim, "Edit b.py", Spending(2, 300, None, None, None))
    assert spent(it) == {"codex": (0, 0.25)}
    progress = [e.data for e in events_of(it.layout, "a") if e.type is EventType.TASK_PROGRESS]
    assert progress[-1]["spending"] == {
        "turns": 2,
        "inputTokens": 300,
        "outputTokens": 10,
        "cost": 0.25,
    }
    await it.store.finish(claim, Outcome(RunOutcome.FAILED, spending=Spending(cost=0.75)))
    assert spent(it) == {"codex": (1, 0.75)}
    (row,) = select(it.layout, "SELECT turns, input_tokens, cost FROM runs")
    assert row == {"turns": 2, "input_tokens": 300, "cost": 0.75}


async def test_the_money_of_a_run_that_was_cancelled_is_spent_all_the_same(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a")))
    claim = await it.claim()
    await it.order_one(orders.cancel, "a")
    with pytest.raises(LeaseLost):
        await it.store.finish(claim, cost(2.0))
    assert spent(it) == {"codex": (0, 2.0)}
    await it.order(orders.purge, "a")
    assert spent(it) == {"codex": (0, 2.0)}


async def tell_late(it: Opened, claim: Claim, told: Spending) -> None:
    with pytest.raises(LeaseLost):
        await it.store.progress(claim, "late", told)


async def test_what_a_run_tells_as_it_is_ended_counts_once_though_its_task_is_gone(
    it: Opened,
) -> None:
    await it.store.seed(a_dag(a_task("a")))
    claim = await it.claim()
    await it.store.time_out("a", claim.run_id)
    for dollars in (0.5, 0.5, 0.75):
        await tell_late(it, claim, Spending(2, 100, cost=dollars))
    late = [e.data for e in events_of(it.layout, "a") if e.type is EventType.LATE_RESULT]
    assert late == [
        {"spending": {"turns": 2, "inputTokens": 100, "cost": dollars}} for dollars in (0.5, 0.75)
    ]
    await it.store.gone(claim.run_id)
    await it.order(orders.purge, "a")
    for dollars in (0.75, 1.0, 1.0):
        await tell_late(it, claim, Spending(cost=dollars))
    assert spent(it) == {"codex": (0, 1.0)}
    (row,) = select(it.layout, "SELECT priced, input_tokens FROM spent")
    assert row == {"priced": 1, "input_tokens": 100}
    await tell_late(it, replace(claim, run_id="nobody's"), SPENDING)
    assert spent(it) == {"codex": (0, 1.0)}
    check_store(it.layout)


async def test_a_report_that_comes_twice_counts_once(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a")))
    claim = await it.claim()
    await it.store.finish(claim, cost(0.5))
    with pytest.raises(LeaseLost):
        await it.store.finish(claim, cost(0.5))
    assert spent(it) == {"codex": (1, 0.5)}
    assert "spending" not in events_of(it.layout, "a")[-1].data


@pytest.mark.parametrize("tree_gone", [True, False])
async def test_what_a_run_took_that_others_ended_is_spent(it: Opened, *, tree_gone: bool) -> None:
    await it.store.seed(a_dag(a_task("a")))
    claim = await it.claim()
    await it.store.condemn("a", claim.run_id)
    failed = Outcome(RunOutcome.FAILED, error="SIGTERM", spending=SPENDING)
    await it.store.finish(claim, failed, tree_gone=tree_gone)
    assert it.state("a") == ("READY" if tree_gone else "RUNNING")
    assert spent(it) == {"codex": (int(tree_gone), 0.5)}
    check_store(it.layout)


@pytest.mark.parametrize("wrong", [-1, -0.5, math.nan, True, "3", [1]], ids=repr)
async def test_what_cannot_be_a_count_or_a_cost_counts_as_not_told(it: Opened, wrong: Any) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b")))
    claim = await it.claim()
    await it.store.progress(claim, "so far", Spending(1, 2, 1, 3, 0.25))
    told = Spending(wrong, wrong, wrong, wrong, wrong)
    await it.store.progress(claim, "nonsense", told)
    await it.store.finish(claim, Outcome(RunOutcome.DONE, spending=told))
    (row,) = select(it.layout, "SELECT * FROM spent")
    assert tuple(row.values()) == ("codex", 1, 1, 0, 0, 2, 1, 3, 0.25)
    await it.store.finish(await it.claim(), Outcome(RunOutcome.DONE, spending=told))
    assert spent(it) == {"codex": (2, 0.25)}


@pytest.mark.parametrize("much", [math.inf, 10**30, 1e300, 1_000_001], ids=repr)
async def test_a_cost_that_no_run_can_have_uses_up_any_budget(it: Opened, much: float) -> None:
    await it.store.seed(a_dag(a_task("a")))
    claim = await it.claim()
    await it.store.finish(claim, Outcome(RunOutcome.DONE, spending=Spending(cost=much)))
    assert spent(it) == {"codex": (1, MOST_DOLLARS)}
    check_store(it.layout)


async def test_what_a_run_has_cost_it_cannot_take_back(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a")))
    claim = await it.claim()
    await it.store.progress(claim, "so far", Spending(cost=0.6))
    await it.store.finish(claim, Outcome(RunOutcome.DONE, spending=Spending(cost=0.0)))
    assert spent(it) == {"codex": (1, 0.6)}
    check_store(it.layout)


async def test_a_reset_begins_to_count_anew(it: Opened) -> None:
    dag = a_dag(a_task("a"), a_task("b"))
    await it.store.seed(dag)
    await work(it, 1.0)
    await it.store.begin_reset()
    await it.store.reset(dag, fresh=False)
    assert spent(it) == {}
    await work(it, 0.25)
    assert spent(it) == {"codex": (1, 0.25)}


# -- the budget ------------------------------------------------------------------------------


def agent_task(task_id: str, agent: str = "codex") -> TaskDef:
    return a_task(task_id, agent=agent, payload={"kind": "agent", "prompt": "Do it."})


MANY = a_dag(
    *(agent_task(f"t{n}") for n in range(9)), *(agent_task(f"c{n}", "x") for n in range(3))
)


async def test_claims_are_held_before_the_budget_is_passed_and_it_is_said_why(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, budget=Budget(agents={"codex": 1.0})) as it:
        await it.store.seed(MANY)
        await work(it, 0.375, 0.375)
        assert await it.store.claim("codex", "codex-1", HOST) is None
        assert held(it) == {"codex": HoldCause.BUDGET}
        (event,) = [e for e in events_of(it.layout) if e.type is EventType.HELD]
        why = "$0.75 of the $1.00 of codex are spent, the next one about $0.38"
        assert (event.agent, event.data) == ("codex", {"cause": "budget", "reason": why})
        queries, reader = await asked(it)
        async with reader:
            (hold,) = await queries.holds()
            assert (hold.agent, hold.cause, hold.reason) == ("codex", HoldCause.BUDGET, why)
            said = (await queries.detail("t5")).explanation
            assert f"It cannot be claimed: claims of codex are held ({why}); raise" in said[0]
            # Nobody waits for what is held.
            assert await Lookout(reader, it.clock).claimable("codex", 5) == 0
        await work(it, 0.25, agent="x")
    check_store(it.layout)


async def test_runs_at_work_count_with_what_they_may_still_cost(tmp_path: Path) -> None:
    async with opened(tmp_path, budget=Budget(agents={"codex": 2.0})) as it:
        await it.store.seed(MANY)
        await work(it, 0.5)
        first, second = await it.claim("codex-1"), await it.claim("codex-2")
        # 0.5 spent, twice 0.5 at work, 0.5 for the next: the budget is full, not passed.
        third = await it.claim("codex-3")
        assert await it.store.claim("codex", "codex-4", HOST) is None
        assert held(it) == {"codex": HoldCause.BUDGET}
        # Those that run finish.
        for claim in (first, second, third):
            await it.store.finish(claim, cost(0.5))
        assert spent(it) == {"codex": (4, 2.0)}


async def test_under_a_budget_the_first_run_of_an_agent_works_alone(tmp_path: Path) -> None:
    async with opened(tmp_path, budget=Budget(total=1.0)) as it:
        await it.store.seed(MANY)
        first = await it.claim()
        for worker in ("codex-2", "codex-3"):
            assert await it.store.claim("codex", worker, HOST) is None
        assert held(it) == {}, "nothing is spent: it only waits"
        queries, reader = await asked(it)
        async with reader:
            said = (await queries.detail("t5")).explanation[0]
            assert "nobody knows what a run of codex costs before the first one is over" in said
        await it.store.finish(first, cost(0.25))
        await it.store.finish(await it.claim("x-1", "x"), cost(0.25))
        assert await it.store.claim("codex", "codex-1", HOST) is not None
        assert await it.store.claim("codex", "codex-2", HOST) is not None
        assert await it.store.claim("codex", "codex-3", HOST) is None
        assert held(it) == {"codex": HoldCause.BUDGET}


async def test_a_first_run_that_was_put_back_is_no_measure_and_one_that_tells_no_cost_is(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, budget=Budget(total=1.0)) as it:
        await it.store.seed(MANY)
        claim = await it.claim()
        await it.store.progress(claim, "reads", Spending(1))
        assert await it.store.claim("codex", "codex-2", HOST) is None
        await it.store.finish(claim, Outcome(RunOutcome.RELEASED, spending=Spending(1)))
        claim = await it.claim()
        assert await it.store.claim("codex", "codex-2", HOST) is None
        await it.store.finish(claim, Outcome(RunOutcome.DONE, spending=Spending()))
        for worker in ("codex-1", "codex-2", "codex-3"):
            assert await it.store.claim("codex", worker, HOST) is not None


async def test_without_a_budget_of_its_own_or_of_all_an_agent_is_not_slowed_down(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, budget=Budget(agents={"x": 1.0})) as it:
        await it.store.seed(MANY)
        for worker in ("codex-1", "codex-2", "codex-3"):
            assert await it.store.claim("codex", worker, HOST) is not None


async def test_tasks_that_cost_nothing_go_on_until_all_is_spent(tmp_path: Path) -> None:
    shells = [a_task(f"s{n}", priority=-1) for n in range(4)]
    async with opened(tmp_path, budget=Budget(total=1.0)) as it:
        await it.store.seed(a_dag(agent_task("a"), *shells))
        claim = await it.claim()
        for worker in ("codex-2", "codex-3"):
            await it.store.finish(await it.claim(worker), Outcome(RunOutcome.DONE))
        await it.claim("codex-2")
        await it.store.finish(claim, cost(1.0))
        assert await it.store.claim("codex", "codex-1", HOST) is None
        assert held(it) == {"codex": HoldCause.BUDGET}


async def test_a_larger_budget_lifts_what_the_smaller_one_held_and_nothing_else(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, budget=Budget(total=1.0)) as it:
        await it.store.seed(MANY)
        await work(it, 1.0)
        await it.store.hold("x")
        assert await it.store.claim("codex", "codex-1", HOST) is None
        await it.store.set_budget(Budget(total=1.5))
        assert held(it) == {"codex": HoldCause.BUDGET, "x": HoldCause.OPERATOR}
    async with opened(tmp_path, budget=Budget(total=3.0)) as it:
        assert held(it) == {"x": HoldCause.OPERATOR}
        await it.claim()


async def test_a_reset_lifts_what_the_budget_held_and_nothing_else(tmp_path: Path) -> None:
    async with opened(tmp_path, budget=Budget(total=1.0)) as it:
        await it.store.seed(MANY)
        await work(it, 1.0)
        await it.store.hold("x")
        assert await it.store.claim("codex", "codex-1", HOST) is None
        assert held(it) == {"codex": HoldCause.BUDGET, "x": HoldCause.OPERATOR}
        await it.store.begin_reset()
        await it.store.reset(MANY, fresh=False)
        assert held(it) == {"x": HoldCause.OPERATOR}
        await it.claim()
    check_store(it.layout)


async def test_with_nothing_to_claim_a_spent_budget_holds_nobody(tmp_path: Path) -> None:
    async with opened(tmp_path, budget=Budget(total=1.0)) as it:
        await it.store.seed(a_dag(a_task("a")))
        await work(it, 1.0)
        assert await it.store.claim("codex", "codex-1", HOST) is None
        assert held(it) == {}


# -- put back, through no fault of the task ---------------------------------------------------


async def test_a_task_whose_agent_has_to_wait_waits_and_uses_no_retry(it: Opened) -> None:
    assert isinstance(it.clock, ManualClock)
    await it.store.seed(a_dag(a_task("a")))
    later = it.clock.now() + timedelta(hours=5)
    why = "usage limit reached, resets at 5:00"
    claim = await it.claim()
    outcome = Outcome(RunOutcome.RELEASED, error=why, not_before=later, spending=SPENDING)
    await it.store.finish(claim, outcome)
    row = it.row("a")
    assert (row["state"], row["attempts"], row["error"]) == ("READY", 0, why)
    assert await it.store.claim("codex", "codex-1", HOST) is None
    queries, reader = await asked(it)
    async with reader:
        lookout = Lookout(reader, it.clock)
        assert await lookout.next_due() == later
        said = (await queries.detail("a")).explanation[0]
        lifted = "in 5h00m, or after `agentmux resume codex`"
        assert said == f"Its last run was put back ({why}); the next one starts {lifted}."
        # Longer than any backoff, and no sign of a clock that was set back.
        await it.clock.advance(3600)
        await it.store.end_backoff()
        assert await it.store.claim("codex", "codex-1", HOST) is None
        await it.clock.advance(4 * 3600)
        assert await lookout.next_due() == later
        await it.store.end_backoff()
        again = await it.claim()
    assert again.attempt == 1
    told = events_of(it.layout, "a")
    assert kinds(told)[-3:] == ["TASK_RELEASED", "TASK_CLAIMED", "TASK_STARTED"]
    assert told[-3].data["notBefore"] == "2026-01-01T05:00:00.000Z"
    check_store(it.layout)


async def test_resuming_an_agent_ends_what_its_limits_ask_for_and_no_backoff(
    it: Opened,
) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", retries=1), a_task("other", agent="gemini")))
    later = it.clock.now() + timedelta(hours=5)
    limited = Outcome(RunOutcome.RELEASED, error="limit", not_before=later, holds=True)
    for agent in ("codex", "gemini"):
        await it.store.finish(await it.claim(f"{agent}-1", agent), limited)
    await it.store.resume("codex")
    assert it.row("a")["not_before"] is None
    assert it.row("other")["not_before"] is not None, "another agent's"
    claim = await it.claim()
    assert claim.task.id == "a"
    await it.store.finish(claim, Outcome(RunOutcome.DONE))
    told = [event for event in events_of(it.layout, "a") if event.type == "TASK_READY"]
    assert [event.data for event in told] == [{"notBefore": to_iso(it.clock.now())}]
    await it.store.finish(await it.claim(), Outcome(RunOutcome.FAILED, error="no"))
    backoff = it.row("b")["not_before"]
    assert backoff is not None
    assert not await it.store.resume("codex"), "nothing is held, and a backoff is no limit"
    assert it.row("b")["not_before"] == backoff
    assert await it.store.resume("*")
    assert it.row("other")["not_before"] is None
    assert not await it.store.resume("*")
    check_store(it.layout)


async def test_a_wait_from_before_the_clock_was_set_back_is_over(tmp_path: Path) -> None:
    clock = ManualClock()
    async with opened(tmp_path, clock=clock) as it:
        await it.store.seed(a_dag(a_task("a")))
        await clock.advance(86_400)
        later = clock.now() + timedelta(hours=1)
        await it.store.finish(
            await it.claim(), Outcome(RunOutcome.RELEASED, error="wait", not_before=later)
        )
    async with opened(tmp_path) as it:  # a day earlier
        async with Reader(it.layout.database) as reader:
            assert await Lookout(reader, it.clock).next_due() == it.clock.now()
        await it.store.end_backoff()
        await it.claim()


async def test_an_agent_that_is_not_logged_in_is_held_and_its_task_is_not_to_blame(
    it: Opened,
) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b")))
    why = "claude is not logged in: run `claude`, then /login"
    await it.store.finish(await it.claim(), Outcome(RunOutcome.RELEASED, error=why, holds=True))
    assert it.state("a") == it.state("b") == "READY"
    assert await it.store.claim("codex", "codex-1", HOST) is None
    queries, reader = await asked(it)
    async with reader:
        (hold,) = await queries.holds()
        assert (hold.cause, hold.reason) == (HoldCause.LOGIN, why)
        said = (await queries.detail("b")).explanation[0]
        assert f"claims of codex are held ({why}); log in, then `agentmux resume codex`." in said
    await it.store.set_budget(Budget())
    assert held(it) == {"codex": HoldCause.LOGIN}
    await it.store.resume("codex")
    await it.claim()
