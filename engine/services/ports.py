"""Who holds a port."""

from __future__ import annotations

import psutil
from msgspec import Struct

from engine.text import clean_text


class Holder(Struct, frozen=True):
    """A process that listens on a port. `pid` is None where that is not for us to know."""

    pid: int | None
    name: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.name})" if self.pid is not None else "another user's process"


def holders(port: int) -> list[Holder]:
    """Return who listens on a TCP port of this machine. Looks at all connections: blocks."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return []  # macOS tells root alone
    pids = {
        one.pid
        for one in connections
        if one.status == psutil.CONN_LISTEN and getattr(one.laddr, "port", None) == port
    }
    return [Holder(pid, _name(pid)) for pid in sorted(pids, key=lambda pid: pid or 0)]


def _name(pid: int | None) -> str:
    if pid is None:
        return ""
    try:
        words = psutil.Process(pid).cmdline() or [psutil.Process(pid).name()]
    except psutil.Error:
        return "?"
    return clean_text(" ".join(words))[:120]
