"""Which processes belong to a run: by session, by descent, and by the tag in their environment.

A look at all processes costs some microseconds each, so all that ask at the same time share one.
Reads only; knows no signals.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from msgspec import Struct, field

from engine.errors import StorageError
from engine.model import ProcessId
from engine.processes.proctable import (
    OUTSIDE,
    all_pids,
    is_kernel_thread,
    look_at,
    session_of,
    spared_pids,
    variables_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from engine.processes.proctable import Look

RUN_ID = "AGENTMUX_RUN_ID"
STATE_DIR = "AGENTMUX_STATE_DIR"
"""These two variables are the tag: the run, and the absolute path of its state folder."""

_PASSES = 30
_RUN_KEY = os.fsencode(f"{RUN_ID}=")
_STATE_KEY = os.fsencode(f"{STATE_DIR}=")


class Census(Struct, frozen=True):
    """The session of every pid but our own; the pids by the (run id, state folder) they carry.

    `settled` says that there was a moment at which everybody alive is in here. Without it
    somebody ended just before we looked, and may have left a child that we did not see.
    """

    sessions: dict[int, int] = field(default_factory=dict)
    tagged: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    settled: bool = False


class SharedCensus:
    """Hands out a census that began after it was asked for, to many threads for the price of one.

    Threads that each looked for themselves would also fight for the interpreter.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._begun = 0
        self._done = 0
        self._busy = False
        self._latest = Census()

    def take(self) -> Census:
        """Return how things are now; blocks for milliseconds.

        Raises:
            StorageError: the processes cannot be looked at.

        """
        with self._changed:
            wanted = self._begun + 1
            while self._busy:
                self._changed.wait()
                if self._done >= wanted:
                    return self._latest
            self._busy = True
            self._begun += 1
            mine = self._begun
        try:
            census = take_census()
            with self._changed:
                self._latest, self._done = census, mine
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
        return census


_CENSUS = SharedCensus()
_TRIES = 5


def tree_of(run_id: str, state_dir: Path, roots: Iterable[ProcessId]) -> set[ProcessId]:
    """Return all living processes of a run. Looks at every process: call it off the event loop.

    Members are the roots that are alive, the sessions that they lead, all that carry the run's
    tag of this state folder (as far as we may read environments: our own user's, or everybody's
    as root), and the descendants of all these. Never this process, an ancestor of it, or pid 1.

    The session of a root that is gone and reaped is taken only if somebody in it carries the
    tag: its number may have been given to a stranger since.

    Raises:
        StorageError: the processes cannot be looked at, or change too fast: nothing can be said.

    """
    trees = trees_of(state_dir, {run_id: roots})
    if run_id not in trees:
        raise StorageError(
            f"the processes of run {run_id} come and go too fast to tell whether any is left"
        )
    return trees[run_id]


def trees_of(state_dir: Path, runs: Mapping[str, Iterable[ProcessId]]) -> dict[str, set[ProcessId]]:
    """Return what `tree_of` does, for several runs and their roots at the price of one.

    A run whose processes come and go too fast is left out: nothing can be said of it.

    Raises:
        StorageError: the processes cannot be looked at.

    """
    here = str(state_dir.resolve())
    waiting = {run_id: set(roots) for run_id, roots in runs.items()}
    trees: dict[str, set[ProcessId]] = {}
    # Who was dead before we looked around has no child that we could miss.
    known = _look_at_all({root.pid for roots in waiting.values() for root in roots})
    dead = {pid for pid, look in known.items() if look.ended}
    spared = spared_pids()
    for _ in range(_TRIES):
        census = _CENSUS.take()
        found: dict[str, frozenset[int]] = {}
        for run_id, roots in waiting.items():
            tagged = census.tagged.get((run_id, here), set())
            found[run_id] = _candidates(census.sessions, tagged, roots) - spared - dead
        looks = _look_at_all({pid for pids in found.values() for pid in pids})
        living = {
            run_id
            for run_id, pids in found.items()
            if any(pid in looks and not looks[pid].ended for pid in pids)
        }
        if living:
            everybody = looks | _look_at_all(census.sessions.keys() - looks.keys() - spared)
            children = _children_in(everybody)
            for run_id in living:
                seen = found[run_id] & looks.keys()
                trees[run_id] = _with_descendants(seen, everybody, children)
        for run_id, pids in found.items():
            if census.settled and not pids:
                trees[run_id] = set()
        dead |= {pid for pid, look in looks.items() if look.ended}
        waiting = {run_id: roots for run_id, roots in waiting.items() if run_id not in trees}
        if not waiting:
            break
    return trees


