"""What is asked of agents that somebody else has started: to be known, to beat, to be forgotten."""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING

from msgspec.structs import replace

from engine.commands import BeatAgents, Receipt, Refusal, RegisterAgent, UnregisterAgents
from engine.errors import AgentmuxError, Code, CommandNotAllowed, LeaseConflict, ValidationError
from engine.files import check_name
from engine.processes.census import tagged
from engine.processes.proctable import lineage
from engine.processes.signalling import seems_alive
from engine.processes.tmux import (
    end_session,
    end_window,
    find_place,
    leaders_in,
    may_be_at,
    windows,
    windows_at,
)
from engine.processes.trees import end_process, is_ours

if TYPE_CHECKING:
    from engine.config import Config
    from engine.files import Layout
    from engine.model import External, ProcessId
    from engine.store.lookout import Lookout
    from engine.store.store import Store

    OnAgents = RegisterAgent | BeatAgents | UnregisterAgents

_WINDOW = re.compile(r"[^\x00-\x1f\x7f:]{1,100}(?::[^\x00-\x1f\x7f:]{1,100})?")
_LONGEST = 1000
_MOST = 50


class AgentOrders:
    """Registers, beats and unregisters."""

    def __init__(self, *, store: Store, lookout: Lookout, layout: Layout, config: Config) -> None:
        self._store = store
        self._lookout = lookout
        self._layout = layout
        self._grace = config.grace

    async def carry_out(self, command: OnAgents, *, dry_run: bool) -> Receipt:
        """Do it, or with `dry_run` say what would be done; see Engine.execute.

        Raises:
            ValidationError: what is told of an agent is not as it must be.
            LeaseConflict: another agent that lives has this id, or a worker has.

        """
        match command:
            case RegisterAgent():
                return await self._register(command.agent, dry_run=dry_run)
            case BeatAgents():
                found = await self._store.beat_agents(command.agents, dry_run=dry_run)
                done = dict.fromkeys(found, "alive")
                return Receipt(dry_run, done, _unknown(command.agents, found))
            case UnregisterAgents():
                return await self._unregister(command, dry_run=dry_run)

    async def _register(self, agent: External, *, dry_run: bool) -> Receipt:
        check_agent(agent)
        if agent.process is not None and not seems_alive(agent.process):
            raise ValidationError(f"there is no process {agent.process.pid}")
        if agent.tmux is not None:
            agent = replace(agent, place=find_place(agent.tmux, await windows()))
        new = await self._store.register_agent(agent, dry_run=dry_run)
        return Receipt(dry_run, {agent.id: "registered" if new else "updated"})

    async def _unregister(self, command: UnregisterAgents, *, dry_run: bool) -> Receipt:
        known = {one.id: one for one in await self._lookout.externals()}
        found = [name for name in command.agents if name in known]
        refused = list(_unknown(command.agents, found))
        done = dict.fromkeys(found, "registered no more")
        if command.end:
            for name in found:
                try:
                    there = await self._check_end(known[name])
                    done[name] = await self._end(known[name], there=there, dry_run=dry_run)
                except AgentmuxError as error:
                    del done[name]
                    refused.append(Refusal(name, error.code, str(error)))
        await self._store.unregister_agents(dict.fromkeys(done, ""), dry_run=dry_run)
        counts = {f"agents {'ended' if command.end else 'forgotten'}": len(done)} if done else {}
        return Receipt(dry_run, done, tuple(refused), counts)

    async def _check_end(self, agent: External) -> bool:
        """Say whether an agent that is to be ended has a window; anybody can register anything.

        Raises:
            CommandNotAllowed: it is this process, one that has started it, or one of the fleet.
            LeaseConflict: its window may be there, and cannot be reached from here.

        """
        process, name = agent.process, agent.tmux
        fleet = await self._fleet() if process is not None or name is not None else set()
        if process is not None and (process in fleet or is_ours(process)):
            raise CommandNotAllowed(
                f"process {process.pid} is one of this fleet's own, or has started this one: "
                "`agentmux ps` and `agentmux services ls` say what it does, stop and kill end it; "
                "without --end it is forgotten"
            )
        if name is None:
            return False
        seen = await windows()
        if not may_be_at(agent.place, seen):
            return False
        found = windows_at(agent.place, seen)
        if not found:
            raise LeaseConflict(
                f"the tmux server that has window {name} does not answer here; end it in its own "
                "terminal; without --end it is forgotten"
            )
        leaders = await leaders_in(found)
        ours = {os.getpid(), *(process.pid for process in fleet)} if leaders else ()
        if inside := [pid for pid in ours if leaders & lineage(pid)]:
            raise CommandNotAllowed(
                f"tmux {name} has process {min(inside)} in it, which is one of this fleet's own, "
                "or the one that is to end it; without --end it is forgotten"
            )
        return True

    async def _end(self, agent: External, *, there: bool, dry_run: bool) -> str:
        """End an agent's window, and its process; say what of it there was to end.

        Raises:
            LeaseConflict: it lives on.

        """
        process = agent.process
        ended = [f"pid {process.pid}"] if process is not None and seems_alive(process) else []
        ended += [f"tmux {agent.tmux}"] if there else []
        if agent.place is not None and there and not dry_run:
            await (end_window if agent.place.id.startswith("@") else end_session)(agent.place.id)
        if process is not None and seems_alive(process) and not dry_run:
            await end_process(process, grace=self._grace)
        return f"ended: {', '.join(ended)}" if ended else "registered no more; it was gone before"

    async def _fleet(self) -> set[ProcessId]:
        """Return the processes of workers, runs and services, and who keeps these."""
        hosts = {worker.host for worker in await self._lookout.workers()}
        services = await self._lookout.known_services()
        keepers = {one.keeper for one in services if one.keeper is not None}
        return hosts | keepers | set(await asyncio.to_thread(tagged, self._layout.state))


def check_agent(agent: External) -> None:
    """Raise ValidationError for what cannot be known of an agent."""
    check_name(agent.id, "agent")
    check_name(agent.type, "type")
    if agent.tmux is not None and not _WINDOW.fullmatch(agent.tmux):
        raise ValidationError(f"{agent.tmux!r} names no window of tmux: use session:window")
    if len(agent.meta) > _MOST:
        raise ValidationError(f"there are {len(agent.meta)} pieces of meta; {_MOST} are the most")
    for key, value in agent.meta.items():
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", key) or len(value) > _LONGEST:
            raise ValidationError(
                f"meta {key[:64]!r}: a key is 1 to 64 of A-Z a-z 0-9 . _ -, a value at most "
                f"{_LONGEST} characters"
            )


def _unknown(wanted: tuple[str, ...], found: list[str]) -> tuple[Refusal, ...]:
    return tuple(
        Refusal(
            name,
            Code.WORKER_NOT_FOUND,
            f"no agent {name!r} is registered; `agentmux agents ls` lists them",
        )
        for name in wanted
        if name not in found
    )
