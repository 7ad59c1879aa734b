"""Promises of the rotated log: RESET begins a file, all are one log, no crash half-does it."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sys
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import START, ManualClock
from support.engines import ENVIRONMENT
from support.patience import PATIENCE
from support.stores import Opened, a_dag, a_task, opened, select

from engine.clock import SystemClock, to_stamp
from engine.errors import StorageError
from engine.files import Layout
from engine.findings import Finding, Level
from engine.log import mirror
from engine.log.check import check_log
from engine.log.journal import Journal
from engine.log.mirror import Mirror
from engine.log.repair import rewrite
from engine.logfiles import first_seq, log_files, open_log, reset_of, split_at_resets
from engine.model import EventType
from engine.store.recovery import rebuild
from engine.store.recovery.rebuild import last_logged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import BinaryIO

DAG = a_dag(a_task("a", payload={"kind": "noop", "x-note": {"seq": 1, "type": "RESET"}}))


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Opened]:
    async with opened(tmp_path, clock=ManualClock()) as it:
        yield it


async def reset(it: Opened) -> None:
    await it.store.reset(DAG, fresh=False)


def catch_up(layout: Layout) -> None:
    """Do as the next start does."""
    with closing(Mirror(layout, SystemClock())) as one:
        assert one.catch_up()
        assert one.notices == []


def contents(layout: Layout) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in log_files(layout)}


def findings(layout: Layout) -> list[Finding]:
    return check_log(layout, at_work=False)


def check_files(layout: Layout) -> list[Path]:
    """Assert that the files hold the table, and are cut before each RESET; return them."""
    files = log_files(layout)
    rows = select(layout, "SELECT e.type, l.line FROM event_lines l JOIN events e USING (seq)")
    expected: list[list[bytes]] = [[]]
    for row in rows:
        if row["type"] == "RESET" and expected[-1]:
            expected.append([])
        expected[-1].append(row["line"].encode() + b"\n")
    assert [path.read_bytes() for path in files] == [b"".join(lines) for lines in expected]
    assert files[-1] == layout.log
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert findings(layout) == []
    return files


async def test_a_reset_begins_a_new_file_and_the_old_one_gets_the_time_of_the_reset(
    it: Opened,
) -> None:
    await it.store.seed(DAG)
    catch_up(it.layout)
    assert isinstance(it.clock, ManualClock)
    await it.clock.advance(3600.5)
    await reset(it)
    catch_up(it.layout)
    rotated, _ = check_files(it.layout)
    stamp = to_stamp(START + timedelta(seconds=3600.5))
    assert rotated.name == f"events.{stamp}.jsonl" == "events.20260101T010000500Z.jsonl"


async def test_a_reset_that_is_the_first_of_all_events_rotates_nothing(it: Opened) -> None:
    await reset(it)
    catch_up(it.layout)
    assert check_files(it.layout) == [it.layout.log]


@pytest.mark.parametrize("rows", [1, 3, 2000])
async def test_many_resets_that_are_written_at_once_begin_a_file_each(
    it: Opened, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(mirror, "_ROWS_AT_ONCE", rows)
    await it.store.seed(DAG)
    for n in range(20):
        await reset(it)
        if n % 3 == 0:
            await it.store.hold(f"agent-{n}")
    catch_up(it.layout)
    # At the same moment, all of them: no name is used twice.
    assert len(check_files(it.layout)) == 21


async def test_resets_that_follow_each_other_without_an_event_between_begin_a_file_each(
    it: Opened,
) -> None:
    await it.store.seed(DAG)
    for _ in range(3):
        await it.store._writer.write(lambda tx: tx.event(EventType.RESET))
    catch_up(it.layout)
    assert len(check_files(it.layout)) == 4


async def test_files_are_in_order_even_if_the_clock_was_set_back_between_two_resets(
    it: Opened,
) -> None:
    assert isinstance(it.clock, ManualClock)
    await it.store.seed(DAG)
    for moved in (0.0, 86400.0, -3600.0, -86400.0, 7200.0):
        await it.clock.advance(moved)
        await reset(it)
        catch_up(it.layout)
    files = check_files(it.layout)
    assert files != [*sorted(files[:-1]), files[-1]], "the names do not tell the order"


async def test_a_name_that_is_taken_is_not_overwritten(it: Opened) -> None:
    await it.store.seed(DAG)
    stranger = it.layout.state / f"events.{to_stamp(START)}.jsonl"
    stranger.mkdir()
    await reset(it)
    catch_up(it.layout)
    rotated, _ = check_files(it.layout)
    assert rotated.name == f"events.{to_stamp(START)}.3.jsonl", "the seq of the RESET tells apart"
    assert stranger.is_dir()


async def test_a_journal_at_work_rotates_when_it_is_poked(it: Opened) -> None:
    journal = Journal(it.layout, it.clock)
    await journal.open()
    for n in range(5):
        await it.store.hold(f"agent-{n}")
        journal.poke()
        await asyncio.sleep(0)
        await reset(it)
        journal.poke()
    await journal.close()
    assert (journal.trouble, journal.notices) == (None, [])
    assert len(check_files(it.layout)) == 6


async def test_a_journal_notices_that_another_process_has_rotated(it: Opened) -> None:
    one, other = Mirror(it.layout, it.clock), Mirror(it.layout, it.clock)
    with closing(one), closing(other):
        for n in range(6):
            await it.store.hold(f"agent-{n}")
            assert (one, other)[n % 2].catch_up()
            await reset(it)
            assert (other, one)[n % 3 == 0].catch_up()
        assert one.notices == other.notices == []
    assert len(check_files(it.layout)) == 7


async def test_the_end_of_the_log_is_found_while_another_process_rotates_it(
    it: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    await it.store.hold("codex")
    catch_up(it.layout)
    last = last_logged(it.layout)
    assert last
    rotated = it.layout.state / f"events.{to_stamp(START)}.jsonl"
    missed: list[Path] = []

    def rotate_first(path: Path) -> BinaryIO:
        if not missed:
            missed.append(path.rename(rotated))
        return open_log(path)

    monkeypatch.setattr(rebuild, "open_log", rotate_first)
    assert last_logged(it.layout) == last
    assert missed == [rotated]
    rotated.unlink()
    assert last_logged(it.layout) == 0
    shutil.rmtree(it.layout.state)
    with pytest.raises(FileNotFoundError):
        last_logged(it.layout)


class Crash(BaseException):
    """The end of a process, as far as files go."""


class DyingOs:
    """`os` for one module, which dies at the nth call that changes a file, or in the middle of it.

    A write in the middle of which it dies has written half.
    """

    def __init__(self, at: int, *, midway: bool) -> None:
        self.left = at
        self.midway = midway

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        if name in {"open", "write", "pwrite", "fsync", "ftruncate", "rename"}:
            return partial(self._call, name, real)
        return real

    def _call(self, name: str, real: Callable[..., object], *arguments: object) -> object:
        self.left -= 1
        if self.left:
            return real(*arguments)
        if self.midway and name == "write":
            fd, data = arguments
            assert isinstance(data, memoryview)
            real(fd, data[: max(1, len(data) // 2)])
        elif self.midway:
            real(*arguments)
        raise Crash


def die(layout: Layout, monkeypatch: pytest.MonkeyPatch, at: int, *, midway: bool) -> bool:
    """Let a process that catches up die at its nth step; False: it has no more so many."""
    dying = DyingOs(at, midway=midway)
    real = Path.rename

    def rename(path: Path, target: Path) -> Path:
        dying._call("rename", partial(real, path), target)
        return target

    with monkeypatch.context() as patched, closing(Mirror(layout, SystemClock())) as process:
        patched.setattr(mirror, "os", dying)
        patched.setattr(Path, "rename", rename)
        try:
            assert process.catch_up()
        except Crash:
            return True
    return False


def restored(folder: Path, from_copy: Path) -> Layout:
    """Bring a state folder back to how it was copied."""
    shutil.rmtree(folder)
    shutil.copytree(from_copy, folder)
    return Layout(folder)


@pytest.mark.parametrize("rows", [2, 2000])
@pytest.mark.parametrize("midway", [True, False])
async def test_a_crash_at_any_step_of_two_rotations_is_completed_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, midway: bool, rows: int
) -> None:
    async with opened(tmp_path) as it:
        await it.store.seed(DAG)
        catch_up(it.layout)
        await it.store.hold("codex")
        await reset(it)
        await it.store.hold("claude")
        await reset(it)
        layout = it.layout
    copy = tmp_path / "copy"
    shutil.copytree(layout.state, copy)
    monkeypatch.setattr(mirror, "_ROWS_AT_ONCE", rows)
    steps = 0
    while die(restored(layout.state, copy), monkeypatch, steps + 1, midway=midway):
        steps += 1
        assert [one for one in findings(layout) if one.level is Level.ERROR] == [], steps
        # The second process may die, too, before a third one comes through.
        die(layout, monkeypatch, 1 + steps % 7, midway=not midway)
        catch_up(layout)
        assert len(check_files(layout)) == 3, f"died at step {steps}"
    assert steps >= 11, "open, write, fsync, rename, open, write and again, and the mark"
    assert not layout.quarantine.exists()


@pytest.mark.parametrize("midway", [True, False])
async def test_a_crash_at_any_step_of_writing_the_log_anew_is_completed_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, midway: bool
) -> None:
    async with opened(tmp_path) as it:
        await it.store.seed(DAG)
        await reset(it)
        catch_up(it.layout)
        await reset(it)
        catch_up(it.layout)
        layout = it.layout
    oldest, *_ = check_files(layout)
    damaged = oldest.read_bytes().replace(b"TASK_CREATED", b"TASK_CURATED")
    oldest.write_bytes(damaged)
    layout.log_lock.write_bytes(b"rewriting\n")
    before = sorted(contents(layout).values())
    copy = tmp_path / "copy"
    shutil.copytree(layout.state, copy)
    steps = 0
    while die(restored(layout.state, copy), monkeypatch, steps + 1, midway=midway):
        steps += 1
        with closing(Mirror(layout, SystemClock())) as process:
            process.catch_up()
        assert len(check_files(layout)) == 3, f"died at step {steps}"
        kept = [path.read_bytes() for path in layout.quarantine.rglob("*.jsonl")]
        assert set(before) <= set(kept), f"died at step {steps}"
    assert steps >= 10


async def test_a_log_that_differs_is_written_anew_and_the_old_one_kept(it: Opened) -> None:
    await it.store.seed(DAG)
    await reset(it)
    await it.store.hold("codex")
    catch_up(it.layout)
    assert rewrite(it.layout) is None
    good = contents(it.layout)
    rotated, _ = check_files(it.layout)
    rotated.write_bytes(good[rotated.name].replace(b"SEEDED", b"SOWN"))
    it.layout.log.write_bytes(good["events.jsonl"][:-30])
    bad = contents(it.layout)
    done = rewrite(it.layout, it.clock)
    assert done is not None
    folder = it.layout.quarantine / to_stamp(START)
    assert f"state/quarantine/{folder.name}" in done
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == bad
    assert contents(it.layout) == good
    check_files(it.layout)
    assert rewrite(it.layout) is None
    assert [folder] == list(it.layout.quarantine.iterdir())


async def test_a_log_that_is_only_behind_is_not_set_aside_but_completed(it: Opened) -> None:
    await it.store.seed(DAG)
    catch_up(it.layout)
    await reset(it)
    assert rewrite(it.layout) is None
    assert not it.layout.quarantine.exists()
    assert len(check_files(it.layout)) == 2


async def test_a_lost_file_is_written_anew(it: Opened) -> None:
    await it.store.seed(DAG)
    await reset(it)
    await reset(it)
    catch_up(it.layout)
    good = contents(it.layout)
    log_files(it.layout)[1].unlink()
    assert rewrite(it.layout) is not None
    assert contents(it.layout) == good


async def test_a_rotated_file_that_is_a_link_is_told_of_and_not_written_to(
    it: Opened, tmp_path: Path
) -> None:
    await it.store.seed(DAG)
    await reset(it)
    catch_up(it.layout)
    good = contents(it.layout)
    rotated, _ = check_files(it.layout)
    target = rotated.rename(tmp_path / "target")
    rotated.symlink_to(target)
    await it.store.hold("codex")
    catch_up(it.layout)
    (found,) = findings(it.layout)
    assert found.message == f"{rotated.name} is a link, and no file of the log"
    assert rewrite(it.layout) is not None
    check_files(it.layout)
    assert target.read_bytes() == good[rotated.name] == rotated.read_bytes()
    (kept,) = it.layout.quarantine.glob(f"*/{rotated.name}")
    assert kept.readlink() == target


@pytest.mark.parametrize("name", ["events.jsonl", "events.20260101T000000000Z.jsonl"])
async def test_a_pipe_in_the_place_of_a_file_of_the_log_is_told_of_and_never_read(
    it: Opened, name: str
) -> None:
    await it.store.seed(DAG)
    catch_up(it.layout)
    whole = it.layout.log.read_bytes()
    (it.layout.state / name).unlink(missing_ok=True)
    os.mkfifo(it.layout.state / name)
    async with asyncio.timeout(PATIENCE):
        found = await asyncio.to_thread(findings, it.layout)
        assert f"{name} is no regular file, and no file of the log" in [f.message for f in found]
        assert await asyncio.to_thread(rewrite, it.layout) is not None
    assert check_files(it.layout) == [it.layout.log]
    assert it.layout.log.read_bytes() == whole


async def test_a_log_is_not_set_aside_for_a_table_that_cannot_be_read(tmp_path: Path) -> None:
    async with opened(tmp_path) as it:
        await it.store.seed(DAG)
        catch_up(it.layout)
    good = contents(it.layout)
    it.layout.database.write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError, match="not a database"):
        rewrite(it.layout)
    assert contents(it.layout) == good
    assert not it.layout.quarantine.exists()


def write(layout: Layout, name: str, content: bytes) -> None:
    layout.create()
    (layout.state / name).write_bytes(content)


def test_the_files_of_the_log_are_ordered_by_what_they_hold(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    stamps = [f"events.2026010{n}T000000000Z" for n in range(1, 8)]
    write(layout, f"{stamps[6]}.jsonl", b'{"seq":1,"ts":""}\n')
    write(layout, f"{stamps[5]}.jsonl", b'# no event\n\n[]\n{"seq":5}\n{"seq":2}\n')
    write(layout, f"{stamps[4]}.jsonl", b'{"seq":9,"ts":"torn')
    write(layout, f"{stamps[3]}.jsonl", b'{"seq":11,"x":"' + b"y" * 3_000_000 + b'"}\n')
    write(layout, f"{stamps[2]}.jsonl", b"\0" * 3_000_000 + b'\n{"seq":1}\n')
    write(layout, f"{stamps[1]}.12.jsonl", b'{"seq":14}\n')
    write(layout, f"{stamps[0]}.jsonl", b"")
    write(layout, "events.jsonl", b"")
    write(layout, "events.old.jsonl", b'{"seq":3}\n')
    write(layout, "events.20260101T000000000Z.jsonl.bak", b'{"seq":3}\n')
    (layout.state / "events.20260109T000000000Z.jsonl").mkdir()
    os.mkfifo(layout.state / "events.20260110T000000000Z.jsonl")
    assert [path.name for path in log_files(layout)] == [
        f"{stamps[0]}.jsonl",
        f"{stamps[6]}.jsonl",
        f"{stamps[5]}.jsonl",
        f"{stamps[4]}.jsonl",
        f"{stamps[3]}.jsonl",
        f"{stamps[1]}.12.jsonl",
        f"{stamps[2]}.jsonl",  # nothing in it can be read: behind the one before it by name
        "events.jsonl",
    ]
    assert first_seq(layout.state / f"{stamps[2]}.jsonl") is None


LINES = st.sampled_from(
    [
        b'{"seq":1,"ts":"2026-01-01T00:00:00.000Z","type":"RESET"}\n',
        b'{"seq":2,"ts":"2026-01-01T00:00:00.000Z","type":"HELD","agent":"x"}\n',
        b'{"seq":3,"ts":"2026-01-01T00:00:00.000Z","type":"HELD","x":{"seq":1,"type":"RESET"}}\n',
    ]
)


@given(st.lists(LINES))
def test_lines_are_cut_before_every_reset_and_nowhere_else(lines: list[bytes]) -> None:
    parts = list(split_at_resets(b"".join(lines)))
    assert b"".join(parts) == b"".join(lines)
    resets = [n for n, line in enumerate(lines) if line.endswith(b'Z","type":"RESET"}\n')]
    assert [part for part in parts[1:] if reset_of(part) is None] == []
    assert len(parts) == 1 + sum(n > 0 for n in resets)


async def test_two_processes_that_append_around_rotations_give_each_line_once(it: Opened) -> None:
    worker = """
