"""Asking before something is done that cannot be undone, or is done to many.

The plan and the question go to stderr: stdout is for what was done.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

from engine.cli.render import hint
from engine.cli.signals import told_if_interrupted
from engine.errors import CommandNotAllowed

if TYPE_CHECKING:
    from collections.abc import Iterable

NOTHING = "nothing was changed"
_LONGEST = 4096


async def agreed(what: str, lines: Iterable[str], plan: str) -> bool:
    """Show what would be done, ask, and say whether the answer is yes.

    `what` is for example "cancel 3 tasks"; `lines` tell it one by one, `plan` in sum.

    Raises:
        CommandNotAllowed: there is no terminal to ask on.

    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CommandNotAllowed(
            f"this would {what}: {plan}; there is no terminal to ask on, so say --yes to do it"
        )
    hint("nothing is changed yet; it would be:")
    for line in lines:
        hint(line)
    hint(plan)
    hint(f"{what}? [y/N]")
    with told_if_interrupted(NOTHING):
        answer = await _line()
    if answer.strip().lower() in {b"y", b"yes"}:
        return True
    hint(NOTHING)
    return False


async def _line() -> bytes:
    # Waiting on the loop and not in readline keeps Ctrl+C alive.
    answered = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, answered.set)
    try:
        await answered.wait()
    finally:
        loop.remove_reader(sys.stdin)
    return os.read(sys.stdin.fileno(), _LONGEST)
