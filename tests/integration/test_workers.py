"""Promises of workers and their hosts: who runs what, when, how often, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from support.engines import QUICK, Project, a_project, ended, most_at_once, until
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

from engine import core, machine
from engine import worker as worker_module
from engine.commands import Hold, Release, Resume, Seed, Stop
from engine.config import Config
from engine.errors import LeaseConflict, LeaseLost, StorageError, ValidationError
from engine.executors import builtin_executors
from engine.model import Claim, Outcome, ProcessId, RunOutcome
from engine.processes import identify, is_alive, seems_alive
from engine.reaper import Reaper
from engine.store.lookout import Lookout
from engine.store.queries import Queries
from engine.store.reader import Reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from engine.core import Engine
    from engine.executors.base import RunContext
    from engine.model import TaskDef

DONE = Outcome(RunOutcome.DONE)


class Stage:
    """An executor whose runs the test plays. By default a run waits until it is cancelled."""

    def __init__(self, *, prepares: bool = False) -> None:
        self.prepares = prepares
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.contexts: list[RunContext] = []
        self.play: Callable[[RunContext], Awaitable[Outcome]] = self.wait

    async def run(self, context: RunContext) -> Outcome:
        self.begun.append(context.claim.task.id)
        self.contexts.append(context)
        try:
            return await self.play(context)
        except asyncio.CancelledError:
            self.cancelled.append(context.claim.task.id)
            raise

    async def wait(self, _context: RunContext) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with a_project(tmp_path) as project:
        yield project


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = Stage()
    monkeypatch.setattr(core, "builtin_executors", lambda: {**builtin_executors(), "stage": stage})
    return stage


@pytest.fixture
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let retries come after hundredths of a second."""
    monkeypatch.setattr(machine, "FIRST_BACKOFF", 0.02)


def staged(task_id: str, *deps: str, **more: Any) -> TaskDef:
    return a_task(task_id, *deps, payload={"kind": "stage"}, **more)


async def run_all(engine: Engine) -> None:
    async with asyncio.timeout(20):
        await engine.settled()


# Order, retries, limits.


async def test_tasks_run_in_the_order_of_deps_priority_and_file(
    project: Project, stage: Stage
) -> None:
    async def play(_context: RunContext) -> Outcome:
        return DONE

    stage.play = play
    dag = project.dag(
        staged("last", "mid", priority=9), staged("a"), staged("b"), staged("mid", "a", priority=5)
    )
    async with project.engine() as engine:
        await engine.execute(Seed(dag))
        await engine.start_worker("codex")
        await run_all(engine)
    assert stage.begun == ["a", "mid", "last", "b"]
    project.check()


@pytest.mark.usefixtures("fast_retries")
async def test_a_failed_task_is_tried_again_after_its_backoff_until_no_retry_is_left(
    project: Project,
) -> None:
    dag = project.dag(
        a_task("mends", retries=2, payload={"kind": "noop", "seconds": 0, "fail_attempts": 2}),
        a_task("fails", retries=1, payload={"kind": "noop", "seconds": 0, "fail_attempts": 9}),
        a_task("after", "fails"),
        a_task("after after", "after"),
    )
    async with project.engine() as engine:
        await engine.execute(Seed(dag))
        await engine.start_worker("codex")
        await run_all(engine)
    assert (project.state("mends"), project.state("fails")) == ("DONE", "FAILED")
    assert project.state("after") == project.state("after after") == "BLOCKED"
    failures = [event for event in project.events("fails") if event.type == "TASK_FAILED"]
    assert [event.state for event in failures] == ["READY", "FAILED"]
    first, second = (event for event in project.events("fails") if event.type == "TASK_STARTED")
    assert failures[0].data["notBefore"] > project.events("fails")[0].ts.isoformat()[:10]
    assert second.ts > failures[0].ts >= first.ts
    project.check()


