"""Where each box stands: its layer from left to right, its row from top to bottom.

The layer of a box is the length of the longest chain of deps that leads to it. Boxes of one
layer with the same dependents share one net of lines; a net that passes a layer gets a dummy
there, so that it has a row of its own. Parts of the DAG that have nothing to do with each other
are laid out apart and stand below one another.

All steps are linear in boxes, edges and dummies, with a sort of each layer a few times. Dummies
are kept below a bound by not drawing the longest edges.
"""

from __future__ import annotations

from collections import defaultdict
from math import floor
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tui.graph.boxes import Box

_SWEEPS = 4
"""How often the order within layers is improved, there and back."""
_DUMMIES = 8_000
"""Dummies at most, unless edges to the next layer but one alone need more."""
_STRAIGHT = 8.0
"""How much more a dummy's wish for a straight line counts than a box's."""


class Net(Struct, frozen=True):
    """Lines from all of `sources`, which stand in one layer, to each of `targets`.

    `dummies[n]` is the item that stands for the net in the n-th layer after that of the sources.
    """

    layer: int
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    dummies: tuple[int, ...]


class Piece(Struct, frozen=True):
    """The part of a net between two neighbouring layers: all of `left` with all of `right`."""

    net: int
    left: tuple[int, ...]
    right: tuple[int, ...]


class Plan(Struct, frozen=True):
    """Items are boxes by their place, then dummies. `layer_of` and `row_of` are by item.

    `layers` has the items of each layer from top to bottom, `pieces` those between a layer and
    the next, `place_of` where among them the piece of a net is, `net_of` the net that leaves a
    box, or -1. `cut_out` and `cut_in` are boxes with an edge that is not drawn: it is too long.
    """

    layer_of: Sequence[int] = ()
    row_of: Sequence[int] = ()
    layers: Sequence[Sequence[int]] = ()
    nets: Sequence[Net] = ()
    pieces: Sequence[Sequence[Piece]] = ()
    place_of: Sequence[Mapping[int, int]] = ()
    net_of: Sequence[int] = ()
    cut_out: frozenset[int] = frozenset()
    cut_in: frozenset[int] = frozenset()

    @property
    def height(self) -> int:
        """How many rows there are."""
        return max(self.row_of, default=-1) + 1


def lay_out(boxes: Sequence[Box]) -> Plan:
    """Give each box and each dummy a layer and a row. The same boxes give the same plan."""
    layer_of = _longest_paths(boxes)
    reach = _reach(boxes, layer_of)
    nets, cut_out, cut_in = _nets(boxes, layer_of, reach)
    depth = max(layer_of, default=-1) + 1
    layers: list[list[int]] = [[] for _ in range(depth)]
    pieces: list[list[Piece]] = [[] for _ in range(max(0, depth - 1))]
    net_of = [-1] * len(boxes)
    for index, net in enumerate(nets):
        for source in net.sources:
            net_of[source] = index
        left = net.sources
        for step in range(max(layer_of[t] for t in net.targets) - net.layer):
            layer = net.layer + step
            passing = net.dummies[step : step + 1]
            layer_of += [layer + 1] * len(passing)
            right = tuple(t for t in net.targets if layer_of[t] == layer + 1)
            pieces[layer].append(Piece(index, left, right + passing))
            left = passing
    row_of = [0] * len(layer_of)
    top = 0
    for part in _parts(len(layer_of), pieces):
        top += _place(part, layer_of, pieces, len(boxes), row_of, top)
    for item in sorted(range(len(layer_of)), key=row_of.__getitem__):
        layers[layer_of[item]].append(item)
    place_of = [{piece.net: at for at, piece in enumerate(channel)} for channel in pieces]
    return Plan(layer_of, row_of, layers, nets, pieces, place_of, net_of, cut_out, cut_in)


def _longest_paths(boxes: Sequence[Box]) -> list[int]:
    layer_of = [0] * len(boxes)
    unmet = [len(box.deps) for box in boxes]
    ready = [index for index, count in enumerate(unmet) if not count]
    for index in ready:  # grows while it is walked through
        for other in boxes[index].dependents:
            layer_of[other] = max(layer_of[other], layer_of[index] + 1)
            unmet[other] -= 1
            if not unmet[other]:
                ready.append(other)
    return layer_of


def _reach(boxes: Sequence[Box], layer_of: Sequence[int]) -> int:
    """Return how many layers an edge may span so that the dummies stay below their bound."""
    spans: dict[tuple[int, tuple[int, ...]], set[int]] = {}
    for index, box in enumerate(boxes):
        at = layer_of[index]
        spans[at, box.dependents] = {layer_of[other] - at for other in box.dependents}
    reach = len(boxes)
    while reach > 2:
        kept = (max((s for s in span if s <= reach), default=1) for span in spans.values())
        if sum(longest - 1 for longest in kept) <= _DUMMIES:
            break
        reach = min(reach, 256) // 2
    return reach


def _nets(
    boxes: Sequence[Box], layer_of: Sequence[int], reach: int
) -> tuple[list[Net], frozenset[int], frozenset[int]]:
    sources: dict[tuple[int, tuple[int, ...]], list[int]] = defaultdict(list)
    cut_out: set[int] = set()
    cut_in: set[int] = set()
    for index, box in enumerate(boxes):
        at = layer_of[index]
        near = tuple(t for t in box.dependents if 0 < layer_of[t] - at <= reach)
        if len(near) < len(box.dependents):
            cut_out.add(index)
            cut_in.update(set(box.dependents).difference(near))
        if near:
            sources[at, near].append(index)
    nets: list[Net] = []
    following = len(boxes)
    for (layer, targets), members in sources.items():
        passed = max(layer_of[target] for target in targets) - layer - 1
        dummies = tuple(range(following, following + passed))
        following += passed
        nets.append(Net(layer, tuple(members), targets, dummies))
    return nets, frozenset(cut_out), frozenset(cut_in)


