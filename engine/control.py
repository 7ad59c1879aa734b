"""The one door for commands: what an operator asks is done here and answered by a receipt."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from engine.commands import Command, Hold, Receipt, Refusal, Release, Resume, Retry, Seed, Stop
from engine.dag import load_dag
from engine.errors import AgentmuxError, LeaseConflict, LeaseLost, StorageError, WorkerNotFound
from engine.model import State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from engine.config import Config
    from engine.feed import Feed
    from engine.presence import Presence
    from engine.reaper import Reaper
    from engine.store.lookout import Lookout
    from engine.store.queries import Queries
    from engine.store.rows import ActiveRun
    from engine.store.seeding import SeedReport
    from engine.store.store import Store

DEFAULT_DAG = Path("agentmux/dag.yaml")
_ANSWER = 10.0
"""Seconds beyond `grace` in which a live host must have obeyed."""
_LOOK = 0.2


class Control:
    """Carries out commands: asks hosts, whatever process they are in, and awaits their answer."""

    def __init__(
        self,
        *,
        store: Store,
        queries: Queries,
        lookout: Lookout,
        feed: Feed,
        reaper: Reaper,
        presence: Presence,
        project: Path,
        config: Config,
    ) -> None:
        self._store = store
        self._queries = queries
        self._lookout = lookout
        self._feed = feed
        self._reaper = reaper
        self._presence = presence
        self._project = project
        self._patience = config.grace + _ANSWER

    async def execute(
        self, command: Command, *, dry_run: bool, progress: Callable[[int], None] | None
    ) -> Receipt:
        """Carry out a command; see Engine.execute."""
        match command:
            case Seed(path):
                return await self._seed(path, dry_run=dry_run, progress=progress)
            case Hold(agent):
                held = await self._store.hold(agent, dry_run=dry_run)
                return Receipt(dry_run, {agent: "held" if held else "was held already"})
            case Resume(agent):
                resumed = await self._store.resume(agent, dry_run=dry_run)
                return Receipt(dry_run, {agent: "resumed" if resumed else "was not held"})
            case Release(task_ids):
                return await _each(task_ids, self._release, dry_run=dry_run)
            case Retry(task_ids):
                return await _each(task_ids, self._retry, dry_run=dry_run)
            case Stop(worker_ids, drain):
                act = self._drain if drain else self._stop
                return await _each(worker_ids, act, dry_run=dry_run)

    async def _seed(
        self, path: Path | None, *, dry_run: bool, progress: Callable[[int], None] | None
    ) -> Receipt:
        if path is None:
            known = (await self._queries.progress()).dag
            path = Path(known) if known else self._project / DEFAULT_DAG
        dag = await asyncio.to_thread(load_dag, path.absolute())
        report = await self._store.seed(dag, dry_run=dry_run, progress=progress)
        return _seeded(report, dry_run=dry_run)

    async def _release(self, task_id: str, dry_run: bool) -> str:
        """Complete only when the run's tree is gone: its host ends it, or we do for a dead one."""
        run_id = await self._store.ask_release(task_id, dry_run=dry_run)
        run = await self._find(run_id)
        if run is None or dry_run:
            return f"released from {run.worker_id}" if run is not None else "released"
        if self._reaper.is_lost(run):
            await self._reaper.end(run)
            try:
                await self._store.release(task_id, run_id, "operator")
            except LeaseLost:
                return "its lease expired meanwhile"
            return f"released from {run.worker_id}, whose process was gone"
        if not await self._until(lambda: self._let_go(run_id)):
            raise LeaseConflict(
                f"{run.worker_id} (pid {run.host.pid}) has not let go of {task_id!r} for "
                f"{self._patience:.0f} s; end that process, or wait for the lease to expire"
            )
        ended = next((r for r in await self._queries.runs(task_id) if r.id == run_id), None)
        how = ended.outcome if ended is not None and ended.outcome is not None else "released"
        return f"released from {run.worker_id}" if how == "released" else f"{how} meanwhile"

    async def _retry(self, task_id: str, dry_run: bool) -> str:
        state = await self._store.retry(task_id, dry_run=dry_run)
        return "ready again" if state is State.READY else "retried, but something else blocks it"

    async def _let_go(self, run_id: str) -> bool:
        return await self._find(run_id) is None

    async def _find(self, run_id: str) -> ActiveRun | None:
        active = await self._lookout.active()
        return next((run for run in active if run.run_id == run_id), None)

    async def _stop(self, worker_id: str, dry_run: bool) -> str:
        await self._ask_stop(worker_id, drain=False, dry_run=dry_run)
        if dry_run:
            return "stopped, its task released"

        async def stopped() -> bool:
            return not await self._is_alive(worker_id)

        if not await self._until(stopped):
            raise LeaseConflict(
                f"worker {worker_id!r} has not stopped for {self._patience:.0f} s; "
                "look at its terminal, or end its process"
            )
        return "stopped"

    async def _drain(self, worker_id: str, dry_run: bool) -> str:
        await self._ask_stop(worker_id, drain=True, dry_run=dry_run)
        return "stops after its task"

    async def _ask_stop(self, worker_id: str, *, drain: bool, dry_run: bool) -> None:
        worker = next((w for w in await self._queries.workers() if w.id == worker_id), None)
        if worker is None or not worker.alive:
            raise WorkerNotFound(
                f"no live worker {worker_id!r}; `agentmux ps` lists those that are"
            )
        if dry_run:
            return
        ask = partial(self._presence.ask_stop, worker.agent, worker.id, drain=drain)
        try:
            await asyncio.to_thread(ask)
        except OSError as error:
            raise StorageError(f"{error.filename}: {error.strerror}; mend its folder") from error

    async def _is_alive(self, worker_id: str) -> bool:
        return any(w.id == worker_id and w.alive for w in await self._queries.workers())

    async def _until(self, condition: Callable[[], Awaitable[bool]]) -> bool:
        """Wait until `condition` holds, looking after every commit; False: not in time."""
        try:
            async with asyncio.timeout(self._patience), self._feed.subscribe() as changed:
                while not await condition():
                    changed.clear()
                    try:
                        # A process that dies commits nothing: look now and then all the same.
                        async with asyncio.timeout(_LOOK):
                            await changed.wait()
                    except TimeoutError:
                        continue
        except TimeoutError:
            return False
        return True


