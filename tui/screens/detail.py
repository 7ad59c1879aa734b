"""Everything about one task, live."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct
from textual.containers import Container

from engine.errors import TaskNotFound
from engine.text import clean_text, cut_middle
from engine.views import TRANSCRIBED
from tui import describe, look
from tui.actions.model import Place, Selection
from tui.panes.pane import Pane
from tui.screens.paned import PanedScreen
from tui.snapshot import explain
from tui.styled import STYLES
from tui.tail import Tail, read_tail, read_words
from tui.widgets.bars import Bar, Piece
from tui.widgets.cells import Tone
from tui.widgets.document import Document

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from engine.views import TaskDetail, WorkerRow
    from tui.ports import Engine

_FILES = ("stdout", "stderr")
_EXPLAINED_EVERY = 5
"""Ticks after which a task is read again though nothing was committed."""


class Picture(Struct, frozen=True):
    """All that the screen shows, read together. `trouble` is why it could not be read again."""

    detail: TaskDetail | None = None
    worker: WorkerRow | None = None
    held: tuple[str, ...] = ()
    tails: tuple[tuple[str, Tail], ...] = ()
    trouble: str = ""


class DetailScreen(PanedScreen):
    """One task: definition, why it is not running, runs, events, the end of its output."""

    CSS_PATH: ClassVar = STYLES / "detail.tcss"

    def __init__(self, engine: Engine, task_id: str, *, watching: bool = False) -> None:
        super().__init__()
        self._engine = engine
        self._task_id = task_id
        self._watching = watching
        self._picture = self._shown = Picture()
        self._ticks = 0
        self._due = False
        self.head = Bar(id="head")
        self.about = Document(id="about")
        self.runs = Document(id="runs-text")
        self.log_text = Document(follows=True, id="log-text")
        self.events_text = Document(follows=True, id="events-text")
        self._panes = (
            Pane(1, "Task", self.about, id="task"),
            Pane(2, "Runs", self.runs, id="runs"),
            Pane(3, "Log", self.log_text, id="log"),
            Pane(4, "Events", self.events_text, id="task-events"),
        )

    def compose(self) -> ComposeResult:
        """Lay the panes out."""
        task, runs, log, events = self._panes
        yield self.head
        yield self.tabs
        with Container(id="detail"):
            with Container(id="left", classes="box"):
                yield task
            with Container(id="right", classes="box"):
                yield runs
                yield log
                yield events
        yield self.keys

    @property
    def panes(self) -> tuple[Pane, ...]:
        """The task, its runs, their output, its events."""
        return self._panes

    @property
    def picture(self) -> Picture:
        """What is on the screen now."""
        return self._picture

    async def load(self, *, changed: bool) -> None:
        """Read the task again if the store changed; the output's end each time."""
        old = self._picture
        queries = self._engine.queries
        try:
            due, self._due = self._due, False
            if changed or due or old.detail is None or old.trouble:
                detail = await queries.detail(self._task_id)
                held = (await queries.progress()).held
                holder = detail.task.claimed_by
                workers = await queries.workers() if holder is not None else []
                worker = next((w for w in workers if w.id == holder), None)
                old = Picture(detail, worker, held, old.tails)
            self._picture = await self._with_output(old)
        except TaskNotFound:
            self._picture = Picture(trouble="this task is gone")
        except Exception as error:  # noqa: BLE001 - whatever a query throws is shown in its pane
            self._picture = Picture(
                old.detail, old.worker, old.held, old.tails, trouble=explain(error)
            )
        self.show()

    async def _with_output(self, picture: Picture) -> Picture:
        detail = picture.detail
        if detail is None or not detail.runs:
            return picture
        folder = self._engine.layout.run_folder(self._task_id, detail.runs[0].id)
        tails = [(n, await asyncio.to_thread(read_tail, folder / f"{n}.log")) for n in _FILES]
        if detail.task.kind in TRANSCRIBED:
            words = partial(read_words, folder, over=not _going_on(detail))
            tails.insert(0, ("transcript", await asyncio.to_thread(words)))
        return Picture(picture.detail, picture.worker, picture.held, tuple(tails))

    def show(self) -> None:
        """Show the picture, all of it at once; what is as it was is not laid out again."""
        picture, before = self._picture, self._shown
        detail = picture.detail
        with self.app.batch_update():
            self._show_head()
            self._caption()
            self.refresh_bars()
            if detail is None:
                return
            self._shown = picture
            self._show_ageing(detail, anew=detail is not before.detail)
            if picture.tails != before.tails or before.detail is None:
                self.log_text.show(describe.laid_out(partial(describe.log_lines, picture.tails)))
            if detail is not before.detail:
                self.events_text.show(
                    describe.laid_out(partial(describe.event_lines, detail.events))
                )

    def _show_ageing(self, detail: TaskDetail, *, anew: bool) -> None:
        """Show what is another text as time goes by: the task, and its runs while one goes on."""
        now = self._engine.clock.now()
        self.about.show(describe.laid_out(lambda w: describe.task_lines(detail, now, w)))
        if anew or _going_on(detail):
            self.runs.show(describe.laid_out(lambda w: describe.run_lines(detail.runs, now, w)))

    def _caption(self) -> None:
        task, runs, log, events = self._panes
        trouble, detail = self._picture.trouble, self._picture.detail
        task.caption(trouble)
        runs.caption(trouble, str(len(detail.runs)) if detail is not None else "")
        events.caption(trouble, str(len(detail.events)) if detail is not None else "")
        foot = ""
        if detail is not None and detail.runs:
            run = detail.runs[0]
            foot = f"run #{run.attempt}, {'going on' if run.outcome is None else run.outcome}"
        log.caption(trouble, foot, "")

    def tick(self) -> None:
        """Let the ages grow; while a run goes on, look for new output too."""
        detail = self._picture.detail
        self._ticks += 1
        # Why it waits is told in numbers that time changes, too: seconds, workers that are gone.
        self._due = self._due or self._ticks % _EXPLAINED_EVERY == 0
        if self._due or (detail is not None and _going_on(detail)):
            self.post_message(self.Wanted())
        with self.app.batch_update():
            self._show_head()
            if detail is not None:
                self._show_ageing(detail, anew=False)

    def _show_head(self) -> None:
        picture, now = self._picture, self._engine.clock.now()
        room = max(12, self.size.width - 40)
        name = cut_middle(clean_text(self._task_id), room)
        pieces = [Piece((("agentmux", Tone.BOLD),), drop=9), Piece(((name, Tone.BOLD),))]
        if picture.detail is not None:
            symbol = look.task_symbol(picture.detail.task, now)
            words = f"{symbol} {look.state_words(picture.detail.task, now)}"
            pieces.append(Piece(((words, look.tone_of(symbol)),)))
        if picture.trouble:
            pieces.append(Piece(((picture.trouble, Tone.FAILED),)))
        self.head.put(pieces)

    def selection(self) -> Selection:
        """Return the task, and the worker that holds it."""
        picture = self._picture
        task = picture.detail.task if picture.detail is not None else None
        return Selection(Place.DETAIL, picture.worker, task, None, picture.held, self._watching)


def _going_on(detail: TaskDetail) -> bool:
    return bool(detail.runs) and detail.runs[0].outcome is None
