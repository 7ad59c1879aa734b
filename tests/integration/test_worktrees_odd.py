"""Promises about repositories that are not as most are: submodules, sparse, bare, odd paths."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support.repositories import Home, commit, git, refs, repository, shown

from engine.workspaces import (
    Place,
    Source,
    WorkspaceError,
    check_source,
    ensure_worktree,
    finished,
    save,
)

if TYPE_CHECKING:
    from pathlib import Path

ANY_PATH = ("-c", "protocol.file.allow=always")
"""Submodules at a path; git refuses them otherwise."""


@pytest.mark.parametrize("name", ["with spaces", "ünï-cödé", "new\nline", "qu'ote\"s", "-dash"])
async def test_wherever_the_project_lies_all_goes_well(home: Home, name: str) -> None:
    home.project = repository(home.folder / name)
    home.place = Place(home.project / "worktrees", home.project / "state")
    tree = await home.ensure("t", run="r1")
    (tree.path / "work").write_text("work\n")
    again = await home.ensure("t", run="r2")
    assert (again.path, again.made) == (tree.path, False)
    assert shown(home.project, await save(again, "r2"), "work") == "work"
    assert git(home.project, "status", "--porcelain") == ""
    (gone,) = await home.prune()
    assert (gone.removed, gone.branch_removed) == (True, True)
    assert not tree.path.exists()
    assert git(home.project, "worktree", "list", "--porcelain", "-z").count("\0worktree ") == 0


async def test_from_a_project_in_a_part_of_a_repository_the_whole_of_it_is_worked_in(
    home: Home,
) -> None:
    part = home.project / "dir0"
    place = Place(part / "worktrees", part / "state")
    tree = await ensure_worktree(place, Source(), part, "t", 1, "r", home.clock)
    assert tree.path == part / "worktrees" / "t" / "1"
    assert (tree.path / "dir1" / "file1").exists()
    assert tree.repo == home.project / ".git"
    assert git(home.project, "status", "--porcelain") == ""


async def test_a_detached_head_is_what_it_starts_from(home: Home) -> None:
    git(home.project, "checkout", "-q", "--detach")
    loose = commit(home.project, "on no branch")
    with home.untouched():
        tree = await home.ensure()
    assert (tree.base, tree.base_ref, tree.behind) == (loose, "HEAD", None)


async def test_in_a_bare_repository_worktrees_lie_where_git_does_not_take_them_for_its_own(
    home: Home,
) -> None:
    bare = home.folder / "bare.git"
    git(home.folder, "clone", "-q", "--bare", home.project, bare)
    home.project = bare
    within = Place(bare / "worktrees", bare / "state")
    with pytest.raises(WorkspaceError, match="a folder of git's own") as refusal:
        await check_source(within, Source(), bare)
    assert refusal.value.hopeless
    home.place = within
    with pytest.raises(WorkspaceError, match="name another folder under worktrees: folder:"):
        await home.ensure()
    assert not (bare / "worktrees").exists()
    home.place = Place(home.folder / "elsewhere", bare / "state")
    tree = await home.ensure("t")
    (tree.path / "work").write_text("work\n")
    git(bare, "gc", "--quiet", "--prune=now")
    assert git(tree.path, "status", "--porcelain") == "?? work"
    await home.prune()
    assert list(refs(bare, "refs/agentmux")) == ["refs/agentmux/saved/t/run1"]


async def test_of_a_sparse_checkout_of_the_user_a_worktree_is_whole_in_itself(home: Home) -> None:
    git(home.project, "sparse-checkout", "set", "dir0")
    with home.untouched():
        tree = await home.ensure("t")
    assert git(tree.path, "status", "--porcelain") == ""
    assert await save(tree, tree.run) is None, "what is not checked out was not deleted"
    (gone,) = await home.prune()
    assert gone.branch_removed


def with_submodule(home: Home) -> Path:
    """Let the project have a submodule `sub`; return where that comes from."""
    remote = home.folder / "sub.git"
    git(home.folder, "clone", "-q", "--bare", repository(home.folder / "sub"), remote)
    git(home.project, *ANY_PATH, "submodule", "--quiet", "add", remote, "sub")
    commit(home.project, "with a submodule")
    return remote


async def test_submodules_that_nobody_worked_in_hold_no_worktree_up(home: Home) -> None:
    with_submodule(home)
    empty, full = await home.ensure("empty"), await home.ensure("full")
    git(full.path, *ANY_PATH, "submodule", "--quiet", "update", "--init")
    assert await save(empty, "run1") is None
    assert await save(full, "run1") is None
    with home.untouched():
        assert [one.removed for one in await home.prune()] == [True, True]


async def test_commits_that_only_a_submodule_of_a_worktree_has_keep_that_worktree(
    home: Home,
) -> None:
    with_submodule(home)
    tree = await home.ensure("t")
    git(tree.path, *ANY_PATH, "submodule", "--quiet", "update", "--init")
    (tree.path / "sub" / "work").write_text("uncommitted\n")
    (kept,) = await home.prune()
    assert "what is uncommitted in the submodule sub" in kept.why
    commit(tree.path / "sub", "in the submodule")
    commit(tree.path, "and where it is")  # git takes it for clean from here on
    await finished(home.place, "t", "run1", home.clock)
    (kept,) = await home.prune()
    assert (kept.removed, "only its commit's id is in" in kept.why) == (False, True)
    assert (tree.path / "sub" / "work").exists()
    git(tree.path / "sub", "push", "-q", "origin", "HEAD:refs/heads/work")
    (gone,) = await home.prune()
    assert (gone.removed, gone.branch_removed) == (True, False)


async def test_a_name_that_is_no_text_is_told_as_text(home: Home) -> None:
    tree = await home.ensure("t", run="r")
    repository(tree.path / os.fsdecode(b"no\xff\x1b[31mtext"))
    saved = await save(tree, "r")
    assert saved is not None
    (told,) = saved.missing
    assert told.encode()
    assert "\x1b" not in told
    assert told.endswith("is a repository of its own: only its commit's id is in")


async def test_a_state_folder_by_another_name_is_the_same_one(home: Home) -> None:
    from engine.config import WorktreeConfig
    from engine.files import Layout
    from engine.workspaces import place_of

    (home.project / "state").mkdir()
    link = home.folder / "link"
    link.symlink_to(home.project)
    home.place = place_of(Layout(home.project / "state"), home.project, WorktreeConfig())
    tree = await home.ensure()
    home.place = place_of(Layout(link / "state"), link, WorktreeConfig())
    again = await home.ensure(run="run2")
    assert (again.path, again.made) == (tree.path, False)


async def test_two_state_folders_with_one_folder_of_worktrees_keep_out_of_each_others_way(
    home: Home,
) -> None:
    states = [home.project / "one", home.project / "other"]
    for state in states:
        state.mkdir()
    trees = []
    for state in states:
        home.place = Place(home.place.root, state)
        trees.append(await home.ensure("t", run=f"of {state.name}", after=()))
    assert [tree.path.name for tree in trees] == ["1", "2"]
    assert len({tree.branch for tree in trees}) == 2
    home.place = Place(home.place.root, states[0])
    assert [one.run for one in await home.prune()] == ["of one"]
    assert trees[1].path.is_dir()
