"""A budget is one for all processes; who holds claims, who lifts that, and what a run may cost."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from support.engines import until
from support.stores import (
    HOST,
    a_dag,
    a_task,
    check_store,
    events_of,
    opened,
    select,
    tuples,
)

from engine.commands import Resume, Seed
from engine.errors import CommandNotAllowed, StorageError, ValidationError
from engine.model import Budget, HoldCause, Outcome, RunOutcome, Spending
from engine.store import claims, roster
from engine.store.audit import audit
from engine.store.lookout import Lookout
from engine.store.reader import Reader
from engine.store.spending import AT_WORK, SPENT, Account, accounts, why_spent
from engine.store.vitals import read_vitals

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from support.engines import Project
    from support.stores import Opened

    from engine.model import TaskDef


def agent_task(task_id: str, agent: str = "codex") -> TaskDef:
    return a_task(task_id, agent=agent, payload={"kind": "agent", "prompt": "Do it."})


MANY = a_dag(
    *(agent_task(f"t{n}") for n in range(9)), *(agent_task(f"c{n}", "x") for n in range(3))
)


async def work(it: Opened, *costs: float, agent: str = "codex") -> None:
    for dollars in costs:
        outcome = Outcome(RunOutcome.DONE, spending=Spending(cost=dollars))
        await it.store.finish(await it.claim(f"{agent}-1", agent), outcome)


async def in_vain(it: Opened, agent: str = "codex") -> bool:
    return await it.store.claim(agent, f"{agent}-9", HOST) is None


def held(it: Opened) -> dict[str, str]:
    return {row["agent"]: row["cause"] for row in select(it.layout, "SELECT * FROM holds")}


async def hold(it: Opened, cause: HoldCause, until_: str | None = None) -> None:
    change = partial(roster.hold, agent="codex", cause=cause, reason=f"for {cause}", until=until_)
    await it.store._writer.write(change)


# -- whose hold it is --------------------------------------------------------------------------

SOON = "2026-01-01T00:00:30.000Z"


@pytest.mark.parametrize("cause", [HoldCause.LIMIT, HoldCause.LOGIN, HoldCause.BUDGET])
async def test_what_an_operator_holds_nothing_else_lifts_whatever_had_held_it_before(
    tmp_path: Path, cause: HoldCause
) -> None:
    async with opened(tmp_path) as it:
        await it.store.seed(MANY)
        await hold(it, cause, SOON if cause is HoldCause.LIMIT else None)
        assert await it.store.hold("codex") is True
        assert await it.store.hold("codex") is False
        assert held(it) == {"codex": HoldCause.OPERATOR}
        await it.clock.advance(3600)  # type: ignore[attr-defined] # a test's clock
        await it.store.end_backoff()
        await it.store.set_budget(Budget())
        assert held(it) == {"codex": HoldCause.OPERATOR}
        assert await in_vain(it)
        await it.store.resume("codex")
        await it.claim()


@pytest.mark.parametrize("cause", [HoldCause.LIMIT, HoldCause.LOGIN, HoldCause.BUDGET])
async def test_nothing_takes_the_place_of_an_operators_hold(
    tmp_path: Path, cause: HoldCause
) -> None:
    async with opened(tmp_path) as it:
        await it.store.seed(MANY)
        await it.store.hold("codex")
        told = len(events_of(it.layout))
        await hold(it, cause, SOON if cause is HoldCause.LIMIT else None)
        assert held(it) == {"codex": HoldCause.OPERATOR}
        assert len(events_of(it.layout)) == told


async def test_a_limit_ends_by_itself_also_for_whoever_starts_after_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        await it.store.seed(MANY)
        await hold(it, HoldCause.LIMIT, SOON)
        clock = it.clock
    async with opened(tmp_path, clock=clock) as again, Reader(again.layout.database) as reader:
        lookout = Lookout(reader, clock)
        await again.store.end_backoff()
        assert await in_vain(again)
        due = await lookout.next_due()
        assert due is not None
        await clock.advance((due - clock.now()).total_seconds())  # type: ignore[attr-defined] # likewise
        await again.store.end_backoff()
        assert held(again) == {}
        await again.claim()
        assert await lookout.next_due() is None


# -- one budget for all ------------------------------------------------------------------------


async def test_the_budget_that_was_named_last_counts_for_every_process(tmp_path: Path) -> None:
    async with (
        opened(tmp_path, budget=Budget(agents={"codex": 1.0})) as first,
        opened(tmp_path, budget=Budget(agents={"codex": 1.0})) as second,
    ):
        await first.store.seed(MANY)
        await work(first, 0.5, 0.5)
        assert await in_vain(first)
        await second.store.set_budget(Budget(agents={"codex": 2.0}))
        # Not held again by a process that was started with less.
        await work(first, 0.5)
        await work(second, 0.5)
        assert await in_vain(second)
        assert held(first) == {"codex": HoldCause.BUDGET}
        await second.store.set_budget(Budget())
        await work(first, 9.0)
    check_store(first.layout)


async def test_resuming_lifts_nothing_that_would_be_held_again_at_once(tmp_path: Path) -> None:
    small, large = Budget(total=1.0), Budget(total=5.0)
    async with opened(tmp_path, budget=small) as it:
        await it.store.seed(MANY)
        await work(it, 1.0)
        assert await in_vain(it)
        await it.store.hold("x")
        for dry_run in (True, False):
            with pytest.raises(CommandNotAllowed, match=r"stay held: \$1\.00 of .*; raise"):
                await it.store.resume("codex", budget=small, dry_run=dry_run)
        assert await it.store.resume("*", budget=small), "the other one is lifted"
        assert held(it) == {"codex": HoldCause.BUDGET}
        with pytest.raises(CommandNotAllowed, match="stay held"):
            await it.store.resume("*", budget=small)
        assert await it.store.resume("codex", budget=large, dry_run=True)
        assert held(it) == {"codex": HoldCause.BUDGET}
        assert await it.store.resume("codex", budget=large)
        assert not await it.store.resume("codex", budget=large)
        assert held(it) == {}
        await it.claim()


async def test_a_budget_that_somebody_has_spoiled_stops_claims_and_a_start_mends_it(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, budget=Budget(total=1.0)) as it:
        await it.store.seed(MANY)

        def spoil(tx: Any) -> None:
            tx.db.execute("UPDATE meta SET value = '[1' WHERE key = 'budget'")

        await it.store._writer.write(spoil)
        with pytest.raises(StorageError, match="whoever starts workers writes it anew"):
            await it.claim()
        await it.store.set_budget(Budget(total=1.0))
        await it.claim()


async def test_a_budget_is_raised_in_the_settings_while_its_workers_go_on(
    project: Project,
) -> None:
    project.settings("budget: 1\n")
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a"), a_task("b"))))
        spend = Outcome(RunOutcome.DONE, spending=Spending(cost=1.0))
        claim = await engine._store.claim("codex", "codex-9", HOST)
        assert claim is not None
        await engine._store.finish(claim, spend)
        await engine.start_worker("codex")
        await until(lambda: "HELD" in project.kinds(), "the budget is spent")
        (need,) = await engine.attention()
        assert (need.key, need.subject) == ("budget:codex", "codex")
        assert "$1.00 of the $1.00 of all agents are spent" in need.words
        with pytest.raises(CommandNotAllowed, match=r"raise `budget:` in agentmux\.yaml"):
            await engine.execute(Resume("codex"))
        project.settings("budget: [2]\n")
        with pytest.raises(ValidationError, match="budget"):
            await engine.execute(Resume("codex"))
        project.settings("budget: 2\n")
        await engine.execute(Resume("codex"))
        await until(lambda: project.states() == {"DONE": 2}, "the rest is done")
    project.check()


# -- what a run is taken to cost ---------------------------------------------------------------


async def test_a_budget_is_used_up_to_its_last_cent(tmp_path: Path) -> None:
    async with opened(tmp_path, budget=Budget(total=0.3)) as it:
        await it.store.seed(MANY)
        await work(it, 0.1, 0.1, 0.1)
        assert await in_vain(it)
        (row,) = select(it.layout, "SELECT cost FROM spent")
        assert row["cost"] == 0.3


def test_a_dear_run_at_work_does_not_hide_what_the_others_may_cost() -> None:
    spent = [("codex", 4, 5, 0, 0, 8.0 + 9.0)]
    at_work = [("codex", 9.0, 0), ("codex", None, 0), ("codex", None, 0)]
    assert accounts(spent, at_work) == {"codex": Account(17.0, 2.0, 4.0, 3)}


async def take(it: Opened, *tokens: int | None, agent: str = "codex") -> None:
    """Have runs time out that have told tokens, but not what they cost."""
    for number in tokens:
        claim = await it.claim(f"{agent}-1", agent)
        await it.store.progress(claim, "half way", Spending(output_tokens=number))
        await it.store.finish(claim, Outcome(RunOutcome.FAILED, error="too long"))


async def test_a_run_that_never_told_its_cost_counts_as_others_cost(tmp_path: Path) -> None:
    async with opened(tmp_path, budget=Budget(total=3.5)) as it:
        await it.store.seed(MANY)
        await work(it, 1.0)
        await take(it, 5000, 5000)
        found = accounts(tuples(it.layout, SPENT), tuples(it.layout, AT_WORK))
        assert found == {"codex": Account(3.0, 1.0, silent=2)}
        assert await in_vain(it)
        assert held(it) == {"codex": "budget"}
        check_store(it.layout)


async def test_until_one_has_told_its_cost_runs_of_an_agent_work_alone(tmp_path: Path) -> None:
    async with opened(tmp_path, budget=Budget(total=10.0)) as it:
        await it.store.seed(MANY)
        await take(it, 5000)
        claim = await it.claim()
        assert await in_vain(it)
        await it.store.finish(claim, Outcome(RunOutcome.DONE, spending=Spending(cost=1.0)))
        await it.claim()
        assert not await in_vain(it)
        assert accounts(tuples(it.layout, SPENT), [])["codex"] == Account(2.0, 1.0, silent=1)


async def test_an_agent_that_never_tells_a_cost_works_alone_until_it_has_prices(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, budget=Budget(total=10.0)) as it:
        await it.store.seed(MANY)
        assert read_vitals(it.layout.database).unpriced == {}
        await take(it, 5000, 5000, 5000)
        assert read_vitals(it.layout.database).unpriced == {"codex": 3}
        claim = await it.claim()
        assert await in_vain(it)
        free = Spending(output_tokens=5000, cost=0.0)
        await it.store.finish(claim, Outcome(RunOutcome.DONE, spending=free))
        assert read_vitals(it.layout.database).unpriced == {}
        await it.claim()
        assert not await in_vain(it)


async def test_first_runs_of_agents_with_one_budget_work_one_after_the_other(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, budget=Budget(total=10.0)) as it:
        await it.store.seed(MANY)
        first = await it.claim()
        assert await in_vain(it, "x")
        await it.store.finish(first, Outcome(RunOutcome.DONE, spending=Spending(cost=1.0)))
        assert not await in_vain(it, "x")


async def test_budgets_of_single_agents_hold_up_no_other(tmp_path: Path) -> None:
    async with opened(tmp_path, budget=Budget(agents={"codex": 1.0, "x": 1.0})) as it:
        await it.store.seed(MANY)
        await it.claim()
        assert not await in_vain(it, "x")


async def test_runs_that_were_interrupted_make_the_next_one_no_dearer(tmp_path: Path) -> None:
    async with opened(tmp_path, budget=Budget(total=10.0)) as it:
        await it.store.seed(MANY)
        await work(it, 1.0)
        for _ in range(3):
            claim = await it.claim()
            await it.store.progress(claim, "half way", Spending(cost=1.0))
            await it.store.release(claim.task.id, claim.run_id, "operator")
        found = accounts(tuples(it.layout, SPENT), tuples(it.layout, AT_WORK))
        assert found == {"codex": Account(4.0, 1.0)}
        assert why_spent(found, Budget(total=5.0), "codex") is None
        assert why_spent(found, Budget(total=4.5), "codex") is not None


# -- what it costs to ask ----------------------------------------------------------------------


class Explaining(Reader):
    """Notes how SQLite goes about what it is asked."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.steps: list[str] = []

    async def rows(self, sql: str, parameters: Iterable[Any] = ()) -> list[Any]:
        values = list(parameters)
        if sql.startswith(("SELECT", "WITH")):
            plan = await super().rows(f"EXPLAIN QUERY PLAN {sql}", values)
            self.steps += [row[3] for row in plan]
        return await super().rows(sql, values)


