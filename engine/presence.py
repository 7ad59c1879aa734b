"""The files by which a worker is seen and stopped: its pid, its heartbeat, its stop file.

For people and scripts; the store knows all of it too, but for the stop file.
"""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.clock import Clock, to_iso
from engine.files import Layout, read_regular, write_private

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.model import Claim

log = logging.getLogger(__name__)

DRAIN = "drain"
"""A stop file that says so lets the worker finish its task; any other stops it at once."""
KILL = "kill"
"""A stop file that says so is for a worker whose run was killed: it must not take another."""

Marks = dict[str, tuple[int, int]]
"""Stop files by name, with what changes when one is touched again."""


class Beat(Struct, frozen=True):
    """What a worker tells in its heartbeat file."""

    agent: str
    worker_id: str
    claim: Claim | None
    note: str = ""


class Presence:
    """These files of one state folder. All of it blocks, briefly: call it off the event loop.

    Whatever writes raises OSError as the file system has it.
    """

    def __init__(self, layout: Layout, clock: Clock) -> None:
        self._layout = layout
        self._clock = clock

    def enter(self, beat: Beat, pid: int, old: Mapping[str, tuple[int, int]]) -> None:
        """Write a new worker's files. `old`: the stop files before its name was known.

        A stop file from before its time was meant for somebody else; one that came after its
        name was known is meant for it.
        """
        file = self._layout.stop_file(beat.agent, beat.worker_id)
        if file.name in old and self.marks().get(file.name) == old[file.name]:
            file.unlink(missing_ok=True)
        write_private(self._layout.pid_file(beat.agent, beat.worker_id), str(pid))
        self.tell([beat])

    def tell(self, beats: Iterable[Beat]) -> None:
        """Write heartbeats, each also as its agent's latest."""
        now = to_iso(self._clock.now())
        for beat in beats:
            claim = beat.claim
            text = json.dumps(
                {
                    "ts": now,
                    "agent": beat.agent,
                    "workerId": beat.worker_id,
                    "currentTaskId": claim.task.id if claim is not None else None,
                    "leaseUntil": to_iso(claim.lease_until) if claim is not None else None,
                    "note": beat.note,
                }
            )
            for name in (beat.worker_id, beat.agent):
                write_private(self._layout.heartbeat_file(name), text + "\n")

    def leave(self, agent: str, worker_id: str, pid: int) -> None:
        """Remove what must not outlive a worker; its last heartbeat stays.

        A pid file that names another process is that of a worker who took the name since.
        """
        pid_file = self._layout.pid_file(agent, worker_id)
        try:
            if os.path.lexists(pid_file) and read_regular(pid_file) != str(pid):
                return
            for file in (pid_file, self._layout.stop_file(agent, worker_id)):
                file.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s is left behind: %s", pid_file, error)

    def marks(self) -> Marks:
        """Return the stop files that are there."""
        found = {}
        try:
            with os.scandir(self._layout.control) as entries:
                for entry in entries:
                    if entry.name.endswith(".stop"):
                        status = entry.stat(follow_symlinks=False)
                        found[entry.name] = (status.st_ino, status.st_mtime_ns)
        except FileNotFoundError:
            # The folder, or a file that its worker has just removed: the next look sees.
            return found
        return found

    def stop_requests(self) -> dict[str, str]:
        """Return the names of the stop files with what they say; an empty one means: at once."""
        found = {}
        for name in self.marks():
            try:
                found[name] = read_regular(self._layout.control / name).strip()
            except FileNotFoundError:
                continue  # its worker has just removed it
            except OSError:
                found[name] = ""  # a folder, a pipe, another user's: that it is there is enough
        return found

    def ask_stop(self, agent: str, worker_id: str, word: str = "") -> str | None:
        """Write a worker's stop file, with DRAIN or KILL in it if need be.

        Return what it said before, None if there was none: see take_back.
        """
        file = self._layout.stop_file(agent, worker_id)
        before = self.stop_requests().get(file.name) if os.path.lexists(file) else None
        write_private(file, word)
        return before

    def take_back(self, agent: str, worker_id: str, before: str | None) -> None:
        """Let a worker be that was asked to stop, unless it has obeyed already.

        Its stop file is as it was `before`: one that somebody else wrote still counts.
        """
        file = self._layout.stop_file(agent, worker_id)
        if before is None:
            file.unlink(missing_ok=True)
        elif os.path.lexists(file):
            write_private(file, before)
