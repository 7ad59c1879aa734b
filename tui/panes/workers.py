"""Who works, on what, and how it goes."""

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


class WorkersList(RowList[WorkerRow]):
    """All live workers, of this process and of others."""

    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("", 1),
        Column("worker", 8, 24, middle=True),
        Column("task", 10, 48, middle=True),
        Column("run", 5, right=True),
        Column("lease", 5, right=True, drop=2),
        Column("♥", 4, 5, right=True),
        Column("note", 0, fills=True, drop=3),
    )
    EMPTY = "no workers: `agentmux worker --agent A --worker-id W` starts one"

    def __init__(self, now: Callable[[], datetime], stale_after: float) -> None:
        super().__init__(id="workers-list")
        self._now = now
        self._stale_after = stale_after

    def key_of(self, row: WorkerRow) -> str:
        """Return the worker's id."""
        return row.id

    def cells_of(self, row: WorkerRow) -> Line:
        """Tell a worker."""
        now = self._now()
        health = look.health(row, now, self._stale_after)
        symbol, tone = look.worker_look(health)
        holds = row.task_id is not None
        task = clean_text(row.task_id) if row.task_id is not None else health.value
        note = clean_text(row.note)
        return (
            (symbol, tone),
            (clean_text(row.id), tone if health is not look.Health.IDLE else Tone.TEXT),
            (task, Tone.TEXT if holds else Tone.DIM),
            (look.since(row.run_started_at, now) if holds else "", Tone.TEXT),
            (look.until(row.lease_until, now) if holds else "", Tone.DIM),
            (look.since(row.beat_at, now), tone if health is look.Health.STALE else Tone.DIM),
            (note, Tone.DIM),
        )
