"""The canvas of the timeline: a line for each worker, bars for its runs, the time above.

It paints the runs that it was given for the window that is seen, and says when it is to be given
others. Where the cursor is, it knows by the id of a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.message import Message

from engine import narrate
from engine.text import cells, clean_text, cut_middle
from tui import look, strokes
from tui.actions.model import Place
from tui.actions.table import motions
from tui.timeline import (
    Bar,
    Lane,
    Stay,
    Window,
    bars,
    begin_of,
    busy,
    end_of,
    lanes,
    nearest,
    stays,
    ticks,
)
from tui.widgets.canvas import Canvas, Patch, Row
from tui.widgets.cells import Tone, fitted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from textual.binding import BindingType

    from engine.views import RunRow, WorkerRow

_TOP = 2
"""Lines of the axis."""
_NAME = 18
"""Cells of a worker's name at most."""
_SHARE = 6
"""Cells of the busy share, with the space around it."""
_LEAST = 20
"""Cells of the time at least."""
_TOLD = 8
"""Cells from which on a bar has the id of its task in it."""
_DRAWN = frozenset({strokes.IDLE, strokes.NOW})
_LEGEND = (
    (narrate.RUNNING, Tone.RUNNING, "running"),
    (narrate.DONE, Tone.DONE, "done"),
    (narrate.FAILED, Tone.FAILED, "failed"),
    (narrate.HUMAN, Tone.HUMAN, "needs you"),
    (narrate.CANCELLED, Tone.DIM, "cancelled"),
    (narrate.NOTE, Tone.DIM, "released or lost"),
    (strokes.IDLE, Tone.RULE, "idle"),
    (strokes.NOW, Tone.RUNNING, "now"),
    ("3", Tone.DONE, "so many runs"),
)
_LOUDEST = (Tone.FAILED, Tone.HUMAN, Tone.RUNNING, Tone.DIM, Tone.DONE)
"""Of several runs in one cell, the first of these tones that one of them has is shown."""


