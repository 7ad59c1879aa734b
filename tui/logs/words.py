"""What is said about a log: in the head line, below it, and where nothing is to be read. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.text import clean_text, cut_middle
from tui import look
from tui.logs.file import Standing
from tui.widgets.bars import Piece
from tui.widgets.cells import Tone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.views import RunRow
    from tui.logs.viewport import Frame

_OTHER = {"stdout": "stderr", "stderr": "stdout"}


def why_empty(run: RunRow, stream: str, standing: Standing) -> str:
    """Return what would fill the log of a run, or why nothing will."""
    if run.outcome is None:
        return f"no output yet on {stream}"
    if standing is Standing.THERE:
        return f"this run wrote nothing to {stream}; e shows {_OTHER[stream]}"
    if run.exit_code is not None:
        # It had a process, so it had files.
        return "the files of this run were removed, by agentmux gc or by hand"
    return "this run left no output: it wrote none, or agentmux gc removed it"


def why_no_run(task_id: str, run_id: str | None) -> str:
    """Return why there is no run to show."""
    if run_id is not None:
        return "this run is not in the store any more"
    return f"{clean_text(task_id)} has not run yet: there is no log"


def head_pieces(
    task_id: str, runs: Sequence[RunRow], run: RunRow | None, stream: str, frame: Frame, width: int
) -> list[Piece]:
    """Return the head line: the task, which of its `runs` (newest first), which file of it."""
    name = cut_middle(clean_text(task_id), max(12, width - 48))
    pieces = [Piece((("agentmux", Tone.BOLD),), drop=9), Piece(((name, Tone.BOLD),))]
    if run is not None:
        symbol = look.run_symbol(run)
        words = f"{symbol} {run.outcome or 'running'}"
        pieces.append(Piece(((f"#{run.attempt}", Tone.TEXT),)))
        pieces.append(Piece(((words, look.tone_of(symbol)),)))
        if len(runs) > 1:
            text = f"run {len(runs) - runs.index(run)} of {len(runs)}"
            pieces.append(Piece(((text, Tone.DIM),), drop=4))
    pieces.append(Piece(((stream, Tone.TEXT),)))
    pieces.append(Piece(((look.memory(frame.size), Tone.DIM),), drop=3))
    if frame.follows and run is not None and run.outcome is None:
        pieces.append(Piece((("follows", Tone.RUNNING),)))
    return pieces


def where(frame: Frame) -> str:
    """Return where in the log one is."""
    if not frame.size:
        return ""
    parts = []
    if frame.standing is Standing.GONE:
        parts.append("the file was removed")
    if frame.chosen is not None:
        parts.append("selecting: y copies, esc ends")
    if frame.line is not None and frame.lines is not None:
        parts.append(f"line {frame.line:,} of {frame.lines:,}")
    else:
        parts.append(f"{frame.bottom * 100 // frame.size} %, counting lines")
    return " · ".join(parts)
