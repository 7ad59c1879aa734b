"""Events that a filter finds: each is looked at once, and has a place among those that match."""

from __future__ import annotations

from support.screens import NOW, FakeQueries, event

from engine.filters import EVENT_FIELDS, parse_filter
from engine.model import EventType
from tui.matching import Matching

FAILED = parse_filter("type:failed", EVENT_FIELDS, now=NOW)


def store(*seqs: int) -> FakeQueries:
    """Events with these numbers; those with odd ones failed."""
    kinds = (EventType.TASK_STARTED, EventType.TASK_FAILED)
    return FakeQueries(all_events=[event(n, kinds[n % 2], 1) for n in seqs])


async def test_an_event_that_does_not_match_has_no_place() -> None:
    found = Matching(FAILED)
    assert await found.extend(store(*range(1, 11)), 1, 10)
    assert [found.place(seq) for seq in (1, 2, 3, 99)] == [0, None, 1, None]


async def test_what_was_forgotten_is_not_looked_for_and_has_no_place_any_more() -> None:
    queries, found = store(*range(1, 11)), Matching(FAILED)
    await found.extend(queries, 1, 10)
    del queries.all_events[:4]
    assert await found.extend(queries, 5, 10)
    assert [found.place(seq) for seq in (3, 5, 9)] == [None, 0, 2]
    late = Matching(FAILED)
    assert await late.extend(store(10**9 + 1), 10**9 + 1, 10**9 + 1), "in one piece"
    assert late.place(10**9 + 1) == 0
