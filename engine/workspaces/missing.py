"""What of a worktree is not in a tree that was made of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from engine.workspaces import copying
from engine.workspaces.git import last_words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.workspaces.copying import Copy

_GITLINK = "160000"
_LONGEST_PATH = 4000
"""Characters beyond which git cannot be asked for a path."""


def find(copy: Copy, tree: str, head: str | None) -> Iterator[str]:
    """Yield in words what is there and is not in the tree; ignored files do not count."""
    if (copy.path / ".git").is_dir():
        yield "the repository that somebody made in its place, its .git folder"
    for path in copy.large:
        yield f"{path} is larger than {copying.LARGEST // 1_000_000} MB"
    yield from _not_added(copy)
    for path in _closed(copy):
        yield f"what is in the folder {path}, which cannot be opened"
    for path in _repositories(copy, tree, head):
        yield f"{path} is a repository of its own: only its commit's id is in"


def _not_added(copy: Copy) -> Iterator[str]:
    """Yield what still differs from the copy of the index, to which all was added."""
    done = copy.git(
        *("status", "--porcelain=v2", "-z", "--untracked-files=normal", "--no-renames"),
        "--ignore-submodules=none",
    )
    told = {*copy.large, *copy.raw}
    for entry in os.fsdecode(done.out).split("\0"):
        kind, _, rest = entry.partition(" ")
        if kind == "?" and rest not in told:
            yield f"{rest} could not be read"
        elif kind == "1":
            how, inside, _, _, _, _, _, path = rest.split(" ", 7)
            if inside.startswith("S") and inside != "S...":
                yield f"what is uncommitted in the submodule {path}"
            elif how[1] != "." and path not in told:
                yield f"{path} could not be read"
    if done.code != 0:
        yield f"what git does not tell: {last_words(done)}"


def _closed(copy: Copy) -> list[str]:
    """Return the folders that cannot be looked into: git passes them over, and says all is well."""
    closed = list(closed_folders(copy.path))
    if not closed:
        return []
    above = {path: _with_parents(path) for path in closed}
    asked = "".join(f"{name}\0" for name in {name for names in above.values() for name in names})
    # Of a folder whose parent is ignored git knows as much.
    done = copy.git("check-ignore", "-z", "--stdin", given=os.fsencode(asked))
    ignored = set(os.fsdecode(done.out).split("\0"))
    return [path for path, names in above.items() if ignored.isdisjoint(names)]


def _with_parents(path: str) -> list[str]:
    parts = path.split("/")
    ends = ("/".join(parts[:end]) for end in range(1, len(parts) + 1))
    return [f"{name}/" for name in ends if len(os.fsencode(name)) < _LONGEST_PATH]


def closed_folders(folder: Path) -> Iterator[str]:
    """Yield the paths, from `folder`, of all folders in it that cannot be opened or looked into.

    Raises:
        OSError: `folder` itself cannot.

    """
    # Relative paths, as git has them: it can no more open one that is too long.
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        todo = _folders_in(root, ".")
        while todo:
            path = todo.pop()
            try:
                todo += _folders_in(root, path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                yield path
    finally:
        os.close(root)


def _folders_in(root: int, path: str) -> list[str]:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
    try:
        os.stat(".", dir_fd=folder)  # may be read, but not searched: names without files
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    finally:
        os.close(folder)
    return names if path == "." else [f"{path}/{name}" for name in names]


def _repositories(copy: Copy, tree: str, head: str | None) -> Iterator[str]:
    """Yield the paths of repositories in here whose commits may be nowhere else."""
    before = {} if head is None else _links(copy, head)
    based = _links(copy, copy.record.base)
    for path, commit in _links(copy, tree).items():
        if not os.path.lexists(copy.path / path / ".git"):
            continue  # nothing of it is here
        committed = before.get(path) == commit
        if not committed or (based.get(path) != commit and not _is_pushed(copy, path, commit)):
            yield path


def _is_pushed(copy: Copy, path: str, commit: str) -> bool:
    """Say whether a remote of a submodule has a commit: what is here alone goes with it."""
    done = copy.git(
        *("for-each-ref", "--count=1", f"--contains={commit}", "--format=x", "refs/remotes"),
        cwd=copy.path / path,
    )
    return done.code == 0 and done.text != ""


def _links(copy: Copy, tree: str) -> dict[str, str]:
    listed = os.fsdecode(copy.git("ls-tree", "-r", "-z", "--full-tree", tree).out)
    found = {}
    for entry in listed.split("\0"):
        if entry.startswith(_GITLINK):
            facts, _, path = entry.partition("\t")
            found[path] = facts.split(" ")[2]
    return found
