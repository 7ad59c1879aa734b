"""The runs of each worker over time, live: who worked when, on what, and where the gaps are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
from textual import on

from engine.clock import to_iso
from engine.errors import TaskNotFound
from engine.filters import AFTER, BEFORE, WORKER, Filter, Term
from engine.text import age, clean_text, cut_middle, plural
from engine.views import Order
from tui import look
from tui.actions.model import Place, Selection
from tui.panes.pane import Pane
from tui.panes.timeline import TimelineCanvas
from tui.screens.listing import ListingScreen
from tui.snapshot import explain
from tui.styled import STYLES
from tui.timeline import Window, begin_of, end_of, fitting
from tui.widgets.cells import Cell, Tone

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult

    from engine.views import RunRow, TaskRow, WorkerRow
    from tui.ports import Engine

LIMIT = 5000
"""Runs that are read at most."""
_LARGE = 1000
"""Runs from which on they are read at most every `_REST` seconds."""
_REST = 2.0
_FIRST_LOOK = timedelta(days=1)
"""How far back the window reaches at first, if somebody worked then."""
_NOTHING = 3600.0
"""Seconds that the window of a fleet is wide that has not run anything yet."""
_LONG_AGO = 4
"""Times the whole work took, after which the window shows that rather than the present."""
_SPARE = 1
"""Empty cells after the present."""
_TASKS_KEPT = 256
_EVER = datetime(1970, 1, 2, tzinfo=UTC)


class _Read(Struct, frozen=True):
    """What was read: the runs that went on between two moments; `cut` if they were too many."""

    runs: tuple[RunRow, ...]
    since: float
    until: float
    cut: bool

    def covers(self, window: Window) -> bool:
        """Say whether nothing is missing for a window."""
        return self.since <= window.start and window.end <= self.until


class TimelineScreen(ListingScreen):
    """A Gantt chart of the fleet. It goes with the present until somebody pans."""

    CSS_PATH: ClassVar = STYLES / "canvas.tcss"

    def __init__(self, engine: Engine, *, watching: bool = False) -> None:
        super().__init__(engine, watching=watching)
        self._follows = True
        self._read: _Read | None = None
        self._stale = True
        self._read_at: float | None = None
        self._sought: int | None = None
        self._began: float | None = None
        self._held: tuple[str, ...] = ()
        self._tasks: dict[str, TaskRow | None] = {}
        self._workers: dict[str, WorkerRow] = {}
        self._trouble = ""
        self.canvas = TimelineCanvas(engine.clock.now)
        self._panes = (Pane(1, "Timeline", self.canvas, id="timeline"),)

    def compose(self) -> ComposeResult:
        """Lay the pane out."""
        yield self.head
        yield self.tabs
        yield from self._panes
        yield self.keys

    def on_mount(self) -> None:
        """Show the frame at once; the first look fills it."""
        self._caption()

    @property
    def panes(self) -> tuple[Pane, ...]:
        """The timeline alone."""
        return self._panes

    @property
    def follows(self) -> bool:
        """Whether the window goes with the present."""
        return self._follows

    # -- refreshing ------------------------------------------------------------------------

    async def load(self, *, changed: bool) -> None:
        """Read the runs again after a change, or if the window shows others."""
        self._stale = self._stale or changed
        if not self.canvas.size:
            return
        try:
            await self._look()
            await self._seek()
            await self._read_tasks()
            self._trouble = ""
        except Exception as error:  # noqa: BLE001 - whatever a query throws is shown in its pane
            self._trouble = explain(error)
        self.show()

    def _time(self) -> float:
        return self._engine.clock.now().timestamp()

    def _rested(self) -> bool:
        if self._read is None or self._read_at is None or len(self._read.runs) < _LARGE:
            return True
        return self._engine.clock.monotonic() - self._read_at >= _REST

    async def _look(self) -> None:
        window = self._window() if self._read is not None else await self._first_window()
        await self._show(window, again=self._stale and self._rested())
        if self.canvas.cells_of_time != window.cells:
            # Names of another length leave another room for the time.
            self.canvas.look_at(self._window())

    async def _show(self, window: Window, *, again: bool = False) -> None:
        """Show a window; its runs are read if they were not yet, or if they are to be `again`."""
        if again or self._read is None or not self._read.covers(window):
            queries = self._engine.queries
            # Some time around the window too, so that panning rarely waits.
            wide = window.end - window.start
            read = await self._spans(window.start - wide, window.end + wide)
            if read.cut:
                read = await self._spans(window.start, window.end)
            self._read, self._stale = read, False
            self._read_at = self._engine.clock.monotonic()
            self._workers = {worker.id: worker for worker in await queries.workers()}
            self._held = (await queries.progress()).held
            self._tasks.clear()
            if self._began is None:
                first = await queries.runs(order=Order("started"), limit=1)
                self._began = begin_of(first[0]) if first else None
        self.canvas.put(self._read.runs, self._workers, window)

    async def _spans(self, since: float, until: float) -> _Read:
        runs = await self._engine.queries.spans(_moment(since), _moment(until), LIMIT)
        return _Read(tuple(runs), since, until, len(runs) >= LIMIT)

    def _window(self) -> Window:
        """Return the window as it must be now: as wide as the screen, with the present or not."""
        old = self.canvas.window
        window = Window(old.first, old.step, self.canvas.cells_of_time)
        return window.ending(self._time(), _SPARE) if self._follows else window

    async def _first_window(self) -> Window:
        """Return a window that has the last day's work in it, or the last work that there was."""
        queries, now, cells = self._engine.queries, self._time(), self.canvas.cells_of_time
        room = cells - _SPARE
        present = self._engine.clock.now()
        runs = await queries.spans(present - _FIRST_LOOK, present, LIMIT)
        if not runs:
            runs = await queries.spans(_EVER, present, 200)
        if not runs:
            return fitting(now - _NOTHING, now, cells).ending(now, _SPARE)
        begin, end = min(map(begin_of, runs)), max(end_of(run, now) for run in runs)
        if now - end > _LONG_AGO * (end - begin) + _NOTHING:
            self._follows = False
            return fitting(begin, end, cells)
        begin = max(begin, now - _FIRST_LOOK.total_seconds()) if now == end else begin
        window = fitting(begin, now, room)
        return Window(window.first, window.step, cells).ending(now, _SPARE)

    async def _seek(self) -> None:
        """Find the run that somebody wants to see and that was not known yet."""
        step, self._sought = self._sought, None
        run = self.canvas.run
        if step is None or run is None:
            return
        found = await self._beyond(run, step)
        if found is None:
            which = "later" if step > 0 else "earlier"
            self.notify(f"{clean_text(run.worker_id)} has no {which} run", markup=False)
            return
        self._follows = False
        self.canvas.chosen = found.id
        window = self.canvas.window
        await self._show(window.moved(window.cell(begin_of(found)) - window.cells // 4))

    async def _beyond(self, run: RunRow, step: int) -> RunRow | None:
        queries, by_start = self._engine.queries, Order("started")
        if not step:
            return next(iter(await queries.runs(order=by_start, limit=1)), None)
        mine, at = Term(WORKER, run.worker_id), run.claimed_at
        if step < 0:
            where = Filter((mine, Term(BEFORE, to_iso(at), at=at)))
            return next(iter(await queries.runs(where=where, limit=1)), None)
        where = Filter((mine, Term(AFTER, to_iso(at), at=at)))
        runs = await queries.runs(where=where, order=by_start, limit=2)
        return next((one for one in runs if one.id != run.id), None)

    async def _read_tasks(self) -> None:
        """Read the task under the cursor, which the next keys may act on."""
        run = self.canvas.run
        if run is None or run.task_id in self._tasks:
            return
        if len(self._tasks) > _TASKS_KEPT:
            self._tasks.clear()
        try:
            self._tasks[run.task_id] = (await self._engine.queries.detail(run.task_id)).task
        except TaskNotFound:
            self._tasks[run.task_id] = None

    # -- showing ---------------------------------------------------------------------------

    def show(self) -> None:
        """Show what was read, all of it at once."""
        with self.app.batch_update():
            self.canvas.trouble = self._trouble if self._read is None else ""
            self._say_what_is_missing()
            self.canvas.repaint()
            self._caption()
            self.refresh_bars()

    def _say_what_is_missing(self) -> None:
        if self._follows or self._read is None:
            self.canvas.empty = self.canvas.EMPTY
        else:
            self.canvas.empty = "no run at that time: G goes to the newest, - shows more time"

    def tick(self) -> None:
        """Let the present move on; read what changed while a large fleet was left alone."""
        if self._stale or self._trouble:
            self._stale = True
            self.post_message(self.Wanted())
        if self._read is None:
            return
        with self.app.batch_update():
            window = self._window()
            if window != self.canvas.window:
                self.canvas.look_at(window)
            else:
                self.canvas.repaint()
            self._caption()

    def on_resize(self, event: events.Resize) -> None:
        """Show as much time as there is room for."""
        super().on_resize(event)
        self.post_message(self.Wanted())

    def _caption(self) -> None:
        late = self._trouble if self._read is not None else ""
        self._panes[0].caption(late, self._foot())
        canvas, pieces = self.canvas, list[Cell]()
        if self._read is not None:
            window, now = canvas.window, self._engine.clock.now()
            begin = look.day_time(_moment(window.start), now)
            end = "now" if self._follows else look.day_time(_moment(window.end), now)
            pieces.append((f"{begin} to {end}", Tone.TEXT if self._follows else Tone.HUMAN))
            if not self._follows:
                pieces.append(("G follows again", Tone.DIM))
            shares = [canvas.busy(lane) for lane in canvas.lanes]
            if shares:
                pieces.append((f"{plural(len(shares), 'worker')}, busy {_mean(shares)}", Tone.TEXT))
            pieces.append((f"a cell is {_step(window.step)}", Tone.DIM))
            if self._read.cut:
                pieces.append((f"the newest {LIMIT:,} runs of it", Tone.HUMAN))
        self.show_head("timeline", *pieces)

    def _foot(self) -> str:
        run = self.canvas.run
        if run is None:
            return ""
        now = self._engine.clock.now()
        room = max(12, self.size.width - 60)
        error = clean_text(run.error or "").strip()
        parts = [
            f"{look.run_symbol(run)} {cut_middle(clean_text(run.task_id), room)} #{run.attempt}",
            look.run_words(run),
            f"{look.day_time(run.claimed_at, now)}, {look.run_took(run, now)}",
        ]
        used = sum(map(len, parts)) + 3 * len(parts) + 6
        if error:
            parts.append(cut_middle(error, max(8, self.size.width - used)))
        return " · ".join(parts)

    # -- acting ----------------------------------------------------------------------------

    def selection(self) -> Selection:
        """Return the run under the cursor, its task, and the worker if it still holds that."""
        run = self.canvas.run
        if run is None:
            return Selection(Place.TIMELINE, held=self._held, watching=self._watching)
        worker = self._workers.get(run.worker_id)
        if worker is not None and worker.run_id != run.id:
            worker = None
        task = self._tasks.get(run.task_id)
        return Selection(
            Place.TIMELINE, worker, task, run.task_id, self._held, self._watching, run=run
        )

    def pin(self) -> None:
        """Stay with the run under the cursor: an action is about to be done to it."""
        run = self.canvas.run
        self.canvas.chosen = run.id if run is not None else None

    @on(TimelineCanvas.Moved)
    def cursor_moved(self, event: TimelineCanvas.Moved) -> None:
        """Tell the run that is now under the cursor."""
        event.stop()
        run = self.canvas.run
        if run is not None and run.task_id not in self._tasks:
            self.post_message(self.Wanted())
        self._caption()
        self.refresh_bars()

    @on(TimelineCanvas.Opened)
    async def run_opened(self, event: TimelineCanvas.Opened) -> None:
        """Do what enter does."""
        event.stop()
        await self.run_action("app.act('detail')")

    @on(TimelineCanvas.Panned)
    def panned(self, event: TimelineCanvas.Panned) -> None:
        """Leave the present, or go back to it."""
        event.stop()
        self._follows = event.follows
        self.post_message(self.Wanted())

    @on(TimelineCanvas.Sought)
    def seek(self, event: TimelineCanvas.Sought) -> None:
        """Have a run found that is not known yet."""
        event.stop()
        self._sought = event.step
        self.post_message(self.Wanted())

    @on(TimelineCanvas.Scaled)
    def scale(self, event: TimelineCanvas.Scaled) -> None:
        """Show less time, or more: around the run under the cursor, or up to the present."""
        event.stop()
        window, run, now = self.canvas.window, self.canvas.run, self._time()
        around = (window.start + window.end) / 2
        if run is not None:
            begin, end = max(begin_of(run), window.start), min(end_of(run, now), window.end)
            around = (begin + end) / 2
        if event.step < 0 and self._all_seen(window):
            self.notify("all runs that there are can be seen already", markup=False)
            return
        scaled = window.scaled(event.step, around)
        if scaled.step == window.step:
            self.notify(f"a cell is {_step(window.step)} already", markup=False)
            return
        self.canvas.look_at(scaled.ending(now, _SPARE) if self._follows else scaled)
        self.post_message(self.Wanted())

    def _all_seen(self, window: Window) -> bool:
        """Say whether nothing has run before the window, nor after it."""
        if self._began is None or self._began < window.start:
            return False
        return window.end >= self._time() or window.end >= self._newest()

    def _newest(self) -> float:
        now = self._time()
        known = self._read.runs if self._read is not None and self._read.until >= now else ()
        return max((end_of(run, now) for run in known), default=now)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(max(seconds, _EVER.timestamp()), UTC)


def _mean(shares: list[float]) -> str:
    return f"{sum(shares) / len(shares):.0%}"


def _step(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 1 else age(seconds)
