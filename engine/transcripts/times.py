"""When each part of a transcript came, as `transcript.times` has it. Pure.

A line is `<ISO time> <byte offset>`: what began before that offset, and not before the one of the
line above, had come by that time.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from engine.agents.lines import moment

if TYPE_CHECKING:
    from datetime import datetime


class Times:
    """The times of a transcript, as far as they are written. A damaged line says nothing."""

    def __init__(self) -> None:
        self._offsets: list[int] = []
        self._stamps: list[bytes] = []
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take what was appended to the file, however it is split."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            stamp, _, offset = line.partition(b" ")
            # Seventeen digits are more bytes than any disk has; more than that is no offset.
            if not offset.isdigit() or len(offset) > 17:
                continue
            end = int(offset)
            if not self._offsets or end > self._offsets[-1]:
                self._offsets.append(end)
                self._stamps.append(stamp)

    def at(self, offset: int) -> datetime | None:
        """Return when what begins at this byte had come; None if that is not written."""
        index = bisect_right(self._offsets, offset)
        if index == len(self._stamps):
            return None
        return moment(self._stamps[index].decode("ascii", "replace"))
