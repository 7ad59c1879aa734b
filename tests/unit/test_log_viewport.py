"""A screenful of a log is the same rows whichever way one came to it."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from tui.logs.cells import row_starts, span_cells, window
from tui.logs.file import LogFile
from tui.logs.search import Spot, parse_needle
from tui.logs.viewport import Viewport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LINES = st.lists(
    st.text(alphabet="ab 漢é\ufe0f👩", max_size=40) | st.integers(0, 150).map(lambda n: "x" * n),
    max_size=40,
)
_MOVES: dict[str, Callable[[Viewport], object]] = {
    "j": lambda v: v.move(1),
    "k": lambda v: v.move(-1),
    "jjj": lambda v: v.move(3),
    "pgdn": lambda v: v.page(1),
    "pgup": lambda v: v.page(-1),
    "g": Viewport.first,
    "G": Viewport.last,
    "f": Viewport.follow,
    "wheel down": lambda v: v.wheel(3),
    "wheel up": lambda v: v.wheel(-3),
    "scrollbar": lambda v: v.drag_to(0.4),
    "narrow": lambda v: v.resize(15, 4),
    "wide": lambda v: v.resize(60, 9),
    "W": Viewport.wrap,
    "#": Viewport.number,
    "left": lambda v: v.shift(-1),
    "right": lambda v: v.shift(1),
    "click": lambda v: v.press(2),
    "drag": lambda v: v.drag(5),
    "v": Viewport.select,
}


def reading(path: Path, text: str, width: int = 20, height: int = 5) -> Viewport:
    path.write_text(text)
    viewport = Viewport(LogFile(path, block=256, grid=64), width=width, height=height)
    viewport.refresh()
    return viewport


def texts(viewport: Viewport) -> list[str]:
    return [row.text for row in viewport.frame().rows]


def all_rows(viewport: Viewport) -> list[tuple[int, int]]:
    """Every row of the file, laid out naively."""
    file = viewport.file
    rows: list[tuple[int, int]] = []
    at = 0
    while at < file.size:
        text = file.piece(at).text
        count = len(row_starts(text, viewport.text_width)) if viewport.wraps else 1
        rows += [(at, row) for row in range(count)]
        at = file.end_of(at)
    return rows


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs") / "stdout.log"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stdout.log"


@settings(deadline=None, max_examples=150)
@given(lines=_LINES, moves=st.lists(st.sampled_from(sorted(_MOVES)), max_size=25))
def test_whatever_one_does_the_screen_is_full_and_the_cursor_in_sight(
    log: Path, lines: list[str], moves: list[str]
) -> None:
    viewport = reading(log, "".join(f"{line}\n" for line in lines))
    with closing(viewport.file):
        for move in moves:
            _MOVES[move](viewport)
            frame, rows = viewport.frame(), all_rows(viewport)
            seen = viewport._view()
            assert len(seen) == min(viewport._height, len(rows)) == len(frame.rows)
            if not rows:
                continue
            first = rows.index(seen[0])
            assert seen == rows[first : first + len(seen)]
            assert frame.cursor in {start for start, _ in seen}
            assert all(cell_len(row.text) <= viewport.text_width for row in frame.rows)
            if frame.follows:
                assert (seen[-1], frame.cursor) == (rows[-1], rows[-1][0])
            if viewport.wraps and viewport.text_width > 1:
                text = "".join(row.text for row in frame.rows if row.start == frame.cursor)
                assert text in viewport.file.piece(frame.cursor).text


@pytest.mark.parametrize("text", ["plain text here", "日本語のテキスト", "a日b本c", "👩❤️x"])
@pytest.mark.parametrize("width", range(2, 12))
def test_rows_lose_nothing_and_windows_show_a_part(text: str, width: int) -> None:
    starts = [*row_starts(text, width), len(text)]
    rows = [text[a:b] for a, b in pairwise(starts)]
    assert "".join(rows) == text
    assert all(cell_len(row) <= span_cells(row) <= width for row in rows)
    for column in range(span_cells(text) + 2):
        begin, end, pad = window(text, column, width)
        assert cell_len(pad + text[begin:end]) <= width
        assert len(pad) <= 1


def test_down_and_up_go_line_by_line_and_through_a_tall_line_row_by_row(path: Path) -> None:
    viewport = reading(path, "a\n" + "x" * 60 + "\n" + "b\nc\n", width=21, height=2)
    with closing(viewport.file):
        viewport.first()
        down = [(viewport.frame().cursor, texts(viewport)[-1])]
        for _ in range(5):
            viewport.move(1)
            down.append((viewport.frame().cursor, texts(viewport)[-1]))
        x = "x" * 20
        assert [cursor for cursor, _ in down] == [0, 2, 2, 63, 65, 65]
        assert [text for _, text in down] == [x, x, x, "b", "c", "c"]
        for _ in range(9):
            viewport.move(-1)
        assert (viewport.frame().cursor, texts(viewport)) == (0, ["a", x])


def test_a_growing_log_is_followed_until_one_goes_up_and_again_from_its_end(path: Path) -> None:
    viewport = reading(path, "".join(f"{n}\n" for n in range(20)))

    def grow(text: str) -> None:
        with path.open("a") as file:
            file.write(text)
        viewport.refresh()

    with closing(viewport.file):
        grow("new\n")
        assert texts(viewport)[-1] == "new"
        viewport.move(-1)
        grow("newer\n")
        assert texts(viewport)[-1] == "new"
        assert not viewport.frame().follows
        viewport.move(2)
        grow("newest\n")
        assert texts(viewport)[-2:] == ["newer", "newest"]
        viewport.follow()
        grow("last\n")
        assert texts(viewport)[-1] == "newest"
        viewport.follow()
        assert texts(viewport)[-1] == "last"
        assert viewport.frame().follows


def test_lines_are_numbered_once_and_parts_of_a_cut_line_are_not(path: Path) -> None:
    viewport = reading(path, "a\n" + "x" * 200 + "\nb\n", width=300, height=9)
    with closing(viewport.file):
        viewport.number()
        heads = [row.head.strip() for row in viewport.frame().rows]
        assert heads == ["1", "2", "…", "…", "3"]
        assert [row.continued for row in viewport.frame().rows] == [False, False, True, True, False]
        assert (viewport.frame().line, viewport.frame().lines) == (3, 3)


def test_sideways_shows_what_is_out_of_sight_and_says_that_there_is_more(path: Path) -> None:
    viewport = reading(path, "0123456789" * 5 + "\nshort\n")
    with closing(viewport.file):
        viewport.shift(1)
        assert texts(viewport)[0] == "0123456789012345678", "wrapped lines do not shift"
        viewport.wrap()
        first = viewport.frame().rows[0]
        assert (first.left, first.right, first.text[0]) == (False, True, "0")
        viewport.shift(1)
        first, second = viewport.frame().rows
        assert (first.left, first.right, first.text[0]) == (True, True, "8")
        assert (second.text, second.right) == ("", False)
        for _ in range(20):
            viewport.shift(1)
        first = viewport.frame().rows[0]
        assert (first.right, first.text[-1]) == (False, "9")
        for _ in range(20):
            viewport.shift(-1)
        assert viewport.frame().rows[0].left is False


def test_going_to_a_match_shows_it_and_marks_it(path: Path) -> None:
    text = "".join(f"line {n} {'.' * 50} end\n" for n in range(100))
    viewport = reading(path, text)
    with closing(viewport.file):
        viewport.seek(parse_needle("end"))
        start = viewport.file.start_of(text.index("line 50"))
        viewport.go_to(Spot(start, 59, 3))
        frame = viewport.frame()
        marked = [(row.start, row.text[a:b], now) for row in frame.rows for a, b, now in row.marks]
        assert (start, "end", True) in marked
        assert not frame.follows
        viewport.wrap()
        viewport.go_to(Spot(start, 59, 3))
        row = next(row for row in viewport.frame().rows if row.start == start)
        assert [row.text[a:b] for a, b, now in row.marks if now] == ["end"]


def test_a_match_that_is_broken_over_two_rows_is_marked_in_both(path: Path) -> None:
    viewport = reading(path, "x" * 17 + "needle\n")
    with closing(viewport.file):
        viewport.seek(parse_needle("needle"))
        assert [[r.text[a:b] for a, b, _ in r.marks] for r in viewport.frame().rows] == [
            ["ne"],
            ["edle"],
        ]


def test_a_line_is_copied_whole_even_where_it_is_cut_and_a_selection_with_its_lines(
    path: Path,
) -> None:
    long = "y" * 500
    viewport = reading(path, f"one\n\x1b[31mtwo\x1b[0m\n{long}\nfour\n")
    with closing(viewport.file):
        viewport.move(-3)
        assert (viewport.copy().text, viewport.copy().lines) == (long, 1)
        viewport.select()
        viewport.first()
        copied = viewport.copy()
        assert (copied.text, copied.lines, copied.cut) == (f"one\ntwo\n{long}", 3, False)
        viewport.unselect()
        assert viewport.copy().text == "one"


def test_what_is_copied_ends_at_the_limit_and_says_so(path: Path) -> None:
    viewport = reading(path, "".join(f"{n:03}\n" for n in range(500)))
    with closing(viewport.file):
        viewport.first()
        viewport.select()
        viewport.last()
        copied = viewport.copy(limit=40)
        assert (copied.text.split("\n")[0], copied.cut) == ("000", True)
        assert (len(copied.text) <= 40, copied.lines) == (True, 10)


def test_an_empty_log_has_no_rows_and_no_key_fails(path: Path) -> None:
    viewport = reading(path, "")
    with closing(viewport.file):
        for move in _MOVES.values():
            move(viewport)
            assert viewport.frame().rows == ()
        assert viewport.copy().lines == 0


def test_another_file_is_shown_from_its_end(path: Path) -> None:
    viewport = reading(path, "a\n" * 50)
    other = path.with_name("stderr.log")
    other.write_text("".join(f"{n}\n" for n in range(50)))
    viewport.first()
    viewport.open(other)
    with closing(viewport.file):
        assert texts(viewport)[-1] == "49"


def test_a_screenful_of_long_lines_takes_few_reads(path: Path) -> None:
    path.write_bytes(b"".join(b"%d " % n + b"z" * 1_000_000 + b"\n" for n in range(20)))
    file = LogFile(path)
    viewport = Viewport(file, width=120, height=40)
    viewport.refresh()
    with closing(file):
        viewport.frame()
        before = file.reads
        for _ in range(20):
            viewport.move(-1)
            viewport.frame()
        assert file.reads - before < 20
