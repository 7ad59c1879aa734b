"""The canvas of the graph: a scene, the cursor on one of its boxes, and the keys that move it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.message import Message

from tui.actions.model import Place
from tui.actions.table import motions
from tui.widgets.canvas import Canvas, Row

if TYPE_CHECKING:
    from textual.binding import BindingType

    from tui.graph.boxes import Box
    from tui.graph.scene import Scene


class GraphCanvas(Canvas):
    """Shows a scene. The cursor is on a task: it stays there when boxes are folded or move."""

    BINDINGS: ClassVar[list[BindingType]] = [*motions(Place.GRAPH)]
    EMPTY = "no tasks yet: S reads a DAG file"

    class Folded(Message):
        """Somebody wants the fan under the cursor folded, or unfolded."""

    class Find(Message):
        """Somebody wants to type what to find."""

    class FindNext(Message):
        """Somebody wants the next match (1), or the former one (-1)."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    class Turned(Message):
        """Somebody wants the graph as a tree, or as a graph again."""

    def __init__(self) -> None:
        super().__init__(id="graph-canvas")
        self.scene: Scene | None = None
        self.chosen: str | None = None
        """The id of the task that the cursor is on."""

    @property
    def blank(self) -> bool:
        """Whether there is no box at all."""
        return self.scene is None or not self.scene.height

    @property
    def box(self) -> Box | None:
        """The box under the cursor."""
        if self.scene is None or self.chosen is None:
            return None
        return self.scene.boxes.find(self.chosen)

    def put(self, scene: Scene, start: str | None) -> None:
        """Show another scene; the cursor stays on its task, or near it if that is gone.

        `start` is where the cursor goes if it is nowhere yet.
        """
        before = self.scene.spot(key) if (key := self._key()) and self.scene else None
        fresh = self.chosen is None
        self.scene, self.given = scene, True
        if self.chosen is None or scene.boxes.find(self.chosen) is None:
            gone = None if before is None else scene.near(*before[:2], 0, scene.width)
            self.chosen = gone or start or scene.end(last=False)
        scene.point(self._key())
        self._rows.clear()
        self.span(scene.width, scene.height)
        spot = scene.spot(self._key() or "")
        if spot is not None and (fresh or before is None or before != spot):
            self.call_after_refresh(self._reveal)
        self.refresh()

    def _key(self) -> str | None:
        box = self.box
        return box.key if box is not None else None

    def _reveal(self) -> None:
        key = self._key()
        spot = self.scene.spot(key) if self.scene is not None and key is not None else None
        if spot is not None:
            self.reveal(*spot)

    def row_at(self, y: int) -> Row:
        """Return a line of the screen."""
        assert self.scene is not None
        x, top = self.scroll_offset
        begins, patches = self.scene.line(top + y, x, x + self.size.width)
        return begins, tuple(patches)

    # -- moving ----------------------------------------------------------------------------

    def choose(self, task_id: str) -> None:
        """Put the cursor on a task."""
        self.chosen = task_id
        if self.scene is not None:
            self.scene.point(self._key())
        self._reveal()
        self.repaint()
        self.post_message(self.Moved())

    def action_move(self, boxes: int) -> None:
        """Move the cursor down so many boxes, or up."""
        if self.scene is not None and (key := self._key()):
            self.choose(self.scene.down(key, boxes))

    def action_page(self, pages: int) -> None:
        """Move the cursor by so many screenfuls."""
        if self.scene is None or (key := self._key()) is None:
            return
        spot = self.scene.spot(key)
        if spot is not None:
            lines = max(1, self.size.height - 1)
            found = self.scene.near(spot.x, spot.y + pages * lines, spot.x, spot.x + 1)
            self.choose(found or key)

    def action_shift(self, step: int) -> None:
        """Move the cursor along an edge: to a dependent (1), or to a dep (-1)."""
        if self.scene is not None and (key := self._key()):
            self.choose(self.scene.across(key, step))

    def action_first(self) -> None:
        """Go to the first box."""
        self._to_end(last=False)

    def action_last(self) -> None:
        """Go to the last box."""
        self._to_end(last=True)

    def _to_end(self, *, last: bool) -> None:
        key = self.scene.end(last=last) if self.scene is not None else None
        if key is not None:
            self.choose(key)

    def action_fold(self) -> None:
        """Ask for the fan under the cursor to be folded or unfolded."""
        self.post_message(self.Folded())

    def action_find(self) -> None:
        """Ask for the line in which one types what to find."""
        self.post_message(self.Find())

    def action_find_next(self, step: int) -> None:
        """Ask for the next match (1), or the former one (-1)."""
        self.post_message(self.FindNext(step))

    def action_tree(self) -> None:
        """Ask for the other way to show it."""
        self.post_message(self.Turned())

    # -- the mouse -------------------------------------------------------------------------

    def clicked(self, x: int, y: int) -> bool:
        """Put the cursor on the box that is at this place of the screen."""
        left, top = self.scroll_offset
        key = self.scene.at(left + x, top + y) if self.scene is not None else None
        if key is not None:
            self.choose(key)
        return key is not None

    def dragged(self, columns: int, lines: int) -> None:
        """Scroll, with the cursor staying in view: keys never act on a box one cannot see."""
        super().dragged(columns, lines)
        key = self._key()
        spot = self.scene.spot(key) if self.scene is not None and key is not None else None
        if self.scene is None or spot is None:
            return
        left, top = self.scroll_offset
        right, bottom = left + self.size.width, top + self.size.height
        if top <= spot.y < bottom and spot.x < right and left < spot.x + spot.width:
            return
        y = max(top, min(spot.y, bottom - 1))
        found = self.scene.near(spot.x, y, left, right)
        other = self.scene.spot(found) if found is not None else None
        if found is not None and other is not None and top <= other.y < bottom:
            self.chosen = found
            self.scene.point(found)
            self.repaint()
            self.post_message(self.Moved())
