"""Promises of events.jsonl: every event once, in order; behind after a crash, never wrong."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.engines import ENVIRONMENT, until
from support.stores import Opened, a_dag, a_task, check_log, opened

from engine.log import mirror
from engine.log.journal import Journal
from engine.logfiles import End, find_end
from engine.model import Outcome, RunOutcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

DONE = Outcome(RunOutcome.DONE, result={"text": 'quotes " and \\ and \n and ünï\u2028\x1b[31m'})


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Opened]:
    async with opened(tmp_path) as it:
        yield it


def count(it: Opened) -> int:
    """Count the whole lines of the log."""
    return it.layout.log.read_bytes().count(b"\n") if it.layout.log.exists() else 0


def _has(it: Opened, lines: int) -> bool:
    return count(it) == lines


async def written(it: Opened, notices: int = 0) -> str:
    """Open and close a journal, as the next start would; return the log."""
    journal = Journal(it.layout)
    await journal.open()
    await journal.close()
    assert journal.trouble is None
    assert len(journal.notices) == notices, journal.notices
    return it.layout.log.read_text(encoding="utf-8")


def kept(it: Opened) -> list[bytes]:
    """Return what lies in quarantine, oldest first; its folders are private."""
    folders = sorted(it.layout.quarantine.iterdir()) if it.layout.quarantine.exists() else []
    files = [file for folder in folders for file in folder.iterdir()]
    assert all(path.stat().st_mode & 0o077 == 0 for path in (*folders, *files))
    assert {file.name for file in files} <= {"events.jsonl.tail"}
    return [file.read_bytes() for file in files]


async def test_every_event_becomes_one_line_in_order(it: Opened) -> None:
    journal = Journal(it.layout)
    await journal.open()
    tasks = (a_task('ü:1 "x"', payload={"kind": "noop", "x-note": "\u2028"}), a_task("b"))
    await it.store.seed(a_dag(*tasks))
    claim = await it.claim()
    await it.store.progress(claim, "half\nway")
    await it.store.finish(claim, DONE)
    await it.store.hold("*")
    await journal.close()
    check_log(it.layout)
    lines = it.layout.log.read_bytes().split(b"\n")
    assert len(lines) == 8 + 1
    first = json.loads(lines[0])
    assert list(first)[:3] == ["seq", "ts", "type"]
    assert (first["seq"], first["type"], first["taskId"]) == (1, "TASK_CREATED", 'ü:1 "x"')
    assert b"\x1b" not in b"".join(lines), "nothing in it can act on a terminal"
    assert it.layout.log.stat().st_mode & 0o077 == 0


async def test_it_keeps_up_with_commits_when_it_is_poked(it: Opened) -> None:
    journal = Journal(it.layout)
    await journal.open()
    for n in range(5):
        await it.store.hold(f"agent-{n}")
        journal.poke()
        await until(partial(_has, it, n + 1), "the line is there")
    await journal.close()
    check_log(it.layout)


async def test_it_catches_up_after_it_was_away(it: Opened) -> None:
    await it.store.seed(a_dag(*(a_task(f"t{n}") for n in range(5000))))
    await written(it)
    check_log(it.layout)
    await it.store.hold("codex")
    assert json.loads((await written(it)).splitlines()[-1])["type"] == "HELD"
    check_log(it.layout)


@pytest.mark.parametrize(
    "tail",
    [
        b'{"seq":9',
        b'{"seq":99,"ts":"2026',
        b"\xff\xfe\x00",
        b"}\n",
        b"\n\n",
        b'{"ts":"no seq"}\n{"seq":"three"}\n',
        b'{"seq":4}',
        b"x" * 200_000,
        b"[" * 100_000 + b"\n",
        bytes(5000),
    ],
)
async def test_a_tail_that_is_no_event_is_kept_in_quarantine_and_written_anew(
    it: Opened, tail: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(3):
        await it.store.hold(f"agent-{n}")
    whole = await written(it)
    with it.layout.log.open("ab") as log:
        log.write(tail)
    await it.store.hold("last")
    repaired = await written(it, notices=1)
    assert repaired.startswith(whole)
    assert kept(it) == [tail]
    assert "events.jsonl.tail" in caplog.text
    check_log(it.layout)


async def test_a_tail_that_is_no_event_is_kept_even_if_nothing_is_to_be_written(it: Opened) -> None:
    await it.store.hold("codex")
    whole = await written(it)
    for tail in ('{"seq":2', "", '{"seq":2,"ts":"2026-'):
        it.layout.log.write_text(whole + tail)
        assert await written(it, notices=1 if tail else 0) == whole
    assert kept(it) == [b'{"seq":2', b'{"seq":2,"ts":"2026-']


async def test_a_log_cut_at_any_byte_is_made_whole_again_and_nothing_is_set_aside(
    it: Opened,
) -> None:
    await it.store.seed(a_dag(a_task("a")))
    await it.store.hold("codex")
    whole = (await written(it)).encode()
    for length in range(len(whole)):
        it.layout.log.write_bytes(whole[:length])
        assert (await written(it)).encode() == whole, f"cut after {length} bytes"
    assert kept(it) == []


async def test_what_cannot_be_kept_is_not_cut_off(it: Opened) -> None:
    await it.store.hold("codex")
    whole = await written(it)
    it.layout.log.write_text(whole + "precious")
    it.layout.quarantine.touch()
    journal = Journal(it.layout)
    await journal.open()
    assert "quarantine" in str(journal.trouble) or "exists" in str(journal.trouble)
    assert it.layout.log.read_text() == whole + "precious"
    it.layout.quarantine.unlink()
    await journal.close()
    assert (it.layout.log.read_text(), kept(it)) == (whole, [b"precious"])


@pytest.mark.parametrize(
    "line",
    [
        '{"seq":3,"ts":"elsewhere"}',
        '{"seq":99,"ts":"elsewhere"}',
        '{"seq":999,"ts":"2026-01-01T00:00:00.000Z","type":"HELD"}',
    ],
)
@pytest.mark.parametrize("at_work", [True, False])
async def test_a_log_whose_last_line_is_not_the_tables_is_written_anew(
    it: Opened, line: str, *, at_work: bool
) -> None:
    for n in range(4):
        await it.store.hold(f"agent-{n}")
    whole = await written(it)
    journal = Journal(it.layout)
    if at_work:
        await journal.open()
    it.layout.log.write_text(f"{whole}{line}\n")
    await it.store.hold("later")
    if not at_work:
        await journal.open()
    journal.poke()
    await journal.close()
    (notice,) = journal.notices
    assert "the last of the log, was not what the events table says of it" in notice
    assert count(it) == 5
    assert it.layout.log.read_text().startswith(whole)
    check_log(it.layout)
    (old,) = it.layout.quarantine.rglob("events.jsonl")
    assert old.read_text() == f"{whole}{line}\n"
    assert (await written(it)).startswith(whole), "once is enough"


async def test_a_log_that_goes_on_where_the_table_ends_is_told_and_left(it: Opened) -> None:
    for n in range(4):
        await it.store.hold(f"agent-{n}")
    whole = await written(it)
    await it.store._writer.write(lambda tx: tx.db.execute("DELETE FROM events WHERE seq > 2"))
    journal = Journal(it.layout)
    await journal.open()
    await journal.close()
    (notice,) = journal.notices
    assert "event 4, the last of the log, is not what the events table says of it" in notice
    assert it.layout.log.read_text() == whole
    assert not it.layout.quarantine.exists()


def _link(log: Path, target: Path) -> None:
    target.write_text("precious")
    log.symlink_to(target)


def _pipe(log: Path, _target: Path) -> None:
    os.mkfifo(log)


def _folder(log: Path, _target: Path) -> None:
    log.mkdir()


def _link_to_itself(log: Path, _target: Path) -> None:
    log.symlink_to(log.name)


def _dangling_link(log: Path, target: Path) -> None:
    log.symlink_to(target)


@pytest.mark.parametrize("put", [_link, _pipe, _folder, _link_to_itself, _dangling_link])
async def test_what_stands_in_the_place_of_the_log_is_set_aside_and_never_written_to(
    it: Opened, tmp_path: Path, put: Callable[[Path, Path], None]
) -> None:
    await it.store.hold("codex")
    journal = Journal(it.layout)
    await journal.open()
    target = tmp_path / "target"
    it.layout.log.unlink()
    put(it.layout.log, target)
    mode = stat.S_IFMT(it.layout.log.lstat().st_mode)
    await it.store.hold("later")
    journal.poke()
    await journal.close()
    assert journal.trouble is None
    (notice,) = journal.notices
    assert "was no regular file" in notice
    assert stat.S_ISREG(it.layout.log.lstat().st_mode)
    check_log(it.layout)
    assert count(it) == 2
    (old,) = next(it.layout.quarantine.iterdir()).iterdir()
    assert stat.S_IFMT(old.lstat().st_mode) == mode
    if put is _link:
        assert target.read_text() == "precious"
    else:
        assert not target.exists()


async def test_a_log_that_was_taken_away_is_written_anew(it: Opened) -> None:
    journal = Journal(it.layout)
    await journal.open()
    await it.store.hold("codex")
    journal.poke()
    await until(lambda: count(it) == 1, "the line is there")
    it.layout.log.unlink()
    await it.store.resume("codex")
    await journal.close()
    check_log(it.layout)
    assert count(it) == 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=12), max_size=6), st.integers(0, 3))
def test_the_last_whole_line_is_found_before_any_garbage(
    tmp_path: Path, garbage: list[bytes], lines: int
) -> None:
    file = tmp_path / "log"
    good = [b'{"seq":%d}' % (n + 1) for n in range(lines)]
    text = b"".join(line + b"\n" for line in good)
    file.write_bytes(text + b"\n".join(b"#" + g.replace(b"\n", b"") for g in garbage))
    with file.open("rb") as log:
        last = End(len(text), lines, good[-1]) if lines else End()
        assert find_end(log.fileno()) == last


async def test_a_line_longer_than_one_read_is_found(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a", payload={"kind": "noop", "x-big": "y" * 300_000})))
    whole = await written(it)
    it.layout.log.write_text(whole + '{"seq":7', encoding="utf-8")
    assert await written(it, notices=1) == whole


async def test_two_processes_that_append_give_each_line_once(it: Opened) -> None:
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from engine.core import Engine\n"
        "from engine.commands import Hold\n"
        "async def main():\n"
        "    async with Engine(Path(sys.argv[1])) as engine:\n"
        "        for n in range(60):\n"
        "            await engine.execute(Hold(f'{sys.argv[2]}-{n}'))\n"
        "            await asyncio.sleep(0.002)\n"
        "asyncio.run(main())\n"
    )
    writers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, str(it.layout.state), name, env=ENVIRONMENT
        )
        for name in ("one", "two")
    ]
    journal = Journal(it.layout)
    await journal.open()
    for n in range(60):
        await it.store.hold(f"here-{n}")
        journal.poke()
    for writer in writers:
        assert await asyncio.wait_for(writer.wait(), 30) == 0
    await journal.close()
    await written(it)
    check_log(it.layout)
    assert count(it) == 180


async def test_a_log_that_cannot_be_written_is_noted_and_tried_again(
    it: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(it.layout)
    await journal.open()
    write, full = mirror._write_all, True

    def half(fd: int, data: bytes) -> None:
        if full:
            write(fd, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        write(fd, data)

    monkeypatch.setattr(mirror, "_write_all", half)
    await it.store.hold("codex")
    journal.poke()
    await until(lambda: journal.trouble is not None, "the trouble is known")
    assert "No space left" in str(journal.trouble)
    full = False
    await it.store.resume("codex")
    journal.poke()
    await until(lambda: journal.trouble is None, "it was tried again")
    await journal.close()
    check_log(it.layout)


async def test_a_bug_in_one_round_does_not_end_the_log(
    it: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(it.layout)
    await journal.open()
    with monkeypatch.context() as patch:
        patch.setattr(mirror, "_write_all", lambda *_: 1 / 0)
        await it.store.hold("codex")
        journal.poke()
        await until(lambda: "ZeroDivisionError" in caplog.text, "it is told")
    assert count(it) == 0
    await it.store.resume("codex")
    journal.poke()
    await until(lambda: count(it) == 2, "the log goes on")
    await journal.close()
    check_log(it.layout)


async def test_only_one_at_a_time_appends(it: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    write, arrived, go = mirror._write_all, threading.Event(), threading.Event()

    def slow(fd: int, data: bytes) -> None:
        arrived.set()
        assert go.wait(20)
        write(fd, data)

    monkeypatch.setattr(mirror, "_write_all", slow)
    await it.store.hold("codex")
    one, other = Journal(it.layout), Journal(it.layout)
    opening = asyncio.create_task(one.open())
    assert await asyncio.to_thread(arrived.wait, 20)
    assert other._mirror.catch_up() is False
    go.set()
    await opening
    assert other._mirror.catch_up() is True
    await other.close()
    other._mirror.close()
    await one.close()
    check_log(it.layout)


async def test_a_log_that_another_process_is_writing_is_left_to_it_and_looked_at_again(
    it: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(it.layout)
    await journal.open()
    append, turned_away = journal._mirror.catch_up, 0

    def busy() -> bool:
        nonlocal turned_away
        turned_away += 1
        return append() if turned_away > 3 else False

    monkeypatch.setattr(journal._mirror, "catch_up", busy)
    await it.store.hold("codex")
    journal.poke()
    await until(lambda: count(it) == 1, "the line is there")
    assert turned_away > 3
    await journal.close()
