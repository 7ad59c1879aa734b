"""A worker: the loop that claims tasks for one agent, runs them and reports how they ended.

It knows its store and its executors; of other workers, files and signals its Host knows.
"""

from __future__ import annotations

import asyncio
import json
import logging
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from engine.errors import AgentmuxError, LeaseLost, StorageError, StoreGone
from engine.executors.base import Executor, RunContext, no_executor
from engine.files import write_private
from engine.model import Claim, Outcome, ProcessId, RunOutcome, State, to_json
from engine.text import duration

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from engine.clock import Clock
    from engine.config import Config
    from engine.files import Layout
    from engine.model import Spending
    from engine.processes.guard import Guard
    from engine.store.lookout import Lookout
    from engine.store.store import Store

log = logging.getLogger(__name__)

POLLS = (10.0, 20.0, 30.0)
"""Seconds between looks for work when nothing wakes the worker: only a safety net."""

_RETRIES = (0.5, 1.0, 2.0, 5.0)
_GIVE_UP_AFTER = 6


class Why(Enum):
    """Why a run is interrupted before its executor is through."""

    STOP = "worker stopped"
    ASKED = "operator"
    TIMEOUT = "timeout"
    LOST = "claim lost"


_TOLD = {
    Why.STOP: "the worker stops",
    Why.ASKED: "the operator asked for it",
    Why.TIMEOUT: "its time was over",
    Why.LOST: "the claim was taken from it",
}


