"""A log is read on from where it was read to, whatever becomes of the file meanwhile."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from engine.logwatch import stream
from engine.logwatch.tailing import Tail

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.logwatch.stream import Position


class _Reader:
    """Reads a tail, tells of every line that has not ended, and moves its own time."""

    def __init__(
        self, path: Path, positions: tuple[Position, ...] = (), *, from_end: bool = False
    ) -> None:
        self.tail = Tail(path, positions, from_end=from_end)
        self.now = 100.0

    def read(self, after: float = 0.1) -> bytes:
        self.now += after
        data = b""
        for piece in self.tail.read(self.now):
            if piece.unended is not None:
                piece.unended.told = True
                data += piece.data + b"<unended>"
            else:
                data += (b"<told>" if piece.told else b"") + piece.data
        return data

    def again(self) -> _Reader:
        """Return what a process that starts now reads with."""
        self.tail.close()
        return _Reader(self.tail.path, self.tail.positions)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


@pytest.fixture
def reader(path: Path) -> Iterator[_Reader]:
    reader = _Reader(path)
    yield reader
    reader.tail.close()


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_it_goes_on_where_it_was(path: Path, reader: _Reader) -> None:
    _append(path, b"one\ntwo\n")
    assert reader.read() == b"one\ntwo\n"
    assert reader.read() == b""
    _append(path, b"three\n")
    assert reader.read() == b"three\n"


def test_and_after_a_restart(path: Path, reader: _Reader) -> None:
    _append(path, b"one\n")
    reader.read()
    again = reader.again()
    assert again.read() == b""
    _append(path, b"two\n")
    assert again.read() == b"two\n"
    again.tail.close()


def test_what_was_there_before_anybody_watched_is_not_read(path: Path) -> None:
    path.write_bytes(b"old\nand its last line is not en")
    reader = _Reader(path, from_end=True)
    assert reader.read() == b""
    _append(path, b"ded\nnew\n")
    assert reader.read() == b"and its last line is not ended\nnew\n"
    reader.tail.close()


def test_but_a_file_that_appears_later_is(path: Path) -> None:
    reader = _Reader(path, from_end=True)
    assert reader.read() == b""
    path.write_bytes(b"new\n")
    assert reader.read() == b"new\n"
    reader.tail.close()


def test_a_rotated_file_is_read_to_its_end_first(path: Path, reader: _Reader) -> None:
    _append(path, b"one\n")
    reader.read()
    _append(path, b"two\n")
    path.rename(path.with_name("app.log.1"))
    _append(path, b"three\n")
    assert reader.read() == b"two\nthree\n"


def test_who_still_writes_to_the_rotated_file_is_read(path: Path, reader: _Reader) -> None:
    _append(path, b"one\n")
    reader.read()
    with path.open("ab") as still_open:
        path.rename(path.with_name("app.log.1"))
        _append(path, b"three\n")
        assert reader.read() == b"three\n"
        still_open.write(b"two\n")
        still_open.flush()
        assert reader.read(10) == b"two\n"
        still_open.write(b"its last words")
        still_open.flush()
        assert reader.read(10) == b""  # it has just grown
        assert reader.read(10) == b"its last words<unended>"


def test_a_file_is_let_go_once_nobody_writes_to_it(path: Path, reader: _Reader) -> None:
    _append(path, b"one\n")
    reader.read()
    path.unlink()
    reader.read()
    reader.read(20)
    assert [position.offset for position in reader.tail.positions] == [4]
    reader.read(60)
    assert not reader.tail.positions


def test_a_rotation_while_nobody_watched(path: Path, reader: _Reader) -> None:
    _append(path, b"one\n")
    reader.read()
    _append(path, b"two\n")
    again = reader.again()
    path.rename(path.with_name("app.log.1"))
    assert again.read() == b"two\n"  # no other file is there yet
    again = again.again()
    _append(path.with_name("app.log.1"), b"three\n")
    _append(path, b"four\n")
    assert again.read() == b"three\nfour\n"
    again.tail.close()


def test_several_rotations_at_once(path: Path, reader: _Reader) -> None:
    _append(path, b"one\n")
    reader.read()
    for number in (1, 2):
        _append(path, b"more %d\n" % number)
        for old in (2, 1):
            if (rotated := path.with_name(f"app.log.{old}")).exists():
                rotated.rename(path.with_name(f"app.log.{old + 1}"))
        path.rename(path.with_name("app.log.1"))
    _append(path, b"last\n")
    # What came and went between two looks under this name was never seen; what was open is read.
    assert reader.read() == b"more 1\nlast\n"


def test_a_file_that_was_cut_is_read_anew(path: Path, reader: _Reader) -> None:
    _append(path, b"a long line of before\n")
    reader.read()
    path.write_bytes(b"new\n")
    assert reader.read() == b"new\n"


def test_also_if_it_has_grown_beyond_where_it_was(path: Path, reader: _Reader) -> None:
    _append(path, b"before\n")
    reader.read()
    with path.open("r+b") as file:
        file.truncate()
        file.write(b"quite another text, and longer\n")
    assert reader.read() == b"quite another text, and longer\n"


def test_also_while_nobody_watched(path: Path, reader: _Reader) -> None:
    _append(path, b"before\n")
    reader.read()
    again = reader.again()
    with path.open("r+b") as file:
        file.truncate()
        file.write(b"quite another text, and longer\n")
    assert again.read() == b"quite another text, and longer\n"
    again.tail.close()


def test_an_inode_that_is_used_again_is_another_file(path: Path, reader: _Reader) -> None:
    _append(path, b"before\n")
    reader.read()
    again = reader.again()
    (position,) = again.tail.positions
    path.unlink()
    path.write_bytes(b"other, and longer\n")
    position.ino = path.stat().st_ino  # file systems give the number away again when they like
    assert again.read() == b"other, and longer\n"
    again.tail.close()


def test_a_last_line_without_its_end_is_told_once(path: Path, reader: _Reader) -> None:
    _append(path, b"one\ntw")
    assert reader.read() == b"one\n"
    assert reader.read(1) == b""
    assert reader.read(2) == b"tw<unended>"
    assert reader.read(5) == b""
    again = reader.again()
    assert again.read(5) == b""
    _append(path, b"o\nthree\n")
    assert again.read() == b"<told>two\nthree\n"
    again.tail.close()


def test_a_line_of_no_end_is_cut(path: Path, reader: _Reader) -> None:
    endless = b"x" * (3 * stream.BLOCK + 5)
    _append(path, endless)
    read = reader.read() + reader.read(5)
    assert read == endless + b"<unended>"


def test_a_gibibyte_at_once_is_read_in_blocks(path: Path, reader: _Reader) -> None:
    _append(path, b"first\n")
    os.truncate(path, 1 << 30)  # a hole: it takes no room on the disk
    _append(path, b"\nlast\n")
    reader.now += 1
    size, last = 0, b""
    for piece in reader.tail.read(reader.now):
        assert len(piece.data) <= stream.BLOCK
        size, last = size + len(piece.data), piece.data
    assert size == (1 << 30) + 6
    assert last.endswith(b"\nlast\n")


def test_a_link_leads_to_the_log_of_today(path: Path, tmp_path: Path, reader: _Reader) -> None:
    _append(tmp_path / "monday.log", b"one\n")
    path.symlink_to("monday.log")
    assert reader.read() == b"one\n"
    _append(tmp_path / "monday.log", b"two\n")
    _append(tmp_path / "tuesday.log", b"three\n")
    path.unlink()
    path.symlink_to("tuesday.log")
    assert reader.read() == b"two\nthree\n"


def test_what_cannot_be_read_says_why(path: Path, reader: _Reader) -> None:
    path.mkdir()
    assert reader.read() == b""
    assert reader.tail.trouble == "Is a directory"
    path.rmdir()
    os.mkfifo(path)
    assert reader.read() == b""
    assert "no regular file" in reader.tail.trouble
    path.unlink()
    _append(path, b"one\n")
    assert reader.read() == b"one\n"
    assert reader.tail.trouble == ""


def test_a_disk_that_is_away_for_a_while_loses_no_place(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    _append(folder / "app.log", b"one\n")
    reader = _Reader(folder / "app.log")
    reader.read()
    again = reader.again()
    folder.rename(tmp_path / "away")
    assert again.read() == b""
    (tmp_path / "away").rename(folder)
    assert again.read() == b""
    _append(folder / "app.log", b"two\n")
    assert again.read() == b"two\n"
    again.tail.close()


class _Folder:
    """Reads all logs of a folder, as a glob would have it, in the order in which they came."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tails: dict[Path, Tail] = {}
        self.now = 100.0

    def read(self, after: float = 0.1) -> bytes:
        self.now += after
        for path in sorted(self.folder.iterdir()):
            if path not in self.tails:
                self.tails[path] = Tail(path, others=self.tails.values())
        return b"".join(piece.data for tail in self.tails.values() for piece in tail.read(self.now))

    def again(self) -> _Folder:
        again = _Folder(self.folder)
        again.now = self.now
        for path, tail in self.tails.items():
            tail.close()
            again.tails[path] = Tail(path, tail.positions, others=again.tails.values())
        return again

    def rotate(self) -> None:
        for number in (3, 2, 1):
            if (old := self.folder / f"app.log.{number}").exists():
                old.rename(self.folder / f"app.log.{number + 1}")
        (self.folder / "app.log").rename(self.folder / "app.log.1")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[_Folder]:
    folder = _Folder(tmp_path)
    yield folder
    for tail in folder.tails.values():
        tail.close()


