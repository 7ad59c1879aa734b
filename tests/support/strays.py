"""Processes that nobody looks after: tagged as those of a run, or dead."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from engine.model import Claim, State, TaskDef
from engine.processes.trees import end_tree, environment, spawn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from engine.files import Layout
    from engine.model import ProcessId

_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@asynccontextmanager
async def a_tree(
    layout: Layout, run_id: str, *, state: Path | None = None
) -> AsyncIterator[ProcessId]:
    """Yield a process that carries the tag of a run; it is gone afterwards."""
    claim = Claim(run_id, TaskDef("t", "t", "a"), "a-1", 1, State.RUNNING, _MOMENT, _MOMENT)
    folder = layout.state.parent
    leader = spawn(
        ["sleep", "300"],
        cwd=folder,
        env=environment(os.environ, claim, state or layout.state),
        stdout=folder / "out",
        stderr=folder / "err",
    )
    try:
        yield leader.identity
    finally:
        await end_tree(run_id, layout.state, [leader.identity], grace=0)
        leader.reap()


async def a_dead_pid() -> int:
    """Return the pid of a process that has just ended."""
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    return process.pid
