"""What came of the work in a worktree: its commits, and where its repository comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from engine.workspaces import records
from engine.workspaces.errors import WorkspaceError
from engine.workspaces.git import last_words

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from engine.workspaces.git import Git
    from engine.workspaces.records import Place


class Look(Struct, frozen=True):
    """What a worktree holds: its head, how many commits that is ahead of the base, and `origin`.

    `head` is None on a branch that has no commit. `origin` is the URL of the remote of that name,
    None if there is none. It may hold credentials. `since` is when its attempt began.
    """

    head: str | None
    commits: int
    origin: str | None
    since: datetime


def look(git: Git, place: Place, task_id: str, attempt: int) -> Look:
    """Look at a worktree of ours. It is looked at as it stands, whatever branch its agent is on.

    Raises:
        WorkspaceError: it cannot be looked at, or is gone.

    """
    record = records.read(place, task_id, attempt)
    path = records.worktree_path(place, task_id, attempt)
    if record is None or not record.admin or not path.is_dir():
        raise WorkspaceError(f"{path} is gone")
    repo = path.parent / record.admin  # an absolute path stays what it is
    head, count = _head(git, repo, path), "0"
    if head is not None:
        count = _ask(git, repo, path, "rev-list", "--count", f"{record.base}..{head}")
    found = git("remote", "get-url", "origin", repo=repo, cwd=path)
    origin = found.text if found.code == 0 and found.text else None
    return Look(head, int(count), origin, record.made_at)


def _head(git: Git, repo: Path, path: Path) -> str | None:
    try:
        return _ask(git, repo, path, "rev-parse", "--verify", "HEAD")
    except WorkspaceError:
        branch = git("symbolic-ref", "--quiet", "HEAD", repo=repo, cwd=path)
        if branch.code != 0:
            raise
        return None  # `git checkout --orphan`


def _ask(git: Git, repo: Path, path: Path, *arguments: str) -> str:
    done = git(*arguments, repo=repo, cwd=path)
    if done.code != 0:
        raise WorkspaceError(f"git {arguments[0]} failed in {path}: {last_words(done)}")
    return done.text
