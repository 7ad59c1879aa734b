"""What happened, newest at the end."""

from __future__ import annotations

from typing import ClassVar

from engine.model import Event
from engine.narrate import describe
from tui import look
from tui.widgets.cells import Line, Tone
from tui.widgets.columns import Column
from tui.widgets.rows import RowList


class EventsList(RowList[Event]):
    """A window of the event log; it follows the end until one scrolls."""

    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("time", 8),
        Column("", 1),
        Column("what", 10, fills=True),
    )
    EMPTY = "no events yet: seeding a DAG writes the first"
    HEADER = False
    FOLLOWS = True

    def __init__(self) -> None:
        super().__init__(id="events-list")

    def key_of(self, row: Event) -> int:
        """Return the event's number."""
        return row.seq

    def cells_of(self, row: Event) -> Line:
        """Tell an event."""
        symbol, tone, words = look.event_tones(row)
        return (look.clock_time(row.ts), Tone.DIM), (symbol, tone), (describe(row), words)
