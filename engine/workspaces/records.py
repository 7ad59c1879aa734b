"""What we know of each worktree that we made: a small file beside it, written before git acts.

<root>/.gitignore                 says that the folder is ours, and hides it from git
<root>/.bases/<name>.git          bare repositories, one for each URL
<root>/<task>/.lock               who holds it makes, saves or removes worktrees of the task
<root>/<task>/<attempt>/          a worktree
<root>/<task>/<attempt>.json      its record: only what has one is ours
"""

from __future__ import annotations

import json
import os
import re
import stat
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from engine.files import plain_name, read_regular, sync, worktree_folder, write_private
from engine.model import to_json
from engine.workspaces.errors import WorkspaceError, is_lasting, trouble

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.config import WorktreeConfig
    from engine.files import Layout

_MARK = "# agentmux keeps worktrees here: see `agentmux worktrees ls`\n"
_RECORD = re.compile(r"[1-9]\d{0,8}\.json", re.ASCII)


class Stage(StrEnum):
    """How far a worktree is. What is MAKING or REMOVING holds nothing that is not elsewhere."""

    MAKING = "making"
    READY = "ready"
    OVER = "over"
    REMOVING = "removing"


class Place(Struct, frozen=True):
    """Where the worktrees of one state folder lie. Another state folder may share `root`."""

    root: Path
    state: Path

    @property
    def bases(self) -> Path:
        """The bare repositories, and their locks."""
        return self.root / ".bases"

    @property
    def failures(self) -> Path:
        """How many worktrees in a row could not be made."""
        return self.root / ".failures.json"

    def task_folder(self, task_id: str) -> Path:
        """Return the folder of a task's worktrees; not made yet."""
        return self.root / plain_name(task_id)


class Record(Struct, frozen=True, rename="camel"):
    """What is known of one worktree.

    `repo` is the git directory that it belongs to, `admin` its own git directory in there, empty
    until git has made it. `source` is what the task named, without credentials, `wanted` the
    branch that it named. `base` is the commit that `branch` started from, `base_ref` its name,
    `behind` how many commits that was behind its upstream (None: not known). `resumes`: the branch
    was ours before this worktree was made. `saved` are the refs of what was saved.
    """

    task: str
    attempt: int
    run: str
    state_dir: str
    repo: str
    source: str
    wanted: str | None
    branch: str
    base: str
    base_ref: str
    behind: int | None
    made_at: datetime
    used_at: datetime
    stage: Stage
    admin: str = ""
    resumes: bool = False
    saved: tuple[str, ...] = ()


def place_of(layout: Layout, project: Path, settings: WorktreeConfig) -> Place:
    """Return where worktrees lie: a folder that is named counts from the project's."""
    folder = settings.folder
    # Resolved: git tells paths without links, and they are compared; so are state folders.
    root = layout.worktrees
    if folder is not None:
        # Not the method of Path: that raises for a user whom nobody knows.
        root = project / os.path.expanduser(folder)  # noqa: PTH111
    return Place(Path(os.path.realpath(root)), Path(os.path.realpath(layout.state)))


def prepare(place: Place) -> None:
    """Make the folder of worktrees, 0700, with a mark in it that it is ours.

    Raises:
        WorkspaceError: it cannot be made, or is somebody else's.

    """
    root = place.root
    ours = is_marked(place)
    if not ours:
        refuse_gitdir(place)
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not ours and not _mark(place).exists():
            names = os.listdir(root)  # noqa: PTH208 - names
            ours = all(name.startswith(".") and name != ".git" for name in names)
            if ours:
                write_private(_mark(place), f"{_MARK}*\n")
                sync(_mark(place))  # lost to a power cut, nothing in here were ours any more
    except OSError as error:
        raise WorkspaceError(
            f"cannot make {root}: {error.strerror or error}; mend that, or name another folder "
            "under worktrees: folder: in agentmux.yaml, then retry the task",
            hopeless=is_lasting(error),
        ) from error
    # Looked at once more: another of us may have been quicker, and at work in there by now.
    if not ours and not is_marked(place):
        raise WorkspaceError(
            f"{root} is in use by somebody else; name another folder under worktrees: folder: in "
            "agentmux.yaml",
            hopeless=True,
        )


def refuse_gitdir(place: Place) -> None:
    """Refuse a folder within a git directory, as it is beside the state of a bare repository.

    Git takes what lies in its `worktrees/` for its own, and removes it with its next `gc`.

    Raises:
        WorkspaceError: it is one.

    """
    for folder in (place.root, *place.root.parents):
        if (folder / "HEAD").is_file() and (folder / "objects").is_dir():
            raise WorkspaceError(
                f"{place.root} lies within {folder}, a folder of git's own; name another folder "
                "under worktrees: folder: in agentmux.yaml, then retry the task",
                hopeless=True,
            )


