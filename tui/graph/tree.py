"""The graph as a tree: what depends on a task stands indented below it.

A task stands once, below the dep that comes last in the DAG; the line names its other deps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.text import clean_text, cut_middle
from tui import strokes
from tui.graph.labels import natural_width
from tui.graph.scene import Scene, Spot
from tui.widgets.canvas import Patch
from tui.widgets.cells import Tone, cut_end, line_width

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.views import GraphNode
    from tui.graph.boxes import Box, Boxes

_INDENT = 3
_LABELS = 44, 64
"""Cells of a label at most, where there is little room and where there is more."""
_ROOM = 120
"""Columns from which on there is more."""
_NAMED = 2
"""Other deps that are named; more are counted."""
_NAME = 24


class Tree(Scene):
    """The tree. `layer_of` gives the layer of each box."""

    def __init__(
        self,
        boxes: Boxes,
        layer_of: Sequence[int],
        nodes: Mapping[str, GraphNode],
        critical: Sequence[str] = (),
        *,
        columns: int,
    ) -> None:
        self._most = _LABELS[columns >= _ROOM]
        all_boxes = boxes.boxes
        self._parent = [
            max(box.deps, key=lambda i: (layer_of[i], -i), default=None) for box in all_boxes
        ]
        children: list[list[int]] = [[] for _ in all_boxes]
        roots: list[int] = []
        for index, parent in enumerate(self._parent):
            (roots if parent is None else children[parent]).append(index)
        self._children = children
        self._last = [True] * len(all_boxes)
        for row in children:
            for index in row[:-1]:
                self._last[index] = False
        self._depth = [0] * len(all_boxes)
        self._order: list[int] = []
        todo = roots[::-1]
        while todo:
            index = todo.pop()
            self._order.append(index)
            for child in reversed(children[index]):
                self._depth[child] = self._depth[index] + 1
                todo.append(child)
        self._line_of = {index: y for y, index in enumerate(self._order)}
        self.height = len(self._order)
        self.width = 0
        super().__init__(boxes, nodes, critical)
        for index, box in enumerate(all_boxes):
            natural = min(natural_width(box), self._most)
            self.width = max(self.width, self._x(index) + natural + 2)

    def _x(self, index: int) -> int:
        return self._depth[index] * _INDENT

    def _also(self, index: int, box: Box) -> str:
        """Return the words about deps that the tree does not show as the parent."""
        others = [i for i in box.deps if i != self._parent[index]]
        names = [
            cut_middle(clean_text(self.boxes.boxes[i].key), _NAME)
            if not self.boxes.boxes[i].folded
            else f"{len(self.boxes.boxes[i].members):,} tasks"
            for i in others[:_NAMED]
        ]
        if len(others) > _NAMED:
            names.append(f"{len(others) - _NAMED:,} more")
        also = f"  also under {', '.join(names)}" if names else ""
        return also + (f"  {box.missing:,} not shown" if box.missing else "")

    # -- painting --------------------------------------------------------------------------

    def line(self, y: int, left: int, right: int) -> tuple[int, list[Patch]]:
        """Paint a line as far as column `right`."""
        if not 0 <= y < self.height:
            return left, []
        index = self._order[y]
        box = self.boxes.boxes[index]
        here, bold = box.key == self.cursor, box.key in self.critical
        under = "row-cursor" if here else ""
        cells = self._label(box, self._most)
        patches = [Patch(self._guides(index), Tone.OFF)]
        patches.append(Patch(strokes.CURSOR if here else " ", Tone.BOLD, under))
        patches += [Patch(text, tone, under, bold) for text, tone in cells]
        room = right - self._x(index) - 2 - line_width(cells)
        patches.append(Patch(cut_end(self._also(index, box) + " ", room), Tone.DIM, under))
        return 0, patches

    def _guides(self, index: int) -> str:
        parts: list[str] = []
        at: int | None = index
        while at is not None and (parent := self._parent[at]) is not None:
            if at == index:
                parts.append(f" {strokes.LAST_BRANCH if self._last[at] else strokes.BRANCH}─")
            else:
                parts.append("   " if self._last[at] else f" {strokes.TRUNK} ")
            at = parent
        return "".join(reversed(parts))

    # -- places ----------------------------------------------------------------------------

    def spot(self, key: str) -> Spot | None:
        """Return where a box is."""
        index = (self.boxes.at or {}).get(key)
        if index is None:
            return None
        width = 2 + line_width(self._label(self.boxes.boxes[index], self._most))
        return Spot(self._x(index), self._line_of[index], width)

    def at(self, x: int, y: int) -> str | None:  # noqa: ARG002 - the whole line is the box's
        """Return the key of the box on a line, None below the last."""
        return self.boxes.boxes[self._order[y]].key if 0 <= y < self.height else None

    def down(self, key: str, boxes: int) -> str:
        """Return the box so many lines below, or above."""
        y = self._line_of[(self.boxes.at or {})[key]]
        return self._key(max(0, min(y + boxes, self.height - 1)))

    def across(self, key: str, step: int, *, look: bool = False) -> str:  # noqa: ARG002 - there is one way only
        """Return the first box below this one (1), or the one above it (-1); else itself."""
        index = (self.boxes.at or {})[key]
        box = self.boxes.boxes[index]
        if step < 0:
            parent = self._parent[index]
            return key if parent is None else self.boxes.boxes[parent].key
        others = self._children[index] or box.dependents
        return self.boxes.boxes[others[0]].key if others else key

    def end(self, *, last: bool) -> str | None:
        """Return the first line's box, or the last one's."""
        return self._key(-1 if last else 0) if self._order else None

    def near(self, x: int, y: int, left: int, right: int) -> str | None:  # noqa: ARG002 - as in `at`
        """Return the box of the line nearest to a place."""
        return self._key(max(0, min(y, self.height - 1))) if self._order else None

    def _key(self, y: int) -> str:
        return self.boxes.boxes[self._order[y]].key
