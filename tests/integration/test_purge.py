"""Purge: gone for good, and what that means for its dependents and for its own return."""

from __future__ import annotations

from support.soundness import Tables
from support.stores import (
    HOST,
    Opened,
    a_dag,
    a_task,
    check_store,
    events_of,
    kinds,
    select,
    tasks_of,
)

from engine.model import AgentRule, Outcome, RunOutcome
from engine.store import orders

DONE = Outcome(RunOutcome.DONE)
FAILED = Outcome(RunOutcome.FAILED, error="no")
CHAIN = a_dag(a_task("a"), a_task("b", "a"), a_task("c", "b"))


def _purged(it: Opened) -> dict[str, int]:
    return {row["id"]: row["met"] for row in select(it.layout, "SELECT * FROM purged")}


async def test_a_purged_done_dep_counts_as_met_for_good(it: Opened) -> None:
    await it.store.seed(CHAIN)
    await it.store.finish(await it.claim(), DONE)
    answers = await it.order(orders.purge, "a")
    assert (answers.blocked, _purged(it)) == (0, {"a": 1})
    assert (await it.claim()).task.id == "b"
    # And still so when b begins anew, or fails and is tried again.
    await it.order_one(orders.kill, "b")
    await it.store.gone(select(it.layout, "SELECT run_id FROM endings")[0]["run_id"])
    await it.order_one(orders.retry, "b")
    assert (await it.claim()).task.id == "b"


async def test_a_dep_that_is_purged_unfinished_counts_as_broken(it: Opened) -> None:
    await it.store.seed(CHAIN)
    answers = await it.order(orders.purge, "a")
    assert (answers.blocked, _purged(it)) == (2, {"a": 0})
    assert it.reasons("b") == it.reasons("c") == {"upstream"}
    assert kinds(events_of(it.layout, "a"))[-2:] == ["TASK_CANCELLED", "TASK_PURGED"]


async def test_a_failed_dep_that_is_purged_stays_broken(it: Opened) -> None:
    await it.store.seed(CHAIN)
    await it.store.finish(await it.claim(), FAILED)
    told = len(events_of(it.layout))
    answers = await it.order(orders.purge, "a")
    assert (answers.blocked, answers.unblocked) == (0, 0)
    assert it.reasons("b") == {"upstream"}
    assert kinds(events_of(it.layout)[told:]) == ["TASK_PURGED"]


async def test_a_done_dep_that_comes_back_has_to_be_done_again(it: Opened) -> None:
    await it.store.seed(CHAIN)
    await it.store.finish(await it.claim(), DONE)
    await it.order(orders.purge, "a")
    assert (await it.store.seed(CHAIN)).created == ["a"]
    assert (it.state("b"), it.row("b")["pending"], _purged(it)) == ("READY", 1, {})
    claim = await it.claim()
    assert (claim.task.id, claim.attempt) == ("a", 1)
    await it.store.finish(claim, DONE)
    assert (await it.claim()).task.id == "b"


async def test_a_dep_that_comes_back_unblocks_all_that_it_blocked(it: Opened) -> None:
    await it.store.seed(CHAIN)
    await it.order(orders.purge, "a")
    told = len(events_of(it.layout))
    await it.store.seed(CHAIN)
    assert [it.state(task_id) for task_id in "abc"] == ["READY"] * 3
    assert kinds(events_of(it.layout)[told:]) == [
        *("TASK_CREATED", "TASK_READY", "TASK_READY", "SEEDED")
    ]
    assert _purged(it) == {}


async def test_a_task_that_runs_while_its_dep_is_purged_and_comes_back_counts_right(
    it: Opened,
) -> None:
    await it.store.seed(CHAIN)
    await it.store.finish(await it.claim(), DONE)
    running = await it.claim()
    await it.order(orders.purge, "a")
    await it.store.seed(CHAIN)
    assert (it.state("b"), it.row("b")["pending"]) == ("RUNNING", 1)
    await it.store.release("b", running.run_id, "operator")
    assert (it.state("b"), (await it.claim()).task.id) == ("READY", "a")


async def test_the_middle_of_a_chain_that_is_purged_done_and_reseeded_waits_for_its_deps(
    it: Opened,
) -> None:
    await it.store.seed(CHAIN)
    for _ in range(2):
        await it.store.finish(await it.claim(), DONE)
    await it.order(orders.retry, "a")
    await it.order(orders.purge, "b")
    await it.store.seed(CHAIN)
    assert [it.row(task_id)["pending"] for task_id in "abc"] == [0, 1, 1]


