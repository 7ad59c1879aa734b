"""Promises of the rebuild: the log alone gives back the store, and what was going on goes on."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from support import damage
from support.damage import DAMAGES, open_once, stopped_dead
from support.pasts import DONE, FAILED, a_past, any_past
from support.retelling import same, sound, told
from support.stores import HOST, a_dag, a_task, check_store, opened, select, tasks_of

from engine.clock import to_iso
from engine.model import EventType, Outcome, ProcessId, RunOutcome
from engine.processes.signalling import seems_alive
from engine.store import orders
from engine.store.lookout import Lookout
from engine.store.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engine.commands import Step


# The whole store.


@pytest.mark.usefixtures("restarted")
@pytest.mark.parametrize("kind", DAMAGES)
async def test_a_store_comes_back_row_by_row_whatever_happened_to_its_file(
    tmp_path: Path, kind: str
) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
        before = told(it.layout)
    assert {row["state"] for row in before["tasks"]} == {
        *("READY", "RUNNING", "DONE", "FAILED", "BLOCKED", "CANCELLED")
    }
    assert {row["type"] for row in before["events"]} == {*EventType}
    DAMAGES[kind](it.layout)
    notices = open_once(it.layout, clock=it.clock)
    same(told(it.layout), before)
    sound(it.layout)
    count = f"{len(before['tasks'])} tasks and {len(before['events'])} events were rebuilt"
    assert any(count in notice for notice in notices)
    assert open_once(it.layout, clock=it.clock) == []


@pytest.mark.parametrize("seed", range(12))
async def test_any_store_comes_back_row_by_row(tmp_path: Path, seed: int) -> None:
    async with stopped_dead(tmp_path) as it:
        await any_past(it, seed, 100)
        for row in select(it.layout, "SELECT run_id FROM endings"):
            await it.store.gone(row["run_id"])
        await it.clock.advance(400)  # type: ignore[attr-defined] # a test's clock
        await it.store.end_backoff()
        await it.store.hold("somebody")
        before = told(it.layout)
    damage.delete(it.layout)
    open_once(it.layout, clock=it.clock)
    same(told(it.layout), before)
    sound(it.layout)


async def test_a_rebuilt_store_is_rebuilt_again_to_the_same(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
    damage.delete(it.layout)
    open_once(it.layout, clock=it.clock)
    once = told(it.layout)
    damage.delete(it.layout)
    open_once(it.layout, clock=it.clock)
    same(told(it.layout), once)


async def test_a_rebuilt_store_works_on(tmp_path: Path) -> None:
    dag = a_dag(a_task("a"), a_task("b", "a"), a_task("c", "b"))
    async with stopped_dead(tmp_path) as it:
        await it.store.seed(dag)
        await it.store.finish(await it.claim(), DONE)
    damage.delete(it.layout)
    async with opened(tmp_path, clock=it.clock) as again:
        report = await again.store.seed(dag)
        assert (report.unchanged, report.created, report.updated) == (3, [], [])
        claim = await again.claim()
        assert claim.task.id == "b", "what is finished stays finished"
        await again.store.finish(claim, DONE)
        assert (await again.claim()).task.id == "c"
        damage.mirror(it.layout)
    sound(it.layout)


async def test_the_files_of_a_log_that_was_rotated_are_read_in_the_order_of_their_events(
    tmp_path: Path,
) -> None:
    async with stopped_dead(tmp_path) as it:
        await a_past(it)
        before = told(it.layout)
    lines = damage.lines_of(it.layout)
    damage.write_log(it.layout, [])
    third = len(lines) // 3
    # The clock was set back in between: their names say the opposite.
    for name, part in (
        ("events.20260103T000000000Z.jsonl", lines[:third]),
        ("events.20260102T000000000Z.jsonl", lines[third : 2 * third]),
        ("events.jsonl", lines[2 * third :]),
    ):
        (it.layout.state / name).write_bytes(b"".join(part))
    damage.delete(it.layout)
    notices = open_once(it.layout, clock=it.clock)
    same(told(it.layout), before)
    assert len(notices) == 1


async def test_progress_is_told_while_a_store_is_rebuilt(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await it.store.seed(a_dag(*(a_task(f"t{n}") for n in range(4500))))
    damage.delete(it.layout)
    steps: list[Step] = []
    open_once(it.layout, clock=it.clock, on_step=steps.append)
    reading = [step.count for step in steps if step.what == "reading the log"]
    tasks = [step.count for step in steps if step.what == "rebuilding tasks"]
    assert reading == [2000, 4000, 4501]
    assert tasks == [2000, 4000]
    assert steps[-1].what == "checking the new database"


# What was going on.


async def test_a_run_that_held_its_task_is_nobodys_so_that_it_is_ended_and_expired(
    tmp_path: Path,
) -> None:
    async with stopped_dead(tmp_path) as it:
        await it.store.seed(a_dag(a_task("a", timeout=60)))
        claim = await it.claim()
        before = it.row("a")
    damage.delete(it.layout)
    async with opened(tmp_path, clock=it.clock) as again:
        async with Reader(it.layout.database) as reader:
            (run,) = await Lookout(reader, it.clock).active()
        assert (run.run_id, run.host) == (claim.run_id, ProcessId(0, ""))
        assert not seems_alive(run.host)
        assert run.timeout_at is not None
        assert to_iso(run.timeout_at) == before["timeout_at"]
        assert await again.store.expire("a", claim.run_id)
        following = await again.claim()
        assert following.attempt == 1, "a lost run uses no retry"
        check_store(it.layout)


async def end_by_cancel(it: Any) -> str:
    claim = await it.claim()
    await it.order(orders.cancel, "a")
    await it.order(orders.retry, "a")
    return str(claim.run_id)


async def end_by_kill(it: Any) -> str:
    claim = await it.claim()
    await it.order(orders.kill, "a")
    await it.order(orders.retry, "a")
    return str(claim.run_id)


async def end_by_timeout(it: Any) -> str:
    claim = await it.claim()
    await it.store.time_out("a", claim.run_id)
    await it.order(orders.retry, "a")
    return str(claim.run_id)


async def end_by_purge(it: Any) -> str:
    claim = await it.claim()
    await it.order(orders.purge, "a")
    await it.store.seed(a_dag(a_task("a")))
    return str(claim.run_id)


@pytest.mark.parametrize("end", [end_by_cancel, end_by_kill, end_by_timeout, end_by_purge])
async def test_a_task_is_not_claimable_while_its_former_tree_may_live(
    tmp_path: Path, end: Callable[[Any], Any]
) -> None:
    async with stopped_dead(tmp_path) as it:
        await it.store.seed(a_dag(a_task("a")))
        run_id = await end(it)
        await it.clock.advance(59)  # type: ignore[attr-defined] # a test's clock
        await it.store.hold("somebody")
    damage.delete(it.layout)
    async with opened(tmp_path, clock=it.clock) as again:
        assert [row["run_id"] for row in select(it.layout, "SELECT * FROM endings")] == [run_id]
        assert await again.store.claim("codex", "codex-1", HOST) is None
        check_store(it.layout)
        await again.store.gone(run_id)
        assert (await again.claim()).task.id == "a"


async def test_a_tree_that_was_ended_long_ago_holds_up_nobody(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await it.store.seed(a_dag(a_task("a")))
        await end_by_cancel(it)
        await it.clock.advance(61)  # type: ignore[attr-defined] # a test's clock
        await it.store.hold("somebody")
    damage.delete(it.layout)
    async with opened(tmp_path, clock=it.clock) as again:
        assert (await again.claim()).task.id == "a"


async def test_a_backoff_goes_on_until_it_is_over(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await it.store.seed(a_dag(a_task("a", retries=1)))
        await it.store.finish(await it.claim(), FAILED)
        until = it.row("a")["not_before"]
    damage.delete(it.layout)
    open_once(it.layout, clock=it.clock)
    assert tasks_of(it.layout)["a"]["not_before"] == until
    await it.clock.advance(10)  # type: ignore[attr-defined] # a test's clock
    damage.delete(it.layout)
    open_once(it.layout, clock=it.clock)
    assert tasks_of(it.layout)["a"]["not_before"] is None


async def test_a_wait_that_an_operator_has_lifted_does_not_come_back(tmp_path: Path) -> None:
    async with stopped_dead(tmp_path) as it:
        await it.store.seed(a_dag(a_task("a")))
        later = it.clock.now() + timedelta(hours=5)
        limited = Outcome(RunOutcome.RELEASED, error="limit", not_before=later, holds=True)
        await it.store.finish(await it.claim(), limited)
        await it.store.resume("codex")
        before = tasks_of(it.layout)
    damage.delete(it.layout)
    open_once(it.layout, clock=it.clock)
    assert tasks_of(it.layout) == before
