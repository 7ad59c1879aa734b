"""Promises about worktrees that somebody removed by hand: what git has of them hinders nobody."""

from __future__ import annotations

import shutil

import pytest
from support.repositories import Home, a_busy_user, commit, git, repository

from engine.workspaces import Source, WorkspaceError


async def test_after_all_worktrees_were_removed_by_hand_the_next_is_made_as_the_first_was(
    home: Home,
) -> None:
    a_busy_user(home.project)
    first = await home.ensure("odd one", run="r1")
    worked = await home.ensure("worked", run="r2")
    done = commit(worked.path, "work")
    shutil.rmtree(home.place.root)
    with home.untouched():
        again = await home.ensure("odd one", run="r3", after=())
        other = await home.ensure("worked", run="r4", after=())
    assert (again.made, again.path, again.branch) == (True, first.path, first.branch)
    assert other.branch == "agentmux/worked/1.2", "the branch with commits stays"
    assert git(home.project, "rev-parse", "agentmux/worked/1") == done
    assert home.worktrees() == {again.path, other.path}


async def test_what_is_left_of_a_task_that_was_removed_by_hand_goes_with_a_prune(
    home: Home,
) -> None:
    remote = repository(home.folder / "remote")
    await home.ensure("stays", run="r1")
    gone = [await home.ensure("odd", run="r2"), await home.ensure("worked", run="r3")]
    gone.append(await home.ensure("far", run="r4", source=Source(str(remote))))
    commit(gone[1].path, "work")
    detached = commit(gone[0].path, "on no branch")
    git(gone[0].path, "switch", "-q", "--detach")
    git(home.project, "branch", "-f", "agentmux/odd/1", "main")
    for tree in gone:
        shutil.rmtree(tree.path.parent)
    with home.untouched():
        dry = await home.prune(keep=20, dry_run=True)
        assert {tree.path for tree in gone[:2]} < home.worktrees()
        done = await home.prune(keep=20)
    assert [one.task for one in dry] == [one.task for one in done]
    assert {(one.task, one.removed, one.branch_removed) for one in done} == {
        ("odd", True, True),
        ("worked", True, False),
        ("far", True, True),
    }
    assert {one.why for one in done} == {"its folder was removed by hand"}
    assert home.worktrees() == {home.place.root / "stays" / "1"}
    assert home.branches() == {"refs/heads/agentmux/stays/1", "refs/heads/agentmux/worked/1"}
    assert home.saved() == {"refs/agentmux/saved/odd/r2": detached}
    assert str(gone[2].path) not in git(gone[2].repo, "worktree", "list")
    assert sorted(path.name for path in home.place.root.iterdir()) == [
        ".bases",
        ".gitignore",
        "stays",
    ]
    assert await home.prune(keep=20) == []


async def test_of_a_folder_that_was_removed_as_a_whole_nothing_is_left_after_a_prune(
    home: Home,
) -> None:
    await home.ensure("t", run="r1")
    shutil.rmtree(home.place.root)
    assert [(one.task, one.branch_removed) for one in await home.prune(keep=20)] == [("t", True)]
    assert (home.worktrees(), home.branches()) == (set(), set())
    assert not home.place.root.exists()


@pytest.mark.parametrize("reason", [None, "on my disk", "agentmux other r1", "agentmux t"])
async def test_what_somebody_else_has_registered_there_stays_and_it_is_said_what_to_do(
    home: Home, reason: str | None
) -> None:
    await home.ensure("before", run="r0")
    path = home.place.root / "t" / "1"
    git(home.project, "worktree", "add", "-q", "-b", "mine", path)
    if reason is not None:
        git(home.project, "worktree", "lock", "--reason", reason, path)
    shutil.rmtree(path.parent)
    assert await home.prune(keep=20) == []
    with home.untouched(), pytest.raises(WorkspaceError) as failure:
        await home.ensure("t", run="r1")
    assert failure.value.hopeless
    assert f"git worktree remove -f -f {path}" in str(failure.value)
    assert ";;" not in str(failure.value)
    assert path in home.worktrees()
    assert home.branches() == {"refs/heads/agentmux/before/1"}
    assert await home.stages() == {("before", 1): "ready"}


async def test_worktrees_on_a_disk_that_is_not_there_are_left_alone(home: Home) -> None:
    home.place = type(home.place)(home.folder / "disk" / "worktrees", home.place.state)
    tree = await home.ensure("t", run="r1")
    home.place.root.parent.rename(home.folder / "unplugged")
    assert await home.prune() == []
    home.place.root.parent.mkdir()
    assert await home.prune() == []
    assert tree.path in home.worktrees()


async def test_a_worktree_whose_run_is_at_work_is_not_taken_for_dead(home: Home) -> None:
    tree = await home.ensure("t", run="r1")
    shutil.rmtree(tree.path.parent)
    home.at_work = {"r1"}
    assert await home.prune() == []
    assert tree.path in home.worktrees()
