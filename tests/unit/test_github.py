"""Promises of the door to GitHub: whose repository a URL names, and what is written to people."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
from support.patience import PATIENCE

from engine.github import GithubError, issues, repository_of
from engine.issues import comment_of
from engine.processes.signalling import identify

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("remote", "name"),
    [
        ("https://github.com/acme/site.git", "acme/site"),
        ("https://github.com/acme/site", "acme/site"),
        ("https://github.com/acme/site/", "acme/site"),
        ("https://user:secret@github.com/acme/site.git", "acme/site"),
        ("git@github.com:acme/site.git", "acme/site"),
        ("ssh://git@github.com/acme/site.git", "acme/site"),
        ("ssh://git@ghe.example.org:22/acme/site.git", "ghe.example.org/acme/site"),
        ("git@ghe.example.org:acme/my.site.git", "ghe.example.org/acme/my.site"),
        ("/srv/git/site.git", None),
        ("../site", None),
        ("https://github.com/acme", None),
        ("", None),
    ],
)
def test_the_repository_of_a_remote(remote: str, name: str | None) -> None:
    assert repository_of(remote) == name


def test_a_comment_says_where_the_work_is_and_calls_nobody() -> None:
    pull = {"number": 7, "url": "https://github.com/acme/site/pull/7"}
    text = "Thanks @octocat, mail me@example.org.\x1b[31m"
    said = comment_of({"pullRequest": pull, "text": text, "commits": 2})
    assert said == (
        "Done by an agent.\n\nPull request: https://github.com/acme/site/pull/7\n\n"
        "Thanks @\u200boctocat, mail me@example.org.\n"
    )
    assert comment_of({"branch": "agentmux/a/1", "commits": 2}) == (
        "Done by an agent.\n\nBranch: `agentmux/a/1`, commits: 2. agentmux pushes nothing:"
        " unless the agent did, the branch is only on the machine that it worked on.\n"
    )
    assert comment_of({}) == "Done by an agent.\n"


@pytest.mark.parametrize(
    ("script", "sentence", "hopeless"),
    [
        ("exit 4", "gh is not logged in: run `gh auth login`", True),
        ("echo 'HTTP 502\n\n' >&2; exit 1", "gh issue list failed: HTTP 502", False),
        ("exit 3", "gh issue list failed: exit code 3", False),
        ("echo nonsense", "gh issue list does not answer as expected: ", False),
        ('echo \'[{"number": "x"}]\'', "gh issue list does not answer as expected: ", False),
        ('echo "no $GH_TOKEN" >&2; exit 1', "gh issue list failed: no [GH_TOKEN]", False),
        ('echo "$GH_HOST$DEBUG" >&2; exit 1', "gh issue list failed: github.com", False),
        ("printf '\\033[2Jno' >&2; exit 1", "gh issue list failed: no", False),
    ],
)
async def test_what_gh_cannot_do_is_told_harmless_and_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, sentence: str, hopeless: bool
) -> None:
    put_gh(tmp_path, monkeypatch, script)
    monkeypatch.setenv("GH_TOKEN", "sesame-opens-the-door")
    monkeypatch.setenv("GH_HOST", "ghe.example.org")
    monkeypatch.setenv("DEBUG", "api")
    with pytest.raises(GithubError) as failed:
        await issues("acme/site", "agentmux")
    assert str(failed.value).startswith(sentence)
    assert failed.value.hopeless is hopeless


async def test_what_gh_leaves_running_is_ended_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_gh(tmp_path, monkeypatch, f"sleep 600 & echo $! > {tmp_path}/left; echo '[]'")
    assert await issues("acme/site", "agentmux") == []
    left = int((tmp_path / "left").read_text())
    async with asyncio.timeout(PATIENCE):
        while identify(left) is not None:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


def put_gh(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "gh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
