"""Finds the cycles of a graph in time that grows with its size only, and without recursion.

A graph is a list: `graph[i]` holds the numbers of the nodes that node i points to. Pure.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Graph = list[list[int]]


def find_cycles(graph: Graph) -> list[list[int]]:
    """Return one shortest cycle for each knot of the graph, from its lowest number round to it.

    A knot is a strongly connected component of two or more nodes; a node that points to
    itself is none. `[0, 1, 0]` means that 0 points to 1 and 1 to 0. Without cycles: [].
    """
    sources: Graph = [[] for _ in graph]
    for node, targets in enumerate(graph):
        for target in targets:
            sources[target].append(node)
    left = _never_free(graph, sources)
    return [_shortest_round(graph, knot) for knot in _knots(graph, sources, left)]


def _never_free(graph: Graph, sources: Graph) -> list[int]:
    """Return the nodes that are left when nodes that only point to taken ones are taken away."""
    waiting = [len(targets) for targets in graph]
    free = [node for node, count in enumerate(waiting) if not count]
    for node in free:  # grows while it is walked
        for source in sources[node]:
            waiting[source] -= 1
            if not waiting[source]:
                free.append(source)
    return [node for node, count in enumerate(waiting) if count]


def _knots(graph: Graph, sources: Graph, roots: Sequence[int]) -> Iterator[list[int]]:
    """Yield the strongly connected components of two or more nodes (Kosaraju's two walks)."""
    order = _finishing_order(graph, roots)
    left = set(order)
    for node in reversed(order):
        if node not in left:
            continue
        left.remove(node)
        knot = [node]
        for member in knot:  # grows while it is walked
            for source in sources[member]:
                if source in left:
                    left.remove(source)
                    knot.append(source)
        if len(knot) > 1:
            yield knot


def _finishing_order(graph: Graph, roots: Sequence[int]) -> list[int]:
    """Return the nodes that the roots reach, each after all that it alone leads to."""
    seen: set[int] = set()
    finished: list[int] = []
    for root in roots:
        if root in seen:
            continue
        seen.add(root)
        trail = [(root, iter(graph[root]))]
        while trail:
            node, targets = trail[-1]
            target = next((target for target in targets if target not in seen), None)
            if target is None:
                finished.append(node)
                trail.pop()
            else:
                seen.add(target)
                trail.append((target, iter(graph[target])))
    return finished


def _shortest_round(graph: Graph, knot: Sequence[int]) -> list[int]:
    """Return the shortest way from the knot's lowest node back to itself."""
    members = set(knot)
    start = min(knot)
    came_from: dict[int, int] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for target in graph[node]:
            if target == start:
                way = [start, node]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if target in members and target not in came_from:
                came_from[target] = node
                queue.append(target)
    raise AssertionError("every node of a knot lies on a cycle")
