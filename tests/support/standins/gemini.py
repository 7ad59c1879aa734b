"""A stand-in for Gemini CLI: `gemini --output-format stream-json`.

Events, texts of errors and exit codes as in `packages/core/src/output`, `packages/core/src/utils`
and `packages/cli/src` of https://github.com/google-gemini/gemini-cli.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from support.standins.scenarios import Speaker, Use, act, arguments, piped, refuse, warn

_VALUES = {
    "-o": "--output-format", "--output-format": "--output-format", "-m": "--model",
    "--model": "--model", "--approval-mode": "--approval-mode", "-p": "--prompt",
    "--prompt": "--prompt", "--include-directories": "--include-directories",
    "--session-id": "--session-id",
}  # fmt: skip
_FLAGS = {"--skip-trust", "-y", "--yolo", "-d", "--debug"}
_MODES = ("default", "auto_edit", "yolo", "plan")
_TOOLS = {
    "read": ("read_file", "file_path"),
    "edit": ("replace", "file_path"),
    "shell": ("run_shell_command", "command"),
}
_NO_LOGIN = (
    "Please set an Auth method in your ~/.gemini/settings.json or specify one of the following"
    " environment variables before running: GEMINI_API_KEY, GOOGLE_GENAI_USE_VERTEXAI,"
    " GOOGLE_GENAI_USE_GCA"
)


class Gemini(Speaker):
    on_term = 0

    def begin(self, prompt: str) -> None:
        # Which one that will be it tells at the end.
        self._line("init", session_id=self.session, model=self.asked or "auto")
        self._line("message", role="user", content=prompt)

    def think(self, words: str) -> None:
        del words  # Thoughts are not told.

    def say(self, words: str) -> None:
        self.answers += 1
        middle = len(words) // 2
        for piece in (words[:middle], words[middle:]):
            self._line("message", role="assistant", content=piece, delta=True)

    def call(self, use: Use) -> str:
        self.answers += 1
        call, (name, key) = self.new_call(), _TOOLS[use.kind]
        given = {key: use.argument}
        if use.kind == "edit":
            given |= {"old_string": "return 1", "new_string": "return 2"}
        self._line("tool_use", tool_name=name, tool_id=call, parameters=given)
        return call

    def answered(self, call: str, use: Use) -> None:
        if use.failed:
            error = {"type": "execution_failed", "message": use.answer}
            self._line("tool_result", tool_id=call, status="error", error=error)
        elif use.kind == "edit":
            self._line("tool_result", tool_id=call, status="success")
        else:
            self._line("tool_result", tool_id=call, status="success", output=use.answer)

    def delegate(self) -> None:
        call = self.new_call()
        given = {"objective": "Find the price"}
        self._line("tool_use", tool_name="codebase_investigator", tool_id=call, parameters=given)
        self._line("tool_result", tool_id=call, status="success", output="src/shop.py")

    def retry(self) -> None:
        words = "Attempt 1 failed: Please retry in 6.1s. Retrying after 6173ms..."
        warn(words)

    def odd(self) -> list[bytes]:
        return [
            b'{"type":"thought","timestamp":"2026-11-22T10:00:00.000Z","content":"hm"}',
            b'{"type":"message","timestamp":17,"role":"oracle","content":"So be it. "}',
            b'{"type":"message","timestamp":"soon","role":"assistant","content":null}',
            b'{"type":"tool_use","tool_name":["x"],"tool_id":5,"parameters":"none"}',
            b'{"type":"error","severity":"warning","message":"Loop detected, stopping execution"}',
        ]

    def done(self, words: str) -> int:
        self.say(words)
        self._result("success")
        return 0

    def failed(self) -> int:
        self._result("error", "unknown", "[API Error: the model went away]")
        return 1

    def limited(self) -> int:
        left = max(int(self.resets - self.time()), 0)
        span = f"{left // 3600}h{left % 3600 // 60}m{left % 60}s"
        self._result(
            "error", "unknown", "[API Error: You have exhausted your capacity on this model."
            f" Your quota will reset after {span}.]\nPlease wait and try again later.",
        )  # fmt: skip
        return 429 % 256

    def out_of_turns(self) -> int:
        self._result(
            "error", "FatalTurnLimitedError", "Reached max session turns for this session."
            " Increase the number of turns by specifying maxSessionTurns in settings.json.",
        )  # fmt: skip
        return 53

    def logged_out(self) -> int:
        warn(_NO_LOGIN)
        return 41

    def _result(self, status: str, error: str = "", message: str = "") -> None:
        count = self.answers
        told = {"total_tokens": 1070 * count, "input_tokens": 1000 * count,
                "output_tokens": 50 * count, "cached": 900 * count,
                "input": 100 * count}  # fmt: skip
        stats = {**told, "duration_ms": 1000, "tool_calls": self._calls,
                 "models": {self.model: told}}  # fmt: skip
        rest: dict[str, Any] = {"error": {"type": error, "message": message}} if error else {}
        self._line("result", status=status, **rest, stats=stats)

    def _line(self, kind: str, **rest: Any) -> None:
        self.line({"type": kind, "timestamp": self.timestamp(), **rest})


def main() -> NoReturn:
    """Take the arguments as the real one does, and act."""
    options, prompts = arguments(
        iter(sys.argv[1:]), _VALUES, _FLAGS,
        lambda word: refuse(f"Unknown argument: {word.lstrip('-')}", 1),
    )  # fmt: skip
    if (mode := options.get("--approval-mode", "default")) not in _MODES:
        choices = ", ".join(f'"{choice}"' for choice in _MODES)
        refuse(
            f'Invalid values:\n  Argument: approval-mode, Given: "{mode}", Choices: {choices}', 1
        )
    if options.get("--output-format") != "stream-json":
        refuse("this is a stand-in: it speaks stream-json only", 64)
    if os.environ.get("GEMINI_CLI_TRUST_WORKSPACE") != "true" and "--skip-trust" not in options:
        refuse(
            "Gemini CLI is not running in a trusted directory. To proceed, either use"
            " `--skip-trust`, set the `GEMINI_CLI_TRUST_WORKSPACE=true` environment variable, or"
            " trust this directory in interactive mode.", 55,
        )  # fmt: skip
    asked = options.get("--prompt") or " ".join(prompts)
    prompt = "\n\n".join(filter(None, (piped(), asked)))
    if not prompt:
        refuse(
            "No input provided via stdin. Input can be provided by piping data into gemini or"
            " using the --prompt option.", 42,
        )  # fmt: skip
    act(Gemini(options.get("--model")), prompt)
