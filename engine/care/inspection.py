"""What `doctor` looks at: the store against itself, its log, its files and its processes.

Reads only; nothing is mended here. The database's own part is `store.audit`, the log's is
`log.check`. Processes and files come and go while we look, so what is suspect at first must be so
a moment later too.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from engine.care.leftovers import Fate, leftovers, orphans
from engine.clock import SystemClock, to_iso
from engine.errors import StorageError
from engine.findings import (
    NO_TAMPERING,
    REBUILD,
    REPAIR,
    RESET_ADVICE,
    RESET_BEGUN,
    Finding,
    Findings,
    Level,
)
from engine.log.check import check_log
from engine.machine import ENDING_SECONDS
from engine.model import LOOK
from engine.processes.census import tagged
from engine.processes.signalling import seems_alive
from engine.store.audit import UNREADABLE, audit, events_are_whole, sqlite_trouble
from engine.store.database import is_damage
from engine.store.recovery.rebuild import knows_more
from engine.store.vitals import Vitals, open_for_reading, read_vitals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from pathlib import Path

    from engine.care.leftovers import Leftover
    from engine.clock import Clock
    from engine.files import Layout
    from engine.model import ProcessId

_SETTLE = 0.5
"""Seconds until the second look at what is suspect: a worker's start and end leave such traces."""
_OTHERS = 0o077
_BY_ITSELF = "the next worker that starts mends it, or `agentmux doctor --repair`"
_REWRITE = (
    "`agentmux doctor --repair` writes the log anew from the events table and keeps the old one "
    "in state/quarantine"
)


async def inspect(layout: Layout, clock: Clock | None = None) -> list[Finding]:
    """Look at everything and change nothing; errors first. What cannot be read is a finding."""
    clock = clock or SystemClock()
    found = await asyncio.to_thread(audit, layout.database)
    if any(one.check in {"schema", UNREADABLE} for one in found):
        return found
    live = await asyncio.to_thread(_look_at_the_living, layout, clock.now())
    if live.suspects:
        await asyncio.sleep(_SETTLE)
        again = await asyncio.to_thread(_look_at_the_living, layout, clock.now())
        live = _Living(
            [finding for finding in live.suspects if finding in again.suspects], again.at_work
        )
    told = await asyncio.to_thread(check_log, layout, at_work=live.at_work)
    if any(one.advice == REPAIR for one in told):
        advice = _REWRITE
        if not await asyncio.to_thread(table_is_whole, layout):
            has_gaps = any(one.check == "events" and one.level is Level.ERROR for one in found)
            advice = NO_TAMPERING if has_gaps else REBUILD
        told = [replace(one, advice=advice) if one.advice == REPAIR else one for one in told]
    found += told
    found += live.suspects
    found += await asyncio.to_thread(_permissions, layout)
    found += sqlite_trouble()
    return sorted(found, key=lambda finding: finding.level is not Level.ERROR)


def table_is_whole(layout: Layout) -> bool:
    """Whether the log can be written anew from the events table without losing an event.

    Not if the table has gaps, or the log goes on where it ends: then somebody changed it, or put
    an older one in its place.
    """
    try:
        with closing(open_for_reading(layout.database)) as db:
            return events_are_whole(layout.database) and not knows_more(db, layout)
    except (OSError, sqlite3.Error):
        return False


class _Living(Struct, frozen=True):
    """What one look at workers, runs and their processes found. `at_work`: a worker is alive."""

    suspects: list[Finding]
    at_work: bool


def _look_at_the_living(layout: Layout, now: datetime) -> _Living:
    # In this order: whatever carries the tag of a run by then was claimed before.
    try:
        processes: dict[ProcessId, str] | str = tagged(layout.state)
    except StorageError as error:
        processes = str(error)
    try:
        vitals = read_vitals(layout.database)
    except StorageError as error:
        # Rows or pages that are damaged are a finding too, not the end of the inspection.
        message = f"workers and active runs cannot be read: {error}"
        cause = error.__cause__
        # A lock or a full disk says nothing about what is stored; its sentence says what to do.
        harmless = isinstance(cause, sqlite3.Error) and not is_damage(cause)
        advice = "mend what is said there" if harmless else NO_TAMPERING
        found = Finding(Level.ERROR, "workers", message, advice)
        unread = (one for one in leftovers(layout, (), now) if one.fate is Fate.SET_ASIDE)
        return _Living([found, *_files(unread)], at_work=False)
    living = [worker for worker in vitals.workers if seems_alive(worker.host)]
    suspects = [
        *_lost_workers(vitals),
        *_lost_runs(vitals),
        *_lingering(vitals, now),
        *_orphans(processes, vitals),
        *_files(leftovers(layout, living, now)),
        *([_RESETTING] if vitals.resetting else []),
    ]
    return _Living(suspects, bool(living))


