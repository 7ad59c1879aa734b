"""Lock files of git that one of them left which was killed: nobody else could work there again.

Git holds such a file (`index.lock`) for as long as it writes, and removes it unless it is killed.
One in a worktree of ours, on its branch, or in the bare repository of a URL is taken away once no
git is at work there; those of a user's repository are his.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from engine.workspaces.errors import WorkspaceError
from engine.workspaces.git import last_words

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from engine.workspaces.git import Done, Git
    from engine.workspaces.records import Record

_LOCKED = re.compile(r"File exists|cannot lock ref|could not lock|Unable to create .*\.lock")
_REFUSED = re.compile(r"Permission denied|Operation not permitted|Read-only file system")
_WITHOUT = frozenset({"objects", "logs", "hooks", "lfs", "worktrees"})
"""Folders of a git directory in which no lock hinders anybody, or that are other worktrees'."""
_MOMENT = 1.0
"""Seconds in which whoever is writing is through, even if it is no git that we would know."""


def is_locked(done: Done) -> bool:
    """Say whether a call failed because of a lock file."""
    return done.code != 0 and not is_refused(done) and _LOCKED.search(done.err) is not None


def is_refused(done: Done) -> bool:
    """Say whether a call failed because git may not write where it has to."""
    return done.code != 0 and _REFUSED.search(done.err) is not None


def clear_worktree(record: Record, path: Path) -> None:
    """Take away what a killed git left locked in a worktree: its index, its HEAD, submodules."""
    admin = Path(record.admin)
    _clear(_locks_below(admin), (path, admin))


def clear_branch(git: Git, record: Record) -> bool:
    """Take away the lock of a record's branch if a killed git left it; say whether it is gone.

    Raises:
        WorkspaceError: the repository cannot be looked at.

    """
    repo = Path(record.repo)
    lock = repo / "refs" / "heads" / f"{record.branch}.lock"
    return lock.is_file() and _clear([lock], (repo, *worktrees_of(git, repo)))


def clear_repository(git: Git, repo: Path) -> bool:
    """Take away what a killed git left locked in a repository of our own; say whether all went.

    Raises:
        WorkspaceError: the repository cannot be looked at.

    """
    return _clear(_locks_below(repo), (repo, *worktrees_of(git, repo)))


def worktrees_of(git: Git, repo: Path) -> list[Path]:
    """Return the folders of all worktrees that git knows of, the main one first.

    Raises:
        WorkspaceError: git cannot list them.

    """
    return [Path(field[9:]) for field in listed(git, repo) if field.startswith("worktree ")]


def listed(git: Git, repo: Path) -> list[str]:
    """Return what git tells of its worktrees, field by field (`git worktree list --porcelain`).

    Raises:
        WorkspaceError: git cannot list them.

    """
    done = git("worktree", "list", "--porcelain", "-z", repo=repo, cwd=repo)
    if done.code != 0:
        raise WorkspaceError(f"git cannot list the worktrees of {repo}: {last_words(done)}")
    return os.fsdecode(done.out).split("\0")


def _locks_below(folder: Path) -> Iterator[Path]:
    """Yield the lock files of a git directory; no ref and nothing else of git's ends like them."""
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in _WITHOUT]
        yield from (Path(where, name) for name in files if name.endswith(".lock"))


def _clear(locks: Iterable[Path], places: Collection[Path]) -> bool:
    """Remove locks unless a git is at work in one of `places`; say whether all are gone."""
    marks = {}
    for lock in locks:
        with suppress(OSError):
            marks[lock] = lock.lstat()
    if not marks:
        return True
    time.sleep(_MOMENT)
    if _is_worked_in(places):
        return False
    for lock, mark in marks.items():
        with suppress(OSError):
            now = lock.lstat()
            if (now.st_ino, now.st_mtime_ns) == (mark.st_ino, mark.st_mtime_ns):
                lock.unlink()
    return not any(os.path.lexists(lock) for lock in marks)


def _is_worked_in(places: Collection[Path]) -> bool:
    """Say whether a git has one of these folders, or one within, as its own."""
    import psutil  # noqa: PLC0415 - slow to load, and hardly ever is there a lock

    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.name().startswith("git"):
                folder = Path(process.cwd())
                if any(folder.is_relative_to(place) for place in places):
                    return True
    return False
