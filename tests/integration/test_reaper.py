"""Promises of the reaper: dead and silent hosts lose their tasks, and nobody else does."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from support.stores import (
    HOST,
    Opened,
    a_dag,
    a_task,
    check_store,
    events_of,
    opened,
    select,
)

from engine.clock import to_iso
from engine.config import Config
from engine.errors import LeaseLost
from engine.model import Outcome, RunOutcome
from engine.processes.trees import identify, seems_alive
from engine.reaper import Reaper
from engine.store.lookout import Lookout
from engine.store.reader import Reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from engine.model import Claim, ProcessId


class Watch:
    """A reaper with a clock that stands still, over a task that a live, silent process holds."""

    def __init__(self, it: Opened, reader: Reader, host: ProcessId) -> None:
        self.it = it
        self.host = host
        self._reader = reader
        self.reaper = self.another()

    def another(self, me: ProcessId = HOST) -> Reaper:
        clock = self.it.clock
        return Reaper(
            store=self.it.store,
            lookout=Lookout(self._reader, clock),
            layout=self.it.layout,
            config=Config(lease=10, renew=3, grace=0.5),
            clock=clock,
            me=me,
        )

    async def claim(self) -> Claim:
        claim = await self.it.store.claim("codex", "codex-1", self.host)
        assert claim is not None
        return claim

    async def after(self, seconds: float) -> str:
        """Let time pass and the reaper look; return the state of the task."""
        await self.it.clock.advance(seconds)  # type: ignore[attr-defined] # it is a ManualClock
        await self.reaper.look()
        return self.it.state("a")


@pytest.fixture
def silent() -> Iterator[ProcessId]:
    """A live process that never says anything."""
    process = subprocess.Popen(["sleep", "300"])
    try:
        identity = identify(process.pid)
        assert identity is not None
        yield identity
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def watch(tmp_path: Path, silent: ProcessId) -> AsyncIterator[Watch]:
    async with opened(tmp_path, lease=10) as it, Reader(it.layout.database) as reader:
        await it.store.seed(a_dag(a_task("a")))
        yield Watch(it, reader, silent)
        check_store(it.layout)


async def test_a_silent_host_loses_its_task_when_its_lease_is_over_and_not_before(
    watch: Watch,
) -> None:
    await watch.claim()
    assert [await watch.after(seconds) for seconds in (0, 4, 4, 1.9)] == ["RUNNING"] * 4
    assert await watch.after(0.2) == "READY"
    assert watch.it.row("a")["attempts"] == 0


async def test_after_a_gap_in_the_clock_the_reaper_waits_one_renewal(watch: Watch) -> None:
    claim = await watch.claim()
    assert await watch.after(0) == "RUNNING"
    assert await watch.after(7200) == "RUNNING", "everybody slept"
    await watch.it.store.renew([claim.run_id])
    assert [await watch.after(seconds) for seconds in (4, 4)] == ["RUNNING"] * 2
    assert await watch.after(2.1) == "READY", "it was renewed once and then no more"
    await watch.claim()
    assert await watch.after(7200) == "RUNNING"
    assert await watch.after(2.9) == "RUNNING"
    assert await watch.after(0.2) == "READY"


async def test_a_reaper_that_has_just_come_does_not_know_who_slept(watch: Watch) -> None:
    await watch.claim()
    await watch.it.clock.advance(7200)  # type: ignore[attr-defined] # it is a ManualClock
    watch.reaper = watch.another()
    assert [await watch.after(seconds) for seconds in (0, 2.9)] == ["RUNNING"] * 2
    assert await watch.after(0.2) == "READY"


async def test_a_process_does_not_take_tasks_from_its_own_workers(watch: Watch) -> None:
    await watch.claim()
    watch.reaper = watch.another(me=watch.host)
    assert [await watch.after(4) for _ in range(6)] == ["RUNNING"] * 6


async def test_a_dead_host_loses_its_task_at_once(watch: Watch) -> None:
    watch.host = HOST
    assert not seems_alive(HOST)
    claim = await watch.claim()
    assert await watch.after(0) == "READY"
    expired = [event for event in events_of(watch.it.layout) if event.type == "LEASE_EXPIRED"]
    assert [event.run_id for event in expired] == [claim.run_id]


async def test_a_worker_whose_process_is_gone_is_lost_and_so_are_its_files(watch: Watch) -> None:
    layout = watch.it.layout
    await watch.it.store.register("codex", "codex-1", HOST, seems_alive)
    await watch.it.store.register("codex", "codex-2", watch.host, seems_alive)
    files = []
    for name, pid in (("codex-1", HOST.pid), ("codex-2", watch.host.pid)):
        files += [layout.pid_file("codex", name), layout.stop_file("codex", name)]
        files[-2].write_text(str(pid))
        files[-1].touch()
    await watch.after(0)
    assert [file.exists() for file in files] == [False, False, True, True]
    rows = select(layout, "SELECT id, status FROM workers ORDER BY id")
    assert [row["status"] for row in rows] == ["lost", "live"]
    lost = events_of(layout)[-1]
    assert (lost.type, lost.worker_id) == ("WORKER_LOST", "codex-1")
    told = len(events_of(layout))
    await watch.after(1)
    assert len(events_of(layout)) == told, "it is buried once"


async def test_burying_a_worker_leaves_the_files_of_one_who_took_its_name(watch: Watch) -> None:
    layout = watch.it.layout
    await watch.it.store.register("codex", "codex-1", HOST, seems_alive)
    pid_file = layout.pid_file("codex", "codex-1")
    pid_file.write_text(str(watch.host.pid))
    await watch.after(0)
    assert events_of(layout)[-1].type == "WORKER_LOST"
    assert pid_file.exists()


async def test_a_worker_who_took_a_dead_ones_id_is_not_buried_for_it(watch: Watch) -> None:
    await watch.it.store.register("codex", "codex-1", HOST, seems_alive)
    # Between the look that found the process gone and the burial, its successor starts.
    await watch.it.store.register("codex", "codex-1", watch.host, seems_alive)
    await watch.reaper._bury("codex-1", "codex", HOST)
    (row,) = select(watch.it.layout, "SELECT status FROM workers")
    assert row["status"] == "live"


async def test_a_failure_of_a_run_that_others_end_is_no_attempt_of_the_task(watch: Watch) -> None:
    claim = await watch.claim()
    assert await watch.it.store.condemn("a", claim.run_id)
    await watch.it.store.finish(claim, Outcome(RunOutcome.FAILED, error="ended by SIGTERM"))
    (row,) = select(watch.it.layout, "SELECT state, attempts, lost FROM tasks WHERE id = 'a'")
    assert tuple(row.values()) == ("READY", 0, 1)
    assert events_of(watch.it.layout)[-1].type == "LEASE_EXPIRED"


async def test_a_result_that_was_there_before_its_run_was_ended_is_taken(watch: Watch) -> None:
    claim = await watch.claim()
    assert await watch.it.store.condemn("a", claim.run_id)
    await watch.it.store.finish(claim, Outcome(RunOutcome.DONE))
    assert watch.it.state("a") == "DONE"


async def test_a_run_that_others_end_is_not_renewed_and_starts_nothing_more(watch: Watch) -> None:
    claim = await watch.claim()
    assert await watch.it.store.condemn("a", claim.run_id)
    await watch.it.clock.advance(5)  # type: ignore[attr-defined] # it is a ManualClock
    await watch.it.store.renew([claim.run_id])
    (row,) = select(watch.it.layout, "SELECT lease_until FROM tasks WHERE id = 'a'")
    assert row["lease_until"] == to_iso(claim.lease_until)
    with pytest.raises(LeaseLost):
        await watch.it.store.lead(claim, HOST)


async def test_a_process_started_after_its_claim_was_taken_is_not_kept(watch: Watch) -> None:
    claim = await watch.claim()
    await watch.it.store.expire("a", claim.run_id)
    with pytest.raises(LeaseLost):
        await watch.it.store.lead(claim, HOST)
