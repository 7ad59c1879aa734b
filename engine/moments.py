"""Times as people type them: ages such as 30d, hours of today, dates. Pure but for the local zone.

A time without a zone is read in the zone in which every time is shown: the machine's own.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from typing import Final

from engine.errors import ValidationError

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_AGE = re.compile(r"(\d{1,12})([smhd])", re.ASCII)
_OLDEST = timedelta(days=36500)
_HOUR = re.compile(r"\d\d?:\d\d(?::\d\d)?", re.ASCII)
_DATE = re.compile(
    r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:\d\d)?)?",
    re.ASCII | re.IGNORECASE,
)
_SPAN = re.compile(r"([<>])(\d{1,9}(?:\.\d{1,3})?)(ms|[smhd])", re.ASCII)


def parse_age(text: str) -> timedelta:
    """Read an age such as 30d, 12h, 90m or 45s.

    Raises:
        ValidationError: it is none, or more than 100 years.

    """
    found = _AGE.fullmatch(text.strip())
    if found is None:
        raise ValidationError(
            f"{text!r} is no age; write a whole number and a unit: 30d, 12h, 90m or 45s"
        )
    seconds = int(found[1]) * _UNITS[found[2]]
    if seconds > _OLDEST.total_seconds():
        raise ValidationError(f"{text!r} is more than 100 years; write a smaller age")
    return timedelta(seconds=seconds)


def parse_moment(text: str, now: datetime) -> datetime:
    """Read a moment, in UTC: `2h` ago, `10:12` today, `2026-03-14`, `2026-03-14T10:12[:46][Z]`.

    A date alone is its first moment. `now` is what ages and today are reckoned from.

    Raises:
        ValidationError: it is none.

    """
    if _AGE.fullmatch(text):
        return now - parse_age(text)
    try:
        if _HOUR.fullmatch(text):
            hour = time.fromisoformat(text.zfill(8 if text.count(":") == 2 else 5))
            return datetime.combine(now.astimezone().date(), hour).astimezone(UTC)
        if _DATE.fullmatch(text):
            return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        pass  # it looks like a time, but no clock or calendar ever shows it
    raise ValidationError(
        f"{text!r} is no time; write 2026-03-14, 2026-03-14T10:12, 10:12 (today), or how long ago: "
        "45s, 30m, 2h, 3d"
    )


def parse_span(text: str) -> tuple[str, float]:
    """Read how long something took: `>90s`, `<1.5m`, `>250ms`. Return `<` or `>`, and seconds.

    Raises:
        ValidationError: it is none.

    """
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValidationError(
            f"{text!r} is no span; write < or >, a number and a unit: >90s, <2m, >1.5h"
        )
    unit = 0.001 if found[3] == "ms" else _UNITS[found[3]]
    return found[1], float(found[2]) * unit
