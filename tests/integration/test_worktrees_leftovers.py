"""Promises about what a killed git or a power cut leaves: the next run can work all the same."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from support.engines import until
from support.patience import PATIENCE
from support.repositories import Home, commit, git, refs, repository, shown

from engine.workspaces import Source, WorkspaceError, Worktree, leftovers, save
from engine.workspaces import git as calls

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def home(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(leftovers, "_MOMENT", 0.01)
    return home


def admin_of(tree: Worktree) -> Path:
    return Path(git(tree.path, "rev-parse", "--absolute-git-dir"))


@pytest.fixture
def working() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Gits that are at work until the test is over."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.communicate(timeout=PATIENCE)


def a_git_at_work(folder: Path) -> subprocess.Popen[bytes]:
    """Start a git that waits for its input until that is closed."""
    process = subprocess.Popen(
        ["git", "cat-file", "--batch-check"],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"HEAD\n")
    process.stdin.flush()
    assert b"commit" in process.stdout.readline(), "it is there, under its own name"
    return process


async def test_the_next_run_can_commit_where_a_killed_git_left_its_locks(home: Home) -> None:
    tree = await home.ensure("t", run="r1")
    locks = [admin_of(tree) / "index.lock", admin_of(tree) / "HEAD.lock"]
    locks.append(home.project / ".git" / "refs" / "heads" / "agentmux" / "t" / "1.lock")
    for lock in locks:
        lock.touch()
    (tree.path / "work").write_text("work\n")
    again = await home.ensure("t", run="r2")
    assert not again.made
    assert [lock.exists() for lock in locks] == [False] * 3
    commit(again.path, "it can")
    assert git(home.project, "show", "agentmux/t/1:work") == "work"


async def test_locks_of_the_users_repository_are_his(home: Home) -> None:
    await home.ensure("t", run="r1")
    theirs = [home.project / ".git" / f"{name}.lock" for name in ("index", "config", "HEAD")]
    theirs.append(home.project / ".git" / "refs" / "heads" / "main.lock")
    for lock in theirs:
        lock.touch()
    await home.ensure("t", run="r2")
    assert all(lock.exists() for lock in theirs)


async def test_the_lock_of_a_git_that_is_at_work_stays(
    home: Home, working: list[subprocess.Popen[bytes]]
) -> None:
    tree = await home.ensure("t", run="r1")
    lock = admin_of(tree) / "index.lock"
    lock.touch()
    working.append(a_git_at_work(tree.path / "dir0"))
    await home.ensure("t", run="r2")
    assert lock.exists()
    working[0].communicate(timeout=PATIENCE)
    await home.ensure("t", run="r3")
    assert not lock.exists()


async def test_a_lock_on_the_branch_to_be_made_is_taken_away_unless_a_git_is_at_work(
    home: Home, working: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.workspaces.making._PAUSES", (0.01,))
    lock = home.project / ".git" / "refs" / "heads" / "agentmux" / "t" / "1.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    working.append(a_git_at_work(home.project))
    with pytest.raises(WorkspaceError, match="another git holds a lock") as failure:
        await home.ensure("t")
    assert not failure.value.hopeless
    assert lock.exists()
    working[0].communicate(timeout=PATIENCE)
    assert (await home.ensure("t")).branch == "agentmux/t/1"


async def test_a_lock_that_a_killed_save_left_is_in_nobodys_way(home: Home) -> None:
    tree = await home.ensure("t", run="r")
    (tree.path / "work").write_text("work\n")
    lock = home.project / ".git" / "refs" / "agentmux" / "saved" / "t" / "r.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    assert shown(home.project, await save(tree, "r"), "work") == "work"
    assert not lock.exists()


async def test_locks_that_a_killed_fetch_left_are_in_nobodys_way(home: Home) -> None:
    remote = repository(home.folder / "remote")
    first = await home.ensure("t", source=Source(str(remote)))
    locks = [first.repo / "refs" / "remotes" / "origin" / "main.lock"]
    locks.append(first.repo / "packed-refs.lock")
    later = commit(remote, "later")
    for lock in locks:
        lock.touch()
    assert (await home.ensure("u", source=Source(str(remote)))).base == later
    assert [lock.exists() for lock in locks] == [False, False]


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"DIRC" + bytes(40)])
async def test_with_an_index_that_a_power_cut_left_as_garbage_work_is_saved_and_goes_on(
    home: Home, garbage: bytes
) -> None:
    tree = await home.ensure("t", run="r1")
    (tree.path / "dir0" / "file0").write_text("changed\n")
    (tree.path / "work").write_text("work\n")
    index = admin_of(tree) / "index"
    index.write_bytes(garbage)
    saved = await save(tree, "r1")
    assert shown(home.project, saved, "dir0/file0") == "changed"
    assert shown(home.project, saved, "work") == "work"
    assert index.read_bytes() == garbage, "saving changes nothing in there"
    again = await home.ensure("t", run="r2")
    assert not again.made
    assert git(again.path, "status", "--porcelain").split("\n") == [" M dir0/file0", "?? work"]


async def test_a_git_that_takes_its_time_is_given_all_of_its_input(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = await home.ensure("t", run="r")
    monkeypatch.setattr(calls, "_LOOKS", 0.0001)  # each call takes many looks now
    (tree.path / "work").write_text("work\n")
    assert shown(home.project, await save(tree, "r"), "work") == "work"
    given = b"".join(b"%040d\n" % number for number in range(20_000))  # more than a pipe holds
    asked = calls.Git(threading.Event())(
        "cat-file", "--batch-check", repo=tree.repo, cwd=tree.path, given=given
    )
    assert asked.out.count(b" missing\n") == 20_000
    assert refs(home.project, "refs/agentmux") != {}


async def test_a_daemon_that_a_git_leaves_behind_holds_nobody_up(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_GRACE", 0.1)
    noted = home.folder / "daemon"
    alias = f"alias.leave=!f() {{ sh -c 'echo $$ >{noted}; exec sleep 300' & echo said; }}; f"
    told = calls.Git(threading.Event())("leave", cwd=home.project, settings=(alias,))
    await until(lambda: noted.exists() and noted.read_text(), "it is there")
    daemon = psutil.Process(int(noted.read_text()))
    assert daemon.is_running()
    daemon.kill()
    assert (told.code, told.out) == (0, b"said\n")
