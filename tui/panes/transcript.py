"""The text of a transcript: who said what and when, in the frames that its `Reader` gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from rich.style import Style

from engine.transcripts.telling import WHO, Mood
from tui import look
from tui.actions.model import Place
from tui.actions.table import motions
from tui.logs.said import SaidFile
from tui.logs.talk import TIME, SaidRow, Talk
from tui.panes.log import LogText
from tui.widgets.cells import Tone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from textual.binding import BindingType

    from tui.logs.rows import Row
    from tui.logs.viewport import Viewport

_WHO = {
    Mood.PLAIN: Tone.BOLD,
    Mood.QUIET: Tone.DIM,
    Mood.BUSY: Tone.RUNNING,
    Mood.GOOD: Tone.DONE,
    Mood.BAD: Tone.FAILED,
}
_TEXT = {
    Mood.PLAIN: Tone.TEXT,
    Mood.QUIET: Tone.DIM,
    Mood.BUSY: Tone.TEXT,
    Mood.GOOD: Tone.TEXT,
    Mood.BAD: Tone.FAILED,
}
_TITLE = Style(bold=True)
_MORE = " …"


class TranscriptText(LogText, inherit_bindings=False):
    """A transcript, a screenful of it at a time."""

    BINDINGS: ClassVar[list[BindingType]] = [*motions(Place.TRANSCRIPT)]

    @staticmethod
    def _made(path: Path) -> Viewport:
        return Talk(SaidFile(path))

    def tell_of_run(self, *, over: bool, sums: bool) -> None:
        """Say whether the run has ended, and whether its transcript alone knows what it took."""

        def tell(viewport: Viewport) -> None:
            assert isinstance(viewport, Talk)
            viewport.tell_of_run(over=over, sums=sums)

        self.ask(tell)

    def action_fold(self) -> None:
        """Show all of the entry that one is on, or fold it."""

        def fold(viewport: Viewport) -> None:
            assert isinstance(viewport, Talk)
            viewport.fold()

        self.ask(fold)

    def action_fold_all(self) -> None:
        """Fold all entries, or none."""

        def fold(viewport: Viewport) -> None:
            assert isinstance(viewport, Talk)
            viewport.fold_all()

        self.ask(fold)

    def _row_segments(self, row: Row, under: str) -> Iterator[Segment]:
        assert isinstance(row, SaidRow)
        if row.gutter > TIME + WHO:
            time = look.clock_time(row.at) if row.at is not None else ""
            yield Segment(time.ljust(TIME), self.tone(Tone.DIM, under))
        yield Segment(row.who.ljust(WHO + 2), self.tone(_WHO[row.mood], under))
        plain = self.tone(_TEXT[row.mood], under)
        left = row.title
        for segment in self._text_segments(row, plain):
            head, tail = segment.text[:left], segment.text[left:]
            left = max(0, left - len(segment.text))
            style = segment.style or plain
            if head:
                yield Segment(head, style + _TITLE)
            if tail:
                yield Segment(tail, style)
        if row.more:
            yield Segment(_MORE, self.tone(Tone.DIM, under))
