"""Retry: what is over begins anew, with a fresh count of attempts, alone or with what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.stores import (
    HOST,
    a_dag,
    a_task,
    check_store,
    events_of,
    everything,
    in_words,
    kinds,
    select,
)

from engine.errors import IllegalTransition, TaskNotFound
from engine.model import Outcome, RunOutcome, State
from engine.store import orders
from engine.store.orders import Ordered

if TYPE_CHECKING:
    from support.stores import Opened

DONE = Outcome(RunOutcome.DONE)
FAILED = Outcome(RunOutcome.FAILED, error="no")


async def _ended(it: Opened, kind: RunOutcome) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", "a")))
    claim = await it.store.claim("codex", "codex-1", HOST)
    assert claim is not None
    await it.store.finish(claim, Outcome(kind, error="it broke"))


def _rows(it: Opened) -> list[tuple[object, ...]]:
    found = select(it.layout, "SELECT state, reasons, attempts, pending FROM tasks ORDER BY id")
    return [tuple(row.values()) for row in found]


def _states(it: Opened) -> str:
    return " ".join(
        f"{row['id']}:{row['state']}"
        for row in select(it.layout, "SELECT id, state FROM tasks ORDER BY id")
    )


@pytest.mark.parametrize("kind", [RunOutcome.FAILED, RunOutcome.BLOCKED])
async def test_a_failed_or_blocked_task_is_ready_again_and_so_is_what_it_blocked(
    it: Opened, kind: RunOutcome
) -> None:
    await _ended(it, kind)
    assert (await it.order_one(orders.retry, "a")).state is State.READY
    assert _rows(it) == [("READY", "[]", 0, 0), ("READY", "[]", 0, 1)]
    assert it.commits[-1].ready["codex"] >= 1, "somebody is woken for it"
    assert await it.store.claim("codex", "codex-1", HOST) is not None
    check_store(it.layout)


async def test_what_waited_for_a_done_task_waits_again_once_that_is_retried(it: Opened) -> None:
    await _ended(it, RunOutcome.DONE)
    assert (await it.order_one(orders.retry, "a")).state is State.READY
    assert _rows(it) == [("READY", "[]", 0, 0), ("READY", "[]", 0, 1)]
    check_store(it.layout)


async def test_a_dry_run_of_a_retry_changes_nothing(it: Opened) -> None:
    await _ended(it, RunOutcome.FAILED)
    before = everything(it.layout)
    assert (await it.order_one(orders.retry, "a", dry_run=True)).state is State.READY
    assert everything(it.layout) == before


async def test_what_runs_waits_or_is_unknown_cannot_be_retried(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", "a")))
    with pytest.raises(IllegalTransition, match="READY"):
        await it.order_one(orders.retry, "b")
    await it.store.claim("codex", "codex-1", HOST)
    with pytest.raises(IllegalTransition, match="RUNNING"):
        await it.order_one(orders.retry, "a")
    with pytest.raises(TaskNotFound):
        await it.order_one(orders.retry, "nobody")
    check_store(it.layout)


async def test_a_retry_gives_all_attempts_and_all_losses_anew(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a")))
    for _ in range(3):
        await it.store.expire("a", (await it.claim()).run_id)
    assert it.reasons("a") == {"human"}
    await it.order_one(orders.retry, "a")
    row = it.row("a")
    assert (row["attempts"], row["lost"], row["error"], row["not_before"]) == (0, 0, None, None)
    for lost in range(3):
        assert it.state("a") == "READY", f"{lost} lost in a row"
        await it.store.expire("a", (await it.claim()).run_id)
    assert it.reasons("a") == {"human"}


async def test_a_retried_task_whose_dep_is_broken_is_blocked_and_blocks_nobody_anew(
    it: Opened,
) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", "a"), a_task("c", "b"), a_task("d", "c")))
    await it.order(orders.cancel, "a", "b")
    told = len(events_of(it.layout))
    answers = await it.order(orders.retry, "b")
    assert answers.done == {"b": Ordered(State.BLOCKED)}
    assert (answers.blocked, answers.unblocked) == (0, 0)
    assert it.reasons("b") == {"upstream"}
    assert kinds(events_of(it.layout)[told:]) == ["TASK_RETRIED", "TASK_BLOCKED"], (
        "what is below it was blocked all the time"
    )
    await it.order(orders.retry, "a")
    assert _states(it) == "a:READY b:READY c:READY d:READY"


async def test_a_bulk_retry_says_where_each_task_stands_in_the_end(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", "a"), a_task("c", "b")))
    await it.order(orders.cancel, "a", "b", "c")
    answers = await it.order(orders.retry, "c", "b", "a", dry_run=True)
    assert {one.state for one in answers.done.values()} == {State.READY}
    again = await it.order(orders.retry, "c", "b", "a")
    assert in_words(again) == in_words(answers)
    assert _states(it) == "a:READY b:READY c:READY"


async def test_a_bulk_retry_against_the_order_of_the_deps_tells_no_more_than_it_must(
    it: Opened,
) -> None:
    size = 300
    chain = [a_task("t0"), *(a_task(f"t{n}", f"t{n - 1}") for n in range(1, size))]
    await it.store.seed(a_dag(*reversed(chain)))
    names = [task.id for task in reversed(chain)]
    await it.order(orders.cancel, *names)
    told = len(events_of(it.layout))
    await it.order(orders.retry, *names)
    assert {row["state"] for row in select(it.layout, "SELECT state FROM tasks")} == {"READY"}
    assert kinds(events_of(it.layout)[told:]) == ["TASK_RETRIED"] * size


async def test_what_a_bulk_retry_unblocks_is_done_by_it_and_not_refused(it: Opened) -> None:
    chain = (a_task("a"), a_task("b", "a"), a_task("c", "b"), a_task("d", "c"))
    await it.store.seed(a_dag(*chain, a_task("x"), a_task("y", "x")))
    await it.order(orders.cancel, "a", "x")
    assert _states(it) == "a:CANCELLED b:BLOCKED c:BLOCKED d:BLOCKED x:CANCELLED y:BLOCKED"
    # Marked from below, and without b, which is between them.
    plan = await it.order(orders.retry, "d", "c", "a", "y", dry_run=True)
    answers = await it.order(orders.retry, "d", "c", "a", "y")
    assert in_words(answers) == in_words(plan)
    assert set(answers.done) == {"a", "c", "d"}
    assert {one.state for one in answers.done.values()} == {State.READY}
    assert answers.unblocked == 1, "b, which nobody asked for"
    assert {name: str(error) for name, error in answers.refused.items()} == {
        "y": "task 'y' is BLOCKED (upstream): cannot retry; retry what it depends on"
    }
    assert _states(it) == "a:READY b:READY c:READY d:READY x:CANCELLED y:BLOCKED"
    check_store(it.layout)


# With everything downstream.


async def test_a_retry_downstream_takes_all_that_ran_with_it_however_far_down(it: Opened) -> None:
    chain = (a_task("a"), a_task("b", "a"), a_task("c", "b"), a_task("d", "c"), a_task("e", "d"))
    await it.store.seed(a_dag(*chain, a_task("x")))
    for task_id in ("a", "b", "c"):
        claim = await it.claim()
        assert claim.task.id == task_id
        await it.store.finish(claim, DONE)
    await it.store.finish(await it.claim(), FAILED)
    await it.store.finish(await it.claim(), DONE)
    assert _states(it) == "a:DONE b:DONE c:DONE d:FAILED e:BLOCKED x:DONE"
    before = everything(it.layout)
    plan = await it.order(orders.retry, "b", downstream=True, dry_run=True)
    assert everything(it.layout) == before
    answers = await it.order(orders.retry, "b", downstream=True)
    assert in_words(answers) == in_words(plan)
    assert set(answers.done) == {"b", "c", "d"}
    assert (answers.unblocked, answers.refused) == (1, {}), "e waits again by itself"
    assert _states(it) == "a:DONE b:READY c:READY d:READY e:READY x:DONE"
    assert (await it.claim()).task.id == "b"


async def test_what_runs_downstream_is_refused_and_what_never_ran_is_left_alone(
    it: Opened,
) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", "a"), a_task("c", "a"), a_task("d", "c")))
    await it.store.finish(await it.claim(), DONE)
    await it.claim()
    answers = await it.order(orders.retry, "a", downstream=True)
    assert set(answers.done) == {"a"}
    assert isinstance(answers.refused["b"], IllegalTransition)
    assert set(answers.refused) == {"b"}
    assert _states(it) == "a:READY b:RUNNING c:READY d:READY"


async def test_downstream_of_what_cannot_be_retried_nothing_is_retried(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", "a")))
    await it.store.finish(await it.claim(), DONE)
    await it.store.finish(await it.claim(), DONE)
    await it.order(orders.retry, "a")
    answers = await it.order(orders.retry, "a", downstream=True)
    assert (set(answers.done), set(answers.refused)) == (set(), {"a"})
    assert it.state("b") == "DONE"


async def test_what_is_between_two_retried_tasks_does_not_keep_the_lower_one_blocked(
    it: Opened,
) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", "a"), a_task("c", "b")))
    await it.order(orders.cancel, "a", "b", "c")
    answers = await it.order(orders.retry, "c", "a", downstream=True)
    assert {task_id: one.state for task_id, one in answers.done.items()} == dict.fromkeys(
        "abc", State.READY
    )
    assert _states(it) == "a:READY b:READY c:READY"
