"""Reads what Codex CLI prints with `codex exec --json`.

The events are those of `codex-rs/exec/src/exec_events.rs` in https://github.com/openai/codex and
of https://developers.openai.com/codex/noninteractive; the texts of errors are from
`codex-rs/protocol/src/error.rs`. There are no times and no costs in them; what is cumulative
(`usage`) is so for the whole thread. Keeps nothing from one line to the next.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from engine.agents.lines import (
    COMMON,
    JsonReader,
    Signs,
    as_json,
    count,
    fields,
    items,
    key_argument,
    one_line,
    said,
    silent,
    text,
)
from engine.agents.vocabulary import Entry, Kind, Role
from engine.model import Spending

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from engine.agents.lines import Fields, Told

trouble_of = Signs(
    login=(
        r"\b401 Unauthorized|Not logged in|access token could not be refreshed"
        r"|Missing environment variable|out of credits|spend cap|Quota exceeded"
        r"|To use Codex with your ChatGPT plan"
        r"|Please (?:log|sign) ?(?:in|out)"
    ),
    rate=(
        r"hit your usage limit|usage limit reached|\b429 Too Many Requests|last status: 429"
        r"|Rate limit reached|rate_limit_exceeded|model is at capacity"
        r"|experiencing high demand"
    ),
    turns=r"rollout token budget exhausted",
)
"""Which trouble the text of an error tells of."""
_SHELL = re.compile(r"(?:/\S*/)?(?:ba|z|da)?sh -l?i?c (?P<script>.+)", re.DOTALL)
_ESCAPED = re.compile(r"\\([\"\\$`])")
_CALLS: Mapping[str, str] = {
    "collab_tool_call": "agent",
    "command_execution": "shell",
    "file_change": "edit",
    "mcp_tool_call": "mcp",
    "todo_list": "plan",
    "web_search": "web_search",
}
"""What items that are calls are shown as, unless they name a tool themselves."""
_SPOKEN: Mapping[str, Role] = {"agent_message": Role.AGENT, "reasoning": Role.THOUGHT}
_TEXTS = frozenset({*_SPOKEN, "error"})
"""Items that are told when they are complete."""


class CodexReader(JsonReader):
    """Reads the lines of one run; paths below `folder` are shown as seen from there."""

    def __init__(self, folder: str = "") -> None:
        super().__init__(
            {
                "thread.started": _session,
                "turn.started": silent,
                "item.started": self._begun,
                "item.updated": self._updated,
                "item.completed": _over,
                "error": _error,
                "turn.completed": _completed,
                "turn.failed": _failed,
            }
        )
        self._folder = folder

    def _begun(self, data: Fields, at: datetime | None) -> Told:
        item = fields(data.get("item"))
        kind = text(item.get("type"))
        if kind in _CALLS:
            return (self._call(item, kind, at),)
        return () if kind in _TEXTS else None

    def _updated(self, data: Fields, at: datetime | None) -> Told:
        """Take a list that is written anew as a call of its own."""
        kind = text(fields(data.get("item")).get("type"))
        if kind in _CALLS and kind != "todo_list":
            return ()
        return self._begun(data, at)

    def _call(self, item: Fields, kind: str, at: datetime | None) -> Entry:
        detail = {key: value for key, value in item.items() if key not in _OUTCOME}
        return Entry(
            Kind.CALL, self._key(item, kind), at, tool=_tool(item, kind),
            detail=as_json(detail), call=text(item.get("id")),
        )  # fmt: skip

    def _key(self, item: Fields, kind: str) -> str:
        if kind == "command_execution":
            return one_line(_script(text(item.get("command"))), self._folder)
        if kind == "file_change":
            paths = [text(fields(change).get("path")) for change in items(item.get("changes"))]
            return one_line(", ".join(one_line(path, self._folder) for path in paths[:20]))
        if kind == "todo_list":
            return _plan(items(item.get("items")))
        if kind == "web_search":
            action = fields(item.get("action"))
            return one_line(text(item.get("query")) or key_argument(action, ("query", "url")))
        if kind == "collab_tool_call":
            return one_line(text(item.get("prompt")))
        return key_argument(item.get("arguments"), COMMON, self._folder)


_OUTCOME = frozenset(
    {"id", "type", "status", "aggregated_output", "exit_code", "result", "error", "agents_states"}
)
"""What is known of an item only when it is over."""


def _session(data: Fields, at: datetime | None) -> Told:
    return (Entry(Kind.SESSION, at=at, session=text(data.get("thread_id"))),)


def _completed(data: Fields, at: datetime | None) -> Told:
    spending = _spending(fields(data.get("usage")))
    return (Entry(Kind.RESULT, at=at, spending=spending),)


def _failed(data: Fields, at: datetime | None) -> Told:
    words = text(fields(data.get("error")).get("message")) or "the turn failed"
    return (Entry(Kind.RESULT, words, at, failed=True, trouble=trouble_of(words)),)


def _error(data: Fields, at: datetime | None) -> Told:
    """Tell of an error: each lost connection is one, and so is what the turn will fail with."""
    words = text(data.get("message"))
    return (Entry(Kind.ERROR, words or "error", at, trouble=trouble_of(words)),)


def _over(data: Fields, at: datetime | None) -> Told:
    item = fields(data.get("item"))
    kind, words = text(item.get("type")), text(item.get("text"))
    if kind in _SPOKEN:
        return (Entry(Kind.MESSAGE, words, at, role=_SPOKEN[kind]),) if words else ()
    if kind == "error":
        # A warning, never the end: no trouble is read into it.
        return (Entry(Kind.ERROR, text(item.get("message")) or "error", at),)
    if kind == "todo_list":
        return ()
    return (_answer(item, kind, at),) if kind in _CALLS else None


def _tool(item: Fields, kind: str) -> str:
    if kind == "mcp_tool_call":
        return f"{text(item.get('server'))}.{text(item.get('tool'))}"
    if kind == "collab_tool_call":
        return text(item.get("tool")) or _CALLS[kind]
    return _CALLS[kind]


def _script(command: str) -> str:
    """Return the script of `/bin/bash -lc 'script'`: every command is run so."""
    wrapped = _SHELL.fullmatch(command)
    if wrapped is None:
        return command
    script = wrapped["script"]
    quote, inner = script[:1], script[1:-1]
    if len(script) > 1 and script[-1] == quote:
        if quote == "'" and "'" not in inner:
            return inner
        if quote == '"':
            return _ESCAPED.sub(r"\1", inner)
    return script


def _answer(item: Fields, kind: str, at: datetime | None) -> Entry:
    status = text(item.get("status"))
    code = count(item.get("exit_code"))
    failed = status in {"failed", "declined"} or bool(code)
    words = ""
    if kind == "command_execution":
        words = text(item.get("aggregated_output"))
    elif kind == "mcp_tool_call":
        words = text(fields(item.get("error")).get("message"))
        words = words or said(fields(item.get("result")).get("content"))
    elif kind == "file_change":
        words = "\n".join(
            f"{text(fields(change).get('kind'))} {text(fields(change).get('path'))}"
            for change in items(item.get("changes"))
        )
    elif kind == "web_search":
        words = text(item.get("query"))
    if failed and not words:
        words = f"{status or 'failed'}" + (f", exit code {code}" if code else "")
    return Entry(
        Kind.ANSWER, words, at, tool=_tool(item, kind), call=text(item.get("id")), failed=failed
    )


def _plan(steps: object) -> str:
    """Say how far the agent's own list is, and what comes next in it."""
    listed = [fields(step) for step in items(steps)]
    open_steps = [text(step.get("text")) for step in listed if step.get("completed") is not True]
    words = f"{len(listed) - len(open_steps)} of {len(listed)} done"
    return one_line(f"{words}: {open_steps[0]}" if open_steps else words)


def _spending(usage: Fields) -> Spending:
    """Return the tokens: what was cached is part of the input, what was reasoned of the output."""
    return Spending(
        None, count(usage.get("input_tokens")), count(usage.get("cached_input_tokens")),
        count(usage.get("output_tokens")),
    )  # fmt: skip
