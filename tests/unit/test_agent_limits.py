"""Promises about when a limit resets, as people are told it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.agents.limits import FARTHEST, MOMENT, reset_time

NOW = datetime(2026, 10, 9, 10, tzinfo=UTC)
"""A Friday; in Berlin it is noon."""
BERLIN = ZoneInfo("Europe/Berlin")
NOWS = st.datetimes(datetime(2020, 1, 2), datetime(2090, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Chatham", "Asia/Tokyo"]
).map(ZoneInfo)


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("Claude AI usage limit reached|1791543600", "2026-10-09 11:00:00"),
        ('{"resets_at": 1791543600}', "2026-10-09 11:00:00"),
        ("resetsAt: 1791543600000", "2026-10-09 11:00:00"),
        ("spend limit reached (daily; resets 2026-10-10 00:00 UTC)", "2026-10-10 00:00:00"),
        ("reset at 2026-10-09T13:00:00.123+02:00", "2026-10-09 11:00:00"),
        ("until 2026-10-09T13:00", "2026-10-09 11:00:00"),
        ("You've hit your session limit · resets 3:45pm (Europe/Berlin)", "2026-10-09 13:45:00"),
        ("You've hit your session limit · resets 9am (Europe/Berlin)", "2026-10-10 07:00:00"),
        ("resets 3pm (America/New_York)", "2026-10-09 19:00:00"),
        ("You've hit your weekly limit · resets Mon 12:00am", "2026-10-11 22:00:00"),
        ("resets Friday 9am", "2026-10-16 07:00:00"),
        ("You've hit your Opus limit · resets Oct 12, 8am", "2026-10-12 06:00:00"),
        ("resets Oct 12 at 4pm (Asia/Tokyo)", "2026-10-12 07:00:00"),
        ("or try again at 12:16 PM.", "2026-10-09 10:16:00"),
        ("Try again at Oct 12th, 2026 3:05 PM.", "2026-10-12 13:05:00"),
        ("resets 15:30", "2026-10-09 13:30:00"),
        ("resets 12am", "2026-10-09 22:00:00"),
        ("resets 8 p.m. UTC", "2026-10-09 20:00:00"),
        ("resets 3pm (No/Where)", "2026-10-09 13:00:00"),
        ("try again in 5m", "2026-10-09 10:05:00"),
        ("try again in 2 days 3 hours", "2026-10-11 13:00:00"),
        ("resets in 1 hour and 5 minutes", "2026-10-09 11:05:00"),
        ("Your quota will reset after 8h44m7s.]", "2026-10-09 18:44:07"),
        ("Please retry in 11.5s.", "2026-10-09 10:00:11.500000"),
        ("Suggested retry after 34s.", "2026-10-09 10:00:34"),
        ("Retrying after 6500ms...", "2026-10-09 10:00:06.500000"),
        # A moment ago is now.
        ("resets 11:58am", "2026-10-09 10:00:00"),
        ("limit reached|1791539999", "2026-10-09 10:00:00"),
    ],
)
def test_what_people_are_told(text: str, when: str) -> None:
    assert reset_time(text, NOW, BERLIN) == datetime.fromisoformat(when).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "", "try again later.", "Command failed after 34s", "retry in 3 attempts", "resets 3",
        "resets 25:00", "resets Oct 12", "resets Oct 25, 8am", "resets Feb 30, 8am",
        "limit reached|1760000400", "limit reached|9999999999", "resets 2025-01-01 00:00 UTC",
        "try again in 9 days", "try again in 999999999 weeks", "resets 2026-99-99 00:00",
        "error 1791543600", "line 12:30 of x.py",
    ],
)  # fmt: skip
def test_what_says_no_time_or_none_that_can_be_meant(text: str) -> None:
    assert reset_time(text, NOW, BERLIN) is None


def test_the_year_and_the_day_turn() -> None:
    eve = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
    assert reset_time("resets Jan 2, 8am", eve, UTC) == datetime(2027, 1, 2, 8, tzinfo=UTC)
    new = datetime(2027, 1, 1, 0, 1, tzinfo=UTC)
    assert reset_time("resets 11:59pm", new, UTC) == new


def test_the_clock_of_this_machine_counts_where_no_zone_is_named() -> None:
    local = (NOW + timedelta(hours=3)).astimezone()
    found = reset_time(f"try again at {local:%I:%M %p}", NOW)
    assert found == NOW + timedelta(hours=3)


@given(text=st.text(max_size=300), now=NOWS, zone=ZONES)
def test_nothing_makes_it_raise(text: str, now: datetime, zone: ZoneInfo) -> None:
    for words in (text, f"resets {text}", f"try again in {text}", f"reset at {text}"):
        found = reset_time(words, now, zone)
        assert found is None or now <= found <= now + FARTHEST


@given(
    text=st.from_regex(
        r"\A(resets|try again (at|in|after)) ?((Mon|Oct|Feb) ?)?[0-9]{1,4}[ :,hms]{0,2}[0-9]{0,2}"
        r" ?(am|pm|days|hours|[0-9]{4})?( \((UTC|Asia|\.\./x|Asia/Tokyo)\))?\Z"
    ),
    now=NOWS,
    zone=ZONES,
)
def test_nothing_that_looks_like_a_time_is_in_the_past_or_too_far(
    text: str, now: datetime, zone: ZoneInfo
) -> None:
    found = reset_time(text, now, zone)
    assert found is None or (now <= found <= now + FARTHEST and found.tzinfo is UTC)


@given(ahead=st.integers(0, 7 * 24 * 60), now=NOWS, zone=ZONES)
def test_a_time_that_is_written_is_the_time_that_is_read(
    ahead: int, now: datetime, zone: ZoneInfo
) -> None:
    meant = (now + timedelta(minutes=ahead + 1)).replace(second=0, microsecond=0)
    local = meant.astimezone(zone)
    # An hour that comes twice, when clocks are set back, is told the same way twice.
    assert abs(
        (reset_time(f"resets {local:%b %d, %Y %I:%M%p}", now, zone) or now) - max(meant, now)
    ) <= timedelta(hours=1)
    assert reset_time(f"resets {meant:%Y-%m-%d %H:%M} UTC", now, zone) == max(meant, now)
    assert reset_time(f"limit reached|{meant.timestamp():.0f}", now, zone) == max(meant, now)
    after = reset_time(f"reset after {ahead // 60}h{ahead % 60}m0s", now, zone)
    assert after == now + timedelta(minutes=ahead)


@given(hour=st.integers(1, 12), half=st.sampled_from(["am", "pm"]), now=NOWS, zone=ZONES)
def test_a_time_of_day_is_the_next_one(hour: int, half: str, now: datetime, zone: ZoneInfo) -> None:
    found = reset_time(f"resets {hour}{half}", now, zone)
    assert found is not None
    assert found - now <= timedelta(hours=25)
    if found > now:
        assert found.astimezone(zone).strftime("%I%p").lstrip("0").lower() in {
            f"{hour}{half}",
            # An hour that is left out, when clocks are set forward, is the one after it.
            f"{hour % 12 + 1}{half}",
        }
    else:
        assert reset_time(f"resets {hour}{half}", now - MOMENT, zone)
