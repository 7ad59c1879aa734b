"""The end of a service: its tree, what its former lives left, its tmux sessions; then a look.

Every step is told. All of it together takes no longer than `WATCHDOG` seconds, and what still holds
the port then is named.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

from engine.errors import AgentmuxError
from engine.model import SERVICE
from engine.processes.census import tagged
from engine.processes.tmux import end_session, windows
from engine.processes.trees import end_tree
from engine.services.ports import holders
from engine.text import plural

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from engine.model import ProcessId

    Tell = Callable[[str], None]

WATCHDOG = 15.0
_POLL = 0.1
_LISTED = 12


def new_life(name: str) -> str:
    """Return the run id of a life of a service."""
    return f"{SERVICE}{name}-{uuid.uuid4().hex[:12]}"


def is_life(run_id: str, name: str) -> bool:
    """Return whether a run id is of a life of a service; `web-2` is another one than `web`."""
    return run_id.rpartition("-")[0] == f"{SERVICE}{name}"


async def end_service(
    name: str,
    state_dir: Path,
    lives: dict[str, set[ProcessId]],
    *,
    grace: float,
    port: int | None,
    tmux: Iterable[str],
    since: float | None,
    tell: Tell,
) -> str:
    """End all that is there of a service; return what is left, in words, empty if nothing is.

    `lives` are the known processes by run id; others of the same service are found by their tag.
    Sessions of tmux that `tmux` names end if they were made after `since` (a time of the epoch).
    """
    try:
        async with asyncio.timeout(WATCHDOG):
            left = await _end(name, state_dir, lives, grace, tell)
            left += await _end_sessions(tmux, since, tell)
            left += await _until_free(port, tell)
    except TimeoutError:
        left = [f"not all was over within {WATCHDOG:g} s"]
        if port is not None and (held := await asyncio.to_thread(_held, port)):
            left.append(held)
    tell("; ".join(left) if left else "all of it is gone")
    return "; ".join(left)


async def _end(
    name: str, state_dir: Path, lives: dict[str, set[ProcessId]], grace: float, tell: Tell
) -> list[str]:
    known = {run_id: set(members) for run_id, members in lives.items()}
    for process, run_id in (await asyncio.to_thread(tagged, state_dir)).items():
        if is_life(run_id, name):
            if run_id not in lives:
                tell(f"found pid {process.pid}, which a former life of the service left")
            known.setdefault(run_id, set()).add(process)

    def on_signal(number: signal.Signals, members: set[ProcessId]) -> None:
        pids = ", ".join(str(pid) for pid in sorted(one.pid for one in members)[:_LISTED])
        tell(f"{number.name} to {plural(len(members), 'process', 'processes')}: pid {pids}")

    async def end(run_id: str, members: set[ProcessId]) -> str:
        try:
            await end_tree(run_id, state_dir, members, grace=grace, on_signal=on_signal)
        except AgentmuxError as error:
            return str(error)
        return ""

    ended = await asyncio.gather(*(end(run_id, members) for run_id, members in known.items()))
    return [left for left in ended if left]


async def _end_sessions(names: Iterable[str], since: float | None, tell: Tell) -> list[str]:
    wanted = set(names)
    if not wanted or since is None:
        return []
    sessions = {one.session: one.session_created for one in await windows()}
    for session, made in sessions.items():
        # One that was there before is somebody else's.
        if session in wanted and made >= int(since):
            tell(f"tmux session {session} is ended")
            await end_session(session)
    return []


async def _until_free(port: int | None, tell: Tell) -> list[str]:
    """Wait until nobody listens on the port any more."""
    if port is None:
        return []
    while await asyncio.to_thread(_held, port):  # noqa: ASYNC110 - other processes let it go
        await asyncio.sleep(_POLL)
    tell(f"port {port} is free")
    return []


def _held(port: int) -> str:
    listed = ", ".join(str(holder) for holder in holders(port))
    return f"port {port} is held by {listed}" if listed else ""
