"""The DAG as a graph over a real store: all of it, its neighbourhood, and its critical path."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import pytest
from support.clock import ManualClock
from support.patience import PATIENCE
from support.stores import Opened, a_dag, a_task, opened

from engine.clock import from_iso
from engine.model import Outcome, Reason, RunOutcome, State
from engine.store import graph as graph_module
from engine.store import orders
from engine.store.queries import Queries
from engine.store.reader import Reader
from engine.views import CriticalPath

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from engine.model import TaskDef

DONE = Outcome(RunOutcome.DONE)
BROKEN = Outcome(RunOutcome.FAILED, error="no")


@asynccontextmanager
async def reading(it: Opened) -> AsyncIterator[Queries]:
    async with Reader(it.layout.database) as reader:
        yield Queries(reader, it.clock, lambda _host: True)


@asynccontextmanager
async def stored(folder: Path, *tasks: TaskDef) -> AsyncIterator[tuple[Opened, Queries]]:
    async with opened(folder, clock=ManualClock()) as it:
        await it.store.seed(a_dag(*tasks))
        async with reading(it) as queries:
            yield it, queries


async def advance(it: Opened, seconds: float) -> None:
    assert isinstance(it.clock, ManualClock)
    await it.clock.advance(seconds)


async def work(it: Opened, seconds: float, outcome: Outcome = DONE, **more: Any) -> None:
    claim = await it.claim(**more)
    await advance(it, seconds)
    await it.store.finish(claim, outcome)


async def test_all_tasks_come_in_the_order_of_the_file_with_what_the_last_run_took(
    tmp_path: Path,
) -> None:
    tasks = [a_task("b"), a_task("a", "b"), a_task("c", "a", "b", name="See")]
    async with stored(tmp_path, *tasks) as (it, queries):
        await work(it, 2.5)
        nodes = await queries.graph()
    assert [node.id for node in nodes] == ["b", "a", "c"]
    assert [node.state for node in nodes] == [State.DONE, State.READY, State.READY]
    assert [node.deps for node in nodes] == [(), ("b",), ("a", "b")]
    assert [node.pending for node in nodes] == [0, 0, 1]
    assert [node.seconds for node in nodes] == [2.5, None, None]
    assert nodes[2].name == "See"


async def test_a_run_that_failed_after_one_that_finished_does_not_count_as_what_it_takes(
    tmp_path: Path,
) -> None:
    async with stored(tmp_path, a_task("a")) as (it, queries):
        await work(it, 4)
        await it.order_one(orders.retry, "a")
        await work(it, 9, BROKEN)
        (node,) = await queries.graph()
    assert (node.state, node.seconds) == (State.FAILED, 4.0)


async def test_a_task_that_left_the_dag_is_there_and_can_be_told(tmp_path: Path) -> None:
    async with stored(tmp_path, a_task("a"), a_task("b")) as (it, queries):
        await it.store.seed(a_dag(a_task("a")))
        nodes = {node.id: node for node in await queries.graph()}
    assert nodes["b"].reasons == (Reason.REMOVED,)
    assert nodes["a"].reasons == ()


def a_chain(length: int, name: str = "t") -> list[TaskDef]:
    return [a_task(f"{name}{n}", *([f"{name}{n - 1}"] if n else [])) for n in range(length)]


async def test_of_too_many_tasks_the_nearest_to_one_are_shown_up_and_down(tmp_path: Path) -> None:
    async with stored(tmp_path, *a_chain(30), *a_chain(5, "u")) as (_, queries):
        nodes = await queries.graph("t10", limit=5)
        alone = await queries.graph("u1", limit=20)
    assert [node.id for node in nodes] == ["t8", "t9", "t10", "t11", "t12"]
    assert {node.id for node in alone} == {f"u{n}" for n in range(5)}


async def test_around_nothing_what_runs_comes_first_then_what_is_stuck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_module, "_SEEDS", 1)
    tasks = [*a_chain(20), *a_chain(5, "u"), *a_chain(2, "v")]
    async with stored(tmp_path, *tasks) as (it, queries):
        await it.order_one(orders.cancel, "u0")
        claim = await it.claim()
        assert claim.task.id == "t0"
        few = await queries.graph(limit=1)
        many = await queries.graph(limit=26)
        gone = await queries.graph("no such task", limit=1)
    assert [node.id for node in few] == ["t0"]
    assert [node.id for node in gone] == ["t0"]
    assert len(many) == 26
    assert {f"u{n}" for n in range(1, 5)} <= {node.id for node in many}


async def test_a_circle_back_through_deps_and_dependents_ends(tmp_path: Path) -> None:
    """The neighbourhood of a diamond leads back to itself."""
    tasks = [a_task("a"), a_task("b", "a"), a_task("c", "a"), a_task("d", "b", "c")]
    async with stored(tmp_path, *tasks, *a_chain(9)) as (_, queries):
        async with asyncio.timeout(PATIENCE):
            nodes = await queries.graph("d", limit=12)
    assert [node.id for node in nodes] == ["a", "b", "c", "d"]


async def test_the_path_is_counted_in_tasks_while_nothing_has_finished(tmp_path: Path) -> None:
    tasks = [a_task("x"), a_task("a"), a_task("b", "a"), a_task("c", "b"), a_task("d", "x")]
    async with stored(tmp_path, *tasks) as (_, queries):
        assert await queries.critical_path() == CriticalPath(("a", "b", "c"), None)


async def test_the_path_follows_what_the_runs_of_each_agent_take(tmp_path: Path) -> None:
    tasks = [
        a_task("p1"),
        a_task("never"),
        a_task("p2", agent="claude"),
        a_task("a1"), a_task("a2", "a1"), a_task("a3", "a2"),
        a_task("b1", agent="claude"),
        a_task("c1", "b1", agent="gemini"),
    ]  # fmt: skip
    async with stored(tmp_path, *tasks) as (it, queries):
        await work(it, 10)
        await work(it, 500, BROKEN)
        await work(it, 40, worker_id="claude-1", agent="claude")
        # codex takes 10 s, claude 40, gemini what all take: 25.
        path = await queries.critical_path()
    assert path.ids == ("b1", "c1")
    assert path.seconds == pytest.approx(65)


async def test_what_has_already_run_is_taken_off_but_never_below_zero(tmp_path: Path) -> None:
    async with stored(tmp_path, a_task("p"), a_task("a"), a_task("b", "a")) as (it, queries):
        await work(it, 10)
        await it.claim()
        seen = []
        for seconds in (0, 4, 100):
            await advance(it, seconds)
            seen.append(await queries.critical_path())
    assert [path.ids for path in seen] == [("a", "b")] * 3
    assert [path.seconds for path in seen] == [pytest.approx(s, abs=0.001) for s in (20, 16, 10)]


async def test_a_wait_for_a_moment_is_part_of_the_path(tmp_path: Path) -> None:
    async with stored(tmp_path, a_task("p"), a_task("a", retries=1), a_task("b")) as (it, queries):
        await work(it, 10)
        await work(it, 10, BROKEN)
        wait = (from_iso(it.row("a")["not_before"]) - it.clock.now()).total_seconds()
        assert wait > 1
        for passed in (0, 1):
            await advance(it, passed)
            path = await queries.critical_path()
            assert path.ids == ("a",)
            assert path.seconds == pytest.approx(wait - passed + 10, abs=0.001)


@pytest.mark.parametrize(
    ("held", "back"), [((), 0), (("codex",), 2), (("claude", "codex"), 3), (("*", "codex"), 3)]
)
async def test_what_is_ready_and_held_is_told_apart(
    tmp_path: Path, held: tuple[str, ...], back: int
) -> None:
    tasks = [a_task("a"), a_task("b"), a_task("c", "a"), a_task("d", agent="claude")]
    async with stored(tmp_path, *tasks) as (it, queries):
        for agent in held:
            await it.store.hold(agent)
        progress = await queries.progress()
    assert (progress.held, progress.ready, progress.held_back) == (held, 3, back)


async def test_what_will_not_be_worked_and_what_hangs_on_it_does_not_count(tmp_path: Path) -> None:
    tasks = [a_task("bad"), *a_chain(5), a_task("t5", "t4"), a_task("x", "bad"), a_task("y", "x")]
    async with stored(tmp_path, *tasks, a_task("free"), a_task("then", "free")) as (it, queries):
        await work(it, 1, BROKEN)
        await it.order_one(orders.cancel, "t1")
        path = await queries.critical_path()
    assert path.ids == ("free", "then")


async def test_a_dag_that_is_over_has_no_path(tmp_path: Path) -> None:
    async with stored(tmp_path, a_task("a")) as (it, queries):
        await work(it, 3)
        assert await queries.critical_path() == CriticalPath((), None)


async def test_pages_join_to_one_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_module, "_WINDOW", 3)
    async with stored(tmp_path, *a_chain(20)) as (it, queries):
        await it.claim()
        path = await queries.critical_path()
    assert path.ids == tuple(f"t{n}" for n in range(20))


async def test_tasks_that_share_a_place_in_the_file_are_all_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_module, "_WINDOW", 3)
    async with stored(tmp_path, *a_chain(20)) as (it, queries):
        with closing(sqlite3.connect(it.layout.database)) as db:
            db.execute("UPDATE tasks SET position = 7")
            db.commit()
        assert len((await queries.critical_path()).ids) == 20
        # As it was, for the store is looked over when the test is done.
        with closing(sqlite3.connect(it.layout.database)) as db:
            db.execute("UPDATE tasks SET position = rowid - 1")
            db.commit()


async def test_more_tasks_than_is_worth_it_have_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_module, "MOST", 3)
    async with stored(tmp_path, *a_chain(4)) as (it, queries):
        assert (await queries.critical_path()).ids == ()
        await work(it, 1)
        assert len((await queries.critical_path()).ids) == 3


async def test_a_path_that_took_long_to_find_is_not_looked_for_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stored(tmp_path, *a_chain(3)) as (it, queries):
        reckon = graph_module._reckon

        def slowly(*args: Any) -> CriticalPath:
            assert isinstance(it.clock, ManualClock)
            it.clock._elapsed += 0.1
            return reckon(*args)

        monkeypatch.setattr(graph_module, "_reckon", slowly)
        before = await queries.critical_path()
        await work(it, 1)
        assert await queries.critical_path() == before
        await advance(it, 4)
        after = await queries.critical_path()
    assert (before.ids, after.ids) == (("t0", "t1", "t2"), ("t1", "t2"))
