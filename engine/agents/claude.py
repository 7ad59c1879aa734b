"""Reads what Claude Code prints with `--output-format stream-json --verbose`.

The lines are those of https://code.claude.com/docs/en/headless and of the message types of
https://code.claude.com/docs/en/agent-sdk/typescript; what is not written there (the texts of
errors) is from https://code.claude.com/docs/en/errors. A line more or less makes no difference
to the next one but for two comforts: a session that begins anew with each turn is told once, and
what was read until now is summed up: each result has turns of its own, there is one more of them
for what a background task gave the agent to do, and the last one's cost and tokens are of all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.agents.lines import (
    COMMON,
    JsonReader,
    Signs,
    as_json,
    count,
    dollars,
    fields,
    items,
    key_argument,
    moment,
    one_line,
    said,
    silent,
    text,
    total,
)
from engine.agents.vocabulary import Entry, Kind, Role, Trouble
from engine.model import Spending

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from engine.agents.lines import Fields, Told

_KEYS: Mapping[str, tuple[str, ...]] = {
    "Agent": ("description",),
    "BashOutput": ("bash_id",),
    "ExitPlanMode": ("plan",),
    "Glob": ("pattern",),
    "Grep": ("pattern",),
    "KillShell": ("shell_id",),
    "LSP": ("operation",),
    "NotebookEdit": ("notebook_path",),
    "Skill": ("skill", "command"),
    "Task": ("description",),
    "WebFetch": ("url",),
    "WebSearch": ("query",),
}
"""The key arguments of those tools for which COMMON would find another one."""
_SILENT = frozenset(
    {
        "active_goal", "autocompact_state", "command_lifecycle", "control_cancel_request",
        "control_request", "control_response", "conversation_reset", "keep_alive",
        "prompt_suggestion", "stream_event", "tool_progress", "tool_use_summary",
    }
)  # fmt: skip
_SILENT_SYSTEM = frozenset(
    {
        "background_tasks_changed", "commands_changed", "compact_boundary",
        "control_request_progress", "elicitation_complete", "files_persisted", "hook_progress",
        "hook_response", "hook_started", "informational", "local_command_output", "memory_recall",
        "mirror_error", "model_refusal_fallback", "notification", "permission_denied",
        "plugin_install", "post_turn_summary", "session_state_changed", "status",
        "task_notification", "task_progress", "task_started", "task_updated", "thinking_tokens",
        "worker_shutting_down",
    }
)  # fmt: skip
"""What says nothing for us; a permission denied is told again as the result of its call."""

_ERRORS: Mapping[str, Trouble] = {
    "rate_limit": Trouble.RATE,
    "overloaded": Trouble.RATE,
    "authentication_failed": Trouble.LOGIN,
    "oauth_org_not_allowed": Trouble.LOGIN,
    "account_on_hold": Trouble.LOGIN,
    "verification_required": Trouble.LOGIN,
    "billing_error": Trouble.LOGIN,
    "cloud_credential_error": Trouble.LOGIN,
}
_STATUS: Mapping[int, Trouble] = {
    401: Trouble.LOGIN, 403: Trouble.LOGIN, 429: Trouble.RATE, 529: Trouble.RATE,
}  # fmt: skip
trouble_of = Signs(
    login=(
        r"Not logged in|Please run /login|Failed to authenticate|Invalid API key"
        r"|Credit balance is too low|OAuth (?:token|session) (?:has )?expired"
        r"|Your organization has disabled Claude|seat type doesn't include"
        r"|usage allocation has been disabled|authentication_error|API Error: 40[13]\b"
    ),
    rate=(
        r"You've (?:hit|reached) your|usage limit reached|out of (?:extra )?usage"
        r"|requires usage credits|group's usage limit|temporarily limiting requests"
        r"|\((?:429|529)\)|\b529 Overloaded|API Error: (?:429|529)\b|rate_limit_error"
        r"|overloaded_error|spend limit reached"
    ),
    turns=r"Reached (?:the )?max(?:imum)?(?: number of)? turns",
)
"""Which trouble the text of an error tells of."""
_THOUGHTS = ("thinking", "redacted_thinking")


class ClaudeReader(JsonReader):
    """Reads the lines of one run; paths below `folder` are shown as seen from there."""

    def __init__(self, folder: str = "") -> None:
        super().__init__(
            dict.fromkeys(_SILENT, silent)
            | {
                "assistant": self._agent,
                "user": _user,
                "system": self._system,
                "rate_limit_event": _limit,
                "auth_status": _login,
                "result": self._result,
            }
        )
        self._folder = folder
        self._session = ("", "")
        self._counted: dict[str, str] = {}
        self._turns = self._read = self._cached = 0
        self._over: int | None = None

    def _agent(self, data: Fields, at: datetime | None) -> Told:
        message = data.get("message")
        if not isinstance(message, dict):
            return None
        parent, content = text(data.get("parent_tool_use_id")), message.get("content")
        spending = self._spent(message, parent)
        error = text(data.get("error"))
        if message.get("model") == "<synthetic>" or data.get("is_api_error_message") is True:
            # The CLI speaks in the agent's name, to say what went wrong.
            words = said(content)
            trouble = _ERRORS.get(error) or trouble_of(words)
            if error or trouble or data.get("is_api_error_message") is True:
                return (Entry(Kind.ERROR, words or error, at, parent=parent, trouble=trouble),)
        entries = tuple(
            [
                _block(block, Role.AGENT, at, parent, self._folder, spending)
                for block in _blocks(content)
                if not (isinstance(block, dict) and _is_silent(block))
            ]
        )
        if error:
            trouble = _ERRORS.get(error)
            return (*entries, Entry(Kind.ERROR, error, at, parent=parent, trouble=trouble))
        return entries

    def _spent(self, message: Fields, parent: str) -> Spending | None:
        """Return what was read until now: each block of a message is a line with the same usage.

        Its `output_tokens` are not those of the message (they stand there before it is written),
        so nothing is said of them until the result.
        """
        name, usage = text(message.get("id")), message.get("usage")
        if name and isinstance(usage, dict) and self._counted.get(parent) != name:
            self._counted[parent] = name
            spent = _usage(usage)
            self._turns += not parent
            self._read += spent.input_tokens or 0
            self._cached += spent.cached_tokens or 0
        return Spending(self._turns, self._read, self._cached) if self._counted else None

    def _system(self, data: Fields, at: datetime | None) -> Told:
        kind = text(data.get("subtype"))
        if kind == "init":
            session = text(data.get("session_id")), text(data.get("model"))
            if session == self._session:
                return ()
            self._session = session
            where = text(data.get("cwd"))
            return (Entry(Kind.SESSION, where, at, session=session[0], model=session[1]),)
        if kind == "api_retry":
            return (_retry(data, at),)
        if kind == "model_refusal_no_fallback":
            return (Entry(Kind.ERROR, "the model refuses to answer", at),)
        if kind == "session_writes_lost":
            words = f"the session could not be saved: {text(data.get('error_code'))}"
            return (Entry(Kind.ERROR, words, at),)
        return () if kind in _SILENT_SYSTEM else None

    def _result(self, data: Fields, at: datetime | None) -> Told:
        turns = [self._over, count(data.get("num_turns"))]
        self._over = total(turns)
        return (_result(data, at, self._over),)


def _user(data: Fields, at: datetime | None) -> Told:
    """Return what tools gave back, or what was said to the agent."""
    message = data.get("message")
    if not isinstance(message, dict):
        return None
    parent, blocks = text(data.get("parent_tool_use_id")), _blocks(message.get("content"))
    return tuple([_block(block, Role.USER, at, parent) for block in blocks])


def _login(data: Fields, at: datetime | None) -> Told:
    words = text(data.get("error"))
    return (Entry(Kind.ERROR, words, at, trouble=Trouble.LOGIN),) if words else ()


def _blocks(content: object) -> Sequence[object]:
    return [content] if isinstance(content, str) else items(content)


def _is_silent(block: Fields) -> bool:
    """Say whether a block is a thought whose words are kept from us."""
    return block.get("type") in _THOUGHTS and not block.get("thinking")


def _block(
    block: object,
    role: Role,
    at: datetime | None,
    parent: str,
    folder: str = "",
    spending: Spending | None = None,
) -> Entry:
    if isinstance(block, str):
        return Entry(Kind.MESSAGE, block, at, role=role, parent=parent, spending=spending)
    data = fields(block)
    kind = text(data.get("type"))
    if kind == "text" or (kind == "thinking" and role is Role.AGENT):
        role = Role.THOUGHT if kind == "thinking" else role
        words = text(data.get(kind))
        return Entry(Kind.MESSAGE, words, at, role=role, parent=parent, spending=spending)
    if kind.endswith("tool_use"):
        tool, arguments = text(data.get("name")) or "tool", data.get("input")
        names = _KEYS.get(tool, COMMON)
        words = _plan(arguments) if tool == "TodoWrite" else key_argument(arguments, names, folder)
        return Entry(
            Kind.CALL, words, at, tool=tool, detail=as_json(arguments),
            call=text(data.get("id")), parent=parent, spending=spending,
        )  # fmt: skip
    if kind.endswith("tool_result"):
        return Entry(
            Kind.ANSWER, said(data.get("content")), at, call=text(data.get("tool_use_id")),
            parent=parent, failed=data.get("is_error") is True,
        )  # fmt: skip
    if kind in {"image", "document"}:
        return Entry(Kind.MESSAGE, f"[{kind}]", at, role=role, parent=parent, spending=spending)
    return Entry(Kind.UNKNOWN, as_json(block), at, parent=parent, spending=spending)


def _plan(arguments: object) -> str:
    """Say how far the agent's own list is, and what it is at."""
    steps = [fields(step) for step in items(fields(arguments).get("todos"))]
    done = sum(step.get("status") == "completed" for step in steps)
    now = [text(step.get("content")) for step in steps if step.get("status") == "in_progress"]
    return one_line(f"{done} of {len(steps)} done" + (f": {now[0]}" if now else ""))


