"""Which worktrees stay, looked at again and again: those that are over go by age and count.

Any process that holds workers does this when its first one starts, and every ten minutes; they do
not hinder each other. Apart from the runs, none of which waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from engine.errors import AgentmuxError
from engine.workspaces import place_of, prune, prune_clones

if TYPE_CHECKING:
    from pathlib import Path

    from engine.clock import Clock
    from engine.config import Config
    from engine.files import Layout
    from engine.store.lookout import Lookout
    from engine.workspaces import Clone, Pruned

log = logging.getLogger(__name__)

EVERY = 600.0
"""Seconds between two looks."""


class Retention:
    """Looks from `open` to `close`; one look may take minutes, where much is to be removed."""

    def __init__(
        self, *, lookout: Lookout, layout: Layout, project: Path, config: Config, clock: Clock
    ) -> None:
        self._lookout = lookout
        self._project = project
        self._place = place_of(layout, project, config.worktrees)
        self._settings = config.worktrees
        self._clock = clock
        self._told: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._look_forever(), name="retention")

    async def close(self) -> None:
        """Stop; what is being removed is left so that the next look removes the rest."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _look_forever(self) -> None:
        while True:
            try:
                await self.look()
            except AgentmuxError as error:
                log.warning("worktrees: %s", error)
            except Exception:
                # Whatever it is, the next look may fare better.
                log.exception("worktrees")
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Let go what the settings let go; tell what had to stay, once."""
        if not await asyncio.to_thread(self._place.root.exists):
            return  # who has no worktrees pays for no git
        older_than, now = timedelta(days=self._settings.days), self._clock.now()
        clones = await prune_clones(self._place, older_than=older_than, now=now, dry_run=False)
        found = await prune(
            self._place,
            self._project,
            keep=self._settings.keep,
            older_than=older_than,
            now=now,
            dry_run=False,
            needed=self._lookout.needed,
        )
        ends: list[Clone | Pruned] = [*clones, *found]
        for one in ends:
            if one.removed:
                log.info("removed %s: %s", one.path, one.why)
            elif (told := f"{one.path} stays: {one.why}") not in self._told:
                self._told.add(told)
                log.warning("%s", told)
