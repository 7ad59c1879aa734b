"""The life of one service: started, awaited, looked at, mended, started again, ended.

One coroutine from an operator's start to the stop. Whatever happens is a `Standing` that the keeper
stores, and a line in the service's log.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Never

from msgspec import Struct
from msgspec.structs import replace

from engine.clock import to_iso
from engine.errors import AgentmuxError
from engine.executors.capping import Caps
from engine.executors.programs import find_program
from engine.files import private
from engine.model import AlertKind, NewAlert, ServiceState
from engine.processes.census import RUN_ID, STATE_DIR
from engine.processes.trees import spawn
from engine.secrets import redact
from engine.services.ending import end_service, new_life
from engine.services.ports import holders
from engine.services.probing import find_fault
from engine.services.recovering import Recovery, RecoveryFailed
from engine.shield import shielded
from engine.store.services import Standing
from engine.text import clean_text, duration, plural

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from engine.clock import Clock
    from engine.config import Probe, ServiceConfig
    from engine.files import Layout
    from engine.model import ProcessId
    from engine.processes.guard import Guard
    from engine.processes.trees import Child

    Note = Callable[[str, Standing, tuple[NewAlert, ...]], Awaitable[None]]

SERVICE_NAME = "AGENTMUX_SERVICE"
"""The variable that tells the processes of a service which one they are."""
_LONGEST_BACKOFF = 60.0
_STEADY = 60.0
"""Seconds after which a service that ran so long begins with its first backoff again."""
_READY_POLL = 0.2
_ALIVE = 0.5
"""Seconds that a service must live to be ready, if nothing else is asked of it."""
_LARGEST_LOG = 100_000_000
_IN_PROGRESS, _COMPLETE, _FAILED = "in progress", "complete", "failed"


class _Fate(Struct, frozen=True):
    """Why a life is over, or must be. `code`: it ended by itself. `hopeless`: so would the next.

    `unmade`: it was never ready, so a recovery may be what the next life needs.
    """

    why: str
    code: int | None = None
    hopeless: bool = False
    unmade: bool = False


class Kept:
    """One service. `note` stores how it stands; `until_up` waits for what it depends on."""

    def __init__(
        self,
        name: str,
        config: ServiceConfig,
        *,
        layout: Layout,
        project: Path,
        clock: Clock,
        guard: Guard,
        note: Note,
        until_up: Callable[[], Awaitable[None]],
    ) -> None:
        self.name = name
        self.config = config
        self.up = asyncio.Event()
        """Set while it is ready."""
        self._layout = layout
        self._project = project
        self._cwd = project / (config.cwd or "")
        self._clock = clock
        self._guard = guard
        self._note = note
        self._until_up = until_up
        self._standing = Standing(ServiceState.STOPPED)
        self._lives: dict[str, set[ProcessId]] = {}
        self._life = ""
        self._child: Child | None = None
        self._attempts = 0
        self._ready_at: float | None = None
        self._told = False
        self._recovery: Recovery | None = None
        if config.recover is not None:
            needed = (project, layout.state)
            self._recovery = Recovery(config.recover, self._cwd, needed, self.tell)

    @property
    def state(self) -> ServiceState:
        """Where it stands."""
        return self._standing.state

    def knows(self, run_id: str, leader: ProcessId | None) -> None:
        """Hear of a former life that may have left processes."""
        self._lives.setdefault(run_id, set()).update([leader] if leader is not None else [])

    def tell(self, words: str) -> None:
        """Write a line of ours into the log of the service."""
        line = f"[agentmux {to_iso(self._clock.now())}] {self._shown(words)}\n"
        with suppress(OSError), open(self._log, "ab", opener=private) as file:
            file.write(line.encode())

    async def run(self) -> None:
        """Keep it alive until this is cancelled, or it is over for good."""
        try:
            await self._keep()
        finally:
            self.up.clear()
            await shielded(self._stop(), reraise=False)

    @property
    def _log(self) -> Path:
        return self._layout.service_log(self.name)

    def _environment(self) -> dict[str, str]:
        """Return the variables of all that is started for it, with the tag of its life."""
        tag = {RUN_ID: self._life, STATE_DIR: str(self._layout.state.resolve())}
        return {**os.environ, **self.config.env, SERVICE_NAME: self.name} | tag

    def _shown(self, words: str) -> str:
        return clean_text(redact(words, self._environment()))

    async def _stand(
        self,
        state: ServiceState,
        message: str = "",
        *,
        restarts: int | None = None,
        recovery: str | None = None,
        alerts: tuple[NewAlert, ...] = (),
    ) -> None:
        """Store how it stands, and tell it. None: as before."""
        now, message = self._standing, self._shown(message)
        self._standing = replace(
            now,
            state=state,
            message=message,
            restarts=now.restarts if restarts is None else restarts,
            recovery=now.recovery if recovery is None else recovery,
        )
        self.tell(f"{state}: {message}" if message else str(state))
        await self._note(self.name, self._standing, alerts)

    def _alert(self, why: str, *, error: bool) -> tuple[NewAlert, ...]:
        words = self._shown(f"service {self.name}: {why}")
        return (NewAlert(AlertKind.SERVICE, self.name, words[:500], error=error),)

    def _first(self, why: str) -> tuple[NewAlert, ...]:
        """Return an alert, unless there was one since it was last well for a while."""
        if self._ready_at is not None and time.monotonic() - self._ready_at >= _STEADY:
            self._told = False
        self._ready_at = None
        told, self._told = self._told, True
        return () if told else self._alert(why, error=False)

    # -- from start to stop ----------------------------------------------------------------

    async def _keep(self) -> None:
        restarts, backoff = 0, self.config.backoff
        self._attempts, self._told = 0, False
        if self._recovery is not None:
            with suppress(OSError):
                await asyncio.to_thread(self._recovery.tidy)
        awaited = ", ".join(self.config.depends_on)
        words = f"for {awaited} to be ready" if awaited else ""
        await self._stand(ServiceState.WAITING, words, restarts=0, recovery="")
        while True:
            await self._until_up()
            began = time.monotonic()
            try:
                fate = await self._live()
            except (OSError, AgentmuxError) as error:  # the machine's fault, and that may pass
                fate = _Fate(f"it cannot be kept: {error}")
            self.up.clear()
            left = await shielded(self._end())
            why = "; ".join(filter(None, (fate.why, left)))
            if fate.hopeless or not self._goes_on(fate.code):
                state = ServiceState.STOPPED if fate.code == 0 else ServiceState.FAILED
                alerts = () if fate.code == 0 else self._alert(why, error=True)
                await self._stand(state, why, alerts=alerts)
                return
            if time.monotonic() - began >= _STEADY:
                restarts, backoff = 0, self.config.backoff
            if fate.unmade:
                await self._mend_before_start(why)
            restarts += 1
            await self._stand(
                ServiceState.WAITING,
                f"{why}; it is started again in {duration(backoff)}",
                restarts=restarts,
                alerts=self._first(why),
            )
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _LONGEST_BACKOFF)

    def _goes_on(self, code: int | None) -> bool:
        match self.config.restart:
            case "always":
                return True
            case "never":
                return False
        return code != 0

    async def _live(self) -> _Fate:
        """Start it, and stay with it until this life is over or must be."""
        await self._stand(ServiceState.STARTING)
        if fault := await self._find_obstacle():
            return _Fate(fault)
        self._layout.services.mkdir(mode=0o700, exist_ok=True)
        async with Caps(_LARGEST_LOG, self._log):
            try:
                child = await self._start()
            except (OSError, ValueError) as error:
                return _Fate(f"it cannot be started: {error}", hopeless=True)
            ended = asyncio.create_task(child.ended())
            care = asyncio.create_task(self._care())
            try:
                await asyncio.wait({ended, care}, return_when=asyncio.FIRST_COMPLETED)
                if not ended.done():
                    return care.result()
            finally:
                for task in (ended, care):
                    task.cancel()
                await asyncio.gather(ended, care, return_exceptions=True)
        code = child.reap()
        return _Fate(f"it ended with {code}", code, unmade=not self.up.is_set())

    async def _find_obstacle(self) -> str:
        """End what former lives have left, and see that the port is free."""
        left = await shielded(self._end())
        if left or self.config.port is None:
            return left
        held = ", ".join(map(str, await asyncio.to_thread(holders, self.config.port)))
        return f"port {self.config.port} is held by {held}" if held else ""

    async def _start(self) -> Child:
        word, *words = self.config.command
        if not self._cwd.is_dir():
            raise NotADirectoryError(f"its cwd {self.config.cwd!r} is no folder")
        program = find_program(word, self._cwd, os.environ.get("PATH", os.defpath))
        if program is None:
            raise FileNotFoundError(f"there is no program {word!r}")
        run_id = self._begin_life()
        child = spawn(
            (program, *words),
            cwd=self._cwd,
            env=self._environment(),
            stdout=self._log,
            stderr=self._log,
        )
        self._child = child
        self._guard.lead(run_id, child.identity)
        self._lives[run_id] = {child.identity}
        self._standing = replace(self._standing, run_id=run_id, leader=child.identity)
        self.tell(f"pid {child.identity.pid}")
        await self._note(self.name, self._standing, ())
        return child

    def _begin_life(self) -> str:
        """Let all that is started from now on be found and ended, also if we are killed."""
        run_id = self._life = new_life(self.name)
        self._guard.begin(run_id)
        self._lives[run_id] = set()
        return run_id

    # -- while it lives --------------------------------------------------------------------

    async def _care(self) -> _Fate:
        """Look at it until it must be ended; return why."""
        if fault := await self._until_ready():
            why = f"it was not ready within {self.config.ready_timeout:g} s: {fault}"
            return _Fate(why, unmade=True)
        await self._is_ready()
        health = self.config.health
        if health is None:
            health = await asyncio.Future[Never]()
        failures = 0
        while True:
            await asyncio.sleep(health.every)
            fault = await self._fault(health)
            failures = failures + 1 if fault else 0
            if failures >= health.failures:
                self.up.clear()
                alerts = self._first(f"it is unhealthy: {fault}")
                await self._stand(ServiceState.UNHEALTHY, fault, alerts=alerts)
                if why := await self._mend(health, fault):
                    return _Fate(why)
                failures = 0

    async def _until_ready(self) -> str:
        """Wait until it is ready; return what is not, if that is still so after `ready_timeout`."""
        ready = self.config.ready
        if ready is None:
            await asyncio.sleep(_ALIVE)
            return ""
        deadline = time.monotonic() + self.config.ready_timeout
        while fault := await self._fault(ready):
            if time.monotonic() >= deadline:
                return fault
            await asyncio.sleep(_READY_POLL)
        return ""

    async def _is_ready(self) -> None:
        if self._recovery is not None:
            with suppress(OSError):
                await asyncio.to_thread(self._recovery.settle)
        recovery = _COMPLETE if self._standing.recovery == _IN_PROGRESS else None
        self._ready_at = time.monotonic()
        await self._stand(ServiceState.READY, recovery=recovery)
        self.up.set()

    async def _fault(self, probe: Probe) -> str:
        return await find_fault(probe, self.config.port, self._cwd, self._environment())

    # -- mending ---------------------------------------------------------------------------

    async def _mend(self, health: Probe, fault: str) -> str:
        """Recover it while it runs; return why that did not help, so that its life must end."""
        if self._recovery is None:
            return f"it is unhealthy: {fault}"

        async def is_well() -> str:
            still = fault
            for _ in range(health.failures):
                if not (still := await self._fault(health)):
                    break
                await asyncio.sleep(health.every)
            return still

        if why := await self._recover(fault, is_well):
            return why
        self._attempts, self._told = 0, False
        await self._is_ready()
        return ""

    async def _mend_before_start(self, fault: str) -> None:
        """Recover it before its next life; whether that helped, this will tell."""

        async def is_well() -> str:
            return ""

        if self._recovery is not None:
            self._begin_life()
            await self._recover(fault, is_well)
            await shielded(self._end())

    async def _recover(self, fault: str, is_well: Callable[[], Awaitable[str]]) -> str:
        """Recover it, if there are attempts left; return why it is not well, empty if it is."""
        assert self._recovery is not None
        assert self.config.recover is not None
        most = self.config.recover.attempts
        if self._attempts >= most:
            why = f"{fault}; {plural(most, 'recovery', 'recoveries')} did not help"
            with suppress(OSError):
                await asyncio.to_thread(self._recovery.take_back)
            alerts = self._alert(why, error=True) if self._attempts == most else ()
            self._attempts = most + 1  # so that it is told once
            await self._stand(ServiceState.UNHEALTHY, why, recovery=_FAILED, alerts=alerts)
            return why
        self._attempts += 1
        words = f"attempt {self._attempts} of {most}: {fault}"
        await self._stand(ServiceState.RECOVERING, words, recovery=_IN_PROGRESS)
        try:
            await self._recovery.run(self._environment(), is_well)
        except RecoveryFailed as error:
            why = f"recovering failed: {error}"
            alerts = self._first(why)
            await self._stand(ServiceState.UNHEALTHY, why, recovery=_FAILED, alerts=alerts)
            return why
        return ""

    # -- the end ---------------------------------------------------------------------------

    async def _stop(self) -> None:
        if self.state in {ServiceState.STOPPED, ServiceState.FAILED}:
            return
        await self._stand(ServiceState.STOPPING)
        left = await self._end()
        alerts = self._alert(f"it was stopped, but {left}", error=True) if left else ()
        state = ServiceState.FAILED if left else ServiceState.STOPPED
        await self._stand(state, left, alerts=alerts)

    async def _end(self) -> str:
        """End all that lives of it; return what is left, in words."""
        config = self.config
        left = await end_service(
            self.name,
            self._layout.state,
            self._lives,
            grace=config.stop_timeout,
            port=config.port if self._lives else None,
            tmux=config.tmux,
            tell=self.tell,
        )
        if self._child is not None:
            self._child.reap()  # not before: until then its pid cannot be another's
            self._child = None
        if not left:
            for run_id in self._lives:
                self._guard.over(run_id)
            self._lives.clear()
            self._standing = replace(self._standing, run_id=None, leader=None)
        return left
