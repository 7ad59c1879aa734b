"""What gc would remove: found from what lies on the disk and what the store says of it.

Changes nothing. See `gc` for what may go and why nothing else does.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from contextlib import closing
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING
from urllib.parse import unquote

from msgspec import Struct

from engine.clock import to_iso
from engine.errors import StorageError
from engine.files import safe_name
from engine.logfiles import find_end, log_files, open_log
from engine.store.database import storage_error
from engine.store.forgetting import log_from, still_needed
from engine.store.vitals import open_for_reading
from engine.text import plural

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from engine.files import Layout

_STRANGER = timedelta(days=1)
"""How long a run that the store does not know stays: it may be at work for another store."""

_RUN = re.compile(r"[0-9a-f]{21}|[0-9a-f]{32}", re.ASCII)
"""Ids of runs as claims give them; the longer ones are of schema 1."""
_CUT_NAME = re.compile(r".{102}%~[0-9a-f]{16}", re.ASCII)
_AT_ONCE = 500
_RUNS = (
    "SELECT id, task_id, outcome IS NOT NULL AND ended_at <= ? FROM runs"
    " WHERE id IN (SELECT value FROM json_each(?))"
)
_BUSY = (
    "SELECT id FROM tasks WHERE state IN ('CLAIMED', 'RUNNING') UNION SELECT task_id FROM endings"
)


class OldRun(Struct, frozen=True):
    """The folder of a run that may go: the names of its task's folder and its own, its size."""

    task: str
    run: str
    bytes: int


class OldLog(Struct, frozen=True):
    """A rotated file of the log that may go, the seq of its last event, its size."""

    path: Path
    last_seq: int
    bytes: int


class OldBody(Struct, frozen=True):
    """A file below state/alerts/ that may go: its name and its size."""

    name: str
    bytes: int


class Plan(Struct, frozen=True):
    """What gc removes, or would remove.

    `emptied` are the names of task folders that are empty then. `upto` is the last seq that the
    store forgets, 0 for none, `events` how many that are. `kept` says in sentences what is old
    enough and stays all the same, and why.
    """

    layout: Layout
    runs: tuple[OldRun, ...] = ()
    emptied: tuple[str, ...] = ()
    logs: tuple[OldLog, ...] = ()
    upto: int = 0
    events: int = 0
    bodies: tuple[OldBody, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """How much is freed on the disk; the database keeps its size and uses the room again."""
        items = chain[OldRun | OldLog | OldBody](self.runs, self.logs, self.bodies)
        return sum(item.bytes for item in items)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.runs or self.emptied or self.logs or self.upto or self.bodies)


def plan(layout: Layout, older_than: timedelta, now: datetime) -> Plan:
    """Find what is older than `older_than`, and change nothing. Blocks: call it off the loop.

    Raises:
        StorageError: the store or artifacts/ cannot be read.

    """
    try:
        with closing(open_for_reading(layout.database)) as db:
            finder = _Finder(db, layout, older_than, now)
            finder.look_at_runs()
            finder.look_at_logs()
            finder.look_at_alerts()
            return finder.plan()
    except sqlite3.Error as error:
        raise storage_error(error, layout.database) from error
    except OSError as error:
        raise StorageError(f"{error.filename}: {error.strerror}; mend its permissions") from error


class _TaskFolder(Struct, frozen=True):
    """A folder below artifacts/: the folders in it that may be ours, and whether there is more."""

    name: str
    folders: tuple[str, ...]
    others: bool


def _is_task_name(name: str) -> bool:
    """Say whether a folder can be that of a task: safe_name gives no other names."""
    return name.isascii() and (
        safe_name(unquote(name)) == name or _CUT_NAME.fullmatch(name) is not None
    )


