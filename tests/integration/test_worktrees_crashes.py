"""Promises about death at any moment: whoever comes next finds order, or makes it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.engines import ENVIRONMENT, until
from support.patience import PATIENCE
from support.repositories import ISOLATED, Home, a_busy_user, commit, git, refs, repository

from engine.workspaces import Source, finished

_TESTS = Path(__file__).parents[1]
_PROGRAM = """
import asyncio, os, signal, sys
from datetime import timedelta
from pathlib import Path
from engine.clock import SystemClock
from engine.model import Needed
from engine.workspaces import *
from engine.workspaces import bases, copying, git, making, records, removing, saving

steps, last = 0, int(sys.argv[1])

def step():
    global steps
    steps += 1
    if steps == last:
        os.kill(os.getpid(), signal.SIGKILL)

def stepping(of, name):
    "Let there be a moment to die in after every call of a function, and so before the next."
    real = getattr(of, name)
    def stepped(*arguments, **options):
        result = real(*arguments, **options)
        step()
        return result
    setattr(of, name, stepped)

for of, name in (
    (git.Git, "run"), (records, "write_private"), (bases, "write_private"),
    (removing, "_remove_tree"), (removing, "set_aside"), (records, "forget"),
    (saving.Path, "rename"), (copying.shutil, "copy2"),
):
    stepping(of, name)

async def nobody(_runs):
    return Needed()

project, root = Path(sys.argv[2]), Path(sys.argv[3])
place, clock = Place(root, project / "state"), SystemClock()
source = Source(sys.argv[5] or None)

async def main():
    if sys.argv[4] == "prune":
        await prune(place, project, keep=0, older_than=timedelta(), now=clock.now(), dry_run=False,
                    needed=nobody)
    else:
        await ensure_worktree(place, source, project, "t", 1, "dying", clock)

asyncio.run(main())
print(steps)
"""

_MAKER = """
import asyncio, sys
from pathlib import Path
from engine.clock import SystemClock
from engine.workspaces import *
async def main():
    project, root, n = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    place, clock = Place(root, project / "state"), SystemClock()
    await asyncio.gather(*(
        ensure_worktree(place, Source(), project, f"t{n}.{i}", 1, f"r{n}{i}", clock)
        for i in range(4)
    ), *(ensure_worktree(place, Source(), project, "shared", 1, f"s{n}{i}", clock)
        for i in range(2)))
asyncio.run(main())
"""


@pytest.fixture
def home(home: Home) -> Home:
    a_busy_user(home.project)
    return home


def dying(home: Home, at: int, act: str, url: str = "") -> subprocess.Popen[str]:
    """Start a process that is killed at its `at`th step, or says how many it took."""
    return subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(at), home.project, home.place.root, act, url],
        env=ENVIRONMENT | ISOLATED | {"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def died(home: Home, at: int, act: str, url: str = "") -> bool:
    """Say whether it came to that step."""
    process = dying(home, at, act, url)
    out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode in {0, -signal.SIGKILL}, errors
    assert process.returncode or int(out) < at
    return process.returncode != 0


async def orderly(home: Home, url: str = "") -> None:
    """Assert that the next one gets a worktree that is as it should be, and no trace is left."""
    tree = await home.ensure("t", run="next", source=Source(url or None))
    assert git(tree.path, "status", "--porcelain", "--branch") == f"## {tree.branch}"
    listed = git(tree.path, "worktree", "list", "--porcelain")
    assert listed.count(f"worktree {tree.path}\n") == 1
    assert "initializing" not in listed
    assert list(home.place.root.glob(".saving-*/x")) == []
    await finished(home.place, "t", "next", home.clock)


async def clean(home: Home) -> None:
    await home.prune()
    for ref in refs(home.project, "refs/heads/agentmux"):
        git(home.project, "update-ref", "-d", ref)
    assert home.worktrees() == set()


async def test_killed_at_any_step_of_making_it_the_next_one_gets_its_own(home: Home) -> None:
    at = 0
    with home.untouched():
        while died(home, at := at + 1, "ensure"):
            await orderly(home)
            assert home.branches() == {"refs/heads/agentmux/t/1"}
            await clean(home)
    assert at > 4


async def test_a_branch_that_a_user_made_after_the_crash_is_not_taken_for_ours(home: Home) -> None:
    at = 1
    while died(home, at, "ensure") and await home.stages() != {("t", 1): "making"}:
        at += 1
    assert home.branches() == set()
    git(home.project, "branch", "agentmux/t/1")
    with home.untouched():
        tree = await home.ensure("t", run="next")
    assert tree.branch == "agentmux/t/1.2"
    assert "refs/heads/agentmux/t/1" in home.branches()


async def test_killed_at_any_step_of_replacing_it_no_work_is_lost(home: Home) -> None:
    at = 0
    with home.untouched():
        while True:
            tree = await home.ensure("t", run=f"r{at}")
            done = commit(tree.path, f"work {at}")
            (tree.path / "work").write_text(f"uncommitted {at}\n")
            admin = Path(git(tree.path, "rev-parse", "--absolute-git-dir"))
            (admin / "gitdir").unlink()  # git takes it for none any more
            if not died(home, at := at + 1, "ensure"):
                break
            await orderly(home)
            saved = [git(home.project, "show", f"{ref}:work") for ref in home.saved()]
            assert f"uncommitted {at - 1}" in saved
            assert git(home.project, "branch", "--contains", done) != ""
            await clean(home)
    assert at > 10


async def test_killed_at_any_step_of_a_first_clone_the_next_one_clones(home: Home) -> None:
    remote, at = repository(home.folder / "remote"), 0
    while True:
        url = f"{remote}/{'./' * at}.git"  # another one for us each time
        if not died(home, at := at + 1, "ensure", url):
            break
        await orderly(home, url)
        await clean(home)
        assert len(list(home.place.bases.glob(".*"))) == 0
    assert at > 10


async def test_killed_at_any_step_of_pruning_the_next_one_prunes_the_rest(home: Home) -> None:
    at = 0
    with home.untouched():
        while True:
            tree = await home.ensure("t", run=f"r{at}")
            (tree.path / "work").write_text(f"uncommitted {at}\n")
            await finished(home.place, "t", tree.run, home.clock)
            if not died(home, at := at + 1, "prune"):
                break
            await home.prune()
            assert not tree.path.parent.exists()
            assert (home.worktrees(), home.branches()) == (set(), set())
            (ref,) = home.saved()
            assert ref == f"refs/agentmux/saved/t/r{at - 1}"
            assert git(home.project, "show", f"{ref}:work") == f"uncommitted {at - 1}"
            git(home.project, "update-ref", "-d", ref)
    assert at > 10


def slow_checkout(home: Home) -> tuple[Path, Path]:
    """Let a checkout stop in its midst; return what it makes then, and what it waits for."""
    began, go = home.folder / "began", home.folder / "go"
    (home.project / ".gitattributes").write_text("slow filter=slow\n")
    (home.project / "slow").write_text("slow\n")
    commit(home.project, "slow")
    waits = f"touch {began}; for n in $(seq 1000); do [ -e {go} ] || sleep 0.02; done; cat"
    git(home.project, "config", "filter.slow.smudge", waits)
    return began, go


def gits(home: Home) -> list[int]:
    """Return the processes that make a worktree here."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(home.place.root).encode() in words and b"git" in words.split(b"\0")[0]:
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks for git in /proc")
async def test_a_git_that_outlives_its_maker_is_waited_for(home: Home) -> None:
    began, go = slow_checkout(home)
    with dying(home, 0, "ensure") as process:
        await until(began.exists, "git checks out")
        process.kill()
    assert gits(home)
    following = asyncio.create_task(home.ensure("t", run="next"))
    await asyncio.wait({following}, timeout=0.3)
    assert not following.done(), "it would be two in one folder"
    go.touch()
    tree = await following
    assert tree.made
    assert gits(home) == []
    assert git(tree.path, "status", "--porcelain") == ""


