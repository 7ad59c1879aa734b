"""What git still has of worktrees of ours that somebody removed by hand, with what we knew of them.

A registration is ours only if it is for a folder where we make worktrees, and its lock says that we
made this one. Git keeps what is locked, for it may be on a disk that is not there now; until it is
gone no worktree can be made in that place.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.files import branch_name, saved_ref
from engine.workspaces import bases, records, removing
from engine.workspaces.errors import BadWorkspace, WorkspaceError
from engine.workspaces.git import last_words
from engine.workspaces.leftovers import listed
from engine.workspaces.records import Record, Stage
from engine.workspaces.saving import OURS, SHARED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from engine.workspaces.git import Git
    from engine.workspaces.records import Place

_OURS = re.compile(r"agentmux (.+) (\S+)")
_ATTEMPT = re.compile(r"[1-9]\d{0,8}", re.ASCII)
_HEADS = "refs/heads/"
_TRIES = 100


class Dead(Struct, frozen=True):
    """A registration that is dead: a record of what it is of, as if never finished; its HEAD."""

    record: Record
    head: str


def find(git: Git, place: Place, project: Path, now: datetime) -> list[Dead]:
    """Return all of this place of which there is neither a folder nor a record.

    Looked for in the project's repository and in those of URLs. None while the disk may be away
    that the place is on.

    Raises:
        WorkspaceError: git cannot look.

    """
    beside = place.root.parent == place.state.parent and not os.path.lexists(place.root)
    if not (beside or records.is_marked(place)):
        return []
    repos = sorted(place.bases.glob("[!.]*.git"))
    with suppress(BadWorkspace):  # the project is in no repository
        repos.append(bases.repository(git, place, bases.Source(), project))
    found = [dead for repo in repos for dead in _missing(git, place, repo, now)]
    return [dead for dead in found if is_dead(place, dead.record)]


def is_dead(place: Place, record: Record) -> bool:
    """Say whether there is neither a folder nor a record: nobody makes one there at the moment."""
    return not any(
        os.path.lexists(path(place, record.task, record.attempt))
        for path in (records.worktree_path, records.record_path)
    )


def clear(git: Git, place: Place, planned: Record) -> bool:
    """Take away what is registered where a worktree is to be made; say whether that was ours.

    The lock of the task is held.

    Raises:
        WorkspaceError: it cannot be taken away.

    """
    for dead in _missing(git, place, Path(planned.repo), planned.made_at):
        if (dead.record.task, dead.record.attempt) == (planned.task, planned.attempt):
            bury(git, place, dead)
            return True
    return False


def bury(git: Git, place: Place, dead: Dead) -> tuple[str | None, bool]:
    """Take away what git has of a worktree, and its branch if nobody has committed to it.

    Commits that nothing else holds are kept. Return the ref of those, None if there are none, and
    whether the branch is gone. The lock of the task is held.

    Raises:
        WorkspaceError: it cannot be taken away; doing it again removes the rest.

    """
    ref = _keep(git, dead)
    removing.take_away(git, place, dead.record)
    return ref, removing.remove_unused_branch(git, dead.record)


def _missing(git: Git, place: Place, repo: Path, now: datetime) -> Iterator[Dead]:
    """Yield what a repository has of worktrees of ours whose folder is not there."""
    entry: dict[str, str] = {}
    for field in (*listed(git, repo), ""):
        if field:
            name, _, value = field.partition(" ")
            entry[name] = value
            continue
        path, ours = Path(entry.get("worktree", "")), _OURS.fullmatch(entry.get("locked", ""))
        branch, head = entry.get("branch", "").removeprefix(_HEADS), entry.get("HEAD", "")
        entry = {}
        if ours is None or not _ATTEMPT.fullmatch(path.name) or os.path.lexists(path):
            continue
        task, run, attempt = ours[1], ours[2], int(path.name)
        if records.worktree_path(place, task, attempt) != path:
            continue
        branch = branch or branch_name(task, attempt)
        record = Record(
            task=task,
            attempt=attempt,
            run=run,
            state_dir=str(place.state),
            repo=str(repo),
            source=bases.CURRENT,
            wanted=None,
            branch=branch,
            base=_start(git, repo, branch),
            base_ref="",
            behind=None,
            made_at=now,
            used_at=now,
            stage=Stage.MAKING,  # so a branch goes only if its reflog says that this made it
        )
        yield Dead(record, head)


def _start(git: Git, repo: Path, branch: str) -> str:
    """Return the commit that a branch started from, empty if nobody knows."""
    told = git("reflog", "show", "--format=%H", _HEADS + branch, "--", repo=repo, cwd=repo)
    return told.text.split("\n")[-1] if told.code == 0 else ""


def _keep(git: Git, dead: Dead) -> str | None:
    """Give commits a ref that only this HEAD holds; return it, None if there are none."""
    record, repo = dead.record, Path(dead.record.repo)
    asked = ("for-each-ref", "--count=1", f"--contains={dead.head}", "--format=x")
    held = git(*asked, *SHARED, OURS, repo=repo, cwd=repo)
    if held.code != 0 or held.text:  # there is no such commit, or something else holds it
        return None
    why = ""
    for again in range(1, _TRIES):
        ref = saved_ref(record.task, record.run, again)
        done = git("update-ref", "--", ref, dead.head, "", repo=repo, cwd=repo)
        if done.code == 0:
            return ref
        why = last_words(done)
    raise WorkspaceError(f"the commits on {dead.head} in {repo} cannot be kept: {why}; mend that")
