"""What the graph and the tree have in common: boxes on a plane, with a cursor on one of them.

A scene paints any line of any part of the plane, and says where its boxes are and which of them
are next to one. It holds the states of the tasks, which change; where things are does not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

from tui.graph.labels import label

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.views import GraphNode
    from tui.graph.boxes import Box, Boxes
    from tui.widgets.canvas import Patch
    from tui.widgets.cells import Line


class Spot(NamedTuple):
    """Where a box is: `width` cells from column `x` on, on line `y`."""

    x: int
    y: int
    width: int


class Scene(ABC):
    """A picture of boxes. Columns and lines count from 0 at the top left."""

    width: int
    height: int

    def __init__(
        self, boxes: Boxes, nodes: Mapping[str, GraphNode], critical: Sequence[str]
    ) -> None:
        self.boxes = boxes
        self.cursor: str | None = None
        self._nodes = nodes
        self._labels: dict[tuple[str, int], Line] = {}
        self.path: tuple[str, ...] = ()
        self.critical: frozenset[str] = frozenset()
        self.mark(critical)

    def recolour(self, nodes: Mapping[str, GraphNode]) -> None:
        """Take new states of the same tasks."""
        self._nodes = nodes
        self._labels.clear()

    def mark(self, critical: Sequence[str]) -> None:
        """Say which boxes are on the critical path: `critical` are its tasks in order."""
        found = [box.key for task in critical if (box := self.boxes.find(task)) is not None]
        self.path = tuple(dict.fromkeys(found))
        self.critical = frozenset(found)

    def point(self, key: str | None) -> None:
        """Put the cursor on a box, or on none."""
        self.cursor = key

    def _label(self, box: Box, width: int) -> Line:
        found = self._labels.get((box.key, width))
        if found is None:
            if len(self._labels) > 4096:
                self._labels.clear()
            found = self._labels[box.key, width] = label(box, self._nodes, width)
        return found

    @abstractmethod
    def line(self, y: int, left: int, right: int) -> tuple[int, list[Patch]]:
        """Paint a line from column `left` to `right` at least; say at which column it begins."""

    @abstractmethod
    def spot(self, key: str) -> Spot | None:
        """Return where a box is."""

    @abstractmethod
    def at(self, x: int, y: int) -> str | None:
        """Return the key of the box at a place, None if none is there."""

    @abstractmethod
    def down(self, key: str, boxes: int) -> str:
        """Return the box so many below, or above; the last one there is if they are fewer."""

    @abstractmethod
    def across(self, key: str, step: int, *, look: bool = False) -> str:
        """Return a box that depends on this one (1), or that it depends on (-1); else itself.

        With `look` it is only asked for: nobody moves there.
        """

    @abstractmethod
    def end(self, *, last: bool) -> str | None:
        """Return the first box, or the last one."""

    @abstractmethod
    def near(self, x: int, y: int, left: int, right: int) -> str | None:
        """Return the box nearest to line `y`, then to column `x`, None without any.

        Only those count that stand between the columns `left` and `right`.
        """
