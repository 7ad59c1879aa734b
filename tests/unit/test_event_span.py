"""Which events there are: places and numbers, where old ones were forgotten and some were lost."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine.views import EventSpan


def test_without_events_there_is_no_place() -> None:
    assert EventSpan().total == 0
    assert EventSpan().place(1) is None


@given(st.sets(st.integers(1, 60), min_size=1))
def test_places_and_numbers_are_those_of_a_list_of_all_that_there_are(seqs: set[int]) -> None:
    there = sorted(seqs)
    span = EventSpan(there[0], there[-1], tuple(gaps(there)))
    assert span.total == len(there)
    assert [span.seq_at(place) for place in range(len(there))] == there
    assert [span.place(seq) for seq in range(62)] == [
        there.index(seq) if seq in seqs else None for seq in range(62)
    ]


def gaps(there: list[int]) -> list[tuple[int, int]]:
    """The stretches that are missing in between."""
    return [(one + 1, other - 1) for one, other in pairwise(there) if other > one + 1]
