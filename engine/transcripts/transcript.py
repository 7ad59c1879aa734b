"""The transcript of a run as entries that are found from anywhere in it, reading only what is near.

A block is every line that begins within so many bytes, and is read by itself: neither the end of
a transcript nor its middle needs what is before it, and it does not matter in which order, or
while how much of it was there, the blocks were read.

Everything here reads the disk: it is for a thread, and for one at a time. Nothing is raised for
what a file holds.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.agents.reading import reader_for
from engine.agents.summary import Summary
from engine.agents.vocabulary import Entry, Kind, Role
from engine.files import open_regular
from engine.growing import BLOCK, GrowingFile, News, Standing
from engine.transcripts.times import Times

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.agents.reading import Reader

LINES, TIMES, PROMPT, AGENT = "transcript.jsonl", "transcript.times", "prompt.md", "agent.json"
"""What the run of an agent leaves in its folder, and is read here."""

_PLAIN = "text"
"""How lines are read as long as nobody says how: each is a message."""
_BLOCKS = 16
"""Blocks whose entries are remembered."""
_LONGEST = 32 * 1024 * 1024
"""Bytes of a line beyond which it is not read, but told of."""
_GLIMPSE = 4 * 1024
_SMALL = 1024 * 1024
"""Bytes that are read of a prompt, at most."""
_TIMES = 32 * 1024 * 1024


class Said(Struct, frozen=True):
    """An entry and its place: its line is the bytes from `line` to `end`.

    `start` is a byte of that line which is this entry's alone, in the order of the entries.
    """

    start: int
    line: int
    end: int
    entry: Entry


class Block(Struct, frozen=True):
    """The entries of the lines that begin in a block, `begin` the first of these (None: none does).

    `open`: more may come. `timeless`: an entry has no time, and may yet get one.
    """

    begin: int | None = None
    said: tuple[Said, ...] = ()
    open: bool = False
    timeless: bool = False


class _About(Struct):
    """What is read of `agent.json`: how lines are read, and the worktree of the run."""

    format: str = ""
    folder: str = ""


class Transcript:
    """The transcript in the folder of a run. `over`: the run has ended.

    Only then a last line without a line end counts: until then it may be half of one.
    """

    def __init__(self, folder: Path, *, over: bool = False, block: int = BLOCK) -> None:
        self.folder = folder
        self.file = GrowingFile(folder / LINES, block=block)
        self.over = over
        self._size = block
        self._about = _About()
        self._prompt: Entry | None = None
        self._blocks: OrderedDict[int, Block] = OrderedDict()
        self._was_over = over
        self._times = Times()
        self._times_file = GrowingFile(folder / TIMES)
        self._timed = 0

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return self.file.size

    @property
    def standing(self) -> Standing:
        """What became of the file."""
        return self.file.standing

    @property
    def trouble(self) -> str:
        """Why the file cannot be read, if it cannot; clean."""
        return self.file.trouble

    @property
    def format(self) -> str:
        """How the lines are written; empty as long as nobody says it."""
        return self._about.format

    # -- the files -------------------------------------------------------------------------

    def look(self) -> News:
        """Look at the files again: what came, grew, was written anew or removed."""
        news = self.file.look()
        if (not self.format or news is News.ANEW) and self._learn() and news is not News.ANEW:
            # What was read until now was read in another way.
            news = News.ANEW if self.size else News.GREW
        if news is News.ANEW:
            self._blocks.clear()
            self._forget_times()
        timed = self._look_times()
        ended, self._was_over = self.over != self._was_over, self.over
        if news is News.NOTHING and (timed or ended):
            news = News.GREW
        if news is not News.NOTHING:
            for number, block in list(self._blocks.items()):
                if block.open or (timed and block.timeless):
                    del self._blocks[number]
        return news

    def close(self) -> None:
        """Close the files; nothing can be read any more."""
        self.file.close()
        self._times_file.close()

    def _learn(self) -> bool:
        """Find out how to read the lines, and what the agent was told; say if that is news."""
        before = self._about, self._prompt
        self._about, self._prompt = _About(), None
        with suppress(OSError, msgspec.DecodeError):
            self._about = msgspec.json.decode(_glimpse(self.folder / AGENT), type=_About)
        with suppress(OSError):
            text = _glimpse(self.folder / PROMPT).decode("utf-8", "replace").strip()
            self._prompt = Entry(Kind.MESSAGE, text, role=Role.USER) if text else None
        if (self._about, self._prompt) == before:
            return False
        self._blocks.clear()
        return True

    def _forget_times(self) -> None:
        self._times, self._timed = Times(), 0

    def _look_times(self) -> bool:
        """Read the times that were added; say whether there are any."""
        file = self._times_file
        if file.look() is News.ANEW:
            self._forget_times()
        if file.size <= self._timed:
            return False
        self._times.feed(file.bytes(max(self._timed, file.size - _TIMES), file.size))
        self._timed = file.size
        return True

    # -- blocks ----------------------------------------------------------------------------

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return -(-self.size // self._size)

    def number_of(self, place: int) -> int:
        """Return the block that a byte is in."""
        return place // self._size

    def block(self, number: int) -> Block:
        """Return a block; an empty one where nothing is."""
        block = self._blocks.get(number)
        if block is None:
            block = self._blocks[number] = self._read(number)
            if len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(number)
        return block

    def _read(self, number: int) -> Block:
        start, stop = number * self._size, min((number + 1) * self._size, self.size)
        begin = self._begin(start, stop)
        if begin is None:
            return Block(open=stop == self.size)
        reader, said, end = self.reader(), [], begin
        for line, end in self.lines(begin, stop):
            said += self.said(reader, line, end)
        said = joined(said)
        timeless = any(one.entry.at is None for one in said)
        return Block(begin, tuple(said), end < stop or stop == self.size, timeless)

    def _begin(self, start: int, stop: int) -> int | None:
        """Return where the first line begins from `start` to `stop`, None if none does."""
        if start >= stop:
            return None
        if start == 0 or self.file.bytes(start - 1, start) == b"\n":
            return start
        begin = start + self.file.bytes(start, stop).find(b"\n") + 1
        return begin if start < begin < stop else None

    # -- lines -----------------------------------------------------------------------------

    def reader(self) -> Reader:
        """Return a reader for the lines, of which none was read yet."""
        try:
            return reader_for(self.format or _PLAIN, self._about.folder)
        except KeyError:
            return reader_for(_PLAIN)

    def lines(self, at: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield where each line begins and ends that begins before `stop`; `at` is the first."""
        while at < min(stop, self.size):
            end = self._line_end(at)
            if end is None:
                if not self.over:
                    return
                end = self.size
            yield at, end
            at = end

    def said(self, reader: Reader, line: int, end: int) -> list[Said]:
        """Return what the line from `line` to `end` says; before the first, what was asked."""
        entries = self._entries(reader, line, end)
        if self._prompt is not None and line < self._size:
            # Some CLIs tell it, too.
            entries = [entry for entry in entries if not self._is_prompt(entry)]
            if line == 0:
                when = entries[0].at if entries else self._times.at(0)
                entries.insert(0, replace(self._prompt, at=when))
        return [Said(line + i, line, end, e) for i, e in enumerate(entries[: end - line])]

    def _is_prompt(self, entry: Entry) -> bool:
        assert self._prompt is not None
        asked = entry.kind is Kind.MESSAGE and entry.role is Role.USER
        return asked and entry.text.strip() == self._prompt.text

    def _entries(self, reader: Reader, line: int, end: int) -> list[Entry]:
        when = self._times.at(line)
        if end - line > _LONGEST:
            glimpse = self.file.bytes(line, line + _GLIMPSE).decode("utf-8", "replace")
            text = f"a line of {end - line:,} bytes, too long to be read: {glimpse}"
            return [Entry(Kind.UNKNOWN, text, when)]
        return list(reader.read(self.file.bytes(line, end).rstrip(b"\r\n"), when))

    def _line_end(self, at: int) -> int | None:
        """Return where the next line begins, None if this one has no end yet."""
        while at < self.size:
            stop = min((at // self._size + 1) * self._size, self.size)
            found = self.file.bytes(at, stop).find(b"\n")
            if found >= 0:
                return at + found + 1
            at = stop
        return None


class Walk:
    """Goes through a transcript from its begin, each line once, with one reader for all.

    So what is summed up on the way is right, as it is not where one begins in the middle.
    """

    def __init__(self, transcript: Transcript) -> None:
        self.at = 0
        """The byte up to which it has come."""
        self.summary = Summary()
        """What was said until then, in numbers."""
        self._transcript = transcript
        self._reader: Reader | None = None
        self._seen = (0, False)

    @property
    def done(self) -> bool:
        """Whether nothing is left to be read now."""
        return self._seen == (self._transcript.size, self._transcript.over)

    def step(self, limit: int = BLOCK) -> list[Said]:
        """Return the next entries: those of about `limit` bytes."""
        transcript, began = self._transcript, self.at
        if self._reader is None:
            self._reader = transcript.reader()
        said: list[Said] = []
        for line, end in transcript.lines(began, began + limit):
            said += transcript.said(self._reader, line, end)
            self.at = end
        if self.at in {began, transcript.size}:
            self._seen = transcript.size, transcript.over
        for one in said:
            self.summary.take(one.entry)
        return joined(said)


def joined(said: list[Said]) -> list[Said]:
    """Return the entries with each message whole that came in pieces."""
    whole: list[Said] = []
    pieces: list[str] = []
    for one in said:
        if whole and continues(whole[-1].entry, one.entry):
            pieces = pieces or [whole[-1].entry.text]
            pieces.append(one.entry.text)
            whole[-1] = replace(whole[-1], end=one.end)
            continue
        _put_together(whole, pieces)
        pieces = []
        whole.append(one)
    _put_together(whole, pieces)
    return whole


def continues(before: Entry, entry: Entry) -> bool:
    """Say whether an entry is one more piece of the message before it."""
    said = (before.kind, before.role, before.parent)
    return entry.goes_on and said == (entry.kind, entry.role, entry.parent)


def _put_together(whole: list[Said], pieces: list[str]) -> None:
    if pieces:
        last = whole[-1]
        whole[-1] = replace(last, entry=replace(last.entry, text="".join(pieces)))


def _glimpse(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read(_SMALL)
