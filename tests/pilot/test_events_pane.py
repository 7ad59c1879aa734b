"""The events pane: its filter, and the places of events where old ones are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.desk import desk
from support.screens import FakeQueries, event, task

from engine.model import EventType
from engine.views import EventSpan
from tui import matching

if TYPE_CHECKING:
    from support.desk import Desk

    from engine.model import Event


def happened(*seqs: int) -> list[Event]:
    """One event for each number, of the task that has it too; those with odd numbers failed."""
    kinds = (EventType.TASK_STARTED, EventType.TASK_FAILED)
    return [event(n, kinds[n % 2], 1000 - n % 1000, task_id=f"t-{n}") for n in seqs]


def store(*seqs: int) -> FakeQueries:
    return FakeQueries(all_tasks=[task("a")], all_events=happened(*seqs))


def told(at: Desk) -> list[str | None]:
    """The tasks of all events of the list, in their places; None where one was not read."""
    rows = at.app.main.event_rows
    return [row.task_id if (row := rows._row(n)) else None for n in range(rows.total)]


def under_the_cursor(at: Desk) -> tuple[int, str | None]:
    rows = at.app.main.event_rows
    return rows.cursor, rows.current.task_id if rows.current is not None else None


def caption(at: Desk) -> str:
    """What stands in the frame below the events."""
    return str(at.app.main.panes[2].border_subtitle)


async def filtered(at: Desk, text: str) -> None:
    await at.press("3", "/", *text, "enter")


# -- the filter ------------------------------------------------------------------------------


async def test_a_filter_shows_the_events_that_match_also_those_that_come() -> None:
    queries = store(*range(1, 11))
    async with desk(queries) as at:
        await filtered(at, "type:failed")
        assert told(at) == ["t-1", "t-3", "t-5", "t-7", "t-9"]
        assert "Events  type:task_failed" in at.screen
        queries.all_events += happened(11, 12)
        await at.change()
        assert told(at)[-2:] == ["t-9", "t-11"]
        await at.press("escape")
        assert len(told(at)) == 12


async def test_another_filter_takes_the_place_of_the_former() -> None:
    async with desk(store(*range(1, 11))) as at:
        await filtered(at, "type:failed")
        await at.press("/", "ctrl+u", *"task:t-4", "enter")
        assert told(at) == ["t-4"]


async def test_a_filter_that_finds_nothing_or_cannot_be_read_says_so() -> None:
    async with desk(store(*range(1, 11))) as at:
        await filtered(at, "task:xyzzy")
        assert "nothing matches task:xyzzy: esc clears the filter" in at.screen
        await at.press("/", "ctrl+u", *"type:fail")
        assert "fail" in at.app.main.event_filter.trouble
        await at.press("escape")
        assert len(told(at)) == 10


async def test_very_many_events_are_looked_through_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(matching, "CHUNK", 3)
    queries = store(*range(1, 21))
    async with desk(queries) as at:
        await filtered(at, "type:failed")
        assert queries.asked.count("event_seqs") >= 20 / 3
        assert told(at) == [f"t-{n}" for n in range(1, 21, 2)]
        assert "so far" not in caption(at)


async def test_the_cursor_stays_on_its_event_among_those_that_match() -> None:
    queries = store(*range(1, 41))
    async with desk(queries) as at:
        await filtered(at, "type:failed")
        await at.press("g", "j", "j")
        queries.all_events += happened(41, 42, 43)
        await at.change()
        assert under_the_cursor(at) == (2, "t-5")


async def test_the_events_of_another_store_are_looked_through_from_the_first() -> None:
    queries = store(*range(1, 11))
    async with desk(queries) as at:
        await filtered(at, "type:failed")
        queries.all_events = [
            event(1, EventType.TASK_STARTED, 1),
            event(2, EventType.TASK_FAILED, 1, task_id="new"),
        ]
        await at.change()
        assert told(at) == ["new"]


# -- places ----------------------------------------------------------------------------------


async def test_where_old_events_are_gone_the_list_begins_with_the_first_that_is_there() -> None:
    async with desk(store(*range(1001, 1031))) as at:
        await at.press("3")
        assert caption(at).endswith("follows · 30")
        await at.press("g")
        assert under_the_cursor(at) == (0, "t-1001")
        assert caption(at).endswith("at 1 · 30")
        await at.press("j", "pagedown")
        assert under_the_cursor(at)[1] == f"t-{1001 + under_the_cursor(at)[0]}"


@pytest.mark.parametrize("text", ["", "type:failed"])
async def test_the_cursor_stays_on_its_event_while_old_ones_are_forgotten(text: str) -> None:
    queries = store(*range(1, 201))
    async with desk(queries) as at:
        await (filtered(at, text) if text else at.press("3"))
        await at.press("g", *["pagedown"] * 4)
        place, meant = under_the_cursor(at)
        before = next(n for n, line in enumerate(at.lines) if f" {meant} " in f"{line} ")
        read = len(queries.asked)
        del queries.all_events[:20]
        await at.change()
        assert sum(name in {"events", "events_at"} for name in queries.asked[read:]) == 1
        assert under_the_cursor(at) == (place - (10 if text else 20), meant)
        assert next(n for n, line in enumerate(at.lines) if f" {meant} " in f"{line} ") == before
        await at.press("g")
        assert under_the_cursor(at) == (0, "t-21")


async def test_an_event_that_is_forgotten_under_the_cursor_leaves_it_at_the_first() -> None:
    queries = store(*range(1, 201))
    async with desk(queries) as at:
        await at.press("3", "g", "j", "j")
        del queries.all_events[:100]
        await at.change()
        assert under_the_cursor(at)[1] == f"t-{101 + under_the_cursor(at)[0]}"
        await at.press("g")
        assert under_the_cursor(at) == (0, "t-101")


async def test_events_that_were_lost_leave_no_holes_in_the_list() -> None:
    seqs = [*range(5, 50), *range(60, 61), *range(500, 600)]
    async with desk(store(*seqs)) as at:
        await at.press("3", "g")
        for _ in range(3):
            place, shown = under_the_cursor(at)
            assert shown == f"t-{seqs[place]}"
            await at.press("pagedown")
        assert caption(at).endswith(f" · {len(seqs)}")
        await at.press("G", "k")
        assert under_the_cursor(at) == (len(seqs) - 2, "t-598")


class Forgetful(FakeQueries):
    """A store that lacks events and has no note of it: it is damaged."""

    async def event_span(self) -> EventSpan:
        span = await super().event_span()
        return EventSpan(span.first, span.last)


async def test_in_a_damaged_store_a_key_still_acts_on_the_event_that_is_shown() -> None:
    queries = Forgetful(all_tasks=[task("a")], all_events=happened(*range(1, 30), *range(90, 150)))
    async with desk(queries) as at:
        await at.press("3", *["pageup"] * 7)
        _, meant = under_the_cursor(at)
        for _ in range(3):
            await at.change()
            assert under_the_cursor(at)[1] == meant
        await at.press("G")
        assert under_the_cursor(at)[1] == "t-149"


async def test_the_newest_event_of_a_damaged_store_is_on_the_screen() -> None:
    queries = Forgetful(all_tasks=[task("a")], all_events=happened(*range(1, 6), *range(90, 99)))
    async with desk(queries) as at:
        assert " t-98 " in at.screen
