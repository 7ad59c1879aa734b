"""Sessions and windows of tmux: which are there, and their end. Nothing without tmux."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from msgspec import Struct

from engine.processes.calling import call

_SECONDS = 5.0
_WINDOWS = "#{session_name}\t#{window_name}\t#{window_index}\t#{window_id}\t#{session_created}"


class Window(Struct, frozen=True):
    """A window, the session that it is in, and when that was made (seconds since the epoch)."""

    session: str
    name: str
    index: int
    id: str
    session_created: int


async def windows() -> list[Window]:
    """Return all windows of the user's tmux; none where no tmux runs, or it does not answer."""
    said = await _tmux("list-windows", "-a", "-F", _WINDOWS)
    found = []
    for line in (said or "").splitlines():
        session, name, index, number, created = line.split("\t")
        found.append(Window(session, name, int(index), number, int(created)))
    return found


async def end_session(name: str) -> bool:
    """End a session and all that runs in its windows; False: there was none."""
    return await _tmux("kill-session", "-t", f"={name}") is not None


async def end_window(window: Window) -> bool:
    """End a window and all that runs in it; False: there was none."""
    return await _tmux("kill-window", "-t", window.id) is not None


async def _tmux(*words: str) -> str | None:
    program = shutil.which("tmux")
    if program is None:
        return None
    try:
        called = await call((program, *words), cwd=Path("/"), env=os.environ, seconds=_SECONDS)
    except (TimeoutError, OSError):
        return None
    return called.out.decode(errors="replace") if called.code == 0 else None
