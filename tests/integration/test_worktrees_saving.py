"""Promises of saving: whatever is not committed is kept under a ref, and nothing else changes."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.engines import until
from support.nobody import nobody
from support.repositories import Home, commit, git, refs, repository, shown

from engine.workspaces import Saved, WorkspaceError, Worktree, copying, look, save, saved_run

if TYPE_CHECKING:
    from collections.abc import Iterator


async def kept(home: Home, tree: Worktree) -> Saved | None:
    """Save, and look that the worktree is as it was: files, index, HEAD, git's own files."""
    before = looks(tree.path)
    with home.untouched():
        saved = await save(tree, tree.run)
    assert looks(tree.path) == before
    assert list(home.place.root.glob(".saving-*")) == []
    return saved


def looks(path: Path) -> dict[str, object]:
    admin = Path(git(path, "rev-parse", "--absolute-git-dir"))
    return {
        "status": git(path, "--no-optional-locks", "status", "--porcelain=v2", "--branch"),
        "index": hashlib.sha256((admin / "index").read_bytes()).hexdigest(),
        "git": sorted(str(file.relative_to(admin)) for file in admin.rglob("*")),
        "head": (admin / "HEAD").read_text(),
        "files": {
            str(file.relative_to(path)): file.lstat().st_mtime_ns
            for file in path.rglob("*")
            if file.is_file()
        },
    }


def names(home: Home, saved: Saved | None, *, against: str = "^") -> dict[str, str]:
    assert saved is not None
    told = git(
        home.project, "diff", "--no-renames", "--name-status", f"{saved.ref}{against}", saved.ref
    )
    return {path: how for how, path in (line.split("\t") for line in told.splitlines())}


async def test_where_nothing_is_uncommitted_there_is_nothing_to_save(home: Home) -> None:
    tree = await home.ensure()
    assert await kept(home, tree) is None
    commit(tree.path, "work")
    assert await kept(home, tree) is None
    assert home.saved() == {}


async def test_all_kinds_of_changes_are_saved_and_ignored_files_are_not(home: Home) -> None:
    tree = await home.ensure("task", run="r1")
    path = tree.path
    (path / ".gitignore").write_text("*.log\n")
    (path / "noise.log").write_text("ignored\n")
    (path / "dir0" / "file0").write_text("staged\n")
    git(path, "add", "dir0/file0")
    (path / "dir0" / "file0").write_text("edited\n")
    (path / "dir1" / "file1").unlink()
    (path / "dir2" / "file2").chmod(0o755)
    (path / "link").symlink_to("dir0")
    (path / "sub").mkdir()
    (path / "sub" / "-x ünï\ncode").write_text("untracked\n")
    os.mkfifo(path / "fifo")
    saved = await kept(home, tree)
    assert saved is not None
    assert (saved.ref, saved.missing) == ("refs/agentmux/saved/task/r1", ())
    assert home.saved() == {saved.ref: saved.commit}
    assert shown(home.project, saved, "dir0/file0") == "edited"
    assert shown(home.project, saved, "sub/-x ünï\ncode") == "untracked"
    assert set(names(home, saved).values()) == {"A", "D", "M"}
    assert "noise.log" not in names(home, saved)
    assert names(home, saved)["dir2/file2"] == "M"
    assert names(home, saved)["link"] == "A"
    parent, staged, who = git(home.project, "log", "-1", "--format=%P %ae", saved.ref).split()
    assert (parent, who) == (tree.base, "agentmux@localhost")
    assert git(home.project, "show", f"{staged}:dir0/file0") == "staged"


