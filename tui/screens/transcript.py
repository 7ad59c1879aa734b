"""The transcript of a run: what its agent said and did, while it does or long after.

Runs, searching, copying and the pager are those of the log screen; what is read is another file,
told in other rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from engine.model import Spending
from engine.narrate import describe_spending
from engine.transcripts.transcript import LINES
from tui.actions.model import Place
from tui.logs import words
from tui.logs.said import SaidSearch
from tui.logs.talk import SaidFrame
from tui.panes.transcript import TranscriptText
from tui.screens.log import LogScreen
from tui.widgets.cells import Tone

if TYPE_CHECKING:
    from pathlib import Path

    from engine.growing import Standing
    from engine.views import RunRow
    from tui.logs.search import Search
    from tui.logs.viewport import Frame
    from tui.panes.log import LogText
    from tui.widgets.bars import Piece


class TranscriptScreen(LogScreen):
    """The transcript of one run. Without a `run_id`, that of the task's newest run."""

    PLACE = Place.TRANSCRIPT
    TITLED = "Transcript"
    TEXT: ClassVar[type[LogText]] = TranscriptText
    SEARCH: ClassVar[type[Search]] = SaidSearch

    def _file_in(self, folder: Path) -> Path:
        return folder / LINES

    async def load(self, *, changed: bool) -> None:
        """Read which runs there are, and whether the one that is shown is over."""
        await super().load(changed=changed)
        self._tell_of_run()

    def _go_to_run(self, run_id: str) -> None:
        super()._go_to_run(run_id)
        self._tell_of_run()

    def _tell_of_run(self) -> None:
        run = self.run
        assert isinstance(self.text, TranscriptText)
        if run is not None:
            sums = run.spending == Spending()
            self.text.tell_of_run(over=run.outcome is not None, sums=sums)

    def _head_pieces(self, frame: Frame) -> list[Piece]:
        spent = self._spent(frame)
        what = ((spent, Tone.TEXT),) if spent else ()
        return words.head_pieces(self._task_id, self._runs, self.run, what, frame, self.size.width)

    def _spent(self, frame: Frame) -> str:
        """Tell what the run took: as the store has it, or until then its transcript."""
        told = frame.spending if isinstance(frame, SaidFrame) else Spending()
        if self.run is not None and self.run.spending != Spending():
            told = self.run.spending
        return describe_spending(told)

    def _why_empty(self, run: RunRow, standing: Standing) -> str:
        return words.why_silent(run, standing)
