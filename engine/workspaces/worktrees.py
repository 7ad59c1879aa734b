"""The door to worktrees, for those who live on the event loop: all that blocks is in threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import AgentmuxError, Code
from engine.model import Needed
from engine.shield import shielded
from engine.workspaces import bases, clones, making, pruning, records
from engine.workspaces.errors import WorkspaceError, trouble
from engine.workspaces.git import Git, environment
from engine.workspaces.locking import locked
from engine.workspaces.looking import look as look_now
from engine.workspaces.records import Place, Record, Stage
from engine.workspaces.saving import Saved
from engine.workspaces.saving import save as save_now

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from engine.clock import Clock
    from engine.workspaces.bases import Source
    from engine.workspaces.clones import Clone
    from engine.workspaces.looking import Look
    from engine.workspaces.pruning import Pruned

T = TypeVar("T")
NeededBy: TypeAlias = Callable[[Iterable[str]], Awaitable[Needed]]
"""Asks the store which runs are at work, and which of those given wait to be gone on from."""

# Threads of our own: a clone takes minutes, and those of the loop write signs of life. Who waits
# for a clone holds up nobody whose work is to be saved.
_MAKERS = ThreadPoolExecutor(max_workers=64, thread_name_prefix="worktrees")
_OTHERS = ThreadPoolExecutor(max_workers=64, thread_name_prefix="worktrees")


class Worktree(Struct, frozen=True):
    """A worktree that is ready. `attempt` is its number.

    `repo` is the git directory that it belongs to, `admin` its own in there, as its `.git` file
    names it. `base` is the commit that `branch` started from, `base_ref` its name, `behind` how
    many commits that was behind its upstream then (None: not known). `made`: now, not by an earlier
    run of the same attempt.
    """

    place: Place
    task: str
    attempt: int
    run: str
    path: Path
    repo: Path
    admin: Path
    branch: str
    base: str
    base_ref: str
    behind: int | None
    made: bool

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return variables for who works in here: git finds this worktree, or none at all.

        Not a repository around it, should the worktree's own `.git` file be lost.
        """
        ceiling = {"GIT_CEILING_DIRECTORIES": str(self.path.parent)}
        return environment(variables, person=True) | ceiling


async def ensure_worktree(
    place: Place,
    source: Source,
    project: Path,
    task_id: str,
    attempt: int,
    run_id: str,
    clock: Clock,
    *,
    after: Collection[str] | None = None,
    tag: Mapping[str, str] | None = None,
    needed: NeededBy | None = None,
) -> Worktree:
    """Return the worktree of an attempt, made if need be; the same call again finds it again.

    `project` is the folder whose repository is meant where the source names none. `after` are the
    runs that this one goes on from: it gets the worktree that one of them had, whatever its number,
    or a new one with a number that is free. None: that of the attempt, whoever had it. `tag` is
    added to the environment of git, so that whoever ends the run's tree finds it, should this
    process die. `needed` asks the store which runs are needed: once too many worktrees in a row
    could not be made, those of all others go (see pruning).

    Raises:
        WorkspaceError: there is none, and nothing is left of the try.

    """

    def work(stop: threading.Event) -> Worktree:
        order = making.Order(task_id, attempt, run_id, source, project, after)
        records.prepare(place)
        with locked(records.task_lock(place, task_id), stop) as lock:
            git = Git(stop, (lock,), tag or {})
            record, made = making.ensure(git, place, order, clock)
        pruning.note_success(place)
        return _worktree(place, record, made=made)

    try:
        return await _in_thread(work, _MAKERS)
    except WorkspaceError as error:
        if error.code is Code.IO_ERROR:
            await _count_failure(place, project, clock.now(), needed)
        raise


async def save(worktree: Worktree, run_id: str) -> Saved | None:
    """Save what is uncommitted in a worktree, for the run that has it.

    None: there was nothing to save, or a later run has it. The processes of the run should be gone,
    else it is no moment's picture.

    Raises:
        WorkspaceError: it could not be saved; it is still there.

    """
    return await saved_run(worktree.place, worktree.task, run_id)


async def saved_run(place: Place, task_id: str, run_id: str) -> Saved | None:
    """Save what a run left uncommitted of which only the ids are known, as `save` does.

    None, too, if it has no worktree.
    """
    return await _in_thread(partial(_save, place, task_id, run_id))


async def finished(place: Place, task_id: str, run_id: str, clock: Clock) -> None:
    """Note that a run is over: its worktree may go when its time has come, or be used again."""

    def work(stop: threading.Event) -> None:
        if (record := _record_of(place, task_id, run_id)) is None:
            return
        with locked(records.task_lock(place, task_id), stop):
            record = records.read(place, task_id, record.attempt)
            if record is not None and record.run == run_id and record.stage is Stage.READY:
                now = records.milliseconds(clock.now())
                records.write(place, replace(record, stage=Stage.OVER, used_at=now))

    await _in_thread(work)


