"""What runs take of the machine: real processes of real workers, of this process and of others."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest
from support.clock import ManualClock
from support.engines import Project, until
from support.patience import PATIENCE
from support.stores import a_task

from engine import meter as meter_module
from engine.commands import Seed
from engine.meter import _LONGEST, EVERY, Meter
from engine.processes.sampling import LONGEST_COMMAND, take_sample

if TYPE_CHECKING:
    from engine.core import Engine
    from engine.model import TaskDef
    from engine.views import Usage

SETTINGS = "shell: {allow: [sh, sleep, python3]}\n"
BUSY = "sh -c 'sleep 300 & while :; do :; done'"


def a_shell(task_id: str, command: str, *deps: str, **more: Any) -> TaskDef:
    return a_task(task_id, *deps, payload={"kind": "shell", "cmd": command}, **more)


async def seeded(engine: Engine, project: Project, *tasks: TaskDef) -> None:
    await engine.execute(Seed(project.dag(*tasks)))


async def run_of(engine: Engine, task_id: str) -> str:
    """Wait until a task runs; return its run."""
    await until(lambda: _run_of(engine, task_id), f"{task_id} runs")
    run_id = await _run_of(engine, task_id)
    assert run_id is not None
    return run_id


async def _run_of(engine: Engine, task_id: str) -> str | None:
    return (await engine.queries.task(task_id)).run_id


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_busy_run_shows_its_tree_its_memory_and_its_share(
    project: Project, monkeypatch: pytest.MonkeyPatch, *, elsewhere: bool
) -> None:
    monkeypatch.setattr(meter_module, "EVERY", 0.3)
    project.settings(SETTINGS)
    async with project.engine() as engine:
        await seeded(engine, project, a_shell("busy", BUSY), a_task("idle", agent="none"))
        if elsewhere:
            project.work("w1")
        else:
            await engine.start_worker("codex")
        run_id = await run_of(engine, "busy")

        async def has_a_share() -> bool:
            found: Usage | None = (await engine.usage()).get(run_id)
            return found is not None and found.processes == 2 and (found.cpu or 0) > 5

        await until(has_a_share, "it shows what it takes")
        found = (await engine.usage())[run_id]
        assert found.memory > 100_000
        assert set(await engine.usage()) == {run_id}
        first, second = await engine.processes_of(run_id)
        assert (first.depth, second.depth) == (0, 1)
        assert "sh -c sleep 300" in first.command
        assert second.command == "sleep 300"
        assert first.pid != second.pid != os.getpid()
        assert (engine.clock.now() - first.started_at).total_seconds() < PATIENCE
        assert first.started_at <= second.started_at
        if not elsewhere:
            await engine.stop_workers()
            await until(lambda: _is_quiet(engine), "nothing goes on")
            assert await engine.processes_of(run_id) == []


async def _is_quiet(engine: Engine) -> bool:
    return await engine.usage() == {}


async def test_without_runs_no_process_is_looked_at(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter_module, "take_sample", None)
    async with project.engine() as engine:
        await seeded(engine, project, a_task("t"))
        assert await engine.usage() == {}
        assert await engine.processes_of("no such run") == []


async def test_a_command_line_is_cut(project: Project) -> None:
    project.settings(SETTINGS)
    async with project.engine() as engine:
        await seeded(engine, project, a_shell("t", f"sh -c 'sleep 300; : {'x' * 999}'"))
        await engine.start_worker("codex")
        run_id = await run_of(engine, "t")
        await until(lambda: _has_processes(engine, run_id), "its processes are seen")
        first, *_ = await engine.processes_of(run_id)
        assert len(first.command) == LONGEST_COMMAND


async def _has_processes(engine: Engine, run_id: str) -> bool:
    return bool(await engine.processes_of(run_id))


async def test_however_many_ask_there_is_one_look_every_two_seconds(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def counted(*args: Any) -> Any:
        looks.append(args)
        return take_sample(*args)

    monkeypatch.setattr(meter_module, "take_sample", counted)
    project.settings(SETTINGS)
    async with project.engine() as engine:
        await seeded(engine, project, a_shell("t", "sleep 300"))
        await engine.start_worker("codex")
        run_id = await run_of(engine, "t")
        clock = ManualClock()
        meter = Meter(engine.layout, engine._lookout, clock)
        for _ in range(3):
            await asyncio.gather(meter.usage(), meter.processes_of(run_id), meter.usage())
        assert len(looks) == 1
        await clock.advance(EVERY)
        usage = (await meter.usage())[run_id]
        assert len(looks) == 2
        assert usage.cpu is not None


async def test_a_look_that_took_long_is_good_for_longer_but_not_for_ever(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    looks = []
    longs = [_LONGEST / 100, _LONGEST * 20]

    async def runs_after_a_while() -> dict[str, Any]:
        looks.append(clock.monotonic())
        await clock.advance(longs[len(looks) - 1] if len(looks) <= len(longs) else 0)
        return {}

    async with project.engine() as engine:
        meter = Meter(engine.layout, engine._lookout, clock)
        monkeypatch.setattr(meter, "_runs", runs_after_a_while)
        for _ in range(1000):
            await meter.usage()
            await clock.advance(1)
            if len(looks) == 3:
                break
    first, second, third = looks
    assert second - first == pytest.approx(_LONGEST / 2, abs=1.5)
    assert third - second == pytest.approx(_LONGEST * 21, abs=1.5)
