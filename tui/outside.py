"""Other programs that get the terminal for a while: the user's pager.

The engine works on meanwhile, on the same loop: nothing here waits without giving it the loop.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from textual.app import SuspendNotSupported

from engine.files import open_regular
from engine.text import clean_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from textual.app import App

_DEFAULT = "less -f"
_PATIENCE = 2.0
"""Seconds that a pager gets to end when the dashboard has to."""


class PagerError(Exception):
    """The pager cannot be used; the text says why and what to do."""


def pager_command(variables: Mapping[str, str]) -> list[str]:
    """Return the program and the options that `$PAGER` names, split as a shell would.

    Without one `less`, which shows escape sequences as text: what an agent printed must not act
    on the terminal, unless the user says otherwise. `-f`: it asks no question because of them.

    Raises:
        PagerError: it cannot be split, or there is no such program.

    """
    text = variables.get("PAGER", "").strip() or _DEFAULT
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise PagerError(f"$PAGER cannot be read: {clean_text(text)}: {error}") from error
    program = shutil.which(words[0], path=variables.get("PATH")) if words else None
    if program is None:
        raise PagerError(f"there is no pager {clean_text(text)}: set $PAGER to one")
    return [program, *words[1:]]


async def page(app: App[object], path: Path) -> None:
    """Show a file in the user's pager; the app has no terminal until the pager ends.

    Raises:
        PagerError: the pager cannot be found or started, or the terminal cannot be given away.

    """
    command = [*pager_command(os.environ), await asyncio.to_thread(_readable, path)]
    try:
        # In a batch nothing is painted: what the app writes while it has no terminal is kept in a
        # short queue, and the loop would wait for ever once that is full.
        with app.batch_update(), _no_interrupts(app), app.suspend():
            await _run(command)
    except SuspendNotSupported as error:
        raise PagerError("this terminal cannot be given to another program") from error
    except OSError as error:
        name = clean_text(command[0])
        raise PagerError(f"cannot start {name}: {clean_text(error.strerror or '')}") from error


def _readable(path: Path) -> str:
    """Return the absolute path of a file that can be read: no pager takes it for an option."""
    try:
        open_regular(path).close()
    except FileNotFoundError as error:
        raise PagerError("there is no file to open") from error
    except OSError as error:
        raise PagerError(f"cannot read {clean_text(path.name)}: {error.strerror}") from error
    return str(path.absolute())


async def _run(command: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    try:
        await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait({asyncio.ensure_future(process.wait())}, timeout=_PATIENCE)


@contextmanager
def _no_interrupts(app: App[object]) -> Iterator[None]:
    """Leave ctrl+c to the pager: the terminal sends it to both.

    A handler, unlike SIG_IGN, is not inherited by the pager.
    """
    loop = asyncio.get_running_loop()
    heard = loop.remove_signal_handler(signal.SIGINT)
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if heard:
            loop.add_signal_handler(signal.SIGINT, app.exit)
