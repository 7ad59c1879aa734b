"""The guard process itself: it ends the runs of a host that is gone (DESIGN §4 rule 5).

A small program of its own, started by `guard`. Its input is a pipe whose only other end the host
holds: while that is open it notes down runs and does nothing; at its end the host has died, in
whatever way, and the trees of all runs that are still open are ended.

All is imported at the start, for at the end the files may be gone. So as little as possible:
no event loop, no store, no settings. Nobody reads what it says; its exit code tells how it went.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from msgspec import Struct, field

from engine.errors import StorageError
from engine.model import ProcessId
from engine.processes.census import trees_of
from engine.processes.halting import stop_trees
from engine.processes.signalling import kill_groups, send

_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL, whatever the settings say: all must be over in 5."""
_UNKILLABLE = 5.0
"""Seconds that SIGKILL gets; what is left then hangs in the kernel or is not ours to signal."""
AT_MOST = _GRACE + _UNKILLABLE
"""Seconds that the guard process takes to end what can be ended."""
_SETTLED = 1.0
"""Seconds after which a leader that was forked as the host died must show its tag.

Between fork and exec it still shows the environment of the host, and nobody has told us of it.
"""
_POLL = 0.02
_BLOCK = 1 << 16


class _Run(Struct):
    known: set[ProcessId] = field(default_factory=set)
    told: set[ProcessId] = field(default_factory=set)


def main() -> None:
    """Guard the host at the other end of standard input; exit with 1 if a run outlived it.

    The only argument is the state folder that the tags of the host's runs name.
    """
    runs = _listen(sys.stdin.fileno())
    sys.exit(_end_all(Path(sys.argv[1]), runs))


def _listen(pipe: int) -> dict[str, _Run]:
    """Note down what the host says until it says no more; return the runs that are open then."""
    runs: dict[str, _Run] = {}
    rest = b""
    while block := os.read(pipe, _BLOCK):
        # What follows the last line break is half a message: the host died over it.
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            message = json.loads(line)
            run_id = message["run"]
            if message.get("over"):
                runs.pop(run_id, None)
                continue
            run = runs.setdefault(run_id, _Run())
            if "pid" in message:
                run.known.add(ProcessId(message["pid"], message["started"]))
    return runs


def _end_all(state_dir: Path, runs: dict[str, _Run]) -> int:
    """End all runs at the same time; return 0 once no process is left, 1 if some survive."""
    begun = time.monotonic()
    kill_at = begun + _GRACE
    left = dict(runs)
    while left:
        looked = time.monotonic()
        kill = looked >= kill_at
        # Out of file handles, most likely: that passes, and no tree may live for it.
        with contextlib.suppress(StorageError):
            for run_id in _strike(state_dir, left, kill=kill):
                if looked >= begun + _SETTLED:
                    del left[run_id]
        now = time.monotonic()
        if now >= begun + AT_MOST:
            break
        # Many processes take long to look at: at least half of the time is theirs.
        pause = max(_POLL, now - looked)
        time.sleep(pause if kill else max(0.0, min(pause, kill_at - now)))
    return 1 if left else 0


def _strike(state_dir: Path, runs: dict[str, _Run], *, kill: bool) -> list[str]:
    """Look once, and signal: SIGKILL to all, or SIGTERM to whom it was not yet sent.

    Returns:
        The runs of which nobody was left.

    """
    if kill:
        with contextlib.suppress(StorageError):  # who forks too fast to be seen is killed below
            known = {run_id: run.known for run_id, run in runs.items()}
            for run_id, members in stop_trees(state_dir, known).items():
                runs[run_id].known |= members
        kill_groups(process for run in runs.values() for process in run.known)
    trees = trees_of(state_dir, {run_id: run.known for run_id, run in runs.items()})
    for run_id, members in trees.items():
        run = runs[run_id]
        run.known |= members
        for member in members if kill else members - run.told:
            send(member, signal.SIGKILL if kill else signal.SIGTERM)
            run.told.add(member)
    return [run_id for run_id, members in trees.items() if not members]
