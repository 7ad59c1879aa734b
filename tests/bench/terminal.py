"""A program in a terminal of its own: what it wrote when, and what that took of the processor.

A thread only takes down what comes. What was on the screen at which moment is worked out later,
so that working it out slows nothing down.
"""

from __future__ import annotations

import os
import pty
import subprocess
import termios
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
import pyte

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COLUMNS, ROWS = 120, 40
PATIENCE = 60.0
"""Seconds after which what is waited for counts as something that never comes."""
ROOT = Path(__file__).resolve().parents[2]
_KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "VIRTUAL_ENV")


class Chunk(NamedTuple):
    """What was read at a moment (`time.perf_counter()`), and the CPU seconds used until then."""

    moment: float
    cpu: float
    data: bytes


class Painted(NamedTuple):
    """Seconds from the start of a program to what it painted, by the clock and of the CPU."""

    wall: float
    cpu: float


class Terminal:
    """A program at work in a terminal. Every wait is bounded, and fails with what was shown."""

    def __init__(self, process: subprocess.Popen[bytes], master: int, begun: float) -> None:
        self._process = process
        self._master = master
        self._begun = begun
        self._chunks: list[Chunk] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                return  # the program has ended
            chunk = Chunk(time.perf_counter(), _cpu_of(self._process.pid), data)
            with self._more:
                self._chunks.append(chunk)
                self._more.notify_all()

    def end(self) -> None:
        """End the program at once, and let go of the terminal."""
        self._process.kill()
        self._process.wait()
        self._reader.join(PATIENCE)
        os.close(self._master)

    # -- what it takes ---------------------------------------------------------------------

    @property
    def cpu(self) -> float:
        """CPU seconds that the program and the processes below it used so far."""
        return sum(_cpu_of(one.pid) for one in self._tree())

    @property
    def own_cpu(self) -> float:
        """CPU seconds that the program itself used so far, without the processes below it."""
        return _cpu_of(self._process.pid)

    @property
    def pid(self) -> int:
        """The program's process."""
        return self._process.pid

    @property
    def memory(self) -> float:
        """MiB that are free again when it ends: its own pages, not those that others share."""
        return sum(one.memory_full_info().uss for one in self._tree()) / 2**20

    def _tree(self) -> list[psutil.Process]:
        top = psutil.Process(self._process.pid)
        return [top, *top.children(recursive=True)]

    # -- what it shows ---------------------------------------------------------------------

    def settle(self, quiet: float = 1.0) -> str:
        """Wait until nothing is written for `quiet` seconds; return what is on the screen."""
        self._wait(lambda: self._chunks and time.perf_counter() - self._chunks[-1].moment > quiet)
        return self._shown()

    def painted(self, complete: Callable[[str], bool]) -> Painted:
        """Return when the screen was `complete` for the first time."""
        screen = pyte.Screen(COLUMNS, ROWS)
        stream = pyte.ByteStream(screen)
        for chunk in list(self._chunks):
            stream.feed(chunk.data)
            if complete("\n".join(screen.display)):
                return Painted(chunk.moment - self._begun, chunk.cpu)
        raise TimeoutError(f"the screen was never complete:\n{self._shown()}")

    def answer(self, key: str, sign: str) -> float:
        """Press a key; return the seconds until `sign` was written that came of it."""
        before = len(self._chunks)
        pressed = time.perf_counter()
        os.write(self._master, key.encode())
        come, wanted = b"", sign.encode()
        seen = before

        def signed() -> bool:
            nonlocal come, seen
            while wanted not in come and seen < len(self._chunks):
                come += self._chunks[seen].data
                seen += 1
            return wanted in come

        self._wait(signed)
        return self._chunks[seen - 1].moment - pressed

    def _wait(self, fulfilled: Callable[[], object]) -> None:
        deadline = time.perf_counter() + PATIENCE
        with self._more:
            while not fulfilled():
                if time.perf_counter() > deadline or self._process.poll() is not None:
                    raise TimeoutError(f"it never came; the screen is:\n{self._shown()}")
                self._more.wait(0.1)

    def _shown(self) -> str:
        screen = pyte.Screen(COLUMNS, ROWS)
        pyte.ByteStream(screen).feed(b"".join(chunk.data for chunk in self._chunks))
        return "\n".join(line.rstrip() for line in screen.display)


@contextmanager
def terminal(folder: Path, *command: str) -> Iterator[Terminal]:
    """Start a program in `folder`, in a terminal of 120x40 with all colours; end it afterwards."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | {
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "PYTHONUTF8": "1",
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),  # nobody's habits, and none left behind
    }
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (ROWS, COLUMNS))
    begun = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    opened = Terminal(process, master, begun)
    try:
        yield opened
    finally:
        opened.end()


def _cpu_of(pid: int) -> float:
    # The number of another process's CPU clock, as clock_getcpuclockid(3) makes it on Linux.
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0  # it has ended
