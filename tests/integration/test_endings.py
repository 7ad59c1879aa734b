"""A task is claimable only when its former run's tree is known to be gone (DESIGN §4.2)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from support.gate import Gate
from support.stores import (
    HOST,
    OTHER_HOST,
    Opened,
    a_dag,
    a_task,
    events_of,
    kinds,
    select,
)

from engine.errors import LeaseLost
from engine.model import AgentRule, Outcome, RunOutcome
from engine.store import orders

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from engine.model import Claim

DONE = Outcome(RunOutcome.DONE, result={"n": 1})
FAILED = Outcome(RunOutcome.FAILED, error="no")


async def _cancelled(it: Opened, _claim: Claim) -> None:
    await it.order_one(orders.cancel, "a")


async def _killed(it: Opened, _claim: Claim) -> None:
    await it.order_one(orders.kill, "a")


async def _timed_out(it: Opened, claim: Claim) -> None:
    assert await it.store.time_out("a", claim.run_id)


async def _finished(it: Opened, claim: Claim) -> None:
    await it.store.finish(claim, DONE, tree_gone=False)


async def _failed(it: Opened, claim: Claim) -> None:
    await it.store.finish(claim, FAILED, tree_gone=False)


async def _blocked(it: Opened, claim: Claim) -> None:
    await it.store.finish(claim, Outcome(RunOutcome.BLOCKED, error="why"), tree_gone=False)


TAKES: dict[str, Callable[[Opened, Claim], Awaitable[None]]] = {
    "cancelled": _cancelled,
    "killed": _killed,
    "timed out": _timed_out,
    "done": _finished,
    "failed": _failed,
    "blocked": _blocked,
}


@pytest.mark.parametrize("how", TAKES)
async def test_a_task_whose_former_run_may_still_live_is_not_claimed_before_it_is_gone(
    it: Opened, how: str
) -> None:
    await it.store.seed(a_dag(a_task("a", retries=2)))
    claim = await it.claim()
    await it.store.lead(claim, OTHER_HOST)
    await TAKES[how](it, claim)
    assert it.row("a")["ending"] == claim.run_id
    (ending,) = select(it.layout, "SELECT * FROM endings")
    leader = (ending["pid"], ending["pid_started"])
    assert leader == (OTHER_HOST.pid, OTHER_HOST.started), "whoever ends the tree finds it"
    await it.clock.advance(400)  # type: ignore[attr-defined] # it is a ManualClock
    await it.store.end_backoff()
    await it.order(orders.retry, "a")
    assert (it.state("a"), it.row("a")["pending"], it.row("a")["not_before"]) == ("READY", 0, None)
    assert await it.store.claim("codex", "codex-2", HOST) is None
    await it.store.gone("another run")
    assert await it.store.claim("codex", "codex-2", HOST) is None
    commits = len(it.commits)
    await it.store.gone(claim.run_id)
    assert [dict(told.ready) for told in it.commits[commits:]] == [{"codex": 1}], "one is woken"
    assert (await it.claim("codex-2")).run_id != claim.run_id
    assert select(it.layout, "SELECT * FROM endings") == []


@pytest.mark.parametrize("how", TAKES)
async def test_a_tree_that_is_being_ended_counts_towards_its_agents_limit(
    it: Opened, how: str
) -> None:
    tasks = (a_task("a"), a_task("b"), a_task("c", agent="claude"))
    await it.store.seed(a_dag(*tasks, agents={"codex": AgentRule(limit=1)}))
    claim = await it.claim()
    await TAKES[how](it, claim)
    assert await it.store.claim("codex", "codex-2", HOST) is None
    assert (await it.claim("claude-1", "claude")).task.id == "c", "only towards its own agent's"
    await it.store.gone(claim.run_id)
    assert (await it.claim("codex-2")).task.id == "b"


@pytest.mark.parametrize("how", TAKES)
async def test_a_late_result_is_recorded_and_says_whether_the_tree_is_gone(
    it: Opened, how: str
) -> None:
    await it.store.seed(a_dag(a_task("a", retries=2)))
    claim = await it.claim()
    await TAKES[how](it, claim)
    before = it.row("a")
    with pytest.raises(LeaseLost):
        await it.store.finish(claim, DONE, tree_gone=False)
    assert it.row("a") == before
    with pytest.raises(LeaseLost):
        await it.store.finish(claim, FAILED)
    assert it.row("a") == before | {"ending": None}
    late = [event for event in events_of(it.layout) if event.type == "LATE_RESULT"]
    assert [event.data for event in late] == [
        {"outcome": "done", "result": {"n": 1}},
        {"outcome": "failed", "error": "no"},
    ]
    assert {event.run_id for event in late} == {claim.run_id}


async def test_a_worker_that_reports_late_may_take_the_very_task_again(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a")))
    claim = await it.claim()
    await it.order_one(orders.cancel, "a")
    await it.order_one(orders.retry, "a")
    following = await it.store.finish_and_claim(claim, DONE, HOST)
    assert following is not None
    assert (following.task.id, following.attempt) == ("a", 1)
    assert following.run_id != claim.run_id


async def test_the_end_of_a_run_that_holds_its_task_is_not_taken_from_it_by_gone(
    it: Opened,
) -> None:
    await it.store.seed(a_dag(a_task("a")))
    claim = await it.claim()
    await it.store.gone(claim.run_id)
    assert it.row("a")["run_id"] == claim.run_id
    await it.store.finish(claim, DONE)


async def test_a_run_ended_by_others_and_not_gone_yet_stays_theirs(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a", retries=2)))
    claim = await it.claim()
    await it.store.condemn("a", claim.run_id)
    await it.store.finish(claim, FAILED, tree_gone=False)
    assert (it.state("a"), it.row("a")["asked"]) == ("RUNNING", "expire")
    assert await it.store.expire("a", claim.run_id)
    assert (it.state("a"), it.row("a")["ending"]) == ("READY", None)


# Time limits.


async def test_a_timeout_takes_the_claim_at_once_and_leaves_the_retries_their_backoff(
    it: Opened,
) -> None:
    await it.store.seed(a_dag(a_task("a", retries=1, timeout=1.5), a_task("b", "a")))
    claim = await it.claim()
    await it.store.time_out("a", claim.run_id)
    row = it.row("a")
    assert (row["state"], row["attempts"], row["error"]) == ("READY", 1, "timed out after 1.5 s")
    assert row["not_before"] is not None
    assert (row["run_id"], row["timeout_at"], row["lease_until"]) == (None, None, None)
    assert list(it.commits[-1].taken) == [claim.run_id]
    told = events_of(it.layout)[-1]
    assert (told.type, told.state, told.data["outcome"]) == ("TASK_FAILED", "READY", "timed out")
    (run,) = select(it.layout, "SELECT outcome, error FROM runs")
    assert run == {"outcome": "timed out", "error": "timed out after 1.5 s"}
    await it.store.gone(claim.run_id)
    await it.clock.advance(400)  # type: ignore[attr-defined] # it is a ManualClock
    await it.store.end_backoff()
    assert await it.store.time_out("a", (await it.claim()).run_id)
    assert (it.state("a"), it.reasons("b")) == ("FAILED", {"upstream"})


async def test_a_timeout_of_a_run_that_holds_nothing_changes_nothing(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a", retries=1)))
    claim = await it.claim()
    assert await it.store.time_out("a", claim.run_id) is True
    told = len(events_of(it.layout))
    assert await it.store.time_out("a", claim.run_id) is False
    assert await it.store.time_out("nobody", claim.run_id) is False
    assert len(events_of(it.layout)) == told


async def test_a_run_that_others_end_already_does_not_time_out(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a")))
    claim = await it.claim()
    await it.store.condemn("a", claim.run_id)
    assert await it.store.time_out("a", claim.run_id) is False
    assert it.state("a") == "RUNNING"


@pytest.mark.parametrize("first", ["finish", "time out"])
@pytest.mark.parametrize("other", ["time out", "cancel", "kill", "purge"])
async def test_of_a_result_and_what_takes_the_claim_the_first_one_counts_alone(
    it: Opened, first: str, other: str
) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", "a")))
    claim = await it.claim()
    by_order: dict[str, Any] = {
        "cancel": orders.cancel,
        "kill": orders.kill,
        "purge": orders.purge,
    }
    states = {"time out": "FAILED", "cancel": "CANCELLED", "kill": "FAILED"}

    async def take() -> bool:
        if other == "time out":
            return await it.store.time_out("a", claim.run_id)
        return "a" in (await it.order(by_order[other], "a")).done

    gate = Gate(it.store)
    with gate.closed(after_commit=False):
        blocker = asyncio.create_task(it.store.beat([]))
        await gate.arrived()
        commits = len(it.commits)
        works = [it.store.finish(claim, DONE), take()]
        both = [asyncio.ensure_future(w) for w in (works if first == "finish" else works[::-1])]
        await asyncio.sleep(0)
    answers = await asyncio.gather(*both, return_exceptions=True)
    await blocker
    assert len(it.commits) == commits + 1, "one transaction"
    told = kinds(events_of(it.layout))
    if first == "finish":
        assert answers == [None, other == "purge"]
        assert told.count("TASK_COMPLETED") == 1
        assert told.count("LATE_RESULT") == 0
        if other != "purge":
            assert it.state("a") == "DONE"
    else:
        assert answers[0] is True
        assert isinstance(answers[1], LeaseLost)
        assert (told.count("TASK_COMPLETED"), told.count("LATE_RESULT")) == (0, 1)
        assert it.state("b") == "BLOCKED"
        if other != "purge":
            assert (it.state("a"), it.row("a")["ending"]) == (states[other], None)
    assert select(it.layout, "SELECT * FROM endings") == [], "a result says that the tree is gone"
