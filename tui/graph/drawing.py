"""The graph drawn: layers of boxes from left to right, with lines between them.

Only the lines of the screen that are asked for are drawn, and only in the columns that are seen.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from tui import strokes
from tui.graph.labels import natural_width
from tui.graph.scene import Scene, Spot
from tui.graph.wires import Strokes, width_of
from tui.strokes import LEFT, RIGHT, stroke
from tui.widgets.canvas import Patch
from tui.widgets.cells import Tone, line_width

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from engine.views import GraphNode
    from tui.graph.boxes import Box, Boxes
    from tui.graph.channels import Channel, Wire
    from tui.graph.layers import Plan

_MARGIN = 2
"""Columns before the first layer, for what comes from outside of the picture."""
_LINE = Tone.OFF
"""The tone of lines that say nothing special."""
_LABELS = (44, 36, 28, 22, 16)
"""Cells of a label at most: the first of these with which all layers are on the screen."""
_LABEL = 28
"""The same if none is."""
_AROUND = 2
"""Cells of a column around a label: the cursor's before it, an empty one behind."""
_Routes = dict[int, Strokes]
"""Strokes by layer: those of the channel behind it."""


class Drawing(Scene):
    """The graph, for a view of so many columns and lines: it decides how far things are apart."""

    def __init__(
        self,
        boxes: Boxes,
        plan: Plan,
        channels: Sequence[Channel],
        nodes: Mapping[str, GraphNode],
        critical: Sequence[str] = (),
        *,
        columns: int,
        lines: int,
    ) -> None:
        self._plan = plan
        self._channels = channels
        self._strokes: _Routes = {}
        self._traced: _Routes = {}
        self._path: _Routes = {}
        self._came: tuple[str, str] | None = None
        count = len(boxes.boxes)
        self._rows = _rows(plan, channels, lines)
        self._line_of = {row: y for y, row in enumerate(self._rows)}
        self._item_at = [{2 * plan.row_of[i]: i for i in layer} for layer in plan.layers]
        self._lost = {
            item
            for pieces, channel in zip(plan.pieces, channels, strict=True)
            for piece, wire in zip(pieces, channel.wires, strict=True)
            if not wire.drawn
            for item in piece.right
        }
        self._boxes_of = [[i for i in layer if i < count] for layer in plan.layers]
        self._left: list[int] = []
        self._wide: list[int] = []
        natural = [
            max((natural_width(boxes.boxes[i]) for i in members), default=0)
            for members in self._boxes_of
        ]
        between = [*map(width_of, channels), 0]
        most = _most(natural, columns - _MARGIN - sum(between))
        x = _MARGIN
        for widest, gap in zip(natural, between, strict=False):
            self._left.append(x)
            self._wide.append(min(widest, most) + _AROUND)
            x += self._wide[-1] + gap
        self.width, self.height = x, len(self._rows)
        super().__init__(boxes, nodes, critical)

    # -- lines that stand out --------------------------------------------------------------

    def mark(self, critical: Sequence[str]) -> None:
        """Say which boxes are on the critical path: the lines between them are heavy."""
        super().mark(critical)
        at = self.boxes.at or {}
        places = [at[key] for key in self.path]
        self._path = self._routes(pairwise(places))

    def point(self, key: str | None) -> None:
        """Put the cursor on a box: its lines are bright."""
        super().point(key)
        box = self.boxes.find(key) if key is not None else None
        if box is None:
            self._traced = {}
            return
        here = (self.boxes.at or {})[box.key]
        edges = [(here, other) for other in box.dependents]
        edges += [(other, here) for other in box.deps]
        self._traced = self._routes(edges)

    def _routes(self, edges: Iterable[tuple[int, int]]) -> _Routes:
        """Return the strokes of these edges alone, layer by layer."""
        plan = self._plan
        rows: dict[tuple[int, int], tuple[set[int], set[int]]] = defaultdict(lambda: (set(), set()))
        drawn: dict[int, frozenset[int]] = {}
        for source, target in edges:
            index = plan.net_of[source]
            if index < 0:
                continue
            net = plan.nets[index]
            if target not in drawn.setdefault(index, frozenset(net.targets)):
                continue
            way = (source, *net.dummies[: plan.layer_of[target] - net.layer - 1], target)
            for step, (here, following) in enumerate(pairwise(way)):
                left, right = rows[net.layer + step, index]
                left.add(2 * plan.row_of[here])
                right.add(2 * plan.row_of[following])
        parts: dict[int, list[tuple[Wire, Sequence[int], Sequence[int]]]] = defaultdict(list)
        for (layer, index), (left, right) in rows.items():
            wire = self._channels[layer].wires[plan.place_of[layer][index]]
            parts[layer].append((wire, sorted(left), sorted(right)))
        return {layer: Strokes(self._channels[layer], some) for layer, some in parts.items()}

    # -- painting --------------------------------------------------------------------------

    def line(self, y: int, left: int, right: int) -> tuple[int, list[Patch]]:
        """Paint a line from column `left` to `right` at least; say at which column it begins."""
        if not 0 <= y < self.height or not self._left:
            return left, []
        row = self._rows[y]
        first = max(0, bisect_right(self._left, left) - 1)
        patches: list[Patch] = []
        if first == 0:
            patches += self._margin(row)
        for layer in range(first, len(self._left)):
            if self._left[layer] >= right:
                break
            patches += self._column(layer, row)
            if layer < len(self._channels):
                patches += self._channel(layer, row)
        return (0 if first == 0 else self._left[first]), patches

    def _margin(self, row: int) -> list[Patch]:
        box = self._box(0, row)
        if box is None or not self._from_elsewhere(self._item_at[0][row]):
            return [Patch(" " * _MARGIN, Tone.TEXT)]
        return [Patch(strokes.ELSEWHERE + strokes.ARROW, Tone.DIM)]

    def _from_elsewhere(self, item: int) -> bool:
        return self.boxes.boxes[item].missing > 0 or item in self._plan.cut_in

    def _box(self, layer: int, row: int) -> Box | None:
        item = self._item_at[layer].get(row)
        boxes = self.boxes.boxes
        return boxes[item] if item is not None and item < len(boxes) else None

    def _look(self, layer: int, row: int) -> tuple[Tone, int]:
        """Return the tone and the weight of the line that leaves a column at a row."""
        path, traced = self._path.get(layer), self._traced.get(layer)
        if path is not None and path.enters(row):
            return Tone.BOLD, LEFT | RIGHT
        return (Tone.TEXT if traced is not None and traced.enters(row) else _LINE), 0

    def _column(self, layer: int, row: int) -> list[Patch]:
        width, item = self._wide[layer], self._item_at[layer].get(row)
        if item is None:
            return [Patch(" " * width, Tone.TEXT)]
        tone, heavy = self._look(layer, row)
        line = stroke(LEFT | RIGHT, heavy)
        if item >= len(self.boxes.boxes):
            return [Patch(line * width, tone)]
        box = self.boxes.boxes[item]
        here, bold = box.key == self.cursor, box.key in self.critical
        under = "row-cursor" if here else ""
        cells = self._label(box, width - _AROUND)
        room = width - _AROUND - line_width(cells)
        patches = [Patch(strokes.CURSOR if here else " ", Tone.BOLD, under)]
        patches += [Patch(text, colour, under, bold) for text, colour in cells]
        # What is not drawn is said right behind the label, where there is always a cell.
        behind = strokes.ELSEWHERE if item in self._plan.cut_out else " "
        patches.append(Patch(behind, Tone.DIM, under))
        if self._plan.net_of[item] < 0:
            return [*patches, Patch(" " * room, Tone.TEXT)]
        return [*patches, Patch(line * room, tone)]

    def _channel(self, layer: int, row: int) -> list[Patch]:
        channel = self._channels[layer]
        wires = self._strokes.get(layer)
        if wires is None:
            wires = self._strokes[layer] = Strokes(channel)
        shown, behind = wires.row(row)
        none = [0] * len(shown)
        path, traced = self._path.get(layer), self._traced.get(layer)
        heavy = path.row(row)[0] if path is not None else none
        bright = traced.row(row)[0] if traced is not None else none
        cells: list[tuple[str, Tone]] = []
        for sides, hidden, bold, light in zip(shown, behind, heavy, bright, strict=True):
            # What stands out comes to the front where it passes behind something.
            front = hidden if hidden and (bold | light) & (LEFT | RIGHT) else sides
            tone = Tone.BOLD if bold else Tone.TEXT if light else _LINE
            cells.append((stroke(front, bold), tone))
        self._ends(layer, row, wires, cells)
        return _joined(cells)

    def _ends(self, layer: int, row: int, wires: Strokes, cells: list[tuple[str, Tone]]) -> None:
        """Put an arrow before a box, and the sign of what is not drawn where a line would be."""
        here, following = self._item_at[layer].get(row), self._item_at[layer + 1].get(row)
        boxes = len(self.boxes.boxes)
        goes_on = here is not None and (here >= boxes or self._plan.net_of[here] >= 0)
        if goes_on and not wires.enters(row):
            cells[0] = (strokes.ELSEWHERE, Tone.DIM)
        if following is None:
            return
        arrives = wires.leaves(row)
        if following >= boxes:
            if not arrives:
                cells[-1] = (strokes.ELSEWHERE, Tone.DIM)
            return
        hidden = self._from_elsewhere(following) or following in self._lost
        if arrives or hidden:
            cells[-1] = (strokes.ARROW, cells[-1][1] if arrives else Tone.DIM)
        if hidden:
            cells[-2] = (strokes.ELSEWHERE, Tone.DIM)

    # -- places ----------------------------------------------------------------------------

    def spot(self, key: str) -> Spot | None:
        """Return where a box is."""
        index = (self.boxes.at or {}).get(key)
        if index is None:
            return None
        layer = self._plan.layer_of[index]
        y = self._line_of[2 * self._plan.row_of[index]]
        return Spot(self._left[layer], y, self._wide[layer])

    def at(self, x: int, y: int) -> str | None:
        """Return the key of the box at a place, None if none is there."""
        layer = bisect_right(self._left, x) - 1
        if layer < 0 or not 0 <= y < self.height or x >= self._left[layer] + self._wide[layer]:
            return None
        box = self._box(layer, self._rows[y])
        return box.key if box is not None else None

    def down(self, key: str, boxes: int) -> str:
        """Return the box so many below in the same layer, or above."""
        index = (self.boxes.at or {})[key]
        layer = self._boxes_of[self._plan.layer_of[index]]
        at = max(0, min(layer.index(index) + boxes, len(layer) - 1))
        return self._key(layer[at])

    def across(self, key: str, step: int, *, look: bool = False) -> str:
        """Return the box at the other end of an edge: in the nearest layer, the nearest row.

        Straight back along the way that one came leads to where one came from. With `look`
        nobody moves.
        """
        box = self.boxes.find(key)
        if box is None:
            return key
        others = box.dependents if step > 0 else box.deps
        if not others:
            return key
        if self._came is not None and self._came[0] == key:
            before = (self.boxes.at or {}).get(self._came[1])
            if before in others:
                back = self._came[1]
                self._came = self._came if look else (back, key)
                return back
        index, plan = (self.boxes.at or {})[key], self._plan
        found = min(
            others,
            key=lambda i: (
                abs(plan.layer_of[i] - plan.layer_of[index]),
                abs(plan.row_of[i] - plan.row_of[index]),
                i,
            ),
        )
        if not look:
            self._came = (self._key(found), key)
        return self._key(found)

    def end(self, *, last: bool) -> str | None:
        """Return the top of the first layer, or the bottom of the last one."""
        if not self._boxes_of:
            return None
        return self._key(self._boxes_of[-1][-1] if last else self._boxes_of[0][0])

    def near(self, x: int, y: int, left: int, right: int) -> str | None:
        """Return the box nearest to line `y`, then to column `x`, between two columns."""
        if not self.height:
            return None
        row = self._rows[max(0, min(y, self.height - 1))]
        found: list[tuple[int, int, int]] = []
        first = max(0, bisect_right(self._left, left) - 1)
        for layer in range(first, bisect_left(self._left, right)):
            members = self._boxes_of[layer]
            at = bisect_left(members, row, key=self._row)
            found += [
                (abs(self._row(i) - row), abs(self._left[layer] - x), i)
                for i in members[max(0, at - 1) : at + 1]
            ]
        return self._key(min(found)[2]) if found else None

    def _row(self, index: int) -> int:
        return 2 * self._plan.row_of[index]

    def _key(self, index: int) -> str:
        return self.boxes.boxes[index].key


def _most(natural: Sequence[int], room: int) -> int:
    """Return how long labels may be."""
    for most in _LABELS:
        if sum(min(widest, most) + _AROUND for widest in natural) <= room:
            return most
    return _LABEL


def _rows(plan: Plan, channels: Iterable[Channel], lines: int) -> list[int]:
    """Return which rows of the channels are lines of the screen.

    If there is room, all of them: boxes then have an empty line between them. Else the odd ones
    are left out but where a line steps aside.
    """
    steps = {wire.step for channel in channels for wire in channel.wires if wire.drawn}
    used = {step for step in steps if step is not None}
    even = range(0, 2 * plan.height, 2)
    every = range(max([*used, *even[-1:]], default=-1) + 1)
    return list(every) if len(every) <= lines else sorted(used.union(even))


def _joined(cells: Iterable[tuple[str, Tone]]) -> list[Patch]:
    patches: list[Patch] = []
    for text, tone in cells:
        if patches and (patches[-1].tone is tone or text == " "):
            patches[-1] = Patch(patches[-1].text + text, patches[-1].tone)
        else:
            patches.append(Patch(text, tone))
    return patches
