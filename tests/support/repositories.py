"""Real repositories, as a user has them: what is in them, and whether anything of it changed."""

from __future__ import annotations

import hashlib
import os
import subprocess
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from engine.clock import SystemClock
from engine.model import Needed
from engine.workspaces import (
    Place,
    Saved,
    Source,
    Worktree,
    ensure_worktree,
    list_worktrees,
    prune,
    prune_clones,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from engine.clock import Clock
    from engine.workspaces import Clone, Pruned

_PERSON = {
    "GIT_AUTHOR_NAME": "A User",
    "GIT_AUTHOR_EMAIL": "user@example.com",
    "GIT_COMMITTER_NAME": "A User",
    "GIT_COMMITTER_EMAIL": "user@example.com",
}
ISOLATED = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "LC_ALL": "C",
}
"""No settings of this machine's user; set for the whole test, see the fixture `home`."""


def git(folder: Path, *arguments: object, fails: bool = False) -> str:
    """Call git as a user would; return what it said."""
    done = subprocess.run(
        ["git", *map(str, arguments)],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | ISOLATED | _PERSON,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=60,
        check=False,
    )
    assert fails or done.returncode == 0, done
    return done.stdout.rstrip("\n")


def repository(folder: Path, files: int = 3) -> Path:
    """Make a repository with one commit on its branch main."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    for number in range(files):
        file = folder / f"dir{number % 10}" / f"file{number}"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"content {number}\n" * 20)
    commit(folder, "one")
    return folder


def commit(folder: Path, message: str) -> str:
    """Commit all that is there; return the commit."""
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")


class Home:
    """A project of a user: a repository with work in progress, and where its worktrees lie."""

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self.folder = Path(os.path.realpath(folder))
        self.project = repository(self.folder / "project")
        self.place = Place(self.project / "worktrees", self.project / "state")
        self.clock = clock or SystemClock()
        self.at_work: set[str] = set()
        self.waiting: set[str] = set()

    async def ensure(
        self,
        task: str = "impl:a",
        attempt: int = 1,
        run: str = "run1",
        source: Source | None = None,
        after: Collection[str] | None = None,
    ) -> Worktree:
        return await ensure_worktree(
            self.place,
            source or Source(),
            self.project,
            task,
            attempt,
            run,
            self.clock,
            after=after,
            needed=self.needed,
        )

    async def needed(self, _runs: Iterable[str]) -> Needed:
        return Needed(frozenset(self.at_work), frozenset(self.waiting))

    async def prune(
        self, *, keep: int = 0, days: float = 14, dry_run: bool = False
    ) -> list[Pruned]:
        return await prune(
            self.place,
            self.project,
            keep=keep,
            older_than=timedelta(days=days),
            now=self.clock.now(),
            dry_run=dry_run,
            needed=self.needed,
        )

    async def prune_clones(self, *, days: float = 14, dry_run: bool = False) -> list[Clone]:
        now, older_than = self.clock.now(), timedelta(days=days)
        return await prune_clones(self.place, older_than=older_than, now=now, dry_run=dry_run)

    async def stages(self) -> dict[tuple[str, int], str]:
        found = await list_worktrees(self.place)
        return {(record.task, record.attempt): record.stage.value for record in found}

    def branches(self) -> set[str]:
        """Our branches."""
        return set(refs(self.project, "refs/heads/agentmux"))

    def saved(self) -> dict[str, str]:
        """What was saved: refs and commits."""
        return refs(self.project, "refs/agentmux/saved")

    def worktrees(self) -> set[Path]:
        """The worktrees of ours that git knows of."""
        listed = git(self.project, "worktree", "list", "--porcelain").splitlines()
        paths = {Path(line.split(" ", 1)[1]) for line in listed if line.startswith("worktree ")}
        return {path for path in paths if path.is_relative_to(self.place.root)}

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Assert that nothing of the user's changes meanwhile."""
        before = belongings(self.project)
        yield
        after = belongings(self.project)
        assert after == before
        assert git(self.project, "fsck", "--strict", "--no-dangling", "--no-progress") == ""


def a_busy_user(project: Path) -> None:
    """Let there be all that a user may have in a repository besides commits."""
    git(project, "branch", "feature")
    git(project, "tag", "v1")
    git(project, "config", "user.name", "A User")
    (project / "dir0" / "file0").write_text("stashed\n")
    git(project, "stash")
    (project / "dir1" / "file1").write_text("staged\n")
    git(project, "add", "-A")
    (project / "dir1" / "file1").write_text("changed\n")
    (project / "untracked").write_text("untracked\n")
    other = project.parent / "users-worktree"
    git(project, "worktree", "add", "-q", "-b", "users", other)
    (other / "untracked").write_text("of another worktree\n")


def refs(repo: Path, below: str = "refs") -> dict[str, str]:
    listed = git(repo, "for-each-ref", "--format=%(refname) %(objectname)", below).splitlines()
    return dict(line.split(" ") for line in listed)


def belongings(project: Path) -> dict[str, object]:
    """All of a user's in and around a repository: content, not times."""
    common = project / ".git"
    found: dict[str, object] = {
        name: value
        for name, value in refs(project).items()
        if not name.startswith(("refs/heads/agentmux/", "refs/agentmux/"))
    }
    for name in ("HEAD", "index", "config", "logs/HEAD", "logs/refs/stash"):
        found[name] = _digest(common / name)
    found["stash"] = git(project, "stash", "list")
    found["hooks"] = sorted(path.name for path in common.glob("hooks/*"))
    found["files"] = contents(project, but={"worktrees", ".git"})
    other = project.parent / "users-worktree"
    if other.exists():
        found["other"] = contents(other)
        found["others index"] = _digest(common / "worktrees/users-worktree/index")
    status = git(project, "--no-optional-locks", "status", "--porcelain").splitlines()
    assert not [line for line in status if "worktrees" in line], "it shows in the user's status"
    found["status"] = status
    return found


def contents(folder: Path, but: Collection[str] = ()) -> dict[str, str | None]:
    return {
        str(path.relative_to(folder)): _digest(path)
        for path in sorted(folder.rglob("*"))
        if path.relative_to(folder).parts[0] not in but
    }


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def shown(repo: Path, saved: Saved | None, path: str) -> str:
    """Return a file as it was saved."""
    assert saved is not None
    return git(repo, "show", f"{saved.ref}:{path}")
