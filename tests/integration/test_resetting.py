"""A reset in the store: the hold that begins it, and the one transaction that completes it."""

from __future__ import annotations

import pytest
from support.stores import (
    HOST,
    LEASE,
    Opened,
    a_dag,
    a_task,
    check_store,
    events_of,
    everything,
    kinds,
    select,
)

from engine.care.inspection import inspect
from engine.errors import ValidationError
from engine.findings import Level
from engine.model import AgentRule, Outcome, RunOutcome, WorkerStatus
from engine.store import orders
from engine.store.store import Store

DONE = Outcome(RunOutcome.DONE)
FAILED = Outcome(RunOutcome.FAILED, error="no")
BLOCKED = Outcome(RunOutcome.BLOCKED, error="ask somebody")
DAG = a_dag(a_task("a"), a_task("b", "a"), a_task("c"))


def _holds(it: Opened) -> set[str]:
    return {row["agent"] for row in select(it.layout, "SELECT agent FROM holds")}


def _is_marked(it: Opened) -> bool:
    return bool(select(it.layout, "SELECT * FROM meta WHERE key = 'reset'"))


# Begin and abandon.


async def test_a_reset_that_begins_holds_all_claims_and_one_that_is_abandoned_lifts_that(
    it: Opened,
) -> None:
    await it.store.seed(DAG)
    told = len(events_of(it.layout))
    await it.store.begin_reset()
    await it.store.begin_reset()
    assert await it.store.claim("codex", "codex-1", HOST) is None
    await it.store.abandon_reset()
    await it.store.abandon_reset()
    assert kinds(events_of(it.layout)[told:]) == ["HELD", "RESUMED"], "again changes nothing"
    assert it.commits[-1].ready, "idle workers are woken"
    assert not _is_marked(it)
    assert (await it.claim()).task.id == "a"


async def test_doctor_warns_of_a_reset_that_is_not_completed(it: Opened) -> None:
    await it.store.seed(DAG)
    await it.store.begin_reset()
    warned = [one for one in await inspect(it.layout) if one.level is Level.WARNING]
    assert [one.check for one in warned] == ["reset"]
    await it.store.abandon_reset()
    assert not any(one.check == "reset" for one in await inspect(it.layout))


@pytest.mark.parametrize("end", ["abandon", "complete"])
@pytest.mark.parametrize("times", [1, 2])
async def test_an_operators_hold_outlives_a_reset(it: Opened, end: str, times: int) -> None:
    await it.store.seed(DAG)
    await it.store.hold("*")
    await it.store.hold("claude")
    for _ in range(times):
        await it.store.begin_reset()
    if end == "abandon":
        await it.store.abandon_reset()
    else:
        await it.store.reset(DAG, fresh=False)
    assert _holds(it) == {"*", "claude"}
    assert not _is_marked(it)
    assert await it.store.claim("codex", "codex-1", HOST) is None


@pytest.mark.parametrize("end", ["abandon", "complete"])
async def test_a_hold_of_one_agent_outlives_a_reset(it: Opened, end: str) -> None:
    await it.store.seed(DAG)
    await it.store.hold("codex")
    await it.store.begin_reset()
    if end == "abandon":
        await it.store.abandon_reset()
    else:
        await it.store.reset(DAG, fresh=False)
    assert _holds(it) == {"codex"}


async def test_a_resume_ends_a_reset_that_was_cut_short(it: Opened) -> None:
    await it.store.seed(DAG)
    await it.store.begin_reset()
    assert await it.store.resume("*") is True
    assert (await it.claim()).task.id == "a"
    assert not _is_marked(it)
    await it.store.hold("*")
    await it.store.abandon_reset()
    assert _holds(it) == {"*"}, "a hold that came later is not the reset's"


async def test_a_reset_that_was_cut_short_is_known_and_completed_by_the_next_process(
    it: Opened,
) -> None:
    await it.store.seed(DAG)
    await it.store.begin_reset()
    other = Store(it.layout, it.clock, lease=LEASE)
    await other.open()
    try:
        assert await other.claim("codex", "codex-1", HOST) is None
        await other.begin_reset()
        await other.reset(DAG, fresh=False)
        assert await other.claim("codex", "codex-1", HOST) is not None
    finally:
        await other.close()
    assert _holds(it) == set()


# Complete.


async def test_a_reset_is_one_commit_that_begins_with_reset_and_ends_with_resumed(
    it: Opened,
) -> None:
    await it.store.seed(DAG)
    await it.store.begin_reset()
    commits, told = len(it.commits), len(events_of(it.layout))
    report = await it.store.reset(
        a_dag(a_task("a"), a_task("d"), agents={"codex": AgentRule(1)}), fresh=False
    )
    assert (report.created, report.blocked, report.unchanged) == (["d"], ["b", "c"], 1)
    events = events_of(it.layout)[told:]
    assert len(it.commits) == commits + 1
    assert kinds(events) == [
        *("RESET", "TASK_CREATED", "TASK_BLOCKED", "TASK_BLOCKED", "SEEDED", "RESUMED")
    ]
    assert events[0].data == {"dag": "dag.yaml", "fresh": False}
    assert it.commits[-1].ready["codex"] >= 1
    assert (await it.claim()).task.id == "a"
    assert await it.store.claim("codex", "codex-2", HOST) is None, "the new limit counts"


