"""An executor whose runs a test plays, and tasks for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from support.stores import (
    a_task,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from engine.core import Engine
    from engine.executors.base import RunContext
    from engine.model import Outcome, TaskDef


class Stage:
    """An executor whose runs the test plays. By default a run waits until it is cancelled."""

    def __init__(self, *, prepares: bool = False) -> None:
        self.prepares = prepares
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.contexts: list[RunContext] = []
        self.play: Callable[[RunContext], Awaitable[Outcome]] = self.wait

    async def run(self, context: RunContext) -> Outcome:
        self.begun.append(context.claim.task.id)
        self.contexts.append(context)
        try:
            return await self.play(context)
        except asyncio.CancelledError:
            self.cancelled.append(context.claim.task.id)
            raise

    async def wait(self, _context: RunContext) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError


def staged(task_id: str, *deps: str, **more: Any) -> TaskDef:
    return a_task(task_id, *deps, payload={"kind": "stage"}, **more)


async def run_all(engine: Engine) -> None:
    async with asyncio.timeout(20):
        await engine.settled()
