"""Reads when a limit resets from what people are told about it. Knows no CLI.

    Claude AI usage limit reached|1760000400          Unix time
    spend limit reached (daily; resets 2026-08-09 00:00 UTC)
    You've hit your session limit · resets 3:45pm (Europe/Berlin)     also: Mon 12:00am, Oct 12, 8am
    or try again at Nov 24th, 2026 3:05 PM            the time of this machine
    Your quota will reset after 8h44m7s               also: try again in 2 days 3 hours, in 11.2s

Sources: https://code.claude.com/docs/en/errors; `codex-rs/protocol/src/error.rs` of
https://github.com/openai/codex; `packages/core/src/utils/googleQuotaErrors.ts` of
https://github.com/google-gemini/gemini-cli.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo

FARTHEST = timedelta(days=8)
"""No limit that we know is longer than a week: what is farther was misread."""
MOMENT = timedelta(minutes=5)
"""How long ago a time may be and still be meant: it was read after it was written."""

_LOOK = 4000
"""Characters of a text that are looked at."""
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_UNITS = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}

# What announces a time; between it and the time there are a few words at most.
_LEAD = (
    r"\b(?:reset(?:s|ting)?|retry(?:ing)?|again|renews?|available|refresh(?:es)?|until|wait)\b"
    r"[^.|\d\n]{0,24}?"
)
_EPOCH = re.compile(r"(?:\||\breset\w{0,4}\W{1,4}(?:at )?)(\d{10}(?:\d{3})?)\b", re.IGNORECASE)
_ISO = re.compile(
    r"\b(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:\.\d+)? ?(Z\b|UTC\b|GMT\b|[+-]\d\d:?\d\d\b)?"
)
_PART = r"(\d{1,9}(?:\.\d{1,9})?) ?(w|d|h|m(?!s)|s|ms)"
_REST = r"(?:eeks?|ays?|ours?|rs?|inutes?|ins?|econds?|ecs?)?(?![a-z])"
_PARTS = re.compile(_PART, re.IGNORECASE)
_SPAN = re.compile(
    rf"{_LEAD}\b(?:in|after|for) (?:about )?((?:{_PART}{_REST}(?:,? and |, | )?){{1,6}})",
    re.IGNORECASE,
)
_TIME = (
    r"\b(?P<hour>\d\d?)(?::(?P<minute>\d\d)(?::\d\d)?)?"
    r"(?: ?(?P<half>[ap])\.?m\b\.?|(?<=:\d\d)(?!\d))"
    r"(?: ?\((?P<zone>[a-z][\w+-]{1,30}(?:/[\w+-]{1,30}){0,2})\)| ?(?P<utc>UTC|GMT|Z)\b)?"
)
_DATE = (
    rf"\b(?:(?P<weekday>{'|'.join(_DAYS)})[a-z]{{0,6}}"
    rf"|(?P<month>{'|'.join(_MONTHS)})[a-z]{{0,6}}\.? (?P<day>\d\d?)(?:st|nd|rd|th)?"
    r"(?:,? (?P<year>\d{4}))?)\b,?(?: at)? "
)
_CLOCK = re.compile(rf"{_LEAD}(?:{_DATE})?{_TIME}", re.IGNORECASE)
_FAULTS = (ValueError, OverflowError, OSError)


def reset_time(text: str, now: datetime, zone: tzinfo | None = None) -> datetime | None:
    """Return when the limit that a text tells of is over, in UTC; None if it does not say.

    `now` is aware. What is returned is never before `now`, nor farther than FARTHEST from it. A
    time of day without a zone is one of `zone` (None: this machine's).
    """
    text = text[:_LOOK]
    now = now.astimezone(UTC)
    for look in (_epochs, _dates, _spans, _clocks):
        for when in look(text, now, zone):
            if now - MOMENT <= when <= now + FARTHEST:
                return max(when, now)
    return None


def _epochs(text: str, _now: datetime, _zone: tzinfo | None) -> Iterator[datetime]:
    for found in _EPOCH.finditer(text):
        number = int(found[1])
        yield datetime.fromtimestamp(number if len(found[1]) == 10 else number / 1000, UTC)


def _dates(text: str, _now: datetime, zone: tzinfo | None) -> Iterator[datetime]:
    for day, time, offset in _ISO.findall(text):
        with suppress(*_FAULTS):
            if offset in {"UTC", "GMT"}:
                offset = "Z"  # noqa: PLW2901 - the same, as ISO has it
            when = datetime.fromisoformat(f"{day}T{time}{offset}")
            yield when.astimezone(UTC) if when.tzinfo else _utc(when, zone)


def _spans(text: str, now: datetime, _zone: tzinfo | None) -> Iterator[datetime]:
    for found in _SPAN.finditer(text):
        seconds = 0.0
        for number, unit in _PARTS.findall(found[1]):
            seconds += float(number) * _UNITS.get(unit.lower(), 0.001)
        if seconds <= FARTHEST.total_seconds():
            yield now + timedelta(seconds=seconds)


def _clocks(text: str, now: datetime, zone: tzinfo | None) -> Iterator[datetime]:
    for found in _CLOCK.finditer(text):
        where = UTC if found["utc"] else _zone_of(found["zone"]) or zone
        here = now.astimezone(where).replace(tzinfo=None)
        hour, half = int(found["hour"]), (found["half"] or "").lower()
        if half and hour <= 12:
            hour = hour % 12 + (12 if half == "p" else 0)
        for day in _days(found, here):
            with suppress(*_FAULTS):
                yield _utc(day.replace(hour=hour, minute=int(found["minute"] or 0)), where)


def _days(found: re.Match[str], here: datetime) -> Iterator[datetime]:
    """Return the days that a time may be one of, the earliest first; `here` is the local time."""
    today = here.replace(hour=0, minute=0, second=0, microsecond=0)
    if found["month"]:
        month, named = _MONTHS.index(found["month"].lower()) + 1, found["year"]
        for year in [int(named)] if named else range(here.year - 1, here.year + 2):
            with suppress(*_FAULTS):
                yield today.replace(year=year, month=month, day=int(found["day"]))
        return
    weekday = _DAYS.index(found["weekday"].lower()) if found["weekday"] else None
    for day in (today + timedelta(days=days) for days in range(-1, 9)):
        if weekday is None or day.weekday() == weekday:
            yield day


def _zone_of(name: str | None) -> tzinfo | None:
    """Return a zone by its name in the tz database; None if it is not there."""
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (*_FAULTS, ZoneInfoNotFoundError):
        return None


def _utc(local: datetime, zone: tzinfo | None) -> datetime:
    """Return a local time without a zone in UTC."""
    return (local.replace(tzinfo=zone) if zone else local).astimezone(UTC)
