"""Time, as an argument. Nothing else in the engine asks the system what time it is."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the engine needs of time; tests hand in one that they move by hand."""

    def now(self) -> datetime:
        """Return the wall clock, in UTC."""

    def monotonic(self) -> float:
        """Return seconds that never go back; only differences mean something."""

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`; zero only lets others run."""


class SystemClock:
    """The real thing."""

    def now(self) -> datetime:
        """Return the wall clock, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the monotonic clock, in seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of real time."""
        import asyncio  # noqa: PLC0415 - a guard process that never sleeps so must stay small

        await asyncio.sleep(seconds)


def to_iso(moment: datetime) -> str:
    """Write a UTC moment as ISO 8601 with milliseconds and `Z` (24 characters; sorts as text)."""
    return moment.isoformat(timespec="milliseconds")[:23] + "Z"


def from_iso(text: str) -> datetime:
    """Read what `to_iso` wrote."""
    return datetime.fromisoformat(text)


def to_stamp(moment: datetime) -> str:
    """Write a UTC moment for a file name: `20261120T101112123Z`."""
    return moment.strftime("%Y%m%dT%H%M%S") + f"{moment.microsecond // 1000:03d}Z"
