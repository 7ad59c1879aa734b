"""Finding tasks of the graph by id or name: in which order, and which one comes next. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from engine.text import clean_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from engine.views import GraphNode
    from tui.graph.scene import Scene
    from tui.logs.search import Needle


class Sought(Struct, frozen=True):
    """What is looked for, as it was typed, or why it cannot be. Without a needle, nothing is."""

    needle: Needle | None = None
    text: str = ""
    trouble: str = ""

    def words(self, order: Sequence[str], here: str | None) -> str:
        """Say which of the matches in `order` the cursor is on, if it is on one."""
        if self.needle is None:
            return self.trouble
        text = clean_text(self.text)
        if not order:
            return f"no task matches {text}"
        nth = f"{order.index(here) + 1:,} of " if here in order else ""
        return f"{text}: {nth}{len(order):,}"


def matches(nodes: Iterable[GraphNode], needle: Needle) -> frozenset[str]:
    """Return the ids of the tasks in whose id or name the needle is, as one sees them."""
    return frozenset(
        node.id
        for node in nodes
        if needle.first(clean_text(node.id)) is not None
        or (node.name != node.id and needle.first(clean_text(node.name)) is not None)
    )


def in_order(ids: Iterable[str], scene: Scene, *, by_line: bool) -> list[str]:
    """Return tasks as they stand: down the columns from left to right, or `by_line` alone."""
    places: list[tuple[tuple[int, int], str]] = []
    for task_id in ids:
        box = scene.boxes.find(task_id)
        spot = scene.spot(box.key) if box is not None else None
        if spot is not None:
            places.append(((0 if by_line else spot.x, spot.y), task_id))
    places.sort(key=lambda place: place[0])  # stable: the tasks of a fan stay as they are
    return [task_id for _, task_id in places]


def next_match(
    order: Sequence[str], found: Collection[str], start: str | None, step: int
) -> str | None:
    """Return the first match from `start` on: down the `order` (1), or up (-1), and round it.

    With `step` 0 that is `start` itself if it matches, else the first one after it. None: nothing
    matches.
    """
    at = order.index(start) if start in order else -1
    way = step or 1
    places = range(0 if step == 0 else 1, len(order) + 1)
    around = (order[(at + way * place) % len(order)] for place in places)
    return next((task_id for task_id in around if task_id in found), None)
