"""Promises of orders on tasks (DESIGN §3): what each does, to what, and what it refuses."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest
from support.gate import Gate
from support.stores import (
    HOST,
    OTHER_HOST,
    Opened,
    a_dag,
    a_task,
    events_of,
    everything,
    in_words,
    kinds,
    select,
    tasks_of,
)

from engine.errors import Code, IllegalTransition, LeaseLost, TaskNotFound
from engine.model import Outcome, RunOutcome, State, WorkerStatus
from engine.store import orders
from engine.store.orders import Ordered

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.store.orders import Orders

DONE = Outcome(RunOutcome.DONE)
FAILED = Outcome(RunOutcome.FAILED, error="no")
BLOCKED = Outcome(RunOutcome.BLOCKED, error="ask somebody")

# a is brought into each state; b and c wait for it, d is beside it.
B, C, D = a_task("b", "a"), a_task("c", "b"), a_task("d", agent="claude")
DAG = a_dag(a_task("a", retries=3), B, C, D)


async def _ready(it: Opened) -> None:
    await it.store.seed(DAG)


async def _claimed(it: Opened) -> None:
    await _ready(it)
    assert await it.store.claim("codex", "codex-1", HOST, frozenset({"noop"})) is not None


async def _running(it: Opened) -> None:
    await _ready(it)
    await it.claim()


async def _done(it: Opened) -> None:
    await _ready(it)
    await it.store.finish(await it.claim(), DONE)


async def _failed(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), B, C, D))
    await it.store.finish(await it.claim(), FAILED)


async def _human(it: Opened) -> None:
    await _ready(it)
    await it.store.finish(await it.claim(), BLOCKED)


async def _upstream(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("z", agent="gemini"), a_task("a", "z"), B, C, D))
    claim = await it.claim("gemini-1", "gemini")
    await it.store.finish(claim, BLOCKED)


async def _removed(it: Opened) -> None:
    await _ready(it)
    await it.store.seed(a_dag(D))


async def _human_and_removed(it: Opened) -> None:
    await _human(it)
    await it.store.seed(a_dag(D))


async def _cancelled(it: Opened) -> None:
    await _ready(it)
    await it.order_one(orders.cancel, "a")


STATES = {
    "READY": _ready,
    "CLAIMED": _claimed,
    "RUNNING": _running,
    "DONE": _done,
    "FAILED": _failed,
    "CANCELLED": _cancelled,
    "BLOCKED human": _human,
    "BLOCKED upstream": _upstream,
    "BLOCKED removed": _removed,
    "BLOCKED human, removed": _human_and_removed,
}
HELD = {"CLAIMED", "RUNNING"}
OVER = {"DONE", "FAILED", "CANCELLED"}
LEGAL: dict[str, tuple[Callable[..., Orders], set[str], str]] = {
    "release": (orders.release, HELD, ""),
    "cancel": (orders.cancel, STATES.keys() - OVER, "CANCELLED"),
    "kill": (orders.kill, HELD, "FAILED"),
    "retry": (orders.retry, OVER | {"BLOCKED human"}, "READY"),
    "purge": (orders.purge, set(STATES), "gone"),
}
TOLD = {
    "release": [],
    "cancel": ["TASK_CANCELLED"],
    "kill": ["TASK_FAILED"],
    "retry": ["TASK_RETRIED"],
    "purge": ["TASK_PURGED"],
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("order", LEGAL)
async def test_an_order_does_the_same_as_its_dry_run_said_or_refuses_and_changes_nothing(
    it: Opened, order: str, state: str
) -> None:
    what, legal, becomes = LEGAL[order]
    await STATES[state](it)
    before, told = everything(it.layout), len(events_of(it.layout))
    held = it.row("a")
    commits = len(it.commits)
    plan = await it.order(what, "a", dry_run=True)
    assert everything(it.layout) == before
    answers = await it.order(what, "a")
    assert in_words(answers) == in_words(plan)
    if state not in legal:
        assert everything(it.layout) == before
        refusal = answers.refused["a"]
        assert isinstance(refusal, IllegalTransition)
        assert refusal.code is Code.ILLEGAL_TRANSITION
        assert f"is {state.split(maxsplit=1)[0]}" in str(refusal)
        assert f"cannot {order}" in str(refusal)
        return
    assert not answers.refused
    one = answers.done["a"]
    run_id, worker_id = held["run_id"], held["claimed_by"]
    if order == "retry":
        assert one == Ordered(State.READY)
    else:
        assert (one.run_id, one.worker_id) == (run_id, worker_id)
    expected = list(TOLD[order])
    if order == "purge" and state not in OVER:
        expected.insert(0, "TASK_CANCELLED")
    assert kinds(e for e in events_of(it.layout)[told:] if e.task_id == "a") == expected
    if becomes == "gone":
        assert one.state is None
        assert "a" not in tasks_of(it.layout)
        assert select(it.layout, "SELECT * FROM runs WHERE task_id = 'a'") == []
    else:
        assert one.state == it.state("a") == (becomes or state)
        assert it.reasons("a") == set()
    taken = [run_id for committed in it.commits[commits:] for run_id in committed.taken]
    assert taken == ([run_id] if run_id and order != "release" else []), "its host is told"


@pytest.mark.parametrize("order", LEGAL)
async def test_a_task_that_is_not_there_is_refused(it: Opened, order: str) -> None:
    await _ready(it)
    answers = await it.order(LEGAL[order][0], "nobody")
    assert isinstance(answers.refused["nobody"], TaskNotFound)
    assert not answers.done


async def test_a_bulk_order_does_what_it_can_once_and_says_why_not_for_the_rest(
    it: Opened,
) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b"), a_task("c"), a_task("d")))
    await it.store.finish(await it.claim(), DONE)
    held = await it.claim()
    answers = await it.order(orders.cancel, "a", "b", "nobody", "c", "b")
    assert answers.done == {
        "b": Ordered(State.CANCELLED, held.run_id, "codex-1"),
        "c": Ordered(State.CANCELLED),
    }
    assert {task_id: error.code for task_id, error in answers.refused.items()} == {
        "a": Code.ILLEGAL_TRANSITION,
        "nobody": Code.TASK_NOT_FOUND,
    }
    assert [it.state(task_id) for task_id in "abcd"] == ["DONE", "CANCELLED", "CANCELLED", "READY"]
    assert len({event.ts for event in events_of(it.layout) if event.type == "TASK_CANCELLED"}) == 1


@pytest.mark.parametrize("order", ["release", "kill"])
async def test_a_task_that_is_named_twice_is_no_refusal(it: Opened, order: str) -> None:
    await _running(it)
    answers = await it.order(LEGAL[order][0], "a", "a")
    assert (list(answers.done), answers.refused) == (["a"], {})


# Release.


async def test_a_release_is_asked_for_and_told_only_when_it_is_complete(it: Opened) -> None:
    await _running(it)
    before = it.row("a")
    await it.order_one(orders.release, "a")
    assert it.row("a") == before | {"asked": "release"}
    assert (await it.order_one(orders.release, "a")).run_id == before["run_id"], "again is no fault"
    await it.store.release("a", before["run_id"], "operator")
    assert (it.state("a"), it.row("a")["attempts"], it.row("a")["asked"]) == ("READY", 0, None)


async def test_a_release_leaves_a_run_alone_that_a_reaper_is_ending(it: Opened) -> None:
    await _running(it)
    await it.store.condemn("a", it.row("a")["run_id"])
    await it.order_one(orders.release, "a")
    assert it.row("a")["asked"] == "expire"


# Cancel and kill.


@pytest.mark.parametrize("state", ["CLAIMED", "RUNNING"])
@pytest.mark.parametrize(
    ("order", "outcome"), [("cancel", "cancelled"), ("kill", "killed"), ("purge", "cancelled")]
)
async def test_what_ends_a_run_says_so_in_its_row_and_its_event(
    it: Opened, order: str, outcome: str, state: str
) -> None:
    await STATES[state](it)
    await it.clock.advance(1.5)  # type: ignore[attr-defined] # it is a ManualClock
    one = await it.order_one(LEGAL[order][0], "a")
    told = next(event for event in events_of(it.layout, "a") if "outcome" in event.data)
    assert (told.run_id, told.worker_id, told.agent) == (one.run_id, "codex-1", "codex")
    assert (told.data["outcome"], told.data["durationMs"]) == (outcome, 1500)
    runs = select(it.layout, "SELECT outcome, error FROM runs")
    ended = {"outcome": outcome, "error": f"{outcome} by operator"}
    assert runs == ([] if order == "purge" else [ended])


async def test_a_killed_task_failed_for_good_whatever_retries_are_left(it: Opened) -> None:
    await _running(it)
    await it.order_one(orders.kill, "a")
    row = it.row("a")
    assert (row["state"], row["not_before"], row["error"]) == ("FAILED", None, "killed by operator")
    assert (row["attempts"], row["retries"]) == (1, 3)


async def test_a_cancelled_backoff_is_over(it: Opened) -> None:
    await _ready(it)
    await it.store.finish(await it.claim(), FAILED)
    assert it.row("a")["not_before"] is not None
    await it.order_one(orders.cancel, "a")
    assert (it.row("a")["not_before"], it.row("a")["error"]) == (None, None)


@pytest.mark.parametrize("order", ["cancel", "kill", "purge"])
async def test_what_depends_on_a_task_that_is_ended_is_blocked_until_it_is_mended(
    it: Opened, order: str
) -> None:
    await _running(it)
    answers = await it.order(LEGAL[order][0], "a")
    assert (answers.blocked, answers.unblocked) == (2, 0)
    assert [it.state(task_id) for task_id in "bcd"] == ["BLOCKED", "BLOCKED", "READY"]
    assert it.reasons("b") == it.reasons("c") == {"upstream"}
    assert (it.row("b")["pending"], it.row("b")["broken"]) == (1, 1)
    if order == "purge":
        report = await it.store.seed(DAG)
        assert report.created == ["a"]
    else:
        answers = await it.order(orders.retry, "a")
        assert (answers.blocked, answers.unblocked) == (0, 2)
    assert [it.state(task_id) for task_id in "abc"] == ["READY"] * 3
    assert (it.row("b")["pending"], it.row("b")["broken"]) == (1, 0)


async def test_what_was_blocked_for_another_reason_is_not_counted_as_blocked_by_an_order(
    it: Opened,
) -> None:
    await _ready(it)
    await it.store.seed(a_dag(a_task("a", retries=3), D))  # b and c left the DAG
    answers = await it.order(orders.cancel, "a")
    assert it.reasons("b") == {"upstream", "removed"}
    assert (answers.blocked, answers.unblocked) == (0, 0)
    answers = await it.order(orders.retry, "a")
    assert it.reasons("b") == {"removed"}
    assert (answers.blocked, answers.unblocked) == (0, 0)


@pytest.mark.parametrize("file", ["abc", "cba", "bca"])
@pytest.mark.parametrize("order", ["cancel", "purge"])
async def test_tasks_that_are_ended_together_are_not_blocked_on_the_way(
    it: Opened, file: str, order: str
) -> None:
    tasks = {"a": a_task("a"), "b": B, "c": C}
    await it.store.seed(a_dag(*(tasks[task_id] for task_id in file)))
    told = len(events_of(it.layout))
    answers = await it.order(LEGAL[order][0], *file)
    assert (answers.blocked, answers.unblocked) == (0, 0)
    events = events_of(it.layout)[told:]
    assert {event.type for event in events} == {"TASK_CANCELLED", *TOLD[order]}
    assert [event.task_id for event in events if event.type == "TASK_CANCELLED"] == list("cba")


async def test_a_late_success_of_a_cancelled_task_is_recorded_and_refused(it: Opened) -> None:
    await _ready(it)
    claim = await it.claim()
    await it.order_one(orders.cancel, "a")
    with pytest.raises(LeaseLost):
        await it.store.finish(claim, Outcome(RunOutcome.DONE, result={"n": 1}))
    assert it.state("a") == "CANCELLED"
    late = events_of(it.layout)[-1]
    assert (late.type, late.run_id, late.worker_id) == ("LATE_RESULT", claim.run_id, "codex-1")
    assert late.data == {"outcome": "done", "result": {"n": 1}}


async def test_a_late_success_of_a_purged_task_names_who_brought_it(it: Opened) -> None:
    await _ready(it)
    claim = await it.claim()
    await it.order_one(orders.purge, "a")
    with pytest.raises(LeaseLost):
        await it.store.finish(claim, DONE)
    late = events_of(it.layout)[-1]
    assert (late.type, late.task_id, late.run_id) == ("LATE_RESULT", "a", claim.run_id)
    assert (late.agent, late.worker_id) == ("codex", "codex-1")
    assert "a" not in tasks_of(it.layout)


# Killing workers.


async def _kill_worker(it: Opened, worker_id: str, *, dry_run: bool = False) -> Orders:
    change = partial(orders.kill_held, worker_id=worker_id, host=HOST)
    return await it.store.order(change, dry_run=dry_run)


async def test_a_killed_worker_loses_its_run_and_claims_no_more(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a", retries=3), a_task("b"), a_task("c")))
    for name in ("codex-1", "codex-2"):
        await it.store.register("codex", name, HOST, lambda _: True)
    held, other = await it.claim("codex-1"), await it.claim("codex-2")
    before = everything(it.layout)
    plan = await _kill_worker(it, "codex-1", dry_run=True)
    assert everything(it.layout) == before
    answers = await _kill_worker(it, "codex-1")
    assert in_words(answers) == in_words(plan)
    assert answers.done == {"a": Ordered(State.FAILED, held.run_id, "codex-1")}
    assert (it.state("a"), it.state("b"), it.row("b")["run_id"]) == (
        "FAILED",
        "RUNNING",
        other.run_id,
    )
    assert await it.store.claim("codex", "codex-1", HOST) is None
    assert (await it.claim("codex-2")).task.id == "c"
    assert "WORKER_STOPPING" in kinds(events_of(it.layout))
    assert (await _kill_worker(it, "codex-1")).done == {}, "again is no fault"


async def test_a_worker_that_is_stopping_already_loses_its_run_too(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a")))
    await it.store.register("codex", "codex-1", HOST, lambda _: True)
    await it.claim()
    await it.store.set_status("codex-1", HOST, WorkerStatus.STOPPING)
    assert list((await _kill_worker(it, "codex-1")).done) == ["a"]


async def test_a_newer_worker_of_the_same_id_keeps_its_run(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a")))
    await it.store.register("codex", "codex-1", HOST, lambda _: True)
    await it.store.register("codex", "codex-1", OTHER_HOST, lambda _: False)
    assert await it.store.claim("codex", "codex-1", OTHER_HOST) is not None
    assert (await _kill_worker(it, "codex-1")).done == {}
    assert it.state("a") == "RUNNING"
    assert select(it.layout, "SELECT status FROM workers") == [{"status": "live"}]


# In one transaction with others.


@pytest.mark.parametrize("order", ["cancel", "kill", "purge", "kill worker", "release"])
async def test_an_order_in_the_same_commit_as_the_claim_ends_the_run(
    it: Opened, order: str
) -> None:
    await _ready(it)
    gate = Gate(it.store)
    with gate.closed(after_commit=False):
        blocker = asyncio.create_task(it.store.beat([]))
        await gate.arrived()
        commits = len(it.commits)
        claiming = asyncio.create_task(it.claim())
        ordering = asyncio.create_task(
            _kill_worker(it, "codex-1")
            if order == "kill worker"
            else it.order(LEGAL[order][0], "a")
        )
        await asyncio.sleep(0)
    claim, answers = await claiming, await ordering
    await blocker
    assert len(it.commits) == commits + 1, "one transaction"
    assert answers.done["a"].run_id == claim.run_id
    if order == "release":
        assert it.row("a")["asked"] == "release"
        return
    assert list(it.commits[-1].taken) == [claim.run_id]
    (ending,) = select(it.layout, "SELECT * FROM endings")
    assert (ending["run_id"], ending["task_id"], ending["worker_id"], ending["host_pid"]) == (
        claim.run_id,
        "a",
        "codex-1",
        HOST.pid,
    )
    with pytest.raises(LeaseLost):
        await it.store.lead(claim, OTHER_HOST)
