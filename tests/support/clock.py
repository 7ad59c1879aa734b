"""A clock that a test moves by hand."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta

from support.patience import PATIENCE

START = datetime(2026, 1, 1, tzinfo=UTC)
_TURNS = 20
"""How often the others may run after each step: enough for a sleeper to act and sleep again."""


class ManualClock:
    """Satisfies engine.clock.Clock; time stands still until `advance`."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start
        self._elapsed = 0.0
        self._asleep: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0
        self.slept: list[float] = []
        """What every call of `sleep` asked for, in order."""

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        self._count += 1
        entry = (self._elapsed + seconds, self._count, woken)
        heapq.heappush(self._asleep, entry)
        try:
            await woken
        finally:
            if entry in self._asleep:  # cancelled
                self._asleep.remove(entry)
                heapq.heapify(self._asleep)

    @property
    def sleepers(self) -> int:
        """How many are asleep now."""
        return len(self._asleep)

    async def until_asleep(self, count: int = 1) -> None:
        """Wait in real time, and not for ever, until `count` sleepers are there."""
        async with asyncio.timeout(PATIENCE):
            while self.sleepers < count:  # noqa: ASYNC110 - what comes before a sleep has no event
                await asyncio.sleep(0.001)

    async def advance(self, seconds: float) -> None:
        """Move time on; wake who is due, in order, each at its own moment."""
        target = self._elapsed + seconds
        await _let_others_run()
        while self._asleep and self._asleep[0][0] <= target:
            self._elapsed, _, woken = heapq.heappop(self._asleep)
            if not woken.done():
                woken.set_result(None)
            await _let_others_run()
        self._elapsed = target
        await _let_others_run()


async def _let_others_run() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)