def is_marked(place: Place) -> bool:
    """Say whether the folder of worktrees is there and says that it is ours."""
    try:
        return read_regular(_mark(place)).startswith(_MARK)
    except OSError:
        return False


def _mark(place: Place) -> Path:
    return place.root / ".gitignore"


def task_lock(place: Place, task_id: str) -> Path:
    """Return the file whose lock is needed for anything that changes worktrees of a task."""
    return place.task_folder(task_id) / ".lock"


def worktree_path(place: Place, task_id: str, attempt: int) -> Path:
    """Return the folder of a worktree."""
    return worktree_folder(place.root, task_id, attempt)


def record_path(place: Place, task_id: str, attempt: int) -> Path:
    """Return the file of a record."""
    return place.task_folder(task_id) / f"{attempt}.json"


def read(place: Place, task_id: str, attempt: int) -> Record | None:
    """Return the record of a worktree, None if there is none.

    Raises:
        WorkspaceError: it cannot be read, or is another task's or another state folder's.

    """
    path = record_path(place, task_id, attempt)
    record = _read(path)
    if record is None:
        return None
    if (record.task, record.attempt) != (task_id, attempt):
        owner = f"task {record.task!r}"
    elif not _is_ours(place, record):
        owner = f"the state folder {record.state_dir}"
    else:
        return record
    raise WorkspaceError(
        f"{path.with_suffix('')} belongs to {owner}; name another folder under worktrees: folder: "
        "in agentmux.yaml",
        hopeless=True,
    )


def _read(path: Path) -> Record | None:
    try:
        return msgspec.json.decode(read_regular(path), type=Record)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise WorkspaceError(
            f"{path} cannot be read ({error}); move it and {path.with_suffix('')} away",
            hopeless=True,
        ) from error


def write(place: Place, record: Record) -> None:
    """Write a record atomically. Raises WorkspaceError."""
    path = record_path(place, record.task, record.attempt)
    try:
        write_private(path, json.dumps(to_json(record), ensure_ascii=False, indent=1) + "\n")
    except OSError as error:
        raise trouble(f"cannot write {path}", error) from error


def forget(place: Place, record: Record) -> None:
    """Remove a record, and the folder of its task if nothing else is in there; hold its lock."""
    record_path(place, record.task, record.attempt).unlink(missing_ok=True)
    folder = place.task_folder(record.task)
    with suppress(OSError):
        if os.listdir(folder) == [".lock"]:  # noqa: PTH208
            (folder / ".lock").unlink()
            folder.rmdir()


def records(place: Place) -> list[Record]:
    """Return the records of this state folder, by task and attempt; what is none is passed over.

    Raises:
        WorkspaceError: the folder is there and cannot be read.

    """
    ours = (record for record in _all(place) if _is_ours(place, record))
    return sorted(ours, key=lambda record: (record.task, record.attempt))


def repositories(place: Place) -> set[Path]:
    """Return the git directories that worktrees belong to, those of other state folders, too.

    Raises:
        WorkspaceError: as `records`.

    """
    return {Path(record.repo) for record in _all(place)}


def _is_ours(place: Place, record: Record) -> bool:
    """Say whether a record is of this state folder, or of one that is gone: it may have moved."""
    return record.state_dir == str(place.state) or not Path(record.state_dir).exists()


def _all(place: Place) -> list[Record]:
    found: list[Record] = []
    try:
        folders = sorted(place.root.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise WorkspaceError(f"{place.root}: {error.strerror}; mend its permissions") from error
    for folder in folders:
        if not folder.name.startswith(".") and _is_folder(folder):
            found += _records_in(folder)
    return found


def records_of(place: Place, task_id: str) -> list[Record]:
    """Return the records of one task, as `records` does."""
    folder = place.task_folder(task_id)
    found = _records_in(folder) if _is_folder(folder) else []
    return [r for r in found if r.task == task_id and _is_ours(place, r)]


def _records_in(folder: Path) -> Iterator[Record]:
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            if not _RECORD.fullmatch(path.name):
                continue
            with suppress(WorkspaceError):
                record = _read(path)
                # Only in its own place: whoever copies records about makes nothing ours.
                if record is not None and (folder.name, path.stem) == (
                    plain_name(record.task),
                    str(record.attempt),
                ):
                    yield record


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def milliseconds(moment: datetime) -> datetime:
    """Return a moment as files have it."""
    return moment.astimezone(UTC).replace(microsecond=moment.microsecond // 1000 * 1000)
