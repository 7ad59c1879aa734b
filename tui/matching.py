"""Which events a filter finds, kept as their numbers: an event is looked at once, ever.

A filter over a million events costs one scan in pieces; afterwards only what is new is looked at,
and the list has a true length and true places.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.filters import Filter
    from tui.ports import Queries

CHUNK = 50_000
"""Events that one query looks at."""


class Matching:
    """The numbers of the events that pass `where`, as far as they were looked at."""

    def __init__(self, where: Filter) -> None:
        self.where = where
        self.seqs = array("q")
        self.upto = 0

    async def extend(self, queries: Queries, first: int, last: int) -> bool:
        """Look at the next events, of those from number `first` to `last` that there are.

        Return whether that was all of them.
        """
        if last < self.upto:
            # Another database: it was rebuilt, or the state folder was replaced.
            self.seqs, self.upto = array("q"), 0
        # What was forgotten in the meantime has no place any more.
        del self.seqs[: bisect_left(self.seqs, first)]
        self.upto = max(self.upto, first - 1)
        if last > self.upto:
            upto = min(last, self.upto + CHUNK)
            self.seqs.extend(await queries.event_seqs(self.where, after=self.upto, upto=upto))
            self.upto = upto
        return self.upto >= last

    def place(self, seq: int) -> int | None:
        """Return the row of an event, None if it does not match."""
        at = bisect_left(self.seqs, seq)
        return at if at < len(self.seqs) and self.seqs[at] == seq else None