async def test_a_task_in_backoff_is_not_touched_before_its_time(project: Project) -> None:
    dag = project.dag(
        a_task("a", retries=1, payload={"kind": "noop", "seconds": 0, "fail_attempts": 1}),
        a_task("b"),
    )
    async with project.engine() as engine:
        await engine.execute(Seed(dag))
        await engine.start_worker("codex")
        await until(lambda: project.state("b") == "DONE", "b is done")
        assert project.state("a") == "READY"
        task = await engine.queries.task("a")
        assert task.not_before is not None
        assert (task.not_before - task.updated_at).total_seconds() > 3.9
        assert (await engine.queries.progress()).waiting == 1
    assert project.kinds("a").count("TASK_CLAIMED") == 1


async def test_an_agents_limit_holds_within_a_process(project: Project, stage: Stage) -> None:
    now = most = 0

    async def play(_context: RunContext) -> Outcome:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.005)
        now -= 1
        return DONE

    stage.play = play
    dag = project.dag(*(staged(f"t{n}") for n in range(20)), agents="{codex: {limit: 2}}")
    async with project.engine() as engine:
        await engine.execute(Seed(dag))
        for _ in range(6):
            await engine.start_worker("codex")
        await run_all(engine)
    assert most == 2, "never more, and the limit was used"
    assert project.states() == {"DONE": 20}
    project.check()


async def test_an_agents_limit_holds_across_processes(project: Project) -> None:
    tasks = (a_task(f"t{n}", payload={"kind": "noop", "seconds": 0.02}) for n in range(16))
    dag = project.dag(*tasks, agents="{codex: {limit: 2}}")
    async with project.engine() as engine:
        await engine.execute(Seed(dag))
        await engine.execute(Hold())
        workers = [project.work(f"out-{n}", "--until-idle") for n in range(2)]
        await until(
            lambda: project.kinds().count("WORKER_STARTED") == 2 or engine.active_runs(), "two more"
        )
        for _ in range(3):
            await engine.start_worker("codex")
        await engine.execute(Resume())
        await run_all(engine)
        for worker in workers:
            await ended(worker)
    assert most_at_once(project.events()) == 2
    assert project.states() == {"DONE": 16}
    project.check()


async def test_a_stagger_keeps_two_starts_apart(project: Project) -> None:
    dag = project.dag(*(a_task(f"t{n}") for n in range(3)), agents="{codex: {stagger: 0.2}}")
    async with project.engine() as engine:
        await engine.execute(Seed(dag))
        for _ in range(3):
            await engine.start_worker("codex")
        await run_all(engine)
    starts = [event.ts for event in project.events() if event.type == "TASK_STARTED"]
    gaps = [(b - a).total_seconds() for a, b in pairwise(starts)]
    assert len(gaps) == 2
    assert min(gaps) >= 0.2
    assert max(gaps) < 3, "the end of a stagger wakes, nobody polls for it"


# Waking.


