"""How much still fits on the disks that a fleet writes to. Too little is an alert, in time."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.findings import Level
from engine.model import AlertKind, NewAlert
from engine.text import clean_text, in_bytes, plural
from engine.workspaces import place_of

if TYPE_CHECKING:
    from pathlib import Path

    from engine.config import Config
    from engine.files import Layout
    from engine.store.lookout import Lookout
    from engine.store.store import Store

_EVERY = 5.0
_BOUNDS = ((Level.ERROR, 64 * 2**20, 20, 100), (Level.WARNING, 2**30, 10, 1_000))
"""From when on it is so: bytes, the share of a smaller disk (1/20, 1/10), files. A worktree with
its packages takes some hundred MiB, and the store needs a few MiB to record how a run ended."""
_ENOUGH = 2
"""It is over once there is twice as much: what hovers at a bound is told once."""
_ADVICE = "`agentmux gc` and `agentmux worktrees prune` remove what is old"


class Disk(Struct, frozen=True):
    """The disk on which `folder` lies, and what a user without privileges can still write to it.

    `free` and `size` are in bytes. `files`: how many more it takes; None where it takes any number.
    """

    folder: Path
    free: int
    size: int
    files: int | None = None

    def shortage(self, slack: int = 1) -> Level | None:
        """Return ERROR if soon nothing can be recorded any more, WARNING if little is left.

        `slack`: with bounds that are so many times higher.
        """
        for level, free, share, files in _BOUNDS:
            if self.free < min(free, self.size // share) * slack:
                return level
            if self.files is not None and self.files < files * slack:
                return level
        return None

    @property
    def name(self) -> str:
        """What an alert of it is about."""
        return clean_text(str(self.folder))

    @property
    def words(self) -> str:
        """What is left, and what to do."""
        if not self.free or self.files == 0:
            return f"the disk of {self.name} is full: nothing can be recorded; {_ADVICE}"
        left = in_bytes(self.free)
        if self.files is not None and self.files < _BOUNDS[-1][-1]:
            left += f" and {plural(self.files, 'more file')}"
        if self.shortage() is Level.ERROR:
            left += ": once it is full, nothing can be recorded any more"
        return f"the disk of {self.name} has room for only {left}; {_ADVICE}"


def disks_of(layout: Layout, project: Path, config: Config) -> tuple[Disk, ...]:
    """Look at the disks of the state folder, of artifacts and of worktrees, at each once.

    A folder that is not there yet stands for the one in which it would be made. A disk that cannot
    be looked at is left out: whoever writes there learns why.
    """
    folders = layout.state, layout.artifacts, place_of(layout, project, config.worktrees).root
    found: dict[int, Disk] = {}
    for folder in folders:
        try:
            there = next(path for path in (folder, *folder.parents) if path.exists())
            device, seen = there.stat().st_dev, os.statvfs(there)
        except OSError:
            continue
        if not seen.f_blocks:  # no disk that has a size, such as some over the network
            continue
        files = seen.f_favail if seen.f_files else None
        unit = seen.f_frsize
        disk = Disk(folder, seen.f_bavail * unit, seen.f_blocks * unit, files)
        found.setdefault(device, disk)
    return tuple(found.values())


class DiskWatch:
    """Looks from time to time, by whichever process watches."""

    def __init__(
        self, *, config: Config, store: Store, lookout: Lookout, layout: Layout, project: Path
    ) -> None:
        self._config = config
        self._store = store
        self._lookout = lookout
        self._layout = layout
        self._project = project
        self._told: dict[str, Level | None] | None = None

    async def watch(self) -> None:
        """Look until cancelled. Raises AgentmuxError: the store does not answer."""
        while True:
            await self.look()
            await asyncio.sleep(_EVERY)

    async def look(self) -> None:
        """Raise an alert for each disk on which it has become worse."""
        disks = await asyncio.to_thread(disks_of, self._layout, self._project, self._config)
        if self._told is None:  # whoever watched before may have told of it
            known = await self._lookout.unacknowledged(AlertKind.DISK)
            self._told = {name: Level.ERROR if error else Level.WARNING for name, error in known}
        told = {disk.name: self._told.get(disk.name) for disk in disks}
        worse = [disk for disk in disks if _rank(disk.shortage()) > _rank(told[disk.name])]
        if worse:
            await self._store.raise_alerts(map(_alert, worse), self._config.alerts.targets)
        # One that could not be looked at just now is no other when it comes back.
        self._told |= {disk.name: _standing(disk, told[disk.name]) for disk in disks}


def _standing(disk: Disk, told: Level | None) -> Level | None:
    """Return what has been told of a disk and is not over."""
    return max(disk.shortage(), min(told, disk.shortage(_ENOUGH), key=_rank), key=_rank)


def _rank(level: Level | None) -> int:
    return (None, Level.WARNING, Level.ERROR).index(level)


def _alert(disk: Disk) -> NewAlert:
    error = disk.shortage() is Level.ERROR
    return NewAlert(AlertKind.DISK, disk.name, disk.words, error=error)
