"""Promises of the store: one owner, limits and holds, names of workers, what readers see."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from support.gate import Gate
from support.stores import (
    HOST,
    OTHER_HOST,
    Opened,
    a_dag,
    a_task,
    check_store,
    events_of,
    kinds,
    opened,
)

from engine.errors import (
    AgentmuxError,
    Code,
    LeaseConflict,
    LeaseLost,
    StorageError,
    ValidationError,
)
from engine.model import AgentRule, Outcome, ProcessId, RunOutcome, WorkerStatus
from engine.store.reader import Reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


DONE = Outcome(RunOutcome.DONE)
FAILED = Outcome(RunOutcome.FAILED, error="no")
ALIVE, DEAD = (lambda _: True), (lambda _: False)


# One owner.


async def test_a_task_is_given_to_one_of_many_who_want_it(it: Opened) -> None:
    await it.store.seed(a_dag(*(a_task(f"t{n}") for n in range(10))))
    claims = await asyncio.gather(*(it.store.claim("codex", f"codex-{n}", HOST) for n in range(30)))
    given = [claim.task.id for claim in claims if claim is not None]
    assert sorted(given) == sorted(f"t{n}" for n in range(10))
    assert len({claim.run_id for claim in claims if claim is not None}) == 10


async def test_claims_go_by_priority_and_then_by_the_order_of_the_file(it: Opened) -> None:
    tasks = (a_task("low", priority=-1), a_task("x"), a_task("top", priority=5), a_task("y"))
    await it.store.seed(a_dag(*tasks, a_task("other", agent="claude")))
    assert [(await it.claim()).task.id for _ in range(4)] == ["top", "x", "y", "low"]
    assert await it.store.claim("codex", "codex-1", HOST) is None


async def test_a_late_success_is_recorded_and_changes_nothing(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", "a")))
    old = await it.claim("codex-1")
    assert await it.store.expire("a", old.run_id)
    new = await it.claim("codex-2")
    before = it.row("a")
    with pytest.raises(LeaseLost) as refusal:
        await it.store.finish(old, Outcome(RunOutcome.DONE, error="after all"))
    assert refusal.value.code is Code.NOT_CLAIMED_BY_WORKER
    assert it.row("a") == before
    late = events_of(it.layout)[-1]
    assert (late.type, late.run_id, late.worker_id) == ("LATE_RESULT", old.run_id, "codex-1")
    assert late.data == {"outcome": "done", "error": "after all"}
    await it.store.finish(new, DONE)
    assert it.state("a") == "DONE"
    again = await it.store.finish_and_claim(old, DONE, HOST)
    assert again is not None
    assert again.task.id == "b", "whose result came late goes on with its next task"
    assert kinds(events_of(it.layout, "a")).count("TASK_COMPLETED") == 1


async def test_a_renewed_lease_moves_only_for_runs_that_still_hold_their_task(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b")))
    lost, kept = await it.claim("codex-1"), await it.claim("codex-2")
    await it.store.expire("a", lost.run_id)
    await it.clock.advance(100)  # type: ignore[attr-defined] # it is a ManualClock
    until = await it.store.renew([lost.run_id, kept.run_id])
    assert (until - it.clock.now()).total_seconds() == 600
    assert it.row("a")["lease_until"] is None
    assert it.row("b")["lease_until"] > it.row("b")["created_at"]


async def test_three_lost_runs_in_a_row_need_a_human(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a", retries=9), a_task("b", "a")))
    for _ in range(2):
        await it.store.expire("a", (await it.claim()).run_id)
    await it.store.finish(await it.claim(), FAILED)
    await it.clock.advance(400)  # type: ignore[attr-defined] # it is a ManualClock
    await it.store.end_backoff()
    for lost in range(3):
        assert it.state("a") == "READY", f"{lost} lost in a row"
        await it.store.expire("a", (await it.claim()).run_id)
    assert (it.state("a"), it.reasons("a")) == ("BLOCKED", {"human"})
    assert it.row("a")["attempts"] == 1, "lost runs use no retry"
    assert (it.state("b"), it.reasons("b")) == ("BLOCKED", {"upstream"})
    assert "lost 3 runs" in it.row("a")["error"]


async def test_an_upstream_failure_blocks_the_whole_chain_and_nothing_beside_it(
    it: Opened,
) -> None:
    chain = [a_task("t0"), *(a_task(f"t{n}", f"t{n - 1}") for n in range(1, 200))]
    await it.store.seed(a_dag(*chain, a_task("beside")))
    await it.store.finish(await it.claim(), FAILED)
    assert it.state("t0") == "FAILED"
    assert {it.state(f"t{n}") for n in (1, 2, 100, 199)} == {"BLOCKED"}
    assert it.reasons("t199") == {"upstream"}
    assert it.state("beside") == "READY"
    blocked = [event for event in events_of(it.layout) if event.type == "TASK_BLOCKED"]
    assert [event.task_id for event in blocked] == [f"t{n}" for n in range(1, 200)]


async def test_a_commit_tells_which_agents_can_claim_now(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", "a", agent="claude"), a_task("c", "a")))
    assert dict(it.commits[-1].ready) == {"codex": 1}
    await it.store.finish(await it.claim(), DONE)
    await it.store.beat([])
    assert dict(it.commits[-1].ready) == {"claude": 1, "codex": 1}


# Limits, stagger, holds.


async def test_an_agents_limit_counts_all_runs_and_is_lifted_by_a_reseed(it: Opened) -> None:
    tasks = tuple(a_task(f"t{n}") for n in range(5))
    await it.store.seed(a_dag(*tasks, agents={"codex": AgentRule(limit=2)}))
    first = await it.claim("codex-1")
    await it.claim("codex-2")
    assert await it.store.claim("codex", "codex-3", OTHER_HOST) is None
    await it.store.finish(first, DONE)
    await it.claim("codex-3")
    assert await it.store.claim("codex", "codex-4", HOST) is None
    await it.store.seed(a_dag(*tasks))
    await it.claim("codex-4")


async def test_a_stagger_keeps_starts_apart_and_is_not_used_up_by_a_vain_claim(
    it: Opened,
) -> None:
    stagger = {"codex": AgentRule(stagger=60)}
    await it.store.seed(a_dag(agents=stagger))
    assert await it.store.claim("codex", "codex-1", HOST) is None
    await it.store.seed(a_dag(a_task("a"), a_task("b"), agents=stagger))
    await it.claim("codex-1")
    for seconds in (0, 59.9):
        await it.clock.advance(seconds)  # type: ignore[attr-defined] # it is a ManualClock
        assert await it.store.claim("codex", "codex-2", HOST) is None
    await it.clock.advance(0.1)  # type: ignore[attr-defined] # it is a ManualClock
    assert (await it.claim("codex-2")).task.id == "b"


async def test_a_stagger_is_not_used_up_by_a_worker_that_may_not_claim(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), agents={"codex": AgentRule(stagger=60)}))
    await it.store.register("codex", "codex-1", HOST, ALIVE)
    await it.store.set_status("codex-1", HOST, WorkerStatus.STOPPING)
    assert await it.store.claim("codex", "codex-1", HOST) is None
    assert (await it.claim("codex-2")).task.id == "a"


async def test_a_hold_of_one_agent_or_of_all_keeps_claims_back_until_it_is_lifted(
    it: Opened,
) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b", agent="claude")))
    assert await it.store.hold("codex") is True
    assert await it.store.hold("codex") is False
    assert await it.store.claim("codex", "codex-1", HOST) is None
    assert await it.store.claim("claude", "claude-1", HOST) is not None
    assert await it.store.hold("*") is True
    assert await it.store.resume("*") is True, "resuming all lifts each agent's hold too"
    assert await it.store.resume("codex") is False
    await it.claim()
    told = [event for event in kinds(events_of(it.layout)) if event in {"HELD", "RESUMED"}]
    assert told == ["HELD", "HELD", "RESUMED", "RESUMED"]


async def test_a_hold_and_a_claim_in_one_group_take_effect_in_their_order(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b"), a_task("c")))
    gate = Gate(it.store)
    with gate.closed(after_commit=False):
        blocker = asyncio.create_task(it.store.beat([]))
        await gate.arrived()
        works = (
            it.store.claim("codex", "codex-1", HOST),
            it.store.hold("codex"),
            it.store.claim("codex", "codex-2", HOST),
            it.store.resume("codex"),
            it.store.claim("codex", "codex-3", HOST),
        )
        group = [asyncio.ensure_future(work) for work in works]
        await asyncio.sleep(0)
    first, _, held, _, third = await asyncio.gather(*group)
    await blocker
    assert (first is not None, held, third is not None) == (True, None, True)


# Workers.


async def test_a_second_live_worker_with_the_same_id_is_refused(it: Opened) -> None:
    assert await it.store.register("codex", "w", HOST, ALIVE) == "w"
    with pytest.raises(LeaseConflict) as refusal:
        await it.store.register("claude", "w", OTHER_HOST, ALIVE)
    assert refusal.value.code is Code.LEASE_CONFLICT
    assert await it.store.register("codex", "w", OTHER_HOST, DEAD) == "w", "a dead one's is free"
    assert await it.store.set_status("w", HOST, WorkerStatus.STOPPED) is False, "not its any more"
    assert await it.store.set_status("w", OTHER_HOST, WorkerStatus.STOPPED) is True
    assert await it.store.set_status("w", OTHER_HOST, WorkerStatus.LOST) is False, "it was over"


@pytest.mark.parametrize("status", sorted(set(WorkerStatus) - {WorkerStatus.LIVE}))
async def test_a_worker_that_stops_or_is_over_claims_nothing_until_it_is_entered_anew(
    it: Opened, status: WorkerStatus
) -> None:
    await it.store.seed(a_dag(a_task("a"), a_task("b")))
    await it.store.register("codex", "codex-1", HOST, ALIVE)
    held = await it.claim()
    await it.store.set_status("codex-1", HOST, status)
    assert await it.store.claim("codex", "codex-1", HOST) is None
    assert await it.store.finish_and_claim(held, DONE, HOST) is None
    assert it.state("a") == "DONE", "what it had it may finish"
    await it.store.register("codex", "codex-1", HOST, DEAD)
    assert (await it.claim()).task.id == "b"


async def test_two_live_workers_never_share_their_files(it: Opened) -> None:
    await it.store.register("a", "b-c", HOST, ALIVE)
    with pytest.raises(LeaseConflict, match="a-b-c"):
        await it.store.register("a-b", "c", OTHER_HOST, ALIVE)


async def test_a_worker_never_has_the_name_of_an_agent(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a", agent="codex"), a_task("b", agent="claude")))
    for agent, worker_id in (("codex", "codex"), ("codex", "claude")):
        with pytest.raises(ValidationError, match="name of an agent"):
            await it.store.register(agent, worker_id, HOST, ALIVE)
    await it.store.register("codex", "w", HOST, ALIVE)
    with pytest.raises(ValidationError, match="id of a worker"):
        await it.store.register("w", "x", HOST, ALIVE)


async def test_workers_without_a_name_take_the_first_free_number(it: Opened) -> None:
    hosts = {ProcessId(n, "1") for n in (1, 2, 3)}
    for n in (1, 2, 3):
        given = await it.store.register("codex", None, ProcessId(n, "1"), hosts.__contains__)
        assert given == f"codex-{n}"
    await it.store.set_status("codex-2", ProcessId(2, "1"), WorkerStatus.STOPPED)
    assert await it.store.register("codex", None, HOST, hosts.__contains__) == "codex-2"


async def test_a_free_number_is_no_agents_name_and_shares_no_files(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a", agent="codex"), a_task("b", agent="codex-1")))
    assert await it.store.register("codex", None, HOST, ALIVE) == "codex-2"
    assert await it.store.register("codex-1", None, HOST, ALIVE) == "codex-1-1"
    await it.store.register("x-x", "1", HOST, ALIVE)
    assert await it.store.register("x", None, HOST, ALIVE) == "x-2"


# The reader.


async def test_a_reader_cannot_write_and_sees_that_others_have(tmp_path: Path) -> None:
    async with opened(tmp_path) as it, Reader(it.layout.database) as reader:
        with pytest.raises(StorageError, match="readonly"):
            await reader.rows("DELETE FROM tasks")
        before = await reader.data_version()
        await it.store.hold("codex")
        assert await reader.data_version() != before
    with pytest.raises(StorageError, match="closed"):
        await reader.data_version()


async def test_a_store_that_is_not_there_is_not_made_by_reading(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="agentmux tasks seed"):
        async with Reader(tmp_path / "state" / "tasks.db"):
            pytest.fail("it was opened")
    assert not (tmp_path / "state").exists()


@asynccontextmanager
async def _two(folder: Path) -> AsyncIterator[tuple[Opened, Opened]]:
    async with opened(folder) as one, opened(folder) as other:
        yield one, other


async def test_two_stores_over_one_file_give_each_task_once(tmp_path: Path) -> None:
    async with _two(tmp_path) as (one, other):
        await one.store.seed(a_dag(*(a_task(f"t{n}") for n in range(60))))

        async def work(it: Opened, worker_id: str) -> list[str]:
            mine = []
            claim = await it.store.claim("codex", worker_id, HOST)
            while claim is not None:
                mine.append(claim.task.id)
                claim = await it.store.finish_and_claim(claim, DONE, HOST)
            return mine

        works = [work(one, "codex-1"), work(one, "codex-2"), work(other, "codex-3")]
        done = await asyncio.gather(*works)
        assert sorted(task for mine in done for task in mine) == sorted(f"t{n}" for n in range(60))
        check_store(one.layout)


def test_every_refusal_of_the_store_is_an_error_for_users() -> None:
    assert issubclass(StorageError, AgentmuxError)
