"""What the runs of all hosts take of this machine, for whoever asks, at the price of one look.

Nothing is looked at while no run goes on. A look costs some microseconds for each process of the
machine; however many ask, there is one every two seconds at most, on a thread of its own.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from engine.processes.sampling import Sample, rows_between, take_sample, usage_between

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.clock import Clock
    from engine.files import Layout
    from engine.model import ProcessId
    from engine.store.lookout import Lookout
    from engine.views import ProcessRow, Usage

EVERY = 2.0
"""Seconds between two looks, and the least span that a share is about."""
_SHARE = 50
"""Where a look takes long, on a machine with thousands of processes, it is good for longer."""
_LONGEST = 10.0
"""Seconds that a look is good for at most: it may have taken long by chance, and must not blind."""


class Meter:
    """Keeps the last two samples: a share of the CPU is what was used between them."""

    def __init__(self, layout: Layout, lookout: Lookout, clock: Clock) -> None:
        self._layout = layout
        self._lookout = lookout
        self._clock = clock
        self._looking = asyncio.Lock()
        self._good_until: float | None = None
        self._former = Sample()
        self._latest = Sample()

    async def usage(self) -> Mapping[str, Usage]:
        """Return what the tree of each run takes, by run id; those without a process are left out.

        Raises:
            StorageError: the store cannot be read, or the processes not looked at.

        """
        await self._look()
        return usage_between(self._former, self._latest)

    async def processes_of(self, run_id: str) -> list[ProcessRow]:
        """Return the tree of a run, parents before their children; empty once it is over.

        Raises:
            StorageError: the store cannot be read, or the processes not looked at.

        """
        await self._look()
        if run_id not in self._latest.trees:
            return []
        return await asyncio.to_thread(rows_between, self._former, self._latest, run_id)

    async def _look(self) -> None:
        async with self._looking:
            began = self._clock.monotonic()
            if self._good_until is not None and began < self._good_until:
                return
            runs = await self._runs()
            sample = Sample(began)
            if runs:
                sample = await asyncio.to_thread(
                    take_sample, self._layout.state, runs, self._clock.monotonic
                )
            self._former, self._latest = self._latest, sample
            ended = self._clock.monotonic()
            longer = min((ended - began) * _SHARE, _LONGEST)
            self._good_until = max(began + EVERY, ended + longer)

    async def _runs(self) -> dict[str, set[ProcessId]]:
        """Return all runs that may have processes, also those that lost their task, with roots."""
        found = [(run.run_id, run.leader) for run in await self._lookout.active()]
        found += [(run.run_id, run.leader) for run in await self._lookout.endings()]
        return {run_id: {leader} if leader is not None else set() for run_id, leader in found}
