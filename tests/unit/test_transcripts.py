"""Transcripts on disk: any split of the bytes and any order of reading gives the same entries."""

from __future__ import annotations

import json
import os
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import transcripts
from support.lists import NOW
from support.transcripts import says

from engine.agents.vocabulary import Entry, Kind, Role
from engine.clock import to_iso
from engine.growing import News, Standing
from engine.model import Spending
from engine.narrate import describe_spending
from engine.transcripts.rows import rows_of
from engine.transcripts.telling import LONGEST, Mood, tell
from engine.transcripts.times import Times
from engine.transcripts.transcript import Said, Transcript, Walk
from tui.logs.said import SaidFile
from tui.tail import read_words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL = 64
OPENED: list[Transcript] = []


def entries(seen: Transcript) -> list[Said]:
    """All that is said, block by block."""
    return [one for number in range(seen.blocks) for one in seen.block(number).said]


def opened(folder: Path, *, over: bool = False, block: int = SMALL) -> Transcript:
    seen = Transcript(folder, over=over, block=block)
    OPENED.append(seen)
    seen.look()
    return seen


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def texts(said: list[Said]) -> list[str]:
    return [one.entry.text for one in said]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "agent.json").write_text('{"cli": "x", "format": "text"}')
    return tmp_path


# -- lines, blocks, places -------------------------------------------------------------------


LINES = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from([b"", b"   ", b"a" * 150, b"\xff\xfe", "žluť".encode(), b"[1, 2", b"\r"]),
    ),
    max_size=30,
).map(lambda lines: [line.replace(b"\n", b"") for line in lines])


def written(lines: list[bytes], cuts: list[float]) -> Iterator[bytes]:
    """Yield the bytes of lines in parts: cut anywhere, and after lines."""
    whole = b"".join(line + b"\n" for line in lines)
    done = 0
    for cut in sorted(cuts):
        upto = int(cut * len(whole))
        if cut * 1000 % 2 < 1:
            upto = whole.find(b"\n", upto) + 1 or upto
        yield whole[done:upto] if upto > done else b""
        done = max(done, upto)
    yield whole[done:]


CUTS = st.lists(st.floats(0, 1), max_size=6)
in_one_folder = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@in_one_folder
@given(lines=LINES, cuts=CUTS, data=st.data())
def test_any_split_of_the_bytes_and_any_order_of_reading_gives_the_same_entries(
    folder: Path, lines: list[bytes], cuts: list[float], data: st.DataObject
) -> None:
    path = folder / "transcript.jsonl"
    path.write_bytes(b"".join(written(lines, [])))
    wanted = Walk(opened(folder)).step(1_000_000)
    path.unlink()
    growing = opened(folder)
    walk, walked = Walk(growing), list[Said]()
    for part in written(lines, cuts):
        with path.open("ab") as file:
            file.write(part)
        growing.look()
        if growing.blocks:
            growing.block(data.draw(st.integers(0, growing.blocks)))
        limit, steps = data.draw(st.integers(1, 200)), 0
        while not walk.done:
            walked += walk.step(limit)
            steps += 1
            assert steps < 1000
    assert entries(growing) == wanted
    assert walked == wanted
    starts = [one.start for one in wanted]
    assert starts == sorted(set(starts))
    assert all(one.line <= one.start < one.end for one in wanted)


@in_one_folder
@given(lines=LINES, cuts=CUTS, data=st.data())
def test_the_pieces_of_a_screen_are_found_from_any_place_and_leave_nothing_out(
    folder: Path, lines: list[bytes], cuts: list[float], data: st.DataObject
) -> None:
    path = folder / "transcript.jsonl"
    path.write_bytes(b"")
    with closing(SaidFile(path, block=SMALL)) as file:
        for part in written(lines, cuts):
            with path.open("ab") as appended:
                appended.write(part)
            file.look()
            file.start_of(data.draw(st.integers(0, max(0, file.size))))
        at, told = 0, list[str]()
        while at < file.size:
            piece = file.piece(at)
            assert piece.end > at
            assert {file.start_of(place) for place in range(at, piece.end)} == {at}
            told += [piece.text] if piece.told.who else []
            at = piece.end
        assert at == file.size
    assert told == [tell(one.entry).text for one in entries(opened(folder))]


