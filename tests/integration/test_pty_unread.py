"""A terminal that nobody reads holds up nothing but its picture."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import psutil
import pytest
from support.engines import until
from support.stores import a_task, tuples
from support.terminal import DASHBOARD, Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.engines import Project

BEATS = 10


@pytest.fixture
def at(project: Project) -> Iterator[Terminal]:
    project.settings("heartbeat: 0.1\nshell: {allow: [sleep]}\n")
    payload = {"kind": "shell", "argv": ["sleep", "600"]}
    file = project.dag(a_task("long", payload=payload))
    at = Terminal(project.folder, [*DASHBOARD, str(file)], size=(120, 40))
    at.shows("codex-1")
    yield at
    at.child.close(force=True)


async def _clog(at: Terminal, project: Project) -> None:
    """Read nothing any more, and let there be more to paint than a terminal holds."""
    for _ in range(300):
        at.child.send("z")
    await _beats(project)


async def _beats(project: Project) -> None:
    """Wait until the worker has given that many signs of life."""
    seen = {_beat(project)}

    async def enough() -> bool:
        seen.add(_beat(project))
        return len(seen) > BEATS

    await until(enough, "it beats")


def _beat(project: Project) -> str:
    ((beat,),) = tuples(project.layout, "SELECT beat_at FROM workers")
    return str(beat)


async def test_workers_beat_on_and_the_picture_is_whole_once_somebody_reads(
    at: Terminal, project: Project
) -> None:
    await _clog(at, project)
    await _beats(project)
    at.settle()
    at.press("?")
    at.shows("Stop the worker gracefully")
    at.press("?")
    at.hides("Stop the worker gracefully")
    assert "codex-1" in at.text


async def test_it_ends_when_it_is_told_to(at: Terminal, project: Project) -> None:
    await _clog(at, project)
    os.kill(at.child.pid, signal.SIGTERM)
    await until(lambda: at.process.status() == psutil.STATUS_ZOMBIE, "it ends")
    ((state, run),) = tuples(project.layout, "SELECT state, run_id FROM tasks")
    assert (state, run) == ("READY", None)
