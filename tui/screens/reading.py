"""A text that grows, on a screen of its own: moved in, searched, copied, opened in a pager.

What is read, and what there is to say about it, subclasses decide; the text is the business of
`LogText` and of its reader.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.containers import Horizontal

from engine.growing import Standing
from engine.text import clean_text, plural
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
from tui.styled import STYLES
from tui.widgets.bars import Bar
from tui.widgets.gauge import Gauge

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from textual.app import ComposeResult

    from tui.logs.search import Needle
    from tui.logs.viewport import Frame
    from tui.ports import Engine
    from tui.widgets.bars import Piece

_POLL = 0.25
"""Seconds between two looks at a file that somebody writes to."""
_PATIENCE = 0.3
"""Seconds after which a search says how far it is."""
_MIB = 1024 * 1024


class ReadingScreen(PanedScreen):
    """The text of one file."""

    TITLED = "Log"
    TEXT: ClassVar[type[LogText]] = LogText
    SEARCH: ClassVar[type[Search]] = Search

    CSS_PATH: ClassVar[list[str | os.PathLike[str]]] = [  # type: ignore[assignment]  # Textual types the one, takes the other
        STYLES / "log.tcss",
        STYLES / "find.tcss",
    ]

    def __init__(self, engine: Engine, path: Path, *, watching: bool) -> None:
        super().__init__()
        self._engine = engine
        self._path = path
        self._watching = watching
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
        self.text = self.TEXT(path, id="log-text")
        self.gauge = Gauge(id="log-gauge")
        self.find = FindLine(self._seek, self._close_find, id="find-line")
        self._pane = Pane(
            1, self.TITLED, Horizontal(self.text, self.gauge, id="log-body"), self.find, id="log"
        )

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
        """The text."""
        return (self._pane,)

    # -- what subclasses say ---------------------------------------------------------------

    @property
    @abstractmethod
    def _live(self) -> bool:
        """Whether somebody may be writing to the file."""

    @abstractmethod
    def _head_pieces(self, frame: Frame) -> list[Piece]:
        """Return the head line."""

    @abstractmethod
    def _nothing_yet(self, standing: Standing) -> str:
        """Return what would fill the screen, or why nothing will."""

    def do(self, what: str) -> None:
        """Do what a key of the text asks for that not every text knows."""

    # -- refreshing ------------------------------------------------------------------------

    def _poll(self) -> None:
        if self._live and self.is_current:
            self.text.ask(Viewport.refresh)

    def tick(self) -> None:
        """Look at a file that nobody writes to, too: somebody may have removed it."""
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

    def _nothing_to_read(self, frame: Frame) -> tuple[str, str]:
        """Return what would fill the screen, and what is wrong if something is."""
        if frame.standing is Standing.REFUSED:
            return "", frame.trouble
        if not self._read:
            return "reading …", self._trouble
        return self._nothing_yet(frame.standing), ""

    def open(self, path: Path) -> None:
        """Show another file."""
        self._path = path
        self._forget_search()
        self.text.open(path)
        self.show()

    def _say(self, text: str, severity: str = "information") -> None:
        level = severity if severity in {"warning", "error"} else "information"
        self.notify(clean_text(text), severity=level, markup=False)  # type: ignore[arg-type]  # one of its literals

    @on(LogText.Asked)
    def asked(self, event: LogText.Asked) -> None:
        """Do what a key of the text is for."""
        event.stop()
        match event.what:
            case "find":
                self._open_find()
            case "copy":
                self._copy()
            case "pager":
                self._page()
            case what:
                self.do(what)

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

    # -- leaving ---------------------------------------------------------------------------

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
