"""The dashboard itself: the line of progress, four live panes, the footer.

A fifth pane, the services, comes once there are some: nobody else pays for it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from textual import on
from textual.containers import Container

from engine.filters import EVENT_FIELDS, TASK_FIELDS, Filter, likely_meant, parse_filter
from engine.model import Event, State
from engine.text import clean_text
from tui import look
from tui.actions.model import Place, Selection
from tui.actions.table import BY_NAME
from tui.aside import Facts
from tui.headline import Mood, Pace, headline
from tui.matching import Matching
from tui.panes.events import EventsList
from tui.panes.pane import Pane
from tui.panes.stale import StaleList
from tui.panes.tasks import TasksList
from tui.panes.workers import WorkersList
from tui.screens.paned import PanedScreen
from tui.snapshot import Section, Snapshot, Wants, take
from tui.widgets.bars import Bar
from tui.widgets.columns import known_order, next_order, reversed_order
from tui.widgets.filterline import FilterLine
from tui.widgets.rows import RowList

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from engine.views import Order, WorkerRow
    from tui.panes.services import ServicesPane
    from tui.ports import Engine

_PLACES = (Place.WORKERS, Place.TASKS, Place.EVENTS, Place.STALE, Place.SERVICES)
_PATIENCE = 0.25
"""Seconds that the first frame waits for the first rows."""
_SLOW = 2.0
"""Seconds after which a refresh that has not come back is told to the user."""


class MainScreen(PanedScreen):
    """Shows one snapshot after the other, each as a whole."""

    def __init__(self, engine: Engine, *, watching: bool = False) -> None:
        super().__init__()
        self._engine = engine
        self._watching = watching
        self._picture = Snapshot()
        self._matching: Matching | None = None
        self._pace = Pace()
        self._asked_at: float | None = None
        self.facts = Facts()
        self.recheck = False
        self.quitting = ""
        self.news = ""
        now = engine.clock.now
        self.worker_rows = WorkersList(now, engine.config.stale_after)
        self.task_rows = TasksList(now)
        self.event_rows = EventsList()
        self.stale_rows = StaleList(now)
        self.task_filter = FilterLine(
            partial(parse_filter, fields=TASK_FIELDS),
            hint="word  state:failed  agent:codex  /regex/  !not",
            closed=self._filter_closed,
            id="task-filter",
        )
        self.event_filter = FilterLine(
            lambda text: parse_filter(text, EVENT_FIELDS, now=now()),
            hint="word  type:failed  task:ID  worker:W  after:2h  !not",
            closed=self._filter_closed,
            id="event-filter",
        )
        self._panes = (
            Pane(1, "Workers", self.worker_rows, id="workers"),
            Pane(2, "Tasks", self.task_rows, self.task_filter, id="tasks"),
            Pane(3, "Events", self.event_rows, self.event_filter, id="events"),
            Pane(4, "Stale heartbeats", self.stale_rows, id="stale"),
        )
        self._services: ServicesPane | None = None
        self._current = 1
        self.head = Bar(id="head")
        self.begun = asyncio.Event()
        """Set once the screen has done for its first picture what it does by itself."""

    def compose(self) -> ComposeResult:
        """Lay the panes out."""
        workers, tasks, events, stale = self._panes
        self.add_class(*self.size_classes())
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

    async def on_mount(self) -> None:  # type: ignore[override]  # Textual awaits what can be awaited
        """Show the frame at once; the first snapshot fills it."""
        preferences = self.fitted.preferences
        self.task_rows.order = known_order(self.task_rows.columns, preferences.order("tasks"))
        self.task_rows.hidden = preferences.hidden("tasks")
        names = [pane.id for pane in self._panes]
        if preferences.pane in names:
            self._current = names.index(preferences.pane)
        self._show_head()
        # What is read before the first layout is in the first picture, and painted once. A store
        # that is slow to read must not keep the frame away.
        try:
            async with asyncio.timeout(_PATIENCE):
                picture = await self._read(changed=True)
        except TimeoutError:
            self.post_message(self.Wanted())
        else:
            await self._took(picture)
        finally:
            self.begun.set()

    def go_to(self, index: int) -> None:
        """Make a pane the current one, also of the next dashboard."""
        super().go_to(index)
        self.fitted.preferences.pane = self.current.id or ""

    @property
    def panes(self) -> tuple[Pane, ...]:
        """Workers, tasks, events, stale heartbeats; services, if there are any."""
        return self._panes if self._services is None else (*self._panes, self._services)

    @property
    def picture(self) -> Snapshot:
        """What is on the screen now."""
        return self._picture

    @property
    def where(self) -> Filter:
        """The filter of the task pane."""
        return self.task_filter.where

    @property
    def _shows_what_is_asked(self) -> bool:
        wants = self._picture.wants
        return wants is not None and (
            (wants.where, wants.order) == (self.where, self.task_rows.order)
        )

    @property
    def _rows(self) -> RowList[Any]:
        lists: tuple[RowList[Any], ...] = (
            self.worker_rows,
            self.task_rows,
            self.event_rows,
            self.stale_rows,
        )
        if self._services is not None:
            lists = (*lists, self._services.rows)
        return lists[self._current]

    # -- showing ---------------------------------------------------------------------------

    async def load(self, *, changed: bool) -> None:
        """Take the next snapshot and show it, as a whole."""
        await self._took(await self._read(changed=changed))

    async def _read(self, *, changed: bool) -> Snapshot:
        recheck, self.recheck = self.recheck, False
        self._asked_at = self._engine.clock.monotonic()
        wants = Wants(
            self.where,
            self.task_rows.window,
            self.event_rows.window,
            self.task_rows.order,
            self._matching,
        )
        try:
            return await take(
                self._engine.queries,
                wants,
                self._engine.clock.now,
                self._picture,
                changed=changed,
                recheck=recheck,
            )
        finally:
            self._asked_at = None

    async def _took(self, picture: Snapshot) -> None:
        wants, asked = picture.wants, (self.where, self.task_rows.order, self._matching)
        if wants is None or (wants.where, wants.order, wants.matching) != asked:
            return  # somebody asked for something else meanwhile: that is on its way
        if self._services is None and (picture.services.value or self._engine.config.services):
            await self._add_services()
        self.show(picture)
        if not picture.events.value.complete:
            self.post_message(self.Wanted())

    async def _add_services(self) -> None:
        """Make room for the services."""
        from tui.panes.services import ServicesPane  # noqa: PLC0415 - most fleets have none

        pane = ServicesPane(len(self._panes) + 1, self._engine.clock.now)
        pane.display = not self.single
        bottom = self.query_one("#bottom")
        bottom.add_class("-services")
        await bottom.mount(pane)
        self._services = pane
        if self.fitted.preferences.pane == pane.id:
            self._current = len(self._panes)
        self._arrange()

    def show(self, picture: Snapshot) -> None:
        """Show a snapshot, all of it at once."""
        before, self._picture = self._picture, picture
        with self.app.batch_update():
            self._show_workers()
            self._show_stale()
            self._show_services()
            self._show_tasks()
            if picture.events is not before.events:
                self._show_events()
            self._caption()
            self._show_head()
            self.refresh_bars()

    def _show_workers(self) -> None:
        live = [w for w in self._picture.workers.value if look.is_live(w)]
        self._trouble(self.worker_rows, self._picture.workers)
        self.worker_rows.usage = self.facts.usage
        waits = self._engine.workers_wait
        self.worker_rows.empty = WorkersList.AFTER_SERVICES if waits else WorkersList.EMPTY
        self.worker_rows.put([*live, *self._picture.externals.value])
        names = {worker.id for worker in live}
        self.worker_rows.keep_marks(names)

    def _show_services(self) -> None:
        if self._services is not None:
            services = self._picture.services
            self._trouble(self._services.rows, services)
            now, configured = self._engine.clock.now(), self._engine.config.services
            self._services.show(services.value, configured, now, _late(services))

    def _show_tasks(self) -> None:
        picture = self._picture
        page = picture.tasks.value
        self.task_rows.facts(
            picture.progress.value.held,
            {w.task_id: w.note for w in picture.workers.value if w.task_id is not None},
            {task.id: task.state for task in page.rows},
            self._idle(),
        )
        self._trouble(self.task_rows, picture.tasks)
        self.task_rows.empty = self._nothing(self.task_rows, self.where)
        self.task_rows.put(
            page.rows,
            offset=page.offset,
            total=page.total,
            cursor_at=page.cursor_at,
            cursor=page.cursor,
        )

    def _show_events(self) -> None:
        events = self._picture.events.value
        self._trouble(self.event_rows, self._picture.events)
        self.event_rows.empty = self._nothing(self.event_rows, self.event_filter.where)
        self.event_rows.put(
            events.rows,
            offset=events.offset,
            total=events.total,
            cursor_at=events.cursor_at,
            cursor=events.cursor,
        )

    def _idle(self) -> dict[str, bool] | None:
        """Say of each agent that has live workers whether one of them has nothing to do."""
        if self._picture.workers.read_at is None:
            return None
        idle: dict[str, bool] = {}
        for worker in self._picture.workers.value:
            if look.is_live(worker) and worker.alive:
                idle[worker.agent] = idle.get(worker.agent, False) or worker.task_id is None
        return idle

    def _nothing(self, rows: RowList[Any], where: Filter) -> str:
        if not where:
            return rows.EMPTY
        meant = (
            likely_meant(where)
            if isinstance(rows, TasksList)
            else likely_meant(where, EVENT_FIELDS)
        )
        clears = f"{self.fitted.keymap.shown(BY_NAME['back'])} clears the filter"
        return f"nothing matches {clean_text(str(where))}: {meant or clears}"

    def tell(self, facts: Facts) -> None:
        """Show what is known beside the picture."""
        self.facts = facts
        with self.app.batch_update():
            self._show_workers()
            self._show_head()
            self.refresh_bars()

    def tick(self) -> None:
        """Let the ages grow, and notice who has gone silent."""
        with self.app.batch_update():
            self._show_stale()
            self.worker_rows.repaint(only_ageing=True)
            self.task_rows.repaint(only_ageing=True)
            if self._services is not None:
                self._services.rows.repaint(only_ageing=True)
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
            self.stale_rows.keep_marks({worker.id for worker in stale})
        pane = self._panes[3]
        pane.set_class(bool(stale), "-alarm")
        kill, release = (self.fitted.keymap.shown(BY_NAME[n]) for n in ("kill", "release"))
        todo = f"{kill} kills, {release} releases" if stale else ""
        pane.caption(todo, str(len(stale)), str(len(stale)))

    def _trouble(self, rows: RowList[Any], section: Section[Any]) -> None:
        # Rows that were read once stay on screen; the line above says how old they are. While the
        # engine is opening there may be nothing to be read yet.
        shown = section.read_at is None and self._engine.opening is None
        rows.trouble = section.trouble if shown else ""

    def _caption(self) -> None:
        workers, tasks, events, _stale = self._panes
        picture = self._picture
        live = [w for w in picture.workers.value if look.is_live(w)]
        busy = sum(1 for worker in live if worker.task_id)
        marked, others = len(self.worker_rows.marked), len(picture.externals.value)
        told = [f"{marked} marked"] if marked else []
        told += [f"{others} external"] if others else []
        workers.caption(
            _late(picture.workers) or " · ".join(told),
            f"{busy} of {len(live)} busy" if live else "0",
            str(self.worker_rows.total),
        )
        shown = f"{self.task_rows.total:,}"
        place = f"{shown} of {picture.progress.value.total:,}" if self.where else shown
        if marked := len(self.task_rows.marked):
            place = f"{marked:,} marked · {place}"
        tasks.caption(_late(picture.tasks) or str(self.where), place, shown)
        rows = self.event_rows
        at = "follows" if rows.following else f"at {rows.cursor + 1:,}"
        newest = f"{rows.total:,}" + ("" if picture.events.value.complete else " so far")
        events.caption(
            _late(picture.events) or str(self.event_filter.where),
            f"{at} · {newest}" if rows.total else "0",
            newest,
        )

    def _show_head(self) -> None:
        now = self._engine.clock.now()
        late = 0.0
        if self._asked_at is not None:
            waited = self._engine.clock.monotonic() - self._asked_at
            late = waited if waited > _SLOW else 0.0
        progress = self._picture.progress.value
        if self._picture.progress.read_at is not None:
            self._pace.note(now, progress.by_state.get(State.DONE, 0))
        mood = Mood(
            watching=self._watching,
            quitting=self.quitting,
            stale_workers=len(self._stale_workers()),
            needs=len(self.facts.needs),
            unserved=tuple(n.agent for n in self.facts.needs if n.agent is not None),
            late=late,
            rate=self._pace.per_minute(progress.recent),
            path=self._path_left(),
            workers=any(look.is_live(worker) for worker in self._picture.workers.value),
            news=self.news,
            health=self.facts.health,
            opening=self._opening(),
        )
        self.head.put(headline(self._picture, now, self.size.width or self.app.size.width, mood))

    def _opening(self) -> str:
        step = self._engine.opening
        if step is None:
            return ""
        return clean_text(step.what) + (f" {step.count:,}" if step.count else "")

    def _path_left(self) -> float | None:
        seconds, read_at = self.facts.path.seconds, self.facts.path_at
        if seconds is None or read_at is None:
            return None
        # It was read some seconds ago, and what runs on it has run on.
        return max(0.0, seconds - (self._engine.clock.now() - read_at).total_seconds())

    # -- acting ----------------------------------------------------------------------------

    def selection(self) -> Selection:
        """Return what is under the cursor of the current pane, and what is marked there."""
        place = _PLACES[self._current]
        about: dict[str, Any] = {
            "held": self._picture.progress.value.held,
            "watching": self._watching,
            "marked": self._rows.marked,  # the lists with marks have keys of text
        }
        if place in {Place.WORKERS, Place.STALE}:
            worker = self.stale_rows.current
            if place is Place.WORKERS:
                worker = self.worker_rows.worker
                about["external"] = self.worker_rows.external
            opens = worker.task_id if worker is not None else None
            return Selection(place, worker, opens=opens, **about)
        if place is Place.SERVICES and self._services is not None:
            return Selection(place, service=self._services.rows.current, **about)
        if place is Place.EVENTS:
            event: Event | None = self.event_rows.current
            if event is None:
                return Selection(place, **about)
            known = {worker.id for worker in self._picture.workers.value}
            who = event.worker_id
            about |= {"opens": event.task_id, "run_id": event.run_id}
            return Selection(place, who=who, gone=who not in known, **about)
        # Rows of another filter or order are still on screen: no key may act on one of those.
        task = self.task_rows.current if self._shows_what_is_asked else None
        holder = task.claimed_by if task is not None else None
        holders = (w for w in self._picture.workers.value if w.id == holder)
        opens = task.id if task is not None else None
        return Selection(place, next(holders, None), task, opens, **about)

    def pin(self) -> None:
        """Stay with the row under the cursor."""
        self._rows.choose()

    def clear_marks(self) -> None:
        """Mark nothing any longer."""
        self._rows.clear_marks()

    def action_mark(self) -> None:
        """Mark the row under the cursor, or not any longer."""
        self._rows.toggle_mark()

    async def action_mark_all(self) -> None:
        """Mark all that the pane's filter shows; if something is marked, mark nothing."""
        rows = self._rows
        if rows.marked:
            rows.clear_marks()
        elif rows is self.task_rows:
            rows.mark_all(await self._engine.queries.task_ids(self.where))
        elif rows is self.worker_rows:
            rows.mark_all(w.id for w in self._picture.workers.value if look.is_live(w))
        elif rows is self.stale_rows:
            rows.mark_all(worker.id for worker in self._stale_workers())

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
        """Leave the line of a filter, else take back marks, zoom, or the pane's filter."""
        line = self.event_filter if self._current == 2 else self.task_filter
        if line.editing:
            line.clear()
            self.set_focus(self._rows)
        elif self._rows.marked:
            self._rows.clear_marks()
        elif self.zoomed:
            self.action_zoom()
        else:
            line.clear()

    def action_pane(self, number: int) -> None:
        """Go to a pane by its number."""
        if number > len(self.panes):
            words = "there are no services: `services:` in agentmux.yaml names some"
            self.notify(words, severity="warning", markup=False)
        super().action_pane(number)

    # -- filter and order ------------------------------------------------------------------

    def action_filter(self) -> None:
        """Open the filter's line: that of the events there, else that of the tasks."""
        if self._current == 2:
            self.event_filter.open()
            return
        self.go_to(1)
        self.task_filter.open()

    @on(FilterLine.Changed, "#task-filter")
    def tasks_filtered(self, event: FilterLine.Changed) -> None:
        """Show the tasks that match."""
        event.stop()
        self._asked_else(self.task_rows)

    @on(FilterLine.Changed, "#event-filter")
    def events_filtered(self, event: FilterLine.Changed) -> None:
        """Show the events that match."""
        event.stop()
        if self._matching is None or self._matching.where != event.where:
            self._matching = Matching(event.where) if event.where else None
            self._asked_else(self.event_rows)
        self._caption()

    def _filter_closed(self) -> None:
        self.set_focus(self._rows)
        self._caption()

    def _asked_else(self, rows: RowList[Any]) -> None:
        rows.forget()
        self._caption()
        self.post_message(self.Wanted())

    def sort(self, order: Order) -> None:
        """Show the tasks in this order from now on."""
        self.task_rows.order = order
        self.fitted.preferences.set_order("tasks", order)
        self._asked_else(self.task_rows)

    @on(RowList.Sorted)
    def title_clicked(self, event: RowList.Sorted) -> None:
        """Sort by a column."""
        event.stop()
        self.sort(event.order)

    def action_sort(self) -> None:
        """Sort by the next column."""
        rows = self.task_rows
        self.sort(next_order(rows.columns, rows.order, rows.unseen))

    def action_columns(self) -> None:
        """Choose the columns of the tasks."""
        rows = self.task_rows
        self.choose_columns(rows, lambda: self.fitted.preferences.set_hidden("tasks", rows.hidden))

    def action_reverse(self) -> None:
        """Turn the order round."""
        self.sort(reversed_order(self.task_rows.order))


def _late(section: Section[Any]) -> str:
    """Return why the rows on screen are old; a pane without rows says it in their place."""
    return section.trouble if section.read_at is not None else ""
