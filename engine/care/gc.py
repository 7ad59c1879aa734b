"""`agentmux gc`: removes what runs left behind, and rotated logs that nothing needs any more.

Nothing is removed by itself, and only what lies below artifacts/ and state/: no link is followed
there, and a name that is not one of ours is left alone. The record of a run stays in the store;
only its files go. Quarantine and backups are never touched: they are for people to look at.

What an alert told goes once somebody has acknowledged it, and that long ago.

The log is the backup of the store, so a rotated file goes only together with its rows of the
events table, and only if the store could be rebuilt without it (see store.forgetting).

No run can lose what it writes. A run's folder has the run's id for a name, and a run that ended
never begins again; folders are listed before the store is asked, so one that the store does not
know was purged, or belongs to another state folder that shares artifacts/: such stay for a day at
least. The folder of a task goes only while no claim can be made and nobody holds the task.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from msgspec import Struct, field

from engine.care.gcplan import OldBody, OldLog, OldRun, Plan, busy_folders, in_words, plan
from engine.commands import Refusal
from engine.errors import AgentmuxError, Code
from engine.logfiles import find_end, open_log
from engine.store.database import WriteLock
from engine.store.forgetting import log_from
from engine.store.vitals import open_for_reading

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from pathlib import Path

__all__ = [
    "UNTOUCHED",
    "Collected",
    "OldBody",
    "OldLog",
    "OldRun",
    "Plan",
    "carry_out",
    "plan",
]

UNTOUCHED = "state/quarantine and state/backup are never touched: remove them by hand"
"""What the output of gc says besides what it did."""

_AT_ONCE = 500
_EVENTS_AT_ONCE = 10_000


class Collected(Struct):
    """What gc has removed: counts, bytes of files, and what it could not remove."""

    runs: int = 0
    folders: int = 0
    logs: int = 0
    events: int = 0
    bodies: int = 0
    bytes: int = 0
    refused: list[Refusal] = field(default_factory=list)


async def carry_out(plan: Plan, forget: Callable[[int, int], Awaitable[int]]) -> Collected:
    """Remove what was planned; what cannot be removed is told, and the rest goes on.

    `forget` is the store's: it removes up to so many (second) of the events up to a seq (first),
    and returns how many it removed. Cut short anywhere, gc again removes the rest.
    """
    collected = Collected()
    for begin in range(0, len(plan.runs), _AT_ONCE):
        await asyncio.to_thread(_remove_runs, plan, plan.runs[begin : begin + _AT_ONCE], collected)
    for begin in range(0, len(plan.emptied), _AT_ONCE):
        names = plan.emptied[begin : begin + _AT_ONCE]
        with _told(collected, plan.layout.artifacts):
            await asyncio.to_thread(_remove_emptied, plan, names, collected)
    if plan.bodies:
        with _told(collected, plan.layout.alerts):
            await asyncio.to_thread(_remove_bodies, plan, collected)
    if plan.upto:
        with _told(collected, plan.layout.log):
            # The rows first: a file without rows is known to be left over, not the reverse.
            while removed := await forget(plan.upto, _EVENTS_AT_ONCE):
                collected.events += removed
            await asyncio.to_thread(_remove_logs, plan, collected)
    return collected


def _remove_runs(plan: Plan, runs: Iterable[OldRun], collected: Collected) -> None:
    artifacts = plan.layout.artifacts
    for run in runs:
        try:
            # Through the open folder: were it replaced by a link meanwhile, nothing is followed.
            with _folder(artifacts / run.task) as task:
                shutil.rmtree(run.run, dir_fd=task)
        except FileNotFoundError:
            continue
        except (OSError, RecursionError) as error:
            collected.refused.append(_refusal(artifacts / run.task / run.run, error))
        else:
            collected.runs += 1
            collected.bytes += run.bytes


def _remove_emptied(plan: Plan, names: Iterable[str], collected: Collected) -> None:
    """Remove task folders under the write lock: who claims a task meanwhile makes its folder."""
    with (
        closing(WriteLock(plan.layout.write_lock)) as lock,
        lock.held(),
        closing(open_for_reading(plan.layout.database)) as db,
        _folder(plan.layout.artifacts, linked=True) as artifacts,
    ):
        busy = busy_folders(db)
        for name in names:
            if name in busy:
                continue
            try:
                os.rmdir(name, dir_fd=artifacts)
            except OSError:
                # Not empty: what could not be removed there was told, or somebody has just put
                # something there.
                continue
            collected.folders += 1


def _remove_bodies(plan: Plan, collected: Collected) -> None:
    with _folder(plan.layout.alerts) as alerts:
        for body in plan.bodies:
            try:
                os.unlink(body.name, dir_fd=alerts)
            except FileNotFoundError:
                continue
            collected.bodies += 1
            collected.bytes += body.bytes


def _remove_logs(plan: Plan, collected: Collected) -> None:
    with (
        closing(WriteLock(plan.layout.log_lock)) as lock,
        lock.held(),
        closing(open_for_reading(plan.layout.database)) as db,
    ):
        begin = log_from(db)
        for log in plan.logs:
            try:
                with open_log(log.path) as file:
                    seq = find_end(file.fileno()).seq
                if seq != log.last_seq or seq >= begin:
                    continue  # another file by now: the log was written anew
                log.path.unlink()
            except FileNotFoundError:
                continue
            collected.logs += 1
            collected.bytes += log.bytes


@contextmanager
def _folder(path: Path, *, linked: bool = False) -> Iterator[int]:
    """Open a folder to remove something in it; unless `linked` it must not be a link itself."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if linked else os.O_NOFOLLOW)
    handle = os.open(path, flags)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _told(collected: Collected, subject: Path) -> Iterator[None]:
    """Let the rest go on: what stands in the way of one part is told in the end."""
    try:
        yield
    except (AgentmuxError, sqlite3.Error, OSError) as error:
        collected.refused.append(_refusal(subject, error))


def _refusal(subject: Path, error: Exception) -> Refusal:
    code = error.code if isinstance(error, AgentmuxError) else Code.IO_ERROR
    return Refusal(str(subject), code, in_words(error))
