"""How an agent's run ended: its verdict, what was expected of it, and what it leaves."""

from __future__ import annotations

import asyncio
import os
import random
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.agents.verdict import Verdict, VerdictKind, judge
from engine.executors.agent.watching import STOP
from engine.executors.programs import Refused, tail
from engine.github import GithubError, pull_request, repository_of
from engine.machine import backoff
from engine.model import Outcome, RunOutcome
from engine.secrets import redact
from engine.text import clean_text
from engine.workspaces import WorkspaceError, look

if TYPE_CHECKING:
    from datetime import datetime

    from engine.executors.agent.following import Follower
    from engine.executors.agent.planning import Plan
    from engine.executors.base import RunContext
    from engine.github import PullRequest
    from engine.workspaces import Look, Place, Worktree

STOPPED = f"stopped by a file {STOP} in its worktree; retry the task to go on from there"

_TELLING = re.compile(
    r"(?<!\b0 )errors?\b(?!-)|\bERR!|\b(?:fatal|failed|cannot|denied|not found|no such)\b",
    re.IGNORECASE,
)
_LONGEST_TEXT = 65_536
_PATIENCE = timedelta(minutes=5)
"""How long a limit lasts of which nobody says how long."""
_SPREAD = 30.0
"""Seconds over which runs begin again that wait for the same moment."""
_AGAIN = 3.0
"""Seconds until GitHub is asked a second time: no hour of work shall be lost for a hiccup."""


class End(Struct, frozen=True):
    """How the CLI's program ended: its exit code, after how many ms.

    `stopped` by a file STOP; `through`: it had given its result and did not end by itself; `vain`:
    it waited for a limit of its own to be over, and would have done so beyond its time.
    """

    code: int
    took: int
    stopped: bool = False
    through: bool = False
    vain: bool = False


