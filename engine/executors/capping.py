"""How the logs of a run are kept below a size while its program writes to them.

The program appends to the files itself (O_APPEND), so nobody stands between: a look twice a
second tells how large they are, and looks come faster as one that grows comes near its limit. One
that is too large keeps its head (a quarter of the limit) and what came last (an eighth while the
program runs, half once it has ended), with a mark in between that says how much was left out.

The head, the mark and the newest bytes are written over what is left out, then the file is cut
behind them. So nothing is ever out of order, no room is needed on a disk that is full, and whoever
dies in the middle leaves a log that is too long, never one that lacks its end. What the program
appends meanwhile is moved, too, unless it writes so fast that there is no room for it: that has a
mark of its own. What it appends between the last look at the size and the cut goes unseen: some
milliseconds, as a cut waits for a program that writes without a pause. One that ends within them
loses so much of its end.

At each look the secrets in what is new are written over, byte for byte, so that nothing moves. A
program that prints one has it in its log for half a second at most, and never once it has ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING, Self

from engine.secrets import masks
from engine.shield import shielded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

log = logging.getLogger(__name__)

_LOOK = 0.5
"""Seconds between two looks; fewer if a log would be too large by then, as it grows now."""
_SOON = 0.02
_FIRST = 0.1
_CHUNK = 1 << 20
_LINE = 65_536
"""How far a line end is looked for, so that head and newest bytes are whole lines."""


class Caps:
    """Keeps logs below `limit` bytes each, from `async with` until its end, when it looks again.

    The values of those variables of `secrets` whose names say so are written over in them.

    To be entered before the program starts: it opens (and makes) the files, so that not even a
    program that renames or removes its log escapes the limit.
    """

    def __init__(self, limit: int, *paths: Path, secrets: Mapping[str, str] | None = None) -> None:
        self._limit = limit
        self._masks = masks(secrets or {})
        self._paths = paths
        self._logs: list[CappedLog] = []
        self._looked = time.monotonic()
        self._over = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    @property
    def left_out(self) -> dict[str, int]:
        """The bytes that logs lack, by the log's name without `.log`; none for a whole one."""
        return {log.path.stem: log.left_out for log in self._logs if log.left_out}

    async def __aenter__(self) -> Self:
        """Open the logs. Raises OSError."""
        try:
            self._logs.extend(CappedLog(path, self._limit, self._masks) for path in self._paths)
        except OSError:
            self._close()
            raise
        self._watching = asyncio.create_task(self._watch(), name="caps of logs")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Look for the last time. This cannot be cut short, and swallows a cancellation."""
        self._over.set()
        if self._watching is not None:
            await shielded(self._watching, reraise=False)

    async def _watch(self) -> None:
        try:
            pause = min(_FIRST, _LOOK)
            while not self._over.is_set():
                try:
                    async with asyncio.timeout(pause):
                        await self._over.wait()
                except TimeoutError:
                    pause = await asyncio.to_thread(self._look)
            if any(log.is_due() for log in self._logs):
                await asyncio.to_thread(self._look, ended=True)
        except OSError as error:  # the disk's fault, not the run's
            log.warning("%s is no longer watched: %s", self._paths[0].parent, error.strerror)
        finally:
            self._close()

    def _look(self, *, ended: bool = False) -> float:
        """Trim what is too large; return the seconds until the next look."""
        now = time.monotonic()
        past, self._looked = now - self._looked, now
        room = _LOOK
        for capped in self._logs:
            capped.trim(ended=ended)
            if capped.grew > 0:
                room = min(room, past * (self._limit - capped.size) / capped.grew)
        return max(room, _SOON)

    def _close(self) -> None:
        for capped in self._logs:
            capped.close()


class CappedLog:
    """One log, held open. `left_out` is how many bytes it lacks until now.

    `size` is what it held after the last look, `grew` by how much it had grown until then.

    Raises:
        OSError: it cannot be opened.

    """

    def __init__(self, path: Path, limit: int, masks: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self.path = path
        self.left_out = self.size = self.grew = 0
        self._limit = limit
        self._masks = masks
        self._reach = max((len(secret) for secret, _ in masks), default=1) - 1
        self._clean = 0
        self._head: int | None = None
        self._marked = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o600)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def is_due(self) -> bool:
        """Tell whether it holds more than it may, or what was not looked at for secrets."""
        size = self._size()
        return size > self._limit or (bool(self._masks) and size != self._clean)

    def trim(self, *, ended: bool = False) -> bool:
        """Hide secrets; leave out the middle of a log that is too large; tell whether it was.

        `ended`: its program has. Raises OSError if it cannot be read or written.
        """
        size = self._size()
        self.grew, self.size = size - self.size, size
        self._hide(size)
        if size <= self._limit:
            return False
        if self._head is None:
            self._head = self._end_of_line(self._limit // 4, before=True)
        newest = self._limit // (2 if ended else 8)
        kept = self._end_of_line(size - newest, before=False)
        left_out = self.left_out + kept - self._head - self._marked
        mark = self._mark(left_out, self._head)
        os.pwrite(self._file, mark, self._head)
        self._marked = len(mark)
        place = self._head + len(mark)
        while kept < size and place + size - kept <= self._limit:
            place += self._move(kept, size, place)
            kept, size = size, self._size()
        if kept < size:  # who writes faster than we do is not waited for
            left_out += size - kept
            place += os.pwrite(self._file, self._mark(size - kept, place), place)
            kept = size
        size = self._size()
        if size > place:  # else the program itself has cut it meanwhile
            os.ftruncate(self._file, place)
        self.left_out = left_out + max(0, size - kept)
        self.size = place
        # What was appended meanwhile was moved before anybody looked at it.
        self._clean = min(self._clean, self._head)
        self._hide(place)
        return True

    def _hide(self, end: int) -> None:
        """Write over the secrets between the last look and `end`, byte for byte: nothing moves."""
        if not self._masks:
            return
        start = self._clean if self._clean <= end else 0  # its program may have cut it
        start = max(0, start - self._reach)  # one may have been half written
        while start < end:
            block = os.pread(self._file, min(_CHUNK, end - start), start)
            if not block:
                break
            self._hide_in(bytearray(block), start)
            if start + len(block) >= end:
                break
            start += max(1, len(block) - self._reach)
        self._clean = end

    def _hide_in(self, block: bytearray, start: int) -> None:
        for secret, mask in self._masks:
            found = block.find(secret)
            while found >= 0:
                os.pwrite(self._file, mask, start + found)
                block[found : found + len(mask)] = mask
                found = block.find(secret, found + len(mask))

    def _size(self) -> int:
        return os.fstat(self._file).st_size

    def _move(self, start: int, end: int, place: int) -> int:
        """Copy the bytes from `start` to `end` to `place`, which lies before; return how many."""
        moved = 0
        while start + moved < end:
            chunk = os.pread(self._file, min(_CHUNK, end - start - moved), start + moved)
            if not chunk:
                break
            moved += os.pwrite(self._file, chunk, place + moved)
        return moved

    def _end_of_line(self, place: int, *, before: bool) -> int:
        """Return where a line ends near `place`, or `place` if its line is too long."""
        reach = min(_LINE, self._limit // 8)
        start = place - reach if before else place
        block = os.pread(self._file, reach, start)
        found = block.rfind(b"\n") if before else block.find(b"\n")
        return start + found + 1 if found >= 0 else place

    def _mark(self, left_out: int, place: int) -> bytes:
        mark = f"[agentmux: {amount(left_out)} of output left out here]\n".encode()
        begins = os.pread(self._file, 1, place - 1) == b"\n"
        return mark if begins else b"\n" + mark


def amount(size: int) -> str:
    """Write a number of bytes in decimal units: 980 bytes, 12 kB, 75 MB, 1.2 GB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size} bytes"
