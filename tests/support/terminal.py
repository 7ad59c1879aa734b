"""A program in a terminal of its own: what it shows, all that it wrote, what it leaves behind."""

from __future__ import annotations

import re
import sys
import termios
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import psutil
import pyte
import pytest
from support.patience import PATIENCE
from support.program import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ESC = "\x1b"
DASHBOARD = (sys.executable, "-m", "tui")
_UNSEEN = re.compile(rb"\x1b\[(?:[0-9;]*m|[>0-9;]*u|<u)")
"""Colours, which cost most of the time and are asked for nowhere, and what pyte does not know."""
_BEGUN = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*)?\Z")
"""A sequence of which the end is yet to come."""


class Terminal:
    """A terminal with a program in it. Every wait is bounded.

    `written` is all that the program wrote, byte for byte; `size` is in columns and rows.
    """

    def __init__(
        self, folder: Path, command: Sequence[str], *, size: tuple[int, int], **variables: str
    ) -> None:
        columns, rows = size
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self._fed = 0
        self.written = b""
        self.child = pexpect.spawn(
            command[0],
            list(command[1:]),
            cwd=str(folder),
            env=ENVIRONMENT | {"TMPDIR": str(folder)} | variables,
            dimensions=(rows, columns),
            timeout=PATIENCE,
        )
        self.child.delaybeforesend = None
        self.process = psutil.Process(self.child.pid)

    # -- what it shows ---------------------------------------------------------------------

    @property
    def lines(self) -> list[str]:
        """What is on the screen now."""
        self._feed()
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def _feed(self) -> None:
        cut = _BEGUN.search(self.written, max(self._fed, len(self.written) - 64))
        upto = cut.start() if cut else len(self.written)
        self._stream.feed(_UNSEEN.sub(b"", self.written[self._fed : upto]))
        self._fed = upto

    def read(self) -> bool:
        """Take in what the program writes within a moment; return whether it has ended."""
        try:
            self.written += self.child.read_nonblocking(65536, timeout=0.05)
        except pexpect.TIMEOUT:
            return False
        except pexpect.EOF:
            return True
        return False

    def until(self, fulfilled: Callable[[str], object], what: str) -> str:
        """Wait until the screen is as it shall be; return it."""
        deadline = time.monotonic() + PATIENCE
        while not fulfilled(text := self.text):
            if time.monotonic() > deadline:
                pytest.fail(f"no {what} within {PATIENCE} s; the screen is:\n{text}")
            if self.read() and not fulfilled(self.text):
                pytest.fail(f"the program ended before {what}; the screen is:\n{self.text}")
        return text

    def shows(self, words: str) -> str:
        return self.until(lambda text: words in text, repr(words))

    def hides(self, words: str) -> str:
        return self.until(lambda text: words not in text, f"screen without {words!r}")

    def settle(self, quiet: float = 0.4) -> str:
        """Wait until for so many seconds nothing is written, and nothing is about to be.

        On a machine that does much else, a program that has much to say may say nothing for long.
        """
        deadline = time.monotonic() + PATIENCE
        since, before = time.monotonic(), len(self.written)
        while time.monotonic() < min(deadline, since + quiet):
            self.read()
            if len(self.written) != before or self._wants_to_run():
                since, before = time.monotonic(), len(self.written)
        return self.text

    def _wants_to_run(self) -> bool:
        """Say whether a thread of it computes, waits for a disk, or waits for its turn."""
        with suppress(OSError):
            for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
                with suppress(OSError):
                    told = (thread / "stat").read_bytes()
                    if told.rpartition(b")")[2].split()[0] in {b"R", b"D"}:
                        return True
        return False

    def writes(self, data: bytes, *, since: int = 0) -> int:
        """Wait until the program has written `data`; return how much it had written then."""
        self.until(lambda _: data in self.written[since:], repr(data))
        return self.written.index(data, since) + len(data)

    # -- what is done to it ----------------------------------------------------------------

    def press(self, keys: str) -> None:
        self.child.send(keys)

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size. What was written for the former one is not shown."""
        self.child.setwinsize(rows, columns)
        self.screen.resize(rows, columns)
        self.screen.reset()
        self._fed = len(self.written)

    def hang_up(self) -> None:
        """Let the terminal go away, as an SSH connection does that drops."""
        self.child.ptyproc.fileobj.close()
        self.child.ptyproc.closed = True

    # -- what becomes of it ----------------------------------------------------------------

    def ended(self) -> int | None:
        """Wait for the end; return the exit status, None after a signal."""
        deadline = time.monotonic() + PATIENCE
        over = False
        while not over or self.child.isalive():
            if time.monotonic() > deadline:
                pytest.fail(f"it did not end; the screen is:\n{self.text}")
            over = self.read() or over
        status: int | None = self.child.exitstatus
        return status

    def end(self) -> None:
        """Leave nothing of it behind, not even a zombie, whether it goes by itself or not."""
        with suppress(psutil.NoSuchProcess):
            self.process.kill()
        self.child.wait()
        self.child.close()

    def tree(self) -> list[psutil.Process]:
        return self.process.children(recursive=True)

    @property
    def echoes(self) -> bool:
        """Whether the terminal shows what is typed, line by line, as a shell needs it."""
        flags = termios.tcgetattr(self.child.fileno())[3]
        return bool(flags & termios.ECHO and flags & termios.ICANON and flags & termios.ISIG)


@contextmanager
def opened(
    folder: Path, command: Sequence[str], *, size: tuple[int, int] = (120, 40), **variables: str
) -> Iterator[Terminal]:
    """Start a program in `folder`, in a terminal; whatever happens, it is not left behind."""
    at = Terminal(folder, command, size=size, **variables)
    try:
        yield at
    finally:
        at.end()


@contextmanager
def dashboard(
    folder: Path, *arguments: str, size: tuple[int, int] = (120, 40), **variables: str
) -> Iterator[Terminal]:
    """Start the dashboard in `folder`."""
    with opened(folder, [*DASHBOARD, *arguments], size=size, **variables) as at:
        yield at


def gone(processes: list[psutil.Process]) -> bool:
    """Say whether all of them end, and soon. What init has yet to reap has ended."""
    deadline = time.monotonic() + PATIENCE
    while any(map(_lives, processes)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
