"""A text to read: lines that are laid out for the width at hand, scrolled, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView

from tui.actions.table import motions
from tui.widgets.cells import Line, Painter

if TYPE_CHECKING:
    from textual.binding import BindingType
    from textual.strip import Strip

Layout = Callable[[int], Sequence[Line]]
"""Lays a text out in lines of a width in cells."""


class Document(ScrollView, Painter, can_focus=True):
    """A scrolled text. With `follows` it stays at its end until somebody scrolls up."""

    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [*motions()]

    class Seen(Message):
        """Another part of the text is seen, or of another one."""

    def __init__(self, *, follows: bool = False, id: str | None = None) -> None:  # noqa: A002 - Textual's own name for it
        super().__init__(id=id)
        self._follows = follows
        self._at_end = follows
        self._layout: Layout = _nothing
        self._lines: tuple[Line, ...] = ()
        self._hidden = (0, 0)

    @property
    def lines(self) -> tuple[Line, ...]:
        """The text as it is laid out now."""
        return self._lines

    @property
    def hidden(self) -> tuple[int, int]:
        """How many lines there are above those that one sees, and how many below."""
        above = min(self.scroll_offset.y, len(self._lines))
        return above, max(0, len(self._lines) - above - self.size.height)

    def _look_what_is_seen(self) -> None:
        if self.hidden != self._hidden:
            self._hidden = self.hidden
            self.post_message(self.Seen())

    def show(self, layout: Layout) -> None:
        """Show this text from now on; where one has scrolled to stays."""
        self._layout = layout
        self._lay_out()

    def _lay_out(self) -> None:
        width = self.scrollable_content_region.width
        if not width:
            return
        before = self._lines
        self._lines = tuple(self._layout(width))
        self._look_what_is_seen()
        size = Size(0, len(self._lines))
        if size != self.virtual_size:
            self.virtual_size = size
            self.call_after_refresh(self.sync_scrollbar)
        if self._at_end:
            self.scroll_to(y=len(self._lines), animate=False, force=True)
        if len(before) != len(self._lines):
            self.refresh()
            return
        for y, (old, new) in enumerate(zip(before, self._lines, strict=True)):
            if old != new:
                self.refresh_line(y)

    def on_resize(self) -> None:
        """Lay out anew."""
        self._lay_out()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Follow the end only while one is there."""
        super().watch_scroll_y(old_value, new_value)
        self._look_what_is_seen()
        self._at_end = self._follows and round(new_value) >= self.max_scroll_y

    def render_line(self, y: int) -> Strip:
        """Paint one line of what is on screen."""
        index = self.scroll_offset.y + y
        line = self._lines[index] if index < len(self._lines) else ()
        return self.strip(line, self.size.width)

    def action_move(self, rows: int) -> None:
        """Scroll by so many lines."""
        self.scroll_to(y=self.scroll_offset.y + rows, animate=False, force=True)

    def action_page(self, pages: int) -> None:
        """Scroll by so many screenfuls."""
        self.action_move(pages * max(1, self.size.height - 1))

    def action_first(self) -> None:
        """Go to the first line."""
        self.scroll_to(y=0, animate=False, force=True)

    def action_last(self) -> None:
        """Go to the last line."""
        self.scroll_to(y=len(self._lines), animate=False, force=True)


def _nothing(_width: int) -> Sequence[Line]:
    return ()
