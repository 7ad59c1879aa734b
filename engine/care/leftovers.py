"""What nobody will take away: files of workers that are gone, files that cannot be read, processes
of runs that are over.

Judges only, and takes those that live as an argument. A stop file is somebody's wish for a worker
that may be about to start: only an old one is a leftover (see presence.Presence.enter).
"""  # noqa: D205 - one sentence reads better unbroken

from __future__ import annotations

import json
import re
import stat
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.files import read_regular
from engine.model import SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from engine.files import Layout
    from engine.model import ProcessId
    from engine.store.vitals import KnownWorker, Vitals

OLD = 60.0
"""Seconds after which a stop file, or a draft of a file, is nobody's: whoever asks a worker to
stop while it starts sees it start long before, and a draft lives for milliseconds."""

_PID = re.compile(r"\s*(\d{1,10})\s*", re.ASCII)
_DRAFT = re.compile(r"\..+\.(\d+)\.\d+")
"""What files.write_private calls a file while it is being written: the pid comes first."""


class Fate(StrEnum):
    """What is to be done with a leftover."""

    REMOVE = "remove"
    SET_ASIDE = "set aside"
    REWRITE = "rewrite"


class Leftover(Struct, frozen=True):
    """A file that is not as it must be: `kind` is its folder's, `message` ends a sentence.

    `pid` is the one that it names, or that REWRITE writes. `fate` is None where its owner lives
    and mends it soon. `matters` is False for what does no harm.
    """

    path: Path
    kind: str
    message: str
    fate: Fate | None
    pid: int | None = None
    matters: bool = True

    def __str__(self) -> str:
        return f"{self.path} {self.message}"


def orphans(
    processes: Mapping[ProcessId, str], vitals: Vitals, *, kept: bool
) -> dict[str, list[ProcessId]]:
    """Return the processes that are left of runs which neither hold a task nor are being ended.

    `processes` must have been looked at before `vitals`: then each was claimed before it began.
    `kept`: somebody keeps services, and what is left of those is his business.
    """
    found: dict[str, list[ProcessId]] = {}
    known = vitals.run_ids
    for process, run_id in sorted(processes.items(), key=lambda item: item[0].pid):
        if run_id not in known and not (kept and run_id.startswith(SERVICE)):
            found.setdefault(run_id, []).append(process)
    return found


def leftovers(layout: Layout, living: Iterable[KnownWorker], now: datetime) -> Iterator[Leftover]:
    """Yield the leftovers of a state folder. `living` are the workers that do live."""
    living = list(living)
    names = {f"{worker.agent}-{worker.id}": worker.host.pid for worker in living}
    yield from _pid_files(layout.pids, names)
    yield from _heartbeats(layout.heartbeats, {w.id for w in living} | {w.agent for w in living})
    yield from _stop_files(layout.control, names, now)
    for folder in (layout.state, layout.pids, layout.heartbeats, layout.control):
        yield from _drafts(folder, now)


def _pid_files(folder: Path, owners: Mapping[str, int]) -> Iterator[Leftover]:
    for file in _files(folder, ".pid"):
        text, owner = _text(file), owners.get(file.stem)
        if text is None:
            continue
        named = None if isinstance(text, OSError) else _PID.fullmatch(text)
        if named is None:
            what = text.strerror if isinstance(text, OSError) else f"it holds {text[:40]!r}, no pid"
            fate = Fate.SET_ASIDE if owner is None else Fate.REWRITE
            yield Leftover(file, "pid files", f"cannot be read: {what}", fate, owner)
            continue
        pid = int(named[1])
        if owner is None:
            message = f"is stale: it names pid {pid}, no live worker owns it"
            yield Leftover(file, "pid files", message, Fate.REMOVE, pid)
        elif pid != owner:
            message = f"names pid {pid}, its worker's is {owner}"
            yield Leftover(file, "pid files", message, Fate.REWRITE, owner)


def _heartbeats(folder: Path, owners: set[str]) -> Iterator[Leftover]:
    for file in _files(folder, ".json"):
        text = _text(file)
        if text is None or (isinstance(text, str) and _is_object(text)):
            continue
        what = (
            f"cannot be read: {text.strerror}"
            if isinstance(text, OSError)
            else f"holds no JSON object: {text[:40]!r}"
        )
        if file.stem in owners:
            what += "; its worker lives and writes it anew"
            yield Leftover(file, "heartbeats", what, None, matters=False)
        else:
            yield Leftover(file, "heartbeats", what, Fate.SET_ASIDE)


def _stop_files(folder: Path, owners: Mapping[str, int], now: datetime) -> Iterator[Leftover]:
    for file in _files(folder, ".stop"):
        if file.stem not in owners and _is_old(file, now):
            message = "asks a worker to stop that does not live"
            fate = Fate.REMOVE if _is_regular(file) else Fate.SET_ASIDE
            yield Leftover(file, "stop files", message, fate, matters=False)


def _drafts(folder: Path, now: datetime) -> Iterator[Leftover]:
    for file in sorted(folder.glob(".*")):
        found = _DRAFT.fullmatch(file.name)
        if found and file.is_file() and _is_old(file, now):
            message = "is a draft of a file that nobody writes any more"
            yield Leftover(file, "drafts", message, Fate.REMOVE, int(found[1]), matters=False)


def _is_old(file: Path, now: datetime) -> bool:
    try:
        changed = file.lstat().st_ctime
    except FileNotFoundError:
        return False
    return now.timestamp() - changed > OLD


def _files(folder: Path, suffix: str) -> Iterator[Path]:
    """Yield the files of a folder that are not drafts."""
    found = sorted(folder.glob(f"*{suffix}"))
    return (file for file in found if not file.name.startswith("."))


def _text(file: Path) -> str | OSError | None:
    """Return what a file says, why it cannot be read, or None if it has just gone."""
    try:
        return read_regular(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        return error


def _is_regular(file: Path) -> bool:
    try:
        return stat.S_ISREG(file.lstat().st_mode)
    except FileNotFoundError:
        return True  # it has just gone


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