def test_a_line_counts_once_it_ends_or_the_run_is_over(folder: Path) -> None:
    (folder / "transcript.jsonl").write_bytes(b"one\ntwo")
    seen = opened(folder)
    assert texts(entries(seen)) == ["one"]
    with (folder / "transcript.jsonl").open("ab") as file:
        file.write(b" and a half")
    seen.look()
    assert texts(entries(seen)) == ["one"]
    seen.over = True
    assert seen.look() is News.GREW
    assert texts(entries(seen)) == ["one", "two and a half"]


def test_a_line_over_many_blocks_is_one_entry(folder: Path) -> None:
    long = "x" * (SMALL * 7 + 3)
    (folder / "transcript.jsonl").write_text(f"a\n{long}\nb\n")
    seen = opened(folder)
    assert texts(entries(seen)) == ["a", long, "b"]
    assert [seen.block(number).begin for number in (0, 1, 6)] == [0, None, None]


def test_several_entries_of_a_line_have_places_of_their_own(tmp_path: Path) -> None:
    blocks = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    message = {"id": "m", "role": "assistant", "content": blocks}
    transcripts.write(tmp_path, [transcripts.line("assistant", message=message)], prompt="")
    said = entries(opened(tmp_path, block=1024))
    assert [(one.start, one.line, one.entry.text) for one in said] == [
        (0, 0, "one"), (1, 0, "two"),
    ]  # fmt: skip


def test_a_message_in_pieces_is_told_whole(tmp_path: Path) -> None:
    pieces = [
        json.dumps({"type": "message", "role": "assistant", "content": text, "delta": True})
        for text in ("Hel", "lo ", "there")
    ]
    transcripts.write(tmp_path, pieces, prompt="", form="gemini")
    assert texts(entries(opened(tmp_path, block=4096))) == ["Hello there"]


def test_what_was_asked_comes_first_and_once_even_where_the_agent_repeats_it(
    tmp_path: Path,
) -> None:
    echo = json.dumps({"type": "message", "role": "user", "content": transcripts.PROMPT})
    transcripts.write(tmp_path, [echo], form="gemini")
    said = entries(opened(tmp_path, block=4096))
    assert [(one.start, one.entry.role, one.entry.text) for one in said] == [
        (0, Role.USER, transcripts.PROMPT)
    ]


def test_what_was_asked_comes_first_where_the_agent_says_nothing_of_it(tmp_path: Path) -> None:
    transcripts.write(tmp_path, [says("hello")])
    said = entries(opened(tmp_path, block=4096))
    assert [(one.start, one.entry.text) for one in said] == [(0, transcripts.PROMPT), (1, "hello")]
    assert said[0].entry.at == said[1].entry.at


def test_binary_rubbish_is_entries_too(tmp_path: Path) -> None:
    transcripts.write(tmp_path, [], prompt="")
    (tmp_path / "transcript.jsonl").write_bytes(os.urandom(200_000) + b"\n")
    said = entries(opened(tmp_path, block=4096))
    assert said
    assert {one.entry.kind for one in said} == {Kind.UNKNOWN}


# -- files that change -----------------------------------------------------------------------


def test_what_is_missing_yet_is_there_once_it_comes(tmp_path: Path) -> None:
    seen = opened(tmp_path / "run")
    assert (seen.standing, seen.blocks, seen.format) == (Standing.MISSING, 0, "")
    transcripts.write(tmp_path / "run", [transcripts.says("hello")], prompt="")
    assert seen.look() is not News.NOTHING
    assert (texts(entries(seen)), seen.format) == (["hello"], "claude")


