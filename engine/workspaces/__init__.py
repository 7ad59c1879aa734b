"""Workspaces: a git worktree for each attempt at a task, made, saved and taken away again.

    worktrees   the door: async, for executors, the reaper and the command line
    pruning     which worktrees may go, and their going
    clones      which repositories of URLs may go, and their going
    making      one worktree is made, found again, or replaced
    dead        what git still has of those that somebody removed by hand
    removing    one worktree is taken away
    looking     what came of the work in one
    saving      uncommitted work becomes a commit under refs/agentmux/saved
    copying     all that is in one, written as a tree
    missing     what of it could not be
    bases       what a worktree starts from: this repository, or a URL's
    strangers   whose one is that lies where we made one
    leftovers   what a git that was killed left locked
    records     what we know of each, in files beside them
    locking     who may be at them now
    git         the one way in which git is called
    errors      what can go wrong, and whether trying again could help

Knows no store: which runs go on comes in as an argument. Nothing of a user's repository is touched
but refs below refs/heads/agentmux and refs/agentmux, and git's own record of our worktrees.
"""

from __future__ import annotations

from engine.workspaces.bases import Source
from engine.workspaces.clones import Clone
from engine.workspaces.errors import BadWorkspace, WorkspaceError, is_lasting
from engine.workspaces.looking import Look
from engine.workspaces.pruning import Pruned, failures
from engine.workspaces.records import Place, Record, Stage, place_of
from engine.workspaces.saving import Saved
from engine.workspaces.worktrees import (
    Worktree,
    can_commit,
    check_source,
    ensure_worktree,
    finished,
    list_worktrees,
    look,
    origin_of,
    prune,
    prune_clones,
    save,
    saved_run,
)

__all__ = [
    "BadWorkspace",
    "Clone",
    "Look",
    "Place",
    "Pruned",
    "Record",
    "Saved",
    "Source",
    "Stage",
    "WorkspaceError",
    "Worktree",
    "can_commit",
    "check_source",
    "ensure_worktree",
    "failures",
    "finished",
    "is_lasting",
    "list_worktrees",
    "look",
    "origin_of",
    "place_of",
    "prune",
    "prune_clones",
    "save",
    "saved_run",
]
