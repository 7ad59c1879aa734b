"""A program that is called and soon over: what it is given, what it says, a limit of time.

For programs that we ask something ourselves; what a task runs is a tree with a claim (see `trees`).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
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
"""Bytes of a complaint that are read."""
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
) -> Called:
    """Run a program to its end, `given` on its stdin; it and its group are gone afterwards.

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
            stdout=out.fileno(),
            stderr=err.fileno(),
        )
        try:
            async with asyncio.timeout(seconds):
                await child.ended()
        finally:
            code = await shielded(_end(child))
        out.seek(0)
        err.seek(0)
        said = await asyncio.to_thread(out.read)
        return Called(code, said, err.read(_LONGEST).decode(errors="replace"))


async def _end(child: Child) -> int | None:
    """Kill what is left of a program and its group, and return its exit code."""
    kill_groups({child.identity})
    with suppress(TimeoutError):
        async with asyncio.timeout(_UNKILLABLE):
            await child.ended()
    return child.reap()
