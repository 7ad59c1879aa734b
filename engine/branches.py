"""Which branches runs worked on, as their results or their notes in the artifacts have it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec

from engine.files import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.files import Layout
    from engine.views import RunRow


class _About(msgspec.Struct):
    """What is read of an agent.json."""

    branch: str = ""


def branches_of(runs: Iterable[RunRow], layout: Layout) -> dict[str, str]:
    """Return the branches that runs worked on, however they ended, by the ids of the runs."""
    found = {}
    for run in runs:
        branch = (run.result or {}).get("branch")
        if branch is None:  # a run that has no result, or goes on, has noted it all the same
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                noted = read_regular(layout.run_folder(run.task_id, run.id) / "agent.json")
                branch = msgspec.json.decode(noted, type=_About).branch
        if branch and isinstance(branch, str):
            found[run.id] = branch
    return found
