"""From arguments to an exit code; the border at which every foreseen error becomes a sentence.

Exit codes (DESIGN §7): 0 done, 1 refused or failed (code and sentence on stderr), 2 wrong usage,
130 after Ctrl+C. A pipe that its reader closed ends the program quietly with 141, as a shell
expects of a program ended by SIGPIPE.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import os
import sys
from typing import TYPE_CHECKING, cast

from engine.cli.logs import log_to_stderr
from engine.cli.parser import parse
from engine.cli.render import OutputClosedError, complain
from engine.errors import AgentmuxError, Code

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Coroutine

    Handler = Callable[[argparse.Namespace], Coroutine[None, None, int]]

INTERRUPTED = 130
READER_GONE = 141


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code. `argv` is without the program's name."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a symbol shows its escape; it is no reason to fail.
            stream.reconfigure(errors="backslashreplace")
    try:
        args = parse(argv)
        log_to_stderr()
        code = asyncio.run(_handler(args.handler)(args))
        _flush()
    except SystemExit as ended:  # argparse has printed help, the version or what is wrong
        return ended.code if isinstance(ended.code, int) else 0
    except OutputClosedError:
        _forget_output()
        return READER_GONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except AgentmuxError as error:
        complain(error.code, str(error))
        return 1
    except OSError as error:
        complain(Code.IO_ERROR, _sentence(error))
        return 1
    return code


def _open_closed_streams() -> None:
    """Whoever closed stdout or stderr (`>&-`) wants no output; that is no reason to fail."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - lives as long as we do
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def _handler(name: str) -> Handler:
    module, _, function = name.partition(":")
    return cast("Handler", getattr(importlib.import_module(module), function))


def _sentence(error: OSError) -> str:
    what = error.strerror or str(error) or type(error).__name__
    return f"{os.fsdecode(error.filename)}: {what}" if error.filename is not None else what


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise OutputClosedError from error


def _forget_output() -> None:
    """Let the interpreter's last flush go nowhere instead of failing aloud."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
