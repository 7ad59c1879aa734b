"""Promises about logs that grow too large: head and newest output stay, and it is said."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.patience import PATIENCE
from support.solo import Solo, error_of, result_of

from engine.executors import capping
from engine.executors.capping import CappedLog, Caps, amount
from engine.model import RunOutcome

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 64_000
MARK = re.compile(rb"^\[agentmux: ([0-9.]+) (bytes|kB|MB) of output left out here\]$", re.MULTILINE)


def lines(count: int, first: int = 0) -> bytes:
    return b"".join(b"line %09d\n" % n for n in range(first, first + count))


def numbers(log: bytes) -> list[int]:
    return [int(n) for n in re.findall(rb"^line (\d{9})$", log, re.MULTILINE)]


@pytest.fixture
def capped(tmp_path: Path) -> Iterator[CappedLog]:
    log = CappedLog(tmp_path / "stdout.log", LIMIT)
    yield log
    log.close()


def open_files() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


def append(log: CappedLog, data: bytes) -> None:
    with log.path.open("ab") as file:
        file.write(data)


def test_a_log_within_its_limit_is_left_alone(capped: CappedLog) -> None:
    append(capped, b"x" * LIMIT)
    assert not capped.trim()
    assert capped.path.read_bytes() == b"x" * LIMIT
    assert capped.left_out == 0


def test_head_and_newest_lines_stay_whole_with_the_mark_between(capped: CappedLog) -> None:
    whole = lines(20_000)
    append(capped, whole)
    assert capped.trim(ended=True)

    log = capped.path.read_bytes()
    assert len(log) <= LIMIT
    head, _, rest = log.partition(b"[agentmux: ")
    _, _, newest = rest.partition(b"]\n")
    assert whole.startswith(head)
    assert head.endswith(b"\n")
    assert LIMIT // 8 < len(head) <= LIMIT // 4
    assert whole.endswith(newest)
    assert newest.startswith(b"line ")
    assert LIMIT // 4 < len(newest) <= LIMIT // 2
    assert capped.left_out == len(whole) - len(head) - len(newest)
    assert len(MARK.findall(log)) == 1


def test_what_is_left_out_again_and_again_is_added_up_under_one_mark(capped: CappedLog) -> None:
    written = 0
    for turn in range(50):
        append(capped, lines(3_000, first=3_000 * turn))
        written += 15 * 3_000
        capped.trim()
    log = capped.path.read_bytes()
    (mark,) = MARK.finditer(log)
    left = len(log) - len(mark[0]) - 1
    assert capped.left_out == written - left
    assert mark[0].decode() == f"[agentmux: {amount(capped.left_out)} of output left out here]"
    found = numbers(log)
    assert found == sorted(found)
    assert found[0] == 0
    assert found[-1] == 149_999
    assert sum(b - a > 1 for a, b in pairwise(found)) == 1, "one gap, where the mark is"


def test_what_comes_during_a_cut_is_kept_too(
    capped: CappedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves = 0
    move = CappedLog._move

    def interrupted(log: CappedLog, start: int, end: int, place: int) -> int:
        nonlocal moves
        moved = move(log, start, end, place)
        if moves < 3:
            append(log, lines(10, first=20_000 + 10 * moves))
        moves += 1
        return moved

    monkeypatch.setattr(CappedLog, "_move", interrupted)
    append(capped, lines(20_000))
    assert capped.trim()
    assert numbers(capped.path.read_bytes())[-500:] == list(range(19_530, 20_030))


def test_who_writes_faster_than_a_cut_is_not_waited_for(
    capped: CappedLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = CappedLog._move
    written = 20_000

    def overtaken(log: CappedLog, start: int, end: int, place: int) -> int:
        nonlocal written
        moved = move(log, start, end, place)
        append(log, lines(10_000, first=written))
        written += 10_000
        return moved

    monkeypatch.setattr(CappedLog, "_move", overtaken)
    append(capped, lines(20_000))
    assert capped.trim()
    monkeypatch.undo()
    append(capped, lines(2, first=written))

    log = capped.path.read_bytes()
    assert len(log) <= LIMIT
    assert len(MARK.findall(log)) == 2
    assert log.splitlines()[-3] == b"[agentmux: 150 kB of output left out here]"
    assert numbers(log)[-2:] == [30_000, 30_001]
    left = len(MARK.sub(b"", log)) - 2
    assert capped.left_out == 15 * 30_002 - left


def test_a_log_without_line_ends_is_cut_all_the_same(capped: CappedLog) -> None:
    append(capped, b"a" * LIMIT + b"b" * LIMIT)
    assert capped.trim(ended=True)
    log = capped.path.read_bytes()
    assert log.startswith(b"a" * (LIMIT // 4) + b"\n[agentmux: 80 kB of output left out here]\n")
    assert log.endswith(b"\n" + b"b" * (LIMIT // 2))
    assert capped.left_out == 2 * LIMIT - LIMIT // 4 - LIMIT // 2


def test_a_log_that_its_own_program_cuts_is_nobodys_trouble(capped: CappedLog) -> None:
    append(capped, lines(20_000))
    capped.trim()
    os.truncate(capped.path, 0)
    append(capped, b"anew\n")
    assert not capped.trim()
    assert capped.path.read_bytes() == b"anew\n"


def test_nothing_comes_out_of_order_while_a_program_writes_as_fast_as_it_can(
    stage: Solo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer does not stop for a cut: head, mark and newest lines, each once and in order."""
    monkeypatch.setattr(capping, "_LOOK", 0.01)
    stage.max_output = LIMIT
    count = 300_000
    # What is written just before a cut may be lost with it: the last line comes after the last one.
    code = (
        "import os, time\n"
        f"for n in range({count}): os.write(1, b'line %09d\\n' % n)\n"
        f"until = time.monotonic() + {PATIENCE}\n"
        f"while os.fstat(1).st_size > {LIMIT} and time.monotonic() < until: time.sleep(0.01)\n"
        f"os.write(1, b'line %09d\\n' % {count})"
    )
    stage.allow = (sys.executable,)
    result = result_of(asyncio.run(stage.shell(argv=[sys.executable, "-ISc", code])))

    log = (stage.folder / "stdout.log").read_bytes()
    assert len(log) <= LIMIT
    found = numbers(log)
    assert found == sorted(set(found))
    assert found[0] == 0
    assert found[-1] == count
    marks = len(MARK.findall(log))
    assert marks >= 1
    lacks = 15 * (count + 1) - (len(MARK.sub(b"", log)) - marks)
    # What is written between the last look at the size and the cut is lost unseen; a mark that
    # was left out later counts as output.
    assert 0 < result["truncated"]["stdout"] < 1.01 * lacks


