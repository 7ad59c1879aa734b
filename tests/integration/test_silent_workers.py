"""Promises of orders about workers that do not answer, or at once: what is told was done."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from support.engines import QUICK, ended, suspend, until
from support.reckoning import leader_of
from support.stores import HOST, a_task

from engine.commands import Kill, Release, Seed
from engine.errors import LeaseLost
from engine.model import Outcome, ProcessId, RunOutcome
from engine.processes.signalling import is_alive
from engine.processes.trees import TreeSurvived
from engine.store.rows import LiveWorker

if TYPE_CHECKING:
    import pytest
    from support.engines import Project

    from engine.store.orders import Orders

SLEEPS = {"kind": "shell", "argv": ["sleep", "600"]}


async def test_an_order_whose_tree_survives_is_refused_and_says_so(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.orders.on_tasks.ANSWER", 0.5)
    project.settings(QUICK)
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a", payload=SLEEPS))))
        process = project.work("codex-1")
        await until(lambda: leader_of(project.layout, "a"), "its leader is known")
        await suspend(process, project.layout)

        async def survives(run_id: str, *_: object, **__: object) -> None:
            raise TreeSurvived(run_id, ())

        with monkeypatch.context() as patch:
            patch.setattr("engine.reaper.end_tree", survives)
            receipt = await engine.execute(Kill(("a",)))
        assert receipt.done == {}
        assert [(one.subject, one.code) for one in receipt.refused] == [("a", "LEASE_CONFLICT")]
        assert "still live" in receipt.refused[0].message
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        await ended(process)
    project.check()


async def test_a_worker_that_wakes_up_while_its_tree_is_ended_does_not_fail_the_task(
    project: Project, monkeypatch: pytest.MonkeyPatch, silent: ProcessId
) -> None:
    monkeypatch.setattr("engine.orders.on_tasks.ANSWER", 1.5)
    project.settings(QUICK)
    failed = Outcome(RunOutcome.FAILED, error="ended by SIGTERM")
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a"))))
        claim = await engine._store.claim("codex", "codex-1", silent)
        assert claim is not None

        async def end(*_: object, **__: object) -> None:
            with suppress(LeaseLost):
                await engine._store.finish(claim, failed, tree_gone=False)

        monkeypatch.setattr(engine._reaper, "end", end)
        receipt = await engine.execute(Release(("a",)))
    assert receipt.done == {"a": "released from codex-1, whose process does not answer"}
    assert project.state("a") == "READY"
    assert "TASK_FAILED" not in project.kinds("a")


async def test_what_a_newer_worker_of_the_same_id_holds_is_not_taken_back(project: Project) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a"))))
        assert await engine._store.claim("codex", "w", HOST) is not None
        tasks = engine._control._tasks
        older = LiveWorker("w", "codex", ProcessId(HOST.pid, "older"), False, None, None)
        await tasks.take_back(older, force=True)
        assert project.state("a") == "RUNNING"
        await tasks.take_back(LiveWorker("w", "codex", HOST, False, None, None), force=True)
        assert project.state("a") == "READY"


async def test_a_receipt_names_the_processes_that_were_ended_however_fast_their_host_was(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a", payload=SLEEPS))))
        await engine.start_worker("codex")
        await until(lambda: leader_of(project.layout, "a"), "its leader is known")
        leader = leader_of(project.layout, "a")
        assert leader is not None
        order = engine._store.order

        async def ended_at_once(*args: Any, **more: Any) -> Orders:
            answers = await order(*args, **more)
            await until(lambda: not is_alive(leader), "its host has ended it")
            return answers

        monkeypatch.setattr(engine._store, "order", ended_at_once)
        receipt = await engine.execute(Kill(("a",)))
    assert [end.pids for end in receipt.ends] == [(leader.pid,)]
