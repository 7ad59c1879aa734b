"""The process tree of a run, live: what it costs, and how deep it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from engine.text import clean_text
from engine.views import ProcessRow
from tui import look
from tui.widgets.cells import Line, Tone
from tui.widgets.columns import Column
from tui.widgets.rows import RowList

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from datetime import datetime

_DEEPEST = 12
"""Steps to the right that are drawn; what lies deeper stays at the last."""


class ProcessesList(RowList[ProcessRow]):
    """The processes of one run, parents before their children."""

    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("pid", 6, 10, right=True),
        Column("cpu", 5, right=True),
        Column("mem", 5, right=True),
        Column("age", 5, right=True, drop=1),
        Column("command", 16, fills=True),
    )
    EMPTY = "it holds no task: no process runs for it"

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__(id="processes-list")
        self._now = now

    def key_of(self, row: ProcessRow) -> Hashable:
        """Return the pid and the start, which together no other process ever has."""
        return row.pid, row.started_at

    def cells_of(self, row: ProcessRow) -> Line:
        """Tell a process."""
        branch = "  " * (min(row.depth, _DEEPEST) - 1) + "└ " if row.depth else ""
        return (
            (str(row.pid), Tone.DIM),
            (look.cpu(row.cpu), Tone.TEXT),
            (look.memory(row.memory), Tone.TEXT),
            (look.since(row.started_at, self._now()), Tone.DIM),
            (branch + clean_text(row.command), Tone.TEXT),
        )
