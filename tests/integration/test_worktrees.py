"""Promises of ensure_worktree: it makes, finds again or replaces, and touches nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
from typing import TYPE_CHECKING

import pytest
from support.repositories import Home, a_busy_user, commit, git, refs, repository

from engine.config import WorktreeConfig
from engine.errors import Code
from engine.files import Layout, plain_name
from engine.workspaces import (
    BadWorkspace,
    Place,
    Source,
    Stage,
    WorkspaceError,
    finished,
    look,
    place_of,
    records,
)
from engine.workspaces.pruning import failures

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_worktree_is_made_on_a_branch_of_its_own_and_nothing_else_changes(
    home: Home,
) -> None:
    a_busy_user(home.project)
    head = git(home.project, "rev-parse", "HEAD")
    with home.untouched():
        tree = await home.ensure()
    assert tree.made
    name = plain_name("impl:a")
    assert tree.path == home.place.root / name / "1"
    assert tree.branch == f"agentmux/{name}/1"
    assert (tree.base, tree.base_ref, tree.behind) == (head, "main", None)
    assert git(tree.path, "symbolic-ref", "--short", "HEAD") == tree.branch
    assert git(tree.path, "rev-parse", "HEAD") == head
    assert git(tree.path, "status", "--porcelain") == ""
    assert (tree.path / "dir0" / "file0").read_text().startswith("content 0")
    listed = git(home.project, "worktree", "list", "--porcelain")
    assert "locked agentmux impl:a run1" in listed
    record = json.loads(tree.path.with_suffix(".json").read_text())
    assert (record["task"], record["baseRef"], record["stage"]) == ("impl:a", "main", "ready")
    for folder in (home.place.root, home.place.root / tree.path.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_the_same_attempt_finds_its_worktree_again_as_it_left_it(home: Home) -> None:
    first = await home.ensure()
    (first.path / "untracked").write_text("work\n")
    (first.path / "dir0" / "file0").write_text("changed\n")
    done = commit(first.path, "half of it")
    (first.path / "more").write_text("work\n")
    await finished(home.place, "impl:a", "run1", home.clock)
    assert await home.stages() == {("impl:a", 1): "over"}
    again = await home.ensure(run="run2")
    assert (again.path, again.branch, again.base) == (first.path, first.branch, first.base)
    assert not again.made
    assert git(again.path, "rev-parse", "HEAD") == done
    assert (again.path / "more").read_text() == "work\n"
    assert await home.stages() == {("impl:a", 1): "ready"}


async def test_the_next_attempt_has_one_of_its_own(home: Home) -> None:
    first, second = await home.ensure(), await home.ensure(attempt=2, run="run2")
    assert first.path != second.path
    assert {first.branch, second.branch} == {
        name.removeprefix("refs/heads/") for name in home.branches()
    }


async def test_of_a_task_without_a_project_repository_it_is_said_what_to_do(home: Home) -> None:
    nowhere = home.folder / "nowhere"
    nowhere.mkdir()
    home.project = nowhere
    with pytest.raises(BadWorkspace, match="git init") as refusal:
        await home.ensure()
    assert refusal.value.hopeless
    assert refusal.value.code is Code.VALIDATION_ERROR
    assert not failures(home.place), "a task that names nothing is no failure to make one"


async def test_a_repository_without_a_commit_is_refused_and_keeps_no_branch(home: Home) -> None:
    empty = home.folder / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    home.project = empty
    with pytest.raises(BadWorkspace, match="no commit yet"):
        await home.ensure()
    assert refs(empty) == {}


async def test_a_branch_that_is_not_there_is_named(home: Home) -> None:
    with pytest.raises(BadWorkspace, match="no branch 'nosuch'"):
        await home.ensure(source=Source(None, "nosuch"))
    assert await home.stages() == {}
    assert home.branches() == set()


async def test_a_named_branch_is_what_it_starts_from(home: Home) -> None:
    git(home.project, "checkout", "-q", "-b", "other")
    there = commit(home.project, "on other")
    git(home.project, "checkout", "-q", "main")
    git(home.project, "tag", "other")  # a name that stands for two things
    tree = await home.ensure(source=Source(None, "other"))
    assert (tree.base, tree.base_ref) == (there, "other")
    assert git(tree.path, "rev-parse", "HEAD") == there


async def test_how_far_the_base_is_behind_its_upstream_is_told(home: Home) -> None:
    upstream = repository(home.folder / "upstream")
    git(home.project, "remote", "add", "origin", upstream)
    git(home.project, "fetch", "-q", "origin")
    git(home.project, "reset", "-q", "--hard", "origin/main")
    git(home.project, "branch", "-q", "--set-upstream-to", "origin/main")
    assert (await home.ensure()).behind == 0
    commit(upstream, "two")
    commit(upstream, "three")
    git(home.project, "fetch", "-q", "origin")
    assert (await home.ensure("b")).behind == 2
    config = (home.project / ".git" / "config").read_text()
    assert "agentmux" not in config, "a branch of ours tracks nothing"


async def test_a_users_branch_of_the_same_name_is_left_alone(home: Home) -> None:
    first = await home.ensure("task")
    assert first.branch == "agentmux/task/1"
    git(home.project, "branch", "agentmux/other/1")
    git(home.project, "branch", "agentmux/other/1.2")
    with home.untouched():
        tree = await home.ensure("other")
    assert tree.branch == "agentmux/other/1.3"
    assert {"refs/heads/agentmux/other/1", "refs/heads/agentmux/other/1.2"} < home.branches()


async def test_a_branch_whose_name_leaves_no_room_for_ours_is_named(home: Home) -> None:
    git(home.project, "branch", "agentmux")
    with pytest.raises(WorkspaceError, match="branch agentmux stands in the way") as refusal:
        await home.ensure()
    assert refusal.value.hopeless
    assert await home.stages() == {}
    assert list(home.place.root.glob("[!.]*")) == []


async def test_a_folder_that_is_there_and_not_ours_is_refused_and_kept(home: Home) -> None:
    folder = (await home.ensure("t")).path.parent.parent / "t" / "2"
    folder.mkdir()
    (folder / "precious").write_text("mine\n")
    with pytest.raises(WorkspaceError, match="was not made by agentmux") as refusal:
        await home.ensure("t", 2)
    assert refusal.value.hopeless
    assert (folder / "precious").read_text() == "mine\n"
    assert (folder / ".git").exists() is False
    assert "refs/heads/agentmux/t/2" not in home.branches()


async def test_a_folder_of_the_user_where_worktrees_were_to_lie_is_refused(home: Home) -> None:
    home.place.root.mkdir()
    (home.place.root / "precious").write_text("mine\n")
    with pytest.raises(WorkspaceError, match="worktrees: folder:"):
        await home.ensure()
    assert [path.name for path in home.place.root.iterdir()] == ["precious"]


@pytest.mark.parametrize("at_work", [False, True])
async def test_who_finds_that_another_of_us_was_quicker_to_make_the_folder_goes_on(
    home: Home, monkeypatch: pytest.MonkeyPatch, *, at_work: bool
) -> None:
    def meanwhile(place: Place) -> None:
        monkeypatch.undo()
        records.prepare(place)
        if at_work:
            records.task_lock(place, "other").parent.mkdir()

    monkeypatch.setattr(records, "refuse_gitdir", meanwhile)
    records.prepare(home.place)
    assert records.is_marked(home.place)


async def test_a_record_of_another_state_folder_is_not_ours(home: Home) -> None:
    home.place.state.mkdir()
    tree = await home.ensure()
    (tree.path / "work").write_text("of others\n")
    home.place = type(home.place)(home.place.root, home.project / "other-state")
    with pytest.raises(WorkspaceError, match="belongs to the state folder"):
        await home.ensure(run="run2")
    assert await home.stages() == {}
    assert await home.prune() == []
    assert (tree.path / "work").read_text() == "of others\n"


async def test_the_worktrees_of_a_state_folder_that_was_moved_are_used_again(home: Home) -> None:
    tree = await home.ensure()
    (tree.path / "work").write_text("not lost\n")
    home.place = type(home.place)(home.place.root, home.project / "moved-state")
    again = await home.ensure(run="run2")
    assert not again.made
    assert await home.stages() == {("impl:a", 1): "ready"}


async def test_a_record_that_cannot_be_read_is_nobodys_to_remove(home: Home) -> None:
    tree = await home.ensure()
    tree.path.with_suffix(".json").write_text("{")
    with pytest.raises(WorkspaceError, match="cannot be read"):
        await home.ensure()
    assert await home.prune() == []
    assert tree.path.is_dir()


async def test_a_lost_git_file_is_written_again_and_work_goes_on(home: Home) -> None:
    tree = await home.ensure()
    (tree.path / "work").write_text("not lost\n")
    (tree.path / ".git").unlink()
    with home.untouched():
        again = await home.ensure(run="run2")
    assert not again.made
    assert git(again.path, "status", "--porcelain") == "?? work"
    assert git(again.path, "rev-parse", "--show-toplevel") == str(again.path)


async def test_a_worktree_that_was_deleted_by_hand_comes_back_on_its_branch(home: Home) -> None:
    tree = await home.ensure()
    done = commit(tree.path, "work")
    shutil.rmtree(tree.path)
    with home.untouched():
        again = await home.ensure(run="run2")
    assert again.made
    assert (again.branch, again.base) == (tree.branch, tree.base)
    assert git(again.path, "rev-parse", "HEAD") == done


async def test_a_worktree_that_git_forgot_is_saved_and_made_anew_on_its_branch(home: Home) -> None:
    tree = await home.ensure()
    done = commit(tree.path, "work")
    (tree.path / "work").write_text("uncommitted\n")
    admin = git(tree.path, "rev-parse", "--absolute-git-dir")
    shutil.rmtree(admin)
    with home.untouched():
        again = await home.ensure(run="run2")
    assert again.made
    assert git(again.path, "rev-parse", "HEAD") == done
    (ref,) = home.saved()
    assert git(home.project, "show", f"{ref}:work") == "uncommitted"


async def test_a_repository_that_an_agent_put_in_its_place_is_moved_aside(home: Home) -> None:
    tree = await home.ensure()
    (tree.path / ".git").unlink()
    git(tree.path, "init", "-q")
    commit(tree.path, "its own")
    with home.untouched():
        again = await home.ensure(run="run2")
    assert again.made
    aside = tree.path.with_name("1.aside-1")
    assert git(aside, "log", "--format=%s") == "its own"


async def test_a_branch_of_ours_that_the_user_has_checked_out_stays_his(home: Home) -> None:
    tree = await home.ensure("t")
    done = commit(tree.path, "work")
    shutil.rmtree(tree.path)
    git(home.project, "worktree", "unlock", tree.path)
    git(home.project, "worktree", "prune")
    git(home.project, "checkout", "-q", tree.branch)
    with home.untouched():
        again = await home.ensure("t", run="run2")
    assert again.branch == "agentmux/t/1.2"
    assert git(again.path, "rev-parse", "HEAD") == done
    assert git(home.project, "symbolic-ref", "--short", "HEAD") == "agentmux/t/1"


async def test_a_task_that_works_in_another_repository_now_gets_a_new_worktree(home: Home) -> None:
    first = await home.ensure("t")
    (first.path / "work").write_text("uncommitted\n")
    other = repository(home.folder / "other")
    again = await home.ensure("t", run="run2", source=Source(str(other)))
    assert again.made
    assert again.path == first.path
    assert again.repo.parent == home.place.bases
    assert list(home.saved()) == ["refs/agentmux/saved/t/run1"]
    assert home.worktrees() == set()


async def test_twelve_at_once_in_one_repository_all_get_theirs(home: Home) -> None:
    a_busy_user(home.project)
    with home.untouched():
        trees = await asyncio.gather(*(home.ensure(f"task {n}", run=f"r{n}") for n in range(12)))
    assert len({tree.path for tree in trees}) == len({tree.branch for tree in trees}) == 12
    assert home.worktrees() == {tree.path for tree in trees}
    for tree in trees:
        assert git(tree.path, "status", "--porcelain", "--branch") == f"## {tree.branch}"


async def test_the_same_attempt_asked_for_many_times_at_once_is_made_once(home: Home) -> None:
    trees = await asyncio.gather(*(home.ensure(run=f"r{n}") for n in range(6)))
    assert [tree.made for tree in trees].count(True) == 1
    assert len({tree.path for tree in trees}) == 1
    assert len(home.branches()) == 1


@pytest.mark.parametrize("name", ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR"])
async def test_what_the_environment_says_of_repositories_leads_nowhere(
    home: Home, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = repository(home.folder / "victim")
    before = refs(victim)
    monkeypatch.setenv(name, str(victim / ".git"))
    tree = await home.ensure()
    monkeypatch.delenv(name)
    assert home.worktrees() == {tree.path}
    assert refs(victim) == before
    assert name not in tree.environment({name: "x", "HOME": "/"})


async def test_no_hook_and_no_program_of_the_repositorys_settings_runs(home: Home) -> None:
    ran = home.folder / "ran"
    hooks = home.project / ".git" / "hooks"
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {ran}\nexit 3\n")
        (hooks / name).chmod(0o755)
    git(home.project, "config", "core.fsmonitor", f"touch {ran}")
    tree = await home.ensure()
    (tree.path / "work").write_text("uncommitted\n")
    await home.prune()
    assert not tree.path.exists()
    assert not ran.exists()


async def test_an_agent_that_lost_its_git_file_does_not_work_in_the_users_repository(
    home: Home,
) -> None:
    tree = await home.ensure()
    (tree.path / ".git").unlink()
    process = await asyncio.create_subprocess_exec(
        "git", "rev-parse", "--show-toplevel",
        cwd=tree.path, env=tree.environment(os.environ),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert (out, b"not a git repository" in err) == (b"", True)


async def test_a_missing_git_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home.folder / "nothing"))
    with pytest.raises(WorkspaceError, match="install it") as refusal:
        await home.ensure()
    assert refusal.value.hopeless


async def test_failures_are_counted_and_past_ten_in_a_row_what_is_over_is_pruned(
    home: Home,
) -> None:
    tasks = ("over", "lives", "waits")
    over, lives, waits = [await home.ensure(task, run=f"of {task}") for task in tasks]
    (over.path / "work").write_text("uncommitted\n")
    await finished(home.place, "waits", "of waits", home.clock)
    home.at_work, home.waiting = {"of lives"}, {"of waits"}
    (home.project / ".gitattributes").write_text("broken filter=broken\n")
    (home.project / "broken").write_text("broken\n")
    commit(home.project, "what cannot be checked out")
    git(home.project, "config", "filter.broken.required", "true")
    git(home.project, "config", "filter.broken.clean", "cat")
    git(home.project, "config", "filter.broken.smudge", "false")
    for count in range(1, 11):
        with pytest.raises(WorkspaceError, match="smudge filter") as failure:
            await home.ensure("t")
        assert not failure.value.hopeless
        assert failures(home.place) == count
        assert over.path.is_dir()
    with pytest.raises(WorkspaceError):
        await home.ensure("t")
    assert not over.path.exists()
    assert list(home.saved()) == [f"refs/agentmux/saved/over/{plain_name('of over')}"]
    assert lives.path.is_dir(), "its run is at work"
    assert waits.path.is_dir(), "its next run goes on there"
    assert failures(home.place) == 11
    git(home.project, "config", "filter.broken.smudge", "cat")
    with pytest.raises(BadWorkspace):
        await home.ensure("t", source=Source(None, "nosuch"))
    assert failures(home.place) == 11, "that names none"
    await home.ensure("t")
    assert failures(home.place) == 0


async def test_who_goes_on_from_nobody_begins_anew_and_what_others_left_stays(home: Home) -> None:
    first = await home.ensure("t", run="r1", after=())
    commit(first.path, "work")
    (first.path / "work").write_text("uncommitted\n")
    await finished(home.place, "t", "r1", home.clock)
    later = commit(home.project, "meanwhile")
    again = await home.ensure("t", run="r2", after=())
    assert (again.attempt, again.branch, again.base) == (2, "agentmux/t/2", later)
    assert (again.made, again.path) == (True, first.path.with_name("2"))
    assert git(again.path, "status", "--porcelain") == ""
    assert (first.path / "work").read_text() == "uncommitted\n"
    same = await home.ensure("t", run="r2", after=())
    assert (same.path, same.made) == (again.path, False)


async def test_who_goes_on_does_so_where_the_run_before_was_whatever_its_number(
    home: Home,
) -> None:
    await home.ensure("t", 1, run="r1", after=())
    second = await home.ensure("t", 2, run="r2", after=())
    done = commit(second.path, "work")
    again = await home.ensure("t", 1, run="r3", after={"r2", "never had one"})
    assert (again.path, again.branch, again.made) == (second.path, "agentmux/t/2", False)
    shutil.rmtree(again.path)
    replaced = await home.ensure("t", 1, run="r4", after={"r2", "r3"})
    assert (replaced.path, replaced.made) == (second.path, True)
    assert git(replaced.path, "rev-parse", "HEAD") == done


async def test_when_the_attempt_began_is_known_however_often_its_worktree_was_made(
    home: Home,
) -> None:
    first = await home.ensure("t", run="r1", after=())
    began = (await look(home.place, first)).since
    shutil.rmtree(first.path)
    again = await home.ensure("t", run="r2", after={"r1"})
    assert (await look(home.place, again)).since == began


def test_the_folder_is_named_in_the_settings_or_lies_beside_the_state_folder(
    tmp_path: Path,
) -> None:
    layout = Layout(tmp_path / "state")
    tmp_path = tmp_path.resolve()
    assert place_of(layout, tmp_path / "p", WorktreeConfig()).root == tmp_path / "worktrees"
    assert place_of(layout, tmp_path / "p", WorktreeConfig("w")).root == tmp_path / "p" / "w"
    nobodys = place_of(layout, tmp_path / "p", WorktreeConfig("~nosuch-user/w")).root
    assert nobodys == tmp_path / "p" / "~nosuch-user" / "w"
    assert Stage.READY.value == "ready"
