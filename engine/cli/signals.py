"""Signals: they ask for a graceful end, however often they come.

A command that holds workers looks at `Signals`; one that steers is cut short by `interruptible`.
"""

from __future__ import annotations

import asyncio
import functools
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from engine.cli.render import hint

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Coroutine, Iterator
    from types import TracebackType

    Handler = Callable[[argparse.Namespace], Coroutine[None, None, int]]

_ASKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """A context in which Ctrl+C, SIGTERM and SIGHUP only set `first`.

    While it lasts a second Ctrl+C cannot break off the release of tasks. A signal that our parent
    told us to ignore (nohup, a background job) stays ignored.
    """

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        self._asked = asyncio.Event()
        self._caught: list[signal.Signals] = []

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for one in _ASKED:
            if signal.getsignal(one) is not signal.SIG_IGN:
                loop.add_signal_handler(one, self._note, one)
                self._caught.append(one)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        for one in self._caught:
            loop.remove_signal_handler(one)

    async def wait(self) -> None:
        """Wait until the first signal has come."""
        await self._asked.wait()

    def _note(self, which: signal.Signals) -> None:
        self.first = self.first or which
        self._asked.set()


def interruptible(handler: Handler) -> Handler:
    """Let the first signal cancel a command; the exit code is 128 + its number then.

    Further ones are not heard while it cleans up, so that nothing is left half-done.
    """

    @functools.wraps(handler)
    async def wrapped(args: argparse.Namespace) -> int:
        with Signals() as signals:
            work = asyncio.create_task(handler(args), name="command")
            asked = asyncio.create_task(signals.wait(), name="signals")
            await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
            if signals.first is not None and work.cancel():
                await asyncio.wait({work})
        if work.cancelled() and signals.first is not None:
            return 128 + signals.first
        return work.result()

    return wrapped


@contextmanager
def told_if_interrupted(sentence: str) -> Iterator[None]:
    """Say on stderr how things stand if the block is cut short."""
    try:
        yield
    except asyncio.CancelledError:
        hint(sentence)
        raise
