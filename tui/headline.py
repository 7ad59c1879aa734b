"""The line above the panes: how far the DAG is, how fast it goes, what stands in its way."""

from __future__ import annotations

import math
from collections import deque
from pathlib import PurePath
from typing import TYPE_CHECKING

from msgspec import Struct

from engine import narrate
from engine.figures import describe_health
from engine.model import ACTIVE, ALL_AGENTS, FINISHED, Spending, State
from engine.text import age, clean_text, plural
from engine.views import Health, HealthStatus
from tui import look
from tui.widgets.bars import Piece
from tui.widgets.cells import Cell, Tone, cut_end, line_width

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from engine.views import Progress
    from tui.snapshot import Snapshot

_BARS = "▁▂▃▄▅▆▇"
_FULL, _REST = "━", "─"
_MINUTE = 60.0
_ENOUGH = 8.0


class Mood(Struct, frozen=True):
    """What only the dashboard knows. `late` and `path` in seconds; `rate` per minute or None.

    `needs` counts what needs a person, `unserved` are the agents that have work and no worker.
    `path` is how long the critical path still takes; `news` is what to say of the DAG file,
    `opening` how far the engine is that is not open yet. `health`: how the fleet is.
    """

    watching: bool = False
    quitting: str = ""
    stale_workers: int = 0
    needs: int = 0
    unserved: tuple[str, ...] = ()
    late: float = 0.0
    rate: float | None = None
    path: float | None = None
    workers: bool = True
    news: str = ""
    opening: str = ""
    health: Health = Health()


def headline(snapshot: Snapshot, now: datetime, width: int, mood: Mood) -> list[Piece]:
    """Return the pieces of the line for a terminal `width` cells wide."""
    progress = snapshot.progress.value
    name = cut_end(clean_text(PurePath(progress.dag).name) or "no DAG", 28)
    title = Piece((("agentmux", Tone.BOLD), (f" {name}", Tone.DIM)), drop=8)
    share = f" {progress.by_state.get(State.DONE, 0):,}/{progress.total:,}"
    words = width >= 150
    rest = [*_counts(progress, mood, words=words), *_speed(progress, mood, words=words)]
    rest += _alarms(snapshot, now, progress, mood)
    if mood.health.status is not HealthStatus.OK:
        told = describe_health(mood.health) if words else str(mood.health.status)
        rest.append(Piece(((told, look.STATUS_TONES[mood.health.status]),)))
    used = sum(line_width(piece.cells) + 2 for piece in (title, *rest)) + len(share) + 2
    bar = min(60, max(8, width - used))
    return [title, Piece((*meter(progress, bar), (share, Tone.BOLD))), *rest]


def _counts(progress: Progress, mood: Mood, *, words: bool) -> list[Piece]:
    counts = progress.by_state
    # As many as the footer says and `!` lists: what failed for good is among them, too.
    needs = max(progress.needs_human, mood.needs)
    pieces: list[Piece] = []
    for symbol, count, word in (
        (narrate.RUNNING, sum(counts.get(state, 0) for state in ACTIVE), "running"),
        (narrate.READY, progress.ready, "ready"),
        (narrate.WAITING, progress.waiting, "waiting"),
        (narrate.UPSTREAM, counts.get(State.BLOCKED, 0) - progress.needs_human, "blocked"),
        (narrate.FAILED, counts.get(State.FAILED, 0), "failed"),
        (narrate.HUMAN, needs, "needs you" if needs == 1 else "need you"),
        (look.STALE, mood.stale_workers, "stale"),
    ):
        if count or symbol == narrate.RUNNING:
            tone = look.tone_of(symbol) if count else Tone.DIM
            text = f"{symbol} {count:,}" + (f" {word}" if words else "")
            pieces.append(Piece(((text, tone),), drop=3 if tone is Tone.DIM else 0))
    return pieces


def _speed(progress: Progress, mood: Mood, *, words: bool) -> list[Piece]:
    pieces: list[Piece] = []
    if spark := sparkline(progress.recent):
        pieces.append(Piece(((spark, Tone.DONE),), drop=9))
    if mood.rate is not None:
        pieces.append(Piece(((f"{_short(mood.rate)}/min", Tone.TEXT),), drop=5))
    left = time_left(progress, mood.rate, mood.path, workers=mood.workers)
    if left[0]:
        pieces.append(Piece((left,), drop=4))
    spending = progress.spending
    if spending.cost is not None and not words:
        spending = Spending(cost=spending.cost)
    if spent := narrate.describe_spending(spending):
        pieces.append(Piece(((spent, Tone.TEXT),), drop=6))
    return pieces


