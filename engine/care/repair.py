"""What `doctor --repair` mends, and what every start cleans up. Says in sentences what was done.

Nothing is mended that the inspection did not find first, so a healthy fleet is left alone, at
work or not. Where table and log contradict each other nobody is believed: a person decides.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, TypeVar

from engine.care.inspection import inspect, open_to_others, table_is_whole
from engine.care.leftovers import Fate, leftovers, orphans
from engine.errors import AgentmuxError, StorageError
from engine.files import write_private
from engine.findings import Level, cut
from engine.log.repair import rewrite
from engine.processes.census import tagged
from engine.processes.signalling import identify, seems_alive
from engine.processes.trees import end_tree
from engine.quarantine import quarantine
from engine.store.vitals import read_vitals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.care.leftovers import Leftover
    from engine.clock import Clock
    from engine.config import Config
    from engine.files import Layout
    from engine.quarantine import Aside
    from engine.reaper import Reaper
    from engine.store.vitals import KnownWorker, Vitals

T = TypeVar("T")

_IN_STORE = {"derived", "claims", "purged", "endings"}
_OF_RUNS = {"workers", "runs", "endings", "claims"}
_FILES = {"pid files", "heartbeats", "stop files", "drafts"}


class MendingStore(Protocol):
    """The store, as far as it is needed here."""

    async def mend(self) -> list[str]:
        """Derive anew what can be derived; say what was done."""

    async def undisturbed(self, act: Callable[[Sequence[KnownWorker]], T]) -> T:
        """Call `act` with the workers that should live, while none can enter or leave."""


class Repair:
    """One repair of the store of an engine that is open for writing."""

    def __init__(
        self,
        *,
        layout: Layout,
        store: MendingStore,
        reaper: Reaper,
        config: Config,
        clock: Clock,
    ) -> None:
        self._layout = layout
        self._store = store
        self._reaper = reaper
        self._config = config
        self._clock = clock

    async def run(self) -> list[str]:
        """Mend what can be mended safely; say what was done. What is left, `inspect` tells.

        Raises:
            StorageError: the store refuses; what was done until then is done.

        """
        findings = await inspect(self._layout, self._clock)
        wrong = {finding.check for finding in findings}
        if wrong & {"schema", "integrity"}:
            return []
        done: list[str] = []
        if "permissions" in wrong:
            done += await asyncio.to_thread(_close_to_others, self._layout)
        if wrong & _IN_STORE:
            done += await self._store.mend()
        if wrong & _OF_RUNS:
            done += await self._reap()
        if "orphans" in wrong:
            done += await self._end_orphans()
        if wrong & _FILES:
            done += await tidy(self._layout, self._store, self._clock, everything=True)
        if any(one.check == "log" and one.level is Level.ERROR for one in findings):
            done += await self._mend_log()
        return done

    async def _reap(self) -> list[str]:
        """Let the reaper look, and tell what it did: it ends the trees before it lets tasks go."""
        before = await asyncio.to_thread(read_vitals, self._layout.database)
        await self._reaper.look()
        return _reaped(before, await asyncio.to_thread(read_vitals, self._layout.database))

    async def _end_orphans(self) -> list[str]:
        processes = await asyncio.to_thread(tagged, self._layout.state)
        vitals = await asyncio.to_thread(read_vitals, self._layout.database)

        async def end(run_id: str) -> str:
            left = found[run_id]
            try:
                await end_tree(run_id, self._layout.state, left, grace=self._config.grace)
            except AgentmuxError as error:
                return str(error)
            pids = ", ".join(str(process.pid) for process in left)
            return f"what was left of run {run_id}, which holds no task, was ended: {pids}"

        found = orphans(processes, vitals, kept=any(map(seems_alive, vitals.keepers)))
        # At the same time: each tree may take its whole grace to end.
        return cut(await asyncio.gather(*map(end, found)))

    async def _mend_log(self) -> list[str]:
        if not await asyncio.to_thread(table_is_whole, self._layout):
            return []  # the log knows more than the table: writing it anew would lose that
        sentence = await asyncio.to_thread(rewrite, self._layout, self._clock)
        return [sentence] if sentence is not None else []


def _reaped(before: Vitals, after: Vitals) -> list[str]:
    held = after.run_ids
    runs = [
        f"run {run.run_id} lost task {run.task_id!r}, for its worker {run.worker_id!r} was gone"
        for run in before.runs
        if run.run_id not in held
    ]
    endings = [
        f"the processes of run {run.run_id}, which had lost task {run.task_id!r}, are gone"
        for run in before.leaving
        if run.run_id not in held
    ]
    live = {worker.id for worker in after.workers}
    workers = [
        f"worker {worker.id!r} counts as lost, for its process {worker.host.pid} was gone"
        for worker in before.workers
        if worker.id not in live
    ]
    return [*cut(runs), *cut(endings), *cut(workers)]


def _close_to_others(layout: Layout) -> list[str]:
    done = []
    for path, mode, right in list(open_to_others(layout)):
        try:
            path.chmod(right)
        except OSError as error:
            done.append(f"{path} is {mode:04o} and stays so: {error.strerror}")
        else:
            done.append(f"{path} was {mode:04o} and is {right:04o} now")
    return cut(done)


async def tidy(
    layout: Layout, store: MendingStore, clock: Clock, *, everything: bool = False
) -> list[str]:
    """Clean up after workers that are gone; say what was done, nothing if there was nothing.

    Files that nobody owns are removed, those that cannot be read go to quarantine, and runs whose
    row is lost get it back, so that a reaper can let their tasks go. `everything`: also a pid
    file that names a process which lives, though not as that worker, and one of a live worker that
    names another process.

    Raises:
        StorageError: the store cannot be read, or refuses.

    """

    def clean(workers: Sequence[KnownWorker]) -> list[str]:
        # Only in here nobody can enter whose files we take for nobody's.
        aside = quarantine(layout, clock.now())
        return [
            _mended(one, aside)
            for one in list(leftovers(layout, _living(workers), clock.now()))
            if _may_mend(one, everything=everything)
        ]

    def is_clean(vitals: Vitals) -> bool:
        found = leftovers(layout, _living(vitals.workers), clock.now())
        return not any(_may_mend(one, everything=everything) for one in found)

    vitals = await asyncio.to_thread(read_vitals, layout.database)
    done: list[str] = []
    if any(run.host is None for run in vitals.runs):
        done += await store.mend()
    if not await asyncio.to_thread(is_clean, vitals):
        done += cut(await store.undisturbed(clean))
    return done


def _living(workers: Sequence[KnownWorker]) -> list[KnownWorker]:
    return [worker for worker in workers if seems_alive(worker.host)]


def _may_mend(leftover: Leftover, *, everything: bool) -> bool:
    if leftover.fate is None or everything:
        return leftover.fate is not None
    if leftover.fate is Fate.REWRITE:
        return False
    return leftover.kind != "pid files" or leftover.pid is None or _is_free(leftover.pid)


def _is_free(pid: int) -> bool:
    """Whether no process has this pid; what cannot be known is taken as somebody's."""
    try:
        return identify(pid) is None
    except StorageError:
        return False


def _mended(leftover: Leftover, aside: Aside) -> str:
    path = leftover.path
    try:
        if leftover.fate is Fate.SET_ASIDE:
            place = aside.take(path)
            return f"{leftover}; it is in quarantine now: {place}" if place else f"{leftover}; gone"
        if leftover.fate is Fate.REWRITE:
            write_private(path, str(leftover.pid))
            return f"{leftover}; written anew"
        path.unlink(missing_ok=True)
    except OSError as error:
        return f"{leftover}; it could not be mended: {error.strerror}"
    return f"{leftover}; removed"