async def test_a_log_never_grows_far_beyond_its_limit_while_the_program_runs(
    stage: Solo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capping, "_LOOK", 0.01)
    stage.max_output = LIMIT
    run = asyncio.create_task(stage.shell(argv=["sh", "-c", "while :; do echo 0123456789; done"]))
    log, cut = stage.folder / "stdout.log", 0
    async with asyncio.timeout(PATIENCE):
        while cut < 5:
            await asyncio.sleep(0.002)
            size = log.stat().st_size if log.exists() else 0
            assert size < 1000 * LIMIT
            cut += bool(size) and b"left out here" in log.read_bytes()
    assert not run.done()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert log.stat().st_size <= LIMIT, "the last look comes after a stop, too"


def test_who_comes_near_the_limit_is_looked_at_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([0.0, 0.5, 1.0, 1.5, 2.0])
    monkeypatch.setattr("time.monotonic", lambda: next(moments))
    caps = Caps(LIMIT, tmp_path / "log")
    log = CappedLog(tmp_path / "log", LIMIT)
    caps._logs.append(log)
    pauses = []
    for size in (0, LIMIT // 2, LIMIT // 10 * 3, 0):
        append(log, b"x" * size)
        pauses.append(caps._look())
    log.close()
    assert pauses == [0.5, 0.5, pytest.approx(1 / 3, rel=0.01), 0.5]


async def test_a_short_run_is_looked_at_once_its_program_has_ended(stage: Solo) -> None:
    stage.max_output = LIMIT
    outcome = await stage.shell(
        argv=["sh", "-c", "i=0; while [ $i -lt 7000 ]; do echo $i-89 >&2; i=$((i+1)); done; echo x"]
    )
    stage.max_output = 4096
    assert "truncated" not in result_of(outcome), "55 kB are within 64"
    outcome = await stage.shell(argv=["sh", "-c", "exit 4"])
    result = result_of(outcome)
    assert list(result["truncated"]) == ["stderr"]
    assert result["truncated"]["stderr"] > 40_000
    assert result["stderr"].endswith("6999-89")
    assert error_of(outcome) == "exit code 4: 6999-89"
    size = (stage.folder / "stderr.log").stat().st_size
    assert size > 0.6 * 4096, "once nobody writes any more, half of the limit is for the newest"


async def test_a_program_that_removes_its_log_does_not_escape_the_limit(
    stage: Solo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capping, "_LOOK", 0.01)
    stage.max_output = LIMIT
    script = (
        f"rm '{stage.folder}/stdout.log'; i=0; "
        "while [ $i -lt 20000 ]; do echo 01234567890; i=$((i+1)); done"
    )
    outcome = await stage.shell(argv=["sh", "-c", script])
    assert outcome.kind is RunOutcome.DONE
    assert result_of(outcome)["truncated"]["stdout"] > 100_000


async def test_a_disk_that_fails_is_no_fault_of_the_run(
    stage: Solo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_log: CappedLog, *, ended: bool) -> bool:
        raise OSError(5, f"Input/output error {ended}")

    monkeypatch.setattr(CappedLog, "trim", broken)
    monkeypatch.setattr(capping, "_LOOK", 0)
    outcome = await stage.shell(argv=["sh", "-c", "sleep 0.1; echo done"])
    assert outcome.kind is RunOutcome.DONE
    assert "run-1 is no longer watched: Input/output error False" in caplog.text


async def test_no_file_stays_open(tmp_path: Path) -> None:
    before = open_files()
    async with Caps(LIMIT, tmp_path / "a.log", tmp_path / "b.log"):
        assert open_files() == before + 2
    assert open_files() == before
    (tmp_path / "c.log").mkdir()
    with pytest.raises(IsADirectoryError):
        await Caps(LIMIT, tmp_path / "a.log", tmp_path / "c.log").__aenter__()
    assert open_files() == before


# secrets

SECRET = b"tok-0123456789"
MASK = b"[API_TOKEN]***"
MASKS = ((SECRET, MASK),)


def test_a_secret_is_written_over_however_it_came_and_nothing_else_is_touched(
    tmp_path: Path,
) -> None:
    log = CappedLog(tmp_path / "log", LIMIT, MASKS)
    append(log, b"one " + SECRET + SECRET + b" \xff\n")
    log.trim()
    append(log, b"two " + SECRET[:5])
    log.trim()
    assert log.path.read_bytes() == b"one " + MASK + MASK + b" \xff\ntwo " + SECRET[:5]
    append(log, SECRET[5:] + b"\n")
    assert log.is_due()
    log.trim()
    assert log.path.read_bytes() == b"one " + MASK + MASK + b" \xff\ntwo " + MASK + b"\n"
    assert not log.is_due()
    os.truncate(log.path, 0)
    append(log, SECRET)
    log.trim()
    assert log.path.read_bytes() == MASK
    log.close()


def test_a_secret_is_found_wherever_the_blocks_of_a_long_log_meet(tmp_path: Path) -> None:
    size = 1 << 20
    for before in range(size - len(SECRET) - 1, size + 2, 3):
        log = CappedLog(tmp_path / str(before), 4 * size, MASKS)
        append(log, b"." * before + SECRET + b"." * 100)
        log.trim()
        assert log.path.read_bytes() == b"." * before + MASK + b"." * 100
        log.close()


def test_what_is_moved_by_a_cut_is_searched_for_secrets_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = CappedLog._move

    def overtaken(log: CappedLog, start: int, end: int, place: int) -> int:
        moved = move(log, start, end, place)
        if end - start > 200:  # else for ever
            append(log, b"late " + SECRET + b"\n")
        return moved

    monkeypatch.setattr(CappedLog, "_move", overtaken)
    log = CappedLog(tmp_path / "log", LIMIT, MASKS)
    append(log, b"".join(b"%d %s\n" % (n, SECRET) for n in range(10_000)))
    assert log.trim()
    text = log.path.read_bytes()
    assert SECRET not in text
    assert b"late " + MASK + b"\n" in text
    assert text.count(MASK) > 500
    log.close()


@pytest.mark.parametrize(
    ("size", "text"),
    [(980, "980 bytes"), (12_345, "12.3 kB"), (75_000_000, "75 MB"), (1_234_567_890, "1.23 GB")],
)
def test_amounts_are_told_in_decimal_units(size: int, text: str) -> None:
    assert amount(size) == text


@pytest.fixture
def stage(tmp_path: Path) -> Solo:
    return Solo(tmp_path)
