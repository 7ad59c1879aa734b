"""The tasks: what runs, what broke, what comes next, and for what waits the reason in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from engine.model import ACTIVE, State
from engine.text import clean_text
from engine.views import TaskRow
from tui import look
from tui.widgets.cells import Line, Tone
from tui.widgets.columns import Column
from tui.widgets.rows import RowList

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime


class TasksList(RowList[TaskRow]):
    """A window of the tasks in screen order. Set the facts around them before `put`."""

    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("", 1, name="state", sort="state"),
        Column("id", 16, 34, middle=True, sort="id"),
        Column("name", 16, 32, drop=6, sort="name"),
        Column("agent", 6, 14, middle=True, drop=4, sort="agent"),
        Column("worker", 8, 18, middle=True, drop=5, sort="worker"),
        Column("try", 3, 7, right=True, drop=2, sort="try"),
        Column("pri", 3, 6, right=True, drop=3, name="priority", sort="priority", rare=True),
        Column("time", 5, right=True, sort="time"),
        Column("now / why", 24, 64, fills=True, drop=1, name="why"),
    )
    EMPTY = "no tasks: `agentmux-tui DAG` seeds a DAG file"
    MARKS = True

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__(id="tasks-list")
        self._now = now
        self._held: Collection[str] = ()
        self._notes: Mapping[str, str] = {}
        self._known: Mapping[str, State] = {}
        self._idle: Mapping[str, bool] | None = None

    def facts(
        self,
        held: Collection[str],
        notes: Mapping[str, str],
        known: Mapping[str, State],
        idle: Mapping[str, bool] | None,
    ) -> None:
        """Say what else is known: held agents, workers' notes by task, states of tasks.

        `idle`: whether an agent that has workers has an idle one; None if nobody knows.
        """
        self._held, self._notes, self._known, self._idle = held, notes, known, idle

    def key_of(self, row: TaskRow) -> str:
        """Return the task's id."""
        return row.id

    def ages(self, row: TaskRow) -> bool:
        """Say whether something on the row counts up or down."""
        return row.state in ACTIVE or row.not_before is not None

    def cells_of(self, row: TaskRow) -> Line:
        """Tell a task."""
        now = self._now()
        symbol = look.task_symbol(row, now)
        tone = look.tone_of(symbol)
        quiet = Tone.DIM if row.state in {State.DONE, State.CANCELLED} else Tone.TEXT
        reason = look.why(
            row, now, held=self._held, notes=self._notes, known=self._known, idle=self._idle
        )
        return (
            (symbol, tone),
            (clean_text(row.id), tone),
            (
                "" if row.name == row.id else clean_text(row.name),
                quiet if tone is not Tone.DIM else tone,
            ),
            (clean_text(row.agent), Tone.DIM),
            (clean_text(row.claimed_by or row.worker_id or ""), Tone.DIM),
            (look.tries(row), Tone.DIM),
            (str(row.priority or ""), Tone.DIM),
            (look.spent(row, now), Tone.TEXT if tone is Tone.RUNNING else Tone.DIM),
            (reason, look.why_tone(row)),
        )
