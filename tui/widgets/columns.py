"""How wide the columns of a list are. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

GAP = 2
"""Empty cells between two columns."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a list.

    It has at least `least` cells, and as many as its widest text needs up to `most` (0: exactly
    `least`). With `fills` it takes the room that is left. When room is short, columns go in the
    order of `drop`, highest first; 0 stays for ever.
    """

    title: str
    least: int
    most: int = 0
    fills: bool = False
    right: bool = False
    middle: bool = False
    drop: int = 0


def fit(columns: Sequence[Column], natural: Sequence[int], width: int) -> list[tuple[int, int]]:
    """Return (index, cells) of the columns that fit into `width`, in their order.

    `natural` says how wide the widest text of each column is.
    """
    kept = list(range(len(columns)))

    def need() -> int:
        return sum(columns[index].least for index in kept) + GAP * (len(kept) - 1)

    while need() > width:
        losers = [index for index in kept if columns[index].drop]
        if not losers:
            break
        kept.remove(max(losers, key=lambda index: columns[index].drop))
    cells = {index: columns[index].least for index in kept}
    spare = width - need()
    # The room that texts need is shared evenly, cell by cell, so that no column starves.
    wishes = {
        index: min(natural[index], columns[index].most) - cells[index]
        for index in kept
        if columns[index].most
    }
    while spare > 0 and any(wish > 0 for wish in wishes.values()):
        for index, wish in wishes.items():
            if wish > 0 and spare > 0:
                cells[index] += 1
                wishes[index] = wish - 1
                spare -= 1
    for index in kept:
        if columns[index].fills:
            cells[index] += max(spare, 0)
            spare = 0
    return [(index, cells[index]) for index in kept]
