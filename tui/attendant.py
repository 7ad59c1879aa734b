"""What somebody is told who looks away: the terminal's title, the bell, and short messages.

It decides what is to be said; the app says it. So it needs neither a terminal nor a clock: what
happened and what time it is comes in, words come out. It keeps counts and a few names, however
much happens.
"""

from __future__ import annotations

from collections import deque
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

from msgspec import Struct, field

from engine import narrate
from engine.model import ACTIVE, EventType, RunOutcome, State
from engine.text import clean_text, cut_middle, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.model import Event
    from engine.views import Progress
    from tui.ports import Queries

MOST = 3
"""Toasts that are on the screen at once, at most."""
GATHER = 1.0
"""Seconds within which what happens is told together."""
BRIEF, LONG = 4.0, 10.0
"""Seconds that a toast stays: one that only tells, and one about what went wrong."""
RING = 10.0
"""Seconds between two bells at least."""
_NAMED = 3
"""Tasks that a toast names before it only counts."""
_LONGEST_NAME = 40
Severity = Literal["information", "warning", "error"]
"""As Textual has them."""
BATCH = 1000
"""Events that are read at once, at most; of more only the newest are."""


class Toast(Struct, frozen=True):
    """A short message, cleaned; it stays so many seconds."""

    text: str
    severity: Severity = "information"
    seconds: float = BRIEF


class Word(Struct, frozen=True):
    """What is to be said now: the title as it must be, whether to ring, and toasts."""

    title: str
    bell: bool = False
    toasts: tuple[Toast, ...] = ()


class _Sort(Struct):
    """What happened to tasks in one way: how many, the first names, and the first in words."""

    count: int = 0
    names: list[str] = field(default_factory=list)
    words: str = ""

    def add(self, event: Event, words: str) -> None:
        self.count += 1
        self.words = self.words or words
        name = event.task_id or event.worker_id
        if name and len(self.names) < _NAMED:
            short = cut_middle(clean_text(name), _LONGEST_NAME)
            if short not in self.names:
                self.names.append(short)

    def told(self, what: str) -> str:
        """Return `2 failed: a, b`."""
        more = ", …" if self.count > len(self.names) else ""
        return f"{self.count:,} {what}" + (f": {', '.join(self.names)}{more}" if self.names else "")


class _Gathered(Struct):
    done: _Sort = field(default_factory=_Sort)
    failed: _Sort = field(default_factory=_Sort)
    asking: _Sort = field(default_factory=_Sort)
    lost: _Sort = field(default_factory=_Sort)

    def add(self, event: Event) -> None:
        """Count an event, if it is one that people want to hear of."""
        match event.type:
            case EventType.TASK_COMPLETED:
                self.done.add(event, narrate.describe(event))
            case EventType.TASK_FAILED if _ends_badly(event):
                self.failed.add(event, narrate.describe(event))
            case EventType.TASK_BLOCKED if narrate.event_symbol(event) == narrate.HUMAN:
                self.asking.add(event, narrate.describe(event))
            case EventType.WORKER_LOST:
                self.lost.add(event, narrate.describe(event))
            case _:
                pass

    def toast(self) -> Toast | None:
        """Return all of it in one message, None if there is nothing to tell."""
        sorts = (
            (self.done, narrate.DONE, "done"),
            (self.failed, narrate.FAILED, "failed"),
            (self.asking, narrate.HUMAN, "need you"),
            (self.lost, narrate.HUMAN, "lost"),
        )
        there = [(sort, symbol, what) for sort, symbol, what in sorts if sort.count]
        if not there:
            return None
        wrong = self.failed.count + self.asking.count + self.lost.count
        severity: Severity = "error" if self.failed.count else "warning" if wrong else "information"
        seconds = LONG if wrong else BRIEF
        if len(there) == 1 and there[0][0].count == 1:
            sort, symbol, _ = there[0]
            return Toast(f"{symbol} {sort.words}", severity, seconds)
        parts = [
            f"{plural(sort.count, 'task')} done"
            if sort is self.done
            else sort.told(_verb(sort, what))
            for sort, _, what in there
        ]
        return Toast("; ".join(parts), severity, seconds)


