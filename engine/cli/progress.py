"""How long work shows that it goes on: on stderr, on a terminal, gone when it is over."""

from __future__ import annotations

import asyncio
import math
import sys
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

from msgspec.structs import replace

from engine.cli.render import hint
from engine.commands import Step
from engine.errors import AgentmuxError
from engine.model import State
from engine.narrate import describe_hold, describe_spending, symbol
from engine.receipts import listed
from engine.text import age, clean_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from rich.status import Status

    from engine.commands import OnStep
    from engine.core import Engine
    from engine.model import HoldCause
    from engine.views import Progress as Numbers

REFRESH = 0.1
"""Seconds between two looks at the store."""
NAMED = 8
"""Workers that a step names; more are only counted."""
MOMENT = 1.0
"""Seconds after which work counts as slow."""


@contextmanager
def steps(*, pipes: bool = False) -> Iterator[OnStep]:
    """Yield what shows each Step, from any thread: on a terminal as one live line.

    `pipes`: elsewhere, too, as a line for each change.
    """
    if not sys.stderr.isatty():
        yield _Lines() if pipes else lambda _step: None
        return
    with ExitStack() as stack:
        shown: list[Status] = []

        def tell(step: Step) -> None:
            from rich.text import Text  # noqa: PLC0415 - a pipe must not pay for it

            if not shown:
                shown.append(stack.enter_context(_spinner()))
            shown[0].update(Text(in_words(step)))

        yield tell


@contextmanager
def slow_steps(*, pipes: bool = False) -> Iterator[OnStep]:
    """Do as `steps` does, but only once the block takes longer than a moment."""
    with steps(pipes=pipes) as show:
        due = False
        last: Step | None = None

        def tell(step: Step) -> None:
            nonlocal last
            last = step
            if due:
                show(step)

        def begin() -> None:
            nonlocal due
            due = True
            if last is not None:
                show(last)

        timer = asyncio.get_running_loop().call_later(MOMENT, begin)
        try:
            yield tell
        finally:
            timer.cancel()


@contextmanager
def busy(what: str) -> Iterator[OnStep]:
    """Show `what` while the block runs, then each Step that it tells."""
    with steps() as tell:
        tell(Step(what))
        yield tell


@contextmanager
def busy_if_slow(what: str) -> Iterator[OnStep]:
    """Do as `busy` does, but only once the block takes longer than a moment."""
    with slow_steps() as tell:
        tell(Step(what))
        yield tell


class _Lines:
    """Prints a step where nobody watches it live: only what is new, and not each second."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, step: Step) -> None:
        key = in_words(replace(step, count=0, seconds_left=None))
        if key != self._last:
            self._last = key
            hint(in_words(step))


def _spinner() -> Status:
    from rich.console import Console  # noqa: PLC0415

    return Console(stderr=True).status("")


def in_words(step: Step) -> str:
    """Write a step as one line: what is done, how far it is, and what comes next."""
    done = step.what
    if step.waiting_for:
        left = "" if step.seconds_left is None else f" ({age(math.ceil(step.seconds_left))} left)"
        done += f"{left}: {listed(step.waiting_for, NAMED)}"
    elif step.count:
        done += f": {step.count:,}"
    return clean_text(f"{done}; {step.next}" if step.next else done)


@asynccontextmanager
async def live_progress(engine: Engine) -> AsyncIterator[None]:
    """Show a bar with the DAG's numbers while the block runs, on a terminal.

    Whatever begins to hold claims is told in a line, elsewhere, too.
    """
    show = _watch if sys.stderr.isatty() else _listen
    watcher = asyncio.create_task(show(engine), name="progress")
    try:
        yield
    finally:
        watcher.cancel()
        # Nobody works less for it, if it cannot read the store any more.
        with suppress(asyncio.CancelledError, AgentmuxError):
            await watcher


class _Holds:
    """Tells of each hold when it begins, and not again while it lasts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._told: set[tuple[str, HoldCause]] = set()

    async def news(self) -> list[str]:
        """Return a sentence for each hold that has begun since the last look."""
        holds, now = await self._engine.queries.holds(), self._engine.clock.now()
        new = [hold for hold in holds if (hold.agent, hold.cause) not in self._told]
        self._told = {(hold.agent, hold.cause) for hold in holds}
        return [
            describe_hold(
                hold.agent,
                hold.cause,
                hold.reason,
                None if hold.until is None else (hold.until - now).total_seconds(),
            )
            for hold in new
        ]


async def _listen(engine: Engine) -> None:
    holds = _Holds(engine)
    async for _ in engine.changes():
        for sentence in await holds.news():
            hint(sentence)
        await asyncio.sleep(MOMENT)


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
    holds = _Holds(engine)
    with bar:
        line = bar.add_task("", total=None)
        async for _ in engine.changes():
            for sentence in await holds.news():
                bar.console.print(clean_text(sentence), markup=False, highlight=False)
            now = await engine.queries.progress()
            done = now.by_state.get(State.DONE, 0)
            bar.update(line, total=now.total, completed=done, description=in_short(now))
            await asyncio.sleep(REFRESH)


def in_short(progress: Numbers) -> str:
    """Write what goes on in a few symbols, and its cost: `● 5  ◌ 12  ◦ 29  ✗ 2  ▲ 1  $1.24`."""
    states = progress.by_state
    active = states.get(State.RUNNING, 0) + states.get(State.CLAIMED, 0)
    parts = [
        (symbol(State.RUNNING), active),
        (symbol(State.READY), progress.ready),
        (symbol(State.READY, pending=1), progress.waiting),
        (symbol(State.FAILED), states.get(State.FAILED, 0)),
        (symbol(State.BLOCKED), states.get(State.BLOCKED, 0)),
    ]
    told = [f"{mark} {count:,}" for mark, count in parts if count]
    return "  ".join(filter(None, [*told, describe_spending(progress.spending)]))
