"""Runs of each worker as bars over time: which cell of a line belongs to which runs. Pure.

Moments are seconds since the epoch. A window is a number of cells of the same number of seconds
each, and always begins at a whole multiple of that, so that bars do not tremble as time passes.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from datetime import UTC, datetime
from math import ceil, floor, inf
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from engine.model import LIVE_WORKERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import tzinfo

    from engine.views import RunRow, WorkerRow

SCALES = (
    0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
    90.0, 120.0, 180.0, 300.0, 450.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0, 5400.0, 7200.0,
    10800.0, 14400.0, 21600.0, 28800.0, 43200.0, 86400.0,
)  # fmt: skip
"""Seconds that a cell may stand for."""
_TICKS = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400,
    172800, 604800, 1209600, 2419200,
)  # fmt: skip
_DAY = 86400
_APART = 4
"""Empty cells between two labels of the axis at least."""
_DIGITS = re.compile(r"(\d+)")


class Window(Struct, frozen=True):
    """What is seen: `cells` cells of `step` seconds each, the first of which is number `first`.

    Cells are numbered from the epoch on.
    """

    first: int
    step: float
    cells: int

    @property
    def start(self) -> float:
        """The moment at which the window begins."""
        return self.first * self.step

    @property
    def end(self) -> float:
        """The moment at which it ends."""
        return (self.first + self.cells) * self.step

    def cell(self, moment: float) -> int:
        """Return the cell that a moment is in, counted from the window's first."""
        return floor(_in_steps(moment, self.step)) - self.first

    def shows(self, run: RunRow, now: float) -> bool:
        """Say whether a run has a cell in the window."""
        begin, end = begin_of(run), end_of(run, now)
        return begin < self.end and (end > self.start or begin >= self.start)

    def moved(self, cells: int) -> Window:
        """Return the window so many cells later."""
        return replace(self, first=self.first + cells)

    def ending(self, moment: float, spare: int = 0) -> Window:
        """Return the window whose last cell but `spare` has this moment in it."""
        return replace(self, first=floor(_in_steps(moment, self.step)) - self.cells + 1 + spare)

    def scaled(self, by: int, around: float) -> Window:
        """Return the window `by` scales closer (or wider), `around` staying where it is."""
        at = bisect_left(SCALES, self.step)
        step = SCALES[max(0, min(at - by, len(SCALES) - 1))]
        return Window(floor(_in_steps(around, step)) - self.cell(around), step, self.cells)


def fitting(start: float, end: float, cells: int) -> Window:
    """Return the closest window of so many cells that has room from `start` to `end`."""
    for step in SCALES:
        first = floor(_in_steps(start, step))
        if floor(_in_steps(end, step)) - first < cells:
            return Window(first, step, cells)
    return Window(0, SCALES[-1], cells).ending(end)


def _in_steps(moment: float, step: float) -> float:
    # A tenth of a second is not exactly one in binary: a border must not fall short of itself.
    return round(moment / step, 4)


Stay = tuple[float, float]
"""From when to when a worker was there; infinity for one that still is."""


class Bar(Struct, frozen=True):
    """Cells from `first` to `last` that belong to one run, or one cell that belongs to several."""

    first: int
    last: int
    runs: tuple[RunRow, ...]


def begin_of(run: RunRow) -> float:
    """Return the moment at which a run began."""
    return run.claimed_at.timestamp()


def end_of(run: RunRow, now: float) -> float:
    """Return the moment at which a run ended; one that goes on ends now."""
    return now if run.ended_at is None else run.ended_at.timestamp()


def bars(runs: Iterable[RunRow], window: Window, now: float) -> list[Bar]:
    """Say which cells of a worker's line belong to which of its `runs`, which are in order.

    A run has every cell that it touches. Where one ends and the next begins, the cell is the
    one's that begins; but no run is left without a cell: those that would be share theirs.
    """
    spans: list[tuple[int, int, RunRow]] = []
    for run in runs:
        begin, end = begin_of(run), max(begin_of(run), end_of(run, now))
        first = window.cell(begin)
        last = max(first, ceil(_in_steps(end, window.step)) - 1 - window.first)
        if first < window.cells and last >= 0:
            spans.append((max(first, 0), min(last, window.cells - 1), run))
    beginning: dict[int, list[RunRow]] = defaultdict(list)
    for first, _, run in spans:
        beginning[first].append(run)
    owners: dict[int, list[RunRow]] = dict(beginning)
    for first, last, run in spans:
        for cell in range(first + 1, last + 1):
            if cell not in beginning:
                owners.setdefault(cell, []).append(run)
    return _joined(owners)


def _joined(owners: dict[int, list[RunRow]]) -> list[Bar]:
    found: list[Bar] = []
    for cell in sorted(owners):
        runs = tuple(owners[cell])
        before = found[-1] if found else None
        alone = len(runs) == 1
        if before is not None and alone and before.runs == runs and before.last == cell - 1:
            found[-1] = Bar(before.first, cell, runs)
        else:
            found.append(Bar(cell, cell, runs))
    return found


