"""The user's pager in a real terminal, while the engine and the screen go on behind it."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import TYPE_CHECKING

import pexpect
import pyte

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LINE = re.compile(r"line (\d+) red")
_PROGRAM = """
import asyncio, signal, sys
from pathlib import Path

from support.screens import FakeEngine, ago, busy

from engine.views import RunRow
from tui.app import Dashboard
from tui.actions.model import Target

FACTS = dict(agent="codex", worker_id="codex-1", attempt=1, outcome=None, claimed_at=ago(9),
             started_at=ago(9), ended_at=None, exit_code=None, error=None, result=None)

async def main():
    queries = busy()
    queries.every_run = [RunRow(id="r1", task_id="t", **FACTS)]
    engine = FakeEngine(queries, state=Path(sys.argv[1]) / "state")
    folder = engine.layout.run_folder("t", "r1")
    folder.mkdir(parents=True)
    app = Dashboard(engine, pace=0.01)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, app.exit)

    async def grow():
        number = 0
        while True:
            with (folder / "stdout.log").open("a") as file:
                file.write(f"line {number} \\x1b[31mred\\x1b[0m\\n")
            (Path(sys.argv[1]) / "beats").write_text(str(number))
            number += 1
            engine.change()
            await asyncio.sleep(0.01)

    growing = asyncio.create_task(grow())
    app.call_later(lambda: app.open(Target("log", "t")))
    await app.run_async()
    growing.cancel()

asyncio.run(main())
"""
_PAGER = """#!/bin/sh
trap 'printf "INTERRUPTED\\r\\n"' INT
printf 'PAGER SHOWS %s\\r\\n' "$1"
while read word; do [ "$word" = leave ] && exit 0; done
while read word; do [ "$word" = leave ] && exit 0; done
"""


class Terminal:
    """A terminal of 80x24 with the program in it."""

    def __init__(self, folder: Path) -> None:
        program, pager = folder / "program.py", folder / "pager"
        program.write_text(_PROGRAM)
        pager.write_text(_PAGER)
        pager.chmod(0o700)
        env = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "PAGER": str(pager)}
        env["PYTHONPATH"] = os.pathsep.join([os.getcwd(), os.path.join(os.getcwd(), "tests")])  # noqa: PTH109, PTH118 - what the program imports from
        self.child = pexpect.spawn(
            sys.executable, [str(program), str(folder)], dimensions=(24, 80), env=env,
            encoding="utf-8", timeout=20,
        )  # fmt: skip
        self._screen = pyte.Screen(80, 24)
        self._stream = pyte.Stream(self._screen)
        self.raw = ""

    def read(self) -> None:
        try:
            data = self.child.read_nonblocking(65536, 0.05)
        except pexpect.TIMEOUT:
            return
        self.raw += data
        self._stream.feed(data.replace("\x1b[>", "\x1b[?").replace("\x1b[<u", ""))

    def until(self, words: str) -> None:
        self._until(lambda text: words in text)

    def until_line(self, number: int) -> None:
        """Wait for this line of the log or a later one: it grows faster than a picture is seen."""
        self._until(lambda text: any(int(n) >= number for n in _LINE.findall(text)))

    def _until(self, holds: Callable[[str], bool]) -> None:
        end = time.monotonic() + 20
        while not holds(text := "\n".join(self._screen.display)):
            assert time.monotonic() < end, text
            self.read()


def test_the_pager_has_the_terminal_alone_and_everything_else_goes_on(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path)
    beats = tmp_path / "beats"
    try:
        terminal.until_line(20)
        terminal.child.send("P")
        terminal.until("PAGER SHOWS /")
        terminal.raw = ""
        end = time.monotonic() + 20
        while not (beaten := beats.read_text()):  # it is just being written
            assert time.monotonic() < end
        since = int(beaten)
        while int(beats.read_text() or since) < since + 200:
            assert time.monotonic() < end, "the loop stands still while the pager is open"
            terminal.read()
        assert terminal.raw == "", "the screen painted over the pager"
        terminal.child.send("\x03")
        terminal.until("INTERRUPTED")
        terminal.child.send("leave\n")
        terminal.until("follows")
        terminal.until_line(since + 250)
        terminal.child.send("q")
        terminal.child.expect(pexpect.EOF)
    finally:
        terminal.child.close(force=True)
    assert terminal.child.exitstatus == 0