def _parts(count: int, pieces: Iterable[Sequence[Piece]]) -> list[list[int]]:
    """Return the items that hang together, in the order of the first; single ones at the end."""
    leader = list(range(count))

    def find(item: int) -> int:
        while leader[item] != item:
            leader[item] = item = leader[leader[item]]
        return item

    for channel in pieces:
        for piece in channel:
            first, *others = map(find, (*piece.left, *piece.right))
            for other in others:
                first, other = find(first), find(other)  # noqa: PLW2901 - what they are now
                leader[max(first, other)] = min(first, other)
    parts: dict[int, list[int]] = defaultdict(list)
    for item in range(count):
        parts[find(item)].append(item)
    return sorted(parts.values(), key=lambda part: (len(part) == 1, part[0]))


def _place(
    part: Sequence[int],
    layer_of: Sequence[int],
    pieces: Sequence[Sequence[Piece]],
    boxes: int,
    row_of: list[int],
    top: int,
) -> int:
    """Give the items of a part their rows from `top` on; return how many rows it takes."""
    if len(part) == 1:
        row_of[part[0]] = top
        return 1
    inside = set(part)
    by_layer: dict[int, list[int]] = defaultdict(list)
    for item in part:
        by_layer[layer_of[item]].append(item)
    first = min(by_layer)
    layers = [by_layer[first + step] for step in range(len(by_layer))]
    between = [
        [(p.left, p.right) for p in pieces[first + step] if p.left[0] in inside]
        for step in range(len(layers) - 1)
    ]
    _order(layers, between)
    rows = _align(layers, between, boxes)
    least = min(rows.values())
    for item, row in rows.items():
        row_of[item] = top + row - least
    return max(rows.values()) - least + 1


_Ends = tuple[tuple[int, ...], tuple[int, ...]]


def _pull(
    ends: Iterable[_Ends], place: dict[int, float], *, forward: bool
) -> dict[int, tuple[float, int]]:
    """Return for each item how its neighbours on one side stand: the sum of places, the count."""
    pulls: dict[int, tuple[float, int]] = {}
    for left, right in ends:
        fixed, free = (left, right) if forward else (right, left)
        total, count = sum(place[item] for item in fixed), len(fixed)
        for item in free:
            before, counted = pulls.get(item, (0.0, 0))
            pulls[item] = (before + total, counted + count)
    return pulls


def _order(layers: list[list[int]], between: Sequence[Sequence[_Ends]]) -> None:
    """Sort each layer by the mean place of its neighbours, there and back a few times."""
    place = {item: float(at) for layer in layers for at, item in enumerate(layer)}
    depth = len(layers)
    for _ in range(_SWEEPS):
        moved = False
        for forward in (True, False):
            steps = range(1, depth) if forward else range(depth - 2, -1, -1)
            for step in steps:
                layer = layers[step]
                if len(layer) == 1:
                    continue
                pulls = _pull(between[step - 1 if forward else step], place, forward=forward)
                means = {item: total / count for item, (total, count) in pulls.items()}
                ordered = sorted(layer, key=lambda i: (means.get(i, place[i]), place[i]))
                if ordered != layer:
                    moved = True
                    layers[step] = ordered
                    place.update((item, float(at)) for at, item in enumerate(ordered))
        if not moved:
            break


def _align(
    layers: Sequence[Sequence[int]], between: Sequence[Sequence[_Ends]], boxes: int
) -> dict[int, int]:
    """Give each item a row near those of its neighbours, keeping the order of each layer."""
    row: dict[int, float] = {item: float(at) for layer in layers for at, item in enumerate(layer)}
    depth = len(layers)
    passes = ((True, False), (False, True), (True, True))
    for number, (by_left, by_right) in enumerate(passes):
        steps = range(depth) if number != 1 else range(depth - 1, -1, -1)
        for step in steps:
            pulls: dict[int, tuple[float, int]] = {}
            if by_left and step:
                pulls = _pull(between[step - 1], row, forward=True)
            if by_right and step + 1 < depth:
                for item, (total, count) in _pull(between[step], row, forward=False).items():
                    before, counted = pulls.get(item, (0.0, 0))
                    pulls[item] = (before + total, counted + count)
            layer = layers[step]
            wishes = [
                pulls[item][0] / pulls[item][1] if item in pulls else row[item] for item in layer
            ]
            weights = [
                _STRAIGHT if item >= boxes else 1.0 if item in pulls else 0.1 for item in layer
            ]
            row.update(zip(layer, map(float, spread(wishes, weights)), strict=True))
    return {item: int(at) for item, at in row.items()}


def spread(wishes: Sequence[float], weights: Sequence[float]) -> list[int]:
    """Return ascending whole numbers, each at least one more than the last, near the wishes.

    Those that get in each other's way become a block, which stands where the weighted squares
    of what its members are off by are least.
    """
    blocks: list[tuple[float, float, int]] = []  # sum of weight x (wish - place), weight, size
    for at, (wish, weight) in enumerate(zip(wishes, weights, strict=True)):
        total, heavy, size = weight * (wish - at), weight, 1
        while blocks and blocks[-1][0] / blocks[-1][1] >= total / heavy:
            before = blocks.pop()
            total, heavy, size = total + before[0], heavy + before[1], size + before[2]
        blocks.append((total, heavy, size))
    rows: list[int] = []
    for total, heavy, size in blocks:
        base = floor(total / heavy + 0.5)
        rows.extend(base + at for at in range(len(rows), len(rows) + size))
    return rows
