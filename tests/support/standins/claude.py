"""A stand-in for Claude Code: `claude -p --output-format stream-json --verbose`.

Lines, texts of errors and exit codes as in https://code.claude.com/docs/en/headless,
.../cli-reference and .../errors.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any, NoReturn

from support.standins.scenarios import Speaker, Use, act, arguments, piped, refuse

_VALUES = {
    "--model", "--permission-mode", "--max-turns", "--allowedTools", "--disallowedTools",
    "--append-system-prompt", "--output-format", "--settings", "--add-dir", "--mcp-config",
}  # fmt: skip
_FLAGS = {"-p", "--print", "--verbose"}
_MODES = ("default", "acceptEdits", "plan", "auto", "dontAsk", "bypassPermissions")
_TOOLS = {
    "read": ("Read", "file_path"),
    "edit": ("Edit", "file_path"),
    "shell": ("Bash", "command"),
}


class Claude(Speaker):
    on_term = 143

    def begin(self, prompt: str) -> None:
        del prompt  # It is not echoed.
        hook = {"hook_id": "h1", "hook_name": "SessionStart:startup", "hook_event": "SessionStart"}
        self._system("hook_started", **hook)
        self._system("hook_response", **hook, output="", exit_code=0, outcome="success")
        self._system(
            "init", cwd=self.place, tools=["Bash", "Edit", "Read", "Task"], mcp_servers=[],
            model=self.model, permissionMode="acceptEdits", apiKeySource="none",
            claude_code_version="2.1.0-standin", output_style="default", slash_commands=[],
        )  # fmt: skip
        self._system("status", status="requesting")

    def think(self, words: str) -> None:
        self._block({"type": "thinking", "thinking": words, "signature": "c3RhbmRpbg=="})

    def say(self, words: str) -> None:
        self._block({"type": "text", "text": words})

    def call(self, use: Use, parent: str | None = None) -> str:
        name, key = _TOOLS[use.kind]
        given: dict[str, Any] = {key: use.argument}
        if use.kind == "edit":
            given |= {"old_string": "return 1", "new_string": "return 2"}
        return self._call(name, given, parent)

    def answered(self, call: str, use: Use, parent: str | None = None) -> None:
        answer = f"Exit code 1\n{use.answer}" if use.failed else use.answer
        block: dict[str, Any] = {"tool_use_id": call, "type": "tool_result", "content": answer}
        if use.failed:
            block["is_error"] = True
        message = {"role": "user", "content": [block]}
        self._line("user", message=message, parent_tool_use_id=parent, timestamp=self.timestamp())

    def delegate(self) -> None:
        call = self._call("Task", {"description": "Find the price", "prompt": "Look for it."}, None)
        text = [{"type": "text", "text": "Look for it."}]
        self._line("user", message={"role": "user", "content": text}, parent_tool_use_id=call)
        self._block({"type": "text", "text": "I look."}, call)
        use = Use("shell", "grep -rn price src", "src/shop.py:1:def price():\n")
        self.answered(self.call(use, call), use, call)
        found = [{"type": "text", "text": "It is in src/shop.py."}]
        block = {"tool_use_id": call, "type": "tool_result", "content": found}
        self._line("user", message={"role": "user", "content": [block]}, parent_tool_use_id=None)

    def retry(self) -> None:
        self._system(
            "api_retry", attempt=1, max_retries=10, retry_delay_ms=600, error_status=529,
            error="overloaded",
        )  # fmt: skip

    def odd(self) -> list[bytes]:
        return [
            b'{"type":"telepathy","words":"none","session_id":"x"}',
            b'{"type":"system","subtype":"weather","sky":"blue"}',
            b'{"type":"assistant","message":{"role":"assistant","content":[{"type":"hologram"}]}}',
            b'{"type":"assistant","message":"hello"}',
            b'{"type":"user","message":{"role":"user","content":17}}',
            b'{"type":"assistant","type":"stream_event","event":{}}',
            b'{"type":"rate_limit_event","rate_limit_info":{"status":"allowed","resetsAt":"?"}}',
            b'{"type":"assistant","message":{"role":"assistant","content":"half \\ud83d"}}',
        ]

    def done(self, words: str) -> int:
        self.say(words)
        self._line(
            "rate_limit_event",
            rate_limit_info={"status": "allowed", "resetsAt": self.resets,
                             "rateLimitType": "five_hour", "isUsingOverage": False},
        )  # fmt: skip
        return self._result("success", is_error=False, result=words, terminal_reason="completed")

    def failed(self) -> int:
        reason = "[ede_diagnostic] result_type=user last_content_type=n/a stop_reason=tool_use"
        return self._result(
            "error_during_execution", is_error=True, errors=[reason], terminal_reason="api_error"
        )

    def limited(self) -> int:
        clock = datetime.fromtimestamp(self.resets, UTC).strftime("%I:%M%p").lstrip("0").lower()
        words = f"You've hit your session limit · resets {clock} (UTC)"
        info = {"status": "rejected", "resetsAt": self.resets, "rateLimitType": "five_hour"}
        self._line("rate_limit_event", rate_limit_info=info)
        return self._refused(words, "rate_limit", 429)

    def out_of_turns(self) -> int:
        return self._result(
            "error_max_turns", is_error=True, terminal_reason="max_turns",
            errors=["Reached maximum number of turns (3)"],
        )  # fmt: skip

    def logged_out(self) -> int:
        return self._refused("Not logged in · Please run /login", "authentication_failed", None)

    def _refused(self, words: str, error: str, status: int | None) -> int:
        """Tell in the agent's name why the API did not answer."""
        self._line(
            "assistant",
            message={"id": "msg_error", "model": "<synthetic>", "role": "assistant",
                     "content": [{"type": "text", "text": words}],
                     "usage": {"input_tokens": 0, "output_tokens": 0}},
            parent_tool_use_id=None, error=error, is_api_error_message=True,
        )  # fmt: skip
        return self._result(
            "success", is_error=True, api_error_status=status, result=words,
            terminal_reason="api_error",
        )  # fmt: skip

    def _call(self, name: str, given: dict[str, Any], parent: str | None) -> str:
        call = f"toolu_{self.new_call()}"
        self._block({"type": "tool_use", "id": call, "name": name, "input": given}, parent)
        return call

    def _block(self, block: dict[str, Any], parent: str | None = None) -> None:
        self.answers += 1
        usage = {"input_tokens": 10, "cache_creation_input_tokens": 90,
                 "cache_read_input_tokens": 900, "output_tokens": 1}  # fmt: skip
        message = {
            "model": self.model, "id": f"msg_{self.answers}", "type": "message",
            "role": "assistant", "content": [block], "stop_reason": None, "usage": usage,
        }  # fmt: skip
        self._line(
            "assistant", message=message, parent_tool_use_id=parent, timestamp=self.timestamp()
        )

    def _result(self, subtype: str, *, is_error: bool, **rest: Any) -> int:
        count = self.answers
        usage = {"input_tokens": 10 * count, "cache_creation_input_tokens": 90 * count,
                 "cache_read_input_tokens": 900 * count, "output_tokens": 50 * count}  # fmt: skip
        models = {
            self.model: {
                "inputTokens": 10 * count, "outputTokens": 50 * count,
                "cacheReadInputTokens": 900 * count, "cacheCreationInputTokens": 90 * count,
                "costUSD": 0.01 * count,
            }
        }  # fmt: skip
        self._line(
            "result", subtype=subtype, is_error=is_error, duration_ms=1000, duration_api_ms=900,
            num_turns=count, stop_reason=None, total_cost_usd=0.01 * count, usage=usage,
            modelUsage=models if count else {}, permission_denials=[], **rest,
        )  # fmt: skip
        return int(is_error)

    def _system(self, subtype: str, **rest: Any) -> None:
        self._line("system", subtype=subtype, **rest)

    def _line(self, kind: str, **rest: Any) -> None:
        self.line({"type": kind, **rest, "session_id": self.session})


def main() -> NoReturn:
    """Take the arguments as the real one does, and act."""
    options, prompts = arguments(
        iter(sys.argv[1:]), dict(zip(_VALUES, _VALUES, strict=True)), _FLAGS,
        lambda word: refuse(f"error: unknown option '{word}'", 1),
    )  # fmt: skip
    if not {"-p", "--print"} & options.keys():
        refuse("this is a stand-in: it has no terminal to show anything on", 64)
    if options.get("--output-format") != "stream-json":
        refuse("this is a stand-in: it speaks stream-json only", 64)
    if "--verbose" not in options:
        refuse("Error: When using --print, --output-format=stream-json requires --verbose", 1)
    if (mode := options.get("--permission-mode", "default")) not in _MODES:
        refuse(
            f"error: option '--permission-mode <mode>' argument '{mode}' is invalid."
            f" Allowed choices are {', '.join(_MODES)}.", 1,
        )  # fmt: skip
    prompt = "\n".join(filter(None, (*prompts, piped())))
    if not prompt:
        refuse(
            "Error: Input must be provided either through stdin or as a prompt argument when"
            " using --print", 1,
        )  # fmt: skip
    act(Claude(options.get("--model")), prompt)
