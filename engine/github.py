"""GitHub as the program `gh` tells of it: pull requests, issues, comments. Nothing else is asked.

Credentials are gh's own business: none is read or passed here.
https://cli.github.com/manual
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Struct

from engine.clock import from_iso
from engine.errors import AgentmuxError, Code
from engine.processes.calling import call
from engine.secrets import redact
from engine.text import clean_text

if TYPE_CHECKING:
    from datetime import datetime

T = TypeVar("T")

TIMEOUT = 60.0
"""Seconds that a call may take; gh has no limit of its own."""
_SKEW = timedelta(minutes=10)
"""How far the clocks of this machine and of GitHub may be apart."""
_QUIET = {
    "GH_HOST": "github.com",  # that of a repository which names none
    "GH_PROMPT_DISABLED": "1",
    "GH_NO_UPDATE_NOTIFIER": "1",
    "GH_NO_EXTENSION_UPDATE_NOTIFIER": "1",
    "GH_SPINNER_DISABLED": "1",
    "GH_PAGER": "cat",
    "GH_TELEMETRY": "false",
    "NO_COLOR": "1",
}
_LOUD = ("GH_FORCE_TTY", "CLICOLOR_FORCE", "GH_DEBUG", "DEBUG", "GH_REPO")
_REPOSITORY = r"(?P<owner>[A-Za-z0-9._-]+)/(?P<name>[A-Za-z0-9._-]+?)(?:\.git)?/*"
_HOST = r"(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*)"
_URL = re.compile(rf"[a-z+]+://(?:[^/@]*@)?{_HOST}(?::\d+)?/{_REPOSITORY}")
_SCP = re.compile(rf"(?:[^/@:]+@)?{_HOST}:{_REPOSITORY}")
_NO_LOGIN = 4
"""The exit code of a gh that knows no credentials (`gh help exit-codes`)."""
_NO_ISSUE = re.compile("could not resolve to an issue", re.IGNORECASE)
_MOST = 1000
"""Issues that GitHub's search tells at most; `gh issue list --label` asks it."""


class GithubError(AgentmuxError):
    """GitHub cannot be asked. `hopeless`: no retry helps until somebody does what it says."""

    code = Code.IO_ERROR

    def __init__(self, message: str, *, hopeless: bool = False) -> None:
        super().__init__(message)
        self.hopeless = hopeless


class PullRequest(Struct, frozen=True):
    """A pull request: `state` is OPEN, CLOSED or MERGED."""

    number: int
    url: str
    state: str


class Issue(Struct, frozen=True):
    """An issue, with the text that its author gave it."""

    number: int
    title: str
    url: str
    body: str | None = None


class _Label(Struct, frozen=True):
    name: str


class _Comment(Struct, frozen=True, rename="camel"):
    """One comment. A gh that is too old to say who wrote it is believed that we did."""

    body: str
    viewer_did_author: bool = True


class _Seen(Struct, frozen=True):
    """What `gh issue view` tells, as far as it was asked for."""

    state: str = ""
    labels: tuple[_Label, ...] = ()
    comments: tuple[_Comment, ...] = ()


def repository_of(remote: str) -> str | None:
    """Return `[host/]owner/name` of a remote's URL, as gh takes it; None if it is no such URL."""
    found = _URL.fullmatch(remote.strip()) or _SCP.fullmatch(remote.strip())
    if found is None:
        return None
    name = f"{found['owner']}/{found['name']}"
    return name if found["host"].lower() == "github.com" else f"{found['host']}/{name}"


def find_gh() -> str:
    """Return the path of gh.

    Raises:
        GithubError: it is not there.

    """
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    program = shutil.which("gh", path=os.pathsep.join(f for f in folders if f.startswith("/")))
    if program is None:
        raise GithubError(
            "the program gh was not found; install it (https://cli.github.com) and log in with "
            "`gh auth login`",
            hopeless=True,
        )
    return program


