"""What a fitted app sends to a real terminal: title, bell, colours, no more than it can show."""

from __future__ import annotations

import re
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import psutil
import pyte
import pytest
from support.patience import PATIENCE
from support.program import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TESTS = Path(__file__).resolve().parents[1]
PUSH, POP = b"\x1b[22;0t", b"\x1b[23;0t"
TITLE = b"\x1b]0;(2) agentmux build.yaml\x07"
APP = """
import sys
sys.path[:0] = [{source!r}, {tests!r}]
from support.host import Host
from tui.attendant import Word
from tui.preferences import Switch
from tui.terminal import lasting_terminal

class Told(Host):
    async def action_act(self, name):
        match name:
            case "stop":
                self.attend(Word("(2) agentmux build.yaml"))
            case "kill":
                self.attend(Word("(2) agentmux build.yaml", bell=True))
            case "release":
                self.attend(Word("evil\\x07\\x1b]52;c;eA==\\x07\\x9b2J title"))
            case "retry":
                self.turn(Switch.TITLE)
            case "quit":
                self.exit()

with lasting_terminal():
    Told().run()
"""


class Terminal:
    """A terminal with the app in it, and every byte that it was sent. Every wait is bounded."""

    def __init__(self, folder: Path, **variables: str) -> None:
        program = folder / "told.py"
        program.write_text(APP.format(source=str(TESTS.parent), tests=str(TESTS)))
        self.screen = pyte.Screen(80, 24)
        self._stream = pyte.ByteStream(self.screen)
        self.sent = b""
        self.child = pexpect.spawn(
            sys.executable,
            [str(program)],
            cwd=str(folder),
            env=ENVIRONMENT | variables,
            dimensions=(24, 80),
            timeout=PATIENCE,
        )
        self.child.delaybeforesend = None

    def until(self, fulfilled: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not fulfilled():
            if time.monotonic() > deadline:
                pytest.fail(f"no {what}; the screen is:\n" + "\n".join(self.screen.display))
            try:
                data = self.child.read_nonblocking(65536, timeout=0.2)
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                pytest.fail(f"the program ended before {what}:\n{self.sent[-2000:]!r}")
            self.sent += data
            self._stream.feed(data)

    def shows(self, words: str) -> None:
        self.until(lambda: words in "\n".join(self.screen.display), words)

    def gets(self, data: bytes) -> None:
        self.until(lambda: data in self.sent, repr(data))

    def press(self, keys: str) -> None:
        self.child.send(keys)

    def leave(self) -> None:
        self.press("q")
        deadline = time.monotonic() + PATIENCE
        while self.child.isalive():
            assert time.monotonic() < deadline
            try:
                self.sent += self.child.read_nonblocking(65536, timeout=0.2)
            except (pexpect.TIMEOUT, pexpect.EOF):
                continue

    @property
    def bells(self) -> int:
        """How often the bell rang: what ends the setting of a title is none."""
        return re.sub(rb"\x1b\][^\x07\x1b]*\x07", b"", self.sent).count(b"\x07")

    @property
    def colours(self) -> set[str]:
        """The first parameters of all that chooses a colour; `38` and `48` begin one of many."""
        found: set[str] = set()
        for codes in re.findall(rb"\x1b\[([0-9;]*)m", self.sent):
            parts = codes.decode().split(";")
            while parts:
                part = parts.pop(0)
                if part in {"38", "48"}:
                    del parts[: 4 if parts[0] == "2" else 2]
                if re.fullmatch(r"3[0-8]|4[0-8]|9\d|10\d", part):
                    found.add(part)
        return found


@contextmanager
def terminal(folder: Path, **variables: str) -> Iterator[Terminal]:
    opened = Terminal(folder, **variables)
    try:
        opened.shows("impl:T-004")
        yield opened
    finally:
        opened.child.close(force=True)


def test_the_title_is_set_and_the_old_one_comes_back(tmp_path: Path) -> None:
    with terminal(tmp_path) as at:
        assert PUSH not in at.sent
        at.press("s")
        at.gets(TITLE)
        at.press("ss")
        at.leave()
    assert at.screen.title == "(2) agentmux build.yaml"
    assert at.sent.count(PUSH) == at.sent.count(POP) == at.sent.count(TITLE) == 1
    assert at.sent.index(PUSH) < at.sent.index(TITLE) < at.sent.index(POP)


def test_a_title_that_nobody_wants_goes_at_once(tmp_path: Path) -> None:
    with terminal(tmp_path) as at:
        at.press("s")
        at.gets(TITLE)
        at.press("r")
        at.gets(POP)
        at.press("s")
        at.leave()
    assert at.sent.count(PUSH) == at.sent.count(TITLE) == at.sent.count(POP) == 1


def test_who_suspends_the_dashboard_gets_the_old_title_and_then_ours_again(tmp_path: Path) -> None:
    with terminal(tmp_path) as at:
        at.press("s")
        at.gets(TITLE)
        at.child.kill(signal.SIGTSTP)
        at.gets(POP)
        process = psutil.Process(at.child.pid)
        at.until(lambda: process.status() == psutil.STATUS_STOPPED, "stop")
        at.sent = b""
        at.child.kill(signal.SIGCONT)
        at.gets(TITLE)
        assert at.sent.count(PUSH) == 1
        at.leave()
    assert at.sent.count(POP) == 1


def test_nothing_in_a_title_acts_on_the_terminal(tmp_path: Path) -> None:
    with terminal(tmp_path) as at:
        at.press("u")
        at.gets(b"\x1b]0;evil title\x07")
        at.leave()
    assert b"\x1b]52" not in at.sent
    assert b"\x9b" not in at.sent.replace("✓".encode(), b"")


def test_the_bell_rings_once(tmp_path: Path) -> None:
    with terminal(tmp_path) as at:
        before = at.bells
        at.press("K")
        at.until(lambda: at.bells, "bell")
        at.gets(TITLE)
        at.leave()
    assert (before, at.bells) == (0, 1)


def test_without_colour_none_is_sent_and_the_cursor_is_in_reverse(tmp_path: Path) -> None:
    with terminal(tmp_path, NO_COLOR="1", COLORTERM="truecolor") as at:
        row = next(y for y, line in enumerate(at.screen.display) if "impl:T-004" in line)
        others = [y for y, line in enumerate(at.screen.display) if "tests:race" in line]
        assert at.screen.buffer[row][5].reverse
        assert not any(at.screen.buffer[y][5].reverse for y in others)
        at.leave()
    assert at.colours == set()


def test_a_terminal_of_16_colours_is_sent_no_others(tmp_path: Path) -> None:
    with terminal(tmp_path, TERM="xterm", COLORTERM="") as at:
        at.leave()
    assert at.colours
    assert not at.colours & {"38", "48"}
    # Its own ground is left alone: whatever else 16 colours have for one would be mud.
    assert not [code for code in at.colours if code.startswith(("4", "10")) and code != "49"]


def test_a_terminal_of_many_colours_gets_ours(tmp_path: Path) -> None:
    with terminal(tmp_path, COLORTERM="truecolor") as at:
        at.leave()
    assert b"38;2;213;220;230" in at.sent


def test_a_locale_that_is_not_utf_8_is_sent_ascii_alone(tmp_path: Path) -> None:
    with terminal(tmp_path, LC_ALL="C") as at:
        at.shows("+- 1 Tasks -")
        at.leave()
    assert at.sent.isascii()
