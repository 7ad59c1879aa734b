"""The chain of work that takes longest: what decides how soon a DAG can be over. Pure.

Works on numbers, not on tasks: whoever asks says what each piece of work takes and which other
pieces it waits for. Knows no state, no store and no clock. Flat arrays, for there may be a hundred
thousand pieces: as many small lists would have to be collected and freed while everybody waits.
"""

from __future__ import annotations

from array import array
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def longest_path(
    seconds: Sequence[float], deps: Sequence[int], dependents: Sequence[int]
) -> tuple[list[int], float]:
    """Return the path that takes longest, in the order of work, and how many seconds it takes.

    `seconds[i]` (not negative) is what piece `i` takes. Piece `dependents[e]` waits for piece
    `deps[e]`, for each `e`. Of paths that take as long the one with more steps wins, then the one
    whose pieces come first. Pieces on a cycle, and those that wait for one, count as never done.
    The cost is linear.
    """
    first, dependents_of = _by_dep(len(seconds), deps, dependents)
    unmet = _zeros(len(seconds))
    for dependent in dependents:
        unmet[dependent] += 1
    ways = _Ways(seconds)
    free = [piece for piece, count in enumerate(unmet) if count == 0]
    last = -1
    while free:
        piece = free.pop()
        ways.close(piece)
        last = ways.longer(piece, last)
        for edge in range(first[piece], first[piece + 1]):
            dependent = dependents_of[edge]
            ways.before[dependent] = ways.longer(piece, ways.before[dependent])
            unmet[dependent] -= 1
            if unmet[dependent] == 0:
                free.append(dependent)
    return (ways.to(last), ways.length[last]) if last >= 0 else ([], 0.0)


class _Ways:
    """The longest way to the end of each piece: its length, its steps, and the piece before."""

    def __init__(self, seconds: Sequence[float]) -> None:
        self.length = array("d", seconds)
        self.steps = array("l", [1]) * len(seconds)
        self.before = array("l", [-1]) * len(seconds)

    def longer(self, one: int, other: int) -> int:
        """Return which of two pieces takes longer to reach the end of; any is longer than -1."""
        if other < 0:
            return one
        if self.length[one] != self.length[other]:
            return one if self.length[one] > self.length[other] else other
        ahead = (self.steps[one], -one) > (self.steps[other], -other)
        return one if ahead else other

    def close(self, piece: int) -> None:
        """Add the way to the piece before, when that can become no other any more."""
        if (before := self.before[piece]) >= 0:
            self.length[piece] += self.length[before]
            self.steps[piece] += self.steps[before]

    def to(self, piece: int) -> list[int]:
        """Return the pieces on the way, in the order of work."""
        path = [piece]
        while self.before[path[-1]] >= 0:
            path.append(self.before[path[-1]])
        return path[::-1]


def _zeros(count: int) -> array[int]:
    return array("l", [0]) * count


def _by_dep(
    pieces: int, deps: Sequence[int], dependents: Sequence[int]
) -> tuple[array[int], array[int]]:
    """Return where the dependents of each piece begin, and of one more: the end; then all."""
    counts = _zeros(pieces + 1)
    for dep in deps:
        counts[dep + 1] += 1
    first = array("l", accumulate(counts))
    place = first[:]
    found = _zeros(len(deps))
    for dep, dependent in zip(deps, dependents, strict=True):
        found[place[dep]] = dependent
        place[dep] += 1
    return first, found