async def test_neither_a_claim_nor_whoever_waits_for_one_looks_at_every_task(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as it, Explaining(it.layout.database) as reader:
        reader.steps.clear()
        lookout = Lookout(reader, it.clock)
        await reader.rows(claims._NEXT, ("codex", "codex-1"))
        await reader.rows(AT_WORK)
        due = f"SELECT 1 FROM tasks WHERE not_before <= ?1 OR {claims.SET_BACK}"
        await reader.rows(due, ("2026", "2027"))
        await lookout.next_due()
        await lookout.claimable("codex", 3)
        await lookout.issue_tasks("acme/site")
        scans = [step for step in reader.steps if step.startswith("SCAN t") and "INDEX" not in step]
        assert [step for step in scans if not step.startswith("SCAN tallies")] == []
        whole = [step for step in reader.steps if "in_file" in step or "on_screen" in step]
        assert whole == []


async def test_what_is_looked_through_before_a_start_is_read_in_stretches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.store.lookout._STRETCH", 3)
    others = [a_task(f"o{n}") for n in range(4)]
    mine = [agent_task(f"a{n}") for n in range(5)]
    async with opened(tmp_path) as it, Reader(it.layout.database) as reader:
        assert await Lookout(reader, it.clock).ready_of("codex", ["agent"]) == []
        await it.store.seed(a_dag(*others, *mine, agent_task("b", "x")))
        found = await Lookout(reader, it.clock).ready_of("codex", ["agent", "mcp-call"])
        assert [task.id for task in found] == [task.id for task in mine]
        assert await Lookout(reader, it.clock).ready_of("codex", []) == []


async def test_doctor_finds_and_mends_sums_that_somebody_has_changed(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        await it.store.seed(MANY)
        await work(it, 0.5)

        def spoil(tx: Any) -> None:
            tx.db.execute("UPDATE spent SET cost = 9, priced = 'x'")

        await it.store._writer.write(spoil)
        (found,) = audit(it.layout.database)
        assert "the runs of codex took [1, 1, 0, 0, 0, 0, 0, 0.5], the spent table" in found.message
        assert await it.store.mend() == ["what the runs took was summed up anew"]
        assert audit(it.layout.database) == []
