"""A program that is called and soon over: what it is given, what it says, a limit of time.

For programs that we ask something ourselves; what a task runs is a tree with a claim (see `trees`).
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from subprocess import DEVNULL
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.processes.signalling import kill_groups
from engine.processes.trees import spawn
from engine.shield import shielded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from engine.processes.trees import Child

_LONGEST = 65_536
"""Bytes of a complaint that are read: the last ones."""
_FLOOD = 16 << 20
"""Bytes of a complaint after which what was written of it is thrown away."""
_LOOK = 0.2
"""Seconds between two looks how long it is."""
_UNKILLABLE = 5.0
"""Seconds that a killed program has to be gone."""


class Called(Struct, frozen=True):
    """How a call ended: exit code (None: it survived SIGKILL), what it wrote, what it complained.

    The complaint is as the program wrote it: not cleaned, and with whatever secrets are in it.
    """

    code: int | None
    out: bytes
    err: str


async def call(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    seconds: float,
    given: bytes = b"",
    wants_output: bool = True,
) -> Called:
    """Run a program to its end, `given` on its stdin; it and its group are gone afterwards.

    What it complains is kept as far as one can read that. Without `wants_output` what it writes is
    not kept at all.

    Raises:
        TimeoutError: it took longer than `seconds`, and was killed.
        OSError: it cannot be started.

    """
    with TemporaryFile() as asked, TemporaryFile() as out, TemporaryFile() as err:
        asked.write(given)
        asked.seek(0)
        child = spawn(
            argv,
            cwd=cwd,
            env=env,
            stdin=asked.fileno(),
            stdout=out.fileno() if wants_output else DEVNULL,
            stderr=err.fileno(),
        )
        keeping_short = asyncio.create_task(_keep_short(err.fileno()))
        try:
            async with asyncio.timeout(seconds):
                await child.ended()
        finally:
            keeping_short.cancel()
            code = await shielded(_end(child))
        out.seek(0)
        err.seek(max(0, os.fstat(err.fileno()).st_size - _LONGEST))
        said = await asyncio.to_thread(out.read)
        return Called(code, said, err.read(_LONGEST).decode(errors="replace"))


async def _keep_short(handle: int) -> None:
    """Keep what a program writes to a file from filling the disk; it does not append, so what it
    writes next has holes before it.
    """  # noqa: D205 - one sentence reads better unbroken
    while True:
        await asyncio.sleep(_LOOK)
        if os.fstat(handle).st_blocks * 512 > _FLOOD:
            os.ftruncate(handle, 0)


async def _end(child: Child) -> int | None:
    """Kill what is left of a program and its group, and return its exit code."""
    kill_groups({child.identity})
    with suppress(TimeoutError):
        async with asyncio.timeout(_UNKILLABLE):
            await child.ended()
    return child.reap()
