"""Who has a pid now, and a signal to this very process or to nobody (DESIGN §4 rule 4).

Knows no runs and no event loop: the guard process starts with it, and has to start fast.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

from engine.errors import StorageError
from engine.model import ProcessId
from engine.processes.proctable import look_at, spared_pids

if TYPE_CHECKING:
    from collections.abc import Iterable


def identify(pid: int) -> ProcessId | None:
    """Return who has this pid now, or None if nobody does (a zombie is nobody).

    Raises:
        StorageError: it cannot be known; whoever asks must not take that for "gone".

    """
    look = look_at(pid)
    return None if look is None or look.ended else ProcessId(pid, look.started)


def is_alive(process: ProcessId) -> bool:
    """Tell whether this very process is alive.

    Raises:
        StorageError: it cannot be known.

    """
    return identify(process.pid) == process


def seems_alive(process: ProcessId) -> bool:
    """Tell whether this very process must be taken as alive: what cannot be known counts as it."""
    try:
        return is_alive(process)
    except StorageError:
        return True


def send(process: ProcessId, number: signal.Signals) -> None:
    """Signal this very process, or nobody.

    Raises:
        StorageError: it cannot be known who has the pid; nobody was signalled.

    """
    pidfd = open_pidfd(process.pid)
    try:
        # A process that ended needs no signal; one that we may not signal is a survivor.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if not is_alive(process):
                return
            if sys.platform == "linux" and pidfd is not None:
                signal.pidfd_send_signal(pidfd, number)
            else:
                os.kill(process.pid, number)
    finally:
        if pidfd is not None:
            os.close(pidfd)


def kill_groups(leaders: Iterable[ProcessId]) -> None:
    """Kill the groups of leaders that still hold their pid, dead or alive.

    The kernel does this in one step, so that a chain of forks cannot outrun it.

    Raises:
        StorageError: it cannot be known who has a pid.

    """
    ours = {os.getpgid(0)}
    for pid in spared_pids() - {1}:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            ours.add(os.getpgid(pid))
    for leader in leaders:
        if leader.pid in ours:
            continue
        look = look_at(leader.pid)
        if look is not None and look.started == leader.started:
            # No such group: it leads none. Not permitted: tree_of goes on to report who is left.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(leader.pid, signal.SIGKILL)


def open_pidfd(pid: int) -> int | None:
    """Return a handle that stays with the process that has `pid` now; None if there is none.

    None also where the system has no such handles: then identity is checked before each signal.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return os.pidfd_open(pid)
    return None
