"""A plane that is painted line by line, larger than the screen in both directions.

Subclasses say what each line of the screen looks like and what the keys do. The canvas paints
only lines that changed, scrolls by wheel and by dragging, and tells a click from a drag.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from tui.widgets.cells import Painter, Tone, cut_end

if TYPE_CHECKING:
    from textual import events

_STRIPS = 512
"""Painted lines that are kept."""
_WHEEL = 3
"""Lines that one notch of the wheel scrolls; twice as many columns."""


class Patch(NamedTuple):
    """A bit of a line: clean text, its tone, the theme variable of its ground ("": the widget's).

    With `inverted` the tone is the ground and the ground is the text.
    """

    text: str
    tone: Tone
    under: str = ""
    bold: bool = False
    inverted: bool = False


Row = tuple[int, tuple[Patch, ...]]
"""A line: the column of the plane at which it begins, and its patches."""


class Canvas(ScrollView, Painter, can_focus=True):
    """The plane. Subclasses give `row_at`, `EMPTY`, and what a click at a place means."""

    EMPTY = "nothing here"
    """What would fill the canvas; shown while `blank`."""

    class Moved(Message):
        """The cursor is on something else."""

    class Opened(Message):
        """Something was double-clicked."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name for it
        super().__init__(id=id)
        self._rows: dict[int, Row] = {}
        self._strips: dict[tuple[Row, int], Strip] = {}
        self._held: tuple[int, int] | None = None
        self._dragged = False
        self.given = False
        """Whether there was ever something to show."""
        self.trouble = ""
        """Why there is nothing to show; empty if there is."""
        self.empty = self.EMPTY

    # -- what subclasses say ---------------------------------------------------------------

    @property
    def blank(self) -> bool:
        """Whether there is nothing to paint."""
        raise NotImplementedError

    def row_at(self, y: int) -> Row:
        """Return a line of the screen, from the scrolled column on at least."""
        raise NotImplementedError

    def clicked(self, x: int, y: int) -> bool:
        """Put the cursor on what is at this place of the screen; say whether there is anything."""
        raise NotImplementedError

    def dragged(self, columns: int, lines: int) -> None:
        """Scroll by so much: the plane goes with the mouse."""
        self.scroll_by(-columns, -lines)

    # -- what owners use -------------------------------------------------------------------

    def span(self, width: int, height: int) -> None:
        """Say how large the plane is."""
        size = Size(width, height)
        if size != self.virtual_size:
            self.virtual_size = size
            self.call_after_refresh(self._sync)

    def _sync(self) -> None:
        self.sync_scrollbar()
        if self.show_horizontal_scrollbar:
            self.horizontal_scrollbar.position = self.scroll_x

    def scroll_by(self, columns: int, lines: int) -> None:
        """Scroll at once."""
        x, y = self.scroll_offset
        self.scroll_to(x + columns, y + lines, animate=False, force=True)

    def reveal(self, x: int, y: int, width: int) -> None:
        """Scroll as little as shows `width` columns from `x` on of line `y`, the left end first."""
        left, top = self.scroll_offset
        room, height = self.scrollable_content_region.size
        if x + width > left + room:
            left = x + width - room
        left = min(left, x)
        top = max(min(top, y), y - max(1, height) + 1)
        self.scroll_to(max(0, left), max(0, top), animate=False, force=True)

    def repaint(self) -> None:
        """Paint the lines on screen that no longer look as they should."""
        if not self.is_attached or not self.size:
            return
        for y in range(self.size.height):
            row = self._look(y)
            if self._rows.get(y) != row:
                self._rows[y] = row
                self.refresh(Region(0, y, self.size.width, 1))

    # -- painting --------------------------------------------------------------------------

    def _look(self, y: int) -> Row:
        if not self.blank and not self.trouble:
            return self.row_at(y)
        if y != max(0, (self.size.height - 1) // 2):
            return 0, ()
        words = self.trouble or (self.empty if self.given else "reading …")
        text = cut_end(words, self.size.width - 2)
        room = " " * max(0, (self.size.width - cell_len(text)) // 2)
        return self.scroll_offset.x, (
            Patch(room, Tone.DIM),
            Patch(text, Tone.FAILED if self.trouble else Tone.DIM),
        )

    def render_line(self, y: int) -> Strip:
        """Paint one line of what is on screen."""
        row = self._rows.get(y)
        if row is None:
            row = self._rows[y] = self._look(y)
        key = row, self.scroll_offset.x
        strip = self._strips.get(key)
        if strip is None:
            if len(self._strips) >= _STRIPS:
                self._strips.clear()
            strip = self._strips[key] = self._painted(row)
        return strip

    def _painted(self, row: Row) -> Strip:
        begins, patches = row
        skipped = self.scroll_offset.x - begins
        whole = Strip([Segment(p.text, self._style(p)) for p in patches if p.text])
        width = self.size.width
        whole = whole.adjust_cell_length(max(skipped + width, 0), self.tone(Tone.TEXT))
        return whole.crop(max(0, skipped), max(0, skipped) + width)

    def _style(self, patch: Patch) -> Style:
        style = self.tone(patch.tone, patch.under)
        if patch.bold or patch.inverted:
            style += Style(bold=patch.bold or None, reverse=patch.inverted or None)
        return style

    def notify_style_update(self) -> None:
        """Forget what was painted in the old colours."""
        super().notify_style_update()
        self._strips.clear()

    def on_resize(self) -> None:
        """Lay out anew."""
        self._rows.clear()
        self._strips.clear()
        self.repaint()

    def on_focus(self) -> None:
        """Show the cursor as the one that keys act on."""
        self.repaint()
        self.post_message(self.Moved())

    def watch_scroll_x(self, old_value: float, new_value: float) -> None:
        """Paint what came into view."""
        super().watch_scroll_x(old_value, new_value)
        self._rows.clear()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Paint what came into view."""
        super().watch_scroll_y(old_value, new_value)
        self._rows.clear()

    # -- the mouse -------------------------------------------------------------------------

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Begin a click, or a drag."""
        self._held = event.screen_x, event.screen_y
        self._dragged = False
        self.capture_mouse()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Take the plane along while the button is held."""
        if self._held is None:
            return
        columns, lines = event.screen_x - self._held[0], event.screen_y - self._held[1]
        if columns or lines:
            self._held = event.screen_x, event.screen_y
            self._dragged = True
            self.dragged(columns, lines)

    def on_mouse_up(self) -> None:
        """End a click, or a drag."""
        self._held = None
        self.release_mouse()

    def on_click(self, event: events.Click) -> None:
        """Choose what is there; a double click opens it. The end of a drag is no click."""
        if self._dragged or self.blank or self.trouble:
            return
        if self.clicked(event.x, event.y) and event.chain == 2:
            self.post_message(self.Opened())

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Scroll down; with shift or ctrl, to the right."""
        self._wheel(event, 1, sideways=event.shift or event.ctrl)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Scroll up; with shift or ctrl, to the left."""
        self._wheel(event, -1, sideways=event.shift or event.ctrl)

    def on_mouse_scroll_right(self, event: events.MouseScrollRight) -> None:
        """Scroll to the right."""
        self._wheel(event, 1, sideways=True)

    def on_mouse_scroll_left(self, event: events.MouseScrollLeft) -> None:
        """Scroll to the left."""
        self._wheel(event, -1, sideways=True)

    def _wheel(self, event: events.MouseEvent, way: int, *, sideways: bool) -> None:
        event.stop()
        event.prevent_default()
        self.dragged(-2 * _WHEEL * way if sideways else 0, 0 if sideways else -_WHEEL * way)
