"""What runs and resets left behind long ago, and a gc that looks at it."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from support.clock import ManualClock
from support.stores import Opened, a_dag, a_task, tasks_of

from engine.care import gc
from engine.log.check import check_log
from engine.log.mirror import Mirror
from engine.logfiles import find_end, log_files
from engine.model import Outcome, RunOutcome
from engine.store import forgetting, orders
from engine.store.audit import audit

if TYPE_CHECKING:
    from pathlib import Path

    from engine.care.gc import Collected, Plan
    from engine.model import Claim

DAY = timedelta(days=1)
MONTH = timedelta(days=30)
DONE = Outcome(RunOutcome.DONE)
FAILED = Outcome(RunOutcome.FAILED, error="no")


async def pass_days(it: Opened, days: float) -> None:
    assert isinstance(it.clock, ManualClock)
    await it.clock.advance(days * 86400)


def leave(it: Opened, task_id: str, run_id: str, size: int = 100) -> Path:
    """Leave behind what a run leaves."""
    folder = it.layout.run_folder(task_id, run_id)
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "stdout.log").write_bytes(b"x" * size)
    (folder / "deep" / "er" / "result.json").write_bytes(b"y" * size)
    return folder


async def a_run(it: Opened, outcome: Outcome = DONE) -> tuple[Claim, Path]:
    claim = await it.claim()
    folder = leave(it, claim.task.id, claim.run_id)
    await it.store.finish(claim, outcome)
    return claim, folder


def plan(it: Opened, older_than: timedelta = MONTH) -> Plan:
    return gc.plan(it.layout, older_than, it.clock.now())


async def collect(it: Opened, older_than: timedelta = MONTH) -> Collected:
    return await gc.carry_out(plan(it, older_than), partial(forget, it))


async def forget(it: Opened, upto: int, at_most: int) -> int:
    change = partial(forgetting.forget, upto=upto, at_most=at_most)
    return await it.store._writer.write(change)


def catch_up(it: Opened) -> None:
    with closing(Mirror(it.layout, it.clock)) as mirror:
        assert mirror.catch_up()
        assert mirror.notices == []


def last_of(path: Path) -> int:
    with path.open("rb") as file:
        return find_end(file.fileno()).seq


def is_sound(it: Opened) -> bool:
    """Say whether log and table agree and fold to the tasks."""
    return audit(it.layout.database) == [] == check_log(it.layout, at_work=False)


def left(it: Opened) -> set[str]:
    """Return everything below artifacts/."""
    root = it.layout.artifacts
    return {str(path.relative_to(root)) for path in root.rglob("*")}


async def reset(it: Opened, *ids: str) -> None:
    """Reset to these tasks; what is gone from the DAG is purged."""
    await it.store.reset(a_dag(*map(a_task, ids)), fresh=False)
    gone = [task_id for task_id in tasks_of(it.layout) if task_id not in ids]
    await it.store.order(partial(orders.purge, task_ids=gone))
    catch_up(it)


async def three_generations(it: Opened) -> None:
    """Three files of the log, each of tasks of its own, 25 days apart: the first is a month old."""
    await it.store.seed(a_dag(a_task("one"), a_task("uno")))
    await a_run(it)
    for ids in (("two",), ("three", "drei")):
        await pass_days(it, 25)
        await reset(it, *ids)
        await a_run(it)
    await pass_days(it, 1)
    catch_up(it)
    assert len(log_files(it.layout)) == 3
    assert is_sound(it)