async def _each(
    subjects: tuple[str, ...],
    act: Callable[[str, bool], Awaitable[str]],
    *,
    dry_run: bool,
) -> Receipt:
    """Do what can be done to each subject, at the same time, and report each refusal."""
    done: dict[str, str] = {}
    refused: dict[str, Refusal] = {}

    async def one(subject: str) -> None:
        try:
            done[subject] = await act(subject, dry_run)
        except AgentmuxError as error:
            refused[subject] = Refusal(subject, error.code, str(error))

    async with asyncio.TaskGroup() as group:
        for subject in dict.fromkeys(subjects):
            group.create_task(one(subject))
    order = [subject for subject in dict.fromkeys(subjects) if subject in done]
    return Receipt(dry_run, {subject: done[subject] for subject in order}, tuple(refused.values()))


def _seeded(report: SeedReport, *, dry_run: bool) -> Receipt:
    done = dict.fromkeys(report.created, "created")
    for task_id, fields in report.changed.items():
        done[task_id] = f"updated: {', '.join(fields)}"
    done |= dict.fromkeys(report.blocked, "blocked: no longer in the DAG")
    done |= dict.fromkeys(report.unblocked, "unblocked: back in the DAG")
    counts = {
        "created": len(report.created),
        "updated": len(report.updated),
        "unchanged": report.unchanged,
        "blocked": len(report.blocked),
        "unblocked": len(report.unblocked),
    }
    return Receipt(dry_run, done, (), counts)
