"""Promises about clones of URLs: one goes when it is old and everything in it is elsewhere, too."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from support.clock import ManualClock
from support.engines import ENVIRONMENT
from support.patience import PATIENCE
from support.repositories import ISOLATED, Home, commit, git, refs, repository

from engine.clock import SystemClock
from engine.workspaces import Source, WorkspaceError, clones
from engine.workspaces.bases import base_lock
from engine.workspaces.locking import locked
from engine.workspaces.records import Place

if TYPE_CHECKING:
    from pathlib import Path

    from engine.workspaces import Worktree

OLD = 15 * 86400.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(SystemClock().now())


@pytest.fixture
def home(tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name, value in ISOLATED.items():
        monkeypatch.setenv(name, value)
    return Home(tmp_path, clock)


@pytest.fixture
def remote(home: Home) -> Path:
    bare = home.folder / "remote.git"
    git(home.folder, "clone", "-q", "--bare", repository(home.folder / "origin"), bare)
    return bare


async def made(home: Home, remote: Path) -> Worktree:
    return await home.ensure("t", source=Source(str(remote)))


def left(home: Home) -> list[str]:
    """Return what lies beside the clones, and the clones."""
    return sorted(path.name for path in home.place.bases.iterdir())


async def test_an_old_clone_that_nobody_needs_goes_with_all_that_belongs_to_it(
    home: Home, clock: ManualClock, remote: Path
) -> None:
    tree = await made(home, remote)
    await clock.advance(OLD)
    assert await home.prune_clones() == [], "a worktree belongs to it"
    await home.prune()
    before = left(home)
    (dry,) = await home.prune_clones(dry_run=True)
    assert (dry.removed, dry.url, dry.path) == (True, str(remote), tree.repo)
    assert left(home) == before
    assert await home.prune_clones() == [dry]
    assert left(home) == []
    again = await made(home, remote)
    assert again.repo == tree.repo


async def test_a_young_clone_stays_whatever_is_asked(
    home: Home, clock: ManualClock, remote: Path
) -> None:
    await made(home, remote)
    await home.prune()
    assert await home.prune_clones(days=0) == []
    await clock.advance(2 * 3600)
    assert await home.prune_clones() == []
    assert len(await home.prune_clones(days=0)) == 1


async def test_a_clone_with_a_commit_that_its_remote_lacks_stays_until_it_has_it(
    home: Home, clock: ManualClock, remote: Path
) -> None:
    tree = await made(home, remote)
    commit(tree.path, "work")
    await home.prune()
    await clock.advance(OLD)
    assert await home.prune_clones() == []
    assert list(refs(tree.repo, "refs/heads")) == ["refs/heads/agentmux/t/1"]
    git(tree.repo, "push", "-q", "origin", "agentmux/t/1")
    (gone,) = await home.prune_clones()
    assert gone.removed
    assert "refs/heads/agentmux/t/1" in refs(remote)


@pytest.mark.parametrize("what", ["saved", "stash", "tag"])
async def test_a_clone_that_alone_keeps_something_stays(
    home: Home, clock: ManualClock, remote: Path, what: str
) -> None:
    tree = await made(home, remote)
    (tree.path / "dir0" / "file0").write_text("uncommitted\n")
    if what == "stash":
        git(tree.path, "stash")
    elif what == "tag":
        commit(tree.path, "work")
        git(tree.path, "tag", "kept")
        git(tree.path, "reset", "-q", "--hard", tree.base)
    await home.prune()
    await clock.advance(OLD)
    assert await home.prune_clones() == []
    assert tree.repo.is_dir()


async def test_a_clone_that_other_worktrees_belong_to_stays(
    home: Home, clock: ManualClock, remote: Path
) -> None:
    tree = await made(home, remote)
    await home.prune()
    users = home.folder / "users"
    git(tree.repo, "worktree", "add", "-q", "--detach", users, tree.base)
    await clock.advance(OLD)
    assert await home.prune_clones() == []
    git(tree.repo, "worktree", "remove", users)
    home.place.state.mkdir()
    mine, home.place = home.place, Place(home.place.root, home.folder / "other-state")
    await made(home, remote)
    home.place = mine
    await clock.advance(OLD)
    assert await home.prune_clones() == [], "another state folder has a worktree of it"


async def test_a_clone_stays_where_work_is_to_be_saved_though_git_forgot_the_worktree(
    home: Home, clock: ManualClock, remote: Path
) -> None:
    tree = await made(home, remote)
    (tree.path / "work").write_text("uncommitted\n")
    shutil.rmtree(tree.admin)
    await clock.advance(OLD)
    assert await home.prune_clones() == []
    (gone,) = await home.prune()
    assert list(refs(tree.repo, "refs/agentmux/saved")) == [gone.saved]
    assert await home.prune_clones() == []


async def test_the_clone_of_a_url_that_never_answered_goes_too(
    home: Home, clock: ManualClock
) -> None:
    with pytest.raises(WorkspaceError):
        await home.ensure("t", source=Source(str(home.folder / "nosuch")))
    assert len(left(home)) == 2
    await clock.advance(OLD)
    assert len(await home.prune_clones()) == 1
    assert left(home) == []


async def test_a_clone_that_cannot_be_looked_at_is_told_and_stays(
    home: Home, clock: ManualClock, remote: Path
) -> None:
    tree = await made(home, remote)
    await home.prune()
    (tree.repo / "HEAD").write_text("")
    await clock.advance(OLD)
    (kept,) = await home.prune_clones()
    assert not kept.removed
    assert str(tree.repo) in kept.why
    assert tree.repo.is_dir()
    with pytest.raises(WorkspaceError, match="is damaged; see what is in it") as refusal:
        await made(home, remote)
    assert refusal.value.hopeless


async def test_a_clone_that_is_being_fetched_stays(
    home: Home, clock: ManualClock, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clones, "_PATIENCE", 0.0)
    tree = await made(home, remote)
    await home.prune()
    await clock.advance(OLD)
    with locked(base_lock(tree.repo), threading.Event()):
        (kept,) = await home.prune_clones()
    assert (kept.removed, "held" in kept.why) == (False, True)
    assert tree.repo.is_dir()


async def test_nobody_is_told_the_login_in_a_url(
    home: Home, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    url = "http://user:s3cr@t@127.0.0.1:9/owner/repo.git"
    with pytest.raises(WorkspaceError) as failure:
        await home.ensure(source=Source(url))
    await clock.advance(OLD)
    (gone,) = await home.prune_clones()
    for told in (str(failure.value), gone.url, gone.why, str(gone.path)):
        assert "s3cr" not in told
        assert "t@127" not in told
    assert gone.url == "http://127.0.0.1:9/owner/repo.git"


_DYING = """
import asyncio, os, signal, sys
from datetime import timedelta
from pathlib import Path
from engine.clock import SystemClock
from engine.workspaces import Place, clones, prune_clones

def die(folder, **_options):
    if folder.exists():
        os.kill(os.getpid(), signal.SIGKILL)

clones.shutil.rmtree = die
place, now = Place(Path(sys.argv[1]), Path(sys.argv[2])), SystemClock().now() + timedelta(days=20)
asyncio.run(prune_clones(place, older_than=timedelta(), now=now, dry_run=False))
"""


async def test_killed_while_it_removes_a_clone_the_next_one_clones_or_removes_the_rest(
    home: Home, clock: ManualClock, remote: Path
) -> None:
    tree = await made(home, remote)
    await home.prune()
    dying = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _DYING, home.place.root, home.place.state),
        env=ENVIRONMENT | ISOLATED | {"PATH": os.environ["PATH"]},
    )
    async with asyncio.timeout(PATIENCE):
        assert await dying.wait() == -signal.SIGKILL
    assert left(home) == [f".{tree.repo.stem}.going", base_lock(tree.repo).name]
    assert (await made(home, remote)).repo.is_dir()
    assert [name for name in left(home) if name.startswith(".")] == []
    await home.prune()
    await clock.advance(OLD)
    await home.prune_clones()
    assert left(home) == []
