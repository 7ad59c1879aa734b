"""What is said about a log: in the head line, below it, and where nothing is to be read. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.growing import Standing
from engine.text import clean_text, cut_middle
from engine.views import TRANSCRIBED
from tui import look
from tui.widgets.bars import Piece
from tui.widgets.cells import Tone, line_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.views import RunRow
    from tui.logs.viewport import Frame
    from tui.widgets.cells import Line

_OTHER = {"stdout": "stderr", "stderr": "stdout"}


def why_empty(run: RunRow, stream: str, standing: Standing) -> str:
    """Return what would fill the log of a run, or why nothing will."""
    if stream == "stdout" and run.kind in TRANSCRIBED:
        return "what an agent writes to stdout is its transcript: t shows it, e shows stderr"
    if run.outcome is None:
        return f"no output yet on {stream}"
    if standing is Standing.THERE:
        return f"this run wrote nothing to {stream}; e shows {_OTHER[stream]}"
    if run.exit_code is not None:
        # It had a process, so it had files.
        return "the files of this run were removed, by agentmux gc or by hand"
    return "this run left no output: it wrote none, or agentmux gc removed it"


def why_no_run(task_id: str, run_id: str | None, what: str = "log") -> str:
    """Return why there is no run whose log, or `what` else, could be shown."""
    if run_id is not None:
        return "this run is not in the store any more"
    return f"{clean_text(task_id)} has not run yet: there is no {what}"


def why_silent(run: RunRow, standing: Standing) -> str:
    """Return what would fill the transcript of a run, or why nothing will."""
    if run.kind and run.kind not in TRANSCRIBED:
        kind = clean_text(run.kind)
        return f"this is a {kind} task; only agents have a transcript. l shows its log"
    if run.outcome is None:
        return "no word from the agent yet"
    if standing is Standing.THERE:
        return "the agent said nothing; l shows its log, e there what it wrote to stderr"
    if run.exit_code is not None:
        return "the transcript of this run was removed, by agentmux gc or by hand"
    return "this run left no transcript: its agent never spoke, or agentmux gc removed it"


def head_pieces(
    task_id: str, runs: Sequence[RunRow], run: RunRow | None, what: Line, frame: Frame, width: int
) -> list[Piece]:
    """Return the head line: the task, which of its `runs` (newest first), `what` of that."""
    room = width - 42 - line_width(what)
    name = cut_middle(clean_text(task_id), max(12, min(20, width // 4), room))
    pieces = [Piece((("agentmux", Tone.BOLD),), drop=9), Piece(((name, Tone.BOLD),))]
    if run is not None:
        symbol = look.run_symbol(run)
        words = f"{symbol} {run.outcome or 'running'}"
        pieces.append(Piece(((f"#{run.attempt}", Tone.TEXT),)))
        pieces.append(Piece(((words, look.tone_of(symbol)),)))
        if len(runs) > 1:
            text = f"run {len(runs) - runs.index(run)} of {len(runs)}"
            pieces.append(Piece(((text, Tone.DIM),), drop=4))
    if what:
        pieces.append(Piece(what))
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
        parts.append(f"{frame.counts} {frame.line:,} of {frame.lines:,}")
    else:
        many = "lines" if frame.counts == "line" else "entries"
        parts.append(f"{frame.bottom * 100 // frame.size} %, counting {many}")
    return " · ".join(parts)
