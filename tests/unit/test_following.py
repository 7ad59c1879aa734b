"""Promises of who follows a transcript: all is heard once, whatever its program does to it."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.engines import until
from support.patience import PATIENCE

from engine.clock import SystemClock
from engine.errors import LeaseLost
from engine.executors.agent import following
from engine.executors.agent.following import Follower
from engine.text import clean_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from engine.agents.vocabulary import Entry
    from engine.model import Spending

TOKEN = "tok-0123456789"


class Heard:
    """Takes what is told of a run; raises `trouble` if there is one."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.trouble: Exception | None = None

    async def __call__(self, note: str, spending: Spending | None = None) -> None:
        del spending
        self.notes.append(note)
        if self.trouble is not None:
            raise self.trouble


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_LOOK", 0.01)
    monkeypatch.setattr(following, "_TELL", 0.0)


@pytest.fixture
def heard() -> Heard:
    return Heard()


def a_follower(
    folder: Path,
    heard: Heard,
    form: str = "claude",
    variables: Mapping[str, str] | None = None,
    timeout: float = PATIENCE * 100,
) -> Follower:
    return Follower(
        form=form,
        folder=folder,
        lines=folder / "transcript.jsonl",
        times=folder / "transcript.times",
        clock=SystemClock(),
        prices=None,
        progress=heard,
        variables=variables or {},
        timeout=timeout,
    )


def said(words: str) -> bytes:
    line = {"type": "assistant", "message": {"content": [{"type": "text", "text": words}]}}
    return json.dumps(line).encode() + b"\n"


def used(tool: str, **given: Any) -> bytes:
    block = {"type": "tool_use", "id": "t1", "name": tool, "input": given}
    return json.dumps({"type": "assistant", "message": {"content": [block]}}).encode() + b"\n"


def begun(*, session: str, model: str) -> bytes:
    line = {"type": "system", "subtype": "init", "session_id": session, "model": model}
    return json.dumps(line).encode() + b"\n"


def result(words: str = "Done.") -> bytes:
    line = {"type": "result", "subtype": "success", "is_error": False, "result": words}
    return json.dumps(line).encode() + b"\n"


def write(follower: Follower, data: bytes) -> None:
    with follower.lines.open("ab") as file:
        file.write(data)


async def test_what_comes_in_pieces_and_without_a_last_line_end_is_heard(
    tmp_path: Path, heard: Heard
) -> None:
    whole = said("one") + said("zwölf") + result()
    async with a_follower(tmp_path, heard) as follower:
        for start in range(0, len(whole) - 1, 7):
            write(follower, whole[start : min(start + 7, len(whole) - 1)])
            await asyncio.sleep(0)
    summary = follower.summary
    assert (summary.messages, summary.unknown, summary.answer) == (2, 0, "Done.")