class Worker:
    """One worker. `run` is its whole life; all else may be called at any time before its end.

    `is_idle` is given for a worker that must end when there is nothing left for its agent.
    """

    def __init__(
        self,
        agent: str,
        worker_id: str,
        *,
        host: ProcessId,
        store: Store,
        executors: Mapping[str, Executor],
        layout: Layout,
        project: Path,
        config: Config,
        clock: Clock,
        guard: Guard,
        lookout: Lookout,
        is_idle: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self.agent = agent
        self.id = worker_id
        self.claim: Claim | None = None
        self.idle = False
        self.until_idle = is_idle is not None
        self.stopping = False
        self.killed = False
        self._host = host
        self._store = store
        self._executors = executors
        self._preparing = frozenset(k for k, executor in executors.items() if executor.prepares)
        self._layout = layout
        self._project = project
        self._config = config
        self._clock = clock
        self._guard = guard
        self._lookout = lookout
        self._is_idle = is_idle
        self._wake = asyncio.Event()
        self._run: asyncio.Task[Outcome] | None = None
        self._why: Why | None = None
        self._timing_out: asyncio.Task[bool] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tree_gone = True

    def wake(self) -> None:
        """Say that there may be something to claim."""
        self._wake.set()

    def stop(self, *, drain: bool = False) -> None:
        """Ask for the end: the current run is released, or finished first with `drain`."""
        self.stopping = True
        self._wake.set()
        if not drain:
            self.interrupt(Why.STOP)

    def give_up(self) -> None:
        """Ask for the end of a worker whose store is gone: its run counts as lost."""
        self.stopping = True
        self._wake.set()
        self.interrupt(Why.LOST)

    def interrupt(self, why: Why) -> None:
        """End the current run, if there is one; a finished one is reported as it ended."""
        if self._run is not None and not self._run.done() and self._why is None:
            self._why = why
            self._run.cancel()

    def _reason(self) -> Why | None:
        return self._why

    async def run(self) -> None:
        """Claim and run until told to stop."""
        polls = 0
        while not self.stopping:
            self._wake.clear()
            if self.claim is None:
                self.claim = await self._next_claim()
            if self.claim is None:
                if self._is_idle is not None and await self._is_idle():
                    return
                await self._wait(POLLS[min(polls, len(POLLS) - 1)])
                polls += 1
                continue
            polls = 0
            await self._work()
        if self.claim is not None:
            # Claimed in the moment of the stop, never started.
            await self.give_back(self.claim, Why.STOP)

    async def _next_claim(self) -> Claim | None:
        try:
            return await self._store.claim(self.agent, self.id, self._host, self._preparing)
        except StoreGone:
            return None  # the host tells, and gives up if it stays so
        except StorageError as error:
            log.warning("%s cannot claim: %s", self.id, error)
            return None

    async def _wait(self, seconds: float) -> None:
        self.idle = True
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        finally:
            self.idle = False

    async def _work(self) -> None:
        """Run the claimed task; afterwards `claim` is None or the next one."""
        claim = self.claim
        assert claim is not None
        log.info("%s took %s", self.id, claim.task.id)
        outcome = await self._carry_out(claim)
        taken = await self._was_timed_out()
        if outcome is None and self._why is Why.TIMEOUT and not taken:
            # The store refused when the time was over; now it has to hear of it all the same.
            error = f"timed out after {claim.task.timeout:g} s"
            outcome = Outcome(RunOutcome.TIMED_OUT, error=error)
        if outcome is not None:
            took = duration((self._clock.now() - claim.claimed_at).total_seconds())
            why = f": {outcome.error}" if outcome.error else ""
            ended = "finished" if outcome.kind is RunOutcome.DONE else "did not finish"
            log.info("%s %s %s in %s%s", self.id, ended, claim.task.id, took, why)
            self.claim = await self._report(claim, outcome)
        elif self._why in (Why.STOP, Why.ASKED) and not taken:
            await self.give_back(claim, self._why)
        else:
            await self._let_go(claim)

    async def _carry_out(self, claim: Claim) -> Outcome | None:
        """Return how the run ended, None if it was interrupted; its tree is gone then."""
        kind = claim.task.payload.get("kind", "noop")
        executor = self._executors.get(kind)
        if executor is None:
            return Outcome(RunOutcome.BLOCKED, error=no_executor(kind, self._executors))
        self._why, self._tree_gone = None, True
        self._run = asyncio.create_task(self._execute(executor, claim), name=f"run {claim.run_id}")
        if self.stopping:
            self.interrupt(Why.STOP)
        self._set_timer(claim)
        try:
            return await self._run
        except asyncio.CancelledError:
            if self._reason() is None:
                raise
            return None
        finally:
            self._set_timer(None)
            self._run = None
            if self._tree_gone:
                self._guard.over(claim.run_id)

    def _set_timer(self, claim: Claim | None) -> None:
        """Let the time of a run begin, or begin anew; None: there is none."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if claim is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(claim.task.timeout, self._time_out, claim)

    def _time_out(self, claim: Claim) -> None:
        """Take the claim and end the tree, both at once: nothing may come of the run any more."""
        if self._run is None or self._run.done() or self._why is not None:
            return

        async def take() -> bool:
            try:
                return await self._store.time_out(claim.task.id, claim.run_id)
            except StorageError as error:
                log.warning("the end of %s's time is not stored yet: %s", claim.task.id, error)
                return False

        self._timing_out = asyncio.create_task(take(), name=f"time out {claim.run_id}")
        self.interrupt(Why.TIMEOUT)

    async def _was_timed_out(self) -> bool:
        """Say whether the run lost its claim because its time was over."""
        if self._timing_out is None:
            return False
        taking, self._timing_out = self._timing_out, None
        return await taking

    async def _execute(self, executor: Executor, claim: Claim) -> Outcome:
        begun = claim.state is not State.CLAIMED

        async def begin() -> None:
            nonlocal begun
            if not begun:
                await self._insist(lambda: self._store.start(claim))
                begun = True
                self._set_timer(claim)

        try:
            if not executor.prepares:
                await begin()
            outcome = await executor.run(self._context(claim, begin))
            if outcome.kind is RunOutcome.DONE:
                await begin()  # whoever has prepared and says nothing has worked all the same
        except LeaseLost:
            self._why = Why.LOST
            raise asyncio.CancelledError from None
        except AgentmuxError as error:
            # Its tree may live on, or its files cannot be written: no retry helps by itself.
            self._tree_gone = False
            return Outcome(RunOutcome.BLOCKED, error=str(error))
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            # Whatever it is (GeneratorExit, say): the run's, not the worker's.
            log.exception("executor of %s failed", claim.task.id)
            what = f"{type(error).__name__}: {error}".removesuffix(": ")
            return Outcome(RunOutcome.FAILED, error=f"internal error: {what}")
        else:
            return outcome

    def _context(self, claim: Claim, begin: Callable[[], Awaitable[None]]) -> RunContext:
        async def started(process: ProcessId) -> None:
            self._guard.lead(claim.run_id, process)
            await self._insist(lambda: self._store.lead(claim, process))

        async def progress(note: str, spending: Spending | None = None) -> None:
            try:
                await self._store.progress(claim, note, spending)
            except StorageError as error:
                log.warning("progress of %s is not stored: %s", claim.task.id, error)

        return RunContext(
            claim=claim,
            layout=self._layout,
            project=self._project,
            config=self._config,
            clock=self._clock,
            begin=begin,
            starting=partial(self._guard.begin, claim.run_id),
            started=started,
            progress=progress,
            results=partial(self._lookout.results, claim.task),
            before=partial(self._lookout.before, claim.task.id),
            needed=self._lookout.needed,
        )

    async def _insist(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write until the store takes it: a full disk is no fault of the run, and it passes."""
        attempt = 0
        while True:
            try:
                return await write()
            except StorageError as error:
                attempt += 1
                log.warning("%s is not stored yet: %s", self.id, error)
                await asyncio.sleep(_RETRIES[min(attempt, len(_RETRIES)) - 1])

    async def _report(self, claim: Claim, outcome: Outcome) -> Claim | None:
        """Write how a run ended and claim the next task. A result is not given up for a full disk.

        Once a stop was asked and the store still refuses, the claim is left to its lease.
        """
        attempt, unfit = 0, False
        what = f"the result of {claim.task.id}"
        while True:
            try:
                if not self.stopping:
                    return await self._store.finish_and_claim(
                        claim, outcome, self._host, self._preparing, tree_gone=self._tree_gone
                    )
                await self._store.finish(claim, outcome, tree_gone=self._tree_gone)
            except LeaseLost:
                return None
            except (TypeError, ValueError) as error:
                # The executor's, not the store's: JSON that is none, text that cannot be encoded.
                if unfit:
                    raise
                unfit = True
                why = ascii(f"internal error: the result of the run cannot be stored: {error}")
                outcome = Outcome(RunOutcome.FAILED, error=why[1:-1])
            except StorageError as error:
                attempt += 1
                if self.stopping and attempt >= _GIVE_UP_AFTER:
                    kept = await asyncio.to_thread(self._keep, claim, outcome)
                    log.exception("%s could not be stored%s", what, kept)
                    return None
                log.warning("%s is not stored yet: %s", what, error)
                await asyncio.sleep(_RETRIES[min(attempt, len(_RETRIES)) - 1])
            else:
                return None

    def _keep(self, claim: Claim, outcome: Outcome) -> str:
        """Write a result that the store does not take beside the output of its run; say where."""
        file = self._layout.run_folder(claim.task.id, claim.run_id) / "unstored.json"
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(file, json.dumps(to_json(outcome)))
        except OSError as error:
            return f", nor kept in {file} ({error.strerror})"
        return f"; it is kept in {file}"

    async def give_back(self, claim: Claim, why: Why) -> None:
        """Release a claim whose tree is gone."""
        log.info("%s releases %s: %s", self.id, claim.task.id, _TOLD[why])
        try:
            await self._store.release(claim.task.id, claim.run_id, why.value)
        except LeaseLost:
            await self._let_go(claim)
        except StorageError:
            log.exception("%s could not be released; its lease will expire", claim.task.id)
        self.claim = None

    async def _let_go(self, claim: Claim) -> None:
        """Say that the tree of a run which lost its task is gone; the reaper sees it otherwise."""
        self.claim = None
        log.info("%s lost %s: %s", self.id, claim.task.id, _TOLD[self._why or Why.LOST])
        try:
            await self._store.gone(claim.run_id)
        except StoreGone:
            pass
        except StorageError as error:
            log.warning("the end of %s is not stored yet: %s", claim.run_id, error)
