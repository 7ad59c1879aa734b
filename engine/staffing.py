"""Workers for each agent of the DAG, those that come later with a reseed among them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from engine.errors import AgentmuxError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

log = logging.getLogger(__name__)

_PAUSE = 0.5


class Staffing:
    """Starts workers where agents have none yet, from `open` to `close`.

    `agents` are those of the store's tasks, `start` starts a worker for one, `changes` says when
    to look again, `services_ready` whether all services are.
    """

    def __init__(
        self,
        *,
        agents: Callable[[], Awaitable[Iterable[str]]],
        start: Callable[[str], Awaitable[object]],
        changes: Callable[[], AsyncIterator[None]],
        services_ready: Callable[[], Awaitable[bool]],
    ) -> None:
        self.waits = False
        """Whether workers are to start once all services are ready."""
        self._agents = agents
        self._start = start
        self._changes = changes
        self._services_ready = services_ready
        self._served: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    async def open(self, per_agent: int, *, after_services: bool) -> None:
        """Start `per_agent` workers for each agent, at once or when all services are ready.

        Raises:
            AgentmuxError: one could not be started at once.

        """
        self._served.clear()
        self.waits = after_services
        if not after_services:
            await self._staff(per_agent)
        if self._task is None:
            self._task = asyncio.create_task(self._keep_staffed(per_agent), name="staffing")

    async def close(self) -> None:
        """Start no more; the workers stay."""
        if self._task is not None:
            task, self._task = self._task, None
            self.waits = False
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _staff(self, per_agent: int) -> None:
        for agent in await self._agents():
            if agent not in self._served:
                self._served.add(agent)
                for _ in range(per_agent):
                    await self._start(agent)

    async def _keep_staffed(self, per_agent: int) -> None:
        async for _ in self._changes():
            try:
                self.waits = self.waits and not await self._services_ready()
                if not self.waits:
                    await self._staff(per_agent)
            except AgentmuxError as error:
                log.warning("no worker for a new agent: %s", error)
            except Exception:
                # Whatever it is, agents that come later must get their workers all the same.
                log.exception("staffing")
            await asyncio.sleep(_PAUSE)
