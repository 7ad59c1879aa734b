"""Making a worktree, or finding the one that is there: every step can be the last one.

A record is written before git acts, and says so until git is through. Whoever finds it so, and
holds the task's lock, knows that nobody is at it any more: git's own processes hold that lock, too.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from engine.files import branch_name
from engine.workspaces import bases, dead, leftovers, records, removing, strangers
from engine.workspaces.errors import WorkspaceError, trouble
from engine.workspaces.git import HALF_MADE, Done, Git, last_words
from engine.workspaces.records import Record, Stage
from engine.workspaces.saving import save

if TYPE_CHECKING:
    from collections.abc import Collection

    from engine.clock import Clock
    from engine.workspaces.bases import Base, Source
    from engine.workspaces.records import Place

_TAKEN = re.compile(r"a branch named .* already exists|reference already exists")
_ELSEWHERE = re.compile(r"is already (?:checked out|used by worktree) at")
_REGISTERED = re.compile(r"is a missing but (?:locked|already registered) worktree")
_OCCUPIED = re.compile(r"fatal: '.*' already exists")
_IN_THE_WAY = re.compile(r"'refs/heads/([^']+)' exists; cannot create")
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)
_NAMES = 100


class Order(Struct, frozen=True):
    """A worktree that is wanted: for which attempt, by which run, of what.

    `after` are the runs in whose worktree this one goes on; None: in that of the attempt, whoever
    had it.
    """

    task: str
    attempt: int
    run: str
    source: Source
    project: Path
    after: Collection[str] | None = None


class _Stranger(WorkspaceError):  # noqa: N818 - seen by nobody as such
    """Somebody has put something of his own where the worktree was to be."""


class _Registered(_Stranger):
    """Git has a worktree in that place whose folder is missing."""

    def __init__(self, repo: str, path: Path) -> None:
        super().__init__(
            f"{repo} has a worktree of somebody else's at {path}, which is missing; if it is of no "
            f"more use, `git worktree remove -f -f {path}` there, then retry the task",
            hopeless=True,
        )


def ensure(git: Git, place: Place, order: Order, clock: Clock) -> tuple[Record, bool]:
    """Return the record of a worktree that is ready, and whether it was made now.

    One that is sound is used again. What is left of one that is not is saved, then replaced; what
    cannot be saved is moved aside. The lock of the task is held.

    Raises:
        WorkspaceError: there is none; nothing that this call made is left.

    """
    order = _numbered(place, order)
    path = records.worktree_path(place, order.task, order.attempt)
    old = records.read(place, order.task, order.attempt)
    if old is None:
        strangers.refuse_folder(path)
    else:
        strangers.refuse(old, path)
        repo = bases.repository(git, place, order.source, order.project)
        if _is_wanted(old, order, repo) and _is_sound(git, old, path) and _mend(git, old, path):
            now = records.milliseconds(clock.now())
            found = replace(
                old,
                run=order.run,
                used_at=now,
                stage=Stage.READY,
                state_dir=str(place.state),
            )
            records.write(place, found)
            return found, False
    base = bases.find(git, place, order.source, order.project, clock)
    new = _planned(place, order, base, clock)
    if old is not None:
        new = _cleared(git, place, old, new)
    return _make(git, place, new), True


def _numbered(place: Place, order: Order) -> Order:
    """Return an order for the worktree that it goes on in, or for the next number that is free.

    A retry by hand begins to count attempts anew: what earlier ones left is no part of it.
    """
    if order.after is None:
        return order
    theirs = {order.run, *order.after}
    found = [record for record in records.records_of(place, order.task) if record.run in theirs]
    last = max(found, key=lambda record: record.used_at, default=None)
    if last is not None:
        path = records.worktree_path(place, last.task, last.attempt)
        if not strangers.is_strangers(last, path):
            return replace(order, attempt=last.attempt)
    number = order.attempt
    while os.path.lexists(records.record_path(place, order.task, number)):
        number += 1
    return replace(order, attempt=number)


def _is_wanted(old: Record, order: Order, repo: Path) -> bool:
    source = order.source
    return (
        old.stage in {Stage.READY, Stage.OVER}
        and (old.source, old.wanted) == (source.shown, source.branch)
        and old.repo == str(repo)
    )


def _is_sound(git: Git, record: Record, path: Path) -> bool:
    """Say whether a worktree can be worked in; a lost `.git` file is written again."""
    link, admin = path / ".git", Path(record.admin)
    told = f"gitdir: {admin}\n"
    if not record.admin or path.is_symlink() or not path.is_dir():
        return False
    try:
        # The admin folder's name may be another worktree's by now: it says whose it is.
        if Path((admin / "gitdir").read_text(encoding="utf-8").rstrip("\n")) != link:
            return False
        if not link.exists():
            link.write_text(told, encoding="utf-8")
        elif link.read_text(encoding="utf-8") != told:
            return False
    except OSError:
        return False
    done = git("rev-parse", "--path-format=absolute", "--git-common-dir", cwd=path)
    return done.code == 0 and Path(done.text).resolve() == Path(record.repo)


def _mend(git: Git, record: Record, path: Path) -> bool:
    """Take away what a killed git or a power cut left in the way; say whether git can work here."""
    leftovers.clear_worktree(record, path)
    leftovers.clear_branch(git, record)
    admin = Path(record.admin)
    if git("ls-files", "--", ".git", repo=admin, tree=path, cwd=path).code == 0:
        return True
    # The index is garbage. What it said of changes is lost, but not the changes.
    (admin / "index").unlink(missing_ok=True)
    reset = git("reset", "--quiet", "--", ":(top)", repo=admin, tree=path, cwd=path)
    return reset.code == 0


def _planned(place: Place, order: Order, base: Base, clock: Clock) -> Record:
    now = records.milliseconds(clock.now())
    return Record(
        task=order.task,
        attempt=order.attempt,
        run=order.run,
        state_dir=str(place.state),
        repo=str(base.repo),
        source=order.source.shown,
        wanted=order.source.branch,
        branch=branch_name(order.task, order.attempt),
        base=base.commit,
        base_ref=base.ref,
        behind=base.behind,
        made_at=now,
        used_at=now,
        stage=Stage.MAKING,
    )


def _cleared(git: Git, place: Place, old: Record, new: Record) -> Record:
    """Take away what is left of a worktree; the next one goes on on its branch if it can."""
    path = records.worktree_path(place, old.task, old.attempt)
    if old.stage in {Stage.READY, Stage.OVER}:
        try:
            old, found = save(git, place, old)
            lost = found.missing if found is not None else ()
        except WorkspaceError as error:
            lost = (str(error),)
        if lost and path.exists():
            removing.set_aside(path)
    removing.take_away(git, place, old)
    if old.stage is Stage.MAKING and not old.resumes:
        removing.remove_unused_branch(git, old)
        return new
    new = replace(new, saved=old.saved)
    if (old.repo, old.wanted) != (new.repo, new.wanted) or removing.tip_of(git, old) is None:
        return new
    return replace(
        new,
        branch=old.branch,
        base=old.base,
        base_ref=old.base_ref,
        behind=old.behind,
        made_at=old.made_at,
        resumes=True,
    )


def _make(git: Git, place: Place, record: Record) -> Record:
    records.write(place, record)
    try:
        record = _added(git, place, record)
        link = records.worktree_path(place, record.task, record.attempt) / ".git"
        admin = link.read_text(encoding="utf-8").removeprefix("gitdir: ").rstrip("\n")
        ready = replace(record, stage=Stage.READY, admin=admin)
        records.write(place, ready)
    except _Stranger:
        records.forget(place, record)
        raise
    except OSError as error:
        _undo(git, place, record)
        raise trouble("cannot make a worktree", error) from error
    except BaseException:
        _undo(git, place, record)
        raise
    return ready


def _undo(git: Git, place: Place, record: Record) -> None:
    """Undo what the record on the disk tells: its branch may have got another name."""
    removing.undo(git, place, records.read(place, record.task, record.attempt) or record)


def _added(git: Git, place: Place, record: Record) -> Record:
    """Have git make the worktree; what it still has of one that somebody removed by hand goes."""
    try:
        return _named(git, place, record)
    except _Registered:
        tried = records.read(place, record.task, record.attempt) or record
        if not tried.resumes:
            removing.remove_unused_branch(git, tried)
        if not dead.clear(git, place, record):
            raise
    records.write(place, record)
    return _named(git, place, record)


def _named(git: Git, place: Place, record: Record) -> Record:
    """Have git make the worktree, under the first name for its branch that is free."""
    for again in range(2, _NAMES):
        done = _patiently(git, place, record)
        if done.code == 0:
            return record
        elsewhere = _ELSEWHERE.search(done.err)
        if record.resumes and elsewhere:
            # Somebody has our branch checked out: it stays his, the work goes on from its tip.
            tip = removing.tip_of(git, record)
            record = replace(record, base=tip or record.base, resumes=False)
        elif record.resumes or not (_TAKEN.search(done.err) or elsewhere):
            if _REGISTERED.search(done.err):
                raise _Registered(
                    record.repo, records.worktree_path(place, record.task, record.attempt)
                )
            raise _failed(done, record)
        record = replace(record, branch=branch_name(record.task, record.attempt, again))
        records.write(place, record)
    raise WorkspaceError(
        f"all branches {branch_name(record.task, record.attempt)}.* are taken; delete some",
        hopeless=True,
    )


def _patiently(git: Git, place: Place, record: Record) -> Done:
    """Call `git worktree add`, again while the locks of others are in its way, or of nobody."""
    done = _tried(git, place, record)
    if done.code != 0 and _will_pass(done) and leftovers.clear_branch(git, record):
        done = _tried(git, place, record)
    return done


def _tried(git: Git, place: Place, record: Record) -> Done:
    path = records.worktree_path(place, record.task, record.attempt)
    for pause in (*_PAUSES, None):
        done = git(
            *("worktree", "add", "--quiet", "--lock"),
            *("--reason", strangers.lock_reason(record)),
            *(() if record.resumes else ("--no-track", "-b", record.branch)),
            *("--", path, record.branch if record.resumes else record.base),
            repo=Path(record.repo),
            cwd=place.root,
            # Who made a branch stands in its reflog: see removing.remove_unused_branch.
            variables={"GIT_COMMITTER_EMAIL": removing.maker(record)},
            settings=("core.logAllRefUpdates=true",),
            patient=False,
        )
        if done.code == 0 or pause is None or not _will_pass(done):
            return done
        # What it left, if it came that far, would be in its own way.
        removing.take_away(git, place, record)
        if not record.resumes:
            removing.remove_unused_branch(git, record)
        time.sleep(pause)
    raise AssertionError


def _will_pass(done: Done) -> bool:
    """Say whether what was in the way is somebody's work of a moment."""
    if _TAKEN.search(done.err) or _IN_THE_WAY.search(done.err):
        return False
    return leftovers.is_locked(done) or HALF_MADE.search(done.err) is not None


def _failed(done: Done, record: Record) -> WorkspaceError:
    taken = _IN_THE_WAY.search(done.err)
    if taken:
        return WorkspaceError(
            f"the branch {taken[1]} stands in the way of {record.branch}; rename it and retry the "
            "task",
            hopeless=True,
        )
    if done.code == 129:
        return WorkspaceError(
            "this git is too old for worktrees that are locked as they are made; 2.36 or newer is "
            "needed",
            hopeless=True,
        )
    why = last_words(done)
    if _OCCUPIED.search(done.err):
        return _Stranger(f"{why}, and it was not made by agentmux; move it away", hopeless=True)
    if leftovers.is_locked(done):
        return WorkspaceError(
            f"another git holds a lock in {record.repo} ({why}); try again, and if no git is at "
            "work there remove that lock"
        )
    refused = leftovers.is_refused(done)
    then = "then retry the task" if refused else "try again"
    return WorkspaceError(
        f"git worktree add failed in {record.repo}: {why}; mend that, {then}", hopeless=refused
    )