def stays(runs: Iterable[RunRow], workers: Mapping[str, WorkerRow]) -> dict[str, Stay]:
    """Return when the workers of some runs were there, as far as rows and runs tell.

    One that came again under its id was there since its first run.
    """
    found: dict[str, Stay] = {}
    for run in runs:
        since, until = found.get(run.worker_id, (inf, -inf))
        found[run.worker_id] = min(since, begin_of(run)), max(until, end_of(run, inf))
    for name in found.keys() & workers.keys():
        since, until = found[name]
        worker = workers[name]
        alive = worker.alive and worker.status in LIVE_WORKERS
        seen = inf if alive else worker.beat_at.timestamp()
        found[name] = min(since, worker.started_at.timestamp()), max(until, seen)
    return found


def busy(runs: Iterable[RunRow], window: Window, now: float, stay: Stay | None = None) -> float:
    """Return the share of the time in which a worker had a run.

    That time is the window, as far as it has passed, and of it what the worker was there.
    """
    start, end = window.start, min(window.end, now)
    if stay is not None:
        start, end = max(start, stay[0]), min(end, stay[1])
    passed = end - start
    if passed <= 0:
        return 0.0
    total, reached = 0.0, start
    for run in runs:  # in order: what was counted once is not counted again
        begin, stop = max(begin_of(run), reached), min(end_of(run, now), end)
        if stop > begin:
            total += stop - begin
            reached = stop
    return min(1.0, total / passed)


class Tick(Struct, frozen=True):
    """A time on the axis: the cell that it is in, and how it is written."""

    cell: int
    label: str


def ticks(window: Window, zone: tzinfo | None = None) -> list[Tick]:
    """Return round times of the window, in the user's own zone unless another is given."""
    every = next((t for t in _TICKS if t / window.step >= _wide(t) + _APART), _TICKS[-1])
    return [
        Tick(window.cell(moment), _written(moment, every, zone))
        for moment in _round(window, every, zone)
    ]


def _wide(every: int) -> int:
    return 8 if every < 60 else 5


def _round(window: Window, every: int, zone: tzinfo | None) -> Iterator[float]:
    """Yield the moments in a window that are multiples of `every` by the clock on the wall."""
    moment = _at_or_after(window.start, every, zone)
    while moment < window.end:
        yield moment
        moment = _at_or_after(moment + every / 2, every, zone)


def _at_or_after(moment: float, every: int, zone: tzinfo | None) -> float:
    shift = _offset(moment, zone)
    found = _multiple(moment, every, shift)
    other = _offset(found, zone)
    if other == shift:
        return found
    # The clocks are set between here and there: what counts is what they show from then on.
    early = _multiple(moment, every, other)
    return early if _offset(early, zone) == other else _multiple(found, every, other)


def _multiple(moment: float, every: int, shift: float) -> float:
    return ceil((moment + shift) / every) * every - shift


def _offset(moment: float, zone: tzinfo | None) -> float:
    offset = datetime.fromtimestamp(moment, UTC).astimezone(zone).utcoffset()
    return offset.total_seconds() if offset is not None else 0.0


def _written(moment: float, every: int, zone: tzinfo | None) -> str:
    local = datetime.fromtimestamp(moment, UTC).astimezone(zone)
    if every >= _DAY or (local.hour, local.minute, local.second) == (0, 0, 0):
        return local.strftime("%m-%d")
    return local.strftime("%H:%M:%S" if every < 60 else "%H:%M")


class Lane(Struct, frozen=True):
    """The runs of one worker, by their begin."""

    worker_id: str
    runs: tuple[RunRow, ...]


def lanes(runs: Sequence[RunRow], window: Window, now: float) -> list[Lane]:
    """Return a lane for each worker that has a run in the window, `codex-2` before `codex-10`."""
    found: dict[str, list[RunRow]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: (run.claimed_at, run.id)):
        if window.shows(run, now):
            found[run.worker_id].append(run)
    return [Lane(worker, tuple(found[worker])) for worker in sorted(found, key=_natural)]


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = _DIGITS.split(name)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def neighbour(lane: Lane, run_id: str, step: int) -> RunRow | None:
    """Return the run so many after this one, or before it; None if there is none."""
    at = next((i for i, run in enumerate(lane.runs) if run.id == run_id), None)
    if at is None or not 0 <= at + step < len(lane.runs):
        return None
    return lane.runs[at + step]


def nearest(lane: Lane, moment: float, now: float) -> RunRow:
    """Return the run that goes on at a moment, or is nearest to it."""

    def away(run: RunRow) -> float:
        begin, end = begin_of(run), end_of(run, now)
        return 0.0 if begin <= moment <= end else min(abs(begin - moment), abs(end - moment))

    return min(lane.runs, key=away)
