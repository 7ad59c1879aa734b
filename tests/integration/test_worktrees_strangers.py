"""Promises to a user who puts a worktree of his own where one of ours was: it stays as it is."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from support.repositories import Home, commit, contents, git, repository

from engine.workspaces import WorkspaceError, finished

if TYPE_CHECKING:
    from pathlib import Path


def take_over(home: Home, path: Path, repo: Path | None = None) -> dict[str, str | None]:
    """Replace a worktree of ours by the user's, with work in it; return what is in it."""
    git(home.project, "worktree", "remove", "-f", "-f", path)
    git(repo or home.project, "worktree", "add", "-q", "-b", "mine", path)
    (path / ".gitignore").write_text("notes\n")
    (path / "notes").write_text("ignored\n")
    (path / "dir0" / "file0").write_text("changed\n")
    return contents(path)


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_users_worktree_in_place_of_ours_is_not_pruned(home: Home, elsewhere: bool) -> None:
    tree = await home.ensure("t", run="r1")
    await finished(home.place, "t", "r1", home.clock)
    repo = repository(home.folder / "other") if elsewhere else None
    his = take_over(home, tree.path, repo)
    for dry_run in (True, False):
        (pruned,) = await home.prune(dry_run=dry_run)
        assert not pruned.removed
        assert "somebody else made" in pruned.why
    assert contents(tree.path) == his
    assert home.saved() == {}
    git(repo or home.project, "worktree", "remove", "-f", tree.path)
    (pruned,) = await home.prune()
    assert (pruned.removed, pruned.branch_removed) == (True, True)


async def test_beside_a_users_worktree_in_place_of_ours_the_next_run_gets_its_own(
    home: Home,
) -> None:
    tree = await home.ensure("t", run="r1")
    his = take_over(home, tree.path)
    with pytest.raises(WorkspaceError, match="somebody else made"):
        await home.ensure("t", run="r1")
    trees = [await home.ensure("t", run=run, after=("r1",)) for run in ("r1", "r2")]
    assert {again.path for again in trees} == {tree.path.with_name("2")}
    assert [again.made for again in trees] == [True, False]
    assert contents(tree.path) == his


async def test_a_users_worktree_where_ours_was_half_made_stays(home: Home) -> None:
    tree = await home.ensure("t", run="r1")
    record = tree.path.with_suffix(".json")
    record.write_text(record.read_text().replace('"ready"', '"making"'))
    his = take_over(home, tree.path)
    (pruned,) = await home.prune()
    assert not pruned.removed
    assert contents(tree.path) == his


async def test_of_ours_whose_git_directory_is_lost_all_goes(home: Home) -> None:
    tree = await home.ensure("t", run="r1")
    (tree.path / "work").write_text("work\n")
    shutil.rmtree(tree.admin)
    (pruned,) = await home.prune()
    assert pruned.removed
    assert list(home.saved()) == ["refs/agentmux/saved/t/r1"]
    assert not tree.path.exists()


async def test_ours_without_its_folder_is_made_again_though_it_is_unlocked(home: Home) -> None:
    tree = await home.ensure("t", run="r1")
    done = commit(tree.path, "work")
    shutil.rmtree(tree.path)
    git(home.project, "worktree", "unlock", tree.path)
    again = await home.ensure("t", run="r2", after=("r1",))
    assert (again.path, again.branch) == (tree.path, tree.branch)
    assert git(again.path, "rev-parse", "HEAD") == done
