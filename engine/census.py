"""One look at all processes: their sessions, and which carry the tag of which run.

A look costs some microseconds a process, so all that ask at the same time share one. Knows
neither roots nor signals.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field

from engine.proctable import all_pids, session_of, variables_of

RUN_ID = "AGENTMUX_RUN_ID"
STATE_DIR = "AGENTMUX_STATE_DIR"
"""These two variables are the tag: the run, and the absolute path of its state folder."""

_PASSES = 8
_RUN_KEY = os.fsencode(f"{RUN_ID}=")
_STATE_KEY = os.fsencode(f"{STATE_DIR}=")


@dataclass(frozen=True, slots=True)
class Census:
    """The session of every pid but our own; the pids by the (run id, state folder) they carry."""

    sessions: dict[int, int] = field(default_factory=dict)
    tagged: dict[tuple[str, str], set[int]] = field(default_factory=dict)


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


def take_census() -> Census:
    """Look at every process once.

    A pid that appears meanwhile is looked at too: its parent may have ended unseen.
    """
    census = Census()
    seen = {os.getpid()}
    for _ in range(_PASSES):
        fresh = all_pids() - seen
        if not fresh:
            break
        seen |= fresh
        for pid in sorted(fresh):
            session = session_of(pid)
            if session is None:
                continue
            census.sessions[pid] = session
            variables = variables_of(pid)
            if _RUN_KEY in variables and (tag := _tag(variables)) is not None:
                census.tagged.setdefault(tag, set()).add(pid)
    return census


def _tag(variables: bytes) -> tuple[str, str] | None:
    run = state = None
    for variable in variables.split(b"\0"):
        if run is None and variable.startswith(_RUN_KEY):
            run = os.fsdecode(variable[len(_RUN_KEY) :])
        elif state is None and variable.startswith(_STATE_KEY):
            state = os.fsdecode(variable[len(_STATE_KEY) :])
    return None if run is None or state is None else (run, state)
