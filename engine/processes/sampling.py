"""What the process trees of runs take: CPU time and memory, from one look to the next.

A share needs two looks, so a `Sample` is kept by whoever takes them. Children that have ended and
were waited for count with their parent: a build that starts a thousand short compilers shows as
the load that it is. On Linux one read of /proc for each process, elsewhere through psutil.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from msgspec import Struct, field

from engine.processes.census import trees_of
from engine.views import ProcessRow, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from engine.model import ProcessId

if sys.platform != "linux":
    import psutil

LONGEST_COMMAND = 200


class Reading(Struct, frozen=True):
    """One process at one moment; CPU times in seconds, memory (resident) in bytes.

    `own` is what it has used itself, `waited` what its children had that it has waited for.
    """

    process: ProcessId
    ppid: int
    own: float
    waited: float
    memory: int


class Sample(Struct, frozen=True):
    """The trees of some runs at the moment `at` of a clock that never goes back."""

    at: float = 0.0
    trees: Mapping[str, tuple[Reading, ...]] = field(default_factory=dict)


def take_sample(
    state_dir: Path, runs: Mapping[str, Iterable[ProcessId]], now: Callable[[], float]
) -> Sample:
    """Look at the trees of these runs, given with their roots; call it off the event loop.

    Runs without a process are left out, and those whose processes come and go too fast to tell.

    Raises:
        StorageError: the processes cannot be looked at.

    """
    trees = {}
    for run_id, members in trees_of(state_dir, runs).items():
        readings = tuple(one for member in members if (one := _read(member)) is not None)
        if readings:
            trees[run_id] = readings
    return Sample(now(), trees)


def usage_between(former: Sample, latest: Sample) -> dict[str, Usage]:
    """Return what each run of the later sample takes."""
    span = latest.at - former.at
    found = {}
    for run_id, tree in latest.trees.items():
        before = former.trees.get(run_id)
        found[run_id] = Usage(
            cpu=None if before is None or span <= 0 else 100 * _spent(before, tree) / span,
            memory=sum(one.memory for one in tree),
            processes=len(tree),
        )
    return found


def _spent(before: Sequence[Reading], now: Sequence[Reading]) -> float:
    """Return the CPU seconds that a tree has used in between.

    What one that ended had used has moved to its parent, so the sums of both moments tell. If
    nobody of the tree waited for it, it is lost, and those that are still there tell the least.
    """
    used = sum(one.own + one.waited for one in now) - sum(one.own + one.waited for one in before)
    known = {one.process: one.own for one in before}
    least = sum(max(0.0, one.own - known[one.process]) for one in now if one.process in known)
    return max(used, least)


def rows_between(former: Sample, latest: Sample, run_id: str) -> list[ProcessRow]:
    """Return the tree of a run, parents before their children; reads the command lines.

    Those that have ended since are left out. Call it off the event loop.
    """
    span = latest.at - former.at
    before = {one.process: one.own for one in former.trees.get(run_id, ())}
    rows = []
    for depth, one in in_order(latest.trees.get(run_id, ())):
        command = _command(one.process.pid)
        if command is None:
            continue
        known = before.get(one.process)
        rows.append(
            ProcessRow(
                pid=one.process.pid,
                depth=depth,
                command=command[:LONGEST_COMMAND],
                cpu=None if known is None or span <= 0 else 100 * max(0, one.own - known) / span,
                memory=one.memory,
                started_at=_began(one.process),
            )
        )
    return rows


def in_order(tree: Iterable[Reading]) -> list[tuple[int, Reading]]:
    """Return the processes of a tree with their depth, each followed by its descendants.

    Those whose parent is none of them, as orphans, have depth 0. Siblings by their start.
    """
    members = sorted(tree, key=lambda one: (_began(one.process), one.process.pid))
    pids = {one.process.pid for one in members}
    children: dict[int, list[Reading]] = {}
    for one in members:
        children.setdefault(one.ppid if one.ppid in pids else 0, []).append(one)
    found: list[tuple[int, Reading]] = []
    waiting = [(0, one) for one in reversed(children.get(0, []))]
    while waiting:
        depth, one = waiting.pop()
        found.append((depth, one))
        below = children.get(one.process.pid, [])
        waiting += [(depth + 1, child) for child in reversed(below)]
    return found


if sys.platform == "linux":
    _TICK = 1 / os.sysconf("SC_CLK_TCK")
    _PAGE = os.sysconf("SC_PAGE_SIZE")

    def _read(process: ProcessId) -> Reading | None:
        """Return what this very process has used, None if it is gone or keeps it to itself."""
        stat = _file(f"/proc/{process.pid}/stat")
        if stat is None:
            return None
        # From field 3 on; the name before it may hold anything, even a parenthesis.
        fields = stat[stat.rindex(b")") + 2 :].split()
        if fields[19].decode() != process.started.partition("@")[0]:
            return None
        own, waited = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
        memory = int(fields[21]) * _PAGE
        return Reading(process, int(fields[1]), own * _TICK, waited * _TICK, memory)

    def _command(pid: int) -> str | None:
        """Return a process's command line, its name in brackets if it shows none."""
        line = _file(f"/proc/{pid}/cmdline")
        if line is None:
            return None
        if not line.strip(b"\0"):
            name = _file(f"/proc/{pid}/comm")
            return None if name is None else f"[{name.decode(errors='replace').strip()}]"
        return line.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")

    def _began(process: ProcessId) -> datetime:
        ticks = int(process.started.partition("@")[0])
        return datetime.fromtimestamp(_booted_at() + ticks * _TICK, UTC)

    @cache
    def _booted_at() -> float:
        for line in (_file("/proc/stat", 1 << 20) or b"").splitlines():
            if line.startswith(b"btime "):
                return float(line.split()[1])
        return 0.0

    def _file(path: str, size: int = 4096) -> bytes | None:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return os.read(file, size)
        except OSError:
            return None
        finally:
            os.close(file)

else:

    def _read(process: ProcessId) -> Reading | None:
        """Return what this very process has used, None if it is gone or keeps it to itself."""
        try:
            found = psutil.Process(process.pid)
            with found.oneshot():
                if repr(found.create_time()) != process.started:
                    return None
                times = found.cpu_times()
                return Reading(
                    process,
                    found.ppid(),
                    times.user + times.system,
                    times.children_user + times.children_system,
                    found.memory_info().rss,
                )
        except (psutil.Error, OSError):
            return None

    def _command(pid: int) -> str | None:
        """Return a process's command line, its name in brackets if it shows none."""
        try:
            found = psutil.Process(pid)
            return " ".join(found.cmdline()) or f"[{found.name()}]"
        except (psutil.Error, OSError):
            return None

    def _began(process: ProcessId) -> datetime:
        return datetime.fromtimestamp(float(process.started), UTC)
