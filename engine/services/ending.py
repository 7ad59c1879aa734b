"""The end of a service: its tree, what its former lives left, its tmux sessions; then a look.

Every step is told. All of it together takes no longer than the grace and `WATCHDOG` seconds, and
what still holds the port then is named.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from typing import TYPE_CHECKING

from engine.errors import AgentmuxError, StorageError
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
_ENDS = re.compile(r"-([0-9a-f]{8})[0-9a-f]{8}\Z")


def new_life(name: str) -> str:
    """Return the run id of a life of a service that begins now; it tells when that was."""
    return f"{SERVICE}{name}-{int(time.time()):08x}{uuid.uuid4().hex[:8]}"


def _began(lives: Iterable[str]) -> int | None:
    """Return in which second of the epoch the first of some lives began, if any says so."""
    found = (_ENDS.search(run_id) for run_id in lives)
    return min((int(end[1], 16) for end in found if end), default=None)


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
    tell: Tell,
) -> str:
    """End all that is there of a service; return what is left, in words, empty if nothing is.

    `lives` are the known processes by run id; others of the same service are found by their tag.
    Sessions of tmux that `tmux` names end if they were made since the first of these lives began.
    """
    known: dict[str, set[ProcessId]] = {}
    try:
        async with asyncio.timeout(grace + WATCHDOG):
            known, left = await _find(name, state_dir, lives, tell)
            left += await _end(known, state_dir, grace, tell)
            await _end_sessions(tmux, known, tell)
            await _until_free(port, tell)
    except TimeoutError:
        left = [f"not all was over within {grace + WATCHDOG:g} s"]
        if port is not None and (held := await asyncio.to_thread(_held, port)):
            left.append(held)
    if left or known:  # a service that starts for the first time has left nothing to speak of
        tell("; ".join(left) if left else "all of it is gone")
    return "; ".join(left)


async def _find(
    name: str, state_dir: Path, lives: dict[str, set[ProcessId]], tell: Tell
) -> tuple[dict[str, set[ProcessId]], list[str]]:
    """Return the processes of all lives by run id, and what hinders to know them all."""
    known = {run_id: set(members) for run_id, members in lives.items()}
    try:
        found = await asyncio.to_thread(tagged, state_dir)
    except StorageError as error:
        return known, [str(error)]
    for process, run_id in found.items():
        if is_life(run_id, name):
            if run_id not in lives:
                tell(f"found pid {process.pid}, which a former life of the service left")
            known.setdefault(run_id, set()).add(process)
    return known, []


async def _end(
    known: dict[str, set[ProcessId]], state_dir: Path, grace: float, tell: Tell
) -> list[str]:
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


async def _end_sessions(names: Iterable[str], lives: Iterable[str], tell: Tell) -> None:
    wanted, since = set(names), _began(lives)
    if not wanted or since is None:
        return
    sessions = {one.session_id: one for one in await windows()}
    for number, one in sessions.items():
        # One that was there before is somebody else's.
        if one.session in wanted and one.session_created >= since:
            tell(f"tmux session {one.session} is ended")
            await end_session(number)


async def _until_free(port: int | None, tell: Tell) -> None:
    """Wait until nobody listens on the port any more."""
    if port is None:
        return
    while await asyncio.to_thread(_held, port):  # noqa: ASYNC110 - other processes let it go
        await asyncio.sleep(_POLL)
    tell(f"port {port} is free")


def _held(port: int) -> str:
    listed = ", ".join(str(holder) for holder in holders(port))
    return f"port {port} is held by {listed}" if listed else ""
