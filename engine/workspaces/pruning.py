"""Which worktrees may go, and their going: the work in them is saved first, refs always stay.

Only those of runs that are over; one in which the next run of its task is to go on counts for none
of the many, and goes only when it is old. What is over is known in this order: first the records
are read, then the store is asked which runs are needed, then each record is read again under its
lock. A run that the store does not know by then is over for good, for no run begins twice; one that
has taken a worktree over since is another one, and its record says so.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from engine.files import read_regular, write_private
from engine.text import age
from engine.workspaces import dead, records, removing, strangers
from engine.workspaces.errors import WorkspaceError
from engine.workspaces.git import Git
from engine.workspaces.locking import locked
from engine.workspaces.records import Record, Stage
from engine.workspaces.saving import save

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable
    from datetime import datetime, timedelta
    from pathlib import Path

    from engine.model import Needed
    from engine.workspaces.records import Place

MOST_FAILURES = 10
"""So many failures in a row to make a worktree, and those that are over are pruned."""

_PATIENCE = 1.0
_FORGOTTEN = 86400.0


class Pruned(Struct, frozen=True):
    """What became of a worktree, or would: `removed`, or kept because of `why`.

    `saved` is the ref of what no branch has, `branch_removed` tells that its branch went, too;
    a dry run knows neither.
    """

    task: str
    attempt: int
    run: str
    path: Path
    branch: str
    removed: bool
    why: str
    saved: str | None = None
    branch_removed: bool = False


class Rule(Struct, frozen=True):
    """Of the worktrees that are over, at most `keep` stay, and none older than `older_than`."""

    keep: int
    older_than: timedelta


def prune(
    stop: threading.Event,
    place: Place,
    project: Path,
    known: Iterable[Record],
    needed: Needed,
    rule: Rule,
    now: datetime,
    *,
    dry_run: bool,
) -> list[Pruned]:
    """Remove what the rule lets go; return that, and what it would let go but had to stay.

    What git has of worktrees that were removed by hand goes in any case: see dead. `known` was read
    before the store was asked what is `needed`.
    """
    over = [record for record in known if record.run not in needed.at_work]
    over.sort(key=lambda record: record.used_at, reverse=True)
    found, kept = [], 0
    for record in over:
        waits = record.run in needed.waiting
        why = _old(record, rule, now) if waits else _reason(record, kept, rule, now)
        if why is None:
            kept += not waits
            continue
        try:
            strangers.refuse(record, records.worktree_path(place, record.task, record.attempt))
            if dry_run:
                found.append(_told(place, record, removed=True, why=why))
                continue
            found += _remove(stop, place, record, why)
        except WorkspaceError as error:
            found.append(_told(place, record, removed=False, why=str(error)))
    there = os.path.lexists(place.root)
    with suppress(WorkspaceError):  # who has no git has no worktree either
        for gone in dead.find(Git(stop), place, project, now):
            if gone.record.run not in needed.at_work:
                found += _bury(stop, place, gone, dry_run=dry_run)
    if not dry_run:
        _sweep(place)
        if not there:  # locks needed it for a moment
            with suppress(OSError):
                place.root.rmdir()
    return found


def _reason(record: Record, kept: int, rule: Rule, now: datetime) -> str | None:
    """Say why a worktree whose run is over may go, None if it stays beside `kept` newer ones."""
    if record.stage is Stage.MAKING:
        return "it was never finished"
    if record.stage is Stage.REMOVING:
        return "its removal was cut short"
    if old := _old(record, rule, now):
        return old
    return f"beyond keep {rule.keep}" if kept >= rule.keep else None


def _old(record: Record, rule: Rule, now: datetime) -> str | None:
    unused = now - record.used_at
    if unused <= rule.older_than:
        return None
    limit = age(rule.older_than.total_seconds())
    return f"last used {age(unused.total_seconds())} ago, limit {limit}"


def _remove(stop: threading.Event, place: Place, listed: Record, why: str) -> list[Pruned]:
    ours = records.task_lock(place, listed.task)
    with locked(ours, stop, seconds=_PATIENCE) as lock:
        git = Git(stop, (lock,))
        record = records.read(place, listed.task, listed.attempt)
        if record is None or record.run != listed.run:
            return []
        if record.stage is Stage.READY and listed.stage is not Stage.READY:
            return []  # it has been finished meanwhile, and is worked in
        found = None
        if record.stage in {Stage.READY, Stage.OVER}:
            record, found = save(git, place, record)
            if found is not None and found.missing:
                why = f"not all in it could be saved: {'; '.join(found.missing)}; remove it by hand"
                return [_told(place, record, removed=False, why=why)]
            record = replace(record, stage=Stage.REMOVING)
            records.write(place, record)
        removing.take_away(git, place, record)
        if record.resumes:  # the branch is ours beyond doubt, whatever its reflog says
            record = replace(record, stage=Stage.REMOVING)
        gone = removing.remove_unused_branch(git, record)
        records.forget(place, record)
    told = _told(place, record, removed=True, why=why)
    ref = None if found is None else found.ref
    return [replace(told, saved=ref, branch_removed=gone)]


def _bury(stop: threading.Event, place: Place, gone: dead.Dead, *, dry_run: bool) -> list[Pruned]:
    record = gone.record
    told = _told(place, record, removed=True, why="its folder was removed by hand")
    if dry_run:
        return [told]
    try:
        with locked(records.task_lock(place, record.task), stop, seconds=_PATIENCE) as lock:
            if not dead.is_dead(place, record):
                return []  # one is made there now
            ref, branch_removed = dead.bury(Git(stop, (lock,)), place, gone)
            records.forget(place, record)  # and the folder that the lock needed
    except WorkspaceError as error:
        return [replace(told, removed=False, why=str(error))]
    return [replace(told, saved=ref, branch_removed=branch_removed)]


def _told(place: Place, record: Record, *, removed: bool, why: str) -> Pruned:
    path = records.worktree_path(place, record.task, record.attempt)
    return Pruned(record.task, record.attempt, record.run, path, record.branch, removed, why)


def _sweep(place: Place) -> None:
    """Remove what a save left that was killed: copies of an index."""
    with suppress(OSError):
        for left in place.root.glob(".saving-*"):
            if time.time() - left.lstat().st_mtime > _FORGOTTEN:
                shutil.rmtree(left, ignore_errors=True)


def failures(place: Place) -> int:
    """Return how many worktrees in a row could not be made."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        return int(json.loads(read_regular(place.failures))["count"])
    return 0


def note_failure(place: Place) -> bool:
    """Count a failure; say whether there are too many, again each time as many have come."""
    if not records.is_marked(place):
        return False
    count = failures(place) + 1
    with suppress(OSError):
        write_private(place.failures, json.dumps({"count": count}) + "\n")
    return count % (MOST_FAILURES + 1) == 0


def note_success(place: Place) -> None:
    """Begin to count anew."""
    with suppress(OSError):
        place.failures.unlink(missing_ok=True)
