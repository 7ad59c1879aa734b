"""Processes that end themselves at a point of the engine's code that a test names.

Hosts do so by SIGKILL, and whoever opens a store before one of its renames. Each is a program of
its own that lays hands on the engine: nothing in there knows of it.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from support.engines import ENVIRONMENT, ended, until
from support.patience import PATIENCE
from support.reckoning import guards_of
from support.stores import check_store

from engine.processes.census import tagged

if TYPE_CHECKING:
    from support.engines import Project

    from engine.files import Layout

GUARDED = 5.0
"""Seconds within which the runs of a dead host are gone (DESIGN §4 rule 5)."""

_PROGRAM = """
import asyncio, os, signal, sys
from pathlib import Path
from engine.processes import guard
from engine.log import journal, mirror
from engine.orders import reset
from engine import worker
from engine.commands import *
from engine.core import Engine
from engine.processes.guard import Guard
from engine.presence import Presence
from engine.store.recovery import opening
from engine.store import orders, resetting, seeding
from engine.store.store import Store
from engine.store.writer import Writer

def die():
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()  # the other threads must not get any further either

def dying(of, name, *, after=False, when=lambda result: True):
    "Let a function end the process, before it does anything or when it has done all of it."
    real = getattr(of, name)
    if asyncio.iscoroutinefunction(real):
        async def doomed(*arguments, **options):
            if not after:
                die()
            result = await real(*arguments, **options)
            if when(result):
                die()
            return result
    else:
        def doomed(*arguments, **options):
            if not after:
                die()
            result = real(*arguments, **options)
            if when(result):
                die()
            return result
    setattr(of, name, doomed)

def dying_at_commit_of(module, name):
    "End the process when a change is in the table and nobody has been told yet."
    real, done = getattr(module, name), []
    def change(*arguments, **options):
        done.append(name)
        return real(*arguments, **options)
    setattr(module, name, change)
    dying(Writer, "_commit", after=True, when=lambda _: done)

async def main():
    async with Engine(Path("state")) as engine:
        {act}
        await asyncio.sleep(60)

{patch}
asyncio.run(main())
sys.exit("it did not die")
"""
WORK = "await engine.start_worker('codex', 'doomed')"


def doomed(project: Project, patch: str, act: str = WORK) -> subprocess.Popen[bytes]:
    """Start a host that does something and will be dead before it is through with it."""
    program = _PROGRAM.replace("{patch}", patch).replace("{act}", act.replace("\n", "\n        "))
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=project.folder,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
    )
    project.processes.append(process)
    return process


async def dies(project: Project, patch: str, act: str = WORK) -> None:
    """Let a host die at a point, and look at what it left: a sound store, and no process."""
    process = doomed(project, patch, act)
    assert await ended(process) == -signal.SIGKILL, "it never came to that point"
    died = time.monotonic()
    check_store(project.layout)
    await until(lambda: not guards_of(project.layout), "its guard has ended")
    assert tagged(project.layout.state) == {}
    assert time.monotonic() - died < GUARDED


_OPENING = """
import os, sys
from pathlib import Path
from support.damage import open_once
from engine.files import Layout

crash_at, layout, real, count = int(sys.argv[2]), Layout(Path(sys.argv[1])), Path.rename, 0

def rename(self, target):
    global count
    count += 1
    if count == crash_at:
        os._exit(9)
    return real(self, target)

Path.rename = rename
open_once(layout)
print(count)
"""
_TESTS = Path(__file__).parents[1]


def script(source: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a program that may import from support, and says something."""
    return subprocess.Popen(
        [sys.executable, "-c", source, *map(str, arguments)],
        env=ENVIRONMENT | {"PYTHONPATH": f"{ENVIRONMENT['PYTHONPATH']}:{_TESTS}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def opening(layout: Layout, crash_at: int = 0) -> subprocess.Popen[str]:
    """Open a store in a process that exits with 9 before its `crash_at`th rename.

    If it comes to its end it says how many there were.
    """
    return script(_OPENING, layout.state, crash_at)


def crashes_opening(layout: Layout, crash_at: int) -> bool:
    """Open a store in a process, and say whether it came to its `crash_at`th rename and is gone."""
    process = opening(layout, crash_at)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode in {0, 9}, errors
    return process.returncode == 9
