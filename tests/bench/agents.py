"""What a dashboard takes that hosts agents at work: it follows what each of them writes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
from terminal import terminal

if TYPE_CHECKING:
    from pathlib import Path

_SCRIBE = """
import json, sys, time
rate, seconds = float(sys.argv[1]), float(sys.argv[2])
def line(kind, **block):
    message = {"id": "m", "role": "assistant", "content": [{"type": kind, **block}]}
    return json.dumps({"type": "assistant", "message": message}) + "\\n"
n, began = 0, time.monotonic()
while (now := time.monotonic() - began) < seconds:
    due = int(now * rate) - n
    for _ in range(due):
        n += 1
        if n % 4:
            sys.stdout.write(line("text", text=f"step {n}: " + "word " * 30))
        else:
            path = f"/w/src/file{n}.py"
            sys.stdout.write(line("tool_use", id=f"t{n}", name="Edit", input={"file_path": path}))
    sys.stdout.flush()
    time.sleep(0.05)
"""
"""Says so many lines a second in the words of Claude Code, a few at a time as real ones do."""


def followed(folder: Path, agents: int, rate: int, seconds: float) -> tuple[float, str]:
    """Return what of a core, in percent, a dashboard takes while its agents write; not theirs."""
    _git(folder, "init", "-q", "-b", "main")
    _git(folder, "-c", "user.name=b", "-c", "user.email=b@b", "commit", "-qm", "1", "--allow-empty")
    scribe = folder / "scribe.py"
    scribe.write_text(_SCRIBE)
    command = [sys.executable, "-IS", str(scribe), str(rate), str(seconds * 3)]
    (folder / "agentmux.yaml").write_text(
        f"agents: {{scribe: {{command: {json.dumps(command)}, format: claude}}}}\n"
    )
    payload = {"kind": "agent", "prompt": "Write."}
    tasks = [{"id": f"t{n}", "agent": "scribe", "payload": payload} for n in range(agents)]
    (folder / "dag.yaml").write_text(json.dumps({"tasks": tasks}))
    program = (sys.executable, "-m", "tui", "dag.yaml", "--workers", str(agents))
    with terminal(folder, *program) as dashboard:
        runs = folder / "artifacts"
        deadline = time.monotonic() + 60
        while len(list(runs.glob("*/*/transcript.jsonl"))) < agents:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the agents do not work:\n{dashboard.settle()}")
            time.sleep(0.2)
        time.sleep(2)
        before, began = _size(runs), time.monotonic()
        used = dashboard.own_cpu
        time.sleep(seconds)
        took = time.monotonic() - began
        used = dashboard.own_cpu - used
        written = (_size(runs) - before) / took
        for child in psutil.Process(dashboard.pid).children(recursive=True):
            child.kill()
    return 100 * used / took, f"% of a core, {agents} agents write {written / 1e6:.1f} MB/s in all"


def _size(runs: Path) -> int:
    return sum(path.stat().st_size for path in runs.glob("*/*/transcript.jsonl"))


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, timeout=60)