_RESETTING = Finding(
    Level.WARNING,
    "reset",
    RESET_BEGUN,
    RESET_ADVICE,
)
_FATES = {
    None: "wait for its next sign of life",
    Fate.REMOVE: "the next worker that starts removes it, or `agentmux doctor --repair`",
    Fate.SET_ASIDE: (
        "the next worker that starts, or `agentmux doctor --repair`, moves it to state/quarantine"
    ),
    Fate.REWRITE: "`agentmux doctor --repair` writes it anew",
}


def _files(found: Iterable[Leftover]) -> list[Finding]:
    kinds: dict[tuple[str, Fate | None], Findings] = {}
    for one in found:
        if (one.kind, one.fate) not in kinds:
            level = Level.ERROR if one.matters else Level.NOTE
            kinds[one.kind, one.fate] = Findings(one.kind, level, advice=_FATES[one.fate])
        kinds[one.kind, one.fate].add(str(one))
    return [finding for findings in kinds.values() for finding in findings.all()]


def _lost_workers(vitals: Vitals) -> list[Finding]:
    found = Findings("workers", advice=_BY_ITSELF)
    for worker in vitals.workers:
        if not seems_alive(worker.host):
            what = f"worker {worker.id!r} is {worker.status}"
            found.add(f"{what}, but its process {worker.host.pid} is gone")
    return found.all()


def _lost_runs(vitals: Vitals) -> list[Finding]:
    found = Findings("runs", advice=f"its task is not lost: {_BY_ITSELF}")
    for run in vitals.runs:
        what = f"run {run.run_id} holds task {run.task_id!r}, but its worker {run.worker_id!r}"
        if run.over:
            found.add(f"{what} has ended")
        elif run.host is not None and not seems_alive(run.host):
            found.add(f"{what} is gone (process {run.host.pid})")
    return found.all()


def _lingering(vitals: Vitals, now: datetime) -> list[Finding]:
    found = Findings("endings", advice=_BY_ITSELF)
    for run in vitals.leaving:
        what = f"run {run.run_id} lost task {run.task_id!r}"
        if not seems_alive(run.host):
            found.add(f"{what}; its worker {run.worker_id!r} is gone and cannot end its processes")
        elif now - run.since > timedelta(seconds=ENDING_SECONDS):
            found.add(f"{what} at {to_iso(run.since)}, and its processes are still not known gone")
    return found.all()


def _orphans(processes: dict[ProcessId, str] | str, vitals: Vitals) -> list[Finding]:
    if isinstance(processes, str):
        message = f"orphans cannot be looked for: {processes}"
        return [Finding(Level.NOTE, "orphans", message, "look for processes by hand")]
    found = Findings("orphans", advice="`agentmux doctor --repair` ends it")
    kept = any(map(seems_alive, vitals.keepers))
    for run_id, left in orphans(processes, vitals, kept=kept).items():
        if run_id.startswith(LOOK):
            continue  # it is over in seconds; the next start ends one that is not
        for process in left:
            found.add(f"process {process.pid} is left of run {run_id}, which holds no task")
    return found.all()


def _permissions(layout: Layout) -> list[Finding]:
    """Find what others can reach of the state folder, and what we cannot write to."""
    found = Findings("permissions", Level.NOTE)
    for path, mode, right in open_to_others(layout):
        found.add(f"{path} is {mode:04o}, not {right:04o}: others can reach it")
    shut = Findings("permissions", advice="mend its permissions; what it lacks is written then")
    for path in (layout.state, layout.database, layout.write_lock, layout.log, layout.log_lock):
        if path.exists() and not os.access(path, os.W_OK):
            shut.add(f"{path} cannot be written to")
    return [*shut.all(), *found.all()]


def open_to_others(layout: Layout) -> Iterator[tuple[Path, int, int]]:
    """Yield what others can reach: its path, its mode and the right one. Links are left alone."""
    folders = (layout.heartbeats, layout.pids, layout.control, layout.alerts, layout.services)
    inside = (file for folder in (layout.state, *folders) for file in sorted(folder.glob("*")))
    for path in dict.fromkeys((layout.state, *folders, layout.artifacts, *inside)):
        try:
            mode = path.stat().st_mode & 0o777
        except OSError:  # gone meanwhile, or nothing that we may look at
            continue
        if mode & _OTHERS and not path.is_symlink():
            yield path, mode, 0o700 if path.is_dir() else 0o600
