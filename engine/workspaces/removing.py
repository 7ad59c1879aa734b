"""Taking worktrees away: only what we have a record of, and only what is in it that is saved.

Each step can be the last one, and is done again by whoever comes next.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from engine.workspaces import records, strangers
from engine.workspaces.errors import WorkspaceError, is_lasting
from engine.workspaces.git import Git, Stopped, last_words
from engine.workspaces.leftovers import listed
from engine.workspaces.records import Stage

if TYPE_CHECKING:
    from engine.workspaces.records import Place, Record


def maker(record: Record) -> str:
    """Return what stands in the reflog of a branch that was made for this record."""
    return f"{record.run}@agentmux.invalid"


def take_away(git: Git, place: Place, record: Record) -> None:
    """Remove a worktree, what there is of it, and what git knows of it; its branch stays.

    Raises:
        WorkspaceError: it is somebody else's by now; or something cannot be removed, then doing it
            again removes the rest.

    """
    path = records.worktree_path(place, record.task, record.attempt)
    strangers.refuse(record, path)
    try:
        _remove_tree(path)
    except OSError as error:
        raise WorkspaceError(
            f"cannot remove {error.filename or path}: {error.strerror or error}; mend that",
            hopeless=is_lasting(error),
        ) from error
    except RecursionError as error:
        raise WorkspaceError(
            f"cannot remove {path}: its folders are too many, one in the other; remove it by hand"
        ) from error
    repo = Path(record.repo)
    if not repo.is_dir() or not _is_known(git, repo, path):
        return
    # Twice --force: it is locked, by us or by a git that was killed while it made it.
    done = git("worktree", "remove", "-f", "-f", "--", path, repo=repo, cwd=place.root)
    if done.code != 0 and _is_known(git, repo, path):
        raise WorkspaceError(f"cannot remove the worktree {path}: {last_words(done)}; try again")


def undo(git: Git, place: Place, record: Record) -> None:
    """Remove all that a call made that failed or was stopped; what resists stays MAKING."""
    git.stop.clear()  # this must be through, whoever is in a hurry
    with suppress(WorkspaceError, OSError, Stopped):
        take_away(git, place, record)
        if record.resumes:
            # The branch must be remembered: the next one goes on there.
            records.write(place, replace(record, stage=Stage.OVER))
        else:
            remove_unused_branch(git, record)
            records.forget(place, record)


def set_aside(path: Path) -> Path:
    """Move a folder that could not be saved out of the way; nobody removes it but its user."""
    for number in range(1, 1000):
        aside = path.with_name(f"{path.name}.aside-{number}")
        if not os.path.lexists(aside):
            try:
                return path.rename(aside)
            except OSError as error:
                raise WorkspaceError(
                    f"cannot move {path} aside: {error.strerror}; move it away by hand"
                ) from error
    raise WorkspaceError(f"too much lies beside {path}; move some of it away", hopeless=True)


def tip_of(git: Git, record: Record) -> str | None:
    """Return the commit of a record's branch, None if it or its repository is gone."""
    repo = Path(record.repo)
    if not repo.is_dir():
        return None
    ref = f"refs/heads/{record.branch}"
    done = git(
        *("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"),
        repo=repo,
        cwd=repo,
    )
    return done.text if done.code == 0 else None


def branch_exists(git: Git, record: Record) -> bool:
    """Say whether the branch of a record is there."""
    return tip_of(git, record) is not None


def remove_unused_branch(git: Git, record: Record) -> bool:
    """Remove a branch that we made and nobody has committed to; say whether it is gone.

    As long as a record is MAKING the branch may be somebody else's, who was quicker: who made it
    stands in its reflog.
    """
    tip, repo, ref = tip_of(git, record), Path(record.repo), f"refs/heads/{record.branch}"
    if tip is None:
        return True
    if record.stage is Stage.MAKING:
        done = git("reflog", "show", "--format=%ge", ref, "--", repo=repo, cwd=repo)
        if done.code != 0 or done.text.split("\n")[-1] != maker(record):
            return False
    within = git("merge-base", "--is-ancestor", tip, record.base, repo=repo, cwd=repo)
    if within.code != 0 or ref in _checked_out(git, repo):
        return False
    # Only if it is still there: nobody's commit of this moment is lost.
    return git("update-ref", "-d", ref, tip, repo=repo, cwd=repo).code == 0


def _is_known(git: Git, repo: Path, path: Path) -> bool:
    return f"worktree {path}" in listed(git, repo)


def _checked_out(git: Git, repo: Path) -> set[str]:
    return {
        field.removeprefix("branch ") for field in listed(git, repo) if field.startswith("branch ")
    }


def _remove_tree(path: Path) -> None:
    try:
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)
    except FileNotFoundError:
        return
    except PermissionError:
        _open_up(path)
        shutil.rmtree(path)


def _open_up(folder: Path) -> None:
    """Let us write to all folders: package caches make some that not even their owner may."""
    folder.chmod(stat.S_IRWXU)
    with os.scandir(folder) as entries:
        below = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    for path in below:
        _open_up(path)
