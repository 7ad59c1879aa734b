"""What only a person can settle, the oldest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from engine.text import clean_text
from engine.views import AttentionRow
from tui import look
from tui.widgets.cells import Line, Tone
from tui.widgets.columns import Column
from tui.widgets.rows import RowList

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime


class NeedsList(RowList[AttentionRow]):
    """Blocked, failed, stale, orphaned, alerted: each thing once."""

    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("", 1, name="symbol"),
        Column("what", 6, 9, drop=2),
        Column("for", 5, right=True, name="since"),
        Column("subject", 14, 40, middle=True),
        Column("why", 20, fills=True, drop=1),
    )
    EMPTY = "nothing needs you"

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__(id="needs-list")
        self._now = now

    def key_of(self, row: AttentionRow) -> str:
        """Return what tells the need from others for as long as it lasts."""
        return row.key

    def cells_of(self, row: AttentionRow) -> Line:
        """Tell what needs a person."""
        symbol, word, tone = look.need_look(row.need)
        return (
            (symbol, tone),
            (word, tone),
            (look.since(row.since, self._now()), Tone.TEXT),
            (clean_text(row.subject), tone),
            (clean_text(row.words).strip(), Tone.DIM),
        )
