"""The output of a run: the newest of a task or any earlier one, while it goes on or long after.

Which run is shown is decided here, and what there is to say about it; the text is the business
of `LogText` and of its reader.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.containers import Horizontal

from engine.growing import Standing
from engine.text import clean_text, plural
from tui.actions.model import Place, Selection
from tui.actions.table import BY_NAME
from tui.logs import words
from tui.logs.copying import COPY_LIMIT
from tui.logs.search import Search
from tui.logs.viewport import Viewport
from tui.outside import PagerError, page
from tui.panes.findline import FindLine
from tui.panes.log import LogText
from tui.panes.pane import Pane
from tui.screens.paned import PanedScreen
from tui.snapshot import explain
from tui.styled import STYLES
from tui.widgets.bars import Bar, Piece
from tui.widgets.cells import Tone
from tui.widgets.gauge import Gauge

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from textual.app import ComposeResult

    from engine.views import RunRow
    from tui.logs.search import Needle
    from tui.logs.viewport import Frame
    from tui.ports import Engine

_POLL = 0.25
"""Seconds between two looks at a file that a run writes to."""
_RUNS = 1000
_PATIENCE = 0.3
"""Seconds after which a search says how far it is."""
_MIB = 1024 * 1024


class LogScreen(PanedScreen):
    """The log of one run. Without a `run_id`, that of the task's newest run.

    What is a text of a run, too, but another one, is a kind of it.
    """

    PLACE = Place.LOG
    TITLED = "Log"
    SEARCH: ClassVar[type[Search]] = Search

    CSS_PATH: ClassVar[list[str | os.PathLike[str]]] = [  # type: ignore[assignment]  # Textual types the one, takes the other
        STYLES / "log.tcss",
        STYLES / "find.tcss",
    ]

    def __init__(
        self, engine: Engine, task_id: str, run_id: str | None = None, *, watching: bool = False
    ) -> None:
        super().__init__()
        self._engine = engine
        self._task_id = task_id
        self._run_id = run_id
        self._watching = watching
        self._stream = "stdout"
        self._runs: tuple[RunRow, ...] = ()
        self._held: tuple[str, ...] = ()
        self._trouble = ""
        self._read = False
        self._needle: Needle | None = None
        self._sought = ""
        self._status = ""
        self._search_began = 0.0
        self._steps = 0
        self._before: Frame | None = None
        self.head = Bar(id="head")
        self.text = self._made()
        self.gauge = Gauge(id="log-gauge")
        self.find = FindLine(self._seek, self._close_find, id="find-line")
        self._pane = Pane(
            1, self.TITLED, Horizontal(self.text, self.gauge, id="log-body"), self.find, id="log"
        )

    def _made(self) -> LogText:
        return LogText(self._path, id="log-text")

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        yield self.head
        yield self._pane
        yield self.keys

    def on_mount(self) -> None:
        """Begin to follow the file."""
        self.set_interval(_POLL, self._poll)
        self.show()

    @property
    def panes(self) -> tuple[Pane, ...]:
        """The log."""
        return (self._pane,)

    @property
    def run(self) -> RunRow | None:
        """The run whose log is shown, None if there is none or it is not read yet."""
        return next((run for run in self._runs if run.id == self._run_id), None)

    @property
    def stream(self) -> str:
        """Which of the two files is shown."""
        return self._stream

    @property
    def _path(self) -> Path:
        folder = self._engine.layout.run_folder(self._task_id, self._run_id or "-")
        return folder / f"{self._stream}.log"

    # -- refreshing ------------------------------------------------------------------------

    async def load(self, *, changed: bool) -> None:
        """Read which runs there are."""
        if not changed and self._read and not self._trouble:
            return
        queries = self._engine.queries
        try:
            runs = await queries.runs(self._task_id, limit=_RUNS)
            if self._run_id is not None and self._run_id not in {run.id for run in runs}:
                run = await queries.run(self._run_id)
                runs = [*runs, run] if run is not None else runs
            held = (await queries.progress()).held
        except Exception as error:  # noqa: BLE001 - whatever it is, the screen says so and lives on
            self._trouble = explain(error)
        else:
            self._trouble, self._read = "", True
            was_live = self._live
            self._runs, self._held = tuple(runs), held
            if self._run_id is None and runs:
                self._go_to_run(runs[0].id)
            elif was_live and not self._live:
                self.text.ask(Viewport.refresh)
        self.show()
        self.refresh_bars()

    @property
    def _live(self) -> bool:
        run = self.run
        return run is not None and run.outcome is None

    def _poll(self) -> None:
        if self._live and self.is_current:
            self.text.ask(Viewport.refresh)

    def tick(self) -> None:
        """Look at the file of a run that is over, too: somebody may have removed it."""
        if not self._live and self.is_current:
            self.text.ask(Viewport.refresh)
        self.show()

    @on(LogText.Shown)
    def shown(self, event: LogText.Shown) -> None:
        """Tell where one is now."""
        event.stop()
        self.show()

    def show(self) -> None:
        """Show the head line, the captions and the gauge as they are now."""
        if not self.is_mounted:
            return
        frame = self.text.frame
        self.text.say(*self._nothing_to_read(frame))
        self.gauge.put(
            frame.top / frame.size if frame.size else 0.0,
            frame.bottom / frame.size if frame.size else 1.0,
        )
        self.head.put(self._head_pieces(frame))
        self._pane.caption(self._trouble or self._status or self._sought, words.where(frame))

    def _head_pieces(self, frame: Frame) -> list[Piece]:
        what = ((self._stream, Tone.TEXT),)
        return words.head_pieces(self._task_id, self._runs, self.run, what, frame, self.size.width)

    def _nothing_to_read(self, frame: Frame) -> tuple[str, str]:
        """Return what would fill the screen, and what is wrong if something is."""
        if frame.standing is Standing.REFUSED:
            return "", frame.trouble
        if not self._read:
            return "reading …", self._trouble
        if self.run is None:
            return words.why_no_run(self._task_id, self._run_id, self.TITLED.lower()), ""
        return self._why_empty(self.run, frame.standing), ""

    def _why_empty(self, run: RunRow, standing: Standing) -> str:
        return words.why_empty(run, self._stream, standing)

    # -- other files -----------------------------------------------------------------------

    def _go_to_run(self, run_id: str) -> None:
        self._run_id = run_id
        self._forget_search()
        self.text.open(self._path)
        self.show()
        self.refresh_bars()

    def _say(self, text: str, severity: str = "information") -> None:
        level = severity if severity in {"warning", "error"} else "information"
        self.notify(clean_text(text), severity=level, markup=False)  # type: ignore[arg-type]  # one of its literals

    def _other_run(self, step: int) -> None:
        ids = [run.id for run in self._runs]
        at = ids.index(self._run_id) - step if self._run_id in ids else -1
        if 0 <= at < len(ids):
            self._go_to_run(ids[at])
        else:
            self._say(f"there is no run {'after' if step > 0 else 'before'} this one", "warning")

    def _other_stream(self) -> None:
        self._stream = "stdout" if self._stream == "stderr" else "stderr"
        self._forget_search()
        self.text.open(self._path)
        self.show()

    @on(LogText.Asked)
    def asked(self, event: LogText.Asked) -> None:
        """Do what a key of the text is for."""
        event.stop()
        match event.what:
            case "find":
                self._open_find()
            case "copy":
                self._copy()
            case "stream":
                self._other_stream()
            case "pager":
                self._page()
            case "former run":
                self._other_run(-1)
            case "later run":
                self._other_run(1)

    @on(Gauge.Dragged)
    def dragged(self, event: Gauge.Dragged) -> None:
        """Go where the scrollbar was dragged to."""
        event.stop()
        self.text.ask(lambda viewport: viewport.drag_to(event.share))

    @work(group="copy", exit_on_error=True)
    async def _copy(self) -> None:
        copied = await self.text.reader.get(Viewport.copy)
        if copied is None:
            return
        if not copied.lines:
            self._say("there is nothing to copy", "warning")
            return
        self.app.copy_to_clipboard(copied.text)
        self.text.ask(Viewport.unselect)
        cut = f", the first {COPY_LIMIT // _MIB} MiB: the rest is too much" if copied.cut else ""
        self._say(f"copied {plural(copied.lines, 'line')}{cut}")

    @work(group="pager", exclusive=True, exit_on_error=True)
    async def _page(self) -> None:
        try:
            await page(self.app, self._path)
        except PagerError as error:
            self._say(str(error), "warning")

    # -- finding ---------------------------------------------------------------------------

    def _open_find(self) -> None:
        self._before = self.text.frame
        self.find.open()
        self._tell("")

    def _seek(self, needle: Needle | None, text: str, trouble: str) -> None:
        """Go to the first match of what is typed so far, from where one was."""
        assert self._before is not None
        self._needle, self._sought = needle, text
        self.text.ask(lambda viewport: viewport.seek(needle))
        if needle is None:
            self.text.reader.search(None)
            self._return()
            self._tell(trouble)
        else:
            self._begin(self.SEARCH(needle, self._before.spot, inclusive=True))

    @on(LogText.FindNext)
    def find_next(self, event: LogText.FindNext) -> None:
        """Look for the next match, or the one before; fast presses are taken one by one."""
        event.stop()
        if self._needle is None:
            self._say("nothing to find yet: / asks for it", "warning")
        elif self.text.reader.searching:
            self._steps += 1 if event.forward else -1
        else:
            self._begin(self.SEARCH(self._needle, self.text.frame.spot, forward=event.forward))

    def _begin(self, search: Search) -> None:
        self._search_began = asyncio.get_running_loop().time()
        self._steps = 0
        self.text.reader.search(search)
        self._tell("")

    @on(LogText.Searched)
    def searched(self, event: LogText.Searched) -> None:
        """Tell how far a search is, or what came of it."""
        event.stop()
        search = event.search
        if search.needle is not self._needle:
            return
        if not search.done:
            if asyncio.get_running_loop().time() - self._search_began > _PATIENCE:
                share = search.share(self.text.frame.size)
                back = self.fitted.keymap.shown(BY_NAME["back"])
                self._tell(f"searching {share * 100:.0f} % · {back} gives up")
        elif search.found is None:
            self._tell(f"no match for {self._sought}")
        else:
            around = "from the top on" if search.forward else "from the end on"
            self._tell(f"{self._sought} · {around}" if search.wrapped else "")
            self._step_on(search.needle)

    def _step_on(self, needle: Needle) -> None:
        if self._steps:
            forward, left = self._steps > 0, abs(self._steps) - 1
            self._begin(self.SEARCH(needle, self.text.frame.spot, forward=forward))
            self._steps = left if forward else -left

    def _tell(self, status: str) -> None:
        self._status = clean_text(status)
        self.show()

    def _return(self) -> None:
        """Go back to where one was before one typed what to find."""
        before = self._before
        if before is not None:
            back = Viewport.last if before.follows else None
            self.text.ask(back or (lambda viewport: viewport.go_back(before.whereabouts)))

    def _close_find(self) -> None:
        """Read on where the match is; the search goes on if it is not found yet."""
        self.find.display = False
        self.set_focus(self.text)

    def _forget_search(self) -> None:
        """Show no matches any more."""
        self._needle, self._sought, self._status = None, "", ""
        self.text.reader.search(None)
        self.text.ask(lambda viewport: viewport.seek(None))

    # -- acting ----------------------------------------------------------------------------

    def selection(self) -> Selection:
        """Return the run, and whether there are others before and after it."""
        ids = [run.id for run in self._runs]
        at = ids.index(self._run_id) if self._run_id in ids else None
        return Selection(
            self.PLACE,
            opens=self._task_id,
            held=self._held,
            watching=self._watching,
            run=self.run,
            earlier=at is not None and at + 1 < len(ids),
            later=bool(at),
        )

    def action_back(self) -> None:
        """Give up what is typed, the selection or the search, in this order; else go back."""
        if self.find.editing:
            self._close_find()
            self._forget_search()
            self._return()
            self.show()
        elif self.text.frame.chosen is not None:
            self.text.ask(Viewport.unselect)
        elif self._needle is not None:
            self._forget_search()
            self.show()
        else:
            super().action_back()
