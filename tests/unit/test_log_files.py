"""A log of any size is read in parts, and the parts are what one would get from the whole."""

from __future__ import annotations

import os
import unicodedata
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.growing import BLOCK, News, Standing
from tui.logs.file import GRID, LogFile
from tui.logs.text import clean_lines, seam

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SMALL = 16
_CONTROLS = b"\n|\r|\r\n|\t|\x00|\x7f|\x1b|\x1b[31m|\x1b[|\x9b2J|\x90|\x1bP1q|\x1b]0;title\x07"
_MORE = b"\x1b]8;;http://x\x1b\\|\x1b]52;c;aGk=|\xff|\xc3|\xe6\xbc|a|word |xxxxxxx"
_PARTS = [
    *_CONTROLS.split(b"|"),
    *_MORE.split(b"|"),
    *(char.encode() for char in "é漢👩\u202e\u009b"),
    b"y" * 40,
]
_LOGS = st.lists(st.sampled_from(_PARTS) | st.binary(max_size=9), max_size=60).map(b"".join)
_LIMITED = settings(deadline=None, max_examples=150)
_HARMFUL = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def opened(path: Path, data: bytes | None = None, *, small: bool = True) -> LogFile:
    if data is not None:
        path.write_bytes(data)
    file = LogFile(path, block=4 * _SMALL, grid=_SMALL) if small else LogFile(path)
    file.look()
    return file


def whole(file: LogFile) -> list[int]:
    starts = []
    at = 0
    while at < file.size:
        starts.append(at)
        at = file.end_of(at)
    assert at == file.size
    return starts


