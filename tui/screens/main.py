"""The dashboard itself: the line of progress, four live panes, the footer."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from textual import on
from textual.containers import Container, Horizontal
from textual.widgets import Input, Static

from engine.errors import ValidationError
from engine.filters import TaskFilter, parse_filter
from engine.model import Event, State
from engine.text import clean_text
from tui import look
from tui.actions import Place, Selection
from tui.headline import Mood, Pace, headline
from tui.panes.events import EventsList
from tui.panes.pane import Pane
from tui.panes.stale import StaleList
from tui.panes.tasks import TasksList
from tui.panes.workers import WorkersList
from tui.screens.paned import PanedScreen
from tui.snapshot import Section, Snapshot, Wants, take
from tui.widgets.bars import Bar
from tui.widgets.rows import RowList

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from engine.views import WorkerRow
    from tui.ports import Engine

_PLACES = (Place.WORKERS, Place.TASKS, Place.EVENTS, Place.STALE)
_SLOW = 2.0
"""Seconds after which a refresh that has not come back is told to the user."""


class MainScreen(PanedScreen):
    """Shows one snapshot after the other, each as a whole."""

    def __init__(self, engine: Engine, *, watching: bool = False) -> None:
        super().__init__()
        self._engine = engine
        self._watching = watching
        self._where = TaskFilter()
        self._picture = Snapshot()
        self._pace = Pace()
        self._asked_at: float | None = None
        self._unread = ""
        self.recheck = False
        self.quitting = ""
        stale_after = engine.config.stale_after
        now = engine.clock.now
        self.worker_rows = WorkersList(now, stale_after)
        self.task_rows = TasksList(now)
        self.event_rows = EventsList()
        self.stale_rows = StaleList(now)
        self.filter = Input(
            placeholder="word  state:failed  agent:codex  !not",
            compact=True,
            select_on_focus=False,
            # What is typed or pasted here is shown as it is: no control character gets in.
            restrict=r"[^\x00-\x1f\x7f-\x9f]*",
            id="filter",
        )
        self.filter_line = Horizontal(Static("/"), self.filter, id="filter-line")
        self._panes = (
            Pane(1, "Workers", self.worker_rows, id="workers"),
            Pane(2, "Tasks", self.task_rows, self.filter_line, id="tasks"),
            Pane(3, "Events", self.event_rows, id="events"),
            Pane(4, "Stale heartbeats", self.stale_rows, id="stale"),
        )
        self._current = 1
        self.head = Bar(id="head")

    def compose(self) -> ComposeResult:
        """Lay the panes out."""
        workers, tasks, events, stale = self._panes
        yield self.head
        yield self.tabs
        with Container(id="body"):
            with Container(id="top", classes="box"):
                yield workers
                yield stale
            with Container(id="bottom", classes="box"):
                yield tasks
                yield events
        yield self.keys

    def on_mount(self) -> None:
        """Show the frame at once; the first snapshot fills it."""
        self.filter_line.display = False
        super().on_mount()
        self._show_head()

    @property
    def panes(self) -> tuple[Pane, ...]:
        """Workers, tasks, events, stale heartbeats."""
        return self._panes

    @property
    def picture(self) -> Snapshot:
        """What is on the screen now."""
        return self._picture

    @property
    def where(self) -> TaskFilter:
        """The filter of the task pane."""
        return self._where

    # -- refreshing ------------------------------------------------------------------------

    async def load(self, *, changed: bool) -> None:
        """Take the next snapshot and show it."""
        wants = Wants(self._where, self.task_rows.window, self.event_rows.window)
        self._asked_at = self._engine.clock.monotonic()
        recheck, self.recheck = self.recheck, False
        try:
            picture = await take(
                self._engine.queries,
                wants,
                self._engine.clock.now,
                self._picture,
                changed=changed,
                recheck=recheck,
            )
        finally:
            self._asked_at = None
        if picture.wants is None or picture.wants.where != self._where:
            return  # the filter changed meanwhile: the next snapshot is on its way
        self.show(picture)

    def show(self, picture: Snapshot) -> None:
        """Show a snapshot, all of it at once."""
        with self.app.batch_update():
            self._picture = picture
            live = [w for w in picture.workers.value if look.is_live(w)]
            self._trouble(self.worker_rows, picture.workers)
            self.worker_rows.put(live)
            self._show_stale()
            page = picture.tasks.value
            self.task_rows.facts(
                picture.progress.value.held,
                {w.task_id: w.note for w in live if w.task_id is not None},
                {task.id: task.state for task in page.rows},
            )
            self._trouble(self.task_rows, picture.tasks)
            self.task_rows.empty = (
                f"no task matches {clean_text(str(self._where))}: esc clears the filter"
                if self._where
                else self.task_rows.EMPTY
            )
            self.task_rows.put(
                page.rows, offset=page.offset, total=page.total, cursor_at=page.cursor_at
            )
            events = picture.events.value
            self._trouble(self.event_rows, picture.events)
            self.event_rows.put(
                events.rows, offset=events.offset, total=events.total, cursor_at=events.cursor_at
            )
            self._caption()
            self._show_head()
            self.refresh_bars()

    def tick(self) -> None:
        """Let the ages grow, and notice who has gone silent."""
        with self.app.batch_update():
            self._show_stale()
            self.worker_rows.repaint(only_ageing=True)
            self.task_rows.repaint(only_ageing=True)
            self._show_head()

    def _stale_workers(self) -> list[WorkerRow]:
        now, limit = self._engine.clock.now(), self._engine.config.stale_after
        silent = [w for w in self._picture.workers.value if look.is_stale(w, now, limit)]
        return sorted(silent, key=lambda worker: worker.beat_at)

    def _show_stale(self) -> None:
        self._trouble(self.stale_rows, self._picture.workers)
        stale = self._stale_workers()
        if stale or self.stale_rows.total or not self.stale_rows.given:
            self.stale_rows.put(stale)
        pane = self._panes[3]
        pane.set_class(bool(stale), "-alarm")
        pane.caption(foot=str(len(stale)))

    @staticmethod
    def _trouble(rows: RowList[Any], section: Section[Any]) -> None:
        # Rows that were read once stay on screen; the line above says how old they are.
        rows.trouble = section.trouble if section.read_at is None else ""

    def _caption(self) -> None:
        workers, tasks, events, _stale = self._panes
        picture = self._picture
        busy = sum(1 for w in picture.workers.value if look.is_live(w) and w.task_id)
        live = str(self.worker_rows.total)
        workers.caption(
            _late(picture.workers),
            f"{busy} of {live} busy" if self.worker_rows.total else "0",
            live,
        )
        shown = f"{self.task_rows.total:,}"
        place = f"{shown} of {picture.progress.value.total:,}" if self._where else shown
        tasks.caption(_late(picture.tasks) or str(self._where), self._unread or place, shown)
        rows = self.event_rows
        at = "follows" if rows.following else f"at {rows.cursor + 1:,}"
        newest = f"{rows.total:,}"
        events.caption(_late(picture.events), f"{at} · {newest}" if rows.total else "0", newest)

    def _show_head(self) -> None:
        now = self._engine.clock.now()
        late = 0.0
        if self._asked_at is not None:
            waited = self._engine.clock.monotonic() - self._asked_at
            late = waited if waited > _SLOW else 0.0
        progress = self._picture.progress.value
        self._pace.note(now, progress.by_state.get(State.DONE, 0))
        rate = self._pace.per_minute(progress.recent)
        mood = Mood(self._watching, self.quitting, len(self._stale_workers()), late, rate)
        self.head.put(headline(self._picture, now, self.size.width, mood))

    # -- acting ----------------------------------------------------------------------------

    def selection(self) -> Selection:
        """Return what is under the cursor of the current pane."""
        place = _PLACES[self._current]
        held = self._picture.progress.value.held
        worker: WorkerRow | None = None
        if place in {Place.WORKERS, Place.STALE}:
            worker = (self.worker_rows if place is Place.WORKERS else self.stale_rows).current
            opens = worker.task_id if worker is not None else None
            return Selection(place, worker, None, opens, held, self._watching)
        if place is Place.EVENTS:
            event: Event | None = self.event_rows.current
            opens = event.task_id if event is not None else None
            return Selection(place, None, None, opens, held, self._watching)
        task = self.task_rows.current
        if task is not None and task.claimed_by is not None:
            known = (w for w in self._picture.workers.value if w.id == task.claimed_by)
            worker = next(known, None)
        opens = task.id if task is not None else None
        return Selection(place, worker, task, opens, held, self._watching)

    @on(RowList.Moved)
    def moved(self, event: RowList.Moved) -> None:
        """Show what can be done with the row that is now under the cursor."""
        event.stop()
        self.refresh_bars()
        self._caption()

    @on(RowList.Wanted)
    def wanted(self, event: RowList.Wanted) -> None:
        """Have the rows read that came into view."""
        event.stop()
        self.post_message(self.Wanted())

    @on(RowList.Opened)
    async def opened(self, event: RowList.Opened) -> None:
        """Do what enter does."""
        event.stop()
        await self.run_action("app.act('detail')")

    def action_back(self) -> None:
        """Leave the filter's line, else zoom, else the filter itself."""
        if self.filter.has_focus:
            self.filter.value = ""
            self._close_filter()
        elif self.zoomed:
            self.action_zoom()
        elif self._where:
            self.filter.value = ""
            self._set_filter(TaskFilter())

    # -- the filter ------------------------------------------------------------------------

    def action_filter(self) -> None:
        """Open the filter's line."""
        self.go_to(1)
        self.filter_line.display = True
        self.set_focus(self.filter)

    @on(Input.Changed, "#filter")
    def filter_typed(self, event: Input.Changed) -> None:
        """Filter while one types; a last word that cannot be read yet does not count."""
        event.stop()
        try:
            self._set_filter(parse_filter(event.value))
        except ValidationError as error:
            with suppress(ValidationError):
                self._set_filter(parse_filter(" ".join(event.value.split()[:-1])))
            self._unread = str(error)
        else:
            self._unread = ""
        self._caption()

    @on(Input.Submitted, "#filter")
    def filter_kept(self, event: Input.Submitted) -> None:
        """Keep the filter and go back to the list; one that cannot be read stays open."""
        event.stop()
        if not self._unread:
            self._close_filter()

    def on_input_blurred(self) -> None:
        """Close the filter's line when something else is clicked; it then says what holds."""
        self.filter_line.display = False
        if self._unread:
            self.filter.value = str(self._where)

    def _close_filter(self) -> None:
        self.filter_line.display = False
        self._unread = ""
        self.set_focus(self.task_rows)
        self._caption()

    def _set_filter(self, where: TaskFilter) -> None:
        if where != self._where:
            self._where = where
            self.task_rows.forget()
        self._caption()
        self.post_message(self.Wanted())


def _late(section: Section[Any]) -> str:
    """Return why the rows on screen are old; a pane without rows says it in their place."""
    return section.trouble if section.read_at is not None else ""