async def check_source(place: Place, source: Source, project: Path) -> None:
    """Look whether worktrees can be made of a source at all; no network is asked, nothing is made.

    Raises:
        WorkspaceError: they cannot.

    """

    def work(stop: threading.Event) -> None:
        records.refuse_gitdir(place)
        bases.check(Git(stop), source, project)

    await _in_thread(work)


async def can_commit(project: Path, variables: Mapping[str, str]) -> bool:
    """Say whether git knows in whose name an agent with these variables commits in a repository.

    Raises:
        WorkspaceError: there is no git.

    """

    def work(stop: threading.Event) -> bool:
        git = Git(stop, variables=environment(variables, person=True), ours=False)
        names = ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT")
        return all(git("var", name, cwd=project).code == 0 for name in names)

    return await _in_thread(work)


async def origin_of(source: Source, project: Path) -> str | None:
    """Return the URL where the repository of a source comes from, None if there is none.

    Raises:
        WorkspaceError: there is no git.

    """
    if source.url is not None:
        return source.url
    done = await _in_thread(lambda stop: Git(stop)("remote", "get-url", "origin", cwd=project))
    return done.text if done.code == 0 and done.text else None


async def look(place: Place, worktree: Worktree) -> Look:
    """Return what came of the work in a worktree. Raises WorkspaceError."""
    return await _in_thread(
        lambda stop: look_now(Git(stop), place, worktree.task, worktree.attempt)
    )


async def list_worktrees(place: Place) -> list[Record]:
    """Return the records of all worktrees of a state folder, by task and attempt."""
    return await _in_thread(lambda _stop: records.records(place))


async def prune(
    place: Place,
    project: Path,
    *,
    keep: int,
    older_than: timedelta,
    now: datetime,
    dry_run: bool,
    needed: NeededBy,
) -> list[Pruned]:
    """Remove worktrees of runs that are over: all but the newest `keep`, and all that are older.

    What git still has of those that were removed by hand goes, too, in the repository of `project`
    and in those of URLs.

    `needed` asks the store which of some runs are needed; it is called after the records have been
    read, and only so can no run lose its worktree that begins meanwhile. See pruning.
    """
    known = await list_worktrees(place)
    now_needed = await needed([record.run for record in known])
    rule = pruning.Rule(keep, older_than)
    return await _in_thread(
        lambda stop: pruning.prune(
            stop, place, project, known, now_needed, rule, now, dry_run=dry_run
        )
    )


async def prune_clones(
    place: Place, *, older_than: timedelta, now: datetime, dry_run: bool
) -> list[Clone]:
    """Remove repositories of URLs that nobody needs, fetched last longer ago; see clones.

    Call it before `prune`: then a dry run of both tells what both would do.
    """
    return await _in_thread(
        lambda stop: clones.prune(stop, place, older_than, now, dry_run=dry_run)
    )


async def _in_thread(
    work: Callable[[threading.Event], T], threads: ThreadPoolExecutor = _OTHERS
) -> T:
    """Do what blocks; a cancellation ends the git that runs, and waits until all is undone."""
    stop = threading.Event()
    done = asyncio.get_running_loop().run_in_executor(threads, _foreseen, work, stop)
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        stop.set()
        await shielded(_settled(done), reraise=False)
        raise


def _foreseen(work: Callable[[threading.Event], T], stop: threading.Event) -> T:
    try:
        return work(stop)
    except OSError as error:  # a full disk, permissions: wherever that is met
        raise trouble(str(error.filename or "worktrees"), error) from error


async def _settled(done: asyncio.Future[T]) -> None:
    await asyncio.wait({done})
    if not done.cancelled():
        done.exception()  # seen: whoever cancelled does not want to know


async def _count_failure(
    place: Place, project: Path, now: datetime, needed: NeededBy | None
) -> None:
    """Count a failure to make a worktree; after too many in a row let those go that are over."""
    too_many = await _in_thread(lambda _stop: pruning.note_failure(place))
    if too_many and needed is not None:
        with suppress(AgentmuxError):  # what failed first is what is told
            older_than = timedelta.max
            await prune(
                place, project, keep=0, older_than=older_than, now=now, dry_run=False, needed=needed
            )


def _save(place: Place, task_id: str, run_id: str, stop: threading.Event) -> Saved | None:
    if (record := _record_of(place, task_id, run_id)) is None:
        return None
    with locked(records.task_lock(place, task_id), stop) as lock:
        record = records.read(place, task_id, record.attempt)
        if record is None or record.run != run_id:
            return None
        return save_now(Git(stop, (lock,)), place, record)[1]


def _record_of(place: Place, task_id: str, run_id: str) -> Record | None:
    return next((r for r in records.records_of(place, task_id) if r.run == run_id), None)


def _worktree(place: Place, record: Record, *, made: bool) -> Worktree:
    return Worktree(
        place=place,
        task=record.task,
        attempt=record.attempt,
        run=record.run,
        path=records.worktree_path(place, record.task, record.attempt),
        repo=Path(record.repo),
        admin=Path(record.admin),
        branch=record.branch,
        base=record.base,
        base_ref=record.base_ref,
        behind=record.behind,
        made=made,
    )
