"""A worktree as it stands, written as trees through a copy of its index.

The worktree's own index, its HEAD and its files stay as they are, so this may be done at any time,
in the midst of a merge, too. `git stash` would fail there, and leave out what is untracked.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engine.workspaces.errors import WorkspaceError
from engine.workspaces.git import Done, Git, last_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.workspaces.records import Record

LARGEST = 200_000_000
"""Bytes of an untracked file beyond which it is not saved, and told as missing."""
LONGEST = 600.0
"""Seconds that all of a save may take: a run's end waits for it."""
FILTERED = 30.0
"""Seconds that adding all may take with the filters of the repository; then it is done without."""

_SETTINGS = (
    "core.splitIndex=false",  # a shared index would be written into the git directory
    "core.untrackedCache=false",
    "core.safecrlf=false",
    "core.looseCompression=0",
    "advice.addEmbeddedRepo=false",
    "core.logAllRefUpdates=false",
)
_NO_FILTER = {"clean": "", "process": "", "required": "false"}
_ENCODING = "working-tree-encoding"


class Copy:
    """A copy of a worktree's index, to which all that is there is added.

    `admin` is the worktree's git directory, None if it is lost. `folder` is for the copy. `large`
    are the untracked files that were left out for their size, `raw` those that are in as they lie
    there, for git can make nothing of them: an encoding that they do not have. Paths are as
    os.fsdecode gives them.
    """

    def __init__(
        self, git: Git, record: Record, path: Path, admin: Path | None, folder: Path
    ) -> None:
        self.record = record
        self.path = path
        self.admin = admin
        self.large: tuple[str, ...] = ()
        self.raw: frozenset[str] = frozenset()
        self._call = git
        self._index = folder / "index"
        self._staged = folder / "staged"
        self._until = time.monotonic() + LONGEST
        self._variables: dict[str, str] = {}

    def git(
        self,
        *arguments: str | Path,
        given: bytes = b"",
        limit: float = LONGEST,
        cwd: Path | None = None,
        index: Path | None = None,
        variables: dict[str, str] | None = None,
    ) -> Done:
        """Call git for the worktree with the copy of its index, or in `cwd` as it stands there.

        Raises:
            WorkspaceError: it took longer than `limit` seconds, or all did than LONGEST.

        """
        left = self._until - time.monotonic()
        if left <= 0:
            raise self.trouble(f"that was not through after {LONGEST:.0f} s")
        more = {"GIT_INDEX_FILE": str(index or self._index)} if cwd is None else {}
        return self._call(
            *arguments,
            repo=(self.admin or self.repo) if cwd is None else None,
            tree=self.path if cwd is None else None,
            cwd=cwd or self.path,
            variables=more | self._variables | (variables or {}),
            settings=_SETTINGS,
            given=given,
            timeout=min(limit, left),
        )

    def must(
        self, *arguments: str | Path, given: bytes = b"", variables: dict[str, str] | None = None
    ) -> str:
        """Call git as `git` does and return what it says. Raises WorkspaceError if it complains."""
        done = self.git(*arguments, given=given, variables=variables)
        if done.code != 0:
            raise self.trouble(last_words(done))
        return done.text

    def trouble(self, why: str) -> WorkspaceError:
        """Return the error that says why nothing was saved."""
        return WorkspaceError(
            f"cannot save what is uncommitted in {self.path}: {why}; it is still there"
        )

    @property
    def repo(self) -> Path:
        """The git directory that the worktree belongs to."""
        return Path(self.record.repo)

    def begin(self, head: str | None) -> str | None:
        """Copy the index; return the tree that was staged, None if there is none.

        The copy knows which files are unchanged, which were added though ignored, which are not
        checked out. It keeps the index's time: with a younger one git would take files that were
        changed within the second of the last `git add` for unchanged (see racy-git in git's
        documentation). Garbage is left out: git makes no index durable, so a power cut may leave
        some.
        """
        own = self.admin / "index" if self.admin else None
        if own is not None and own.exists():
            shutil.copy2(own, self._index)
            listed = self.git("ls-files", "-v", "-z")
            if listed.code == 0:
                shutil.copy2(own, self._staged)
                self._see_all(listed.out)
                return self._staged_tree()
            self._index.unlink()
        if head is not None:
            self.must("read-tree", head)
        return None

    def _see_all(self, entries: bytes) -> None:
        """Have git look at files that it was told not to look at, if they are there.

        `entries` are those of the index, as `git ls-files -v -z` lists them.
        """
        assumed, skipped = [], []
        for entry in entries.split(b"\0"):
            tag, path = entry[:1], entry[2:]
            if tag.islower():
                assumed.append(path)
            if tag in {b"S", b"s"} and os.path.lexists(os.fsencode(self.path) + b"/" + path):
                skipped.append(path)
        for option, paths in (("--no-assume-unchanged", assumed), ("--no-skip-worktree", skipped)):
            if paths:
                self.git("update-index", option, "-z", "--stdin", given=b"\0".join(paths) + b"\0")

    def _staged_tree(self) -> str | None:
        """Write what was staged as a tree, without the files that are in conflict."""
        done = self.git("write-tree", index=self._staged)
        if done.code != 0:
            listed = self.git("ls-files", "-u", "-z", index=self._staged).out.split(b"\0")
            paths = b"".join({entry.partition(b"\t")[2] + b"\0" for entry in listed if entry})
            remove = ("update-index", "--force-remove", "-z", "--stdin")
            self.git(*remove, index=self._staged, given=paths)
            done = self.git("write-tree", index=self._staged)
        return done.text if done.code == 0 else None

    def add_all(self) -> str:
        """Add all that is there; return the tree of it.

        Raises:
            WorkspaceError: git cannot.

        """
        self.large = tuple(self._too_large())
        done = self._add(FILTERED)
        if done.code == 1:
            # A file changed, or went, while it was being read: that rarely happens twice.
            done = self._add(FILTERED)
        if done.code not in {0, 1}:
            # One file that a filter chokes on keeps all others out.
            self._turn_filters_off()
            done = self._add()
        if done.code not in {0, 1}:
            encoded = self._encoded()
            done = self._add(but=encoded)
            self.raw = frozenset(path for path in encoded if self._add_raw(path))
        if done.code not in {0, 1}:
            raise self.trouble(last_words(done))
        return self.must("write-tree")

    def _add(self, limit: float = LONGEST, but: tuple[str, ...] = ()) -> Done:
        left_out = (f":(exclude,top,literal){path}\0" for path in (*self.large, *but))
        paths = os.fsencode("".join([":(top)\0", *left_out]))
        try:
            return self.git(
                *("add", "--all", "--sparse", "--ignore-errors"),
                *("--pathspec-from-file=-", "--pathspec-file-nul"),
                given=paths,
                limit=limit,
            )
        except WorkspaceError as error:
            if limit == LONGEST:
                raise
            return Done(-1, b"", str(error))

    def _too_large(self) -> Iterator[str]:
        listed = os.fsdecode(self.git("ls-files", "-z", "--others", "--exclude-standard").out)
        for path in filter(None, listed.split("\0")):
            try:
                size = (self.path / path).lstat().st_size
            except OSError:
                continue
            if size > LARGEST and not path.endswith("/"):
                yield path

    def _turn_filters_off(self) -> None:
        """Take files as they lie there from now on, unless it is their ends of lines."""
        self._index.with_name(f"{self._index.name}.lock").unlink(missing_ok=True)
        listed = self.git("config", "-z", "--name-only", "--get-regexp", r"^filter\.")
        drivers = {name.rpartition(".")[0] for name in os.fsdecode(listed.out).split("\0") if name}
        for driver in drivers:
            for name, value in _NO_FILTER.items():
                number = int(self._variables.get("GIT_CONFIG_COUNT", "0"))
                # Not by -c: a driver may have any name.
                self._variables |= {
                    f"GIT_CONFIG_KEY_{number}": f"{driver}.{name}",
                    f"GIT_CONFIG_VALUE_{number}": value,
                    "GIT_CONFIG_COUNT": str(number + 1),
                }

    def _encoded(self) -> tuple[str, ...]:
        """Return the changed files which the repository says are in some encoding."""
        changed = self.git("ls-files", "-z", "-m", "-o", "--exclude-standard").out
        told = self.git("check-attr", "-z", "--stdin", _ENCODING, given=changed)
        fields = os.fsdecode(told.out).split("\0")
        values = zip(fields[::3], fields[2::3], strict=False)
        found = {path for path, value in values if value not in {"unspecified", "unset"}}
        return tuple(found - set(self.large))

    def _add_raw(self, path: str) -> bool:
        """Add a file as it lies there; say whether it is in."""
        try:
            mode = (self.path / path).lstat().st_mode
        except OSError:
            return False
        if not stat.S_ISREG(mode):
            return False
        done = self.git("hash-object", "-w", "--no-filters", "--", path)
        if done.code != 0:
            return False
        entry = f"{'100755' if mode & stat.S_IXUSR else '100644'} {done.text}\t{path}\0"
        put = self.git("update-index", "-z", "--index-info", given=os.fsencode(entry))
        return put.code == 0