async def test_a_reset_keeps_what_was_done_and_a_fresh_one_begins_all_that_is_in_the_dag_anew(
    it: Opened,
) -> None:
    dag = a_dag(a_task("done"), a_task("failed"), a_task("human"), a_task("below", "failed"))
    await it.store.seed(a_dag(*dag.tasks, a_task("gone"), a_task("waits")))
    for outcome in (DONE, FAILED, BLOCKED, DONE):
        await it.store.finish(await it.claim(), outcome)
    await it.order(orders.cancel, "waits")
    dag = a_dag(*dag.tasks, a_task("waits"))
    before = {task_id: it.state(task_id) for task_id in ("done", "failed", "human", "below")}
    assert before == {"done": "DONE", "failed": "FAILED", "human": "BLOCKED", "below": "BLOCKED"}
    await it.store.reset(dag, fresh=False)
    assert {task_id: it.state(task_id) for task_id in before} == before
    plan = await it.store.reset(dag, fresh=True, dry_run=True)
    report = await it.store.reset(dag, fresh=True)
    assert report == plan
    assert sorted(report.retried) == ["done", "failed", "human", "waits"]
    ids = ("done", "failed", "human", "below", "waits")
    assert {it.state(task_id) for task_id in ids} == {"READY"}
    assert {it.row(task_id)["attempts"] for task_id in ids} == {0}
    assert it.state("gone") == "DONE", "it left the DAG, and nobody wants it again"
    assert [(await it.claim()).task.id for _ in range(4)] == ["done", "failed", "human", "waits"]


async def test_a_dry_run_of_a_reset_is_the_real_plan_and_changes_nothing(it: Opened) -> None:
    await it.store.seed(DAG)
    await it.store.finish(await it.claim(), DONE)
    new = a_dag(a_task("c", retries=1), a_task("a"), a_task("x", "a"))
    before = everything(it.layout)
    told: list[int] = []
    plan = await it.store.reset(new, fresh=True, dry_run=True, progress=told.append)
    assert everything(it.layout) == before
    assert told[-1] == 3
    await it.store.begin_reset()
    assert await it.store.reset(new, fresh=True) == plan
    assert (plan.created, plan.updated, plan.blocked, plan.retried) == (["x"], ["c"], ["b"], ["a"])


async def test_a_fresh_reset_leaves_what_still_runs_with_its_worker(it: Opened) -> None:
    await it.store.seed(DAG)
    claim = await it.claim()
    report = await it.store.reset(DAG, fresh=True)
    assert report.retried == []
    await it.store.finish(claim, DONE)
    assert it.state("a") == "DONE"


async def test_a_fresh_reset_of_what_still_ends_is_not_claimed_before_it_is_gone(
    it: Opened,
) -> None:
    await it.store.seed(a_dag(a_task("a")))
    claim = await it.claim()
    await it.order(orders.kill, "a")
    await it.store.reset(a_dag(a_task("a")), fresh=True)
    assert it.state("a") == "READY"
    assert await it.store.claim("codex", "codex-1", HOST) is None
    await it.store.gone(claim.run_id)
    assert (await it.claim()).task.id == "a"


async def test_a_reset_that_is_refused_changes_nothing_and_can_be_done_again(it: Opened) -> None:
    await it.store.seed(DAG)
    await it.store.begin_reset()
    await it.store.register("codex", "gemini", HOST, lambda _: True)
    before = everything(it.layout)
    new = a_dag(*DAG.tasks, a_task("g", agent="gemini"))
    with pytest.raises(ValidationError, match="gemini"):
        await it.store.reset(new, fresh=True)
    assert everything(it.layout) == before
    assert await it.store.claim("codex", "codex-1", HOST) is None, "claims are still held"
    await it.store.set_status("gemini", HOST, WorkerStatus.STOPPED)
    await it.store.reset(new, fresh=True)
    assert _holds(it) == set()
    assert (await it.claim()).task.id == "a"


async def test_a_reset_of_an_empty_store_seeds_it(it: Opened) -> None:
    await it.store.begin_reset()
    report = await it.store.reset(DAG, fresh=True)
    assert (report.created, report.retried) == (["a", "b", "c"], [])
    assert (await it.claim()).task.id == "a"


async def test_a_fresh_reset_against_the_order_of_the_deps_tells_no_more_than_it_must(
    it: Opened,
) -> None:
    size = 300
    chain = [a_task("t0"), *(a_task(f"t{n}", f"t{n - 1}") for n in range(1, size))]
    dag = a_dag(*reversed(chain))
    await it.store.seed(dag)
    await it.order(orders.cancel, *(task.id for task in dag.tasks))
    told = len(events_of(it.layout))
    report = await it.store.reset(dag, fresh=True)
    assert len(report.retried) == size
    assert {row["state"] for row in select(it.layout, "SELECT state FROM tasks")} == {"READY"}
    assert kinds(events_of(it.layout)[told:]) == ["RESET", "SEEDED", *["TASK_RETRIED"] * size]
    check_store(it.layout)
