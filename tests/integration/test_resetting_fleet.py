"""Promises of a reset about workers: all are asked, ours come back, nothing old is left held."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from support.doomed import dies
from support.engines import ended, let_start, suspend, until
from support.stage import staged
from support.stores import a_task

from engine.commands import GIVEN_UP, Reset, Seed, Step, Stop
from engine.errors import LeaseConflict
from engine.model import ProcessId
from engine.orders.on_workers import WorkerOrders
from engine.store.rows import LiveWorker

if TYPE_CHECKING:
    from support.engines import Project


async def test_a_reset_is_told_whole_though_a_worker_cannot_be_started_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(staged("a", agent="gemini"))))
        await engine.start_worker("codex")
        await engine.start_worker("codex")
        let_start(engine._host, monkeypatch, 1)
        receipt = await engine.execute(Reset())
        assert receipt.done["codex-1"] == "stopped"
        assert receipt.done["codex-2"] == "stopped, and not started again: no more"
        assert receipt.counts["workers stopped"] == 2
        # The store knows it a moment before the host does.
        await until(lambda: list(engine._host.workers) == ["codex-1"], "the other has left")
    assert project.kinds().count("RESET") == 1


async def test_a_reset_that_is_given_up_takes_back_what_it_asked_and_says_who_has_obeyed(
    project: Project,
) -> None:
    steps: list[Step] = []
    waits = asyncio.Event()

    def on_step(step: Step) -> None:
        steps.append(step)
        if [name.split()[0] for name in step.waiting_for] == ["hangs"]:
            waits.set()

    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a", agent="gemini"))))
        await engine.start_worker("codex", "ours")
        obeys, hangs = project.work("obeys", agent="claude"), project.work("hangs", agent="claude")
        await until(lambda: _live(project) == 3, "all live")
        await suspend(hangs, project.layout)
        going = asyncio.create_task(engine.execute(Reset(timeout=300), on_step=on_step))
        await asyncio.wait_for(waits.wait(), 30)
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        assert steps[-1] == Step(GIVEN_UP, next="claims go on, but obeys stopped: start it again")
        assert await ended(obeys) == 0
        assert list(project.layout.control.iterdir()) == [], "nobody is asked any longer"
        assert list(engine._host.workers) == ["ours"]
        hangs.send_signal(signal.SIGCONT)
        job = a_task("b", agent="claude", payload={"seconds": 300})
        await engine.execute(Seed(project.dag(job)))
        await until(lambda: project.state("b") == "RUNNING", "it works on")
        await engine.execute(Stop(("hangs",)))
        assert await ended(hangs) == 0
    assert "RESET" not in project.kinds()


async def test_a_stop_that_somebody_else_asked_for_outlives_a_reset_that_was_given_up(
    project: Project,
) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a", agent="gemini"))))
        theirs = project.work("theirs", agent="claude")
        await until(lambda: _live(project) == 1, "it lives")
        await suspend(theirs, project.layout)
        stop_file = project.layout.stop_file("claude", "theirs")
        stop_file.write_text("drain")
        with pytest.raises(LeaseConflict, match="nothing was reset: claims go on; wait"):
            await engine.execute(Reset(timeout=0.5))
        assert stop_file.read_text() == "drain"
        theirs.send_signal(signal.SIGCONT)
        assert await ended(theirs) == 0, "it was asked before, and obeys"


async def test_a_worker_of_ours_works_on_after_a_reset_that_was_given_up(project: Project) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a", agent="gemini"))))
        await engine.start_worker("codex", "ours")
        theirs = project.work("theirs", agent="claude")
        await until(lambda: _live(project) == 2, "both live")
        await suspend(theirs, project.layout)
        with pytest.raises(LeaseConflict, match="theirs"):
            await engine.execute(Reset(timeout=0.5))
        assert list(engine._host.workers) == ["ours"]
        assert not (await engine.queries.progress()).held
        theirs.send_signal(signal.SIGCONT)
        theirs.send_signal(signal.SIGTERM)
        await ended(theirs)
    assert "RESET" not in project.kinds()


def _live(project: Project) -> int:
    return len(list(project.layout.pids.glob("*.pid")))


async def test_what_a_dead_host_still_held_is_free_after_a_reset(project: Project) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a", payload={"seconds": 300}))))
    claimed = "while not (await engine.queries.task('a')).run_id:\n    await asyncio.sleep(0.01)\n"
    await dies(project, "", f"await engine.start_worker('codex', 'doomed')\n{claimed}die()")
    assert project.state("a") == "RUNNING"
    async with project.engine() as engine:
        await engine.execute(Reset())
        assert project.state("a") == "READY"


async def test_a_worker_that_came_again_under_its_id_is_asked_too(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = LiveWorker("w", "codex", ProcessId(1, "1"), True, None, None)
    looks = [[first], [first], [replace(first, host=ProcessId(1, "2"))]]
    asked = []

    async def alive(_: object) -> list[LiveWorker]:
        return looks.pop(0) if looks else []

    async def ask(_: object, worker: LiveWorker, _word: str = "") -> None:
        asked.append(worker.host.started)

    monkeypatch.setattr(WorkerOrders, "alive", alive)
    monkeypatch.setattr(WorkerOrders, "ask", ask)
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a"))))
        await engine.execute(Reset())
    assert asked == ["1", "2"]


async def test_a_hurried_reset_kills_whom_it_waits_for(project: Project) -> None:
    hurry, steps = asyncio.Event(), []

    def on_step(step: Step) -> None:
        steps.append(step)
        if step.waiting_for:
            hurry.set()

    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a", payload={"seconds": 300}))))
        process = project.work("w1")
        await until(lambda: project.state("a") == "RUNNING", "it works")
        await suspend(process, project.layout)
        receipt = await engine.execute(Reset(timeout=300), on_step=on_step, hurry=hurry)
        assert receipt.done["w1"] == "killed"
        assert any(step.what.startswith("killing w1") for step in steps)
        assert await asyncio.to_thread(process.wait, 30) == -signal.SIGKILL
        assert project.state("a") == "READY"
