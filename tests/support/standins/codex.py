"""A stand-in for Codex CLI: `codex exec --json`.

Events, texts of errors and exit codes as in `codex-rs/exec/src` and
`codex-rs/protocol/src/error.rs` of https://github.com/openai/codex.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from itertools import pairwise
from typing import Any, NoReturn

from support.standins.scenarios import Speaker, Use, act, arguments, piped, refuse, warn

_VALUES = {
    "-s": "--sandbox", "--sandbox": "--sandbox", "-m": "--model", "--model": "--model",
    "-c": "--config", "--config": "--config", "-C": "--cd", "--cd": "--cd",
    "--add-dir": "--add-dir", "-o": "--output-last-message", "-p": "--profile",
}  # fmt: skip
_FLAGS = {"--json", "--experimental-json", "--skip-git-repo-check", "--ephemeral"}
_SANDBOXES = ("read-only", "workspace-write", "danger-full-access")


class Codex(Speaker):
    roots: tuple[str, ...] = ()
    """What is given with --add-dir."""

    def refused(self) -> str:
        """Keep the worktree's part of the repository read-only, unless it is named itself.

        See https://github.com/openai/codex/issues/23661; in `codex-rs/protocol/src/permissions.rs`
        that is `default_read_only_subpaths_for_writable_root`.
        """
        paths = ["--git-dir", "--git-path", "objects", "--git-path", "refs"]
        ask = ["git", "rev-parse", "--path-format=absolute", *paths]
        told = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
        closed = [path for path in told.splitlines() if path not in self.roots]
        return f"fatal: Unable to create '{closed[0]}': Read-only file system" if closed else ""

    def begin(self, prompt: str) -> None:
        del prompt  # It is not echoed.
        self.line({"type": "thread.started", "thread_id": self.session})
        self.line({"type": "turn.started"})

    def think(self, words: str) -> None:
        self._item("completed", self.new_call(), "reasoning", text=words)

    def say(self, words: str) -> None:
        self.answers += 1
        self._item("completed", self.new_call(), "agent_message", text=words)

    def call(self, use: Use) -> str:
        self.answers += 1
        call = self.new_call()
        self._item("started", call, *self._use(use, over=False))
        return call

    def answered(self, call: str, use: Use) -> None:
        self._item("completed", call, *self._use(use, over=True))

    def _use(self, use: Use, *, over: bool) -> tuple[str, dict[str, Any]]:
        status = "in_progress" if not over else "failed" if use.failed else "completed"
        if use.kind == "edit":
            changes = [{"path": use.argument, "kind": "update"}]
            return "file_change", {"changes": changes, "status": status}
        command = f"cat {use.argument}" if use.kind == "read" else use.argument
        return "command_execution", {
            "command": f"/bin/bash -lc '{command}'",
            "aggregated_output": use.answer if over else "",
            "exit_code": int(use.failed) if over else None,
            "status": status,
        }

    def delegate(self) -> None:
        call = self.new_call()
        rest: dict[str, Any] = {"tool": "spawn_agent", "sender_thread_id": self.session,
                                "prompt": "Look for the price."}  # fmt: skip
        self._item("started", call, "collab_tool_call", rest | {"status": "in_progress"})
        self._item("completed", call, "collab_tool_call", rest | {"status": "completed"})

    def retry(self) -> None:
        self._error("Reconnecting... 1/5 (stream disconnected before completion: timeout)")

    def odd(self) -> list[bytes]:
        search = b'{"id":"item_91","type":"web_search","id":"ws_1","query":"price",'
        plan = b'{"id":"item_92","type":"todo_list","items":[{"text":"act","completed":'
        lines = {
            b"item.completed": [
                b'{"id":"item_90","type":"hologram"}',
                b"17",
                b'{"id":1,"type":"agent_message","text":["no"]}',
            ],
            b"item.started": [search + b'"action":{"type":"other"}}', plan + b"false}]}"],
            b"item.updated": [plan + b"true}]}"],
        }
        return [
            b'{"type":"thread.dreamt","of":"sheep"}',
            *(b'{"type":"%b","item":%b}' % (kind, item) for kind in lines for item in lines[kind]),
            b'{"type":"item.completed","item":{"id":"item_93","type":"error","message":"Beware"}}',
        ]

    def done(self, words: str) -> int:
        self.say(words)
        count = self.answers
        usage = {"input_tokens": 1000 * count, "cached_input_tokens": 900 * count,
                 "cache_write_input_tokens": 0, "output_tokens": 50 * count,
                 "reasoning_output_tokens": 20 * count}  # fmt: skip
        self.line({"type": "turn.completed", "usage": usage})
        return 0

    def failed(self) -> int:
        return self._fail("stream disconnected before completion: the model went away")

    def limited(self) -> int:
        moment = datetime.fromtimestamp(self.resets).astimezone()
        clock = moment.strftime("%b %d, %Y %I:%M %p")
        return self._fail(
            "You've hit your usage limit. To get more access now, send a request to your admin or"
            f" try again at {clock}."
        )

    def out_of_turns(self) -> int:
        return self._fail("shared rollout token budget exhausted")

    def logged_out(self) -> int:
        self.begin("")
        words = (
            "unexpected status 401 Unauthorized: Missing bearer or basic authentication in header"
        )
        for number in range(1, 6):
            self._error(f"Reconnecting... {number}/5 ({words})")
        return self._fail(words)

    def _fail(self, words: str) -> int:
        self._error(words)
        self.line({"type": "turn.failed", "error": {"message": words}})
        return 1

    def _error(self, words: str) -> None:
        self.line({"type": "error", "message": words})

    def _item(
        self, stage: str, call: str, kind: str, rest: dict[str, Any] | None = None, **more: Any
    ) -> None:
        name = f"item_{int(call.removeprefix('call_')) - 1}"
        item = {"id": name, "type": kind, **(rest or {}), **more}
        self.line({"type": f"item.{stage}", "item": item})


def main() -> NoReturn:
    """Take the arguments as the real one does, and act."""
    words = iter(sys.argv[1:])
    if next(words, "") != "exec":
        refuse("this is a stand-in: it has no terminal to show anything on", 64)
    options, prompts = arguments(
        words, _VALUES, _FLAGS,
        lambda word: refuse(
            f"error: unexpected argument '{word}' found\n\nUsage: codex exec [OPTIONS]"
            " [PROMPT]\n\nFor more information, try '--help'.", 2,
        ),
    )  # fmt: skip
    if (sandbox := options.get("--sandbox", "read-only")) not in _SANDBOXES:
        refuse(
            f"error: invalid value '{sandbox}' for '--sandbox <SANDBOX_MODE>'\n"
            f"  [possible values: {', '.join(_SANDBOXES)}]", 2,
        )  # fmt: skip
    if not {"--json", "--experimental-json"} & options.keys():
        refuse("this is a stand-in: it speaks JSON only", 64)
    if "--skip-git-repo-check" not in options:
        inside = subprocess.run(["git", "rev-parse"], capture_output=True, check=False)
        if inside.returncode:
            refuse("Not inside a trusted directory and --skip-git-repo-check was not specified.", 1)
    prompt = "".join(prompts[:1])
    if prompt in {"", "-"}:
        prompt = piped()
    elif not sys.stdin.isatty():
        warn("Reading additional input from stdin...")
        prompt += f"\n\n<stdin>\n{piped()}\n</stdin>"
    if not prompt.strip():
        refuse("No prompt provided via stdin.", 1)
    speaker, given = Codex(options.get("--model")), sys.argv
    speaker.roots = tuple(path for name, path in pairwise(given) if name == "--add-dir")
    act(speaker, prompt)
