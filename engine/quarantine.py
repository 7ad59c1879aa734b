"""What must not stay where it is, and must not be lost: moved aside, each time into a new folder.

The one place that moves files to state/quarantine/<UTC stamp>/ (what is damaged) and to
state/backup/<UTC stamp>/ (what was replaced for good). Nothing is deleted or overwritten here, and
nothing here knows what the files are.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from engine.clock import to_stamp
from engine.files import sync

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from engine.files import Layout


class Aside:
    """One folder `root`/<UTC stamp>, made when the first file is put there.

    Everything may raise OSError as the file system has it; then the file is where it was.
    """

    def __init__(self, root: Path, now: datetime) -> None:
        self._root = root
        self._stamp = to_stamp(now)
        self._folder: Path | None = None

    @property
    def used(self) -> bool:
        """Whether the folder was made."""
        return self._folder is not None

    @property
    def folder(self) -> Path:
        """The folder; made at the first call, 0700, and never one that was there before."""
        if self._folder is None:
            self._root.mkdir(mode=0o700, exist_ok=True)
            self._folder = _new_folder(self._root, self._stamp)
            sync(self._root)
        return self._folder

    def take(self, path: Path, name: str | None = None) -> Path | None:
        """Move a file (or a folder, or a link as such) here; return where it is now.

        None: it is not there. `name` is what it is called from now on, if that is not its own
        name; one that is taken gets a number.
        """
        if not os.path.lexists(path):
            return None
        place = _free(self.folder, name or path.name)
        try:
            path.rename(place)
        except FileNotFoundError:
            return None
        return place

    def sync(self) -> None:
        """Make what was moved here durable, whatever becomes of the machine."""
        if self._folder is not None:
            sync(self._folder)


def quarantine(layout: Layout, now: datetime) -> Aside:
    """Return a new folder for what is damaged."""
    return Aside(layout.quarantine, now)


def backup(layout: Layout, now: datetime) -> Aside:
    """Return a new folder for what is replaced for good."""
    return Aside(layout.backup, now)


def _new_folder(root: Path, stamp: str) -> Path:
    number = 1
    while True:
        folder = root / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            number += 1
        else:
            return folder


def _free(folder: Path, name: str) -> Path:
    number, place = 1, folder / name
    while os.path.lexists(place):
        number += 1
        place = folder / f"{name}.{number}"
    return place
