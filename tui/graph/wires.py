"""The lines of one channel as characters, a row at a time.

Where a line only passes another, the upright one is drawn and the other goes behind it, so that
a junction always means that lines belong together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from typing import TYPE_CHECKING

from tui.strokes import DOWN, LEFT, RIGHT, UP

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tui.graph.channels import Channel, Wire

_LEAD, _TAIL = 1, 2
_ROOMY = 8
"""Tracks up to which there is an empty column between two of them."""


def width_of(channel: Channel) -> int:
    """Return how many columns a channel takes."""
    return _LEAD + channel.tracks * _gap(channel) + _TAIL


def _gap(channel: Channel) -> int:
    return 2 if channel.tracks <= _ROOMY else 1


class Strokes:
    """Some wires of a channel, ready to be drawn: with all of their rows, or with some."""

    def __init__(
        self,
        channel: Channel,
        parts: Iterable[tuple[Wire, Sequence[int], Sequence[int]]] | None = None,
    ) -> None:
        """Take `parts`, each with the left and right rows that count; all wires by default."""
        self._width = width_of(channel)
        self._gap = _gap(channel)
        self._flat: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        self._upright: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        if parts is None:
            parts = ((wire, wire.left, wire.right) for wire in channel.wires)
        for owner, (wire, left, right) in enumerate(parts):
            if wire.drawn:
                self._add(owner, wire, left, right)
        for bars in self._upright.values():
            bars.sort()

    def _add(self, owner: int, wire: Wire, left: Sequence[int], right: Sequence[int]) -> None:
        through = set(left) & set(right)
        for row in through:
            self._flat[row].append((-1, self._width, owner))
        if wire.track is None or len({*left, *right}) == 1:
            return
        begin = end = self._column(wire.track)
        if wire.step is not None and wire.second is not None:
            end = self._column(wire.second)
            self._flat[wire.step].append((begin, end, owner))
            self._rise(begin, (*left, wire.step), owner)
            self._rise(end, (wire.step, *right), owner)
        else:
            self._rise(begin, (*left, *right), owner)
        for row in left:
            if row not in through:
                self._flat[row].append((-1, begin, owner))
        for row in right:
            if row not in through:
                self._flat[row].append((end, self._width, owner))

    def _column(self, track: int) -> int:
        return _LEAD + track * self._gap

    def _rise(self, x: int, rows: Sequence[int], owner: int) -> None:
        low, high = min(rows), max(rows)
        if low < high:
            self._upright[x].append((low, high, owner))

    def row(self, y: int) -> tuple[list[int], list[int]]:
        """Return for each column the sides that are drawn, and those that pass behind."""
        shown, behind = [0] * self._width, [0] * self._width
        flat = self._flat.get(y, ())
        for start, end, _ in flat:
            for x in range(max(start, 0), min(end, self._width - 1) + 1):
                shown[x] |= (LEFT if x > start else 0) | (RIGHT if x < end else 0)
        for x, bars in self._upright.items():
            at = bisect_right(bars, y, key=_top) - 1
            if at < 0 or bars[at][1] < y:
                continue
            low, high, owner = bars[at]
            sides = (UP if y > low else 0) | (DOWN if y < high else 0)
            if any(start <= x <= end and who == owner for start, end, who in flat):
                shown[x] |= sides
            else:
                shown[x], behind[x] = sides, shown[x]
        return shown, behind

    def enters(self, y: int) -> bool:
        """Say whether a line comes in from the left at this row."""
        return any(start < 0 for start, _, _ in self._flat.get(y, ()))

    def leaves(self, y: int) -> bool:
        """Say whether a line goes out to the right at this row."""
        return any(end >= self._width for _, end, _ in self._flat.get(y, ()))


def _top(bar: tuple[int, int, int]) -> int:
    return bar[0]
