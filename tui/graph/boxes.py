"""The boxes of the graph: a task each, or a large fan of tasks folded into one.

A fan is a set of tasks with the same deps and the same dependents: seen from the rest of the DAG
they are one. Knows nothing of places and lines.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from engine.views import GraphNode

FAN = 6
"""Tasks of the same deps and dependents from which on they are folded."""


class Box(Struct, frozen=True):
    """One task, or a folded fan. `deps` and `dependents` are places in `Boxes.boxes`, ascending.

    `missing` counts deps that are not in the picture: gone, or too far away.
    """

    members: tuple[str, ...]
    deps: tuple[int, ...]
    dependents: tuple[int, ...]
    missing: int

    @property
    def key(self) -> str:
        """The id of the first member, which tells the box from all others."""
        return self.members[0]

    @property
    def folded(self) -> bool:
        """Whether this is a fan."""
        return len(self.members) > 1


class Boxes(Struct, frozen=True):
    """All boxes in the order of the tasks. `at` finds a task's box; `fans` its fan, if any."""

    boxes: tuple[Box, ...] = ()
    at: Mapping[str, int] | None = None
    fans: Mapping[str, tuple[str, ...]] | None = None

    def find(self, task_id: str) -> Box | None:
        """Return the box that a task is in."""
        index = (self.at or {}).get(task_id)
        return None if index is None else self.boxes[index]

    def fan(self, task_id: str) -> tuple[str, ...]:
        """Return the tasks that fold together with this one, folded or not; none without."""
        return (self.fans or {}).get(task_id, ())


def fold(nodes: Sequence[GraphNode], opened: Collection[str] = ()) -> Boxes:
    """Put tasks into boxes. Fans of FAN or more are folded unless a member is in `opened`."""
    fans = _fans(nodes)
    unfolded = {fans[task_id][0] for task_id in opened if task_id in fans}
    members: list[tuple[str, ...]] = []
    at: dict[str, int] = {}
    for node in nodes:
        fan = fans.get(node.id)
        if fan is None or fan[0] in unfolded:
            at[node.id] = len(members)
            members.append((node.id,))
        elif fan[0] == node.id:
            at.update(dict.fromkeys(fan, len(members)))
            members.append(fan)
    firsts = {row[0] for row in members}
    deps: list[tuple[int, ...]] = [()] * len(members)
    missing = [0] * len(members)
    dependents: list[list[int]] = [[] for _ in members]
    for node in nodes:
        if node.id not in firsts:
            continue  # a member of a fan has the deps of the first
        index = at[node.id]
        known = {at[dep] for dep in node.deps if dep in at}
        deps[index] = tuple(sorted(known))
        missing[index] = sum(1 for dep in set(node.deps) if dep not in at)
        for dep in known:
            dependents[dep].append(index)
    boxes = tuple(
        Box(row, deps[i], tuple(sorted(dependents[i])), missing[i]) for i, row in enumerate(members)
    )
    return Boxes(boxes, at, fans)


def _fans(nodes: Sequence[GraphNode]) -> dict[str, tuple[str, ...]]:
    dependents: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        for dep in node.deps:
            dependents[dep].append(node.id)
    alike: dict[tuple[frozenset[str], frozenset[str]], list[str]] = defaultdict(list)
    for node in nodes:
        key = (frozenset(node.deps), frozenset(dependents.get(node.id, ())))
        alike[key].append(node.id)
    found: dict[str, tuple[str, ...]] = {}
    for ids in alike.values():
        if len(ids) >= FAN:
            found.update(dict.fromkeys(ids, tuple(ids)))
    return found