def telling_line(said: str) -> str:
    """Return the line of a program's last words that says why it failed; empty if there is none.

    The first that speaks of an error: what follows that is often where to read more of it. Else
    the last.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in lines if _TELLING.search(line)), lines[-1] if lines else "")


async def report(
    context: RunContext,
    plan: Plan,
    place: Place,
    worktree: Worktree,
    follower: Follower,
    end: End,
) -> Outcome:
    """Return how a run ended."""
    stderr = await asyncio.to_thread(tail, context.artifacts / "stderr.log", plan.variables)
    result = _result(plan, worktree, follower, end)
    spent = follower.spending
    now = context.clock.now()
    # As it would have ended by itself: the signal was ours.
    code = 0 if end.through else 1 if end.vain else end.code
    verdict = judge(plan.cli.format, code, follower.summary, stderr, now)
    if verdict.kind is VerdictKind.DONE:
        try:
            missing = await _expected(plan, place, worktree, result)
        except Refused as refusal:
            return Outcome(RunOutcome.BLOCKED, result, str(refusal), end.code, spent)
        kind = RunOutcome.FAILED if missing else RunOutcome.DONE
        return Outcome(kind, result, missing, end.code, spent)
    if end.stopped:
        return Outcome(RunOutcome.BLOCKED, result, STOPPED, end.code, spent)
    error = redact(verdict.error or "", plan.variables)
    if verdict.kind is VerdictKind.LOGIN and plan.cli.login is not None:
        error = f"{error}; {plan.cli.login.hint}"
    later = _later(verdict, worktree, now)
    if later is None and verdict.kind is not VerdictKind.LOGIN:
        return Outcome(RunOutcome.FAILED, result, error, end.code, spent)
    holds = verdict.kind is not VerdictKind.TURNS
    return Outcome(RunOutcome.RELEASED, result, error, end.code, spent, later, holds)


def _result(plan: Plan, worktree: Worktree, follower: Follower, end: End) -> dict[str, Any]:
    summary = follower.summary
    result: dict[str, Any] = {
        "text": _text(summary.answer, plan),
        "exitCode": end.code,
        "durationMs": end.took,
        "cli": plan.cli.name,
        "workspace": str(worktree.path),
        "branch": worktree.branch,
        "base": worktree.base,
        "baseRef": worktree.base_ref,
        "behind": worktree.behind,
        "session": clean_text(summary.session) or None,
        "model": clean_text(summary.model) or None,
        "messages": summary.messages,
        "toolUses": summary.calls,
        "errors": summary.errors,
        "unknownLines": summary.unknown,
        "note": "the CLI gave its result and did not end: it was ended" if end.through else None,
    }
    return {name: value for name, value in result.items() if value is not None}


def _text(answer: str, plan: Plan) -> str:
    # Once more as a whole: a secret may have come in pieces.
    text = redact(clean_text(answer, newlines=True), plan.variables)
    left = len(text) - _LONGEST_TEXT
    return text if left <= 0 else f"{text[:_LONGEST_TEXT]}\n[agentmux: {left} characters left out]"


def _later(verdict: Verdict, worktree: Worktree, now: datetime) -> datetime | None:
    """Return when the same attempt may go on, None if it may not, or not by itself."""
    if verdict.kind is VerdictKind.LATER:
        spread = timedelta(seconds=random.uniform(1, _SPREAD))
        return max(verdict.not_before or now + _PATIENCE, now) + spread
    if verdict.kind is VerdictKind.TURNS and worktree.made:
        # Its work is there, and the next run goes on from it; but who uses up his turns again
        # might do so for ever.
        return now + timedelta(seconds=backoff(1, random.random()))
    return None


async def _expected(
    plan: Plan, place: Place, worktree: Worktree, result: dict[str, Any]
) -> str | None:
    """Note what came of the work; return what is missing of what was expected.

    Raises:
        Refused: it cannot be known until somebody does what the text says.

    """
    try:
        found = await look(place, worktree)
    except WorkspaceError as error:
        return f"its worktree cannot be looked at: {error}"
    result["commits"] = found.commits
    if found.head is not None:
        result["head"] = found.head
    else:
        notes = (result.get("note"), "it ended on a branch that has no commit")
        result["note"] = "; ".join(filter(None, notes))
    wanted = plan.expected
    if wanted.commit and not found.commits:
        return f"expected a commit, and {worktree.branch} has none"
    if wanted.file is not None and not await asyncio.to_thread(_is_there, worktree, wanted.file):
        return f"expected the file {clean_text(wanted.file)}, and it is not there"
    if wanted.pull_request:
        return await _pull_request(worktree, found, result)
    return None


def _is_there(worktree: Worktree, name: str) -> bool:
    """Say whether there is such a file in a worktree, wherever links lead."""
    # Not the methods of Path: they raise for a name that is too long, or a folder that is closed.
    path, root = os.path.realpath(worktree.path / name), os.path.realpath(worktree.path)
    return path.startswith(f"{root}{os.sep}") and os.path.isfile(path)  # noqa: PTH113 - see above


async def _pull_request(worktree: Worktree, found: Look, result: dict[str, Any]) -> str | None:
    repo = repository_of(found.origin) if found.origin is not None else None
    if repo is None:
        return "expected a pull request, and its repository has no origin on GitHub"
    try:
        pull = await _ask(repo, worktree.branch, found)
    except GithubError as error:
        told = f"expected a pull request, and GitHub cannot be asked for it: {error}"
        if error.hopeless:
            raise Refused(told) from error
        return told
    if pull is None:
        return f"expected a pull request from {worktree.branch}, and {repo} has none"
    result["pullRequest"] = {"number": pull.number, "url": pull.url, "state": pull.state}
    return None


async def _ask(repo: str, branch: str, found: Look) -> PullRequest | None:
    # What earlier attempts left under the same name is none of this one.
    wanted = (repo, branch, found.since, found.head if found.commits else None)
    try:
        return await pull_request(*wanted)
    except GithubError as error:
        if error.hopeless:
            raise
    await asyncio.sleep(_AGAIN)
    return await pull_request(*wanted)
