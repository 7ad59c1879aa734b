"""Who watches over agents that somebody else has started: whether they are still there, and
whether there are such that nobody has told of.
"""  # noqa: D205

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from msgspec import Struct

from engine.agents.clis import KNOWN
from engine.model import AlertKind, NewAlert
from engine.processes.census import RUN_ID
from engine.processes.signalling import identify, seems_alive
from engine.processes.tmux import may_be_at, windows
from engine.text import age, clean_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from engine.clock import Clock
    from engine.config import Config
    from engine.model import External, ProcessId
    from engine.processes.tmux import Window
    from engine.store.lookout import Lookout
    from engine.store.store import Store

_EVERY = 5.0
_STRANGERS_EVERY = 30.0
"""Seconds between two looks at all processes for agents that nobody has told of."""
_GAP = timedelta(minutes=1)
"""Between two looks so long, and somebody slept: this process, or the whole machine."""
_SILENCE = 20
"""Beats that one may miss who has neither a process nor a window: `stale_after` times so many."""


class Stranger(Struct, frozen=True):
    """A process that looks like an agent at work in the project, and that nobody has told of."""

    process: ProcessId
    command: str
    cwd: str


class RegistryWatch:
    """Looks from time to time, by whichever process watches."""

    def __init__(
        self,
        *,
        config: Config,
        store: Store,
        lookout: Lookout,
        project: Path,
        clock: Clock,
    ) -> None:
        self._store = store
        self._lookout = lookout
        self._project = project
        self._targets = config.alerts.targets
        self._silence = timedelta(seconds=config.stale_after * _SILENCE)
        programs = {Path(one.command[0]).name for one in config.agents.values() if one.command}
        self._programs = frozenset(programs | set(KNOWN))
        self._clock = clock
        self._last: datetime | None = None
        self._patient_until: datetime | None = None
        self._told: set[ProcessId] = set()
        self._strangers_at = 0.0

    async def watch(self) -> None:
        """Look until cancelled. Raises AgentmuxError: the store does not answer."""
        while True:
            await self.look()
            await asyncio.sleep(_EVERY)

    async def look(self) -> None:
        """Forget who is gone, with an alert; tell of agents that nobody has registered."""
        agents = await self._lookout.externals()
        if agents:
            await self._bury(agents)
        now = self._clock.monotonic()
        if now >= self._strangers_at:
            self._strangers_at = now + _STRANGERS_EVERY
            await self._tell_of_strangers(agents)

    async def _bury(self, agents: Iterable[External]) -> None:
        agents = list(agents)
        seen = await windows() if any(agent.tmux for agent in agents) else []
        beats = await self._lookout.beats_of_externals()
        now = self._clock.now()
        # After a gap in the clock silence proves nothing: each gets the time to beat again.
        if self._last is not None and abs(now - self._last) > _GAP:
            self._patient_until = now + self._silence
        self._last = now
        if self._patient_until is not None and now < self._patient_until <= now + self._silence:
            beats = {}
        whys = {
            agent.id: why
            for agent in agents
            if (why := self._missing(agent, seen, now - beats.get(agent.id, now)))
        }
        if whys:
            alerts = [_vanished(agent, whys[agent.id]) for agent in agents if agent.id in whys]
            await self._store.unregister_agents(whys, alerts, self._targets)

    def _missing(self, agent: External, seen: list[Window], silent: timedelta) -> str:
        """Return why an agent is taken for gone; empty if it is not."""
        if agent.process is not None and not seems_alive(agent.process):
            return f"its process {agent.process.pid} is gone"
        if agent.tmux is not None and not may_be_at(agent.place, seen):
            return f"its window {agent.tmux} is gone"
        if agent.process is None and agent.tmux is None and silent > self._silence:
            return f"it was silent for {age(silent.total_seconds())}"
        return ""

    async def _tell_of_strangers(self, agents: Iterable[External]) -> None:
        known = {agent.process for agent in agents}
        found = await asyncio.to_thread(find_strangers, self._programs, self._project)
        new = [one for one in found if one.process not in known | self._told]
        self._told = {one.process for one in found}
        if new:
            await self._store.raise_alerts(map(_unregistered, new), self._targets)


def _vanished(agent: External, why: str) -> NewAlert:
    return NewAlert(AlertKind.AGENT, agent.id, f"agent {agent.id} ({agent.type}) vanished: {why}")


def _unregistered(stranger: Stranger) -> NewAlert:
    pid = stranger.process.pid
    return NewAlert(
        AlertKind.AGENT,
        f"pid {pid}",
        f"{stranger.command} works in {stranger.cwd} (pid {pid}), and nobody has registered it; "
        f"`agentmux agents register NAME --type {stranger.command} --pid {pid}`",
    )


def find_strangers(programs: Iterable[str], project: Path) -> list[Stranger]:
    """Return agents at work in the project that are no part of a run. Looks at all processes."""
    wanted, root = set(programs), project.resolve()
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            name = _program_of(words)
            if name not in wanted:
                continue
            cwd = process.cwd()
            variables: Mapping[str, str] = process.environ()
        except (psutil.Error, OSError):
            continue
        if RUN_ID in variables or not Path(cwd).is_relative_to(root):
            continue
        identity = identify(process.pid)
        if identity is not None and process.pid != os.getpid():
            found.append(Stranger(identity, name, clean_text(cwd)))
    return found


def _program_of(words: list[str]) -> str:
    """Return the name of the program that a process runs, or of the script, by an interpreter."""
    names = [Path(word).name.removesuffix(".js") for word in words[:2]]
    if len(names) == 2 and names[0] in {"node", "bun", "deno"}:
        return names[1]
    return names[0] if names else ""
