"""Runs: who tried what, when, for how long, and how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from engine.text import clean_text
from engine.views import RunRow
from tui import look
from tui.widgets.cells import Line, Tone
from tui.widgets.columns import Column
from tui.widgets.rows import RowList

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime


class RunsList(RowList[RunRow]):
    """A window of the runs, newest first unless they are sorted otherwise."""

    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("", 1, name="state"),
        Column("started", 12, sort="started"),
        Column("task", 16, 40, middle=True, sort="task"),
        Column("agent", 6, 14, middle=True, drop=5, sort="agent"),
        Column("worker", 8, 18, middle=True, drop=4, sort="worker"),
        Column("try", 3, 5, right=True, drop=7, sort="try"),
        Column("outcome", 9, drop=2, sort="outcome"),
        Column("took", 5, right=True, drop=1, sort="took"),
        Column("cost", 6, right=True, drop=6, sort="cost"),
        Column("exit", 4, right=True, drop=8),
        Column("error", 12, 72, fills=True, drop=3),
    )
    EMPTY = "no run yet: a worker's first claim begins one"
    NEWEST_FIRST = True

    def __init__(self, now: Callable[[], datetime], *, id: str) -> None:  # noqa: A002 - Textual's own name for it
        super().__init__(id=id)
        self._now = now

    def key_of(self, row: RunRow) -> str:
        """Return the run's id."""
        return row.id

    def ages(self, row: RunRow) -> bool:
        """Say whether the run goes on."""
        return row.outcome is None

    def cells_of(self, row: RunRow) -> Line:
        """Tell a run."""
        now = self._now()
        symbol = look.run_symbol(row)
        tone = look.tone_of(symbol)
        going = row.outcome is None
        loud = tone in {Tone.FAILED, Tone.HUMAN}
        return (
            (symbol, tone),
            (look.day_time(row.claimed_at, now), Tone.DIM),
            (clean_text(row.task_id), tone if going or loud else Tone.TEXT),
            (clean_text(row.agent), Tone.DIM),
            (clean_text(row.worker_id), Tone.DIM),
            (f"#{row.attempt}", Tone.DIM),
            (look.run_words(row), tone),
            (look.run_took(row, now), Tone.TEXT),
            (look.run_cost(row), Tone.TEXT),
            ("" if row.exit_code is None else str(row.exit_code), tone if loud else Tone.DIM),
            (clean_text(row.error or "").strip(), tone if loud else Tone.DIM),
        )