def naive(data: bytes) -> list[int]:
    """The rule of the module, applied to all bytes at once."""
    starts = {0, *(index + 1 for index, byte in enumerate(data) if byte == 10)}
    for at in range(_SMALL, len(data), _SMALL):
        if b"\n" not in data[at - _SMALL : at]:
            starts.add(at - seam(data[at - _SMALL // 2 : at], data[at : at + 1]))
    return sorted(start for start in starts if start < len(data))


def shown(data: bytes, starts: list[int]) -> list[str]:
    return [clean_lines(data[a:b].removesuffix(b"\n")) for a, b in pairwise([*starts, len(data)])]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs") / "stdout.log"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stdout.log"


@_LIMITED
@given(data=_LOGS)
def test_pieces_are_the_same_from_wherever_one_comes(log: Path, data: bytes) -> None:
    starts = naive(data)
    with closing(opened(log, data)) as file:
        assert whole(file) == starts
        for start, end in pairwise([*starts, len(data)]):
            assert {file.start_of(place) for place in range(start, end)} == {start}
        assert [file.piece(start).text for start in starts] == shown(data, starts)
        if data:
            runs = file.texts(0, file.size)
            lines = [line for _, _, text in runs for line in text.split("\n")]
            assert lines == shown(data, starts)


@_LIMITED
@given(data=_LOGS)
def test_nothing_in_a_line_can_act_on_the_terminal(log: Path, data: bytes) -> None:
    with closing(opened(log, data)) as file:
        text = "".join(file.piece(start).text for start in whole(file))
    assert not [char for char in text if unicodedata.category(char) in _HARMFUL]


@_LIMITED
@given(data=_LOGS)
def test_numbers_of_lines_are_those_of_the_whole_file(log: Path, data: bytes) -> None:
    with closing(opened(log, data)) as file:
        for start in whole(file):
            number = file.number_of(start)
            assert number in {None, data.count(b"\n", 0, start) + 1}
        while not file.counted:
            file.count_more(1)
        numbers = [file.number_of(start) for start in whole(file)]
        assert numbers == [data.count(b"\n", 0, start) + 1 for start in naive(data)]
        assert file.lines == len(data.removesuffix(b"\n").split(b"\n")) * bool(data)


@_LIMITED
@given(parts=st.lists(_LOGS, max_size=6))
def test_a_file_that_grows_reads_as_if_it_had_always_been_so(log: Path, parts: list[bytes]) -> None:
    data = b""
    with closing(opened(log, b"")) as file:
        for part in parts:
            with log.open("ab") as growing:
                growing.write(part)
            data += part
            assert file.look() is (News.GREW if part else News.NOTHING)
            starts = naive(data)
            assert [file.piece(start).text for start in whole(file)] == shown(data, starts)
            file.count_more(1)
            assert file.number_of(starts[0] if starts else 0) == 1


def test_a_carriage_return_rewinds_its_line(path: Path) -> None:
    with closing(opened(path, b"10%\r50%\r100%\r\nok\r\n\r\nabc\rx", small=False)) as file:
        assert [file.piece(start).text for start in whole(file)] == ["100%", "ok", "", "x"]


@pytest.mark.parametrize("unit", ["é", "漢", "👩", "\x1b[31mred\x1b[0m", "ab\x1b]0;t\x07"])
@pytest.mark.parametrize("lead", range(5))
def test_a_cut_splits_neither_a_character_nor_a_short_sequence(
    path: Path, unit: str, lead: int
) -> None:
    text = "." * lead + unit * 2000
    path.write_text(text)
    with closing(LogFile(path, block=1024, grid=256)) as file:
        file.look()
        pieces = [file.piece(start) for start in whole(file)]
        assert len(pieces) > 5
        assert "".join(piece.text for piece in pieces) == clean_lines(text.encode())
        assert [piece.begins for piece in pieces] == [True] + [False] * (len(pieces) - 1)


def test_lines_up_to_the_grid_are_never_cut(path: Path) -> None:
    with closing(opened(path, (b"x" * (GRID - 1) + b"\n") * 30, small=False)) as file:
        assert len(whole(file)) == 30


# -- files that change -----------------------------------------------------------------------


def test_a_file_that_is_not_there_yet_is_waited_for(path: Path) -> None:
    with closing(opened(path)) as file:
        assert (file.standing, file.size) == (Standing.MISSING, 0)
        path.write_text("hello\n")
        assert file.look() is not News.NOTHING
        assert (file.standing, file.piece(0).text) == (Standing.THERE, "hello")


def replace(path: Path) -> None:
    new = path.with_name("new")
    new.write_text("another\n" * 40)
    new.replace(path)


def truncate(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"short\n")


def write_anew(path: Path) -> None:
    """Cut the file and write more than there was, between two looks."""
    with path.open("wb") as file:
        file.write(b"something else altogether\n" * 100)


@pytest.mark.parametrize("change", [replace, truncate, write_anew])
def test_a_file_that_was_written_anew_is_read_anew(path: Path, change: object) -> None:
    with closing(opened(path, b"first\n" * 50)) as file:
        before = [file.piece(start).text for start in whole(file)]
        file.count_more(99)
        assert callable(change)
        change(path)
        assert file.look() is News.ANEW
        with closing(opened(path)) as fresh:
            fresh.count_more(99)
            after = [file.piece(start).text for start in whole(file)]
            assert after == [fresh.piece(start).text for start in whole(fresh)] != before
            file.count_more(99)
            assert file.lines == fresh.lines


def test_a_file_that_was_removed_can_still_be_read_and_comes_back(path: Path) -> None:
    with closing(opened(path, b"one\ntwo\n")) as file:
        path.unlink()
        assert file.look() is not News.NOTHING
        assert (file.standing, file.piece(4).text) == (Standing.GONE, "two")
        assert file.look() is News.NOTHING
        path.write_text("three\n")
        assert file.look() is News.ANEW
        assert (file.standing, file.piece(0).text) == (Standing.THERE, "three")


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_what_is_no_regular_file_is_refused_with_a_reason(path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/etc/hostname")
    else:
        path.mkdir()
    with closing(opened(path)) as file:
        assert file.standing is Standing.REFUSED
        assert "cannot read" in file.trouble
        assert file.size == 0
        assert file.look() is News.NOTHING


def test_a_file_that_shrinks_while_it_is_read_ends_early_and_nothing_loops(path: Path) -> None:
    with closing(opened(path, b"line\n" * 500)) as file:
        path.write_bytes(b"")
        whole(file)
        assert not file.count_more(5)


# -- sizes -----------------------------------------------------------------------------------


@pytest.fixture
def sparse(path: Path) -> Iterator[LogFile]:
    with path.open("wb") as file:
        file.write(b"first\n")
        file.seek((1 << 30) - 5)
        file.write(b"\nend\n")
    with closing(opened(path, small=False)) as log:
        yield log


def test_either_end_and_the_middle_of_a_gigabyte_take_a_few_reads(sparse: LogFile) -> None:
    before = sparse.reads
    assert sparse.piece(sparse.start_of(sparse.size)).text == "end"
    assert sparse.piece(0).text == "first"
    at = sparse.start_of(1 << 29)
    for _ in range(100):
        assert len(sparse.piece(at).text) == 0, "NUL bytes are not shown"
        at = sparse.end_of(at)
    assert sparse.reads - before < 40


def test_a_gigabyte_is_counted_with_one_read_a_block(sparse: LogFile) -> None:
    before = sparse.reads
    turns = 0
    while not sparse.counted:
        sparse.count_more(64)
        turns += 1
    assert (sparse.lines, turns) == (3, 64)
    assert sparse.reads - before < (1 << 30) // BLOCK + 5


def test_a_line_of_a_megabyte_is_read_in_pieces_none_of_which_is_large(path: Path) -> None:
    with closing(opened(path, b"a\n" + b"x" * 1_000_000 + b"\nb\n", small=False)) as file:
        pieces = [file.piece(start) for start in whole(file)]
        assert max(len(piece.text) for piece in pieces) < 2 * GRID
        assert sum(len(piece.text) for piece in pieces) == 1_000_002
        assert [piece.text for piece in (pieces[0], pieces[-1])] == ["a", "b"]
        assert file.reads < 10
