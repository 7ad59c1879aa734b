"""A transcript as it grows: read twice a second, told in a sentence, its times noted down.

The agent writes its lines straight into the file; nobody stands between. What is read here is
never needed for the run to go on: whoever cannot read it says so once.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from msgspec.structs import replace

from engine.agents.lines import one_line
from engine.agents.reading import reader_for
from engine.agents.summary import Summary
from engine.agents.vocabulary import Entry, Kind, Trouble
from engine.clock import to_iso
from engine.errors import LeaseLost
from engine.model import Spending
from engine.secrets import masks, names_secret, redact
from engine.shield import heed_cancellation, shielded
from engine.text import ELLIPSIS, clean_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from engine.clock import Clock
    from engine.config import Prices
    from engine.executors.base import Progress

log = logging.getLogger(__name__)

_LOOK = 0.5
"""Seconds between two looks."""
_TELL = 1.0
"""Seconds between two words about it, at least."""
_TELL_COST = 30.0
"""And until one that tells nothing new but what it took."""
_CHUNK = 1 << 18
_MOST = 4 << 20
"""Bytes that are read at a look: who writes faster is heard later."""
_MOST_AT_LAST = 64 << 20
"""Bytes that are read once the run is over, the last ones: what is before them is a flood."""
_LONGEST_LINE = 32 << 20
"""Bytes of a line; what is longer is no line of a CLI, and counted as unknown."""
_LINGER = 660.0
"""Seconds that a CLI may stay silent after its last word.

