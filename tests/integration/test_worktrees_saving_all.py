"""Promises of saving: what git passes over without a word is saved too, or told as missing."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from support.nobody import nobody
from support.repositories import Home, commit, git, shown

from engine.workspaces import copying, save

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.workspaces import Saved


def beside(home: Home, saved: Saved | None) -> list[str]:
    """Return the further parents of what was saved."""
    assert saved is not None
    return git(home.project, "rev-parse", f"{saved.ref}^@").split()[1:]


@contextmanager
def as_nobody(home: Home) -> Iterator[None]:
    """Be somebody to whom a folder can be closed, if we are root; all that is here is his."""
    if os.geteuid() != 0:
        yield
        return
    for path in (home.folder, *home.folder.parents[:3]):
        path.chmod(path.stat().st_mode | 0o711)
    for path in [home.project, *home.project.rglob("*")]:
        os.chown(path, 65534, 65534, follow_symlinks=False)
    with nobody():
        yield


async def test_folders_that_cannot_be_opened_are_told_and_stay(home: Home) -> None:
    tree = await home.ensure()
    (tree.path / ".gitignore").write_text("cache\n")
    for name, mode in (("closed", 0), ("deep/unlisted", 0o300), ("dir0", 0o600), ("cache/x", 0)):
        (tree.path / name).mkdir(parents=True, exist_ok=True)
        (tree.path / name / "file0").write_text("precious\n")
        (tree.path / name).chmod(mode)
    (tree.path / "work").write_text("work\n")
    with as_nobody(home):
        saved = await save(tree, tree.run)
        pruned = await home.prune()
        assert shown(home.project, saved, "work") == "work"
    assert saved is not None
    assert sorted(saved.missing) == [
        f"what is in the folder {name}, which cannot be opened"
        for name in ("closed", "deep/unlisted", "dir0")
    ]
    assert "deep/unlisted" in pruned[0].why
    assert (tree.path / "closed" / "file0").read_text() == "precious\n"
    for name in ("closed", "deep/unlisted", "dir0"):
        shutil.rmtree(tree.path / name)
    with as_nobody(home):
        assert [gone.removed for gone in await home.prune()] == [True], "what is ignored may go"
    assert not tree.path.exists()


async def test_what_lies_too_deep_for_git_is_told_and_stays(home: Home) -> None:
    tree = await home.ensure()
    folder = os.open(tree.path, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("x" * 150, dir_fd=folder)
        inner = os.open("x" * 150, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=folder))
    os.close(folder)
    saved = await save(tree, tree.run)
    assert saved is not None
    assert saved.ref is None
    assert "cannot be opened" in saved.missing[0]
    assert [gone.removed for gone in await home.prune()] == [False]


@pytest.mark.parametrize("ref", ["refs/worktree/x", "refs/bisect/bad"])
async def test_commits_that_only_a_ref_of_the_worktrees_own_has_are_kept(
    home: Home, ref: str
) -> None:
    tree = await home.ensure()
    git(tree.path, "checkout", "-q", "--detach")
    loose = commit(tree.path, "on no branch")
    git(tree.path, "update-ref", ref, loose)
    saved = await save(tree, tree.run)
    assert saved is not None
    assert saved.commit == loose
    git(tree.path, "checkout", "-q", tree.branch)
    git(home.project, "update-ref", "-d", str(saved.ref))
    saved = await save(tree, tree.run)
    assert beside(home, saved) == [loose]
    assert await save(tree, tree.run) == saved
    assert len(home.saved()) == 1


async def test_what_a_rebase_has_put_aside_is_kept(home: Home) -> None:
    tree = await home.ensure()
    file = tree.path / "dir0" / "file0"
    file.write_text("theirs\n")
    theirs = commit(tree.path, "theirs")
    git(tree.path, "reset", "-q", "--hard", tree.base)
    file.write_text("ours\n")
    commit(tree.path, "ours")
    (tree.path / "dir1" / "file1").write_text("put aside\n")
    git(tree.path, "rebase", "--autostash", theirs, fails=True)
    assert (tree.path / "dir1" / "file1").read_text() != "put aside\n"
    saved = await save(tree, tree.run)
    (aside,) = beside(home, saved)
    assert git(home.project, "show", f"{aside}:dir1/file1") == "put aside"


async def test_staged_versions_that_no_file_has_are_kept(home: Home) -> None:
    tree = await home.ensure()
    for name in ("gone", "dir0/file0", "moved"):
        (tree.path / name).write_text(f"{name}, as staged\n")
        git(tree.path, "add", name)
    (tree.path / "gone").unlink()
    (tree.path / "dir0" / "file0").write_text("changed since\n")
    (tree.path / "moved").rename(tree.path / "elsewhere")
    saved = await save(tree, tree.run)
    (staged,) = beside(home, saved)
    assert git(home.project, "show", f"{staged}:gone") == "gone, as staged"
    assert git(home.project, "show", f"{staged}:dir0/file0") == "dir0/file0, as staged"
    assert shown(home.project, saved, "dir0/file0") == "changed since"
    assert await save(tree, tree.run) == saved
    assert len(home.saved()) == 1


async def test_what_is_staged_and_in_a_file_has_no_commit_of_its_own(home: Home) -> None:
    tree = await home.ensure()
    (tree.path / "new").write_text("new\n")
    git(tree.path, "add", "new")
    git(tree.path, "rm", "-q", "--cached", "dir0/file0")
    (tree.path / "new").rename(tree.path / "newer")
    (tree.path / "dir1" / "file1").write_text("changed\n")
    assert beside(home, await save(tree, tree.run)) == []


async def test_in_a_conflict_other_staged_versions_are_kept(home: Home) -> None:
    tree = await home.ensure()
    file, other = tree.path / "dir0" / "file0", tree.path / "dir1" / "file1"
    file.write_text("ours\n")
    commit(tree.path, "ours")
    git(tree.path, "checkout", "-q", "-b", "theirs", tree.base)
    file.write_text("theirs\n")
    commit(tree.path, "theirs")
    git(tree.path, "merge", tree.branch, fails=True)
    other.write_text("resolved\n")
    git(tree.path, "add", "dir1/file1")
    other.write_text("spoilt\n")
    saved = await save(tree, tree.run)
    (staged,) = beside(home, saved)
    assert git(home.project, "show", f"{staged}:dir1/file1") == "resolved"
    assert "<<<<<<<" in shown(home.project, saved, "dir0/file0")


async def test_a_filter_that_fails_keeps_nothing_from_being_saved(home: Home) -> None:
    tree = await home.ensure()
    git(home.project, "config", "filter.no=thing.clean", "false")
    git(home.project, "config", "filter.no=thing.required", "true")
    (tree.path / ".gitattributes").write_text("*.bin filter=no=thing\n")
    (tree.path / "a.bin").write_bytes(b"\0precious")
    (tree.path / "work").write_text("work\n")
    saved = await save(tree, tree.run)
    assert saved is not None
    assert saved.missing == ()
    assert shown(home.project, saved, "a.bin") == "\0precious"
    assert shown(home.project, saved, "work") == "work"


async def test_a_filter_that_hangs_does_not_hold_a_save_up(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "FILTERED", 0.3)
    tree = await home.ensure()
    git(home.project, "config", "filter.slow.clean", "sleep 1000; cat")
    (tree.path / ".gitattributes").write_text("slow filter=slow\n")
    (tree.path / "slow").write_text("precious\n")
    saved = await save(tree, tree.run)
    assert saved is not None
    assert saved.missing == ()
    assert shown(home.project, saved, "slow") == "precious"


async def test_files_in_another_encoding_than_is_said_are_saved_as_they_are(home: Home) -> None:
    tree = await home.ensure()
    (tree.path / ".gitattributes").write_text("*.txt text working-tree-encoding=UTF-16\n")
    (tree.path / "wrong ünï.txt").write_text("no mark of UTF-16\n")
    (tree.path / "right.txt").write_text("marked\n", encoding="utf-16")
    (tree.path / "work").write_text("work\n")
    saved = await save(tree, tree.run)
    assert saved is not None
    assert saved.missing == ()
    assert shown(home.project, saved, "wrong ünï.txt") == "no mark of UTF-16"
    assert "m\0a\0r\0k\0e\0d" in shown(home.project, saved, "right.txt")
    assert shown(home.project, saved, "work") == "work"