async def test_a_change_in_the_second_of_the_last_add_is_not_lost(home: Home) -> None:
    tree = await home.ensure()
    file = tree.path / "dir0" / "file0"
    index = Path(git(tree.path, "rev-parse", "--absolute-git-dir")) / "index"
    seconds: set[int] = set()
    while len(seconds) != 1:  # all three within one second: git tells no two moments of it apart
        file.write_text("aaaa\n")
        seconds = {int(file.stat().st_mtime)}
        git(tree.path, "add", "-A")
        file.write_text("bbbb\n")
        seconds |= {int(index.stat().st_mtime), int(file.stat().st_mtime)}
    await until(lambda: time.time() > max(seconds) + 1, "the second is over")
    assert shown(home.project, await save(tree, "run1"), "dir0/file0") == "bbbb"


async def test_saving_the_same_again_makes_no_new_ref_and_other_work_gets_its_own(
    home: Home,
) -> None:
    tree = await home.ensure("t", run="r")
    (tree.path / "work").write_text("one\n")
    first = await kept(home, tree)
    assert await kept(home, tree) == first
    (tree.path / "work").write_text("two\n")
    second = await kept(home, tree)
    assert second is not None
    assert second.ref == "refs/agentmux/saved/t/r-2"
    assert await kept(home, tree) == second
    assert len(home.saved()) == 2
    assert shown(home.project, first, "work") == "one"


async def test_in_the_midst_of_a_merge_conflict_all_is_saved_as_it_is(home: Home) -> None:
    tree = await home.ensure()
    file = tree.path / "dir0" / "file0"
    file.write_text("ours\n")
    commit(tree.path, "ours")
    git(tree.path, "checkout", "-q", "-b", "theirs", tree.base)
    file.write_text("theirs\n")
    commit(tree.path, "theirs")
    git(tree.path, "merge", tree.branch, fails=True)
    saved = await kept(home, tree)
    assert "<<<<<<<" in shown(home.project, saved, "dir0/file0")
    assert saved is not None
    assert "in the midst of a merge" in git(home.project, "log", "-1", "--format=%s", saved.ref)
    assert saved.missing == ()


async def test_beside_a_stale_index_lock_all_is_saved(home: Home) -> None:
    tree = await home.ensure()
    admin = Path(git(tree.path, "rev-parse", "--absolute-git-dir"))
    (admin / "index.lock").write_text("")
    (tree.path / "work").write_text("work\n")
    assert shown(home.project, await kept(home, tree), "work") == "work"


async def test_on_an_unborn_branch_all_is_saved(home: Home) -> None:
    tree = await home.ensure()
    git(tree.path, "checkout", "-q", "--orphan", "fresh")
    (tree.path / "work").write_text("work\n")
    found = await look(home.place, tree)
    assert (found.head, found.commits) == (None, 0)
    saved = await save(tree, "run1")
    assert shown(home.project, saved, "work") == "work"
    assert git(home.project, "log", "-1", "--format=%P", str(saved and saved.ref)) == ""


async def test_commits_that_no_branch_has_are_given_a_ref(home: Home) -> None:
    tree = await home.ensure()
    git(tree.path, "checkout", "-q", "--detach")
    loose = commit(tree.path, "on no branch")
    saved = await kept(home, tree)
    assert saved is not None
    assert saved.commit == loose
    assert await kept(home, tree) is None, "now a ref has them"


async def test_files_that_git_was_told_not_to_look_at_are_saved(home: Home) -> None:
    tree = await home.ensure()
    git(tree.path, "update-index", "--assume-unchanged", "dir0/file0")
    git(tree.path, "update-index", "--skip-worktree", "dir1/file1")
    (tree.path / "dir0" / "file0").write_text("seen\n")
    (tree.path / "dir1" / "file1").write_text("seen, too\n")
    saved = await kept(home, tree)
    assert shown(home.project, saved, "dir0/file0") == "seen"
    assert shown(home.project, saved, "dir1/file1") == "seen, too"