Claude Code waits up to 10 minutes for its subagents then (CLAUDE_CODE_PRINT_BG_WAIT_CEILING_MS in
https://code.claude.com/docs/en/env-vars). It is known to stay for ever, too
(https://github.com/anthropics/claude-code/issues/25629).
"""
_LATE, _SHARE = 60.0, 0.25
"""How long before the end of its time a CLI is ended that only waits: seconds, and the most of all
its time. With that end the run loses its claim, and its result would count for nothing."""
_WORK = frozenset({Kind.SESSION, Kind.MESSAGE, Kind.CALL, Kind.ANSWER})
"""What shows that the word before was not the last one."""
_TOLD = ("text", "tool", "session", "model")
"""What an entry tells others than those who read the transcript."""


class Follower:
    """Follows a run's output from `async with` to its end, when it reads what is left.

    `lines` is the transcript, `times` where its times go: both are opened (and made) before the
    program starts, so it matters to nobody what it puts in their places. `variables` are the
    program's: what is told of it holds none of its secrets. `timeout` is what it has of time from
    now on, in seconds.
    """

    def __init__(
        self,
        *,
        form: str,
        folder: Path,
        lines: Path,
        times: Path,
        clock: Clock,
        prices: Prices | None,
        progress: Progress,
        variables: Mapping[str, str],
        timeout: float = math.inf,
    ) -> None:
        self.summary = Summary()
        self.lines = lines
        self._reader = reader_for(form, str(folder))
        self._times_path = times
        self._clock, self._prices = clock, prices
        self._progress = progress
        self._secrets = {
            name: text for name, text in variables.items() if text and names_secret(name)
        }
        self._needles = tuple(
            [needle.decode(errors="surrogateescape") for needle, _ in masks(variables)]
        )
        self._late = clock.monotonic() + timeout - min(_LATE, timeout * _SHARE)
        self._file = self._times = -1
        self._held: list[bytes] = []
        self._length = 0
        self._offset = 0
        self._silent_since: float | None = None
        self._told: tuple[str, Spending] = ("", Spending())
        self._told_at = clock.monotonic()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Open the files. Raises OSError."""
        ours = os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._file = os.open(self.lines, os.O_RDONLY | ours, 0o600)
        try:
            self._times = os.open(self._times_path, os.O_WRONLY | os.O_APPEND | ours, 0o600)
        except OSError:
            os.close(self._file)
            raise
        self._task = asyncio.create_task(self._follow(), name=f"follow {self.lines}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await shielded(asyncio.wait({self._task}), reraise=False)
        # Whatever ends the run: what its agent has said and taken must not be lost.
        await shielded(asyncio.to_thread(self._finish), reraise=False)

    @property
    def spending(self) -> Spending:
        """What the run took until now; its cost by the operator's prices if its CLI tells none."""
        told, prices = self.summary.spending, self._prices
        if told.cost is not None or prices is None or told.input_tokens is None:
            return told
        cached = told.cached_tokens or 0
        each = prices.input if prices.cached is None else prices.cached
        cost = (
            (told.input_tokens - cached) * prices.input
            + cached * each
            + (told.output_tokens or 0) * prices.output
        ) / 1_000_000
        return Spending(told.turns, told.input_tokens, told.cached_tokens, told.output_tokens, cost)

    def is_through(self) -> bool:
        """Say whether the CLI has said its last word long ago, or its time is nearly over."""
        since, now = self._silent_since, self._clock.monotonic()
        return since is not None and (now - since > _LINGER or now > self._late)

    def is_in_vain(self) -> bool:
        """Say whether the CLI waits for a limit to be over, and its own time nearly is."""
        limited = self.summary.trouble is Trouble.RATE and not self.summary.succeeded
        return limited and self._clock.monotonic() > self._late

    def has_succeeded(self) -> bool:
        """Say whether the CLI's last word was that all went well; asked once it has ended."""
        return self._silent_since is not None and self.summary.succeeded

    async def _follow(self) -> None:
        heard, said = True, False
        while True:
            heed_cancellation()  # a fault of what is shielded goes before it
            await asyncio.sleep(_LOOK)
            try:
                # To its end in any case: there is one place in the file, and the next who reads
                # goes on from there.
                await shielded(asyncio.to_thread(self._read, _MOST))
                if heard:
                    await self._tell()
            except LeaseLost:
                heard = False  # the run is over, and ended in a moment
            except Exception:
                # Whatever it is: the run goes on, and its transcript is on the disk.
                if not said:
                    said = True
                    log.exception("%s cannot be followed", self.lines)

    async def _tell(self) -> None:
        """Say what the agent does now and what it took, if that is news."""
        now, moment = (self._doing(), self.spending), self._clock.monotonic()
        # Each answer costs something: with its cost alone every tool use would be told twice.
        pause = _TELL if now[0] != self._told[0] else _TELL_COST
        if now != self._told and moment - self._told_at >= pause:
            self._told, self._told_at = now, moment
            await self._progress(*now)

    async def tell_all(self) -> None:
        """Say what the run took in all, for one that cannot report it."""
        if self.spending != Spending():
            await self._progress(self._doing() or "it was stopped", self.spending)

    def _doing(self) -> str:
        # Once more: what acts on a terminal may have stood in the midst of a secret.
        return one_line(redact(clean_text(self.summary.doing), self._secrets))

    def _read(self, most: int) -> None:
        """Read what has come, at most about so many bytes, and note when that was."""
        before = self._offset
        while self._offset - before < most and (data := os.read(self._file, _CHUNK)):
            self._offset += len(data)
            first, *lines = data.split(b"\n")
            self._hold(first)
            for line in lines:
                self._take()
                self._hold(line)
        if self._offset != before:
            with suppress(OSError):  # the disk is full: what has no time is shown without
                os.write(self._times, f"{to_iso(self._clock.now())} {self._offset}\n".encode())

    def _hold(self, piece: bytes) -> None:
        """Keep a piece of a line; of one that is too long only that there is one."""
        self._length += len(piece)
        if self._length > _LONGEST_LINE:
            self._held.clear()
        elif piece:
            self._held.append(piece)

    def _take(self) -> None:
        """Understand the line that is held."""
        line, too_long = b"".join(self._held), self._length > _LONGEST_LINE
        self._held.clear()
        self._length = 0
        if too_long:
            self.summary.take(Entry(Kind.UNKNOWN))
            return
        for entry in self._reader.read(line, self._clock.now()):
            self._hear(entry)

    def _hear(self, entry: Entry) -> None:
        if entry.kind is Kind.RESULT:
            self._silent_since = self._clock.monotonic()
        elif entry.kind in _WORK:
            self._silent_since = None
        texts = (entry.detail, *[getattr(entry, name) for name in _TOLD])
        if any(needle in text for needle in self._needles for text in texts):
            entry = _without(self._secrets, entry)
        self.summary.take(entry)

    def _finish(self) -> None:
        try:
            left = os.fstat(self._file).st_size - self._offset - _MOST_AT_LAST
            if left > 0:
                self._offset = os.lseek(self._file, left, os.SEEK_CUR)
                self._held.clear()
                self._length = _LONGEST_LINE + 1  # in the midst of a line: that one is not known
            self._read(_MOST_AT_LAST)
        except OSError as error:
            log.warning("%s cannot be read: %s", self.lines, error.strerror)
        finally:
            os.close(self._file)
            os.close(self._times)
        if self._length:
            self._take()


def _without(secrets: Mapping[str, str], entry: Entry) -> Entry:
    """Return an entry that tells none of these, not even the beginning of one."""
    told = {name: redact(getattr(entry, name), secrets) for name in _TOLD}
    if told["text"].endswith(ELLIPSIS) and redact(entry.detail, secrets) != entry.detail:
        told["text"] = ELLIPSIS
    return replace(entry, **told)