def _alarms(snapshot: Snapshot, now: datetime, progress: Progress, mood: Mood) -> list[Piece]:
    alarms: list[Cell] = []
    if mood.quitting:
        alarms.append((mood.quitting, Tone.HUMAN))
    if mood.opening:
        alarms.append((mood.opening, Tone.RUNNING))
    elif snapshot.trouble and snapshot.read_at is not None:
        alarms.append((f"data {look.since(snapshot.read_at, now)} old", Tone.FAILED))
    elif snapshot.trouble:
        alarms.append(("the store cannot be read", Tone.FAILED))
    elif mood.late:
        alarms.append((f"store busy for {age(mood.late)}", Tone.STALE))
    if progress.held:
        whom = "all" if ALL_AGENTS in progress.held else ", ".join(map(clean_text, progress.held))
        alarms.append((f"HELD {cut_end(whom, 24)}", Tone.HUMAN))
    if mood.unserved:
        alarms.append((_lacking(mood.unserved), Tone.HUMAN))
    if mood.news:
        alarms.append((mood.news, Tone.HUMAN))
    if mood.watching:
        alarms.append(("watching", Tone.DIM))
    return [Piece((alarm,)) for alarm in alarms]


def _lacking(agents: Sequence[str]) -> str:
    if len(agents) > 1:
        return f"{plural(len(agents), 'agent')} without a worker: a adds one"
    return f"no {cut_end(clean_text(agents[0]), 24)} worker runs: a adds one"


def meter(progress: Progress, width: int) -> tuple[Cell, ...]:
    """Return a bar of `width` cells: done, failed and blocked, running, the rest."""
    counts = progress.by_state
    broken = sum(counts.get(state, 0) for state in (State.FAILED, State.CANCELLED, State.BLOCKED))
    running = sum(counts.get(state, 0) for state in ACTIVE)
    total = max(1, progress.total)
    cells: list[Cell] = []
    at = used = 0
    for count, tone in (
        (counts.get(State.DONE, 0), Tone.DONE),
        (running, Tone.RUNNING),
        (broken, Tone.FAILED),
    ):
        used += count
        end = used * width // total
        if count:
            end = min(width, max(end, at + 1))  # what exists is seen, however small its share
        if end > at:
            cells.append((_FULL * (end - at), tone))
            at = end
    return (*cells, (_REST * (width - at), Tone.RULE))


class Pace:
    """How fast tasks get done, from what this dashboard saw itself in the last minute.

    Until it has seen enough, the store's own count by minutes answers instead.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[datetime, int]] = deque()

    def note(self, now: datetime, done: int) -> None:
        """Remember how many tasks were done at a moment."""
        if self._seen and (now < self._seen[-1][0] or done < self._seen[-1][1]):
            self._seen.clear()  # the clock was set back; or reset or purged: this is another DAG
        self._seen.append((now, done))
        while (now - self._seen[0][0]).total_seconds() > _MINUTE:
            self._seen.popleft()

    def per_minute(self, recent: Sequence[int]) -> float | None:
        """Return tasks a minute, None if that cannot be told yet. `recent` is Progress.recent."""
        if self._seen:
            (start, before), (end, after) = self._seen[0], self._seen[-1]
            span = (end - start).total_seconds()
            if span >= _ENOUGH and after > before:
                return (after - before) / span * _MINUTE
            if span >= _MINUTE - _ENOUGH:
                return 0.0  # a whole minute was seen, and nothing got done in it
        # Leading minutes without work do not count, nor does the running one if it lowers the mean.
        busy = list(recent[-6:])
        while busy and not busy[0]:
            busy.pop(0)
        if len(busy) < 2:
            return None
        return max(sum(busy[:-1]) / (len(busy) - 1), sum(busy) / len(busy))


def sparkline(recent: Sequence[int]) -> str:
    """Return one bar for each minute since the first with work, scaled to the best of them."""
    best = max(recent, default=0)
    if not best:
        return ""
    first = next(index for index, count in enumerate(recent) if count)
    return "".join(_BARS[math.ceil(count / best * (len(_BARS) - 1))] for count in recent[first:])


def time_left(
    progress: Progress, rate: float | None, path: float | None = None, *, workers: bool = True
) -> Cell:
    """Say when the work will be over, as far as one can tell, or that it is.

    It takes as long as the critical path, and as long as the rate needs for all of it. While
    nothing runs and nothing can start, because all of it waits or is held, or there are no
    `workers`, nobody can tell.
    """
    counts = progress.by_state
    over = sum(counts.get(state, 0) for state in FINISHED) + counts.get(State.BLOCKED, 0)
    left = progress.total - over
    if not progress.total:
        return ("", Tone.DIM)
    if left:
        estimates = [left / rate * 60 if rate else None, path]
        seconds = max((one for one in estimates if one is not None), default=None)
        active = sum(counts.get(state, 0) for state in ACTIVE)
        startable = progress.ready - progress.held_back if workers else 0
        stands = ALL_AGENTS in progress.held or not (active or startable)
        if seconds is None or not rate or stands:
            return ("", Tone.TEXT)
        if path is not None and path <= 0 and active >= left:
            return ("overdue", Tone.STALE)  # whatever is left runs, and longer than such runs take
        return (f"~{age(max(seconds, 1.0))} left", Tone.TEXT)
    missed = progress.total - counts.get(State.DONE, 0)
    if missed:
        return (f"over, {plural(missed, 'task')} not done", Tone.FAILED)
    return ("all done", Tone.DONE)


def _short(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 or rate == int(rate) else f"{rate:.1f}"
