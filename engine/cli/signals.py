"""Signals of a command that holds workers: they ask for a graceful end, however often they come."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

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