@pytest.mark.skipif(sys.platform != "linux", reason="looks for git in /proc")
async def test_what_a_killed_git_left_is_replaced(home: Home) -> None:
    began, go = slow_checkout(home)
    with dying(home, 0, "ensure") as process:
        await until(began.exists, "git checks out")
        for pid in (process.pid, *gits(home)):
            os.kill(pid, signal.SIGKILL)
    # Its child goes on for a moment: who holds the lock with it is waited for.
    assert "locked agentmux t dying" in git(home.project, "worktree", "list", "--porcelain")
    go.touch()
    with home.untouched():
        await orderly(home)
    assert home.branches() == {"refs/heads/agentmux/t/1"}


async def test_cancelled_in_the_midst_it_leaves_nothing_behind(home: Home) -> None:
    began, _ = slow_checkout(home)
    with home.untouched():
        making = asyncio.create_task(home.ensure("t"))
        await until(began.exists, "git checks out")
        begun = time.monotonic()
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        assert time.monotonic() - begun < 5
        assert (home.worktrees(), home.branches()) == (set(), set())
    assert gits(home) == [] or sys.platform != "linux"
    assert await home.stages() == {}
    assert list(home.place.root.glob("[!.]*")) == []


async def test_a_failed_checkout_leaves_no_branch_behind(home: Home) -> None:
    slow_checkout(home)
    git(home.project, "config", "filter.slow.clean", "cat")
    git(home.project, "config", "filter.slow.smudge", "false")
    git(home.project, "config", "filter.slow.required", "true")
    from engine.workspaces import WorkspaceError

    with home.untouched(), pytest.raises(WorkspaceError, match="smudge filter slow failed"):
        await home.ensure("t")
    assert (home.worktrees(), home.branches()) == (set(), set())
    assert await home.stages() == {}


def maker(home: Home, number: int) -> subprocess.Popen[str]:
    """Start a process that makes four worktrees of its own and one that others make, too."""
    return subprocess.Popen(
        [sys.executable, "-c", _MAKER, home.project, home.place.root, str(number)],
        env=ENVIRONMENT | ISOLATED | {"PATH": os.environ["PATH"]},
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_processes_at_work_in_one_repository_do_not_hinder_each_other(home: Home) -> None:
    with home.untouched():
        processes = [maker(home, number) for number in range(3)]
        for process in processes:
            _, errors = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
            assert process.returncode == 0, errors
    assert len(home.worktrees()) == len(home.branches()) == 13
    assert set((await home.stages()).values()) == {"ready"}
