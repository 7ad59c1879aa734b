"""The bare repositories of URLs that nobody needs any more, and their going.

One goes if nothing would go with it: no worktree belongs to it, and what its refs hold is on
its remote, too, as fetched last. What was saved is there alone, and keeps its repository.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.clock import from_iso
from engine.files import read_regular
from engine.text import clean_text
from engine.workspaces import bases, records
from engine.workspaces.errors import WorkspaceError
from engine.workspaces.git import Git, last_words
from engine.workspaces.leftovers import worktrees_of
from engine.workspaces.locking import locked

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from engine.workspaces.records import Place

YOUNG = timedelta(hours=1)
"""A repository that was fetched since may be about to get its next worktree, whatever is asked."""

_PATIENCE = 1.0


class Clone(Struct, frozen=True):
    """What became of the repository of `url`, or would: `removed`, or kept because of `why`."""

    url: str
    path: Path
    removed: bool
    why: str


def prune(
    stop: threading.Event,
    place: Place,
    older_than: timedelta,
    now: datetime,
    *,
    dry_run: bool,
) -> list[Clone]:
    """Remove repositories that were fetched last so long ago, and that nobody needs; return them.

    What cannot be looked at or removed is told as kept; what is needed is not told.
    """
    if not dry_run:
        for left in place.bases.glob(".*.going"):  # of somebody who was killed here
            shutil.rmtree(left, ignore_errors=True)
    needed, found = records.repositories(place), []
    for repo in sorted(place.bases.glob("[!.]*.git")):
        if repo in needed or now - _used(repo) <= max(older_than, YOUNG):
            continue
        git, url = Git(stop), str(repo)
        try:
            url = _url(git, repo) or str(repo)
            if _is_needed(git, repo):
                continue
            if not dry_run:
                with locked(bases.base_lock(repo), stop, seconds=_PATIENCE):
                    if repo in records.repositories(place) or _is_needed(git, repo):
                        continue
                    _remove(repo)
        except (WorkspaceError, OSError) as error:
            found.append(Clone(url, repo, removed=False, why=str(error)))
        else:
            found.append(Clone(url, repo, removed=True, why="nothing in it is needed"))
    return found


def _used(repo: Path) -> datetime:
    """Return when a repository was fetched last, or made if it never was."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return from_iso(json.loads(read_regular(bases.fetch_mark(repo)))["begun"])
    try:
        return datetime.fromtimestamp(repo.stat().st_mtime, UTC)
    except OSError:
        return datetime.max.replace(tzinfo=UTC)  # it has just gone


def _url(git: Git, repo: Path) -> str:
    done = git("config", "remote.origin.url", repo=repo, cwd=repo)
    return clean_text(bases.without_login(done.text))


def _is_needed(git: Git, repo: Path) -> bool:
    if any(folder != repo and folder.exists() for folder in worktrees_of(git, repo)):
        return True
    done = git(
        *("rev-list", "--max-count=1", f"--exclude={bases.DEFAULT}", "--all"),
        *("--not", "--remotes=origin"),
        repo=repo,
        cwd=repo,
    )
    if done.code != 0:
        raise WorkspaceError(
            f"{repo} cannot be looked at: {last_words(done)}; see what is in it, and remove it by "
            "hand"
        )
    return done.text != ""


def _remove(repo: Path) -> None:
    """Remove a repository whose lock is held; one that is half removed is none to bases.find."""
    going = repo.with_name(f".{repo.stem}.going")
    shutil.rmtree(going, ignore_errors=True)
    repo.rename(going)
    bases.fetch_mark(repo).unlink(missing_ok=True)
    shutil.rmtree(going, ignore_errors=True)
    bases.base_lock(repo).unlink(missing_ok=True)
