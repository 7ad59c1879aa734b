"""What `doctor` looks at: the store against itself, its log, its files and its processes.

Reads only; nothing is mended here. The database's own part is `store.audit`, the log's is
`logcheck`. Processes and files come and go while we look, so what is suspect at first must be so
a moment later too.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.census import tagged
from engine.errors import StorageError
from engine.findings import Finding, Findings, Level
from engine.logcheck import check_log
from engine.model import LIVE_WORKERS
from engine.processes import seems_alive
from engine.store.audit import Holder, audit, read_holders
from engine.store.database import SAFE_SQLITE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from engine.files import Layout
    from engine.model import ProcessId
    from engine.store.queries import Queries
    from engine.views import WorkerRow

__all__ = ["Finding", "Level", "inspect"]

_SETTLE = 0.5
"""Seconds until the second look at what is suspect: a worker's start and end leave such traces."""
_OTHERS = 0o077


async def inspect(layout: Layout, queries: Queries) -> list[Finding]:
    """Look at everything and change nothing; errors first. What cannot be read is a finding."""
    found = await asyncio.to_thread(audit, layout.database)
    live = await _look_at_the_living(layout, queries)
    if live.suspects:
        await asyncio.sleep(_SETTLE)
        again = await _look_at_the_living(layout, queries)
        live = _Living(
            [finding for finding in live.suspects if finding in again.suspects], again.at_work
        )
    found += await asyncio.to_thread(check_log, layout, at_work=live.at_work)
    found += live.suspects
    found += await asyncio.to_thread(_still_things, layout)
    return sorted(found, key=lambda finding: finding.level is not Level.ERROR)


@dataclass(frozen=True, slots=True)
class _Living:
    """What one look at workers, runs and their processes found. `at_work`: a worker is alive."""

    suspects: list[Finding]
    at_work: bool


async def _look_at_the_living(layout: Layout, queries: Queries) -> _Living:
    processes = await asyncio.to_thread(_tagged, layout.state)
    try:
        workers = await queries.workers()
        runs = await asyncio.to_thread(read_holders, layout.database)
    except (StorageError, ValueError, TypeError) as error:
        # Rows or pages that are damaged are a finding too, not the end of the inspection.
        message = f"workers and active runs cannot be read: {error}"
        return _Living([Finding(Level.ERROR, "workers", message)], at_work=False)
    suspects = [
        *_lost_workers(workers),
        *_lost_runs(runs),
        *_orphans(processes, runs),
        *await asyncio.to_thread(_pid_files, layout.pids, workers),
    ]
    return _Living(suspects, any(worker.alive for worker in workers))


def _tagged(state: Path) -> dict[ProcessId, str] | str:
    """Return the processes of runs, or why that cannot be known."""
    try:
        return tagged(state)
    except StorageError as error:
        return str(error)


def _lost_workers(workers: Iterable[WorkerRow]) -> list[Finding]:
    found = Findings("workers")
    for worker in workers:
        if worker.status in LIVE_WORKERS and not worker.alive:
            found.add(
                f"worker {worker.id!r} is {worker.status}, but its process {worker.pid} is gone"
            )
    return found.all()


def _lost_runs(runs: Iterable[Holder]) -> list[Finding]:
    found = Findings("runs")
    for run in runs:
        what = f"run {run.run_id} holds task {run.task_id!r}, but its worker {run.worker_id!r}"
        if run.over:
            found.add(f"{what} has ended")
        elif not seems_alive(run.host):
            found.add(f"{what} is gone (process {run.host.pid})")
    return found.all()


def _orphans(processes: dict[ProcessId, str] | str, runs: Iterable[Holder]) -> list[Finding]:
    if isinstance(processes, str):
        return [Finding(Level.NOTE, "orphans", f"orphans cannot be looked for: {processes}")]
    found = Findings("orphans")
    active = {run.run_id for run in runs}
    for process, run_id in sorted(processes.items(), key=lambda item: item[0].pid):
        if run_id not in active:
            found.add(f"process {process.pid} is left of run {run_id}, which holds no task; end it")
    return found.all()


def _pid_files(folder: Path, workers: Iterable[WorkerRow]) -> list[Finding]:
    found = Findings("pid files")
    owners = {f"{worker.agent}-{worker.id}.pid": worker.pid for worker in workers if worker.alive}
    for file in _files(folder, "*.pid"):
        text = _text(file)
        if text is None:
            continue
        if isinstance(text, OSError) or not (text.isascii() and text.strip().isdigit()):
            what = text.strerror if isinstance(text, OSError) else f"it holds {text[:40]!r}, no pid"
            found.add(f"{file} cannot be read: {what}")
        elif file.name not in owners:
            found.add(f"{file} is stale: it names pid {text.strip()}, no live worker owns it")
        elif int(text) != owners[file.name]:
            found.add(f"{file} names pid {text.strip()}, its worker's is {owners[file.name]}")
    return found.all()


def _still_things(layout: Layout) -> list[Finding]:
    return [*_heartbeats(layout.heartbeats), *_permissions(layout), *_sqlite()]


def _heartbeats(folder: Path) -> list[Finding]:
    found = Findings("heartbeats")
    for file in _files(folder, "*.json"):
        text = _text(file)
        if text is None:
            continue
        if isinstance(text, OSError):
            found.add(f"{file} cannot be read: {text.strerror}")
        elif not _is_object(text):
            found.add(f"{file} holds no JSON object: {text[:40]!r}")
    return found.all()


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _permissions(layout: Layout) -> list[Finding]:
    found = Findings("permissions", Level.NOTE)
    folders = (layout.heartbeats, layout.pids, layout.control)
    inside = (file for folder in (layout.state, *folders) for file in _files(folder, "*"))
    for path in dict.fromkeys((layout.state, *folders, layout.artifacts, *inside)):
        try:
            mode = path.lstat().st_mode & 0o777
        except FileNotFoundError:
            continue
        if mode & _OTHERS:
            right = 0o700 if path.is_dir() else 0o600
            found.add(f"{path} is {mode:04o}, not {right:04o}: others can reach it")
    return found.all()


def _sqlite() -> list[Finding]:
    if sqlite3.sqlite_version_info >= SAFE_SQLITE:
        return []
    safe = ".".join(map(str, SAFE_SQLITE))
    message = (
        f"SQLite {sqlite3.sqlite_version} has the WAL-reset bug, mended in {safe}; "
        "agentmux works around it, other programs that write to the store do not"
    )
    return [Finding(Level.NOTE, "sqlite", message)]


def _files(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield what lies in a folder, but not the drafts of files that are being written."""
    return (file for file in sorted(folder.glob(pattern)) if not file.name.startswith("."))


def _text(file: Path) -> str | OSError | None:
    """Return what a file says, why it cannot be read, or None if it has just gone."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        return error
