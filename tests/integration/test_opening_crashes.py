"""Promises of opening a damaged store: no crash in the middle of it, and nobody else, does harm."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from support import damage
from support.damage import STATES, a_killed_store, files_of, open_once, quarantined
from support.doomed import crashes_opening, opening, script
from support.pasts import DONE
from support.patience import PATIENCE
from support.stores import HOST, a_dag, a_task, check_store, opened, select, states_of

from engine.errors import StorageError
from engine.store import database
from engine.store.reader import Reader
from engine.store.recovery import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from engine.commands import Step
    from engine.files import Layout


@pytest.fixture
async def layout(tmp_path: Path) -> Layout:
    return await a_killed_store(tmp_path)


# Crashes.


def test_what_a_crash_had_made_ready_is_not_kept_beside_a_store_that_is_whole(
    layout: Layout,
) -> None:
    (layout.state / ".tasks.db.ready").write_bytes(b"of another day")
    assert open_once(layout) == []
    assert not list(layout.state.glob(".tasks.db*"))
    assert states_of(layout) == STATES


@pytest.mark.parametrize("crash_at", range(1, 7))
def test_a_crash_between_any_two_moves_loses_nothing(layout: Layout, crash_at: int) -> None:
    damage.zero_table(layout, "tallies")
    # Somebody was at work on it: there is a -wal, and the log lacks the last event.
    with closing(sqlite3.connect(layout.database, isolation_level=None)) as db:
        db.execute("PRAGMA wal_autocheckpoint=0")
        db.execute("INSERT INTO holds(agent, since) VALUES ('x', '2026-01-01T00:00:00.000Z')")
        db.execute(
            "INSERT INTO events(ts, type, agent) VALUES ('2026-01-01T00:00:00.000Z', 'HELD', 'x')"
        )
        copies = {suffix: damage.beside(layout, suffix).read_bytes() for suffix in damage.BESIDE}
    for suffix, data in copies.items():
        damage.beside(layout, suffix).write_bytes(data)
    assert crashes_opening(layout, crash_at) is (crash_at < 6)
    main, wal = (list(layout.quarantine.glob(f"*/tasks.db{end}")) for end in ("", "-wal"))
    if wal == [] and main:
        assert not layout.database.exists(), "a -wal is never beside the database of another"
    open_once(layout)
    assert states_of(layout) == STATES
    assert [row["agent"] for row in select(layout, "SELECT agent FROM holds")] == ["x"]
    assert select(layout, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    check_store(layout)
    for suffix, data in copies.items():
        if suffix != "-shm":
            assert quarantined(layout, f"tasks.db{suffix}").read_bytes() == data
    assert not list(layout.state.glob(".tasks.db*"))


SLOW = """
import sys, time
from pathlib import Path
from support.damage import open_once
from engine.files import Layout

def told(step):
    print(step.what, step.count, flush=True)
    if step.what == sys.argv[2]:
        time.sleep(60)

open_once(Layout(Path(sys.argv[1])), on_step=told)
"""


@pytest.mark.parametrize(
    "when", ["reading the log", "rebuilding tasks", "checking the new database"]
)
async def test_a_kill_in_the_middle_of_a_rebuild_leaves_it_to_the_next_start(
    tmp_path: Path, when: str
) -> None:
    async with damage.stopped_dead(tmp_path) as it:
        await it.store.seed(a_dag(*(a_task(f"t{n}") for n in range(2500))))
        await it.store.finish(await it.claim(), DONE)
    layout = it.layout
    damage.settle(layout)
    damage.truncate(layout)
    before = files_of(layout)
    with script(SLOW, layout.state, when) as process:
        assert process.stdout is not None
        try:
            assert any(line.startswith(when) for line in process.stdout)
        finally:
            process.kill()
    assert list(layout.state.glob(".tasks.db.rebuild-*")), "it was at it"
    assert {name: data for name, data in files_of(layout).items() if name in before} == before
    (notice,) = open_once(layout)
    assert "2,500 tasks" in notice
    assert states_of(layout)["t0"] == "DONE"
    assert not list(layout.state.glob(".tasks.db*"))
    assert quarantined(layout).read_bytes() == before["tasks.db"]


# Others.


async def test_of_two_processes_that_open_a_damaged_store_one_rebuilds_it_and_both_work(
    tmp_path: Path, layout: Layout
) -> None:
    damage.settle(layout)
    damage.truncate(layout)
    processes = [opening(layout) for _ in range(2)]
    said = [await asyncio.to_thread(process.communicate, timeout=PATIENCE) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    moves = sorted(int(out) for out, _ in said)
    assert moves[0] == 0 < moves[1], "one of them did it"
    async with opened(tmp_path) as one, opened(tmp_path) as two:
        claim = await one.store.claim("codex", "codex-1", HOST)
        assert claim is not None
        assert await two.store.claim("codex", "codex-2", HOST) is None
        await two.store.finish(claim, DONE)
    assert states_of(layout) == {"a": "DONE", "b": "DONE"}


async def test_who_still_has_the_damaged_file_open_can_neither_write_nor_do_harm(
    tmp_path: Path, layout: Layout
) -> None:
    async with opened(tmp_path) as old, Reader(layout.database) as reader:
        damage.zero_table(layout, "tallies")
        async with opened(tmp_path) as new:
            claim = await new.claim()
            with pytest.raises(StorageError, match="removed or replaced"):
                await old.store.hold("codex")
            with pytest.raises(StorageError, match="removed or replaced"):
                await reader.rows("SELECT 1")
            await old.store.close()
            await new.store.finish(claim, DONE)
            assert damage.beside(layout, "-wal").stat().st_size > 0, "nobody took it away"
    assert states_of(layout) == {"a": "DONE", "b": "DONE"}
    assert select(layout, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]


async def test_whoever_rebuilds_is_waited_for_as_long_as_that_goes_on(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire, tries = database.WriteLock.acquire, 0
    other = database.WriteLock(layout.write_lock)
    acquire(other)
    draft = replacing.draft_file(layout)

    def impatient(self: database.WriteLock, timeout: float = 0.0) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            with draft.open("ab") as file:
                file.write(b"x" * 4096)
        elif tries == 4:
            other.release()
        acquire(self, timeout)

    monkeypatch.setattr(database.WriteLock, "acquire", impatient)
    steps: list[Step] = []
    open_once(layout, on_step=steps.append)
    assert [step.what for step in steps] == ["waiting for the process that rebuilds the store"] * 3
    acquire(other)
    with pytest.raises(StorageError, match=r"write\.lock"):
        open_once(layout)
    other.close()
