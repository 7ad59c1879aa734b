"""The text of a log: paints the frames that a `Reader` gives it, and asks for others.

Nothing here touches a file, and nothing waits for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip

from engine.text import clean_text
from tui.actions.model import Place
from tui.actions.table import motions
from tui.logs.file import LogFile
from tui.logs.reader import Job, Reader
from tui.logs.rows import Row
from tui.logs.viewport import Frame, Viewport
from tui.widgets.cells import Painter, Tone, cut_end

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from textual import events
    from textual.binding import BindingType

    from tui.logs.search import Search

_WHEEL = 3
_CURSOR, _CHOSEN, _CONTINUED = "▌", "┃", "…"
_LEFT, _RIGHT = "‹", "›"  # noqa: RUF001 - they point to what is out of sight
_MATCH = Style(bold=True, underline=True)
_CURRENT = Style(bold=True, reverse=True)


class LogText(Painter, can_focus=True):
    """A log, a screenful of it at a time. Keys and the mouse move in it."""

    BINDINGS: ClassVar[list[BindingType]] = [*motions(Place.LOG)]

    class Shown(Message):
        """There is something else to be seen: see `frame`."""

    class Searched(Message):
        """A search went on, or is over."""

        def __init__(self, search: Search) -> None:
            super().__init__()
            self.search = search

    class Asked(Message):
        """A key was pressed that is for the screen to act on: `find`, `copy` and so on."""

        def __init__(self, what: str) -> None:
            super().__init__()
            self.what = what

    class FindNext(Message):
        """The next match is wanted, or the one before."""

        def __init__(self, *, forward: bool) -> None:
            super().__init__()
            self.forward = forward

    def __init__(self, path: Path, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name for it
        super().__init__(id=id)
        self.frame = Frame()
        self.given = False
        """Whether the file was looked at."""
        self.hint = ""
        """What is said while there is nothing to read."""
        self.trouble = ""
        """Why there is nothing to read, if something is wrong with it."""
        self.failure = ""
        """Why what is asked for cannot be shown."""
        self._lines: dict[int, tuple[Row | str | None, str]] = {}
        self._dragging = False
        self._viewport = self._made(path)
        self.reader = Reader(self._viewport, show=self._show, tell=self._tell, fail=self._fail)

    @staticmethod
    def _made(path: Path) -> Viewport:
        return Viewport(LogFile(path))

    def on_mount(self) -> None:
        """Begin to read."""
        self.reader.start()
        self.ask(Viewport.refresh)

    async def on_unmount(self) -> None:
        """Close the file."""
        await self.reader.stop()

    # -- what owners use -------------------------------------------------------------------

    def ask(self, job: Job) -> None:
        """Have the reader do this, and show what comes of it."""
        self.reader.ask(job)

    def say(self, hint: str, trouble: str = "") -> None:
        """Say this where there is nothing to read."""
        if (hint, trouble) != (self.hint, self.trouble):
            self.hint, self.trouble = hint, trouble
            self._repaint()

    def open(self, path: Path) -> None:
        """Show another file."""
        self.failure = ""
        self.reader.search(None)
        self.ask(lambda viewport: viewport.open(path))

    def _show(self, frame: Frame) -> None:
        self.given = True
        self.failure = ""
        self.frame = frame
        self._repaint()
        self.post_message(self.Shown())

    def _tell(self, search: Search) -> None:
        self.post_message(self.Searched(search))

    def _fail(self, error: Exception) -> None:
        self.failure = clean_text(f"this log cannot be shown: {type(error).__name__}: {error}")
        self._repaint()
        self.post_message(self.Shown())

    # -- painting --------------------------------------------------------------------------

    def _repaint(self) -> None:
        if not self.is_attached:
            return
        for y in range(self.size.height):
            look = self._look(y)
            if self._lines.get(y) != look:
                self._lines[y] = look
                self.refresh(Region(0, y, self.size.width, 1))

    def _look(self, y: int) -> tuple[Row | str | None, str]:
        frame = self.frame
        wrong = self.failure or self.trouble
        if wrong or not frame.rows:
            middle = y == max(0, (self.size.height - 1) // 2)
            text = wrong or (self.hint if self.given else "reading …")
            return (text if middle else None), ""
        if y >= len(frame.rows):
            return None, ""
        row = frame.rows[y]
        if row.start == frame.cursor:
            return row, "row-cursor" if self.has_focus else "row-cursor-faint"
        return row, "row-cursor-faint" if self._is_chosen(row) else ""

    def _is_chosen(self, row: Row) -> bool:
        chosen = self.frame.chosen
        return chosen is not None and chosen[0] <= row.start <= chosen[1]

    def render_line(self, y: int) -> Strip:
        """Paint one row."""
        what, under = self._lines.get(y) or self._look(y)
        width = self.size.width
        if isinstance(what, Row):
            strip = Strip(list(self._segments(what, under)))
            return strip.adjust_cell_length(width, self.tone(Tone.TEXT, under))
        if what is None:
            return self.strip((), width)
        text = cut_end(what, width - 2)
        room = " " * max(0, (width - cell_len(text)) // 2)
        tone = Tone.FAILED if self.failure or self.trouble else Tone.DIM
        return self.strip(((room, tone), (text, tone)), width)

    def _segments(self, row: Row, under: str) -> Iterator[Segment]:
        dim = self.tone(Tone.DIM, under)
        if under == "row-cursor" or self._is_chosen(row):
            mark = _CURSOR if under == "row-cursor" else _CHOSEN
            yield Segment(mark, self.tone(Tone.BOLD, under))
        else:
            mark = _LEFT if row.left else _CONTINUED if row.continued and not row.head else " "
            yield Segment(mark, dim)
        yield from self._row_segments(row, under)
        if row.right:
            # The last cell is free for it: see `on_resize`.
            yield Segment(_RIGHT, dim)

    def _row_segments(self, row: Row, under: str) -> Iterator[Segment]:
        if row.head:
            yield Segment(row.head, self.tone(Tone.DIM, under))
        yield from self._text_segments(row, self.tone(Tone.TEXT, under))

    @staticmethod
    def _text_segments(row: Row, plain: Style) -> Iterator[Segment]:
        at = 0
        for begin, end, now in row.marks:
            begin = max(at, begin)  # noqa: PLW2901 - matches may overlap where one begins anew
            if begin >= end:
                continue
            yield Segment(row.text[at:begin], plain)
            yield Segment(row.text[begin:end], plain + (_CURRENT if now else _MATCH))
            at = end
        yield Segment(row.text[at:], plain)

    def on_resize(self) -> None:
        """Lay out anew; a cell at the right stays free."""
        self._lines.clear()
        width, height = self.size.width - 1, self.size.height
        self.ask(lambda viewport: viewport.resize(width, height))

    def watch_has_focus(self, has_focus: bool) -> None:
        """Show the cursor as the one that keys act on, or as resting."""
        super().watch_has_focus(has_focus)
        self._repaint()

    def notify_style_update(self) -> None:
        """Forget what was painted in the old colours."""
        super().notify_style_update()
        self._lines.clear()

    # -- keys ------------------------------------------------------------------------------

    def action_move(self, rows: int) -> None:
        """Go so many lines down or up."""
        self.ask(lambda viewport: viewport.move(rows))

    def action_page(self, pages: int) -> None:
        """Go so many screenfuls down or up."""
        self.ask(lambda viewport: viewport.page(pages))

    def action_first(self) -> None:
        """Go to the first line."""
        self.ask(Viewport.first)

    def action_last(self) -> None:
        """Go to the end, and stay there."""
        self.ask(Viewport.last)

    def action_shift(self, steps: int) -> None:
        """Scroll sideways, where lines are not wrapped."""
        self.ask(lambda viewport: viewport.shift(steps))

    def action_follow(self) -> None:
        """Stay at the end of a growing log, or stay here."""
        self.ask(Viewport.follow)

    def action_wrap(self) -> None:
        """Break long lines, or let them run out of sight."""
        self.ask(Viewport.wrap)

    def action_numbers(self) -> None:
        """Number the lines, or not."""
        self.ask(Viewport.number)

    def action_select(self) -> None:
        """Begin a selection, or end it."""
        self.ask(Viewport.select)

    def action_find_next(self, step: int) -> None:
        """Go to the next match, or the one before."""
        self.post_message(self.FindNext(forward=step > 0))

    def action_find(self) -> None:
        """Open the line for what to find."""
        self.post_message(self.Asked("find"))

    def action_copy(self) -> None:
        """Copy the selection, or the line."""
        self.post_message(self.Asked("copy"))

    def action_stream(self) -> None:
        """Show the other one of the two output files."""
        self.post_message(self.Asked("stream"))

    def action_pager(self) -> None:
        """Open the file in the user's pager."""
        self.post_message(self.Asked("pager"))

    def action_other_run(self, step: int) -> None:
        """Show the former run's log, or the next one's."""
        self.post_message(self.Asked("former run" if step < 0 else "later run"))

    # -- the mouse -------------------------------------------------------------------------

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Go to the line; whoever drags from here selects."""
        if event.button == 1:
            self._dragging = True
            self.capture_mouse()
            y = event.y
            self.ask(lambda viewport: viewport.press(y))

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Select up to the line under the mouse."""
        if self._dragging:
            y = event.y
            self.ask(lambda viewport: viewport.drag(y))

    def on_mouse_up(self) -> None:
        """Leave the selection as it is."""
        self._dragging = False
        self.release_mouse()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Scroll down."""
        event.stop()
        self.ask(lambda viewport: viewport.wheel(_WHEEL))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Scroll up."""
        event.stop()
        self.ask(lambda viewport: viewport.wheel(-_WHEEL))