def test_how_to_read_it_may_become_known_later(tmp_path: Path) -> None:
    transcripts.write(tmp_path, [transcripts.says("hello")], prompt="")
    about = (tmp_path / "agent.json").read_bytes()
    (tmp_path / "agent.json").unlink()
    seen = opened(tmp_path)
    assert texts(entries(seen))[0].startswith("{")
    (tmp_path / "agent.json").write_bytes(about)
    assert seen.look() is News.ANEW
    assert texts(entries(seen)) == ["hello"]


def test_how_to_read_it_may_become_known_with_more_of_it(tmp_path: Path) -> None:
    transcripts.write(tmp_path, [transcripts.says("hello"), transcripts.says("more")], prompt="")
    about = (tmp_path / "agent.json").read_bytes()
    lines = (tmp_path / "transcript.jsonl").read_bytes()
    (tmp_path / "agent.json").unlink()
    (tmp_path / "transcript.jsonl").write_bytes(lines[:20])
    seen = opened(tmp_path)
    assert Walk(seen).step() == []
    (tmp_path / "agent.json").write_bytes(about)
    (tmp_path / "transcript.jsonl").write_bytes(lines)
    assert seen.look() is News.ANEW, "what was made of its begin is wrong"
    assert texts(Walk(seen).step()) == ["hello", "more"]


@pytest.mark.parametrize("about", ["", "[]", "{", '{"format": 7}', '{"format": "morse"}'])
def test_without_a_format_that_is_known_lines_are_text(tmp_path: Path, about: str) -> None:
    (tmp_path / "agent.json").write_text(about)
    (tmp_path / "transcript.jsonl").write_text("hello\n")
    assert texts(entries(opened(tmp_path))) == ["hello"]


def test_a_file_that_is_cut_or_replaced_is_read_anew(folder: Path) -> None:
    path = folder / "transcript.jsonl"
    path.write_text("one\n" * 100)
    seen = opened(folder)
    assert texts(entries(seen)) == ["one"] * 100
    path.write_text("two\n" * 80)
    assert seen.look() is News.ANEW
    assert texts(entries(seen)) == ["two"] * 80
    path.unlink()
    seen.look()
    assert seen.standing is Standing.GONE
    path.write_text("new\n")
    assert seen.look() is News.ANEW
    assert texts(entries(seen)) == ["new"]


@pytest.mark.parametrize(
    "name", ["transcript.jsonl", "transcript.times", "prompt.md", "agent.json"]
)
def test_a_pipe_or_a_link_in_place_of_a_file_holds_nobody_up(folder: Path, name: str) -> None:
    (folder / "transcript.jsonl").write_text("hello\n")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    seen = opened(folder)
    assert texts(entries(seen)) in (["hello"], [])
    assert (seen.standing is Standing.REFUSED) is (name == "transcript.jsonl")
    (folder / name).unlink()
    (folder / name).symlink_to("/etc/passwd")
    seen.look()
    assert "root" not in "".join(texts(entries(seen)))


# -- times -----------------------------------------------------------------------------------


def test_a_line_has_the_time_at_which_it_came(tmp_path: Path) -> None:
    lines = [transcripts.says(f"{n}") for n in range(3)]
    transcripts.write(tmp_path, lines, prompt="", first=30, every=10)
    said = entries(opened(tmp_path))
    assert [one.entry.at for one in said] == [NOW - timedelta(seconds=s) for s in (30, 20, 10)]


def test_a_line_that_says_its_own_time_has_that(tmp_path: Path) -> None:
    own = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    transcripts.write(tmp_path, [transcripts.says("x", timestamp=to_iso(own))], prompt="")
    assert entries(opened(tmp_path))[0].entry.at == own


@pytest.mark.parametrize(
    "when",
    ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59Z",
     "9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59-14:00"],
)  # fmt: skip
def test_a_time_that_no_calendar_can_show_everywhere_is_none(tmp_path: Path, when: str) -> None:
    transcripts.write(tmp_path, [transcripts.says("x", timestamp=when)], prompt="")
    (tmp_path / "transcript.times").write_text(f"{when} 500\n")
    assert entries(opened(tmp_path))[0].entry.at is None


