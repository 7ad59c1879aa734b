"""Whole trees stopped, so that nobody in them can begin anything before all are killed."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from engine.processes.census import trees_of
from engine.processes.signalling import send

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from engine.model import ProcessId

_LOOKS = 5
"""Looks for members that began while others were being stopped; each is that of milliseconds."""


def stop_trees(state_dir: Path, runs: Mapping[str, set[ProcessId]]) -> dict[str, set[ProcessId]]:
    """Stop all members of runs, until a look finds no new one; return them by run.

    What was begun since the last look may be found by its parent alone, so nobody may be killed
    before all are known, and nobody may begin anything meanwhile. `runs` has the members that are
    known. A run whose processes come and go too fast is not stopped as a whole.

    Raises:
        StorageError: the processes cannot be looked at.

    """
    stopped: dict[str, set[ProcessId]] = {run_id: set() for run_id in runs}
    for _ in range(_LOOKS):
        known = {run_id: runs[run_id] | members for run_id, members in stopped.items()}
        trees = trees_of(state_dir, known)
        new = {run_id: members - stopped[run_id] for run_id, members in trees.items()}
        for run_id, members in new.items():
            for member in members:
                send(member, signal.SIGSTOP)
            stopped[run_id] |= members
        if not any(new.values()):
            break
    return stopped
