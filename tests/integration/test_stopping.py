"""Promises of ends before the end: workers that stop, claims that are asked back or taken."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest
from support.engines import QUICK, Project, ended, until
from support.patience import PATIENCE
from support.stage import Stage, run_all, staged
from support.stores import (
    a_task,
    select,
)

from engine.commands import Hold, Release, Seed, Stop
from engine.errors import LeaseLost
from engine.model import Outcome, ProcessId, RunOutcome
from engine.processes.signalling import is_alive

if TYPE_CHECKING:
    from engine.executors.base import RunContext

DONE = Outcome(RunOutcome.DONE)


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
        async with asyncio.timeout(PATIENCE):
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
        enter = engine._host._presence.enter

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
        monkeypatch.setattr(engine._host._presence, "enter", touched_meanwhile)
        await engine.start_worker("codex", "w")
        async with asyncio.timeout(PATIENCE):
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


async def test_a_run_whose_claim_was_taken_ends_at_the_next_look(
    project: Project, stage: Stage
) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a", retries=1))))
        await engine.start_worker("codex")
        await until(lambda: stage.begun, "a runs")
        run_id = stage.contexts[0].claim.run_id
        await engine.execute(Hold())
        assert await engine._store.expire("a", run_id)
        await until(lambda: stage.cancelled, "its run was ended")
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
    project.settings(QUICK.replace("lease: 1.5", "lease: 8"))
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