async def test_what_nobody_depends_on_leaves_nothing_behind(it: Opened) -> None:
    await it.store.seed(CHAIN)
    await it.store.finish(await it.claim(), DONE)
    await it.order(orders.purge, "a")
    await it.order(orders.purge, "b")
    assert _purged(it) == {"b": 0}, "a is asked for no more"
    await it.order(orders.purge, "c")
    tables = Tables.read(it.layout)
    assert tables.tasks == {}
    counted = {"tallies", "counters"}
    assert {name: rows for name, rows in tables.rows.items() if rows and name not in counted} == {
        "meta": tables.rows["meta"]
    }
    assert all(row["n"] == 0 for row in tables.rows["tallies"])


async def test_a_purged_dep_is_remembered_for_the_last_one_that_has_it(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", "a"), a_task("c", "a")))
    await it.store.finish(await it.claim(), DONE)
    await it.order(orders.purge, "a")
    await it.order(orders.purge, "b")
    assert _purged(it) == {"a": 1}
    assert (await it.claim()).task.id == "c"


async def test_of_two_purged_deps_only_the_one_that_comes_back_is_mended(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b"), a_task("c", "a", "b")))
    await it.order(orders.purge, "a", "b")
    assert (it.row("c")["pending"], it.row("c")["broken"]) == (2, 2)
    await it.store.seed(a_dag(a_task("a")))
    assert (it.row("c")["pending"], it.row("c")["broken"]) == (2, 1)
    assert (it.reasons("c"), _purged(it)) == ({"upstream", "removed"}, {"b": 0})


async def test_a_dep_that_a_reseed_cuts_is_forgotten(it: Opened) -> None:
    await it.store.seed(CHAIN)
    await it.order(orders.purge, "a")
    await it.store.seed(a_dag(a_task("b"), a_task("c", "b")))
    assert ([it.state(task_id) for task_id in "bc"], _purged(it)) == (["READY", "READY"], {})


async def test_a_purged_task_that_is_neither_seeded_nor_needed_leaves_the_removed_ones_alone(
    it: Opened,
) -> None:
    await it.store.seed(CHAIN)
    await it.order(orders.purge, "a")
    report = await it.store.seed(a_dag(a_task("d")))
    assert set(report.blocked) == {"b", "c"}
    assert it.reasons("b") == {"upstream", "removed"}
    await it.store.seed(a_dag(a_task("d")))
    assert _purged(it) == {"a": 0}, "b, which is blocked, still names it"


async def test_a_purged_task_whose_run_still_ends_can_come_back_but_not_be_claimed(
    it: Opened,
) -> None:
    await it.store.seed(CHAIN)
    claim = await it.claim()
    await it.order(orders.purge, "a")
    await it.store.seed(CHAIN)
    assert (it.state("a"), it.row("a")["ending"]) == ("READY", claim.run_id)
    assert await it.store.claim("codex", "codex-2", HOST) is None
    check_store(it.layout)
    await it.store.gone(claim.run_id)
    assert (await it.claim()).task.id == "a"


async def test_the_run_of_a_purged_task_counts_towards_the_limit_until_its_tree_is_gone(
    it: Opened,
) -> None:
    dag = a_dag(a_task("a"), a_task("b"), agents={"codex": AgentRule(limit=1)})
    await it.store.seed(dag)
    claim = await it.claim()
    await it.order(orders.purge, "a")
    assert await it.store.claim("codex", "codex-2", HOST) is None
    await it.store.gone(claim.run_id)
    assert (await it.claim("codex-2")).task.id == "b"


async def test_ten_thousand_tasks_are_purged_whole_in_one_commit(it: Opened) -> None:
    tasks = [a_task(f"t{n}", *([f"t{n // 2}"] if n else [])) for n in range(10_000)]
    await it.store.seed(a_dag(*tasks, a_task("stays", "t7")))
    running = await it.claim()
    commits, told = len(it.commits), len(events_of(it.layout))
    answers = await it.order(orders.purge, *(task.id for task in tasks))
    assert (len(answers.done), answers.refused) == (10_000, {})
    assert len(it.commits) == commits + 1
    assert list(tasks_of(it.layout)) == ["stays"]
    assert it.reasons("stays") == {"upstream"}
    assert (answers.blocked, _purged(it)) == (1, {"t7": 0})
    assert answers.done["t0"].run_id == running.run_id
    assert len(events_of(it.layout)) - told == 20_001, "cancelled and purged, and one is blocked"
