"""One worker: who it is, what it holds, the processes of its run, its runs and its events."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.containers import Container

from engine.errors import TaskNotFound
from engine.filters import WORKER, Filter, Term
from engine.text import clean_text, cut_middle, plural
from tui import look
from tui.actions.model import Place, Selection
from tui.describe import event_lines, laid_out
from tui.describe_fleet import worker_about, worker_state
from tui.panes.pane import Pane
from tui.panes.processes import ProcessesList
from tui.panes.runs import RunsList
from tui.screens.listing import ListingScreen, late, never_read, read, read_runs
from tui.snapshot import Page, Section
from tui.styled import STYLES
from tui.widgets.cells import Tone
from tui.widgets.document import Document

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from engine.model import Event
    from engine.views import ProcessRow, RunRow, TaskRow, WorkerRow
    from tui.ports import Engine
    from tui.widgets.cells import Line
    from tui.widgets.rows import Window

_EVERY = 2
"""Ticks between two looks at the processes."""
_EVENTS = 100
"""Events that are shown, the newest."""
_BACK = 20_000
"""Events of all workers that are looked through for this one's."""


class WorkerScreen(ListingScreen):
    """Everything about one worker, live. One that is gone is shown as it was seen last."""

    CSS_PATH: ClassVar = STYLES / "lists.tcss"

    def __init__(self, engine: Engine, worker_id: str, *, watching: bool = False) -> None:
        super().__init__(engine, watching=watching)
        now = engine.clock.now
        self._worker_id = worker_id
        self._where = Filter((Term(WORKER, worker_id),))
        self._ticks = 0
        self._due = True
        self._gone = False
        self._seqs: tuple[int, ...] = ()
        self._seen = 0
        self._window: Window | None = None
        self._worker: Section[WorkerRow | None] = Section(None)
        self._holds: Section[TaskRow | None] = Section(None)
        self._held: Section[tuple[str, ...]] = Section(())
        self._processes: Section[tuple[ProcessRow, ...]] = Section(())
        self._runs: Section[Page[RunRow]] = Section(Page())
        self._events: Section[tuple[Event, ...]] = Section(())
        self.about = Document(id="worker-text")
        self.process_rows = ProcessesList(now)
        self.rows = RunsList(now, id="worker-runs-list")
        self.rows.empty = "it has not run anything yet"
        self.rows.hidden = frozenset({"agent", "worker"})
        self.events_text = Document(follows=True, id="worker-events-text")
        self._panes = (
            Pane(1, "Worker", self.about, id="worker-about"),
            Pane(2, "Processes", self.process_rows, id="worker-processes"),
            Pane(3, "Runs", self.rows, id="worker-runs"),
            Pane(4, "Events", self.events_text, id="worker-events"),
        )

    def compose(self) -> ComposeResult:
        """Lay the panes out."""
        about, processes, runs, events = self._panes
        yield self.head
        yield self.tabs
        with Container(id="worker"):
            with Container(id="worker-left", classes="box"):
                yield about
                yield events
            with Container(id="worker-right", classes="box"):
                yield processes
                yield runs
        yield self.keys

    def on_mount(self) -> None:
        """Show the frame at once; the first look fills it."""
        self._caption()

    @property
    def panes(self) -> tuple[Pane, ...]:
        """The worker, its processes, its runs, its events."""
        return self._panes

    # -- refreshing ------------------------------------------------------------------------

    async def load(self, *, changed: bool) -> None:
        """Read what may have changed: all of it after a commit, else what moves without one."""
        now = self._engine.clock.now
        due, self._due = self._due, False
        changed = changed or self._troubled or self._worker.read_at is None
        if changed or due:
            # Also without a commit: a process that was killed writes nothing.
            self._worker = await read(self._worker, self._read_worker, now)
            self._processes = await read(self._processes, self._read_processes, now)
        if changed:
            self._held = await read(self._held, self._read_held, now)
            self._holds = await read(self._holds, self._read_task, now)
            self._events = await read(self._events, self._read_events, now)
        window = self.rows.window
        if changed or window != self._window:
            self._window = window
            order = self.rows.order
            query = partial(read_runs, self._engine.queries, self._where, order, window)
            self._runs = await read(self._runs, query, now)
        self.show()

    @property
    def _troubled(self) -> bool:
        sections = (self._worker, self._held, self._holds, self._events, self._runs)
        return any(section.trouble for section in sections)

    async def _read_worker(self) -> WorkerRow | None:
        workers = await self._engine.queries.workers()
        found = next((worker for worker in workers if worker.id == self._worker_id), None)
        self._gone = found is None
        return found or self._worker.value

    async def _read_held(self) -> tuple[str, ...]:
        return (await self._engine.queries.progress()).held

    async def _read_task(self) -> TaskRow | None:
        worker = self._worker.value
        if worker is None or worker.task_id is None:
            return None
        try:
            return (await self._engine.queries.detail(worker.task_id)).task
        except TaskNotFound:
            return None

    async def _read_processes(self) -> tuple[ProcessRow, ...]:
        worker = self._worker.value
        if worker is None or worker.run_id is None:
            return ()
        return tuple(await self._engine.processes_of(worker.run_id))

    async def _read_events(self) -> tuple[Event, ...]:
        # Only what came since the last look is looked through: events never change.
        queries = self._engine.queries
        last = await queries.last_seq()
        if last < self._seen:
            self._seqs, self._seen = (), 0
        after = max(self._seen, last - _BACK)
        found = await queries.event_seqs(self._where, after=after, upto=last)
        seqs = (*self._seqs, *found)[-_EVENTS:]
        events = self._events.value
        if found:
            events = tuple(await queries.events_at(seqs))
        self._seqs, self._seen = seqs, last
        return events

    # -- showing ---------------------------------------------------------------------------

    def show(self) -> None:
        """Show what was read, all of it at once."""
        worker, page, events = self._worker.value, self._runs.value, self._events.value
        with self.app.batch_update():
            self.about.show(laid_out(self._about))
            self.process_rows.trouble = never_read(self._processes)
            self.process_rows.empty = (
                "its run has no process of its own"
                if worker is not None and worker.task_id is not None
                else ProcessesList.EMPTY
            )
            self.process_rows.put(self._processes.value)
            self.rows.trouble = never_read(self._runs)
            self.rows.put(
                page.rows,
                offset=page.offset,
                total=page.total,
                cursor_at=page.cursor_at,
                cursor=page.cursor,
            )
            self.events_text.show(laid_out(lambda width: event_lines(events, width)))
            self._caption()
            self.refresh_bars()

    def _about(self, width: int) -> list[Line]:
        worker = self._worker.value
        if worker is None:
            return [((self._missing, Tone.DIM),)] if self._worker.read_at is not None else []
        now, stale_after = self._engine.clock.now(), self._engine.config.stale_after
        return worker_about(worker, self._holds.value, now, stale_after, width)

    @property
    def _missing(self) -> str:
        if not self._gone:
            return ""
        return "gone: as it was seen last" if self._worker.value else "no such worker"

    def chose(self) -> None:
        """Say which run is under the cursor."""
        self._caption()

    def tick(self) -> None:
        """Let the ages grow; look at the processes now and then."""
        self._ticks += 1
        if self._ticks % _EVERY == 0 or self._troubled:
            self._due = True
            self.want()
        with self.app.batch_update():
            self.about.show(laid_out(self._about))
            self.process_rows.repaint(only_ageing=True)
            self.rows.repaint(only_ageing=True)
            self._show_head()

    def _caption(self) -> None:
        about, processes, runs, events = self._panes
        about.caption(self._worker.trouble or self._missing, count="")
        tree = self._processes.value
        total = sum(process.memory for process in tree)
        known = [process.cpu for process in tree if process.cpu is not None]
        costs = f"{look.cpu(sum(known) if known else None)} {look.memory(total)}"
        processes.caption(
            late(self._processes),
            f"{plural(len(tree), 'process', 'processes')}, {costs}" if tree else "",
            str(len(tree)),
        )
        rows = self.rows
        count = f"{rows.total:,}"
        runs.caption(
            late(self._runs), f"{rows.cursor + 1:,} of {count}" if rows.total else count, count
        )
        events.caption(self._events.trouble, str(len(self._events.value)))
        self._show_head()

    def _show_head(self) -> None:
        worker, now = self._worker.value, self._engine.clock.now()
        name = cut_middle(clean_text(self._worker_id), max(12, self.size.width - 40))
        state = ("", Tone.DIM)
        if worker is not None:
            state = worker_state(worker, now, self._engine.config.stale_after)
        if self._gone:
            state = (self._missing, Tone.DIM)
        self.show_head(name, state, trouble=self._worker.trouble)

    # -- acting ----------------------------------------------------------------------------

    def selection(self) -> Selection:
        """Return the worker and the task it holds; among its runs, the run under the cursor."""
        worker = None if self._gone else self._worker.value
        run = self.rows.current if self._panes[2] is self.current else None
        opens = worker.task_id if worker is not None else None
        if run is not None:
            opens = run.task_id
        return Selection(
            Place.WORKER,
            worker,
            self._holds.value,
            opens,
            self._held.value,
            self._watching,
            run=run,
        )
