"""What doctor finds in a log: every line and every byte that is not as the events table has it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support.checkup import doctor, errors, in_words, only_errors
from support.damage import by_hand, lines_of
from support.finished import copied

from engine.core import Engine
from engine.findings import Level
from engine.log.check import check_log
from engine.log.repair import rewrite
from engine.logfiles import log_files

if TYPE_CHECKING:
    from pathlib import Path

    from engine.files import Layout


@pytest.fixture
def layout(finished: Path, tmp_path: Path) -> Layout:
    """A copy of its state, for one test to damage."""
    return copied(finished, tmp_path)


def log_errors(layout: Layout, *, at_work: bool = False) -> list[str]:
    return [one.message for one in only_errors(check_log(layout, at_work=at_work))]


# Lines.


def test_every_single_line_that_is_lost_is_found(layout: Layout) -> None:
    lines = lines_of(layout)
    assert len(lines) > 30
    assert log_errors(layout) == []
    for gone, line in enumerate(lines):
        layout.log.write_bytes(b"".join(lines[:gone] + lines[gone + 1 :]))
        last = gone == len(lines) - 1
        what = f"its last 1 event, from {gone + 1} on" if last else f"event {gone + 1}"
        (message,) = log_errors(layout)
        assert message.startswith(f"the log lacks {what}"), line


def test_a_byte_that_is_changed_anywhere_is_found(layout: Layout) -> None:
    whole = layout.log.read_bytes()
    log = os.open(layout.log, os.O_RDWR)
    try:
        for at in range(0, len(whole) - 1, 37):
            os.pwrite(log, bytes([whole[at] ^ 1]), at)
            assert log_errors(layout), f"byte {at} was changed"
            os.pwrite(log, whole[at : at + 1], at)
    finally:
        os.close(log)
    assert log_errors(layout) == []


def test_a_changed_line_is_named(layout: Layout) -> None:
    lines = lines_of(layout)
    lines[6] = lines[6].replace(b'"state":"READY"', b'"state":"ready"')
    lines[9] = lines[9].replace(b'"seq":10,', b'"seq":10;')
    layout.log.write_bytes(b"".join(lines))
    changed, garbage, lacking = log_errors(layout)
    assert changed == "line 7 of events.jsonl does not say what the events table says of event 7"
    assert garbage.startswith("line 10 of events.jsonl is no event: ")
    assert lacking == "the log lacks event 10"


def test_swapped_doubled_and_foreign_lines_are_named(layout: Layout) -> None:
    lines = lines_of(layout)
    lines[3], lines[4] = lines[4], lines[3]
    lines.insert(8, lines[2])
    lines.insert(12, b'{"seq":9999,"ts":"","type":"ALERT"}\n')
    layout.log.write_bytes(b"".join(lines))
    assert log_errors(layout) == [
        "line 5 of events.jsonl tells of event 4 out of order",
        "line 9 of events.jsonl tells of event 3 once more",
        "line 13 of events.jsonl tells of event 9999, which the events table lacks",
    ]


async def test_a_lost_row_of_the_events_table_is_found(layout: Layout) -> None:
    count = len(lines_of(layout))
    by_hand(layout, f"DELETE FROM events WHERE seq IN (7, {count})")
    told = in_words(await errors(layout))
    assert "log: line 7 of events.jsonl tells of event 7, which the events table lacks" in told
    assert f"log: line {count} of events.jsonl tells of event {count}, " in " ".join(told)
    assert "events: the events table has nothing between 6 and 8: 1 lost" in told


async def test_a_log_that_is_gone_is_found(layout: Layout) -> None:
    count = len(lines_of(layout))
    layout.log.unlink()
    (message,) = in_words(await errors(layout))
    assert message.startswith(f"log: the log lacks its last {count} events, from 1 on")


# Several files.


def rotated(layout: Layout, *resets: int) -> list[Path]:
    """Make these events a RESET, and the log what it is then; return its files."""
    numbers = ", ".join(map(str, resets))
    by_hand(layout, f"UPDATE events SET type = 'RESET' WHERE seq IN ({numbers})")
    assert rewrite(layout) is not None
    assert check_log(layout, at_work=False) == []
    files = log_files(layout)
    assert len(files) == len(resets) + 1
    return files


def test_a_log_in_several_files_is_one_log(layout: Layout) -> None:
    _, middle, _ = rotated(layout, 6, 21)
    lines = middle.read_bytes().splitlines(keepends=True)
    assert len(lines) == 15
    middle.write_bytes(b"".join(lines[:-1]))
    assert log_errors(layout) == ["the log lacks event 20"]
    middle.write_bytes(b"".join(lines)[:-9])
    torn, lacking = log_errors(layout)
    assert torn.startswith(f"{middle.name} ends in half a line: ")
    assert lacking == "the log lacks event 20"
    middle.unlink()
    assert log_errors(layout) == [f"the log lacks event {seq}" for seq in range(6, 21)]


def test_a_reset_that_does_not_begin_a_file_is_found(layout: Layout) -> None:
    oldest, middle, newest = rotated(layout, 6, 21)
    middle.write_bytes(middle.read_bytes() + newest.read_bytes())
    newest.unlink()
    assert log_errors(layout) == [f"line 16 of {middle.name} is a RESET; that begins a file"]
    oldest.write_bytes(oldest.read_bytes() + middle.read_bytes())
    middle.unlink()
    assert log_errors(layout) == [
        f"line {line} of {oldest.name} is a RESET; that begins a file" for line in (6, 21)
    ]


def test_a_file_that_does_not_begin_with_a_reset_is_found(layout: Layout) -> None:
    oldest, newest = rotated(layout, 6)
    lines = newest.read_bytes().splitlines(keepends=True)
    oldest.write_bytes(oldest.read_bytes() + lines[0])
    newest.write_bytes(b"".join(lines[1:]))
    assert log_errors(layout) == [
        f"line 6 of {oldest.name} is a RESET; that begins a file",
        "events.jsonl does not begin with RESET and is not the oldest",
    ]


def test_a_payload_that_speaks_of_a_reset_is_none(layout: Layout) -> None:
    words = """json_set(data, '$.x', json('{"seq":1,"type":"RESET"}'))"""
    by_hand(layout, f"UPDATE events SET data = {words} WHERE seq = 9")
    assert rewrite(layout) is not None
    assert log_files(layout) == [layout.log]
    assert check_log(layout, at_work=False) == []


# Its end.


@pytest.mark.parametrize("at_work", [True, False])
def test_a_log_that_is_behind_is_only_a_note_but_lines_that_were_lost_are_an_error(
    layout: Layout, *, at_work: bool
) -> None:
    whole = lines_of(layout)
    by_hand(layout, "INSERT INTO events(ts, type) SELECT ts, 'ALERT' FROM events WHERE seq < 4")
    (finding,) = check_log(layout, at_work=at_work)
    assert (finding.level, finding.message) == (
        Level.NOTE,
        "the log is 3 events behind its table",
    )
    assert ("`agentmux resume`" in finding.advice) is not at_work
    layout.log.write_bytes(b"".join(whole[:-1]))
    (finding,) = check_log(layout, at_work=at_work)
    assert finding.level is Level.ERROR
    assert finding.message == f"the log lacks its last 4 events, from {len(whole)} on"
    assert ("`agentmux resume`" in finding.advice) is not at_work


def test_a_log_of_which_nobody_noted_how_far_it_went_must_be_whole_unless_somebody_is_at_work(
    layout: Layout,
) -> None:
    layout.log_lock.write_text("")
    layout.log.write_bytes(b"".join(lines_of(layout)[:-1]))
    assert [one.level for one in check_log(layout, at_work=True)] == [Level.NOTE]
    assert len(log_errors(layout)) == 1


async def test_half_a_last_line_is_no_error_and_is_mended_at_the_next_start(layout: Layout) -> None:
    whole = layout.log.read_bytes()
    layout.log.write_bytes(whole[:-20])
    (note,) = [one for one in await doctor(layout) if one.check == "log"]
    assert note.level is Level.NOTE
    assert "half-written" in note.message
    async with Engine(layout.state):
        assert [one for one in await doctor(layout) if one.check == "log"] == []
    assert layout.log.read_bytes() == whole


def test_half_a_line_of_something_else_is_an_error(layout: Layout) -> None:
    with layout.log.open("ab") as log:
        log.write(b'{"seq":99')
    (message,) = log_errors(layout)
    assert "half a line that is no event" in message