async def pull_request(
    repo: str, branch: str, since: datetime, head: str | None = None
) -> PullRequest | None:
    """Return the newest pull request from `branch` of `repo` itself, not of a fork of it.

    One that was opened before `since` is of other work on a branch of the same name, unless its
    newest commit is `head`.

    Raises:
        GithubError: it cannot be asked for.

    """
    fields = "number,url,state,headRefName,headRefOid,createdAt,isCrossRepository"
    words = ("pr", "list", "--repo", repo, "--head", branch, "--state", "all", "--json", fields)
    found = _decoded(await _run(*words), list[dict[str, Any]], words)
    ours = [
        PullRequest(one["number"], one["url"], one["state"])
        for one in found
        if one.get("headRefName") == branch
        and not one.get("isCrossRepository")
        and (_is_as_young(one, since) or (head is not None and one.get("headRefOid") == head))
    ]
    # One that is open, or was taken, counts before one that was turned down.
    ours.sort(key=lambda one: (one.state == "CLOSED", -one.number))
    return ours[0] if ours else None


def _is_as_young(one: dict[str, Any], since: datetime) -> bool:
    try:
        return from_iso(one["createdAt"]) >= since - _SKEW
    except (KeyError, TypeError, ValueError):
        return True  # nobody says


async def issues(repo: str, label: str) -> list[Issue]:
    """Return the open issues of `repo` that have `label`, at most 1000, oldest first.

    Raises:
        GithubError: they cannot be asked for.

    """
    # gh takes the label for a list in CSV.
    quoted = '"' + label.replace('"', '""') + '"'
    words = (
        "issue", "list", "--repo", repo, "--label", quoted, "--state", "open",
        "--limit", str(_MOST), "--json", "number,title,body,url",
    )  # fmt: skip
    found = _decoded(await _run(*words), list[Issue], words)
    return sorted(found, key=lambda issue: issue.number)


async def is_wanted(repo: str, number: int, label: str) -> bool:
    """Say whether an issue is there still, is open and has a label.

    Raises:
        GithubError: it cannot be asked for.

    """
    try:
        found = await _view(repo, number, "state,labels")
    except GithubError as error:
        if _NO_ISSUE.search(str(error)):
            return False
        raise
    return found.state == "OPEN" and label.lower() in {one.name.lower() for one in found.labels}


async def has_comment(repo: str, number: int, mark: str) -> bool:
    """Say whether a text stands in a comment of ours under an issue: anybody could write it.

    Raises:
        GithubError: they cannot be asked for.

    """
    found = await _view(repo, number, "comments")
    return any(mark in one.body for one in found.comments if one.viewer_did_author)


async def comment(repo: str, number: int, text: str) -> None:
    """Write a comment under an issue.

    Raises:
        GithubError: it was not written, as far as can be known.

    """
    await _run("issue", "comment", str(number), "--repo", repo, "--body-file", "-", given=text)


async def _view(repo: str, number: int, fields: str) -> _Seen:
    words = ("issue", "view", str(number), "--repo", repo, "--json", fields)
    return _decoded(await _run(*words), _Seen, words)


def _decoded(out: bytes, kind: type[T], words: tuple[str, ...]) -> T:
    try:
        return msgspec.json.decode(out, type=kind)
    except msgspec.DecodeError as error:
        what = f"gh {words[0]} {words[1]}"
        raise GithubError(f"{what} does not answer as expected: {error}") from error


async def _run(*words: str, given: str = "") -> bytes:
    """Call gh and return what it writes; it is gone when this returns or raises.

    Raises:
        GithubError: it is not there, failed, or took too long.

    """
    program, what = await asyncio.to_thread(find_gh), f"gh {words[0]} {words[1]}"
    try:
        called = await call(
            (program, *words),
            cwd=Path("/"),
            env=_variables(),
            seconds=TIMEOUT,
            given=given.encode(errors="replace"),
        )
    except TimeoutError as error:
        raise GithubError(f"{what} did not answer in {TIMEOUT:g} s") from error
    except OSError as error:
        raise GithubError(f"gh cannot be started: {error.strerror}") from error
    if called.code == 0:
        return called.out
    if called.code == _NO_LOGIN:
        raise GithubError("gh is not logged in: run `gh auth login`", hopeless=True)
    lines = clean_text(redact(called.err, os.environ), newlines=True).strip().splitlines()
    why = lines[0][:300] if lines else f"exit code {called.code}"
    raise GithubError(f"{what} failed: {why}")


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _LOUD} | _QUIET
