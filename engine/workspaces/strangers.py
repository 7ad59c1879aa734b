"""Whose a worktree is that lies where we made one: git's lock on each of ours says that we made it.

A user may have removed ours and made his own in its place. Git then gives its git directory the
same name, too, so neither place nor name tells them apart.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from engine.workspaces.errors import WorkspaceError

if TYPE_CHECKING:
    from engine.workspaces.records import Record


def lock_reason(record: Record) -> str:
    """Return what the lock of a worktree says: its task, and the run that it was made for."""
    return f"agentmux {record.task} {record.run}"


def is_strangers(record: Record, path: Path) -> bool:
    """Say whether the worktree at a record's path is somebody else's.

    What git knows no worktree of is not: a folder whose git directory is lost was ours. Nor is what
    git knows of a folder that is gone.
    """
    if not path.is_dir():
        return False
    admins = {Path(record.admin)} if record.admin else set()
    link = path / ".git"
    with suppress(OSError):
        admins.add(path / os.fsdecode(link.read_bytes()).removeprefix("gitdir: ").rstrip("\n"))
    return any(_is_of(admin, link) and not _is_ours(admin, record) for admin in admins)


def refuse(record: Record, path: Path) -> None:
    """Let nothing be done to a worktree of somebody else's.

    Raises:
        WorkspaceError: it is one.

    """
    if is_strangers(record, path):
        raise WorkspaceError(
            f"{path} is a worktree that somebody else made there, or unlocked; move it away, or "
            "have git remove it",
            hopeless=True,
        )


def refuse_folder(path: Path) -> None:
    """Refuse a folder that we have no record of; an empty one may be used, as git would.

    Raises:
        WorkspaceError: there is one.

    """
    try:
        empty = not any(path.iterdir())
    except FileNotFoundError:
        return
    except OSError:
        empty = False
    if not empty:
        raise WorkspaceError(
            f"{path} is there and was not made by agentmux, or its record is lost; move it away",
            hopeless=True,
        )


def _is_of(admin: Path, link: Path) -> bool:
    """Say whether a git directory is that of the worktree with this `.git` file."""
    with suppress(OSError):
        told = os.fsdecode((admin / "gitdir").read_bytes()).rstrip("\n")
        return os.path.realpath(admin / told) == os.path.realpath(link)
    return False


def _is_ours(admin: Path, record: Record) -> bool:
    with suppress(OSError):
        reason = (admin / "locked").read_bytes()
        return reason.startswith(os.fsencode(f"agentmux {record.task} "))
    return False
