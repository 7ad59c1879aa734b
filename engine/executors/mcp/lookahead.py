"""What calls of MCP servers cannot succeed, found before any of them is claimed.

Each server is started, or reached, once, whatever number of tasks are for it, and all of them at
the same time: whoever seeds or starts a worker waits for no more than `PREFLIGHT`, and what it
takes to end a server. What may pass by itself (a server that is down, or slow) is no reason: the
run will tell. Calls nothing and writes nothing.

A server on stdio is a process of a run of its own that holds no task. A guard has it gone even if
this process is killed; if that is killed, too, whoever starts next on this state folder ends it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import uuid
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field, structs

from engine.clock import SystemClock
from engine.errors import AgentmuxError
from engine.executors.base import RunContext
from engine.executors.mcp.asking import Failed, look
from engine.executors.mcp.order import read_call, read_server
from engine.executors.programs import Refused
from engine.model import LOOK, Claim, State, TaskDef
from engine.processes.guard import Guard
from engine.shield import shielded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.executors.base import Site
    from engine.executors.mcp.order import Call
    from engine.model import ProcessId, Spending

log = logging.getLogger(__name__)

PREFLIGHT = 5.0
"""Seconds that all servers together have to tell their tools."""
_AT_ONCE = 16
"""Servers that are started, or reached, at the same time."""
_MOST_CALLS = 1000
"""Different calls of one server that are compared with its tools; the run will tell of others."""
_NOT_AGAIN = 60.0
"""Seconds for which a server that was waited for in vain is not waited for again."""
_GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL at most, for a server that was only looked at."""


class _Wanted(Struct):
    """A call, and the ids of the tasks that make it."""

    call: Call
    ids: list[str] = field(default_factory=list)


class Lookahead:
    """Looks at servers; remembers which of them were waited for in vain."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._silent: dict[str, float] = {}

    async def find_unfit(self, tasks: Sequence[TaskDef], site: Site) -> dict[str, str]:
        """Return why no call that these tasks make can succeed until somebody mends something."""
        unfit: dict[str, str] = {}
        servers: dict[str, dict[str, _Wanted]] = {}
        for task in tasks:
            try:
                call = read_call(task.payload)
            except Refused as refusal:
                unfit[task.id] = str(refusal)
                continue
            wanted = servers.setdefault(call.server, {})
            key = json.dumps((call.tool, call.arguments), sort_keys=True)
            if key in wanted or len(wanted) < _MOST_CALLS:
                wanted.setdefault(key, _Wanted(call)).ids.append(task.id)
        now = self._clock.monotonic()
        asked = {
            name: list(wanted.values())
            for name, wanted in servers.items()
            if now - self._silent.get(name, -_NOT_AGAIN) >= _NOT_AGAIN
        }
        if asked:
            unfit |= await self._look_at_all(asked, site)
        return unfit

    async def _look_at_all(
        self, servers: Mapping[str, Sequence[_Wanted]], site: Site
    ) -> dict[str, str]:
        unfit: dict[str, str] = {}
        waited_for = set(servers)
        turns = asyncio.Semaphore(_AT_ONCE)
        guard = Guard(site.layout.state)

        async def look_at(name: str, wanted: Sequence[_Wanted]) -> None:
            calls = [one.call for one in wanted]
            found = await self._look_at(name, calls, site, guard, turns)
            waited_for.discard(name)
            for one, why in zip(wanted, found, strict=True):
                if why is not None:
                    unfit.update(dict.fromkeys(one.ids, why))

        try:
            async with asyncio.timeout(PREFLIGHT), asyncio.TaskGroup() as looks:
                for name, wanted in servers.items():
                    looks.create_task(look_at(name, wanted), name=f"look at MCP server {name}")
        except TimeoutError:
            self._silent |= dict.fromkeys(waited_for, self._clock.monotonic())
            log.info("MCP servers that did not tell their tools in time: %s", sorted(waited_for))
        finally:
            await shielded(asyncio.to_thread(guard.close))
        return unfit

    async def _look_at(
        self,
        name: str,
        calls: Sequence[Call],
        site: Site,
        guard: Guard,
        turns: asyncio.Semaphore,
    ) -> Sequence[str | None]:
        """Return why each call cannot succeed, None for one that may, as far as anybody can say."""
        context, gone = self._context(site, guard), True
        try:
            server = await asyncio.to_thread(
                read_server, name, site.config.mcp, dict(os.environ), site.project
            )
            async with turns:
                return await look(context, server, calls)
        except Refused as refusal:
            return [str(refusal)] * len(calls)
        except (Failed, OSError):
            return [None] * len(calls)
        except AgentmuxError as error:
            gone = False  # its tree may live on; the guard tries, too
            log.warning("MCP server %s: %s", name, error)
            return [None] * len(calls)
        finally:
            if gone:
                guard.over(context.claim.run_id)

    def _context(self, site: Site, guard: Guard) -> RunContext:
        """Return a run that holds no task and tells nobody of its progress."""
        run_id, now = f"{LOOK}{uuid.uuid4()}", self._clock.now()

        async def started(process: ProcessId) -> None:
            guard.lead(run_id, process)

        async def progress(note: str, spending: Spending | None = None) -> None:
            pass

        async def results() -> dict[str, Mapping[str, Any] | None]:
            return {}

        task = TaskDef("preflight", "preflight", "preflight")
        return RunContext(
            claim=Claim(run_id, task, "preflight", 1, State.CLAIMED, now, now),
            layout=site.layout,
            project=site.project,
            config=structs.replace(site.config, grace=min(site.config.grace, _GRACE)),
            clock=self._clock,
            starting=lambda: guard.begin(run_id),
            started=started,
            progress=progress,
            results=results,
        )
