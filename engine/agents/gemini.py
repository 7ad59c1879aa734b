"""Reads what Gemini CLI prints with `--output-format stream-json`.

The events are those of `packages/core/src/output/types.ts` in
https://github.com/google-gemini/gemini-cli and of its `docs/cli/headless.md`; the texts of errors
are from `packages/core/src/utils/googleQuotaErrors.ts` and `packages/cli/src/utils/errors.ts`.
No cost is told. Keeps nothing from one line to the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.agents.lines import (
    COMMON,
    JsonReader,
    Signs,
    as_json,
    count,
    fields,
    key_argument,
    text,
    total,
)
from engine.agents.vocabulary import Entry, Kind, Role
from engine.model import Spending

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from engine.agents.lines import Fields, Told

_KEYS: Mapping[str, tuple[str, ...]] = {
    "codebase_investigator": ("objective",),
    "glob": ("pattern",),
    "google_web_search": ("query",),
    "grep_search": ("pattern",),
    "list_directory": ("dir_path", "path"),
    "read_many_files": ("include", "paths"),
    "save_memory": ("fact",),
    "search_file_content": ("pattern",),
    "web_fetch": ("prompt", "url"),
}
"""The key arguments of those tools for which COMMON would find another one."""

trouble_of = Signs(
    login=(
        r"Please set an Auth method|API key not valid|API_KEY_INVALID"
        r"|must specify the GEMINI_API_KEY"
        r"|Manual authorization is required|Invalid auth method|invalid_grant|UNAUTHENTICATED"
        r"|FatalAuthenticationError|UnauthorizedError|\b401 Unauthorized"
    ),
    turns=r"FatalTurnLimitedError|max session turns|Maximum session turns exceeded",
    rate=(
        r"exhausted your (?:daily quota|capacity)|exceeded your current quota|quota will reset"
        r"|RESOURCE_EXHAUSTED|QUOTA_EXHAUSTED|retry (?:in|after) \d|Possible quota limitations"
        r"|Please wait and try again later|\b429\b|rate limit|model is overloaded"
    ),
)
"""Which trouble the text of an error tells of."""


class GeminiReader(JsonReader):
    """Reads the lines of one run; paths below `folder` are shown as seen from there."""

    def __init__(self, folder: str = "") -> None:
        super().__init__(
            {
                "init": _session,
                "message": _message,
                "tool_use": self._call,
                "tool_result": _answer,
                "error": _error,
                "result": _result,
            }
        )
        self._folder = folder

    def _call(self, data: Fields, at: datetime | None) -> Told:
        tool, arguments = text(data.get("tool_name")) or "tool", data.get("parameters")
        words = key_argument(arguments, _KEYS.get(tool, COMMON), self._folder)
        call, detail = text(data.get("tool_id")), as_json(arguments)
        return (Entry(Kind.CALL, words, at, tool=tool, detail=detail, call=call),)


def _session(data: Fields, at: datetime | None) -> Told:
    session, model = text(data.get("session_id")), text(data.get("model"))
    return (Entry(Kind.SESSION, at=at, session=session, model=model),)


def _error(data: Fields, at: datetime | None) -> Told:
    words = text(data.get("message"))
    return (Entry(Kind.ERROR, words or "error", at, trouble=trouble_of(words)),)


def _message(data: Fields, at: datetime | None) -> Told:
    """Return what was said: the prompt, or a piece of what the agent says."""
    words = text(data.get("content"))
    role = Role.USER if data.get("role") == "user" else Role.AGENT
    goes_on = data.get("delta") is True
    return (Entry(Kind.MESSAGE, words, at, role=role, goes_on=goes_on),) if words else ()


def _answer(data: Fields, at: datetime | None) -> Told:
    error = fields(data.get("error"))
    words = text(data.get("output")) or text(error.get("message")) or text(error.get("type"))
    failed = data.get("status") == "error"
    return (Entry(Kind.ANSWER, words, at, call=text(data.get("tool_id")), failed=failed),)


def _result(data: Fields, at: datetime | None) -> Told:
    """Return the last word; what the agent said stands in the messages before it."""
    failed = data.get("status") != "success"
    error = fields(data.get("error"))
    name, words = text(error.get("type")), text(error.get("message"))
    trouble = trouble_of(f"{name}: {words}") if failed else None
    if failed:
        words = words or name or "the model gave no valid answer"
    spending = _spending(fields(data.get("stats")))
    entry = Entry(
        Kind.RESULT, words, at, failed=failed, model=_model(data), spending=spending,
        trouble=trouble,
    )  # fmt: skip
    return (entry,)


def _model(data: Fields) -> str:
    """Return the model that did most of it: at the begin it may be called `auto`."""
    models = fields(fields(data.get("stats")).get("models"))
    took = {name: count(fields(model).get("total_tokens")) or 0 for name, model in models.items()}
    return max(took, key=took.__getitem__, default="")


def _spending(stats: Fields) -> Spending:
    """Return the tokens of all models.

    What was thought is listed nowhere but is part of `total_tokens`, and billed as output: that
    is what is left of the total without the input.
    """
    models = [fields(model) for model in fields(stats.get("models")).values()] or [stats]
    outputs = []
    for model in models:
        read, written = count(model.get("input_tokens")), count(model.get("output_tokens"))
        whole = count(model.get("total_tokens"))
        rest = whole - read if whole is not None and read is not None else 0
        outputs.append(max(written, rest) if written is not None else None)
    return Spending(
        None, total([count(model.get("input_tokens")) for model in models]),
        total([count(model.get("cached")) for model in models]), total(outputs),
    )  # fmt: skip