async def test_a_look_that_goes_on_at_the_end_is_waited_for_and_all_is_heard_once(
    tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, release = threading.Event(), threading.Event()
    follower = a_follower(tmp_path, heard)
    read = follower._reader.read

    def slow(line: bytes, at: datetime | None = None) -> tuple[Entry, ...]:
        if b"one" in line:
            entered.set()
            assert release.wait(PATIENCE)
        return read(line, at)

    monkeypatch.setattr(follower._reader, "read", slow)
    later = threading.Timer(0.2, release.set)
    async with follower:
        write(follower, said("one") + said("two") + result())
        await until(entered.is_set, "it reads")
        later.start()
    assert release.is_set()
    assert (follower.summary.messages, follower.summary.answer) == (2, "Done.")


async def test_a_line_that_is_longer_than_any_is_not_kept_and_counts_as_unknown(
    tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_LONGEST_LINE", 100_000)
    monkeypatch.setattr(following, "_CHUNK", 4096)
    async with a_follower(tmp_path, heard) as follower:
        write(follower, b"x" * 1_000_000)
        await until(lambda: follower._length == 1_000_000, "it is read")
        assert sum(map(len, follower._held)) <= 100_000
        write(follower, b"\n" + said("on") + result())
    assert (follower.summary.unknown, follower.summary.answer) == (1, "Done.")


async def test_of_a_flood_the_end_is_heard(
    tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_LOOK", PATIENCE)
    monkeypatch.setattr(following, "_MOST_AT_LAST", 10_000)
    async with a_follower(tmp_path, heard) as follower:
        write(follower, said("flood") * 10_000 + result())
    summary = follower.summary
    assert (summary.unknown, summary.answer) == (1, "Done.")
    assert 0 < summary.messages < 1000


async def test_what_a_program_puts_in_the_place_of_its_transcript_is_no_concern(
    tmp_path: Path, heard: Heard
) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("mine\n")
    follower = a_follower(tmp_path, heard)
    async with follower:
        own = os.open(follower.lines, os.O_WRONLY | os.O_APPEND)
        follower.lines.unlink()
        os.mkfifo(follower.lines)
        (tmp_path / "transcript.times").unlink()
        (tmp_path / "transcript.times").symlink_to(theirs)
        os.write(own, said("still here") + result())
        os.close(own)
        await until(lambda: follower.summary.result is not None, "it is heard")
    assert follower.summary.answer == "Done."
    assert theirs.read_text() == "mine\n"


async def test_what_is_told_holds_no_secret_not_even_half_of_one_and_nothing_that_acts(
    tmp_path: Path, heard: Heard
) -> None:
    variables = {"API_TOKEN": TOKEN, "HOME": "/home/me"}
    async with a_follower(tmp_path, heard, variables=variables) as follower:
        write(follower, begun(session=TOKEN, model=f"m {TOKEN}"))
        for tool, command in (
            ("Bash", f"curl -H {TOKEN}"),
            ("Bash", f"{'x' * 192} {TOKEN}"),
            ("Bash", "echo \x1b]0;owned\x07 end"),
            ("Bash", f"echo {TOKEN[:6]}\x1b[0m{TOKEN[6:]}"),
            (f"mcp__{TOKEN}", "x"),
        ):
            before = len(heard.notes)
            write(follower, used(tool, command=command))
            await until(lambda n=before: len(heard.notes) > n, "it is told")  # type: ignore[misc]
        write(follower, result(f"It is {TOKEN}."))
    assert heard.notes[0] == "Bash curl -H [API_TOKEN]"
    assert heard.notes[-2:] == ["Bash echo [API_TOKEN]", "mcp__[API_TOKEN] x"]
    assert TOKEN[:4] not in "".join(heard.notes)
    assert all(note == clean_text(note) and len(note) <= 200 for note in heard.notes)
    summary = follower.summary
    assert summary.answer == "It is [API_TOKEN]."
    assert (summary.session, summary.model) == ("[API_TOKEN]", "m [API_TOKEN]")


async def test_a_tool_use_is_told_once_whatever_it_goes_on_to_cost(
    tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_TELL_COST", PATIENCE)

    def took(number: int) -> bytes:
        usage = {"input_tokens": number, "output_tokens": number}
        words = {"type": "text", "text": "hm"}
        message = {"id": f"m{number}", "content": [words], "usage": usage}
        return json.dumps({"type": "assistant", "message": message}).encode() + b"\n"

    async with a_follower(tmp_path, heard) as follower:
        write(follower, used("Bash", command="make a") + took(1))
        await until(lambda: heard.notes, "it is told")
        write(follower, took(2))
        await until(lambda: follower.summary.messages == 2, "its cost is heard")
        write(follower, used("Bash", command="make b"))
        await until(lambda: len(heard.notes) > 1, "it is told")
        assert heard.notes == ["Bash make a", "Bash make b"]
        monkeypatch.setattr(following, "_TELL_COST", 0.0)
        write(follower, took(3))
        await until(lambda: len(heard.notes) > 2, "at last its cost is")
    assert heard.notes[2] == "Bash make b"


async def test_a_program_without_a_format_is_told_in_one_short_line(
    tmp_path: Path, heard: Heard
) -> None:
    async with a_follower(tmp_path, heard, "text") as follower:
        write(follower, b"\x1b[2J" + b"words " * 100_000 + b"\n")
        await until(lambda: heard.notes, "it is told")
    assert len(heard.notes[0]) <= 200
    assert heard.notes[0].startswith("words words")


async def test_who_lost_its_claim_is_heard_to_the_end_and_tells_nothing_more(
    tmp_path: Path, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    heard.trouble = LeaseLost("run-1")
    async with a_follower(tmp_path, heard) as follower:
        write(follower, used("Read", file_path="a.py"))
        await until(lambda: heard.notes, "it is told")
        write(follower, used("Read", file_path="b.py"))
        await until(lambda: follower.summary.calls == 2, "it is heard")
    assert heard.notes == ["Read a.py"]
    assert caplog.records == []


async def test_the_last_word_counts_as_the_last_until_the_agent_goes_on(
    tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_LINGER", 0.0)
    async with a_follower(tmp_path, heard) as follower:
        write(follower, said("at work"))
        await until(lambda: follower.summary.messages == 1, "it is heard")
        assert not follower.is_through()
        write(follower, result() + b'{"type":"keep_alive"}\n')
        await until(follower.is_through, "it is through")
        write(follower, said("one thing more"))
        await until(lambda: not follower.is_through(), "it goes on")
        monkeypatch.setattr(following, "_LINGER", PATIENCE)
        write(follower, result())
    assert not follower.is_through()
    assert follower.summary.answer == "Done."


LIMIT = b'{"type":"system","subtype":"api_retry","error":"rate_limit","error_status":429}\n'


@pytest.mark.parametrize(
    ("said_last", "through", "in_vain"),
    [
        (said("at work"), False, False),
        (result(), True, False),
        (result() + LIMIT, True, False),
        (result() + said("one thing more"), False, False),
        (LIMIT, False, True),
        (LIMIT + said("it answered"), False, False),
    ],
    ids=["at work", "result", "a limit after it", "work after it", "limit", "work after a limit"],
)
@pytest.mark.parametrize("late", [False, True], ids=["in time", "late"])
async def test_who_only_waits_is_left_to_it_until_its_time_is_nearly_over(
    tmp_path: Path, heard: Heard, said_last: bytes, late: bool, through: bool, in_vain: bool
) -> None:
    async with a_follower(tmp_path, heard, timeout=0.0 if late else 1000.0) as follower:
        write(follower, said("I begin.") + said_last)
    assert follower.is_through() is (late and through)
    assert follower.is_in_vain() is (late and in_vain)
    assert follower.has_succeeded() is through


async def test_a_fault_in_the_moment_of_the_end_keeps_nothing_from_ending(
    tmp_path: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, release = threading.Event(), threading.Event()
    follower = a_follower(tmp_path, heard)

    def broken(most: int) -> None:
        entered.set()
        assert release.wait(PATIENCE)
        raise OSError(5, f"no {most} bytes")

    monkeypatch.setattr(follower, "_read", broken)
    await follower.__aenter__()
    await until(entered.is_set, "it reads")
    leaving = asyncio.create_task(follower.__aexit__(None, None, None))
    await asyncio.sleep(0)
    release.set()
    done, _ = await asyncio.wait({leaving}, timeout=PATIENCE)
    assert done == {leaving}
