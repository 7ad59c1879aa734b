"""What ends a program of a run that goes on by itself: a file STOP in the worktree, for one."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from engine.errors import AgentmuxError
from engine.executors.programs import finish
from engine.processes.trees import end_tree
from engine.shield import shielded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engine.executors.base import RunContext
    from engine.processes.trees import Child

log = logging.getLogger(__name__)

STOP = "STOP"
_LOOK = 0.5
"""Seconds between two looks."""

Reason: TypeAlias = "Callable[[], bool]"
"""Whether a program is to be ended; asked in a thread."""


class StopFile:
    """The file that ends the run in a worktree once it appears, or is written anew.

    One that is there from the beginning is no wish: it is part of the repository, or was left over.
    """

    def __init__(self, worktree: Path) -> None:
        self._path = worktree / STOP
        self._before = _mark(self._path)

    def is_asked(self) -> bool:
        """Say whether somebody wants the run to stop."""
        mark = _mark(self._path)
        return mark is not None and mark != self._before

    def take_away(self) -> None:
        """Remove a file that did its work, or the agent's next commit could take it along."""
        if self._before is None:
            with suppress(OSError):
                if stat.S_ISREG(os.lstat(self._path).st_mode):
                    self._path.unlink()


async def finish_unless(
    context: RunContext, child: Child, *reasons: Reason
) -> tuple[int, Reason | None]:
    """Wait for the leader as `finish` does, but end its tree once one of `reasons` is true.

    Returns its exit code, and the reason that it was ended for. Raises as `finish` does.
    """
    watching = asyncio.create_task(
        _watch(context, child, reasons), name=f"watch {context.claim.run_id}"
    )
    try:
        code = await finish(context, child)
    finally:
        watching.cancel()
        await shielded(asyncio.wait({watching}), reraise=False)
    return code, None if watching.cancelled() else watching.result()


async def _watch(context: RunContext, child: Child, reasons: tuple[Reason, ...]) -> Reason | None:
    while (why := await asyncio.to_thread(_first, reasons)) is None:  # noqa: ASYNC110 - files tell
        await asyncio.sleep(_LOOK)
    run_id, roots, grace = context.claim.run_id, (child.identity,), context.config.grace
    with suppress(asyncio.CancelledError):  # once it has begun it is gone through with, and told
        try:
            await end_tree(run_id, context.state_dir, roots, grace=grace)
        except AgentmuxError as error:
            log.warning("%s", error)
    return why


def _first(reasons: tuple[Reason, ...]) -> Reason | None:
    return next((reason for reason in reasons if reason()), None)


def _mark(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one at its place, None if there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
