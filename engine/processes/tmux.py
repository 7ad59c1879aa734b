"""Sessions and windows of tmux: what is there, what names it, its end. Nothing without tmux."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.errors import LeaseConflict, ValidationError
from engine.model import TmuxPlace
from engine.processes.calling import call
from engine.processes.signalling import identify, seems_alive

if TYPE_CHECKING:
    from collections.abc import Iterable

_SECONDS = 5.0
_FIELDS = "pid window_index window_id session_id session_created session_name window_name"
_WINDOWS = "\t".join(f"#{{{name}}}" for name in _FIELDS.split())


class Window(Struct, frozen=True):
    """A window, the session that it is in, and when that was made (seconds since the epoch).

    `server`: the pid of the server, which gives ids to its windows and sessions and none of them
    twice.
    """

    server: int
    index: int
    id: str
    session_id: str
    session_created: int
    session: str
    name: str


async def windows() -> list[Window]:
    """Return all windows of the user's tmux; none where no tmux runs, or it does not answer."""
    listed = []
    for line in await _lines("list-windows", "-a", "-F", _WINDOWS):
        server, index, number, session_id, created, session, name = line.split("\t", 6)
        listed.append(
            Window(int(server), int(index), number, session_id, int(created), session, name)
        )
    return listed


def find_place(name: str, seen: Iterable[Window]) -> TmuxPlace:
    """Return what `session:window` stands for, the window by its index, else by its name.

    Without a window that is the session.

    Raises:
        ValidationError: there is no such window.
        LeaseConflict: several have that name.

    """
    session, _, window = name.partition(":")
    listed = [one for one in seen if one.session == session]
    if window:
        # As tmux has it: a window called 2 must not stand for the second one.
        by_index = [one for one in listed if str(one.index) == window]
        listed = by_index or [one for one in listed if one.name == window]
    server = identify(listed[0].server) if listed else None
    if server is None:
        raise ValidationError(f"tmux has no window {name!r}; `tmux lsw -a` lists them")
    if window and len(listed) > 1:
        which = " or ".join(f"{session}:{one.index}" for one in listed)
        raise LeaseConflict(f"several windows are called {name}; register {which}")
    return TmuxPlace(listed[0].id if window else listed[0].session_id, server)


def windows_at(place: TmuxPlace | None, seen: Iterable[Window]) -> list[Window]:
    """Return the windows that are the place: one, or all of a session; none: it is gone.

    By what the server calls them: names and numbers are given to others later.
    """
    if place is None or identify(place.server.pid) != place.server:
        return []
    return [
        one
        for one in seen
        if one.server == place.server.pid and place.id in {one.id, one.session_id}
    ]


def may_be_at(place: TmuxPlace | None, seen: list[Window]) -> bool:
    """Say whether a place is there, or nobody can tell."""
    if place is None or not seems_alive(place.server):
        return False
    # One that does not answer, or is not the one that is asked from here, says nothing.
    asked = any(one.server == place.server.pid for one in seen)
    return not asked or bool(windows_at(place, seen))


async def leaders_in(listed: list[Window]) -> set[int]:
    """Return the pids of what tmux itself has started in windows."""
    wanted = {window.id for window in listed}
    panes = await _lines("list-panes", "-a", "-F", "#{window_id}\t#{pane_pid}")
    return {int(pid) for number, pid in (line.split("\t") for line in panes) if number in wanted}


async def end_session(number: str) -> bool:
    """End a session, by its id, and all that runs in its windows; False: there was none."""
    return await _tmux("kill-session", "-t", number) is not None


async def end_window(number: str) -> bool:
    """End a window, by its id, and all that runs in it; False: there was none."""
    return await _tmux("kill-window", "-t", number) is not None


async def _lines(*words: str) -> list[str]:
    # Not splitlines(): a name may hold other characters that it takes for the end of a line.
    return [line for line in (await _tmux(*words) or "").split("\n") if line]


async def _tmux(*words: str) -> str | None:
    program = shutil.which("tmux")
    if program is None:
        return None
    try:
        # -u: without it, in a locale that is not UTF-8, tmux writes _ for tabs and letters.
        called = await call(
            (program, "-u", *words), cwd=Path("/"), env=os.environ, seconds=_SECONDS
        )
    except (TimeoutError, OSError):
        return None
    return called.out.decode(errors="replace") if called.code == 0 else None
