"""Promises of gc: a rotated log goes with its events, if nothing that is left was told in it."""

from __future__ import annotations

import asyncio
import random
from contextlib import closing
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest
from support.aged import (
    DONE,
    FAILED,
    MONTH,
    a_run,
    catch_up,
    collect,
    forget,
    is_sound,
    last_of,
    leave,
    pass_days,
    plan,
    three_generations,
)
from support.clock import ManualClock
from support.engines import until
from support.stores import HOST, Opened, a_dag, a_task, events_of, opened, select, tasks_of

from engine.care import gc
from engine.clock import SystemClock
from engine.errors import CommandNotAllowed
from engine.findings import Level
from engine.log.check import check_log
from engine.log.repair import rewrite
from engine.logfiles import log_files
from engine.machine import fold
from engine.model import AlertKind, NewAlert
from engine.store import orders
from engine.store.audit import audit
from engine.store.database import WriteLock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from engine.care.gc import Collected, Plan
    from engine.model import Dag


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Opened]:
    # Real time at first: folders carry the time of the file system.
    async with opened(tmp_path, clock=ManualClock(SystemClock().now())) as it:
        yield it


async def test_a_rotated_log_that_nothing_needs_goes_with_its_events(it: Opened) -> None:
    await three_generations(it)
    oldest, middle, newest = log_files(it.layout)
    # The tasks of each generation are purged after the RESET, so their end lies in the next file.
    found = plan(it)
    assert ([log.path for log in found.logs], found.kept) == ([oldest], ())
    last = found.upto
    assert found.events == last
    size = oldest.stat().st_size
    collected = await gc.carry_out(found, partial(forget, it))
    assert (collected.logs, collected.events, collected.refused) == (1, last, [])
    assert collected.bytes >= size
    assert log_files(it.layout) == [middle, newest]
    assert [row["seq"] for row in select(it.layout, "SELECT min(seq) AS seq FROM events")] == [
        last + 1
    ]
    assert is_sound(it)
    assert fold(events_of(it.layout)).keys() == tasks_of(it.layout).keys() == {"three", "drei"}
    await pass_days(it, 30)
    await collect(it)
    assert log_files(it.layout) == [newest]
    assert is_sound(it)
    await it.store.hold("codex")
    catch_up(it)
    assert is_sound(it)
    assert rewrite(it.layout) is None


async def test_a_log_without_its_oldest_file_is_written_anew_as_it_was(it: Opened) -> None:
    await three_generations(it)
    await collect(it)
    before = [path.read_bytes() for path in log_files(it.layout)]
    for path in log_files(it.layout):
        path.unlink()
    catch_up(it)
    assert [path.read_bytes() for path in log_files(it.layout)] == before
    assert is_sound(it)


async def test_what_gc_leaves_of_the_log_rebuilds_the_store(tmp_path: Path) -> None:
    columns = "id, name, agent, state, reasons, attempts, deps, payload"
    async with opened(tmp_path, clock=ManualClock()) as it:
        await three_generations(it)
        await it.store.hold("gemini")
        catch_up(it)
        assert (await collect(it)).logs == 1
        tasks = select(it.layout, f"SELECT {columns} FROM tasks ORDER BY id")
    for file in it.layout.state.glob("tasks.db*"):
        file.unlink()
    async with opened(tmp_path, clock=it.clock) as again:
        assert select(again.layout, f"SELECT {columns} FROM tasks ORDER BY id") == tasks
        assert [row["agent"] for row in select(again.layout, "SELECT * FROM holds")] == ["gemini"]
        catch_up(again)
        assert is_sound(again)
        assert (await collect(again)).logs == 0, "what is left is needed"


