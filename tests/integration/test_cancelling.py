"""Promises of cancelled callers: all of a change or nothing, wherever the cancellation strikes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

import pytest
from support.clock import ManualClock
from support.gate import Gate
from support.pasts import COSTLY, LOGGED_OUT
from support.patience import PATIENCE
from support.stores import (
    HOST,
    Opened,
    a_dag,
    a_task,
    check_store,
    events_of,
    everything,
    kinds,
    opened,
    select,
)

from engine.errors import LeaseLost, StorageError
from engine.files import Layout
from engine.model import (
    AlertKind,
    Budget,
    External,
    HoldCause,
    NewAlert,
    Outcome,
    RunOutcome,
    ServiceState,
    WorkerStatus,
)
from engine.store import database, orders, roster
from engine.store.services import Standing
from engine.store.store import Store
from engine.store.watched import WatchedLog, Watching

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path


DONE = Outcome(RunOutcome.DONE)
FAILED = Outcome(RunOutcome.FAILED, error="no")

# What each of the store's changes needs first, and the change itself.


async def _seeded(it: Opened) -> None:
    await it.store.seed(a_dag(a_task("a", retries=1), a_task("b", "a"), a_task("c")))


async def _done(it: Opened) -> Any:
    claim = await _claimed(it)
    await it.store.finish(claim, DONE)
    return claim


async def _claimed(it: Opened, preparing: frozenset[str] = frozenset()) -> Any:
    await _seeded(it)
    claim = await it.store.claim("codex", "codex-1", HOST, preparing)
    assert claim is not None
    return claim


async def _nothing(_it: Opened) -> None:
    return


async def _prepared(it: Opened) -> Any:
    return await _claimed(it, frozenset({"noop"}))


async def _worker(it: Opened) -> None:
    await it.store.register("codex", "codex-1", HOST, lambda _: True)


async def _held(it: Opened) -> None:
    await it.store.hold("codex")


async def _taken(it: Opened) -> Any:
    claim = await _claimed(it)
    await it.order_one(orders.kill, "a")
    return claim


async def _resetting(it: Opened) -> None:
    await _done(it)
    await it.store.begin_reset()


async def _forgettable(it: Opened) -> int:
    """Return the last event that nothing needs any more."""
    await _seeded(it)
    await it.order(orders.purge, "a", "b", "c")
    last = len(events_of(it.layout))
    await it.store.reset(a_dag(a_task("a")), fresh=False)
    return last


async def _worker_with_run(it: Opened) -> None:
    await _worker(it)
    await _claimed(it)


async def _in_backoff(it: Opened) -> None:
    await it.store.finish(await _claimed(it), FAILED)
    await it.clock.advance(60)  # type: ignore[attr-defined] # it is a ManualClock


async def _late(it: Opened, claim: Any) -> None:
    with suppress(LeaseLost):
        await it.store.finish(claim, DONE)


async def _spent(it: Opened) -> None:
    """Hold claims as a budget does that is larger by now."""
    hold = partial(roster.hold, agent="codex", cause=HoldCause.BUDGET, reason="too dear")
    await it.store._writer.write(hold)


NOTICED = NewAlert(AlertKind.LOG, "web.log", "1 line")
WATCHING = Watching(
    logs=(WatchedLog("file:web.log", "*.log", [1]),),
    runs=3,
    patterns=("*.log",),
    alerts=(NOTICED,),
)


async def _alert(it: Opened) -> list[int]:
    return await it.store.raise_alerts([NOTICED], ["box"])


async def _external(it: Opened) -> None:
    await it.store.register_agent(External("bot", "robot", meta={"of": "me"}))


async def _service(it: Opened) -> None:
    await it.store.enter_services({"web": 8080, "db": None}, HOST)


async def _asked(it: Opened) -> None:
    await _service(it)
    await it.store.ask_services(["web"], "start")


CHANGES: dict[
    str,
    tuple[Callable[[Opened], Awaitable[Any]], Callable[[Opened, Any], Coroutine[Any, Any, Any]]],
] = {
    "seed": (_nothing, lambda it, _: _seeded(it)),
    "reseed": (_seeded, lambda it, _: it.store.seed(a_dag(a_task("b"), a_task("a", "b")))),
    "claim": (_seeded, lambda it, _: it.store.claim("codex", "codex-1", HOST)),
    "start": (_prepared, lambda it, claim: it.store.start(claim)),
    "progress": (_claimed, lambda it, claim: it.store.progress(claim, "half")),
    "lead": (_claimed, lambda it, claim: it.store.lead(claim, HOST)),
    "finish": (_claimed, lambda it, claim: it.store.finish(claim, DONE)),
    "fail": (_claimed, lambda it, claim: it.store.finish(claim, FAILED)),
    "finish and claim": (
        _claimed,
        lambda it, claim: it.store.finish_and_claim(claim, DONE, HOST),
    ),
    "release": (_claimed, lambda it, claim: it.store.release(claim.task.id, claim.run_id, "me")),
    "expire": (_claimed, lambda it, claim: it.store.expire(claim.task.id, claim.run_id)),
    "renew": (_claimed, lambda it, claim: it.store.renew([claim.run_id])),
    "end backoff": (_in_backoff, lambda it, _: it.store.end_backoff()),
    "late result": (_taken, _late),
    "time out": (_claimed, lambda it, claim: it.store.time_out(claim.task.id, claim.run_id)),
    "finish, tree not gone": (
        _claimed,
        lambda it, claim: it.store.finish(claim, DONE, tree_gone=False),
    ),
    "gone": (_taken, lambda it, claim: it.store.gone(claim.run_id)),
    "ask release": (_claimed, lambda it, _: it.order(orders.release, "a", "b", "nobody")),
    "cancel": (_claimed, lambda it, _: it.order(orders.cancel, "a", "b", "nobody")),
    "kill": (_claimed, lambda it, _: it.order(orders.kill, "a", "b", "nobody")),
    "purge": (_claimed, lambda it, _: it.order(orders.purge, "a", "nobody")),
    "kill worker": (
        _worker_with_run,
        lambda it, _: it.store.order(partial(orders.kill_held, worker_id="codex-1", host=HOST)),
    ),
    "condemn": (_claimed, lambda it, claim: it.store.condemn(claim.task.id, claim.run_id)),
    "retry": (_done, lambda it, _: it.order(orders.retry, "a", downstream=True)),
    "begin reset": (_seeded, lambda it, _: it.store.begin_reset()),
    "abandon reset": (_resetting, lambda it, _: it.store.abandon_reset()),
    "reset": (
        _resetting,
        lambda it, _: it.store.reset(a_dag(a_task("a"), a_task("d")), fresh=True),
    ),
    "mend": (_claimed, lambda it, _: it.store.mend()),
    "forget": (_forgettable, lambda it, last: it.store.forget(last, 3)),
    "undisturbed": (_worker, lambda it, _: it.store.undisturbed(len)),
    "register": (_nothing, lambda it, _: _worker(it)),
    "would register": (
        _nothing,
        lambda it, _: it.store.would_register("codex", 2, HOST, lambda _: True),
    ),
    "beat": (_worker, lambda it, _: it.store.beat(["codex-1"])),
    "worker stopped": (
        _worker,
        lambda it, _: it.store.set_status("codex-1", HOST, WorkerStatus.STOPPED),
    ),
    "spending": (_claimed, lambda it, claim: it.store.finish(claim, COSTLY)),
    "put back": (_claimed, lambda it, claim: it.store.finish(claim, LOGGED_OUT)),
    "block": (_seeded, lambda it, _: it.store.block({"a": "no login", "nobody": "x"})),
    "add": (_seeded, lambda it, _: it.store.add([a_task("issue"), a_task("a")], {"issue": "no"})),
    "note feed": (_nothing, lambda it, _claim: it.store.note_feed("acme/site", "no gh")),
    "note told": (_done, lambda it, claim: it.store.note_told("a", claim.run_id)),
    "set budget": (_spent, lambda it, _: it.store.set_budget(Budget())),
    "hold": (_nothing, lambda it, _: it.store.hold("codex")),
    "resume": (_held, lambda it, _: it.store.resume("codex")),
    "begin watching": (_claimed, lambda it, _: it.store.begin_watching()),
    "note watched": (_nothing, lambda it, _: it.store.note_watched(WATCHING)),
    "raise alerts": (_nothing, lambda it, _: _alert(it)),
    "acknowledge": (_alert, lambda it, numbers: it.store.acknowledge(numbers)),
    "forget targets": (_alert, lambda it, _: it.store.forget_targets([])),
    "delivered": (_alert, lambda it, numbers: it.store.delivered(numbers[0], "box")),
    "put off": (_alert, lambda it, numbers: it.store.put_off(numbers[0], "box", "no", 5)),
    "give up": (_alert, lambda it, numbers: it.store.give_up(numbers[0], "box", NOTICED)),
    "register agent": (_nothing, lambda it, _: _external(it)),
    "beat agents": (_external, lambda it, _: it.store.beat_agents(["bot", "nobody"])),
    "unregister agents": (
        _external,
        lambda it, _: it.store.unregister_agents({"bot": "it vanished"}, [NOTICED], ["box"]),
    ),
    "enter services": (_nothing, lambda it, _: _service(it)),
    "stand service": (
        _service,
        lambda it, _: it.store.stand_service(
            "web", Standing(ServiceState.FAILED, "no"), [NOTICED], ["box"]
        ),
    ),
    "ask services": (_service, lambda it, _: it.store.ask_services(["web", "none"], "start")),
    "obey service": (_asked, lambda it, _: it.store.obey_service(["web"], "start")),
}


CHANGE_NOTHING = {"mend", "undisturbed", "would register"}
"""What writes nothing to a sound store, or never does."""


async def _later(it: Opened) -> None:
    """Let time pass, so that what only notes the time changes something, too."""
    await it.clock.advance(1.5)  # type: ignore[attr-defined] # it is a ManualClock


def test_every_writing_method_of_the_store_is_cancelled_below() -> None:
    methods = {name for name, value in vars(Store).items() if iscoroutinefunction(value)}
    covered = {"set_status": "worker stopped", "order": "cancel"}
    names = {covered.get(name, name.replace("_", " ")) for name in methods - {"open", "close"}}
    assert names <= set(CHANGES)


@pytest.mark.parametrize("change", CHANGES)
async def test_a_caller_that_is_cancelled_in_the_queue_leaves_no_trace(
    it: Opened, change: str
) -> None:
    prepare, act = CHANGES[change]
    held = await prepare(it)
    await _later(it)
    gate = Gate(it.store)
    with gate.closed(after_commit=False):
        blocker = asyncio.create_task(it.store.hold("blocker"))
        await gate.arrived()
        before = everything(it.layout)
        caller = asyncio.create_task(act(it, held))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
    await blocker
    await it.store.resume("blocker")
    blocking = {'INSERT INTO "events"', 'INSERT INTO "holds"'}
    left = [line for line in everything(it.layout) if not any(line.startswith(b) for b in blocking)]
    assert left == [line for line in before if not any(line.startswith(b) for b in blocking)]
    assert kinds(events_of(it.layout))[-2:] == ["HELD", "RESUMED"]
    check_store(it.layout)


@pytest.mark.parametrize("after_commit", [False, True], ids=["before-commit", "after-commit"])
@pytest.mark.parametrize("change", CHANGES)
async def test_a_caller_that_is_cancelled_while_its_group_commits_leaves_the_whole_change(
    tmp_path: Path, change: str, after_commit: bool
) -> None:
    prepare, act = CHANGES[change]
    async with opened(tmp_path / "calm") as calm:
        held = await prepare(calm)
        await _later(calm)
        begun = _shape(calm)
        await act(calm, held)
        expected = _shape(calm)
    assert (expected != begun) is (change not in CHANGE_NOTHING)
    async with opened(tmp_path / "cut") as cut:
        held = await prepare(cut)
        await _later(cut)
        gate = Gate(cut.store)
        with gate.closed(after_commit=after_commit):
            caller = asyncio.create_task(act(cut, held))
            await gate.arrived()
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
        await cut.store.beat([])  # a commit behind it: the store works on
        check_store(cut.layout)
        assert _shape(cut) == expected


def _shape(it: Opened) -> list[Any]:
    """Return what a store holds but for what is random in it: run ids and the jitter."""
    tasks = select(
        it.layout,
        "SELECT id, state, attempts, pending, broken, asked, lease_until, not_before IS NULL,"
        " ending IS NULL FROM tasks ORDER BY id",
    )
    runs = select(it.layout, "SELECT task_id, outcome, pid FROM runs ORDER BY n")
    others = [
        select(it.layout, f"SELECT {columns} FROM {table}")
        for table, columns in (
            ("workers", "id, status, beat_at"),
            ("endings", "task_id, worker_id"),
            ("purged", "*"),
            ("holds", "agent"),
            ("alerts", "*"),
            ("deliveries", "*"),
            ("watched", "*"),
            ("services", "*"),
            ("externals", "*"),
            ("meta", "key, iif(key LIKE 'told:%', 'a run', value)"),
        )
    ]
    return [tasks, runs, others, kinds(events_of(it.layout))]


@pytest.mark.parametrize("steps", range(8))
async def test_a_caller_cancelled_after_any_number_of_steps_leaves_all_or_nothing(
    it: Opened, steps: int
) -> None:
    claim = await _claimed(it)
    for change, cut in (("finish and claim", steps), ("seed", steps)):
        caller = asyncio.ensure_future(CHANGES[change][1](it, claim))
        for _ in range(cut):
            await asyncio.sleep(0)
        caller.cancel()
        with suppress(asyncio.CancelledError):
            await caller
    await it.store.beat([])
    check_store(it.layout)
    told = kinds(events_of(it.layout, "a"))
    assert told.count("TASK_COMPLETED") == (it.state("a") == "DONE")


async def test_an_open_that_is_cancelled_leaves_no_thread_and_no_lock(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    layout.create()
    lock = database.WriteLock(layout.write_lock)
    lock.acquire()
    store = Store(layout, ManualClock(), lease=60)
    opening = asyncio.create_task(store.open())
    await asyncio.sleep(0.01)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    lock.release()
    lock.close()
    await asyncio.to_thread(store._writer._thread.join, PATIENCE)
    assert not store._writer._thread.is_alive()
    with pytest.raises(StorageError, match="closed"):
        await store.hold("codex")
    async with opened(tmp_path) as again:
        await _seeded(again)