async def test_of_a_sparse_worktree_nothing_is_saved_as_deleted(home: Home) -> None:
    tree = await home.ensure()
    git(tree.path, "sparse-checkout", "set", "dir0")
    assert not (tree.path / "dir1").exists()
    (tree.path / "dir1").mkdir()
    (tree.path / "dir1" / "new").write_text("outside of the cone\n")
    saved = await save(tree, "run1")
    assert names(home, saved) == {"dir1/new": "A"}


async def test_what_cannot_be_read_is_told_and_the_rest_is_saved(home: Home) -> None:
    tree = await home.ensure()
    (tree.path / "work").write_text("work\n")
    (tree.path / "closed").write_text("closed\n")
    (tree.path / "closed").chmod(0)
    with given_away(home):
        saved = await save(tree, tree.run)
    assert saved is not None
    assert saved.missing == ("closed could not be read",)
    assert shown(home.project, saved, "work") == "work"
    assert "closed" not in names(home, saved)


@contextmanager
def given_away(home: Home) -> Iterator[None]:
    """Be nobody, and let all that is here be nobody's, if we are root."""
    if os.geteuid() != 0:
        yield
        return
    for path in (home.folder, *home.folder.parents[:3]):
        path.chmod(path.stat().st_mode | 0o711)
    give(home.project, 65534)
    try:
        with nobody():
            yield
    finally:
        give(home.project, 0)


def give(folder: Path, user: int) -> None:
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, user, user, follow_symlinks=False)


async def test_repositories_within_are_told_as_missing(home: Home) -> None:
    tree = await home.ensure()
    repository(tree.path / "clone")
    (tree.path / "empty").mkdir()
    git(tree.path / "empty", "init", "-q")
    (tree.path / "empty" / "file").write_text("of no commit\n")
    (tree.path / "work").write_text("work\n")
    saved = await kept(home, tree)
    assert saved is not None
    assert shown(home.project, saved, "work") == "work"
    told = " ".join(saved.missing)
    assert "clone is a repository of its own" in told
    assert "empty/" in told


async def test_a_file_that_is_too_large_is_told_and_left_out(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "LARGEST", 1_000_000)
    tree = await home.ensure()
    (tree.path / "*").write_text("a name that could be a pattern\n")
    (tree.path / "lar[g]e").write_bytes(b"x" * 1_000_001)
    saved = await kept(home, tree)
    assert saved is not None
    assert saved.missing == ("lar[g]e is larger than 1 MB",)
    assert names(home, saved) == {"*": "A"}


async def test_what_a_failing_save_was_to_keep_is_still_there(home: Home) -> None:
    tree = await home.ensure("t", run="r")
    (tree.path / "work").write_text("work\n")
    git(home.project, "update-ref", "refs/agentmux/saved/t", "HEAD")  # where a folder must be
    with pytest.raises(WorkspaceError, match="still there"):
        await save(tree, "r")
    assert list(home.saved()) == ["refs/agentmux/saved/t"]
    assert (tree.path / "work").read_text() == "work\n"


async def test_by_ids_alone_the_work_of_a_dead_hosts_run_is_saved(home: Home) -> None:
    tree = await home.ensure("t", run="r")
    (tree.path / "work").write_text("work\n")
    assert await saved_run(home.place, "t", "another") is None
    assert await saved_run(home.place, "nosuch", "r") is None
    assert not home.place.task_folder("nosuch").exists()
    assert shown(home.project, await saved_run(home.place, "t", "r"), "work") == "work"


async def test_work_of_a_later_run_is_not_saved_as_that_of_the_one_before(home: Home) -> None:
    tree = await home.ensure("t", run="r")
    await home.ensure("t", run="later")
    (tree.path / "work").write_text("of the later one\n")
    assert await save(tree, "r") is None
    assert home.saved() == {}


async def test_without_its_folder_there_is_nothing_to_save(home: Home) -> None:
    tree = await home.ensure("t", run="r")
    shutil.rmtree(tree.path)
    assert await saved_run(home.place, "t", "r") is None
    assert refs(home.project, "refs/agentmux") == {}
