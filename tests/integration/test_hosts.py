"""Promises of hosts: names, files, idleness, and what counts as settled."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from support.engines import Project, until
from support.patience import PATIENCE
from support.stage import Stage, run_all, staged
from support.stores import a_task, select

from engine import worker as worker_module
from engine.commands import Hold, Resume, Seed
from engine.errors import LeaseConflict, StorageError, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.presence import Beat


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


async def test_a_worker_who_takes_the_name_of_one_that_is_just_leaving_keeps_all_of_its_own(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with project.engine() as engine:
        await engine.start_worker("codex", "w")
        gate, presence = threading.Event(), engine._host._presence
        tell = presence.tell

        def late(beats: Iterable[Beat]) -> None:
            gate.wait(PATIENCE)
            tell(beats)

        def status() -> str:
            (row,) = select(project.layout, "SELECT status FROM workers WHERE id = 'w'")
            return str(row["status"])

        monkeypatch.setattr(presence, "tell", late)
        former = engine._host.workers["w"]
        former.stop()
        await until(lambda: status() == "stopped", "the store has freed its name")
        monkeypatch.setattr(presence, "tell", tell)
        starting = asyncio.create_task(engine.start_worker("codex", "w"))
        await until(lambda: status() != "stopped", "the store has given it to another")
        # Time enough for one who does not wait to go wrong; who waits is still waiting then.
        await asyncio.wait({starting}, timeout=0.1)
        gate.set()
        await starting
        await until(lambda: engine._host.workers.get("w") is not former, "the former has left")
        assert project.layout.pid_file("codex", "w").read_text() == str(os.getpid())
        await engine.execute(Seed(project.dag(a_task("a"))))
        await until(lambda: project.state("a") == "DONE", "it works")
        assert list(engine._host.workers) == ["w"]
    assert not project.layout.pid_file("codex", "w").exists()


@pytest.mark.parametrize("store_refuses", [False, True])
async def test_a_worker_whose_start_is_cancelled_leaves_nothing_and_no_error_hides_that(
    project: Project, monkeypatch: pytest.MonkeyPatch, *, store_refuses: bool
) -> None:
    async with project.engine() as engine:
        gate, begun, presence = threading.Event(), threading.Event(), engine._host._presence
        enter = presence.enter

        def late(*args: Any) -> None:
            begun.set()
            gate.wait(PATIENCE)
            enter(*args)

        async def full(*_args: Any) -> None:
            raise StorageError("database or disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(presence, "enter", late)
            starting = asyncio.create_task(engine.start_worker("codex", "w"))
            await until(begun.is_set, "it enters")
            if store_refuses:
                patch.setattr(engine._store, "set_status", full)
            starting.cancel()
            gate.set()
            with pytest.raises(asyncio.CancelledError):
                await starting
        assert not engine._host.workers
        assert not project.layout.pid_file("codex", "w").exists()
        (row,) = select(project.layout, "SELECT status FROM workers WHERE id = 'w'")
        assert (row["status"] == "stopped") is not store_refuses
        if not store_refuses:
            assert await engine.start_worker("codex", "w") == "w"


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
        # Written one after the other, and again at the next beat.
        latest = project.layout.heartbeat_file("codex")
        await until(lambda: json.loads(latest.read_text()) == told(), "both files say the same")
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
        # The store knows it a moment before the worker does that has just reported.
        await until(lambda: engine.active_runs() == 0, "nothing runs")
    assert project.states() == Counter({"FAILED": 1, "BLOCKED": 1, "DONE": 1})
    project.check()


async def test_what_waits_for_a_held_task_keeps_nobody_waiting(project: Project) -> None:
    failing = {"kind": "noop", "seconds": 0, "fail_attempts": 1}
    tasks = (
        a_task("kept back"),
        a_task("waits", "kept back", agent="claude"),
        a_task("works", agent="claude", payload={"kind": "noop", "seconds": 0.1}),
        a_task("in backoff", agent="gemini", retries=1, payload=failing),
    )
    async with project.engine() as engine:
        await engine.execute(Hold("codex"))
        await engine.execute(Seed(project.dag(*tasks)))
        await engine.start_worker("claude", until_idle=True)
        await engine.start_worker("gemini", until_idle=True)
        await until(lambda: project.kinds("in backoff").count("TASK_FAILED") == 1, "it has failed")
        await until(lambda: project.state("works") == "DONE", "the rest is done")
        unfinished = engine._lookout.unfinished
        assert await unfinished() == 2, "the end of a backoff is worth waiting for"
        await engine.execute(Hold("gemini"))
        await run_all(engine)
        await until(lambda: not engine._host.workers, "nobody waits any more")
        await engine.execute(Resume())
        assert await unfinished() == 3


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
