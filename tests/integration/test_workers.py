"""Promises of workers: who runs what, when and how often, and how runs end."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from support.engines import Project, ended, most_at_once, until
from support.stage import Stage, run_all, staged
from support.stores import (
    a_task,
    select,
    tasks_of,
)

from engine import worker as worker_module
from engine.commands import Hold, Resume, Seed
from engine.errors import StorageError
from engine.model import Outcome, ProcessId, RunOutcome
from engine.store import orders

if TYPE_CHECKING:
    from engine.executors.base import RunContext

DONE = Outcome(RunOutcome.DONE)


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
    short = {"kind": "noop", "seconds": 0.02}
    tasks = (a_task(f"t{n}", "gate", payload=short) for n in range(16))
    gate = a_task("gate", agent="claude")
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(gate, *tasks, agents="{codex: {limit: 2}}")))
        workers = [project.work(f"out-{n}", "--until-idle") for n in range(2)]
        await engine.start_worker("codex")
        await until(lambda: project.kinds().count("WORKER_STARTED") == 3, "all are there")
        await engine.start_worker("claude")
        await run_all(engine)
        for worker in workers:
            await ended(worker)
    codex = [event for event in project.events() if event.agent == "codex"]
    assert most_at_once(codex) == 2, "two processes of three at once: each has one worker"
    assert project.states() == {"DONE": 17}
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


@pytest.mark.usefixtures("no_polling")
async def test_a_new_ready_task_wakes_an_idle_worker_at_once(project: Project) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag()))
        await engine.start_worker("codex")
        await until(lambda: all(w.idle for w in engine._host.workers.values()), "it is idle")
        await engine.execute(Seed(project.dag(a_task("a"))))
        await until(lambda: project.state("a") == "DONE", "a is done")


@pytest.mark.usefixtures("no_polling")
async def test_a_new_ready_task_wakes_an_idle_worker_of_another_process(project: Project) -> None:
    async with project.engine() as here, project.engine() as there:
        await there.start_worker("codex")
        await until(lambda: all(w.idle for w in there._host.workers.values()), "it is idle")
        await here.execute(Seed(project.dag(a_task("a"), a_task("b", "a"))))
        await until(lambda: project.state("b") == "DONE", "b is done")
    project.check()


@pytest.mark.usefixtures("no_polling")
async def test_a_bug_in_one_look_for_work_does_not_leave_workers_asleep(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with project.engine() as here, project.engine() as there:
        await there.start_worker("codex")
        await until(lambda: all(w.idle for w in there._host.workers.values()), "it is idle")
        with monkeypatch.context() as patch:
            patch.setattr(there._lookout, "next_due", lambda: 1 / 0)
            await here.execute(Hold("gemini"))
            await until(lambda: "ZeroDivisionError" in caplog.text, "it is told")
        await here.execute(Seed(project.dag(a_task("a"))))
        await until(lambda: project.state("a") == "DONE", "a is done")
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
        await engine.execute(Resume())
        await run_all(engine)
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


@pytest.mark.usefixtures("fast_retries")
async def test_a_timeout_takes_the_claim_at_once_and_the_tree_must_be_gone_before_the_next_run(
    project: Project, stage: Stage
) -> None:
    is_gone = asyncio.Event()

    async def play(_context: RunContext) -> Outcome:
        if len(stage.begun) > 1:
            return DONE
        try:
            await asyncio.Event().wait()
        finally:
            await is_gone.wait()
        raise AssertionError

    def row() -> dict[str, Any]:
        return tasks_of(project.layout)["a"]

    stage.play = play
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a", timeout=0.05, retries=1))))
        await engine.start_worker("codex")
        await until(lambda: row()["ending"], "its claim is taken")
        (run,) = await engine.queries.runs("a")
        assert (run.outcome, row()["ending"], row()["run_id"]) == ("timed out", run.id, None)
        await until(lambda: row()["not_before"] is None, "its backoff is over")
        assert row()["state"] == "READY"
        other = await engine._store.claim("codex", "codex-2", engine._host.identity)
        assert other is None, "the tree of the first run may still live"
        assert stage.begun == ["a"]
        is_gone.set()
        await run_all(engine)
    assert (project.state("a"), stage.begun) == ("DONE", ["a", "a"])
    assert select(project.layout, "SELECT * FROM endings") == []
    project.check()


@pytest.mark.parametrize("order", ["cancel", "kill", "purge", "kill worker", "time out"])
async def test_a_run_that_loses_its_task_in_this_process_is_ended_by_that_very_commit(
    project: Project, stage: Stage, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    async def nobody_looks() -> None:
        pass

    async with project.engine() as engine:
        monkeypatch.setattr(engine._host, "_check_claims", nobody_looks)
        await engine.execute(Seed(project.dag(staged("a"), staged("b"))))
        name = await engine.start_worker("codex")
        await until(lambda: stage.begun == ["a"], "a runs")
        (claim,) = (context.claim for context in stage.contexts)
        host = engine._host.identity
        match order:
            case "time out":
                assert await engine._store.time_out("a", claim.run_id)
            case "kill worker":
                kill = partial(orders.kill_held, worker_id=name, host=host)
                assert list((await engine._store.order(kill)).done) == ["a"]
            case _:
                what = {"cancel": orders.cancel, "kill": orders.kill, "purge": orders.purge}[order]
                answers = await engine._store.order(partial(what, task_ids=("a",)))
                assert answers.done["a"].run_id == claim.run_id
        await until(lambda: stage.cancelled == ["a"], "its work is cancelled")
        await until(lambda: not select(project.layout, "SELECT * FROM endings"), "it is gone")
        if order == "kill worker":
            assert await engine._store.claim("codex", name, host) is None
        else:
            await until(lambda: stage.begun == ["a", "b"], "the worker goes on")
    project.check()


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
            case "raises what ends coroutines":
                raise GeneratorExit
            case "no json":
                return Outcome(RunOutcome.DONE, result={"n": float("nan")})
            case "no text":
                return Outcome(RunOutcome.FAILED, error="half \ud800 a pair")
            case "no storage":
                raise StorageError("its files cannot be written")
        return DONE

    stage.play = play
    odd = "raises what ends coroutines"
    names = ("raises", odd, "no json", "no text", "no storage", "good")
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(*map(staged, names))))
        await engine.start_worker("codex")
        await run_all(engine)
        tasks = {task.id: task for task in await engine.queries.tasks()}
        assert len(engine._host.workers) == 1, "the worker lives"
    assert [tasks[name].state for name in names] == [
        "FAILED", "FAILED", "FAILED", "FAILED", "BLOCKED", "DONE"
    ]  # fmt: skip
    assert tasks[odd].error == "internal error: GeneratorExit"
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

    states: list[str] = []

    async def play(context: RunContext) -> Outcome:
        states.append(project.state("a"))
        await context.begin()
        states.append(project.state("a"))
        return DONE

    stage.play = play
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a"))))
        await engine.start_worker("codex")
        await run_all(engine)
    assert states == ["CLAIMED", "RUNNING"]
    assert project.kinds("a") == [
        "TASK_CREATED", "TASK_CLAIMED", "TASK_STARTED", "TASK_COMPLETED"
    ]  # fmt: skip
    project.check()


async def test_the_time_of_a_run_begins_once_it_is_prepared(project: Project, stage: Stage) -> None:
    stage.prepares = True

    async def play(context: RunContext) -> Outcome:
        await asyncio.sleep(0.6)
        await context.begin()
        await asyncio.sleep(0.6)
        return DONE

    stage.play = play
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a", timeout=1.0))))
        await engine.start_worker("codex")
        await run_all(engine)
    assert project.state("a") == "DONE"


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

        async def full(*args: Any, **named: Any) -> Any:
            nonlocal refused
            refused += 1
            if refused < 5:
                raise StorageError("database or disk is full")
            return await finish(*args, **named)

        monkeypatch.setattr(engine._store, "finish_and_claim", full)
        await engine.start_worker("codex")
        await run_all(engine)
    assert (refused, project.state("a")) == (5, "DONE")
    assert stage.begun == ["a"], "its work was not done twice"


async def test_a_store_that_refuses_for_a_moment_blocks_no_run(
    project: Project, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_RETRIES", (0.01,))
    stage.prepares = True
    me = ProcessId(os.getpid(), "1")

    async def play(context: RunContext) -> Outcome:
        await context.started(me)
        await context.progress("half way")
        return DONE

    stage.play = play
    refused: Counter[str] = Counter()
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a"))))
        for name in ("start", "lead", "progress"):
            real = getattr(engine._store, name)

            async def full(*args: Any, name: str = name, real: Any = real) -> None:
                refused[name] += 1
                if refused[name] < 3:
                    raise StorageError("database or disk is full")
                await real(*args)

            monkeypatch.setattr(engine._store, name, full)
        await engine.start_worker("codex")
        await run_all(engine)
    assert project.state("a") == "DONE"
    assert refused == {"start": 3, "lead": 3, "progress": 1}, "a note is not worth waiting for"
    assert select(project.layout, "SELECT pid FROM runs") == [{"pid": os.getpid()}]
    assert stage.begun == ["a"]