import asyncio, sys
from pathlib import Path
from engine.commands import Hold
from engine.core import Engine

async def main():
    async with Engine(Path(sys.argv[1])) as engine:
        for n in range(60):
            await engine.execute(Hold(f"{sys.argv[2]}-{n}"))
            await asyncio.sleep(0.002)

asyncio.run(main())
"""
    writers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", worker, str(it.layout.state), name, env=ENVIRONMENT
        )
        for name in ("one", "two")
    ]
    journal = Journal(it.layout, it.clock)
    await journal.open()
    resets = 0
    async with asyncio.timeout(PATIENCE):
        while any(writer.returncode is None for writer in writers) or resets < 10:
            await reset(it)
            journal.poke()
            resets += 1
            await asyncio.sleep(0.02)
        assert [await writer.wait() for writer in writers] == [0, 0]
    await journal.close()
    catch_up(it.layout)
    assert len(check_files(it.layout)) >= 10


KILLED = """
import asyncio, sys
from pathlib import Path
from engine.log import journal
from engine.clock import SystemClock
from engine.files import Layout
from engine.log.journal import Journal
from engine.model import EventType
from engine.store.store import Store

journal._PAUSE = 0

async def main():
    layout = Layout(Path(sys.argv[1]))
    mirror = Journal(layout)
    store = Store(layout, SystemClock(), lease=600, on_commit=lambda _: mirror.poke())
    await store.open()
    await mirror.open()
    print("ready", flush=True)
    n = 0
    while True:
        n += 1
        await store.hold(f"agent-{n}")
        await store._writer.write(lambda tx: tx.event(EventType.RESET))

asyncio.run(main())
"""


async def test_a_process_that_is_killed_while_it_rotates_leaves_nothing_wrong(
    tmp_path: Path,
) -> None:
    layout = Layout(tmp_path / "state")
    layout.create()
    dice = random.Random(20261120)
    async with asyncio.timeout(2 * PATIENCE):
        for _ in range(10):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                KILLED,
                str(layout.state),
                env=ENVIRONMENT,
                stdout=asyncio.subprocess.PIPE,
            )
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
            await asyncio.sleep(dice.uniform(0.0, 0.12))
            process.send_signal(signal.SIGKILL)
            assert await process.wait() == -signal.SIGKILL
            errors = [one for one in findings(layout) if one.level is Level.ERROR]
            assert errors == []
    catch_up(layout)
    assert len(check_files(layout)) > 10
    assert not layout.quarantine.exists()