def is_within(run_id: str, state_dir: Path, roots: Iterable[ProcessId]) -> bool:
    """Tell whether this process or an ancestor of it belongs to a run.

    Whoever is part of a tree can neither end all of it nor say that it is gone: an agent that
    calls agentmux in its own task, for example.
    """
    here = str(state_dir.resolve())
    leading = {
        root.pid
        for root in roots
        if (look := look_at(root.pid)) is not None and look.started == root.started
    }
    for pid in spared_pids() - {1}:
        if pid in leading or session_of(pid) in leading:
            return True
        variables = variables_of(pid)
        if variables and _RUN_KEY in variables and _tag(variables) == (run_id, here):
            return True
    return False


def own_run(state_dir: Path) -> str | None:
    """Return the run of this state folder that this process was started in, if any."""
    variables = variables_of(os.getpid())
    tag = _tag(variables) if variables else None
    return tag[0] if tag is not None and tag[1] == str(state_dir.resolve()) else None


def _children_in(looks: Mapping[int, Look]) -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for pid, look in looks.items():
        children.setdefault(look.ppid, []).append(pid)
    return children


def _with_descendants(
    found: Iterable[int], looks: Mapping[int, Look], children: Mapping[int, list[int]]
) -> set[ProcessId]:
    """Return those found that are alive, and whoever descends from them."""
    members: set[int] = set()
    waiting = list(found)
    while waiting:
        pid = waiting.pop()
        if pid not in members:
            members.add(pid)
            waiting += children.get(pid, ())
    return {ProcessId(pid, looks[pid].started) for pid in members if not looks[pid].ended}


def _candidates(
    sessions: Mapping[int, int], tagged: set[int], roots: set[ProcessId]
) -> frozenset[int]:
    """Return the pids that belong to the run by tag, by identity or by session."""
    found = set(tagged)
    leading: set[int] = set()
    for root in roots:
        look = look_at(root.pid)
        if look is None:
            if any(sessions[pid] == root.pid for pid in tagged):
                leading.add(root.pid)
        elif look.started == root.started:
            leading.add(root.pid)
            found.add(root.pid)
    if leading:
        found.update(pid for pid, session in sessions.items() if session in leading)
    return frozenset(found)


def _look_at_all(pids: Iterable[int]) -> dict[int, Look]:
    return {pid: look for pid in pids if (look := look_at(pid)) is not None}


def take_census() -> Census:
    """Look at every process, and again at those that appeared while others ended."""
    sessions: dict[int, int] = {}
    tagged: dict[tuple[str, str], set[int]] = {}
    seen = {os.getpid()}
    for _ in range(_PASSES):
        fresh = all_pids() - seen
        seen |= fresh
        settled = True
        for pid in sorted(fresh):
            session = session_of(pid)
            if session is None:
                settled = False
                continue
            if session == OUTSIDE and is_kernel_thread(pid):
                continue  # hundreds, and each would look like a process in the midst of its exec
            sessions[pid] = session
            variables = variables_of(pid)
            if variables is None:
                settled = False
            elif _RUN_KEY in variables and (tag := _tag(variables)) is not None:
                tagged.setdefault(tag, set()).add(pid)
        if settled:
            return Census(sessions, tagged, settled=True)
    return Census(sessions, tagged)


def _tag(variables: bytes) -> tuple[str, str] | None:
    run = state = None
    for variable in variables.split(b"\0"):
        if run is None and variable.startswith(_RUN_KEY):
            run = os.fsdecode(variable[len(_RUN_KEY) :])
        elif state is None and variable.startswith(_STATE_KEY):
            state = os.fsdecode(variable[len(_STATE_KEY) :])
    return None if run is None or state is None else (run, state)


def tagged(state_dir: Path) -> dict[ProcessId, str]:
    """Return every living process that carries the tag of a run of this state folder, and the run.

    Never this process or an ancestor of it. Looks at every process: call it off the event loop.

    Raises:
        StorageError: the processes cannot be looked at, so that nothing can be said.

    """
    here, spared = str(state_dir.resolve()), spared_pids()
    census = _CENSUS.take()
    runs = {
        pid: run_id
        for (run_id, state), pids in census.tagged.items()
        if state == here
        for pid in pids - spared
    }
    looks = _look_at_all(runs)
    return {
        ProcessId(pid, look.started): runs[pid] for pid, look in looks.items() if not look.ended
    }
