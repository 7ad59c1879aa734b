"""What a worktree costs beyond git's own work: both sides after one another, in one repository."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from typing import TYPE_CHECKING

from engine.clock import SystemClock
from engine.workspaces import Place, Source, ensure_worktree

if TYPE_CHECKING:
    from pathlib import Path

_WHO = [
    f"GIT_{role}_{what}=bench" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
]


def ensure(folder: Path, files: int, times: int) -> tuple[float, str]:
    """Return the ratio of `ensure_worktree` to a bare `git worktree add`, medians of `times`."""
    folder = folder.resolve()
    project = _repository(folder / "project", files)
    return asyncio.run(_compare(folder, project, times))


async def _compare(folder: Path, project: Path, times: int) -> tuple[float, str]:
    place, clock = Place(folder / "worktrees", folder / "state"), SystemClock()
    bare, ours = [], []
    for number in range(-1, times):  # the first pair only warms up
        begin = time.perf_counter()
        path = folder / "bare" / str(number)
        _git(project, "worktree", "add", "--quiet", "-b", f"bare{number}", str(path), "HEAD")
        between = time.perf_counter()
        await ensure_worktree(place, Source(), project, f"t{number}", 1, f"r{number}", clock)
        if number >= 0:
            bare.append(between - begin)
            ours.append(time.perf_counter() - between)
    git, agentmux = (sorted(side)[times // 2] for side in (bare, ours))
    return agentmux / git, f"{agentmux * 1e3:.0f} ms, git alone {git * 1e3:.0f} ms"


def _repository(project: Path, files: int) -> Path:
    project.mkdir()
    for number in range(files):
        file = project / f"part{number % 20}" / f"module{number}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"# {number}\n" * 100, encoding="utf-8")
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "all"]):
        _git(project, *arguments)
    return project


def _git(folder: Path, *arguments: str) -> None:
    env = os.environ | dict(pair.split("=") for pair in _WHO)
    subprocess.run(["git", *arguments], cwd=folder, env=env, check=True)
