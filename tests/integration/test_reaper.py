"""Promises of the reaper: dead and silent hosts lose their tasks, and nobody else does."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from support.patience import PATIENCE
from support.stores import (
    HOST,
    Opened,
    a_dag,
    a_task,
    check_store,
    events_of,
    kinds,
    opened,
    select,
)

from engine import reaper as reaper_module
from engine.clock import to_iso
from engine.config import Config
from engine.errors import LeaseLost, StorageError
from engine.model import Outcome, ProcessId, RunOutcome
from engine.processes.signalling import seems_alive
from engine.processes.trees import TreeSurvived
from engine.reaper import Reaper
from engine.store import orders
from engine.store.lookout import Lookout
from engine.store.reader import Reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from engine.model import Claim


class Watch:
    """A reaper with a clock that stands still, over a task that a live, silent process holds."""

    def __init__(self, it: Opened, reader: Reader, host: ProcessId) -> None:
        self.it = it
        self.host = host
        self.lookout = Lookout(reader, it.clock)
        self.reaper = self.another()

    def another(self, me: ProcessId = HOST) -> Reaper:
        clock = self.it.clock
        return Reaper(
            store=self.it.store,
            lookout=self.lookout,
            layout=self.it.layout,
            project=self.it.layout.state.parent,
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


async def test_what_a_host_says_while_the_reaper_ends_its_run_is_no_failure(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await watch.claim()
    failed = Outcome(RunOutcome.FAILED, error="ended by SIGTERM")

    async def end_tree(*_: object, **__: object) -> None:
        with suppress(LeaseLost):
            await watch.it.store.finish(claim, failed, tree_gone=False)

    monkeypatch.setattr(reaper_module, "end_tree", end_tree)
    assert [await watch.after(seconds) for seconds in (0, 4, 4, 2.1)][-1] == "READY"
    assert "TASK_FAILED" not in kinds(events_of(watch.it.layout, "a"))
    assert (watch.it.row("a")["attempts"], watch.it.row("a")["lost"]) == (0, 1)


async def test_nobody_is_ended_while_the_store_refuses(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    await watch.claim()
    asked = 0

    async def full(*_: object) -> bool:
        nonlocal asked
        asked += 1
        raise StorageError("disk is full")

    async def end_tree(*_: object, **__: object) -> None:
        raise AssertionError("its host may be as healthy as we are, and as helpless")

    monkeypatch.setattr(watch.it.store, "condemn", full)
    monkeypatch.setattr(reaper_module, "end_tree", end_tree)
    for seconds in (0, 4, 4, 4):
        await watch.after(seconds)
    assert asked
    assert watch.it.state("a") == "RUNNING"


@pytest.mark.parametrize(("beats", "state"), [(True, "RUNNING"), (False, "FAILED")])
async def test_a_run_over_its_time_is_taken_only_from_a_silent_host(
    watch: Watch, *, beats: bool, state: str
) -> None:
    store = watch.it.store
    await store.seed(a_dag(a_task("a", timeout=20)))
    await store.register("codex", "codex-1", watch.host, seems_alive)
    claim = await watch.claim()
    for _ in range(12):
        await store.renew([claim.run_id])
        if beats:
            await store.beat(["codex-1"])
        await watch.after(4)
    assert watch.it.state("a") == state


async def test_a_host_of_which_nothing_can_be_known_is_not_lost(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    await watch.claim()

    def blind(_: object) -> bool:
        raise StorageError("Too many open files")

    monkeypatch.setattr(reaper_module, "is_alive", blind)
    assert await watch.after(0) == "RUNNING"


async def test_a_tree_is_called_gone_only_when_it_is(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = await watch.claim()
    await watch.it.order_one(orders.kill, "a")
    (run,) = await watch.lookout.endings()
    seen = []

    async def survives(*_: object, **__: object) -> None:
        seen.append(watch.it.row("a")["ending"])
        raise TreeSurvived(claim.run_id, ())

    monkeypatch.setattr(reaper_module, "end_tree", survives)
    with pytest.raises(TreeSurvived):
        await watch.reaper.end_for_good(run)
    assert seen == [claim.run_id]
    assert watch.it.row("a")["ending"] == claim.run_id, "whoever survived may still be at work"
    assert len(await watch.lookout.endings()) == 1


async def test_a_sweep_leaves_a_run_alone_that_began_while_it_looked(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    ended = []

    def tagged(_: object) -> dict[ProcessId, str]:
        claim = asyncio.run_coroutine_threadsafe(watch.claim(), loop).result(10)
        return {watch.host: claim.run_id}

    async def end_tree(run_id: str, *_: object, **__: object) -> None:
        ended.append(run_id)

    monkeypatch.setattr(reaper_module, "tagged", tagged)
    monkeypatch.setattr(reaper_module, "end_tree", end_tree)
    assert await watch.reaper.sweep() == []
    assert ended == []


async def test_a_bug_in_one_look_does_not_end_the_reaper(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper_module, "_EVERY", 0.01)
    await watch.reaper.open()
    looks, again = 0, asyncio.Event()

    async def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise RuntimeError("a bug")
        again.set()

    monkeypatch.setattr(watch.reaper, "look", look)
    async with asyncio.timeout(PATIENCE):
        await again.wait()
    await watch.reaper.close()


async def test_a_tree_that_survives_hinders_nobody_else(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = watch.it.store
    await store.seed(a_dag(a_task("a"), a_task("b")))
    gone = ProcessId(HOST.pid, "gone")
    await store.register("claude", "claude-1", gone, seems_alive)
    for _ in "ab":
        assert await store.claim("codex", "codex-1", gone) is not None
    stuck = watch.it.row("a")["run_id"]

    async def end_tree(run_id: str, *_: object, **__: object) -> None:
        if run_id == stuck:
            raise TreeSurvived(run_id, ())

    monkeypatch.setattr(reaper_module, "end_tree", end_tree)
    await watch.after(0)
    assert (watch.it.state("a"), watch.it.state("b")) == ("RUNNING", "READY")
    assert [row["status"] for row in select(watch.it.layout, "SELECT status FROM workers")] == [
        "lost"
    ]
