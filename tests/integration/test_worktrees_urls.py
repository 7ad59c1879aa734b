"""Promises of worktrees of other repositories: URLs and paths, as they are now, without a login."""

from __future__ import annotations

import asyncio
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from support.repositories import Home, commit, git, refs, repository

from engine.workspaces import BadWorkspace, Source, WorkspaceError, check_source
from engine.workspaces import git as calls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def remote(home: Home) -> Path:
    return repository(home.folder / "remote")


def bases(home: Home) -> list[Path]:
    return sorted(home.place.bases.glob("*.git"))


async def test_a_path_is_fetched_and_worked_in_apart_from_it(home: Home, remote: Path) -> None:
    before = refs(remote)
    with home.untouched():
        tree = await home.ensure("t", source=Source.read({"url": "../remote"}, home.project))
    assert (tree.base_ref, tree.behind) == ("main", 0)
    assert git(tree.path, "rev-parse", "HEAD") == git(remote, "rev-parse", "HEAD")
    assert git(tree.path, "remote", "get-url", "origin") == str(remote)
    assert bases(home) == [tree.repo]
    assert refs(remote) == before
    commit(tree.path, "work")
    git(tree.path, "push", "-q", "origin", "HEAD")
    assert "refs/heads/agentmux/t/1" in refs(remote)


async def test_every_new_worktree_begins_where_the_remote_is_now(home: Home, remote: Path) -> None:
    source = Source(str(remote))
    first = await home.ensure("t", source=source)
    done = commit(first.path, "work")
    later = commit(remote, "later")
    second = await home.ensure("t", 2, source=source)
    assert second.base == later
    assert len(bases(home)) == 1
    again = await home.ensure("t", source=source, run="r2")
    assert git(again.path, "rev-parse", "HEAD") == done
    git(remote, "branch", "-m", "main", "trunk")
    third = await home.ensure("t", 3, source=source)
    assert (third.base, third.base_ref) == (later, "trunk")
    git(remote, "commit", "-q", "--amend", "--allow-empty", "-m", "forced")
    assert (await home.ensure("t", 4, source=source)).base == git(remote, "rev-parse", "HEAD")


async def test_a_branch_of_a_url_is_named_or_missed_by_name(home: Home, remote: Path) -> None:
    git(remote, "checkout", "-q", "-b", "topic/a")
    there = commit(remote, "topic")
    git(remote, "checkout", "-q", "main")
    tree = await home.ensure("t", source=Source(str(remote), "topic/a"))
    assert (tree.base, tree.base_ref) == (there, "topic/a")
    with pytest.raises(BadWorkspace, match="no branch 'nosuch'"):
        await home.ensure("u", source=Source(str(remote), "nosuch"))
    git(remote, "branch", "-m", "topic/a", "topic")
    assert (await home.ensure("v", source=Source(str(remote), "topic"))).base == there


async def test_a_remote_whose_default_branch_has_no_commit_is_told_so(home: Home) -> None:
    empty = home.folder / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    with pytest.raises(BadWorkspace, match="no commit on its default branch"):
        await home.ensure(source=Source(str(empty)))


async def test_no_repository_there_is_hopeless_and_leaves_no_worktree(home: Home) -> None:
    with pytest.raises(BadWorkspace, match="no repository at") as refusal:
        await home.ensure(source=Source(str(home.folder / "nosuch")))
    assert refusal.value.hopeless
    assert await home.stages() == {}


async def test_a_path_is_looked_at_beforehand_and_nothing_is_made(home: Home, remote: Path) -> None:
    empty = home.folder / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    faults = {
        Source(str(home.folder / "nosuch")): "no repository at",
        Source(str(remote), "nosuch"): "no branch 'nosuch'",
        Source(str(empty)): "no commit on its default branch",
    }
    await check_source(home.place, Source(str(remote)), home.project)
    await check_source(home.place, Source(str(remote), "main"), home.project)
    for source, fault in faults.items():
        with pytest.raises(BadWorkspace, match=fault):
            await check_source(home.place, source, home.project)
    assert not home.place.root.exists()


async def test_twelve_at_once_share_a_clone_and_few_fetches(
    home: Home, remote: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetches = []
    real = calls.Git.run

    def counted(self: calls.Git, arguments: tuple[str, ...], *more: object) -> calls.Done:
        if arguments[0] == "fetch":
            fetches.append(arguments)
        return real(self, arguments, *more)  # type: ignore[arg-type] # handed on as it came

    monkeypatch.setattr(calls.Git, "run", counted)
    source = Source(str(remote))
    trees = await asyncio.gather(*(home.ensure(f"t{n}", source=source) for n in range(12)))
    assert len({tree.path for tree in trees}) == 12
    assert len(bases(home)) == 1
    assert len(fetches) <= 4


async def test_pruning_takes_worktrees_of_urls_and_keeps_their_base(
    home: Home, remote: Path
) -> None:
    tree = await home.ensure("t", source=Source(str(remote)))
    (tree.path / "work").write_text("uncommitted\n")
    (gone,) = await home.prune()
    assert gone.branch_removed
    assert list(refs(tree.repo, "refs/agentmux/saved")) == [gone.saved]
    assert refs(tree.repo, "refs/heads") == {}


class _Closed(BaseHTTPRequestHandler):
    code = 401

    def do_GET(self) -> None:
        self.send_response(self.code)
        self.send_header("WWW-Authenticate", "Basic")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def closed() -> Iterator[tuple[str, type[_Closed]]]:
    handler = type("Handler", (_Closed,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}/owner/repo.git", handler
        server.shutdown()
        thread.join()


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of the machine stands between us and the loopback."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("direct")
async def test_where_a_login_is_needed_nobody_is_asked_and_no_secret_is_told(
    home: Home, closed: tuple[str, type[_Closed]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = home.folder / "asked"
    program = home.folder / "askpass"
    program.write_text(f"#!/bin/sh\ntouch {asked}\n")
    program.chmod(0o755)
    monkeypatch.setenv("GIT_ASKPASS", str(program))
    monkeypatch.setenv("SSH_ASKPASS", str(program))
    for url in (f"http://{closed[0]}", f"http://user:s3cret-t0ken@{closed[0]}"):
        with pytest.raises(BadWorkspace, match="without a login") as refusal:
            await home.ensure(source=Source(url))
        assert refusal.value.hopeless
        assert "s3cret-t0ken" not in str(refusal.value)
    assert not asked.exists()


@pytest.mark.usefixtures("direct")
async def test_a_server_in_trouble_is_worth_another_try(
    home: Home, closed: tuple[str, type[_Closed]]
) -> None:
    closed[1].code = 503
    with pytest.raises(WorkspaceError, match="try again") as failure:
        await home.ensure(source=Source(f"http://{closed[0]}"))
    assert not failure.value.hopeless


@pytest.mark.parametrize(
    "url",
    ["--upload-pack=touch ran", "ext::sh -c touch% ran", "ssh://-oProxyCommand=touch%20ran/x"],
)
async def test_a_url_runs_no_program(home: Home, url: str) -> None:
    with pytest.raises(WorkspaceError):
        await home.ensure(source=Source(url))
    assert list(home.folder.rglob("ran")) == []