@pytest.mark.parametrize(
    ("needs", "reason"),
    [
        ("a living task", "task 'one' was created before it ends"),
        ("a purged dep", "task 'dep' was created before it ends"),
        ("an ending run", "task 'one' was created before it ends"),
        ("a hold", "the hold of gemini began before it ends"),
        ("an open alert", "alert 1 was raised before it ends and is not acknowledged"),
        ("a hold of all", "the hold of [*] began before it ends"),
        ("what an older agentmux left", "task 'one' was created before it ends"),
    ],
)
async def test_a_rotated_log_that_a_rebuild_needs_stays_however_old(
    it: Opened, needs: str, reason: str
) -> None:
    await it.store.seed(a_dag(a_task("one"), a_task("dep")))
    if needs == "an ending run":
        await it.claim()
        await it.store.order(partial(orders.purge, task_ids=["one"]))
    if needs == "an open alert":
        await it.store.raise_alerts([NewAlert(AlertKind.LOG, "app.log", "1 line")])
    if needs.startswith("a hold"):
        await it.store.hold("*" if "all" in needs else "gemini")
    after = [a_task("one")] if needs == "a living task" else [a_task("two")]
    if needs == "a purged dep":
        after = [a_task("dep"), a_task("two", "dep")]
    await it.store.reset(a_dag(*after), fresh=False)
    gone = {"one", "dep"} - {task.id for task in after if needs != "a purged dep"}
    await it.store.order(partial(orders.purge, task_ids=sorted(gone)))
    if needs == "what an older agentmux left":
        row = "'2020-01-01T00:00:00.000Z', 'TASK_CREATED', 'one', '{\"adopted\":true}'"
        await it.store._writer.write(
            lambda tx: tx.db.execute(f"INSERT INTO events(ts, type, task_id, data) VALUES ({row})")
        )
        await it.store._writer.write(
            lambda tx: tx.db.execute("INSERT INTO purged VALUES ('one', 1)")
        )
    catch_up(it)
    await pass_days(it, 400)
    found = plan(it)
    assert (found.logs, found.upto) == ((), 0)
    (kept,) = found.kept
    oldest, _ = log_files(it.layout)
    assert kept.startswith(f"{oldest.name} stays, a rebuild would need it: ")
    with pytest.raises(CommandNotAllowed, match=reason):
        await forget(it, last_of(oldest), 10)
    assert select(it.layout, "SELECT 1 FROM meta WHERE key = 'log_from'") == []


async def test_events_are_forgotten_only_up_to_where_a_file_begins(it: Opened) -> None:
    await three_generations(it)
    last = last_of(log_files(it.layout)[0])
    for upto in (last - 1, last + 1, 10_000):
        with pytest.raises(CommandNotAllowed, match="no file of the log begins"):
            await forget(it, upto, 10)


async def test_a_task_that_came_again_does_not_need_the_log_of_its_former_life(it: Opened) -> None:
    for _ in range(2):
        await it.store.seed(a_dag(a_task("a")))
        await a_run(it)
        await it.store.order(partial(orders.purge, task_ids=["a"]))
        await it.store.reset(a_dag(a_task("a")), fresh=False)
    catch_up(it)
    await pass_days(it, 31)
    assert [log.path for log in plan(it).logs] == log_files(it.layout)[:2]
    await collect(it)
    assert is_sound(it)
    assert len(log_files(it.layout)) == 1


async def test_a_log_whose_end_cannot_be_read_stays(it: Opened) -> None:
    await three_generations(it)
    oldest, *_ = log_files(it.layout)
    with oldest.open("ab") as log:
        log.write(b"what is this?")
    assert plan(it).logs == ()
    assert "its end cannot be read; run `agentmux doctor`" in str(plan(it).kept)


class Cut(Exception):  # noqa: N818 - no error, the end of a process
    """The end of a process."""


