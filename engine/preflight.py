"""What no run of a task could get past, found before any is claimed: no program, no login, no repo.

Each kind's own executor looks, if there is one; tasks that ask for the same are looked at once.
What may pass by itself is no reason: the run will tell.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, cast

from engine.executors import builtin_executors
from engine.executors.base import Site, no_executor
from engine.executors.plugins import third_party

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from engine.config import Config
    from engine.executors.base import Checker, Executor
    from engine.files import Layout
    from engine.model import TaskDef
    from engine.store.lookout import Lookout
    from engine.store.store import Store

log = logging.getLogger(__name__)


class Preflight:
    """Looks ahead, with the executors of this process: those of other packages once asked for."""

    def __init__(
        self, *, store: Store, lookout: Lookout, layout: Layout, project: Path, config: Config
    ) -> None:
        self.executors = dict(builtin_executors())
        """All that are known by now, by kind."""
        self._store = store
        self._lookout = lookout
        self._site = Site(layout, project, config)
        self._knows_all = False
        self._looked: set[str] = set()

    async def find_executors(self) -> None:
        """Add the executors of other packages, before somebody asks what there is."""
        if not self._knows_all:
            found = await asyncio.to_thread(third_party, builtin_executors().keys())
            self.executors.update(found)
            self._knows_all = True

    async def find_unfit(self, tasks: Iterable[TaskDef]) -> Mapping[str, str]:
        """Return why tasks cannot be done as things are, by id."""
        tasks = list(tasks)
        if not all(task.payload["kind"] in self.executors for task in tasks):
            await self.find_executors()
        return await find_unfit(tasks, self.executors, self._site)

    async def block_unfit(self, agent: str) -> None:
        """Block what no run of an agent could get past, before its first worker here claims it."""
        if agent in self._looked:
            return
        self._looked.add(agent)
        kinds = [kind for kind, executor in self.executors.items() if checker_of(executor)]
        unfit = await self.find_unfit(await self._lookout.ready_of(agent, kinds))
        for why in sorted(set((await self._store.block(unfit)).values()) if unfit else ()):
            log.warning("%s: %s", agent, why)


def checker_of(executor: object) -> Checker | None:
    """Return an executor that can look ahead, None for one that cannot."""
    return cast("Checker", executor) if hasattr(executor, "preflight") else None


async def find_unfit(
    tasks: Iterable[TaskDef], executors: Mapping[str, Executor], site: Site
) -> dict[str, str]:
    """Return why tasks cannot be done as things are, by id, in sentences that say what to do.

    `executors` are all that there are: a task of another kind cannot be done.
    """
    by_kind: dict[str, list[TaskDef]] = {}
    for task in tasks:
        by_kind.setdefault(task.payload["kind"], []).append(task)
    unfit: dict[str, str] = {}
    for kind, found in by_kind.items():
        executor = executors.get(kind)
        if executor is None:
            unfit |= dict.fromkeys((task.id for task in found), no_executor(kind, executors))
            continue
        checker = checker_of(executor)
        if checker is None:
            continue
        try:
            unfit |= await checker.preflight(found, site)
        except Exception:
            # It was a look ahead, no more.
            log.exception("preflight of %s", kind)
    return unfit
