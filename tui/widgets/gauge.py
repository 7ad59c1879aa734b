"""A scrollbar for what has no known number of rows: it shows which share of a whole is in sight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.message import Message

from tui.widgets.cells import Painter, Tone

if TYPE_CHECKING:
    from textual import events
    from textual.strip import Strip


def thumb(height: int, begin: float, end: float) -> range:
    """Return the cells of a bar that stand for `begin` to `end` of a whole: at least one.

    At the very top and bottom only if there is nothing more above, or below.
    """
    if height <= 0 or (begin <= 0 and end >= 1):
        return range(0)
    size = max(1, min(height - 1, round((end - begin) * height)))
    room = height - size
    hidden = begin + (1 - end)
    at = round(room * begin / hidden) if hidden > 0 else room
    if begin > 0:
        at = max(1, at) if room > 1 or end >= 1 else at
    if end < 1:
        at = min(room - 1, at) if room > 1 or begin <= 0 else at
    return range(max(0, at), max(0, at) + size)


class Gauge(Painter):
    """The scrollbar. It follows the mouse, and says where it was dragged to."""

    class Dragged(Message):
        """Somebody wants to see what begins at `share` of the whole, 0 to 1."""

        def __init__(self, share: float) -> None:
            super().__init__()
            self.share = share

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name for it
        super().__init__(id=id)
        self._begin, self._end = 0.0, 1.0
        self._thumb = range(0)
        self._grip: int | None = None

    def put(self, begin: float, end: float) -> None:
        """Show that `begin` to `end` of the whole is in sight."""
        self._begin, self._end = begin, end
        where = thumb(self.size.height, begin, end)
        if where != self._thumb:
            self._thumb = where
            self.refresh()

    def on_resize(self) -> None:
        """Lay out anew."""
        self.put(self._begin, self._end)

    def render_line(self, y: int) -> Strip:
        """Paint one cell."""
        tone = Tone.DIM if self._grip is not None else Tone.RULE
        return self.strip((("█", tone),) if y in self._thumb else (), self.size.width)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Take the thumb; beside it, bring it here first."""
        event.stop()
        if not self._thumb:
            return
        self._grip = event.y - self._thumb.start if event.y in self._thumb else 0
        self.capture_mouse()
        self.refresh()
        if event.y not in self._thumb:
            self._drag(event.y)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Drag the thumb along."""
        if self._grip is not None:
            event.stop()
            self._drag(event.y)

    def on_mouse_up(self, event: events.MouseUp) -> None:
        """Let go."""
        event.stop()
        self._grip = None
        self.release_mouse()
        self.refresh()

    def _drag(self, y: int) -> None:
        room = max(1, self.size.height - len(self._thumb))
        share = max(0.0, min(1.0, (y - (self._grip or 0)) / room))
        self.post_message(self.Dragged(share))