@pytest.mark.parametrize("restarts", [False, True])
def test_rotated_files_that_are_watched_themselves_are_read_once(
    folder: _Folder, restarts: bool
) -> None:
    log = folder.folder / "app.log"
    for number in range(4):
        _append(log, b"%d\n" % number)
        assert folder.read() == b"%d\n" % number
        with log.open("ab") as still_open:
            folder.rotate()
            still_open.write(b"%d, rotated\n" % number)
        if restarts:
            folder = folder.again()
        assert folder.read() == b"%d, rotated\n" % number
        assert folder.read(60) == b""
    for tail in folder.tails.values():
        tail.close()


def test_two_names_of_one_file_are_one_log(folder: _Folder) -> None:
    log = folder.folder / "app.log"
    _append(log, b"one\n")
    (folder.folder / "current.log").symlink_to("app.log")
    os.link(log, folder.folder / "hard.log")
    assert folder.read() == b"one\n"
    _append(log, b"two\n")
    assert folder.read() == b"two\n"
    log.unlink()
    _append(folder.folder / "hard.log", b"three\n")
    assert folder.read() == b"three\n"


LONG = b"a line that is long enough to be known again, %d\n"


def _copy_and_cut(log: Path) -> None:
    """Rotate a log as `copytruncate` does, over the copy that was made before."""
    log.with_name("app.log.1").write_bytes(log.read_bytes())
    os.truncate(log, 0)


def test_a_copy_that_a_rotation_makes_is_not_read_again(folder: _Folder) -> None:
    log = folder.folder / "app.log"
    for time in range(3):
        for number in range(3):
            _append(log, LONG % (10 * time + number))
        assert folder.read().count(b"\n") == 3
        _append(log, b"just before\n")
        _copy_and_cut(log)
        _append(log, b"after\n")
        assert sorted(folder.read(60).splitlines()) == [b"after", b"just before"]
        assert folder.read(60) == b""


@pytest.mark.parametrize("restarts", [False, True])
def test_what_only_a_copy_still_has_is_read(path: Path, reader: _Reader, restarts: bool) -> None:
    for _ in range(2):
        _append(path, LONG % 1 + LONG % 2)
        assert reader.read() == LONG % 1 + LONG % 2
        _append(path, b"just before\n")
        _copy_and_cut(path)
        _append(path, b"after\n")
        if restarts:
            reader = reader.again()
        assert reader.read(60) == b"just before\nafter\n"
        assert reader.read(60) == b""
    reader.tail.close()
