"""The files of the log: which they are, in what order, where each begins and ends.

events.jsonl is the newest. Before a RESET is written it is renamed to events.<UTC stamp>.jsonl,
so every file but the oldest begins with RESET, and the log is all of them in order (DESIGN §5).
Only reads, and never a whole file; knows no database.
"""

from __future__ import annotations

import json
import os
import re
import stat
from typing import TYPE_CHECKING, NamedTuple

from engine.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from engine.files import Layout

ROTATED = re.compile(r"events\.\d{8}T\d{6}\.?\d*Z(?:\.\d+)*\.jsonl", re.ASCII)
"""The name of a file that was rotated; other names are not the log's."""

REWRITING = b"rewriting"
"""The mark while the log is being set aside, to be written anew; see `read_mark`."""

MARK_BYTES = 32
"""The length of the mark; all of it is written at once, for readers take no lock."""

_RESET_TYPE = b'"type":"RESET"'
_RESET = re.compile(
    rb'\{"seq":(\d+),"ts":"(\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z)","type":"RESET"', re.ASCII
)
_SEQ = re.compile(rb'\{"seq":(\d{1,18})[,}]', re.ASCII)
_NEXT_LINE = re.compile(rb"\n(?=[^\n])")
_LARGEST = 1 << 63
_HEAD = 1 << 20
_PIECE = 1 << 16
_TAIL = 1 << 16


class Reset(NamedTuple):
    """What a RESET line says of itself; `stamp` is its time as a part of a file's name."""

    seq: int
    stamp: str


class End(NamedTuple):
    """Where the whole lines of a file end, in bytes, and the seq and text of the last of them.

    All zero and empty if there is none. What follows is torn or no event.
    """

    offset: int = 0
    seq: int = 0
    line: bytes = b""


def log_files(layout: Layout) -> list[Path]:
    """Return the files of the log, oldest first: by the seq that each begins with.

    Names may mislead after the clock was set back. A file without a line that can be read comes
    behind the one before it by name; an events.jsonl without one comes last. Only regular files,
    though a rotated one may be a link to one: it is never written to. See also `misplaced`.

    Raises:
        OSError: the folder or a file cannot be read.

    """
    with os.scandir(layout.state) as entries:
        names = sorted(e.name for e in entries if ROTATED.fullmatch(e.name) and e.is_file())
    found: list[tuple[int, int, Path]] = []
    seq = 0
    paths = [layout.state / name for name in names]
    if is_regular(layout.log):
        paths.append(layout.log)
    for position, path in enumerate(paths):
        try:
            first = first_seq(path)
        except FileNotFoundError:  # it has just been renamed
            continue
        if first is not None:
            seq = first
        elif path == layout.log:
            seq = _LARGEST
        found.append((seq, position, path))
    return [path for _, _, path in sorted(found)]


def misplaced(layout: Layout) -> list[Path]:
    """Return what bears the name of a file of the log and is none: links, pipes and the like.

    A folder with the name of a rotated file is only in its way, and left alone.
    """
    with os.scandir(layout.state) as entries:
        return sorted(
            layout.state / entry.name
            for entry in entries
            if (entry.name == layout.log.name and not entry.is_file(follow_symlinks=False))
            or (
                ROTATED.fullmatch(entry.name)
                and not entry.is_file(follow_symlinks=False)
                and not entry.is_dir(follow_symlinks=False)
            )
        )


def is_regular(path: Path) -> bool:
    """Say whether there is a regular file, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def open_log(path: Path) -> BinaryIO:
    """Open a file of the log for reading.

    Raises:
        OSError: as the file system has it, or it is no regular file any more.

    """
    return open_regular(path, linked=ROTATED.fullmatch(path.name) is not None)


def first_seq(path: Path) -> int | None:
    """Return the seq of the first event in a file; None: its first megabyte holds none."""
    with open_log(path) as file:
        at_start, read = True, 0
        while read < _HEAD and (piece := file.readline(_PIECE)):
            whole = piece.endswith(b"\n")
            if at_start:
                # A line longer than a piece, or a torn one, is known by how it begins.
                begun = None if whole else _SEQ.match(piece)
                seq = int(begun[1]) if begun else seq_of(piece)
                if seq is not None:
                    return seq
            at_start = whole
            read += len(piece)
    return None


def seq_of(line: bytes) -> int | None:
    """Return the seq that a line names; None if it is no event at all."""
    try:
        seq = json.loads(line)["seq"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return seq if type(seq) is int and 0 < seq < _LARGEST else None


def find_end(log: int) -> End:
    """Find the last whole line of an open file that is an event, from the end backwards."""
    size, block = os.fstat(log).st_size, _TAIL
    while True:
        start = max(0, size - block)
        found = _last_line(os.pread(log, size - start, start), start)
        if found is not None:
            return found
        block *= 2  # however much garbage there is, all in all it is read twice


def _last_line(tail: bytes, start: int) -> End | None:
    """Find the last event in the end of a file that lies at `start`; None: read further back."""
    end = tail.rfind(b"\n") + 1
    while end > 0:
        begin = tail.rfind(b"\n", 0, end - 1) + 1
        if begin == 0 and start > 0:
            return None
        line = tail[begin : end - 1]
        seq = seq_of(line)
        if seq is not None:
            return End(start + end, seq, line)
        end = begin
    return None if start > 0 else End()


def reset_of(line: bytes) -> Reset | None:
    """Return what a line, or text that begins with it, says if it is a RESET."""
    found = _RESET.match(line)
    if found is None:
        return None
    # All digits are kept, so this is what clock.to_stamp makes of the same moment.
    return Reset(int(found[1]), found[2].translate(None, b"-:.").decode())


def is_reset(line: bytes) -> bool:
    """Say whether a line is a RESET. Cheap: hardly any line is."""
    return _RESET_TYPE in line and reset_of(line) is not None


def split_at_resets(lines: bytes) -> Iterator[bytes]:
    """Cut the text of several lines before every RESET; nothing is copied if there is none."""
    if _RESET_TYPE not in lines:
        yield lines
        return
    begin = 0
    for found in _NEXT_LINE.finditer(lines):
        # A task's payload may hold the same words: only the beginning of a line counts.
        if _RESET.match(lines, found.end()):
            yield lines[begin : found.end()]
            begin = found.end()
    yield lines[begin:]


def read_mark(layout: Layout) -> int | None:
    """Return how far the log went, as the mirror noted it in its lock file; None: not known.

    A log that ends before this seq has lost lines; one that ends there or later is at most behind
    its table. Read it before the log: it is written after the lines.
    """
    try:
        with open_regular(layout.log_lock) as file:
            return parse_mark(file.read(MARK_BYTES))
    except FileNotFoundError:
        return None


def parse_mark(mark: bytes) -> int | None:
    """Read the content of the lock file; see `read_mark`."""
    text = mark.strip()
    return int(text) if text.isdigit() and len(text) < 19 else None
