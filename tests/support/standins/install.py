"""Puts the stand-ins into a folder for PATH, and records what they say.

`python -m support.standins.install`, with tests/ as the working folder, writes the transcripts in
tests/data/transcripts anew.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from engine.agents.clis import KNOWN, command_line, environment

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = ("claude", "codex", "gemini")
TESTS = Path(__file__).parents[2]
TRANSCRIPTS = TESTS / "data" / "transcripts"
RECORDED = (
    "ok", "subagents", "unknown-types", "retries", "fails", "rate-limit", "turn-limit", "no-login",
    "sudden-death",
)  # fmt: skip
"""The scenarios whose transcripts are kept."""
FIXED = {"STANDIN_CLOCK": "1795341600", "STANDIN_RESETS": "1795350600", "TZ": "UTC"}
"""22 November 2026 10:00 UTC, and half past twelve."""
PROMPT = "Make the price 2."
PATIENCE = 60.0


def install(folder: Path) -> Path:
    """Make `claude`, `codex` and `gemini` in a folder; return it, to stand first in PATH.

    The process of a stand-in is that of its name: the wrapper is replaced by it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        code = (
            f"import sys; sys.path.insert(0, {str(TESTS)!r});"
            f" from support.standins.{name} import main; main()"
        )
        python = " ".join(map(shlex.quote, (sys.executable, "-S", "-c", code)))
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {python} "$@"\n', "utf-8")
        program.chmod(0o755)
    return folder


def run(
    folder: Path,
    name: str,
    scenario: str,
    *,
    cwd: Path,
    model: str | None = None,
    more: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run an installed stand-in to its end, as its template has it."""
    cli = KNOWN[name]
    git = cwd / ".git"
    line = command_line(cli, prompt=PROMPT, model=model, workspace=cwd, gitdir=git, admin=git)
    base = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", **(more or {})}
    return subprocess.run(
        [str(folder / line[0]), *line[1:]],
        input=PROMPT.encode(),
        capture_output=True,
        cwd=cwd,
        env={**environment(cli, base), "STANDIN": scenario},
        timeout=PATIENCE,
        check=False,
    )


def record(name: str, scenario: str, folder: Path) -> bytes:
    """Return what a stand-in says, the same each time; `folder` has them installed."""
    return run(folder, name, scenario, cwd=folder, more=FIXED).stdout


def transcript(name: str, scenario: str) -> Path:
    """Return where a transcript is kept; there is none of who says nothing."""
    return TRANSCRIPTS / f"{name}-{scenario}.jsonl"


def main() -> None:
    """Write the transcripts anew."""
    TRANSCRIPTS.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as place:
        folder = install(Path(place))
        for name in NAMES:
            for scenario in RECORDED:
                if said := record(name, scenario, folder):
                    transcript(name, scenario).write_bytes(said)


if __name__ == "__main__":
    main()