def test_a_time_that_comes_after_its_line_is_told_then(tmp_path: Path) -> None:
    transcripts.write(tmp_path, [transcripts.says("x")], prompt="")
    times = (tmp_path / "transcript.times").read_bytes()
    (tmp_path / "transcript.times").write_bytes(times[:10])
    seen = opened(tmp_path)
    assert entries(seen)[0].entry.at is None
    (tmp_path / "transcript.times").write_bytes(times)
    assert seen.look() is News.GREW
    assert entries(seen)[0].entry.at is not None


@given(
    steps=st.lists(st.tuples(st.integers(0, 90), st.integers(1, 500)), max_size=20),
    cuts=st.lists(st.integers(0, 900), max_size=5),
)
def test_times_are_the_same_however_they_come(
    steps: list[tuple[int, int]], cuts: list[int]
) -> None:
    offset, moment, known = 0, NOW, []
    for seconds, size in steps:
        offset, moment = offset + size, moment + timedelta(seconds=seconds)
        known.append((offset, moment))
    data = "".join(f"{to_iso(when)} {end}\n" for end, when in known).encode()
    times, done = Times(), 0
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        times.feed(data[done:cut])
        done = cut
    for place in range(0, offset + 2, 7):
        assert times.at(place) == next((when for end, when in known if place < end), None)


def test_damaged_times_say_nothing() -> None:
    times = Times()
    times.feed(
        b"\xff\xfe\nyesterday 10\n2026-01-01T00:00:00.000Z -5\n 20\nx 99999999999999999999\n"
    )
    times.feed(b"2026-01-01T00:00:00.000Z 30\n2026-01-01T00:00:01.000Z 12\n")
    assert times.at(5) is None
    assert times.at(25) == datetime(2026, 1, 1, tzinfo=UTC)
    assert times.at(30) is None


# -- telling ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "who", "text", "mood"),
    [
        (Entry(Kind.MESSAGE, "hi", role=Role.AGENT), "agent", "hi", Mood.PLAIN),
        (Entry(Kind.MESSAGE, "hi", role=Role.AGENT, parent="t"), "·agent", "hi", Mood.PLAIN),
        (Entry(Kind.MESSAGE, "hm", role=Role.THOUGHT), "thinks", "hm", Mood.QUIET),
        (Entry(Kind.CALL, "a.py", tool="Read"), "tool", "Read a.py", Mood.BUSY),
        (Entry(Kind.ANSWER, "1\n2"), "↳", "1\n2", Mood.QUIET),
        (Entry(Kind.ANSWER, ""), "↳", "nothing", Mood.QUIET),
        (Entry(Kind.ANSWER, "no", failed=True), "↳ failed", "no", Mood.BAD),
        (Entry(Kind.RESULT, "ok"), "result", "done\nok", Mood.GOOD),
        (Entry(Kind.RESULT, "bad", failed=True), "result", "failed\nbad", Mood.BAD),
        (Entry(Kind.UNKNOWN, "{}"), "unknown", "{}", Mood.QUIET),
    ],
)
def test_who_says_what(entry: Entry, who: str, text: str, mood: Mood) -> None:
    told = tell(entry)
    assert (told.who, told.text, told.mood) == (who, text, mood)


def test_the_arguments_of_a_call_stand_below_it_as_they_are() -> None:
    detail = json.dumps({"file_path": "a.py", "new_string": "x\ny", "all": True})
    told = tell(Entry(Kind.CALL, "a.py", tool="Edit", detail=detail))
    assert told.text == "Edit a.py\nfile_path: a.py\nnew_string: \nx\ny\nall: true"
    assert told.text[: told.whole] == "Edit a.py"
    assert told.text[: told.title] == "Edit"


def test_an_argument_that_was_told_is_not_told_again() -> None:
    told = tell(Entry(Kind.CALL, "a.py", tool="Read", detail='{"file_path":"a.py"}'))
    assert told.text == "Read a.py"


