"""Which columns of a list are shown, how wide they are, and by which one it is sorted.

Pure arithmetic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import force_setattr

from engine.views import Order

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

GAP = 2
"""Empty cells between two columns."""


class Column(Struct, frozen=True):
    """One column of a list.

    It has at least `least` cells, and as many as its widest text needs up to `most` (0: exactly
    `least`). With `fills` it takes the room that is left. When room is short, columns go in the
    order of `drop`, highest first; 0 stays for ever, and nobody can hide it.

    `name` tells it from the others where columns are chosen and remembered; without one it is
    the title. `sort` is the `Order.column` that it stands for, empty if nothing sorts by it. A
    `rare` column is there only once a row has had something in it.
    """

    title: str
    least: int
    most: int = 0
    fills: bool = False
    right: bool = False
    middle: bool = False
    drop: int = 0
    name: str = ""
    sort: str = ""
    rare: bool = False

    def __post_init__(self) -> None:
        """Name the column after its title where nobody gave it a name."""
        if not self.name:
            force_setattr(self, "name", self.title)


def visible(columns: Sequence[Column], hidden: Collection[str] = ()) -> list[int]:
    """Return the indices of the columns that are not hidden; at least one stays."""
    kept = [
        index
        for index, column in enumerate(columns)
        if not column.drop or column.name not in hidden
    ]
    return kept or [0][: len(columns)]


def fit(
    columns: Sequence[Column],
    natural: Sequence[int],
    width: int,
    hidden: Collection[str] = (),
) -> list[tuple[int, int]]:
    """Return (index, cells) of the columns that fit into `width`, in their order.

    `natural` says how wide the widest text of each column is, `hidden` names those not wanted.
    """
    kept = visible(columns, hidden)

    def need() -> int:
        return sum(columns[index].least for index in kept) + GAP * (len(kept) - 1)

    while need() > width:
        losers = [index for index in kept if columns[index].drop]
        if not losers or len(kept) == 1:
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


def sorted_by(order: Order, column: str) -> Order:
    """Return the order after somebody picked a column: once to sort by it, again to turn it."""
    return Order(column, descending=order.column == column and not order.descending)


def next_order(columns: Sequence[Column], order: Order, hidden: Collection[str] = ()) -> Order:
    """Return the order by the next column on screen; after the last one the list's own order."""
    shown = (columns[index].sort for index in visible(columns, hidden))
    names = ["", *filter(None, shown)]
    at = names.index(order.column) if order.column in names else 0
    return Order(names[(at + 1) % len(names)])


def reversed_order(order: Order) -> Order:
    """Return the order turned round."""
    return Order(order.column, descending=not order.descending)


def known_order(columns: Sequence[Column], order: Order) -> Order:
    """Return the order if a column stands for it, else the list's own.

    What was remembered may come from another version.
    """
    known = not order.column or any(column.sort == order.column for column in columns)
    return order if known else Order()