@pytest.fixture
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this safety net whoever is not woken sleeps for ever."""
    monkeypatch.setattr(worker_module, "POLLS", (3600.0,))


@pytest.mark.usefixtures("no_polling")
async def test_a_new_ready_task_wakes_an_idle_worker_at_once(project: Project) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag()))
        await engine.start_worker("codex")
        await until(lambda: all(w.idle for w in engine._host.workers.values()), "it is idle")
        asked = time.monotonic()
        await engine.execute(Seed(project.dag(a_task("a"))))
        await until(lambda: project.state("a") == "DONE", "a is done")
        assert time.monotonic() - asked < 1


@pytest.mark.usefixtures("no_polling")
async def test_a_new_ready_task_wakes_an_idle_worker_of_another_process(project: Project) -> None:
    async with project.engine() as here, project.engine() as there:
        await there.start_worker("codex")
        await until(lambda: all(w.idle for w in there._host.workers.values()), "it is idle")
        asked = time.monotonic()
        await here.execute(Seed(project.dag(a_task("a"), a_task("b", "a"))))
        await until(lambda: project.state("b") == "DONE", "b is done")
        assert time.monotonic() - asked < 1
    project.check()


@pytest.mark.usefixtures("no_polling")
async def test_the_end_of_a_task_wakes_workers_of_other_agents(project: Project) -> None:
    agents = ("codex", "claude")
    chain = [
        a_task("t0"),
        *(a_task(f"t{n}", f"t{n - 1}", agent=agents[n % 2]) for n in range(1, 8)),
    ]
    async with project.engine() as here, project.engine() as there:
        await here.execute(Seed(project.dag(*chain)))
        await here.start_worker("codex")
        await there.start_worker("claude")
        await run_all(here)
    assert project.states() == {"DONE": 8}


@pytest.mark.usefixtures("no_polling")
async def test_a_hold_keeps_workers_idle_and_its_end_wakes_them(project: Project) -> None:
    async with project.engine() as engine:
        await engine.execute(Hold("codex"))
        await engine.execute(Seed(project.dag(a_task("a"), a_task("b"), a_task("c"))))
        for _ in range(3):
            await engine.start_worker("codex")
        await until(lambda: all(w.idle for w in engine._host.workers.values()), "they are idle")
        await engine.settled()
        assert project.states() == {"READY": 3}
        asked = time.monotonic()
        await engine.execute(Resume())
        await run_all(engine)
        assert time.monotonic() - asked < 1
    assert project.states() == {"DONE": 3}


@pytest.mark.usefixtures("no_polling")
async def test_a_raised_limit_wakes_who_was_kept_back_by_it(project: Project, stage: Stage) -> None:
    tasks = (staged("a"), staged("b"), staged("c"))
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(*tasks, agents="{codex: {limit: 1}}")))
        for _ in range(3):
            await engine.start_worker("codex")
        await until(lambda: stage.begun, "the first one runs")
        await until(lambda: sum(w.idle for w in engine._host.workers.values()) == 2, "two idle")
        await engine.execute(Seed(project.dag(*tasks)))
        await until(lambda: len(stage.begun) == 3, "all run")


@pytest.mark.usefixtures("no_polling")
async def test_a_lost_wake_up_heals_itself(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "POLLS", (0.05,))
    async with project.engine() as engine:
        monkeypatch.setattr(engine._host, "wake", lambda _ready: None)
        await engine.start_worker("codex")
        engine._host._loops[1].cancel()  # the listener
        await engine.execute(Seed(project.dag(a_task("a"))))
        await until(lambda: project.state("a") == "DONE", "it looked by itself")


# How runs end.


async def test_a_run_over_its_time_fails_and_its_work_is_cancelled(
    project: Project, stage: Stage
) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a", timeout=0.05), a_task("b"))))
        await engine.start_worker("codex")
        await run_all(engine)
        run = (await engine.queries.runs("a"))[0]
    assert (run.outcome, run.error) == ("timed out", "timed out after 0.05 s")
    assert (project.state("a"), project.state("b")) == ("FAILED", "DONE")
    assert stage.cancelled == ["a"]


async def test_a_kind_that_nobody_knows_needs_a_human(project: Project) -> None:
    async with project.engine() as engine:
        tasks = (a_task("a", payload={"kind": "pottery"}), a_task("b", "a"), a_task("c"))
        await engine.execute(Seed(project.dag(*tasks)))
        await engine.start_worker("codex")
        await run_all(engine)
        task = await engine.queries.task("a")
    assert (task.state, task.reasons) == ("BLOCKED", ("human",))
    assert "'pottery'" in str(task.error)
    assert "noop" in str(task.error)
    assert (project.state("b"), project.state("c")) == ("BLOCKED", "DONE")


async def test_an_executor_that_breaks_fails_its_task_and_not_its_worker(
    project: Project, stage: Stage
) -> None:
    async def play(context: RunContext) -> Outcome:
        match context.claim.task.id:
            case "raises":
                raise ZeroDivisionError("by zero")
            case "no json":
                return Outcome(RunOutcome.DONE, result={"n": float("nan")})
            case "no text":
                return Outcome(RunOutcome.FAILED, error="half \ud800 a pair")
            case "no storage":
                raise StorageError("its files cannot be written")
        return DONE

    stage.play = play
    names = ("raises", "no json", "no text", "no storage", "good")
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(*map(staged, names))))
        await engine.start_worker("codex")
        await run_all(engine)
        tasks = {task.id: task for task in await engine.queries.tasks()}
        assert len(engine._host.workers) == 1, "the worker lives"
    assert [tasks[name].state for name in names] == [
        "FAILED", "FAILED", "FAILED", "BLOCKED", "DONE"
    ]  # fmt: skip
    assert "ZeroDivisionError: by zero" in str(tasks["raises"].error)
    assert "JSON" in str(tasks["no json"].error)
    assert "cannot be stored" in str(tasks["no text"].error)
    project.check()


async def test_progress_is_told_while_a_task_runs(project: Project, stage: Stage) -> None:
    async def play(context: RunContext) -> Outcome:
        await context.progress("half way")
        return DONE

    stage.play = play
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a"))))
        await engine.start_worker("codex")
        await run_all(engine)
    told = [event for event in project.events("a") if event.type == "TASK_PROGRESS"]
    assert [(event.state, event.data) for event in told] == [("RUNNING", {"note": "half way"})]


async def test_a_task_that_is_prepared_is_claimed_first_and_started_then(
    project: Project, stage: Stage
) -> None:
    stage.prepares = True

    async def play(_context: RunContext) -> Outcome:
        return DONE

    stage.play = play
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a"))))
        await engine.start_worker("codex")
        await run_all(engine)
    assert project.kinds("a") == [
        "TASK_CREATED", "TASK_CLAIMED", "TASK_STARTED", "TASK_COMPLETED"
    ]  # fmt: skip
    project.check()


async def test_a_result_outlives_a_full_disk(
    project: Project, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(_context: RunContext) -> Outcome:
        return DONE

    stage.play = play
    monkeypatch.setattr(worker_module, "_RETRIES", (0.01,))
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a"))))
        finish, refused = engine._store.finish_and_claim, 0

        async def full(*args: Any) -> Any:
            nonlocal refused
            refused += 1
            if refused < 5:
                raise StorageError("database or disk is full")
            return await finish(*args)

        monkeypatch.setattr(engine._store, "finish_and_claim", full)
        await engine.start_worker("codex")
        await run_all(engine)
    assert (refused, project.state("a")) == (5, "DONE")
    assert stage.begun == ["a"], "its work was not done twice"


# Stopping.


async def test_a_graceful_stop_releases_the_task_and_uses_no_retry(
    project: Project, stage: Stage
) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a"))))
        await engine.start_worker("codex")
        await until(lambda: stage.begun, "a runs")
        assert engine.active_runs() == 1
        await engine.stop_workers()
        assert (project.state("a"), stage.cancelled) == ("READY", ["a"])
        assert (await engine.queries.task("a")).attempts == 0
        assert [worker.status for worker in await engine.queries.workers()] == ["stopped"]
        assert list(project.layout.pids.iterdir()) == []
        await engine.start_worker("codex")
        await until(lambda: len(stage.begun) == 2, "a runs again")
        assert (await engine.queries.task("a")).attempts == 1
    assert project.state("a") == "READY"
    assert project.kinds()[-2:] == ["TASK_RELEASED", "WORKER_STOPPED"]
    project.check()


async def test_a_drain_finishes_the_task_and_takes_no_other(project: Project, stage: Stage) -> None:
    go = asyncio.Event()

    async def play(_context: RunContext) -> Outcome:
        await go.wait()
        return DONE

    stage.play = play
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a"), staged("b"))))
        await engine.start_worker("codex")
        await until(lambda: stage.begun, "a runs")
        stopping = asyncio.create_task(engine.stop_workers(drain=True))
        await asyncio.sleep(0.05)
        assert not stopping.done()
        go.set()
        await asyncio.wait_for(stopping, 10)
    assert (project.state("a"), project.state("b")) == ("DONE", "READY")
    assert stage.begun == ["a"]


async def test_a_stop_that_comes_before_the_loop_starts_is_not_lost(
    project: Project, stage: Stage
) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a"))))
        worker = await engine._host.start("codex", "w")
        worker.stop()  # its coroutine did not run yet
        async with asyncio.timeout(10):
            await engine.wait_workers()
        assert stage.begun == []
        assert project.state("a") == "READY"


async def test_a_stop_file_that_comes_while_a_worker_enters_is_not_lost(
    project: Project, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a"))))
        file = project.layout.stop_file("codex", "w")
        file.touch()  # left over from a worker that died: not meant for the next one
        enter = engine._host._enter

        def touched_meanwhile(*args: Any) -> None:
            file.unlink()
            file.touch()
            os.utime(file, ns=(1, 1))
            enter(*args)

        await engine.start_worker("codex", "w")
        assert not file.exists()
        await until(lambda: stage.begun, "a runs: the old file was not for this worker")
        await engine.stop_workers()
        file.touch()
        monkeypatch.setattr(engine._host, "_enter", touched_meanwhile)
        await engine.start_worker("codex", "w")
        async with asyncio.timeout(10):
            await engine.wait_workers()
        assert not file.exists()
        assert project.state("a") == "READY"


async def test_touching_its_stop_file_stops_a_worker_whatever_else_lies_there(
    project: Project, stage: Stage
) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a"), staged("b"))))
        (project.layout.control / "somebody-else.stop").mkdir()
        await engine.start_worker("codex", "one")
        await engine.start_worker("codex", "two")
        await until(lambda: len(stage.begun) == 2, "both run")
        project.layout.stop_file("codex", "one").touch()
        await until(lambda: "one" not in engine._host.workers, "one has stopped")
        assert list(engine._host.workers) == ["two"]
        assert project.states() == {"READY": 1, "RUNNING": 1}
        assert not project.layout.stop_file("codex", "one").exists()
        assert not project.layout.pid_file("codex", "one").exists()
        assert project.layout.pid_file("codex", "two").read_text() == str(os.getpid())


async def test_whoever_gives_up_waiting_for_workers_does_not_stop_them(
    project: Project, stage: Stage
) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a"))))
        await engine.start_worker("codex")
        await until(lambda: stage.begun, "a runs")
        waiting = asyncio.create_task(engine.wait_workers())
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(0.05)
        assert (project.state("a"), stage.cancelled) == ("RUNNING", [])


async def test_closing_the_engine_while_tasks_finish_leaves_none_of_them_held(
    project: Project, stage: Stage
) -> None:
    async def play(_context: RunContext) -> Outcome:
        await asyncio.sleep(0)
        return DONE

    stage.play = play
    for turns in range(12):
        async with project.engine() as engine:
            await engine.execute(Seed(project.dag(*(staged(f"{turns}-{n}") for n in range(30)))))
            for _ in range(3):
                await engine.start_worker("codex")
            for _ in range(turns * 3):
                await asyncio.sleep(0.001)
        assert not project.states().keys() & {"CLAIMED", "RUNNING"}
    project.check()


async def test_a_stop_of_a_worker_of_another_process_is_answered_when_it_is_gone(
    project: Project,
) -> None:
    async with project.engine() as engine:
        shell = a_task("a", payload={"kind": "shell", "cmd": "sleep 300"})
        await engine.execute(Seed(project.dag(shell)))
        process = project.work("codex-1")
        await until(lambda: project.state("a") == "RUNNING", "a runs")
        receipt = await engine.execute(Stop(("codex-1", "nobody")))
        assert receipt.done == {"codex-1": "stopped"}
        assert [(r.subject, r.code) for r in receipt.refused] == [("nobody", "WORKER_NOT_FOUND")]
        assert await ended(process) == 0, project.said("codex-1")
        assert project.state("a") == "READY"
        assert (await engine.queries.task("a")).attempts == 0
    project.check()


# Claims that are taken or asked back.


async def test_a_release_is_complete_when_the_run_has_ended(project: Project, stage: Stage) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a"))))
        await engine.start_worker("codex")
        await until(lambda: stage.begun, "a runs")
        await engine.execute(Hold())
        plan = await engine.execute(Release(("a",)), dry_run=True)
        assert (plan.done, stage.cancelled) == ({"a": "released from codex-1"}, [])
        receipt = await engine.execute(Release(("a", "nobody")))
        assert receipt.done == {"a": "released from codex-1"}
        assert [refusal.code for refusal in receipt.refused] == ["TASK_NOT_FOUND"]
        assert (project.state("a"), stage.cancelled) == ("READY", ["a"])
        again = await engine.execute(Release(("a",)))
        assert [refusal.code for refusal in again.refused] == ["ILLEGAL_TRANSITION"]
    released = next(event for event in project.events() if event.type == "TASK_RELEASED")
    assert released.data["by"] == "operator"
    assert released.data["attempts"] == 0


async def test_a_task_of_another_processs_worker_can_be_released(project: Project) -> None:
    async with project.engine() as engine:
        shell = a_task("a", payload={"kind": "shell", "cmd": "sleep 300"})
        await engine.execute(Seed(project.dag(shell)))
        project.work("codex-1")
        await until(lambda: project.state("a") == "RUNNING", "a runs")
        await engine.execute(Hold())
        leader = select(project.layout, "SELECT * FROM runs")[0]
        receipt = await engine.execute(Release(("a",)))
        assert receipt.done == {"a": "released from codex-1"}
        assert project.state("a") == "READY"
        assert not is_alive(ProcessId(leader["pid"], leader["pid_started"]))
    project.check()


async def test_a_run_whose_claim_was_taken_ends_within_a_second_or_so(
    project: Project, stage: Stage
) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a", retries=1))))
        await engine.start_worker("codex")
        await until(lambda: stage.begun, "a runs")
        run_id = stage.contexts[0].claim.run_id
        await engine.execute(Hold())
        assert await engine._store.expire("a", run_id)
        taken = time.monotonic()
        await until(lambda: stage.cancelled, "its run was ended")
        assert time.monotonic() - taken < 1.5
        await until(lambda: engine.active_runs() == 0, "the worker is free")
        with pytest.raises(LeaseLost):
            await stage.contexts[0].progress("still here")
    assert project.state("a") == "READY"
    project.check()


async def test_a_result_that_comes_too_late_is_recorded_and_the_worker_goes_on(
    project: Project, stage: Stage
) -> None:
    go = asyncio.Event()

    async def play(context: RunContext) -> Outcome:
        if context.claim.task.id == "a" and len(stage.begun) == 1:
            while not go.is_set():
                try:
                    await go.wait()
                except asyncio.CancelledError:
                    continue  # a stubborn one: it finishes all the same
        return DONE

    stage.play = play
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a"), staged("b"))))
        await engine.start_worker("codex")
        await until(lambda: stage.begun, "a runs")
        assert await engine._store.expire("a", stage.contexts[0].claim.run_id)
        go.set()
        await run_all(engine)
    assert project.kinds("a").count("LATE_RESULT") == 1
    assert project.kinds("a").count("TASK_COMPLETED") == 1
    assert stage.begun == ["a", "a", "b"]
    project.check()


async def test_a_lease_is_renewed_while_its_run_goes_on(project: Project, stage: Stage) -> None:
    project.settings(QUICK)
    async with project.engine() as engine, project.engine() as other:
        await engine.execute(Seed(project.dag(staged("a"))))
        await engine.start_worker("codex")
        await until(lambda: stage.begun, "a runs")
        await other.start_worker("claude")  # its reaper looks at our lease
        begun = lease = stage.contexts[0].claim.lease_until

        async def renewed() -> bool:
            nonlocal lease
            now = (await engine.queries.task("a")).lease_until
            assert now is not None
            assert now > engine.clock.now(), "it never lapses"
            lease = now
            return (lease - begun).total_seconds() > 2

        await until(renewed, "the lease moves on")
    assert project.kinds("a").count("TASK_CLAIMED") == 1


# Hosts: names, files, idleness.


async def test_two_live_workers_cannot_have_one_name(project: Project) -> None:
    async with project.engine() as engine, project.engine() as other:
        await engine.start_worker("codex", "w")
        with pytest.raises(LeaseConflict):
            await other.start_worker("codex", "w")
        for bad in ("", "..", "a/b"):
            with pytest.raises(ValidationError):
                await engine.start_worker("codex", bad)
        assert await other.start_worker("codex") == "codex-1"
        assert await engine.start_worker("codex") == "codex-2"


async def test_a_heartbeat_file_says_what_a_worker_does(project: Project, stage: Stage) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a"))))
        await engine.start_worker("codex")
        file = project.layout.heartbeat_file("codex-1")

        def told() -> dict[str, Any]:
            value: dict[str, Any] = json.loads(file.read_text())
            return value

        await until(lambda: told()["currentTaskId"] == "a", "the file names the task")
        assert told().keys() == {
            "ts", "agent", "workerId", "currentTaskId", "leaseUntil", "note"
        }  # fmt: skip
        assert (told()["agent"], told()["workerId"]) == ("codex", "codex-1")
        assert told()["leaseUntil"].endswith("Z")
        assert json.loads(project.layout.heartbeat_file("codex").read_text()) == told()
        assert stage.begun == ["a"]
    assert (told()["currentTaskId"], told()["note"]) == (None, "stopping")


async def test_until_idle_waits_for_what_may_still_come_and_ends_then(project: Project) -> None:
    tasks = (
        a_task("slow", agent="claude", payload={"kind": "noop", "seconds": 0.3}),
        a_task("next", "slow"),
        a_task("never", agent="gemini"),
    )
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(*tasks)))
        await engine.start_worker("codex", until_idle=True)
        await engine.start_worker("claude")
        await until(lambda: "codex-1" not in engine._host.workers, "the idle one ends")
    assert (project.state("next"), project.state("never")) == ("DONE", "READY")


async def test_settled_means_that_nothing_more_can_run(project: Project) -> None:
    async with project.engine() as engine:
        failing = a_task("a", payload={"kind": "noop", "seconds": 0, "fail_attempts": 1})
        await engine.execute(Seed(project.dag(failing, a_task("b", "a"), a_task("c"))))
        await engine.start_workers(2)
        await run_all(engine)
        assert len(engine._host.workers) == 2
        assert engine.active_runs() == 0
    assert project.states() == Counter({"FAILED": 1, "BLOCKED": 1, "DONE": 1})
    project.check()


async def test_a_worker_is_not_lost_when_the_store_refuses_a_claim_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "POLLS", (0.02,))
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a"))))
        claim, calls = engine._store.claim, 0

        async def refuses(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls < 4:
                raise StorageError("database is locked")
            return await claim(*args)

        monkeypatch.setattr(engine._store, "claim", refuses)
        await engine.start_worker("codex")
        await run_all(engine)
    assert calls >= 4


# The reaper.


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
            queries=Queries(self._reader, clock, seems_alive),
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
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    silent = subprocess.Popen(["sleep", "300"])
    try:
        host = identify(silent.pid)
        assert host is not None
        async with opened(tmp_path, lease=10) as it, Reader(it.layout.database) as reader:
            await it.store.seed(a_dag(a_task("a")))
            yield Watch(it, reader, host)
            check_store(it.layout)
    finally:
        silent.kill()
        silent.wait()


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
    files = [
        path
        for name in ("codex-1", "codex-2")
        for path in (layout.pid_file("codex", name), layout.stop_file("codex", name))
    ]
    for file in files:
        file.touch()
    await watch.after(0)
    assert [file.exists() for file in files] == [False, False, True, True]
    rows = select(layout, "SELECT id, status FROM workers ORDER BY id")
    assert [row["status"] for row in rows] == ["lost", "live"]
    lost = events_of(layout)[-1]
    assert (lost.type, lost.worker_id) == ("WORKER_LOST", "codex-1")
    told = len(events_of(layout))
    await watch.after(1)
    assert len(events_of(layout)) == told, "it is buried once"
