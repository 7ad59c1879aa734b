"""Workers that have gone silent: who, since when, is the process alive, what do they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from engine.text import clean_text
from engine.views import WorkerRow
from tui import look
from tui.widgets.cells import Line, Tone
from tui.widgets.columns import Column
from tui.widgets.rows import RowList

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime


class StaleList(RowList[WorkerRow]):
    """Live workers without a sign of life."""

    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("", 1, name="status"),
        Column("worker", 8, 24, middle=True),
        Column("silent", 6, right=True),
        Column("process", 7),
        Column("pid", 5, 8, right=True, drop=2),
        Column("holds", 8, 48, fills=True, middle=True),
        Column("lease", 5, right=True, drop=1),
    )
    EMPTY = "every worker gives signs of life"
    MARKS = True

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__(id="stale-list")
        self._now = now

    def key_of(self, row: WorkerRow) -> str:
        """Return the worker's id."""
        return row.id

    def cells_of(self, row: WorkerRow) -> Line:
        """Tell a stale worker."""
        now = self._now()
        return (
            (look.STALE, Tone.STALE),
            (clean_text(row.id), Tone.STALE),
            (look.since(row.beat_at, now), Tone.STALE),
            ("alive" if row.alive else "gone", Tone.TEXT),
            (str(row.pid), Tone.DIM),
            (clean_text(row.task_id or "nothing"), Tone.TEXT if row.task_id else Tone.DIM),
            (look.until(row.lease_until, now) if row.task_id else "", Tone.DIM),
        )
