"""Work that must not be cut short: what asyncio.shield leaves running is waited for here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

T = TypeVar("T")


async def shielded(work: Awaitable[T], *, reraise: bool = True) -> T:
    """Do `work` to its end, however often the caller is cancelled meanwhile; return its result.

    A cancellation is raised once it is through; unless `reraise`, not at all. An error of `work`
    goes before it.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    result = task.result()
    if cancelled is not None and reraise:
        raise cancelled
    return result


def heed_cancellation() -> None:
    """Raise a cancellation of the current task that shielded work has swallowed, if there was one.

    For who goes on with something new after work whose result was not to be lost.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
