"""Promises of work that must not be cut short."""

from __future__ import annotations

import asyncio

import pytest

from engine.shield import shielded


async def _cancelled_twice(task: asyncio.Task[int], go: asyncio.Event) -> None:
    await asyncio.sleep(0)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done(), "it waits for its work"
    go.set()


async def test_it_returns_what_the_work_returns() -> None:
    assert await shielded(asyncio.sleep(0, 3)) == 3


@pytest.mark.parametrize("reraise", [True, False])
async def test_work_is_done_to_its_end_however_often_the_caller_is_cancelled(
    *, reraise: bool
) -> None:
    go, done = asyncio.Event(), False

    async def work() -> int:
        nonlocal done
        await go.wait()
        done = True
        return 3

    task = asyncio.create_task(shielded(work(), reraise=reraise))
    await _cancelled_twice(task, go)
    if reraise:
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        assert await task == 3
    assert done


async def test_an_error_of_the_work_goes_before_the_cancellation() -> None:
    go = asyncio.Event()

    async def work() -> int:
        await go.wait()
        raise ValueError("no")

    task = asyncio.create_task(shielded(work()))
    await _cancelled_twice(task, go)
    with pytest.raises(ValueError, match="no"):
        await task
