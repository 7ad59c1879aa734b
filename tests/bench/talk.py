"""How long a transcript takes to open: its files found, its end read, told and laid out."""

from __future__ import annotations

import json
from contextlib import closing
from time import perf_counter
from typing import TYPE_CHECKING

from tui.logs.said import SaidFile
from tui.logs.talk import Talk

if TYPE_CHECKING:
    from pathlib import Path


def opened(folder: Path, size: int) -> tuple[float, str]:
    """Return the seconds until 60 rows of the end of `size` bytes are there, lines of 50 KB too."""
    path = _transcript(folder, size)
    began = perf_counter()
    with closing(SaidFile(path)) as file:
        talk = Talk(file, width=200, height=60)
        talk.tell_of_run(over=True, sums=True)
        talk.refresh()
        rows = len(talk.frame().rows)
        took = perf_counter() - began
        lines = 0
        counting = perf_counter()
        while not file.counted:
            file.count_more(16)
            lines = file.lines or 0
        counted = perf_counter() - counting
    return took, f"s for {rows} rows; all {lines:,} lines summed up in {counted:.1f} s"


def _transcript(folder: Path, size: int) -> Path:
    (folder / "agent.json").write_text('{"cli": "claude", "format": "claude"}')
    lines = [_line("text", text=f"step {n}: " + "word " * 40) for n in range(200)]
    lines += [_line("tool_use", id="t", name="Write", input={"content": "row\n" * 10_000})]
    chunk = ("\n".join(lines) + "\n").encode()
    path = folder / "transcript.jsonl"
    times: list[str] = []
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(chunk)
            times.append(f"2026-01-01T00:00:00.000Z {file.tell()}\n")
    (folder / "transcript.times").write_text("".join(times))
    return path


def _line(kind: str, **block: object) -> str:
    message = {"id": "m", "role": "assistant", "content": [{"type": kind, **block}]}
    return json.dumps({"type": "assistant", "message": message})