@pytest.mark.parametrize("steps", range(4))
async def test_a_gc_that_was_cut_short_leaves_nothing_wrong_and_is_completed_by_the_next(
    it: Opened, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    await three_generations(it)
    monkeypatch.setattr(gc, "_EVENTS_AT_ONCE", 2)
    done = 0

    async def forget_some(upto: int, at_most: int) -> int:
        nonlocal done
        if done == steps:
            raise Cut
        done += 1
        return await forget(it, upto, at_most)

    with pytest.raises(Cut):
        await gc.carry_out(plan(it), forget_some)
    assert audit(it.layout.database) == []
    notes = check_log(it.layout, at_work=False)
    assert [note.level for note in notes] == [Level.NOTE] * (steps > 0)
    if steps:
        assert "forgotten by the store" in notes[0].message
        assert "`agentmux gc`" in notes[0].advice
    assert rewrite(it.layout) is None
    # Whatever else happens before: the rest goes without regard to its age now.
    await it.store.hold("codex")
    catch_up(it)
    collected = await collect(it, timedelta(days=4000) if steps else MONTH)
    assert collected.logs == 1
    assert len(log_files(it.layout)) == 2
    assert is_sound(it)
    assert plan(it).upto == 0


async def test_a_log_that_was_forgotten_but_not_removed_goes_without_regard_to_its_age(
    it: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    await three_generations(it)

    def refuse(_plan: Plan, _collected: Collected) -> None:
        raise PermissionError(13, "Permission denied", "events")

    with monkeypatch.context() as patched:
        patched.setattr(gc, "_remove_logs", refuse)
        collected = await collect(it)
    assert (collected.logs, len(collected.refused)) == (0, 1)
    assert [note.level for note in check_log(it.layout, at_work=False)] == [Level.NOTE]
    assert rewrite(it.layout) is None
    assert (await collect(it, timedelta(days=4000))).logs == 1
    assert is_sound(it)


async def test_a_log_that_was_written_anew_meanwhile_is_not_removed(it: Opened) -> None:
    await three_generations(it)
    found = plan(it)
    oldest, middle, _ = log_files(it.layout)
    oldest.write_bytes(middle.read_bytes())
    collected = await gc.carry_out(found, partial(forget, it))
    assert collected.logs == 0
    assert oldest.exists()


class Life:
    """Operators and workers that do anything, by the fall of the dice."""

    def __init__(self, it: Opened, dice: random.Random) -> None:
        self.it = it
        self.dice = dice
        self.removed = 0
        self.names = [f"t{n}" for n in range(6)]
        self.moves = (self.seed, self.reset, self.purge, self.hold, self.retry, self.work)

    def dag(self) -> Dag:
        chosen = sorted(self.dice.sample(self.names, self.dice.randint(1, 6)))
        deps = (self.dice.sample(chosen[:n], min(n, self.dice.randint(0, 2))) for n in range(6))
        return a_dag(*(a_task(name, *on) for name, on in zip(chosen, deps, strict=False)))

    async def seed(self) -> None:
        await self.it.store.seed(self.dag())

    async def reset(self) -> None:
        await self.it.store.reset(self.dag(), fresh=self.dice.random() < 0.5)

    async def purge(self) -> None:
        tasks = self.dice.sample(self.names, 3)
        await self.it.store.order(partial(orders.purge, task_ids=tasks))
        for row in select(self.it.layout, "SELECT run_id FROM endings"):
            await self.it.store.gone(row["run_id"])

    async def hold(self) -> None:
        store = self.it.store
        await (store.hold if self.dice.random() < 0.3 else store.resume)("codex")

    async def retry(self) -> None:
        await self.it.store.order(partial(orders.retry, task_ids=self.names))

    async def work(self) -> None:
        claim = await self.it.store.claim("codex", "codex-1", HOST)
        if claim is not None:
            leave(self.it, claim.task.id, claim.run_id)
            await self.it.store.finish(claim, self.dice.choice((DONE, FAILED)))


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_log_and_table_still_fold_to_the_tasks_after_a_gc(
    it: Opened, seed: int
) -> None:
    dice = random.Random(seed)
    life = Life(it, dice)
    for _ in range(100):
        await dice.choice(life.moves)()
        await pass_days(it, dice.choice((0, 1, 20)))
        catch_up(it)
        if dice.random() < 0.3:
            collected = await collect(it)
            assert collected.refused == []
            life.removed += collected.logs
            assert is_sound(it)
    assert life.removed > 0, "the dice must have given gc something to do"


async def test_no_log_is_removed_while_another_process_writes_to_the_log(it: Opened) -> None:
    await three_generations(it)
    found = plan(it)
    with closing(WriteLock(it.layout.log_lock)) as lock:
        lock.acquire()
        collecting = asyncio.create_task(gc.carry_out(found, partial(forget, it)))
        await until(lambda: not _has_event(it, found.upto), "the events went first")
        assert len(log_files(it.layout)) == 3
        assert not collecting.done()
        lock.release()
        assert (await collecting).logs == 1


def _has_event(it: Opened, seq: int) -> bool:
    return bool(select(it.layout, "SELECT 1 FROM events WHERE seq = ?", seq))