def _retry(data: Fields, at: datetime | None) -> Entry:
    """Tell that the API did not answer and is asked again."""
    error, status = text(data.get("error")) or "unknown", count(data.get("error_status"))
    wait = count(data.get("retry_delay_ms"))
    words = f"the API said {error}" + (f" ({status})" if status else "")
    words += f"; attempt {count(data.get('attempt')) or '?'}"
    words += f" of {count(data.get('max_retries')) or '?'} failed"
    words += f", the next one in {wait / 1000:.1f} s" if wait is not None else ""
    return Entry(Kind.ERROR, words, at, trouble=_ERRORS.get(error) or _STATUS.get(status or 0))


def _limit(data: Fields, at: datetime | None) -> Told:
    """Tell of a limit that is reached; `resetsAt` is in Unix seconds."""
    info = fields(data.get("rate_limit_info"))
    if info.get("status") != "rejected":
        return ()
    kind = text(info.get("rateLimitType")).replace("_", " ")
    words = f"the {kind} limit is reached" if kind else "a usage limit is reached"
    until = moment(info.get("resetsAt"))
    return (Entry(Kind.ERROR, words, at, trouble=Trouble.RATE, until=until),)


def _result(data: Fields, at: datetime | None, turns: int | None) -> Entry:
    """Return the last word; `success` as its subtype does not mean that there was no error."""
    kind = text(data.get("subtype"))
    error = data.get("is_error")
    failed = error if isinstance(error, bool) else kind != "success"
    words = text(data.get("result")) or "\n".join(
        filter(None, map(text, items(data.get("errors"))))
    )
    trouble = None
    if failed:
        words = words or kind.replace("_", " ")
        status = count(data.get("api_error_status")) or 0
        ended = kind == "error_max_turns" or data.get("terminal_reason") == "max_turns"
        trouble = Trouble.TURNS if ended else trouble_of(words) or _STATUS.get(status)
    return Entry(
        Kind.RESULT, words, at, failed=failed, session=text(data.get("session_id")),
        spending=_spending(data, turns), trouble=trouble,
    )  # fmt: skip


def _spending(data: Fields, turns: int | None) -> Spending:
    """Return the totals: `modelUsage` has those of subagents too, `usage` has not."""
    models = [fields(model) for model in fields(data.get("modelUsage")).values()]
    spent = _usage(fields(data.get("usage")))
    if models:
        cached = [count(model.get("cacheReadInputTokens")) for model in models]
        fresh = [
            count(model.get(name))
            for model in models
            for name in ("inputTokens", "cacheCreationInputTokens")
        ]
        output = total([count(model.get("outputTokens")) for model in models])
        spent = Spending(None, total([*fresh, *cached]), total(cached), output)
    elif not spent.input_tokens:
        # A turn that was interrupted: what was told before it stays.
        spent = Spending()
    cost = dollars(data.get("total_cost_usd"))
    return Spending(turns, spent.input_tokens, spent.cached_tokens, spent.output_tokens, cost)


def _usage(usage: Fields) -> Spending:
    cached = count(usage.get("cache_read_input_tokens"))
    fresh = count(usage.get("input_tokens")), count(usage.get("cache_creation_input_tokens"))
    return Spending(None, total([*fresh, cached]), cached, count(usage.get("output_tokens")))
