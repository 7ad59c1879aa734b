"""A screenful of a transcript is the same rows whatever one does and whatever becomes of it."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from support import transcripts
from support.transcripts import answers, calls, line, says, thinks

from tui.logs.said import SaidFile
from tui.logs.talk import SaidRow, Talk
from tui.logs.viewport import Viewport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_TEXT = st.text(alphabet="ab 漢é\n👩", max_size=60) | st.integers(0, 40).map("row\n".__mul__)
_LINE = st.one_of(
    _TEXT.map(says),
    _TEXT.map(thinks),
    _TEXT.map(answers),
    _TEXT.map(lambda text: calls("Edit", path="a.py", new=text)),
    st.sampled_from([line("stream_event", event={"n": "x" * 700}), "no JSON", ""]),
)
_MOVES: dict[str, Callable[[Talk], object]] = {
    "j": lambda v: v.move(1),
    "k": lambda v: v.move(-1),
    "kkk": lambda v: v.move(-3),
    "pgdn": lambda v: v.page(1),
    "pgup": lambda v: v.page(-1),
    "g": Viewport.first,
    "G": Viewport.last,
    "f": Viewport.follow,
    "wheel down": lambda v: v.wheel(3),
    "wheel up": lambda v: v.wheel(-3),
    "scrollbar": lambda v: v.drag_to(0.4),
    "narrow": lambda v: v.resize(20, 4),
    "wide": lambda v: v.resize(90, 9),
    "click": lambda v: v.press(2),
    "drag": lambda v: v.drag(5),
    "v": Viewport.select,
    "y": Talk.copy,
    "space": Talk.fold,
    "F": Talk.fold_all,
    "over": lambda v: v.tell_of_run(over=True, sums=True),
}
_CHANGES = st.one_of(
    _LINE.map(lambda text: ("grow", text + "\n")),
    _LINE.map(lambda text: ("grow", text[: len(text) // 2])),
    st.lists(_LINE, max_size=4).map(lambda lines: ("replace", "\n".join([*lines, ""]))),
    st.just(("cut", "")),
    st.just(("remove", "")),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


def change(path: Path, how: str, text: str, moment: int) -> None:
    """Do this to the file. Its time is another one then, however fast all of this is."""
    if how == "remove":
        path.unlink(missing_ok=True)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if path.exists() else b"")
    elif how == "replace":
        new = path.with_suffix(".new")
        new.write_text(text)
        new.replace(path)
    else:
        with path.open("a") as file:
            file.write(text)
    if path.exists():
        os.utime(path, ns=(moment, moment))


def all_rows(talk: Talk) -> list[tuple[int, int]]:
    """Every row of the transcript, piece by piece from its begin."""
    rows: list[tuple[int, int]] = []
    at = 0
    while at < talk.file.size:
        piece = talk.file.piece(at)
        assert piece.end > at
        rows += [(at, row) for row in range(len(talk._starts(piece)))]
        at = piece.end
    return rows


def check(talk: Talk) -> None:
    while talk.file.lines is None:
        talk.file.count_more(1)
    frame, rows = talk.frame(), all_rows(talk)
    seen = talk._view()
    assert len(seen) == min(talk._height, len(rows)) == len(frame.rows)
    if not rows:
        return
    first = rows.index(seen[0])
    assert seen == rows[first : first + len(seen)]
    assert frame.cursor in {start for start, _ in seen}
    for row in frame.rows:
        assert isinstance(row, SaidRow)
        assert row.hint or cell_len(row.text) <= talk.text_width
        assert "\n" not in row.text
    entries = sorted({start for start, _ in rows})
    assert frame.line is not None
    assert (entries[frame.line - 1], frame.lines) == (frame.cursor, len(entries))
    if frame.follows:
        assert (seen[-1], frame.cursor) == (rows[-1], rows[-1][0])


@settings(deadline=None, max_examples=150)
@given(
    lines=st.lists(_LINE, max_size=12),
    steps=st.lists(st.sampled_from(sorted(_MOVES)) | _CHANGES, max_size=25),
)
def test_whatever_one_does_and_whatever_becomes_of_the_file_the_screen_is_full(
    folder: Path, lines: list[str], steps: list[str | tuple[str, str]]
) -> None:
    path = transcripts.write(folder, lines)
    talk = Talk(SaidFile(path, block=512), width=70, height=6)
    talk.refresh()
    with closing(talk.file):
        for moment, step in enumerate(steps, 1):
            if isinstance(step, str):
                _MOVES[step](talk)
            else:
                change(path, *step, moment)
                talk.refresh()
            check(talk)
