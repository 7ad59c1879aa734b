"""Who works, on what, how it goes, and what it takes; and which agents others have started."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from engine.text import clean_text
from engine.views import ExternalRow, Usage, WorkerRow
from tui import look
from tui.widgets.cells import Line, Tone
from tui.widgets.columns import Column
from tui.widgets.rows import RowList

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime


class WorkersList(RowList[WorkerRow | ExternalRow]):
    """All live workers, of this process and of others, then external agents.

    Set `usage` (by run) before `put`.
    """

    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("", 1, name="status"),
        Column("worker", 8, 24, middle=True),
        Column("agent", 6, 12, middle=True, drop=6),
        Column("task", 10, 48, middle=True),
        Column("run", 5, right=True),
        Column("lease", 5, right=True, drop=2),
        Column("♥", 4, 5, right=True, name="heartbeat"),
        Column("cpu", 4, right=True, drop=3, rare=True),
        Column("mem", 4, right=True, drop=4, rare=True),
        Column("note", 0, fills=True, drop=5),
    )
    EMPTY = "no workers: a adds one, or `agentmux worker --agent A`"
    AFTER_SERVICES = "workers start once all services are ready; a starts one now"
    MARKS = True

    def __init__(self, now: Callable[[], datetime], stale_after: float) -> None:
        super().__init__(id="workers-list")
        self._now = now
        self._stale_after = stale_after
        self.usage: Mapping[str, Usage] = {}

    @property
    def worker(self) -> WorkerRow | None:
        """The worker under the cursor, None if there is none."""
        row = self.current
        return row if isinstance(row, WorkerRow) else None

    @property
    def external(self) -> ExternalRow | None:
        """The external agent under the cursor, None if there is none."""
        row = self.current
        return row if isinstance(row, ExternalRow) else None

    def key_of(self, row: WorkerRow | ExternalRow) -> str:
        """Return the id of the worker or agent: no two have the same."""
        return row.id

    def cells_of(self, row: WorkerRow | ExternalRow) -> Line:
        """Tell a worker or an agent."""
        return self._external(row) if isinstance(row, ExternalRow) else self._worker(row)

    def _external(self, row: ExternalRow) -> Line:
        where = (row.tmux or "") if row.pid is None else f"pid {row.pid}"
        return (
            (look.EXTERNAL, Tone.TEXT),
            (clean_text(row.id), Tone.TEXT),
            (clean_text(row.type), Tone.DIM),
            ("external " + clean_text(where), Tone.DIM),
            *[("", Tone.TEXT)] * 2,
            (look.since(row.beat_at, self._now()), Tone.DIM),
            *[("", Tone.TEXT)] * 2,
            (look.meta_of(row), Tone.DIM),
        )

    def _worker(self, row: WorkerRow) -> Line:
        now = self._now()
        health = look.health(row, now, self._stale_after)
        symbol, tone = look.worker_look(health)
        holds = row.task_id is not None
        task = clean_text(row.task_id) if row.task_id is not None else health.value
        used = self.usage.get(row.run_id) if row.run_id is not None else None
        return (
            (symbol, tone),
            (clean_text(row.id), tone if health is not look.Health.IDLE else Tone.TEXT),
            (clean_text(row.agent), Tone.DIM),
            (task, Tone.TEXT if holds else Tone.DIM),
            (look.since(row.run_started_at, now) if holds else "", Tone.TEXT),
            (look.until(row.lease_until, now) if holds else "", Tone.DIM),
            (look.since(row.beat_at, now), tone if health is look.Health.STALE else Tone.DIM),
            ("" if used is None else look.cpu(used.cpu), Tone.TEXT),
            ("" if used is None else look.memory(used.memory), Tone.TEXT),
            (clean_text(row.note), Tone.DIM),
        )