class TimelineCanvas(Canvas):
    """Shows the runs of a window. `now` gives the time."""

    BINDINGS: ClassVar[list[BindingType]] = [*motions(Place.TIMELINE)]
    EMPTY = "no run yet: a bar begins when a worker claims a task"

    class Sought(Message):
        """Somebody wants a run beyond those that are known.

        It is the next (1) or the former (-1) of this run's worker, or the first of all (0).
        """

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    class Panned(Message):
        """The window is elsewhere; with `follows` it goes with the present again."""

        def __init__(self, *, follows: bool = False) -> None:
            super().__init__()
            self.follows = follows

    class Scaled(Message):
        """Somebody wants to see less time (1), or more (-1)."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__(id="timeline-canvas")
        self._now = now
        self._runs: tuple[RunRow, ...] = ()
        self._workers: Mapping[str, WorkerRow] = {}
        self._window = Window(0, 1.0, 0)
        self._lanes: list[Lane] = []
        self._stays: dict[str, Stay] = {}
        self._bars: dict[str, tuple[tuple[object, ...], list[Bar]]] = {}
        self._name_room = 0
        self._here: RunRow | None = None
        self.chosen: str | None = None
        """The id of the run that somebody put the cursor on; None while nobody has."""

    # -- what owners use -------------------------------------------------------------------

    @property
    def window(self) -> Window:
        """The time that is seen."""
        return self._window

    @property
    def cells_of_time(self) -> int:
        """How many cells there are for the time."""
        names = self._name_room or _NAME
        return max(_LEAST, self.size.width - 1 - names - _SHARE - 1)

    @property
    def lanes(self) -> Sequence[Lane]:
        """The workers that have a run in the window."""
        return self._lanes

    def busy(self, lane: Lane) -> float:
        """Return the share of the window in which a worker had a run, of the time it was there."""
        return busy(lane.runs, self._window, self._time(), self._stays.get(lane.worker_id))

    @property
    def known(self) -> Sequence[RunRow]:
        """The runs that were handed in, in the window or not."""
        return self._runs

    @property
    def blank(self) -> bool:
        """Whether no run is in the window."""
        return not self._lanes

    @property
    def run(self) -> RunRow | None:
        """The run under the cursor: the chosen one, else the one that began last."""
        return self._here

    def _find(self) -> RunRow | None:
        seen = [run for lane in self._lanes for run in lane.runs]
        found = next((run for run in seen if run.id == self.chosen), None)
        return found or max(seen, key=lambda run: (run.claimed_at, run.id), default=None)

    def put(self, runs: Sequence[RunRow], workers: Mapping[str, WorkerRow], window: Window) -> None:
        """Show these runs, as far as they are in the window."""
        self._runs, self._workers = tuple(runs), workers
        self._stays = stays(runs, workers)
        self._name_room = max(
            [self._name_room, *(min(cells(clean_text(run.worker_id)), _NAME) for run in runs)]
        )
        self.given = True
        self.look_at(window)

    def look_at(self, window: Window) -> None:
        """Show another window of the same runs."""
        before, was = self._row_of(self._here), self._here
        self._window = window
        self._lanes = lanes(self._runs, window, self._time())
        self._here = self._find()
        if self.chosen is not None and (self._here is None or self._here.id != self.chosen):
            # It is out of sight: keys act on what one sees.
            at = self._row_of(was)
            middle = (window.start + window.end) / 2
            near = nearest(self._lanes[at], middle, self._time()) if at is not None else None
            self.chosen = near.id if near is not None else None
            self._here = near or self._here
        self.span(0, len(self._lanes) * self._pitch + _TOP)
        after = self._row_of(self.run)
        if after is not None and after != before:
            self._reveal(after)
        self.repaint()

    def _time(self) -> float:
        return self._now().timestamp()

    @property
    def _pitch(self) -> int:
        """How many lines a worker takes: two if there is room for an empty one between them."""
        return 2 if 2 * len(self._lanes) + _TOP <= self.size.height else 1

    def _row_of(self, run: RunRow | None) -> int | None:
        if run is None:
            return None
        found = (at for at, lane in enumerate(self._lanes) if lane.worker_id == run.worker_id)
        return next(found, None)

    def _reveal(self, lane: int) -> None:
        first, height = self.scroll_offset.y, max(1, self.size.height - _TOP)
        y = lane * self._pitch
        self.scroll_to(y=max(min(first, y), y - height + 1), animate=False, force=True)

    # -- painting --------------------------------------------------------------------------

    def row_at(self, y: int) -> Row:
        """Return a line of the screen."""
        if y == 0:
            return 0, tuple(self._labels())
        if y == 1:
            return 0, tuple(self._axis())
        at, rest = divmod(y - _TOP + self.scroll_offset.y, self._pitch)
        if at >= len(self._lanes) and y == self.size.height - 1:
            return 0, tuple(self._legend())
        if rest or at >= len(self._lanes):
            return 0, ()
        return 0, tuple(self._lane(self._lanes[at]))

    def _legend(self) -> list[Patch]:
        """Say what the bars and signs mean, as far as there is room beside and above it."""
        if len(self._lanes) * self._pitch + _TOP >= self.size.height - 1:
            return []
        patches, room = list[Patch](), self.size.width - 1
        for sign, tone, words in _LEGEND:
            # Bars are drawn as bars, with the colour as their ground.
            bar = Patch(f" {sign} ", tone, inverted=sign not in _DRAWN)
            room -= len(words) + 6
            if room < 0:
                break
            patches += [bar, Patch(f" {words}  ", Tone.DIM)]
        return [Patch(" ", Tone.DIM), *patches]

    @property
    def _left(self) -> int:
        return 1 + self._name_room + _SHARE

    def _labels(self) -> list[Patch]:
        line, used = "", 0
        for tick in ticks(self._window):
            if tick.cell >= used and tick.cell + len(tick.label) <= self._window.cells:
                line += " " * (tick.cell - len(line)) + tick.label
                used = len(line) + 1
        return [Patch(" " * self._left, Tone.DIM), Patch(line, Tone.DIM)]

    def _axis(self) -> list[Patch]:
        window = self._window
        axis = [(" ", Tone.DIM)] * window.cells
        for tick in ticks(window):
            if 0 <= tick.cell < window.cells:
                axis[tick.cell] = (strokes.TICK, Tone.OFF)
        run, now = self.run, self._time()
        if run is not None:
            first = max(0, window.cell(begin_of(run)))
            last = max(first, min(window.cell(end_of(run, now)), window.cells - 1))
            axis[first : last + 1] = [(strokes.UNDERLINE, Tone.BOLD)] * (last + 1 - first)
        here = window.cell(now)
        if 0 <= here < window.cells:
            axis[here] = (strokes.NOW, Tone.RUNNING)
        head = fitted("worker", self._name_room) + f"{'busy':>{_SHARE - 1}} "
        return [Patch(f" {head}", Tone.DIM), *(Patch(char, tone) for char, tone in axis)]

    def _lane(self, lane: Lane) -> list[Patch]:
        run = self.run
        here = run is not None and run.worker_id == lane.worker_id
        under = ("row-cursor" if self.has_focus else "row-cursor-faint") if here else ""
        name = fitted(cut_middle(clean_text(lane.worker_id), self._name_room), self._name_room)
        share = f"{self.busy(lane):.0%}"
        patches = [
            Patch(strokes.CURSOR if here else " ", Tone.BOLD, under),
            Patch(name, Tone.TEXT, under),
            Patch(f"{share:>{_SHARE - 1}}", Tone.DIM, under),
            Patch(" ", Tone.DIM),
        ]
        reached = 0
        for bar in self._bars_of(lane):
            patches += self._gap(lane, reached, bar.first)
            touches = 0 < bar.first == reached
            chosen = any(one is run for one in bar.runs)
            patches.append(self._bar(bar, touches=touches, chosen=chosen))
            reached = bar.last + 1
        return [*patches, *self._gap(lane, reached, self._window.cells)]

    def _bars_of(self, lane: Lane) -> list[Bar]:
        going = any(run.ended_at is None for run in lane.runs)
        now = self._time()
        key = (lane.runs, self._window, self._window.cell(now) if going else None)
        kept = self._bars.get(lane.worker_id)
        if kept is None or kept[0] != key:
            kept = self._bars[lane.worker_id] = (key, bars(lane.runs, self._window, now))
        return kept[1]

    @staticmethod
    def _bar(bar: Bar, *, touches: bool, chosen: bool) -> Patch:
        """Paint a bar; one that `touches` the bar before has an edge to be told from that."""
        width = bar.last - bar.first + 1
        symbols = [look.run_symbol(run) for run in bar.runs]
        tones = {look.tone_of(symbol) for symbol in symbols}
        tone = next((one for one in _LOUDEST if one in tones), Tone.TEXT)
        text = symbols[0]
        if len(bar.runs) > 1:
            text = str(len(bar.runs)) if len(bar.runs) < 10 else strokes.MANY
        elif width >= _TOLD:
            edge = strokes.EDGE if touches else " "
            name = cut_middle(clean_text(bar.runs[0].task_id), width - 4)
            text = f"{edge}{symbols[0]} {name}"
        return Patch(fitted(text, width), Tone.BOLD if chosen else tone, bold=chosen, inverted=True)

    def _gap(self, lane: Lane, first: int, end: int) -> list[Patch]:
        """Paint the cells from `first` to `end`: a line while the worker was there."""
        worker, window = self._workers.get(lane.worker_id), self._window
        if first >= end:
            return []
        if worker is None:
            return [Patch(" " * (end - first), Tone.RULE)]
        seen = self._time() if worker.alive else worker.beat_at.timestamp()
        begin = min(max(first, window.cell(worker.started_at.timestamp())), end)
        stop = max(begin, min(end, window.cell(seen) + 1))
        return [
            Patch(" " * (begin - first), Tone.RULE),
            Patch(strokes.IDLE * (stop - begin), Tone.RULE),
            Patch(" " * (end - stop), Tone.RULE),
        ]

    # -- moving ----------------------------------------------------------------------------

    def choose(self, run: RunRow) -> None:
        """Put the cursor on a run; one out of sight is brought into view."""
        self.chosen, self._here = run.id, run
        window, now = self._window, self._time()
        if not window.shows(run, now):
            earlier = begin_of(run) < window.start
            aim = begin_of(run) if earlier else end_of(run, now)
            self._pan(window.cell(aim) - (window.cells // 4 if earlier else window.cells * 3 // 4))
        at = self._row_of(run)
        if at is not None:
            self._reveal(at)
        self.repaint()
        self.post_message(self.Moved())

    def _pan(self, by: int) -> None:
        if by:
            self.look_at(self._window.moved(by))
            self.post_message(self.Panned())

    def action_move(self, rows: int) -> None:
        """Go to a worker below or above, to what it did at that time."""
        run = self.run
        at = self._row_of(run)
        if run is None or at is None:
            return
        lane = self._lanes[max(0, min(at + rows, len(self._lanes) - 1))]
        if lane.worker_id != run.worker_id:
            window, now = self._window, self._time()
            begin = max(begin_of(run), window.start)
            self.choose(nearest(lane, (begin + min(end_of(run, now), window.end)) / 2, now))

    def action_page(self, pages: int) -> None:
        """Go down by a screenful of workers, or up."""
        self.action_move(pages * max(1, (self.size.height - _TOP) // self._pitch - 1))

    def action_shift(self, step: int) -> None:
        """Go to the next run of the worker, or to the former one."""
        run = self.run
        if run is None:
            return
        mine = [one for one in self._runs if one.worker_id == run.worker_id]
        at = next(i for i, one in enumerate(mine) if one.id == run.id) + step
        if 0 <= at < len(mine):
            self.choose(mine[at])
        else:
            self.chosen = run.id
            self.post_message(self.Sought(step))

    def action_first(self) -> None:
        """Go to the first run of all."""
        self.post_message(self.Sought(0))

    def action_last(self) -> None:
        """Go to the newest run, and with the present from now on."""
        self.chosen = None
        self.post_message(self.Panned(follows=True))

    def action_scale(self, step: int) -> None:
        """Show less time (1), or more (-1)."""
        self.post_message(self.Scaled(step))

    # -- the mouse -------------------------------------------------------------------------

    def clicked(self, x: int, y: int) -> bool:
        """Put the cursor on the run that is at this place of the screen."""
        at, rest = divmod(y - _TOP + self.scroll_offset.y, self._pitch)
        if y < _TOP or rest or at >= len(self._lanes):
            return False
        cell = x - self._left
        found = next((b for b in self._bars_of(self._lanes[at]) if b.first <= cell <= b.last), None)
        if found is None:
            return False
        self.choose(found.runs[-1])
        return True

    def dragged(self, columns: int, lines: int) -> None:
        """Scroll the workers, and pan the time."""
        super().dragged(0, lines)
        if columns:
            self._pan(-columns)
        run = self._row_of(self.run)
        first = -(-self.scroll_offset.y // self._pitch)
        last = first + max(1, (self.size.height - _TOP) // self._pitch) - 1
        if run is not None and not first <= run <= last:
            self.action_move(max(first, min(run, last)) - run)
