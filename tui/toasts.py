"""What a toast shows, and for how long."""

from __future__ import annotations

from textual.notifications import Notification

_SHORTEST = 0.01
"""Seconds at least for which a toast that is made stays."""


class Shown(Notification):
    """A notification whose toast always has some time left.

    Textual 8.2 asks whether one has expired, and then makes its toast, with a timer for what is
    left of its time. Where it expired in between, that is less than nothing: such a timer counts
    from now backwards and never pauses, and the event loop stands still, with all heartbeats.
    """

    @property
    def time_left(self) -> float:
        """Seconds until it expires, never none."""
        return max(super().time_left, _SHORTEST)

    @property
    def has_expired(self) -> bool:
        """Whether its time is over."""
        return super().time_left <= 0
