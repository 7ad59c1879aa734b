"""Logs that real programs write while they are rotated: each line of trouble is told of, once."""

from __future__ import annotations

import asyncio
import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.engines import ENVIRONMENT, Project, until
from support.stores import tuples

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

WRITER = """
import signal, sys, time
path, asked = sys.argv[1], set()
signal.signal(signal.SIGHUP, lambda number, _: asked.add(number))
signal.signal(signal.SIGTERM, lambda number, _: asked.add(number))
log, n = open(path, "a", buffering=1), 0
while signal.SIGTERM not in asked:
    if signal.SIGHUP in asked:
        asked.clear()
        log.close()
        log = open(path, "a", buffering=1)
    log.write(f"INFO: all is well\\nERROR number {n}.\\n")
    n += 1
    time.sleep(0.002)
log.close()
print(n)
"""
"""A program that opens its log anew on SIGHUP, as servers do. It tells how many lines it wrote."""
ROTATIONS = 5
_NUMBER = re.compile(r"^    ERROR number (\d+)\.$", re.MULTILINE)


def create(log: Path, writer: subprocess.Popen[bytes]) -> None:
    """As logrotate does with `create` and `delaycompress`: renamed, and the program told."""
    last = log.with_name("app.log.3.gz")
    last.unlink(missing_ok=True)
    if (second := log.with_name("app.log.2")).exists():
        with second.open("rb") as plain, gzip.open(last, "wb") as packed:
            shutil.copyfileobj(plain, packed)
        second.unlink()
    if (first := log.with_name("app.log.1")).exists():
        first.rename(second)
    log.rename(first)
    log.touch()
    writer.send_signal(signal.SIGHUP)


def copy_truncate(log: Path, writer: subprocess.Popen[bytes]) -> None:
    """As logrotate does with `copytruncate`; what is written between the two would be lost."""
    writer.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, writer.pid, os.WSTOPPED)
    if (first := log.with_name("app.log.1")).exists():
        first.rename(log.with_name("app.log.2"))
    shutil.copyfile(log, first)
    os.truncate(log, 0)
    writer.send_signal(signal.SIGCONT)


class Site:
    """A fleet that watches, and the program whose log it watches."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.log = project.folder / "logs" / "app.log"
        self.log.parent.mkdir()
        self.log.touch()
        self.writers: list[subprocess.Popen[bytes]] = []

    async def begin(self, files: str) -> subprocess.Popen[bytes]:
        self.project.settings(f"watch: {{files: ['{files}'], cooldown: 0}}\n")
        for n in (1, 2):
            self.project.work(f"codex-{n}")
        looked = "SELECT 1 FROM meta WHERE key LIKE 'watched:f%'"
        await until(self.project.layout.watch_lock.exists, "somebody watches")
        await until(lambda: tuples(self.project.layout, looked), "it is watched")
        return self.write()

    def write(self) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-c", WRITER, str(self.log)]
        self.writers.append(subprocess.Popen(argv, env=ENVIRONMENT, stdout=subprocess.PIPE))
        return self.writers[-1]

    def told(self) -> list[int]:
        """Return the numbers of the lines that alerts have told of."""
        rows = tuples(self.project.layout, "SELECT body FROM alerts ORDER BY id")
        bodies = [(self.project.layout.state / body).read_text() for (body,) in rows]
        return sorted(int(number) for body in bodies for number in _NUMBER.findall(body))

    def found(self) -> int:
        """Count the lines found, those that no alert has told of yet among them."""
        layout = self.project.layout
        tables = ("alerts", "watched")
        counts = [tuples(layout, f"SELECT total(count) FROM {table}")[0][0] for table in tables]
        return int(sum(counts))


@pytest.fixture
async def site(project: Project) -> AsyncIterator[Site]:
    site = Site(project)
    yield site
    for writer in site.writers:
        with writer:
            writer.kill()


@pytest.mark.parametrize("killed", [False, True], ids=["watched", "and the one that watches dies"])
@pytest.mark.parametrize("files", ["logs/app.log", "logs/*"])
@pytest.mark.parametrize("rotate", [create, copy_truncate])
async def test_each_line_is_told_of_once(
    site: Site,
    rotate: Callable[[Path, subprocess.Popen[bytes]], None],
    files: str,
    killed: bool,
) -> None:
    writer = await site.begin(files)
    rotated = 0
    for n in range(ROTATIONS):
        # A file that is rotated away before it was seen once is out of reach.
        enough = rotated + 10
        await until(lambda: site.found() >= enough, "it writes, and is read")  # noqa: B023
        await asyncio.to_thread(rotate, site.log, writer)
        rotated += site.log.with_name("app.log.1").read_bytes().count(b"ERROR")
        if killed and n == 1:
            site.project.processes[0].kill()
    writer.terminate()
    lines = int((await asyncio.to_thread(writer.communicate))[0])
    await until(lambda: len(site.told()) >= lines, "all of it is told of")
    assert site.told() == list(range(lines))
    assert site.found() == lines
