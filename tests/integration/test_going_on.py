"""Promises about which run goes on from which: only within one attempt, and a retry begins anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.stores import Opened, a_dag, a_task

from engine.model import Needed, Outcome, RunOutcome
from engine.store import orders
from engine.store.lookout import Lookout
from engine.store.reader import Reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from engine.model import Claim

    End = Callable[[Opened, Claim], Awaitable[None]]


@pytest.fixture
async def lookout(it: Opened) -> AsyncIterator[Lookout]:
    await it.store.seed(a_dag(a_task("a", retries=1)))
    async with Reader(it.layout.database) as reader:
        yield Lookout(reader, it.clock)


async def _released(it: Opened, claim: Claim) -> None:
    await it.store.release("a", claim.run_id, "operator")


async def _limited(it: Opened, claim: Claim) -> None:
    await it.store.finish(claim, Outcome(RunOutcome.RELEASED, error="a limit"))


async def _expired(it: Opened, claim: Claim) -> None:
    assert await it.store.condemn("a", claim.run_id)
    assert await it.store.expire("a", claim.run_id)


async def _blocked(it: Opened, claim: Claim) -> None:
    await it.store.finish(claim, Outcome(RunOutcome.BLOCKED, error="a STOP file"))
    await it.order_one(orders.retry, "a")


async def _done(it: Opened, claim: Claim) -> None:
    await it.store.finish(claim, Outcome(RunOutcome.DONE))
    await it.order_one(orders.retry, "a")


async def _failed(it: Opened, claim: Claim) -> None:
    await it.store.finish(claim, Outcome(RunOutcome.FAILED, error="no"))


async def _timed_out(it: Opened, claim: Claim) -> None:
    assert await it.store.time_out("a", claim.run_id)
    await it.store.gone(claim.run_id)


async def _killed(it: Opened, claim: Claim) -> None:
    await it.order_one(orders.kill, "a")
    await it.store.gone(claim.run_id)
    await it.order_one(orders.retry, "a")


async def _cancelled(it: Opened, claim: Claim) -> None:
    await it.order_one(orders.cancel, "a")
    await it.store.gone(claim.run_id)
    await it.order_one(orders.retry, "a")


GIVEN_BACK: dict[str, End] = {
    "released": _released, "at a limit": _limited, "expired": _expired, "blocked": _blocked,
}  # fmt: skip
USED_UP: dict[str, End] = {
    "done": _done, "failed": _failed, "timed out": _timed_out, "killed": _killed,
    "cancelled": _cancelled,
}  # fmt: skip


@pytest.mark.parametrize("how", GIVEN_BACK)
async def test_a_run_that_did_not_use_its_attempt_up_is_gone_on_from(
    it: Opened, lookout: Lookout, how: str
) -> None:
    first = await it.claim()
    assert await lookout.before("a") == set()
    assert (await lookout.needed([])).at_work == {first.run_id}
    await GIVEN_BACK[how](it, first)
    needed = await lookout.needed([first.run_id, "unknown"])
    assert needed == Needed(waiting=frozenset({first.run_id}))
    second = await it.claim()
    assert await lookout.before("a") == {first.run_id}
    needed = await lookout.needed([first.run_id, second.run_id])
    assert needed == Needed(frozenset({second.run_id}), frozenset({first.run_id}))
    await _released(it, second)
    third = await it.claim()
    assert await lookout.before("a") == {first.run_id, second.run_id}
    await it.store.finish(third, Outcome(RunOutcome.DONE))
    needed = await lookout.needed([first.run_id, second.run_id, third.run_id])
    assert needed == Needed()


@pytest.mark.parametrize("how", USED_UP)
async def test_a_run_that_used_its_attempt_up_is_gone_on_from_by_nobody(
    it: Opened, lookout: Lookout, how: str
) -> None:
    first = await it.claim()
    await _released(it, first)
    second = await it.claim()
    await USED_UP[how](it, second)
    assert it.state("a") == "READY"
    assert await lookout.before("a") == set()
    needed = await lookout.needed([first.run_id, second.run_id])
    assert needed == Needed()


async def test_what_was_purged_is_gone_on_from_by_nobody(it: Opened, lookout: Lookout) -> None:
    claim = await it.claim()
    await _released(it, claim)
    await it.order_one(orders.purge, "a")
    await it.store.seed(a_dag(a_task("a")))
    assert await lookout.before("a") == set()
    assert (await lookout.needed([claim.run_id])).waiting == set()


async def test_a_run_that_lost_its_task_is_at_work_until_its_tree_is_gone(
    it: Opened, lookout: Lookout
) -> None:
    claim = await it.claim()
    await it.order_one(orders.cancel, "a")
    assert (await lookout.needed([])).at_work == {claim.run_id}
    await it.store.gone(claim.run_id)
    assert (await lookout.needed([])).at_work == set()
