"""How an agent's run ended: from its exit code, its own last word, and what it told before.

Neither alone is enough: a CLI that was interrupted may exit with 0 (Gemini does), one that says
`success` may mean an error (Claude Code does), and one that is killed says nothing at all. What
is done about it is the executor's.
"""

from __future__ import annotations

import signal
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.agents import claude, codex, gemini
from engine.agents.limits import FARTHEST, reset_time
from engine.agents.vocabulary import Trouble
from engine.text import clean_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, tzinfo

    from engine.agents.lines import Signs
    from engine.agents.summary import Summary


class VerdictKind(StrEnum):
    """How a run ended."""

    DONE = "done"
    FAILED = "failed"
    LATER = "later"
    """Too much was asked for; nothing is wrong with the task."""
    TURNS = "turns"
    """The agent was cut off by a limit of its own."""
    LOGIN = "login"
    """The CLI is not logged in: no task of this agent can do anything."""


class Verdict(Struct, frozen=True):
    """How a run ended. `error` is a sentence for people, `not_before` when a limit is over."""

    kind: VerdictKind
    error: str | None = None
    not_before: datetime | None = None


_LONGEST = 600
"""Characters of what a CLI says of an error."""

_SIGNS: Mapping[str, Signs] = {
    "claude": claude.trouble_of,
    "codex": codex.trouble_of,
    "gemini": gemini.trouble_of,
}
"""Formats with a last word. Without one it must not be taken for success."""

_TROUBLES: Mapping[tuple[str, int], Trouble] = {
    ("gemini", 41): Trouble.LOGIN,
    ("gemini", 53): Trouble.TURNS,
    # An error of the API is its HTTP status, of which the system keeps the last eight bits.
    ("gemini", 401 % 256): Trouble.LOGIN,
    ("gemini", 403 % 256): Trouble.LOGIN,
    ("gemini", 429 % 256): Trouble.RATE,
}
"""https://github.com/google-gemini/gemini-cli, `packages/core/src/utils/exitCodes.ts`."""
_MEANINGS: Mapping[tuple[str, int], str] = {
    ("codex", 2): "it does not know one of its arguments; look at `args` in agentmux.yaml",
    ("gemini", 42): "it could not use its prompt (a leading / is one of its commands) or arguments",
    ("gemini", 44): "its sandbox could not be started",
    ("gemini", 52): "its settings are wrong",
    ("gemini", 54): "a tool failed for good (is the disk full?)",
    ("gemini", 55): "it does not trust the folder; set GEMINI_CLI_TRUST_WORKSPACE=true",
}
_SIGNALS = frozenset({129, 130, 134, 137, 139, 143})
"""What shells and wrappers exit with for HUP, INT, ABRT, KILL, SEGV and TERM."""


def judge(
    format: str,  # noqa: A002 - the setting's name
    exit_code: int,
    summary: Summary,
    stderr_tail: str,
    now: datetime,
    zone: tzinfo | None = None,
) -> Verdict:
    """Say how a run ended.

    `exit_code` is negative for a signal, as of `asyncio` processes. `stderr_tail` is the end of
    what the CLI wrote there. A time without a zone is one of `zone` (None: this machine's).
    """
    result = summary.result
    succeeded = exit_code == 0 and (
        format not in _SIGNS or (result is not None and not result.failed)
    )
    if succeeded:
        if summary.trouble is Trouble.TURNS:
            return Verdict(VerdictKind.TURNS, _sentence(Trouble.TURNS, summary.error))
        if format == "claude" and not (summary.answer or summary.tools):
            return Verdict(VerdictKind.FAILED, "the agent said and did nothing")
        return Verdict(VerdictKind.DONE)
    told = _last_words(summary, stderr_tail)
    by = _signal(exit_code)
    if by is None and (trouble := _trouble(format, exit_code, summary, stderr_tail)):
        error = _sentence(trouble, told)
        if trouble is Trouble.RATE:
            return Verdict(
                VerdictKind.LATER, error, _until(summary, f"{told}\n{stderr_tail}", now, zone)
            )
        kind = VerdictKind.TURNS if trouble is Trouble.TURNS else VerdictKind.LOGIN
        return Verdict(kind, error)
    return Verdict(VerdictKind.FAILED, _failure(format, exit_code, by, summary, told))


def _trouble(form: str, exit_code: int, summary: Summary, stderr_tail: str) -> Trouble | None:
    """Say what kind of trouble a failed run was in, if it is one that we know."""
    result, signs = summary.result, _SIGNS.get(form)
    if result is not None and not result.failed:
        return None
    trouble = (result and result.trouble) or summary.trouble or _TROUBLES.get((form, exit_code))
    if trouble is None and result is None and signs is not None:
        trouble = signs(stderr_tail)
    return trouble


def _until(summary: Summary, told: str, now: datetime, zone: tzinfo | None) -> datetime | None:
    """Return when a limit is over: what was said in a number counts before what was in words."""
    until = summary.until
    if until is not None and now <= until <= now + FARTHEST:
        return until
    return reset_time(told, now, zone)


def _signal(exit_code: int) -> str | None:
    """Return the name of the signal that ended a process."""
    number = -exit_code if exit_code < 0 else exit_code - 128 if exit_code in _SIGNALS else 0
    try:
        return signal.Signals(number).name if number else None
    except ValueError:
        return f"signal {number}"


def _last_words(summary: Summary, stderr_tail: str) -> str:
    """Return what was said of the end: by the result, else as an error, else on stderr."""
    result = summary.result
    if result is not None and result.failed and result.text:
        return result.text
    lines = [line for line in stderr_tail.splitlines() if line.strip()]
    return (summary.error if result is None else "") or (lines[-1] if lines else "")


def _sentence(trouble: Trouble, told: str) -> str:
    what = {
        Trouble.RATE: "the agent's limit is reached",
        Trouble.TURNS: "the agent used up its turns; allow it more, or make the task smaller",
        Trouble.LOGIN: "the agent's CLI is not logged in, or not allowed to work",
    }[trouble]
    return _with(what, told)


def _failure(form: str, exit_code: int, by: str | None, summary: Summary, told: str) -> str:
    """Say how a run failed that met no trouble which we know."""
    result = summary.result
    ended = f"was ended by {by}" if by else f"exited with {exit_code}"
    if meaning := _MEANINGS.get((form, exit_code)):
        return _with(f"the agent's CLI exited with {exit_code}: {meaning}", told)
    if form not in _SIGNS:
        what = f"the agent's program {ended}"
    elif result is None:
        what = f"the agent's CLI {ended} without a result"
    elif result.failed:
        what = "the agent failed"
    else:
        what = f"the agent's CLI gave its result, but {ended}"
    return _with(what, told) if told.strip() else f"{what}; see its transcript and stderr.log"


def _with(what: str, told: str) -> str:
    told = clean_text(told[: _LONGEST * 4]).strip()
    told = told if len(told) <= _LONGEST else told[: _LONGEST - 1] + "…"
    return f"{what}: {told}" if told else what
