"""What was found in one log and not told of yet: counted, and its lines kept in a draft.

The draft is the body of the next alert: a file in state/alerts/ that grows with each find. How much
of it is good is noted in the store with how far the log was read, so after a crash both go on from
the same line.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace

from engine.clock import to_iso
from engine.files import private, write_private
from engine.logwatch.stream import Position
from engine.logwatch.tailing import Tail
from engine.model import AlertKind, NewAlert
from engine.secrets import redact
from engine.store.watched import WatchedLog
from engine.text import clean_text, cut_middle, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from pathlib import Path

    from engine.logwatch.finding import Finder
    from engine.logwatch.stream import Piece
    from engine.store.watched import WatchedRun

SETTLE = timedelta(seconds=1)
"""What is found so soon after the first line goes into the same alert: a traceback, say."""
AT_ONCE = 32 << 20
"""Bytes of a log that one look reads: others wait for their turn meanwhile, and so does a stop."""
LARGEST = 4 << 20
"""Bytes of lines that a body has; further ones are counted."""
_LONGEST = 2000
"""Characters of a line that are kept."""
_FIRST = 200
_FOLLOWING = 20
"""Lines at most that follow one with trouble and belong to it: indented ones."""


class GatheredLog:
    """One log: what is read of it, and what was found there since the last alert.

    `label` is how people name it, `draft` the file with the lines found. `run`: it is the output of
    that run of that task.
    """

    def __init__(
        self,
        known: WatchedLog,
        path: Path,
        label: str,
        draft: Path,
        *,
        from_end: bool = False,
        run: WatchedRun | None = None,
        others: Iterable[GatheredLog] = (),
    ) -> None:
        known = replace(known, positions=tuple(known.positions))
        self.source = known.source
        self.path = path
        self.label = label
        self.run = run
        self.behind = False
        """Whether there is more to read than one look takes."""
        self._draft = draft
        self._known = known
        self._count = known.count
        self._first_at, self._last_at = known.first_at, known.last_at
        self._first_line = known.first_line
        self._quiet_until = known.quiet_until
        self._good = known.draft
        self._unwritten: list[str] = []
        self._unwritten_bytes = 0
        # Secrets are written over in the output of runs.
        self._tail = Tail(
            path,
            _positions(known),
            from_end=from_end,
            is_masked=run is not None,
            # No other path leads to the output of a run.
            others=() if run is not None else _Tails(others),
        )

    @property
    def is_open(self) -> bool:
        """Whether there is anything to read on, or to tell."""
        return bool(self._count or self._tail.positions)

    def close(self) -> None:
        """Close its files; what is known of it stays."""
        self._tail.close()

    def end(self) -> None:
        """Close its files for good."""
        self._tail.close()
        self._remove_draft()

    def look(self, finder: Finder, monotonic: float, now: datetime, *, last: bool = False) -> str:
        """Read what is new; return why the file cannot be read, empty if it can.

        `last`: nothing more will be written.
        """
        self.behind = False
        left = AT_ONCE
        try:
            for piece in self._tail.read(monotonic, last=last):
                self._take(piece, finder, now)
                left -= len(piece.data)
                if left <= 0:
                    self.behind = True
                    break
        except OSError as error:
            return error.strerror or str(error)
        return self._tail.trouble

    def _take(self, piece: Piece, finder: Finder, now: datetime) -> None:
        through = 0
        for start, end in finder.find(piece.data):
            if start == 0 and piece.told:
                continue
            if piece.unended is not None:
                piece.unended.told = True
            self._note(piece.data[start:end], now)
            if self._good + self._unwritten_bytes > LARGEST:
                continue
            if through and start > through:
                self._keep("")
            self._keep(_shown(piece.data[start:end]))
            through = end + 1
            for first, last in finder.following(piece.data, through, _FOLLOWING):
                self._keep(_shown(piece.data[first:last]))
                through = last + 1

    def _note(self, line: bytes, now: datetime) -> None:
        if not self._count:
            self._first_at = now
            self._first_line = cut_middle(_shown(line).strip(), _FIRST)
        self._count += 1
        self._last_at = now

    def _keep(self, line: str) -> None:
        text = f"    {line}\n" if line else "\n"
        self._unwritten.append(text)
        self._unwritten_bytes += len(text)

    def write(self) -> None:
        """Write the lines that were found to the draft. Raises OSError; then it can be repeated."""
        if not self._unwritten:
            return
        text = "".join(self._unwritten).encode()
        with open(self._draft, "ab", opener=private) as file:
            # What is behind the good part was written by somebody who could not note it. Less than
            # that is there if somebody has removed the draft.
            good = min(self._good, file.tell())
            file.truncate(good)
            file.write(text)
        self._good = good + len(text)
        self._unwritten.clear()
        self._unwritten_bytes = 0

    def noted(self) -> WatchedLog:
        """Return what the store is to know of it."""
        return WatchedLog(
            source=self.source,
            pattern=self._known.pattern,
            positions=tuple(position.to_json() for position in self._tail.positions),
            count=self._count,
            first_at=self._first_at,
            last_at=self._last_at,
            first_line=self._first_line,
            draft=self._good,
            quiet_until=self._quiet_until,
        )

    def news(self) -> WatchedLog | None:
        """Return what the store does not know of it yet."""
        noted = self.noted()
        return None if noted == self._known else noted

    def due(self, now: datetime, cooldown: timedelta) -> datetime | None:
        """Return from when on an alert may tell of what was found; None: nothing was."""
        if self._first_at is None or not self._count:
            return None
        if self.run is not None and self.run.over:
            return now
        until = self._quiet_until
        # A clock that was set back must not silence a log for longer than that.
        if until is not None and now < until <= now + cooldown:
            return until
        return min(self._first_at, now) + SETTLE

    def alert(self, now: datetime, body: Path, state: Path) -> NewAlert:
        """Write the body of an alert, and return the alert. Raises OSError."""
        lines = plural(self._count, "line")
        summary = f"{lines} in {self.label}: {self._first_line}"
        first, last = (to_iso(moment or now) for moment in (self._first_at, self._last_at))
        head = [
            f"# {lines} in {self.label}",
            "",
            f"- file: {clean_text(str(self.path))}",
            f"- found: {first}" + (f" to {last}" if last != first else ""),
        ]
        if self.run is not None:
            head += [f"- task: {clean_text(self.run.task_id)}", f"- run: {self.run.id}"]
        found = b""
        with suppress(FileNotFoundError):  # removed by hand: what is known without it is told
            found = self._draft.read_bytes()[: self._good]
        tail = "\nFurther lines were counted, and stand in the file.\n" * (self._good > LARGEST)
        write_private(body, "\n".join([*head, "", found.decode(errors="replace")]) + tail)
        return NewAlert(
            kind=AlertKind.LOG,
            subject=self.label,
            summary=summary,
            count=self._count,
            body=str(body.relative_to(state)),
            task_id=self.run.task_id if self.run else None,
            run_id=self.run.id if self.run else None,
        )

    def told(self, now: datetime, cooldown: timedelta) -> WatchedLog:
        """Return what the store is to know of it once an alert has told of what was found."""
        return replace(
            self.noted(),
            count=0,
            first_at=None,
            last_at=None,
            first_line="",
            draft=0,
            quiet_until=now + cooldown,
        )

    def settle(self, known: WatchedLog) -> None:
        """Hear that the store knows `known` of it."""
        if self._count and not known.count:
            self._count = self._good = 0
            self._first_at = self._last_at = None
            self._first_line = ""
            self._quiet_until = known.quiet_until
            self._remove_draft()
        self._known = known

    def _remove_draft(self) -> None:
        with suppress(OSError):  # what is in it counts for nothing any more
            self._draft.unlink()


class _Tails:
    """The tails of other logs that the settings name, as they are by then."""

    def __init__(self, logs: Iterable[GatheredLog]) -> None:
        self._logs = logs

    def __iter__(self) -> Iterator[Tail]:
        return (one._tail for one in self._logs if one.run is None)  # noqa: SLF001 - of its own kind


def _positions(known: WatchedLog) -> tuple[Position, ...]:
    try:
        return tuple(map(Position.from_json, known.positions))
    except (ValueError, TypeError):
        return ()  # somebody has changed the store by hand: better told twice than never


def _shown(line: bytes) -> str:
    """Return a line as it may be shown, and without secrets."""
    # As a whole: of a secret that was cut a part would be told.
    text = redact(line.decode(errors="replace"), os.environ)
    return cut_middle(clean_text(text[: 4 * _LONGEST]).rstrip(), _LONGEST)
