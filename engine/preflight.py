"""What no run of a task could get past, found before any is claimed: no program, no login, no repo.

Each kind's own executor looks, if there is one; tasks that ask for the same are looked at once.
What may pass by itself is no reason: the run will tell.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

from engine.executors.base import no_executor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.executors.base import Checker, Executor, Site
    from engine.model import TaskDef

log = logging.getLogger(__name__)


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
