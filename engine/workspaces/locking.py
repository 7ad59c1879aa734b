"""Taking turns: a lock on a file, which the git that is started under it holds, too."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.workspaces.errors import WorkspaceError, trouble
from engine.workspaces.git import Stopped

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from pathlib import Path

LOCK_SECONDS = 300.0
"""How long somebody may hold a lock for whom we wait: a clone may be among what he does."""


@contextmanager
def locked(path: Path, stop: threading.Event, *, seconds: float = LOCK_SECONDS) -> Iterator[int]:
    """Hold a lock file, made with its folder if need be; yield what processes inherit.

    If this process is killed, the lock ends when the last of them has ended.

    Raises:
        WorkspaceError: it was held for `seconds`, or cannot be made.
        Stopped: `stop` was set meanwhile.

    """
    deadline, pause = time.monotonic() + seconds, 0.001
    while True:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            continue  # its folder has just been removed
        except OSError as error:
            raise trouble(str(path), error) from error
        try:
            if _take(handle) and _is_still(path, handle):
                try:
                    yield handle
                finally:
                    # All that we started has ended by now, but for daemons such as that of
                    # git-credential-cache: they inherited the file, and must not keep the lock.
                    fcntl.flock(handle, fcntl.LOCK_UN)
                return
        finally:
            os.close(handle)
        if stop.is_set():
            raise Stopped
        if time.monotonic() > deadline:
            raise WorkspaceError(
                f"somebody else has held {path} for {seconds:.0f} s: a clone takes long, or a git "
                "hangs (`ps`); try again then"
            )
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def _take(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(path: Path, handle: int) -> bool:
    """Say whether the file is still where it was opened: who removes it does so locked."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(handle))
    except FileNotFoundError:
        return False
