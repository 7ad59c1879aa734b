"""The longest path: against every path there is, and where two are as long."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from engine.criticalpath import longest_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Edges = list[tuple[int, int]]


def found(seconds: Sequence[float], edges: Edges) -> tuple[list[int], float]:
    return longest_path(seconds, [dep for dep, _ in edges], [task for _, task in edges])


@st.composite
def dags(draw: st.DrawFn) -> tuple[list[int], Edges]:
    """Small DAGs whose pieces stand in any order; whole seconds, so that sums are exact."""
    seconds = draw(st.lists(st.integers(0, 4), min_size=1, max_size=7))
    order = draw(st.permutations(range(len(seconds))))
    pairs = [(a, b) for at, b in enumerate(order) for a in order[:at]]
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=14)) if pairs else []
    return seconds, chosen


def every_path(pieces: int, edges: Edges) -> Iterator[list[int]]:
    after: Mapping[int, set[int]] = {
        piece: {b for a, b in edges if a == piece} for piece in range(pieces)
    }
    waiting = [[piece] for piece in range(pieces)]
    while waiting:
        path = waiting.pop()
        yield path
        waiting += [[*path, piece] for piece in after[path[-1]]]


@given(dags())
def test_no_path_takes_longer_and_of_equals_none_has_more_steps(
    dag: tuple[list[int], Edges],
) -> None:
    seconds, edges = dag
    path, total = found(seconds, edges)
    best, steps = max(
        (sum(seconds[one] for one in other), len(other))
        for other in every_path(len(seconds), edges)
    )
    assert total == best == sum(seconds[one] for one in path)
    assert len(path) == steps
    assert all(pair in edges for pair in pairwise(path))


def test_nothing_to_do_has_an_empty_path() -> None:
    assert found([], []) == ([], 0.0)


def test_where_nothing_takes_any_time_the_longest_chain_is_shown() -> None:
    assert found([0, 0, 0, 0], [(3, 0), (0, 2)]) == ([3, 0, 2], 0.0)


def test_of_equal_paths_the_one_that_stands_first_is_taken() -> None:
    assert found([1, 1, 1, 1], [(0, 2), (1, 2), (0, 3), (1, 3)]) == ([0, 2], 2.0)


def test_what_waits_in_a_circle_is_never_done() -> None:
    assert found([1, 9, 9, 9], [(1, 2), (2, 1), (2, 3)]) == ([0], 1.0)


def test_a_chain_of_a_hundred_thousand_is_no_matter_of_depth() -> None:
    pieces = 100_000
    path, total = found([1.0] * pieces, [(n, n + 1) for n in range(pieces - 1)])
    assert (path[0], path[-1], len(path), total) == (0, pieces - 1, pieces, float(pieces))