class _Finder:
    """Puts a plan together from what lies on the disk and what the store says of it."""

    def __init__(
        self, db: sqlite3.Connection, layout: Layout, older_than: timedelta, now: datetime
    ) -> None:
        self._db = db
        self._layout = layout
        self._ended_by = to_iso(now - older_than)
        self._strangers = 0
        self._stranger_since = (now - max(older_than, _STRANGER)).timestamp()
        self._runs: list[OldRun] = []
        self._emptied: list[str] = []
        self._logs: list[OldLog] = []
        self._bodies: list[OldBody] = []
        self._first = db.execute("SELECT min(seq) FROM events").fetchone()[0] or 0
        self._upto = 0
        self._kept: list[str] = []

    def plan(self) -> Plan:
        """Return what was found."""
        return Plan(
            self._layout,
            tuple(self._runs),
            tuple(self._emptied),
            tuple(self._logs),
            self._upto,
            max(0, self._upto - self._first + 1) if self._first else 0,
            tuple(self._bodies),
            tuple(self._kept),
        )

    def look_at_runs(self) -> None:
        """Decide about the folders of runs, and which folders of tasks are empty afterwards."""
        listed = list(self._list())
        ended = self._ask([unquote(run) for task in listed for run in task.folders])
        # Asked last: a run that ends meanwhile is among them, or its tree is gone.
        leaving = {row[0] for row in self._db.execute("SELECT run_id FROM endings")}
        busy = busy_folders(self._db)
        for task in listed:
            gone = [run for run in task.folders if self._may_go(task.name, run, ended, leaving)]
            if len(gone) == len(task.folders) and not task.others and task.name not in busy:
                self._emptied.append(task.name)
        if self._strangers:
            self._kept.append(
                f"the artifacts of {plural(self._strangers, 'run')} that the store does not know "
                "(of purged tasks, say) stay until they are a day old"
            )

    def _list(self) -> Iterator[_TaskFolder]:
        artifacts = self._layout.artifacts
        try:
            with os.scandir(artifacts) as entries:
                names = sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return
        for name in filter(_is_task_name, names):
            try:
                with os.scandir(artifacts / name) as entries:
                    inside = [
                        (entry.name, entry.name.isascii() and entry.is_dir(follow_symlinks=False))
                        for entry in entries
                    ]
            except FileNotFoundError:
                continue
            except OSError as error:
                self._kept.append(f"{artifacts / name} cannot be looked at: {in_words(error)}")
                continue
            folders = tuple(sorted(entry for entry, is_folder in inside if is_folder))
            yield _TaskFolder(name, folders, len(folders) < len(inside))

    def _ask(self, run_ids: list[str]) -> dict[str, tuple[str, bool]]:
        """Return of the runs that the store knows the task, and whether they ended long ago."""
        known: dict[str, tuple[str, bool]] = {}
        for begin in range(0, len(run_ids), _AT_ONCE):
            names = json.dumps(run_ids[begin : begin + _AT_ONCE])
            for run_id, task_id, old in self._db.execute(_RUNS, (self._ended_by, names)):
                known[run_id] = (task_id, bool(old))
        return known

    def _may_go(
        self, task: str, run: str, ended: dict[str, tuple[str, bool]], leaving: set[str]
    ) -> bool:
        run_id = unquote(run)
        known = ended.get(run_id)
        if known is None:
            ours = _RUN.fullmatch(run) is not None
        else:
            ours = known[1] and (safe_name(known[0]), safe_name(run_id)) == (task, run)
        if not ours or run_id in leaving:
            return False
        folder = self._layout.artifacts / task / run
        try:
            size, newest = _measure(folder)
        except FileNotFoundError:
            return False
        except (OSError, RecursionError) as error:
            self._kept.append(f"{folder} cannot be looked at: {in_words(error)}")
            return False
        if known is None and newest > self._stranger_since:
            self._strangers += 1
            return False
        self._runs.append(OldRun(task, run, size))
        return True

    def look_at_logs(self) -> None:
        """Decide about the rotated files of the log, from the oldest on: what is left is whole."""
        begin = log_from(self._db)
        if self._first < begin:
            self._upto = begin - 1  # a gc was cut short
        for path in log_files(self._layout):
            if path == self._layout.log:
                return
            with open_log(path) as file:
                size, end = os.fstat(file.fileno()).st_size, find_end(file.fileno())
            if end.seq >= begin and not self._is_old(end.seq):
                return
            reason = None if end.seq < begin else still_needed(self._db, end.seq)
            if end.seq == 0 or end.offset < size:
                reason = "its end cannot be read; run `agentmux doctor`"
            if reason is not None:
                self._kept.append(f"{path.name} stays, a rebuild would need it: {reason}")
                return
            self._logs.append(OldLog(path, end.seq, size))
            self._upto = max(self._upto, end.seq)

    def look_at_alerts(self) -> None:
        """Decide about what alerts told: it goes once somebody has seen to it, and long ago."""
        rows = self._db.execute("SELECT body, acknowledged_at <= ? FROM alerts", (self._ended_by,))
        seen_to = {body: bool(old) for body, old in rows if body is not None}
        drafts = self._db.execute("SELECT source FROM watched WHERE draft > 0")
        begun = {self._layout.alert_draft(source).name for (source,) in drafts}
        try:
            with os.scandir(self._layout.alerts) as entries:
                found = [(e.name, e.stat(follow_symlinks=False)) for e in entries if _is_plain(e)]
        except FileNotFoundError:
            return
        for name, facts in sorted(found, key=lambda one: one[0]):
            # What no alert names may be about to be named.
            forgotten = facts.st_mtime <= self._stranger_since and name not in begun
            if seen_to.get(f"{self._layout.alerts.name}/{name}", forgotten):
                self._bodies.append(OldBody(name, facts.st_size))

    def _is_old(self, seq: int) -> bool:
        row = self._db.execute("SELECT ts FROM events WHERE seq = ?", (seq,)).fetchone()
        return row is not None and row[0] <= self._ended_by


def busy_folders(db: sqlite3.Connection) -> set[str]:
    """Return the folder names of the tasks that a run may be writing for."""
    return {safe_name(row[0]) for row in db.execute(_BUSY)}


def _is_plain(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith((".md", ".draft")) and entry.is_file(follow_symlinks=False)


def _measure(folder: Path) -> tuple[int, float]:
    """Return the size of all files below a folder, and when anything there changed last."""

    def refuse(error: OSError) -> None:
        raise error

    size, newest = 0, folder.lstat().st_mtime
    for place, folders, files in os.walk(folder, onerror=refuse):
        for name in folders:
            newest = max(newest, os.lstat(os.path.join(place, name)).st_mtime)  # noqa: PTH118 - fast
        for name in files:
            state = os.lstat(os.path.join(place, name))  # noqa: PTH118 - a Path each is 3 x slower
            newest = max(newest, state.st_mtime)
            size += state.st_size
    return size, newest


def in_words(error: Exception) -> str:
    """Say what stands in the way of a folder, and what to do."""
    if isinstance(error, RecursionError):
        return "its folders are nested too deeply; remove it by hand"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; mend its permissions or remove it by hand"
    return str(error)