def test_what_an_agent_prints_cannot_act_on_the_terminal() -> None:
    evil = "a\x1b]52;c;eA==\x07b\x1b[2Jc\u202ed\x9bK"
    for kind in Kind:
        told = tell(Entry(kind, evil, tool=evil, model=evil, detail=json.dumps({evil: evil})))
        assert all(char.isprintable() or char == "\n" for char in told.text + told.who)
        assert told.title <= len(told.text)


def test_an_entry_of_any_size_is_told_in_a_size_that_can_be_shown_and_says_what_is_left() -> None:
    told = tell(Entry(Kind.ANSWER, "x" * (LONGEST + 1234)))
    text, hint = told.text.split("\n")
    assert text == "x" * LONGEST
    assert hint == "… 1,234 more characters: see transcript.jsonl"
    assert told.whole == len(told.text)


def test_what_was_spent_is_told_as_far_as_it_is_known() -> None:
    assert (
        describe_spending(Spending(12, 127_000, 118_000, 3_000, 1.24))
        == "12 turns · 130k tokens · $1.24"
    )
    assert describe_spending(Spending(cost=0.5)) == "$0.50"
    assert describe_spending(Spending()) == ""


# -- rows ------------------------------------------------------------------------------------


@given(text=st.text(alphabet="ab 漢\n\u0301", max_size=80), width=st.integers(1, 12))
def test_rows_hold_all_of_a_text_and_no_more_than_their_width(text: str, width: int) -> None:
    rows = list(rows_of(text, width))
    gaps = [text[end:begin] for (_, end), (begin, _) in pairwise(rows)]
    assert set(gaps) <= {"", "\n"}
    assert (rows[0][0], rows[-1][1]) == (0, len(text))
    for begin, end in rows:
        row = text[begin:end]
        assert "\n" not in row
        wide = sum(2 if char == "漢" else char != "\u0301" for char in row.removesuffix(" "))
        assert wide <= max(width, 2)


def test_rows_break_after_words() -> None:
    text = "the quick brown fox"
    assert [text[a:b] for a, b in rows_of(text, 10)] == ["the quick ", "brown fox"]
    word = "abcdefgh"
    assert [word[a:b] for a, b in rows_of(word, 3)] == ["abc", "def", "gh"]


# -- its end, in a few lines -----------------------------------------------------------------


def test_the_end_is_told_a_line_an_entry(tmp_path: Path) -> None:
    transcripts.write(tmp_path, transcripts.CLAIMS)
    tail = read_words(tmp_path, over=False)
    assert not tail.cut
    assert tail.lines[0] == "prompt   Make the claim test pass when two hosts start at once."
    assert tail.lines[-2:] == (
        "↳        12 passed in 3.41s",
        "agent    The test passes, and so do the other eleven:",
    )


def test_the_end_is_told_though_the_last_line_goes_through_many_blocks(tmp_path: Path) -> None:
    lines = [transcripts.says("before"), transcripts.answers("x" * 700_000)]
    transcripts.write(tmp_path, lines, prompt="")
    tail = read_words(tmp_path, over=False)
    assert [line[:12] for line in tail.lines] == ["agent    bef", "↳        xxx"]
    assert len(tail.lines[-1]) < 2_000, "all of it is laid out at once"


def test_the_last_words_count_once_the_run_is_over_though_their_line_has_no_end(
    tmp_path: Path,
) -> None:
    transcripts.write(tmp_path, [], prompt="")
    (tmp_path / "transcript.jsonl").write_text(transcripts.says("my last words"))
    assert read_words(tmp_path, over=False).lines == ()
    assert read_words(tmp_path, over=True).lines == ("agent    my last words",)


def test_the_end_of_a_long_transcript_is_not_all_of_it(tmp_path: Path) -> None:
    transcripts.write(tmp_path, [transcripts.says(f"{n}") for n in range(5_000)], prompt="")
    tail = read_words(tmp_path, over=True)
    assert tail.cut
    assert tail.lines[-1] == "agent    4999"
    assert len(tail.lines) == 100
