"""Promises of retention: what is over goes by age and count, its work stays under refs."""

from __future__ import annotations

import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from support.clock import ManualClock
from support.repositories import ISOLATED, Home, a_busy_user, commit, git, repository

from engine.clock import SystemClock
from engine.model import Needed
from engine.workspaces import finished, prune
from engine.workspaces.locking import locked
from engine.workspaces.records import task_lock

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name, value in ISOLATED.items():
        monkeypatch.setenv(name, value)
    return Home(tmp_path, ManualClock(SystemClock().now()))


async def over(home: Home, task: str, run: str) -> Path:
    """Leave a worktree behind whose run is over, a minute after the one before."""
    tree = await home.ensure(task, run=run)
    (tree.path / "work").write_text(f"of {run}\n")
    await finished(home.place, task, run, home.clock)
    assert isinstance(home.clock, ManualClock)
    await home.clock.advance(60)
    return tree.path


async def test_the_newest_stay_and_the_work_in_the_others_is_kept(home: Home) -> None:
    a_busy_user(home.project)
    paths = [await over(home, f"t{n}", f"r{n}") for n in range(4)]
    with home.untouched():
        dry = await home.prune(keep=2, dry_run=True)
        assert [path.is_dir() for path in paths] == [True] * 4
        done = await home.prune(keep=2)
    assert [(one.task, one.removed) for one in dry] == [("t1", True), ("t0", True)]
    assert [(one.task, one.removed, one.saved) for one in done] == [
        ("t1", True, "refs/agentmux/saved/t1/r1"),
        ("t0", True, "refs/agentmux/saved/t0/r0"),
    ]
    assert [path.is_dir() for path in paths] == [False, False, True, True]
    assert not paths[0].parent.exists()
    assert home.worktrees() == set(paths[2:])
    assert git(home.project, "show", "refs/agentmux/saved/t0/r0:work") == "of r0"
    assert home.branches() == {"refs/heads/agentmux/t2/1", "refs/heads/agentmux/t3/1"}
    assert await home.prune(keep=2) == []


async def test_what_is_old_goes_however_few_there_are(home: Home) -> None:
    await over(home, "old", "r1")
    assert isinstance(home.clock, ManualClock)
    await home.clock.advance(15 * 86400)
    await over(home, "young", "r2")
    (gone,) = await home.prune(keep=20)
    assert (gone.task, gone.why) == ("old", "last used 15d ago, limit 14d")
    assert await home.stages() == {("young", 1): "over"}


async def test_a_branch_with_commits_stays_and_the_task_can_go_on_elsewhere(home: Home) -> None:
    path = await over(home, "t", "r1")
    done = commit(path, "work")
    (gone,) = await home.prune()
    assert (gone.removed, gone.branch_removed, gone.saved) == (True, False, None)
    assert git(home.project, "rev-parse", "agentmux/t/1") == done
    assert (await home.ensure("t", run="r2")).branch == "agentmux/t/1.2"


async def test_what_a_run_uses_stays_whatever_its_record_says(home: Home) -> None:
    path = await over(home, "t", "r1")
    home.at_work = {"r1"}
    assert await home.prune(days=-1) == []
    assert path.is_dir()


async def test_where_a_run_is_to_go_on_all_stays_however_many_there_are_until_it_is_old(
    home: Home,
) -> None:
    waits = [await over(home, f"w{n}", f"w{n}") for n in range(3)]
    paths = [await over(home, f"t{n}", f"r{n}") for n in range(3)]
    home.waiting = {"w0", "w1", "w2"}
    assert [one.task for one in await home.prune(keep=2)] == ["t0"]
    assert [path.is_dir() for path in (*waits, *paths)] == [True, True, True, False, True, True]
    assert isinstance(home.clock, ManualClock)
    await home.clock.advance(15 * 86400)
    assert len(await home.prune(keep=20)) == 5
    assert len(home.saved()) == 6, "nothing of it is lost"


async def test_a_worktree_whose_host_died_unnoticed_is_over_once_its_run_is(home: Home) -> None:
    tree = await home.ensure("t", run="r1")
    (gone,) = await home.prune()
    assert (gone.removed, tree.path.exists()) == (True, False)


@pytest.mark.parametrize("noted", [True, False])
async def test_a_run_that_takes_a_worktree_over_meanwhile_keeps_it(
    home: Home, *, noted: bool
) -> None:
    path = await over(home, "t", "r1") if noted else (await home.ensure("t", run="r1")).path

    async def needed(_runs: Iterable[str]) -> Needed:
        await home.ensure("t", run="r2")
        return Needed()  # as if it had been claimed just after the store was asked

    done = await prune(
        home.place, home.project, keep=0, older_than=timedelta(), now=home.clock.now(),
        dry_run=False, needed=needed,
    )  # fmt: skip
    assert done == []
    assert path.is_dir()
    assert await home.stages() == {("t", 1): "ready"}


async def test_a_worktree_that_somebody_works_on_is_told_and_stays(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from engine.workspaces import pruning

    monkeypatch.setattr(pruning, "_PATIENCE", 0.0)
    path = await over(home, "t", "r1")
    with locked(task_lock(home.place, "t"), threading.Event()):
        (kept,) = await home.prune()
    assert not kept.removed
    assert "held" in kept.why
    assert path.is_dir()


async def test_what_cannot_be_saved_stays_and_it_is_said_why(home: Home) -> None:
    path = await over(home, "t", "r1")
    repository(path / "clone")
    (kept,) = await home.prune()
    assert not kept.removed
    assert "clone is a repository of its own" in kept.why
    assert (path / "clone" / ".git").is_dir()


async def test_folders_that_nobody_may_write_to_go_too(home: Home) -> None:
    path = await over(home, "t", "r1")
    (path / ".gitignore").write_text("cache/\n")
    (path / "cache" / "deep").mkdir(parents=True)
    (path / "cache" / "deep" / "file").write_text("read-only\n")
    for folder in (path / "cache" / "deep", path / "cache"):
        folder.chmod(0o500)
    await home.prune()
    assert not path.exists()


async def test_a_link_out_of_a_worktree_leads_nowhere_when_it_goes(home: Home) -> None:
    path = await over(home, "t", "r1")
    precious = home.folder / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine\n")
    (path / "out").symlink_to(precious)
    await home.prune()
    assert not path.exists()
    assert (precious / "file").read_text() == "mine\n"


async def test_a_worktree_that_is_a_link_by_now_loses_the_link_alone(home: Home) -> None:
    path = await over(home, "t", "r1")
    shutil.rmtree(path)
    path.symlink_to(home.project)
    with home.untouched():
        await home.prune()
    assert not path.is_symlink()


async def test_worktrees_of_users_and_strange_folders_stay(home: Home) -> None:
    await over(home, "t", "r1")
    stranger = home.place.root / "stranger" / "1"
    stranger.mkdir(parents=True)
    users = home.place.root / "t" / "mine"
    git(home.project, "worktree", "add", "-q", "-b", "agentmux/mine", users)
    await home.prune()
    assert stranger.is_dir()
    assert (users / "dir0").is_dir()
    assert "refs/heads/agentmux/mine" in home.branches()


async def test_without_a_folder_of_worktrees_there_is_nothing_to_prune(home: Home) -> None:
    assert await home.prune() == []
    assert await home.stages() == {}
    assert not home.place.root.exists()
