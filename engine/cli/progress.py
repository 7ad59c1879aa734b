"""How long work shows that it goes on: on stderr, on a terminal only, gone when it is over."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

from engine.model import State
from engine.narrate import symbol
from engine.text import plural

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from engine.core import Engine
    from engine.views import Progress as Numbers

REFRESH = 0.1
"""Seconds between two looks at the store."""


@contextmanager
def busy(what: str) -> Iterator[Callable[[int], None]]:
    """Show a spinner beside `what` while the block runs.

    Yields what takes the number of tasks that are through, from any thread.
    """
    if not sys.stderr.isatty():
        yield lambda _through: None
        return
    from rich.console import Console  # noqa: PLC0415 - a pipe must not pay for it

    with Console(stderr=True).status(what) as spinner:
        yield lambda through: spinner.update(f"{what}: {plural(through, 'task')}")


@asynccontextmanager
async def live_progress(engine: Engine) -> AsyncIterator[None]:
    """Show a bar with the DAG's numbers while the block runs."""
    if not sys.stderr.isatty():
        yield
        return
    watcher = asyncio.create_task(_watch(engine), name="progress bar")
    try:
        yield
    finally:
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher


async def _watch(engine: Engine) -> None:
    from rich.console import Console  # noqa: PLC0415 - a pipe must not pay for it
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with bar:
        line = bar.add_task("", total=None)
        async for _ in engine.changes():
            now = await engine.queries.progress()
            done = now.by_state.get(State.DONE, 0)
            bar.update(line, total=now.total, completed=done, description=in_short(now))
            await asyncio.sleep(REFRESH)


def in_short(progress: Numbers) -> str:
    """Write what is going on in a few symbols: `● 5  ◌ 12  ◦ 29  ✗ 2  ▲ 1`."""
    states = progress.by_state
    active = states.get(State.RUNNING, 0) + states.get(State.CLAIMED, 0)
    parts = [
        (symbol(State.RUNNING), active),
        (symbol(State.READY), progress.ready),
        (symbol(State.READY, pending=1), progress.waiting),
        (symbol(State.FAILED), states.get(State.FAILED, 0)),
        (symbol(State.BLOCKED), states.get(State.BLOCKED, 0)),
    ]
    return "  ".join(f"{mark} {count:,}" for mark, count in parts if count)
