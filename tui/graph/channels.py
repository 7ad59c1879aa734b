"""The lines between two neighbouring layers: each piece of a net gets an upright track.

Rows here are twice those of the plan: boxes and dummies are on even rows, and odd ones are free
for a line that has to step aside. A line runs from its left rows along to its track, up and down
there, and along to its right rows. Two pieces may share a row only where both come to the same
box; a piece that leaves a row where another arrives therefore turns off before it. Where such
wishes contradict each other, one piece uses two tracks and an odd row between them.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tui.graph.layers import Piece, Plan

MOST_TRACKS = 24
"""Tracks of one channel at most; lines that find none are not drawn."""


class Wire(Struct, frozen=True):
    """How one piece runs. `left` and `right` are its rows.

    `track` is None for a line straight through. With a `step`, the piece goes on `track` only as
    far as this odd row, and from there on `second`. `drawn` is False if there was no track left.
    """

    left: tuple[int, ...]
    right: tuple[int, ...]
    track: int | None = None
    step: int | None = None
    second: int | None = None
    drawn: bool = True

    def tracks(self) -> int:
        """Return how many tracks the channel needs for this."""
        return max(-1 if self.track is None else self.track, self.second or -1) + 1


class Channel(Struct, frozen=True):
    """All lines between a layer and the next, `wires[n]` for its n-th piece."""

    wires: tuple[Wire, ...]

    @property
    def tracks(self) -> int:
        """How many tracks there are."""
        return max((wire.tracks() for wire in self.wires), default=0)


def route(plan: Plan) -> tuple[Channel, ...]:
    """Run the lines of all channels."""
    return tuple(_channel(pieces, plan.row_of) for pieces in plan.pieces)


class _Tracks(Struct):
    """Which rows of each track are taken: ascending starts, and the ends that go with them."""

    starts: list[list[int]] = field(default_factory=list)
    ends: list[list[int]] = field(default_factory=list)

    def take(self, rows: Sequence[int], least: int) -> int | None:
        """Take the first track from `least` on that is free from the first to the last row."""
        low, high = min(rows), max(rows)
        for track in range(least, MOST_TRACKS):
            while track >= len(self.starts):
                self.starts.append([])
                self.ends.append([])
            at = bisect_left(self.starts[track], low)
            if at and self.ends[track][at - 1] >= low:
                continue
            if at < len(self.starts[track]) and self.starts[track][at] <= high:
                continue
            self.starts[track].insert(at, low)
            self.ends[track].insert(at, high)
            return track
        return None

    def give_back(self, track: int, rows: Sequence[int]) -> None:
        """Free what was taken."""
        at = self.starts[track].index(min(rows))
        del self.starts[track][at], self.ends[track][at]


def _channel(pieces: Sequence[Piece], row_of: Sequence[int]) -> Channel:
    wires = [
        Wire(
            tuple(sorted(2 * row_of[item] for item in piece.left)),
            tuple(sorted(2 * row_of[item] for item in piece.right)),
        )
        for piece in pieces
    ]
    bent = [i for i, wire in enumerate(wires) if len({*wire.left, *wire.right}) > 1]
    following, waits_for = _wishes(wires)
    waiting = [len(others) for others in waits_for]
    least = [0] * len(wires)
    taken = _Tracks()
    steps: set[int] = set()
    pending = set(bent)

    def rank(index: int) -> tuple[int, int, int]:
        rows = (*wires[index].left, *wires[index].right)
        return max(rows) - min(rows), min(rows), index

    def settled(index: int, track: int) -> None:
        for other in following[index]:
            least[other] = max(least[other], track + 1)
            waiting[other] -= 1
            if not waiting[other] and other in pending:
                heapq.heappush(ready, rank(other))

    ready = [rank(index) for index in bent if not waiting[index]]
    # One that was passed over never comes back: it is settled, or has stepped aside already.
    by_length = iter(sorted(map(rank, bent)))
    heapq.heapify(ready)
    while pending:
        if ready:
            index = heapq.heappop(ready)[2]
            if index not in pending:
                continue
            wire = wires[index]
            # The second half of a piece that steps aside leaves its odd row, not its left rows.
            begins = wire.left if wire.step is None else (wire.step,)
            track = taken.take((*begins, *wire.right), least[index])
            pending.discard(index)
            wires[index] = _tracked(wire, track, taken)
            if wire.step is None:
                settled(index, least[index] if track is None else track)
            continue
        # Everything that is left waits for something else that is left: the shortest steps aside.
        index = next(i for _, _, i in by_length if i in pending and wires[i].step is None)
        wire = wires[index]
        step = _odd_row(wire, steps)
        track = taken.take((*wire.left, step), 0)
        if track is None:
            wires[index] = Wire(wire.left, wire.right, drawn=False)
            pending.discard(index)
            settled(index, 0)
            continue
        steps.add(step)
        wires[index] = Wire(wire.left, wire.right, track, step)
        least[index] = max(least[index], track + 1)
        settled(index, track)
    return Channel(tuple(wires))


def _tracked(wire: Wire, track: int | None, taken: _Tracks) -> Wire:
    if track is not None and wire.step is None:
        return Wire(wire.left, wire.right, track)
    if track is not None:
        return Wire(wire.left, wire.right, wire.track, wire.step, track)
    if wire.step is not None and wire.track is not None:
        taken.give_back(wire.track, (*wire.left, wire.step))
    return Wire(wire.left, wire.right, drawn=False)


def _wishes(wires: Sequence[Wire]) -> tuple[list[list[int]], list[set[int]]]:
    """Return for each piece which ones must turn off after it, and which before it."""
    leaves = {row: index for index, wire in enumerate(wires) for row in wire.left}
    following: dict[int, list[int]] = defaultdict(list)
    waits_for: list[set[int]] = [set() for _ in wires]
    for index, wire in enumerate(wires):
        for row in wire.right:
            other = leaves.get(row, index)
            if other != index and row not in wires[other].right:
                waits_for[index].add(other)
    for index, others in enumerate(waits_for):
        for other in others:
            following[other].append(index)
    return [following[index] for index in range(len(wires))], waits_for


def _odd_row(wire: Wire, used: set[int]) -> int:
    """Return the free odd row that is nearest to where the piece begins."""
    start = wire.left[len(wire.left) // 2]
    down = start + 1
    while down in used:
        down += 2
    up = start - 1
    while up in used:
        up -= 2
    return up if up > 0 and start - up < down - start else down
