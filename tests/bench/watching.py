"""What it costs to watch logs, and how soon the death of a service is seen."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FLEET = Path(__file__).with_name("fleet.py")
_PATIENCE = 60.0
_BEAT = 0.25
_SERVICE = "import time\nwhile True: time.sleep(60)\n"
_WRITER = """
import sys, time
path, rate, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
line = "2026-01-01 12:00:00,000 INFO     app.requests  GET /api/items/%06d 200 in 12 ms\\n"
block = "".join(line % n for n in range(2000)).encode()
trouble = b"2026-01-01 12:00:00,000 ERROR    app.requests  it broke\\n"
written, began = 0, time.monotonic()
with open(path, "ab", buffering=0) as log:
    while (now := time.monotonic() - began) < seconds:
        while written < now * rate:
            written += log.write(block)
        log.write(trouble)
        time.sleep(0.02)
print(written)
"""
"""Writes so many bytes a second, a line of trouble every 20 ms among them."""


def rest(folder: Path, files: int, seconds: float) -> tuple[float, str]:
    """Return what of a core, in percent, watching quiet logs takes: with them, less without."""
    logs = folder / "logs"
    logs.mkdir()
    for n in range(files):
        (logs / f"{n}.log").write_text("quiet\n" * 100)
    (folder / "none").mkdir()
    used = [_resting(folder / "none", {}, seconds)]
    used.append(_resting(folder, {"watch": {"files": ["logs/*.log"]}}, seconds))
    return used[1] - used[0], f"% of a core, {used[1]:.2f} with them, {used[0]:.2f} without"


def _resting(folder: Path, settings: dict[str, object], seconds: float) -> float:
    with _host(folder, settings) as host:
        time.sleep(5)  # it starts, and has looked at every file
        before, began = _cpu(host), time.monotonic()
        time.sleep(seconds)
        return 100 * (_cpu(host) - before) / (time.monotonic() - began)


def flood(folder: Path, rate: float, seconds: float) -> tuple[float, str]:
    """Return by how many seconds a heartbeat is late at most while a log is written so fast."""
    log = folder / "app.log"
    log.touch()
    settings = {"watch": {"files": ["app.log"], "cooldown": 2}, "heartbeat": _BEAT}
    with _host(folder, settings) as host:
        beat = folder / "state" / "heartbeats" / "codex-1.json"
        _until(beat.exists)
        time.sleep(2)
        _gaps(beat, 1)
        calm = max(_gaps(beat, 5))
        used = _cpu(host)
        command = [sys.executable, "-IS", "-c", _WRITER, str(log), str(rate), str(seconds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            gaps = _gaps(beat, seconds)
            written = int(writer.communicate()[0])
        ended = time.monotonic()
        _until(lambda: _read(folder) >= log.stat().st_size)
        behind = time.monotonic() - ended
        used = _cpu(host) - used
    late = max(gaps) - _BEAT
    return late, (
        f"s (calm {calm - _BEAT:.3f}); {written / seconds / 1e6:.0f} MB/s written, read to the end "
        f"{behind:.1f} s after it, at {written / used / 1e6:.0f} MB per second of CPU"
    )


def _gaps(beat: Path, seconds: float) -> list[float]:
    """Return the seconds between heartbeats, by the times of the file."""
    seen: list[float] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        at = beat.stat().st_mtime
        if not seen or at != seen[-1]:
            seen.append(at)
        time.sleep(0.002)
    return [b - a for a, b in pairwise(seen)]


def _read(folder: Path) -> int:
    """Return how far the log was read, as it is noted."""
    with closing(sqlite3.connect(folder / "state" / "tasks.db")) as db:
        rows = db.execute("SELECT positions FROM watched WHERE source LIKE '%app.log'").fetchall()
    return max((offset for (text,) in rows for _, _, offset, *_ in json.loads(text)), default=0)


def death(folder: Path, times: int) -> tuple[float, str]:
    """Return the seconds, at most, from the SIGKILL of a service to the store that says so."""
    services = {"web": {"command": [sys.executable, "-c", _SERVICE], "backoff": 0.1}}
    (folder / "agentmux.yaml").write_text(json.dumps({"services": services}))
    command = [sys.executable, "-m", "engine.cli", "up"]
    took = []
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as up:
        try:
            for _ in range(times):
                _until(lambda: _pid(folder) != 0)
                time.sleep(0.5)
                os.kill(_pid(folder), signal.SIGKILL)
                began = time.monotonic()
                _until(lambda: _pid(folder) == 0, 0.001)
                took.append(time.monotonic() - began)
        finally:
            up.terminate()
    return max(took), f"s, the longest of {times}; median {statistics.median(took):.3f}"


def _pid(folder: Path) -> int:
    """Return the pid of a service that is ready, else 0."""
    path = folder / "state" / "tasks.db"
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as db:
        if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'services'").fetchall():
            return 0  # it is being made
        rows = db.execute("SELECT pid FROM services WHERE state = 'ready'").fetchall()
    return rows[0][0] or 0 if rows else 0


@contextmanager
def _host(folder: Path, settings: dict[str, object]) -> Iterator[psutil.Process]:
    (folder / "agentmux.yaml").write_text(json.dumps(settings))
    with subprocess.Popen([sys.executable, str(_FLEET), str(folder), "1"]) as host:
        try:
            yield psutil.Process(host.pid)
        finally:
            host.terminate()


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _until(holds: Callable[[], bool], pause: float = 0.02) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError("it does not come to that")
        time.sleep(pause)
