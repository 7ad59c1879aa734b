"""Transcripts in the documented format of stream-json, with whatever a test wants in them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from zlib import crc32

from support.lists import NOW

from engine.clock import to_iso

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PROMPT = "Make the claim test pass when two hosts start at once.\n\nDo not change the schema."


def line(kind: str, **more: Any) -> str:
    return json.dumps({"type": kind, "session_id": "5d1c7a90", **more})


def begin(model: str = "claude-opus-4-1") -> str:
    return line("system", subtype="init", model=model, cwd="/w", tools=["Bash", "Edit", "Read"])


def says(text: str, **more: Any) -> str:
    return _assistant({"type": "text", "text": text}, **more)


def thinks(text: str, **more: Any) -> str:
    return _assistant({"type": "thinking", "thinking": text, "signature": "x"}, **more)


def calls(tool: str, call: str = "t1", **arguments: Any) -> str:
    block = {"type": "tool_use", "id": call, "name": tool, "input": arguments}
    return _assistant(block)


def answers(text: str, call: str = "t1", *, failed: bool = False) -> str:
    block: dict[str, Any] = {"type": "tool_result", "tool_use_id": call, "content": text}
    if failed:
        block["is_error"] = True
    return line("user", message={"role": "user", "content": [block]}, parent_tool_use_id=None)


def result(text: str, *, turns: int = 12, cost: float = 1.24) -> str:
    usage = {"input_tokens": 9_000, "cache_read_input_tokens": 118_000, "output_tokens": 3_000}
    return line("result", subtype="success", is_error=False, num_turns=turns, result=text,
                total_cost_usd=cost, usage=usage, duration_ms=81_000)  # fmt: skip


def _assistant(block: dict[str, Any], **more: Any) -> str:
    message = {"id": f"msg_{crc32(json.dumps(block).encode())}", "role": "assistant",
               "content": [block], "usage": {"input_tokens": 10, "output_tokens": 1}}  # fmt: skip
    return line("assistant", message=message, parent_tool_use_id=None, **more)


CLAIMS = (
    begin(),
    thinks("The failing assertion counts claims by host. Two hosts can both read the row before"
           " either of them writes it, so the update must say which state it expects."),
    says("I'll look at how a claim is made, then at the test."),
    calls("Read", "t1", file_path="engine/store/claims.py"),
    answers("\n".join(f"{n:>4}\tdef step_{n}(self) -> None: ..." for n in range(1, 120)), "t1"),
    calls("Bash", "t2", command="pytest -q tests/race --maxfail=1",
          description="Run the race tests"),
    answers("Exit code 1\nFAILED tests/race/test_claims.py::test_two_hosts - assert 2 == 1", "t2",
            failed=True),
    says("Two claims of one task, as expected. The update needs a condition."),
    calls("Edit", "t3", file_path="engine/store/claims.py",
          old_string="SET state = 'CLAIMED'\nWHERE id = ?",
          new_string="SET state = 'CLAIMED'\nWHERE id = ? AND state = 'READY'"),
    answers("The file engine/store/claims.py has been updated.", "t3"),
    "this line is no JSON at all",
    calls("Bash", "t4", command="pytest -q tests/race"),
    answers("12 passed in 3.41s", "t4"),
    says("The test passes, and so do the other eleven:\n\n"
         "- the update names the state that it expects\n"
         "- a host that comes second changes no row, and tries the next task"),
)  # fmt: skip
"""A run that goes on."""


def write(
    folder: Path, lines: Iterable[str], *, prompt: str = PROMPT, form: str = "claude",
    first: float = 260.0, every: float = 7.0,
) -> Path:  # fmt: skip
    """Write what a run leaves: its first line came `first` seconds ago, the others one by one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.json").write_text(json.dumps({"cli": form, "format": form}))
    if prompt:
        (folder / "prompt.md").write_text(prompt)
    path = folder / "transcript.jsonl"
    times, size = [], 0
    with path.open("wb") as file:
        for number, text in enumerate(lines):
            size += file.write(text.encode() + b"\n")
            moment = NOW - timedelta(seconds=first - number * every)
            times.append(f"{to_iso(moment)} {size}\n")
    (folder / "transcript.times").write_text("".join(times))
    return path