def _verb(sort: _Sort, what: str) -> str:
    if what == "lost":
        return "worker lost" if sort.count == 1 else "workers lost"
    return "needs you" if what == "need you" and sort.count == 1 else what


def _ends_badly(event: Event) -> bool:
    # What will be tried again is in the events; what the operator killed, the operator knows.
    killed = event.data.get("outcome") == RunOutcome.KILLED
    return event.state is State.FAILED and not killed


class Attendant:
    """Hears everything that happens, and says the little that is worth looking up for."""

    def __init__(self) -> None:
        self._gathered = _Gathered()
        self._told_at: float | None = None
        self._up: deque[float] = deque()  # when each toast on the screen goes
        self._known: int | None = None  # how many things need somebody that the bell told of
        self._rang_at: float | None = None
        self._left: int | None = None  # unfinished tasks at the last look
        self._end: Toast | None = None  # that the work is over, until there is room to say so

    def note(
        self, progress: Progress, events: Sequence[Event], attention: int | None, now: float
    ) -> Word:
        """Take in what happened, and return what to say.

        `events` came since the last call, `attention` counts what needs a person now, None while
        nobody has looked; `now` is in seconds of a clock that only goes forward. Call it after
        each refresh and, so that nothing gathered waits for the next event, once a second.
        """
        for event in events:
            self._gathered.add(event)
        self._look_whether_over(progress)
        return Word(title(progress, attention or 0), self._rings(attention, now), self._toasts(now))

    def _rings(self, attention: int | None, now: float) -> bool:
        if attention is None:
            return False
        # What was there at the start is in the title; who opens a dashboard looks at it.
        if self._known is None or attention <= self._known:
            self._known = attention
            return False
        if self._rang_at is not None and now - self._rang_at < RING:
            return False  # not forgotten: it rings when its time has come, if it is still true
        self._known, self._rang_at = attention, now
        return True

    def _look_whether_over(self, progress: Progress) -> None:
        counts = progress.by_state
        unfinished = progress.ready + progress.waiting
        unfinished += sum(counts.get(state, 0) for state in ACTIVE)
        before, self._left = self._left, unfinished
        if unfinished:
            self._end = None
        elif before and progress.total:
            done = counts.get(State.DONE, 0)
            missed = progress.total - done
            words = f"nothing more can run: {plural(done, 'task')} done, {missed:,} not"
            self._end = (
                Toast(words, "warning", LONG)
                if missed
                else Toast(f"{narrate.DONE} all {plural(done, 'task')} done", seconds=LONG)
            )

    def _toasts(self, now: float) -> tuple[Toast, ...]:
        while self._up and self._up[0] <= now:
            self._up.popleft()
        toasts: list[Toast] = []
        if self._end is not None and len(self._up) < MOST:
            toasts.append(self._end)
            self._end = None
            self._gathered.done = _Sort()  # the last of them are in the count
        due = self._told_at is None or now - self._told_at >= GATHER
        room = len(self._up) + len(toasts) < MOST
        if due and room and (told := self._gathered.toast()) is not None:
            toasts.append(told)
            self._gathered = _Gathered()
            self._told_at = now
        self._up = deque(sorted([*self._up, *(now + toast.seconds for toast in toasts)]))
        return tuple(toasts)


def title(progress: Progress, attention: int) -> str:
    """Return what stands in the terminal's title: `(2) agentmux build.yaml`."""
    count = f"({attention:,}) " if attention else ""
    dag = clean_text(PurePath(progress.dag).name)
    return f"{count}agentmux {dag}".rstrip()


class Ear:
    """Hears the events since it last listened."""

    def __init__(self) -> None:
        self._heard: int | None = None

    async def listen(self, queries: Queries) -> list[Event]:
        """Return the events that came since the last call: none at the first one.

        Of more than BATCH only the newest are returned; a log that was begun anew is heard from
        where it stands.
        """
        last = await queries.last_seq()
        heard, self._heard = self._heard, last
        if heard is None or last <= heard:
            return []
        events = await queries.events(after=max(heard, last - BATCH), limit=BATCH)
        if events:
            self._heard = max(last, events[-1].seq)  # some may have come between the two reads
        return events
