"""What `doctor --repair` ends and gives back: dead workers, lost runs, trees; never what lives."""

from __future__ import annotations

import asyncio
import os
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from support.checkup import errors, mends, repair
from support.damage import by_hand
from support.engines import Project, look_while_busy, until
from support.finished import copied
from support.patience import PATIENCE
from support.stores import a_task, tuples
from support.strays import a_tree

from engine.clock import to_iso
from engine.commands import Seed
from engine.model import Outcome, ProcessId, RunOutcome
from engine.processes.signalling import identify

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from support.stage import Stage

    from engine.core import Engine
    from engine.files import Layout


@pytest.fixture
def layout(finished_with_purges: Path, tmp_path: Path) -> Layout:
    """A copy of its state, for one test to damage."""
    return copied(finished_with_purges, tmp_path)


async def test_orphans_are_ended_and_nobody_else(layout: Layout, tmp_path: Path) -> None:
    orphan, stranger = uuid.uuid4().hex, uuid.uuid4().hex
    other = tmp_path / "other" / "state"
    async with a_tree(layout, orphan) as one, a_tree(layout, stranger, state=other) as two:
        await mends(layout, "orphans", f"run {orphan}, which holds no task, was ended: {one.pid}")
        assert identify(one.pid) is None
        assert identify(two.pid) == two


def ends(layout: Layout, process: ProcessId, since: datetime) -> None:
    """Let run r, which is this process, have lost the task `next`, and us be its host."""
    me = identify(os.getpid())
    assert me is not None
    by_hand(
        layout,
        f"INSERT INTO endings VALUES ('r', 'next', 'nobody', 'c-1', '{to_iso(since)}',"
        f" {me.pid}, '{me.started}', {process.pid}, '{process.started}')",
        "UPDATE tasks SET ending = 'r' WHERE id = 'next'",
    )


async def test_a_tree_that_nobody_ends_is_ended(layout: Layout) -> None:
    async with a_tree(layout, "r") as process:
        ends(layout, process, datetime(2026, 1, 1, tzinfo=UTC))
        (found,) = await errors(layout)
        assert found.message == (
            "run r lost task 'next' at 2026-01-01T00:00:00.000Z, and its processes are still not "
            "known gone"
        )
        await mends(layout, "endings", "the processes of run r, which had lost task 'next', are")
        assert identify(process.pid) is None
    assert tuples(layout, "SELECT ending FROM tasks WHERE id = 'next'") == [(None,)]


async def test_a_tree_that_is_just_being_ended_is_left_to_its_host(layout: Layout) -> None:
    async with a_tree(layout, "r") as process:
        ends(layout, process, datetime.now(UTC))
        assert await errors(layout) == []
        assert await repair(layout) == []
        assert identify(process.pid) == process


async def at_work(project: Project, payload: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start a worker process, c-1, and wait until it holds the task `long`."""
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("long", payload=payload))))
    worker = project.work("c-1")
    await until(lambda: tuples(project.layout, "SELECT 1 FROM runs"), "it runs")
    return worker


def kill(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    worker.wait(PATIENCE)


async def lose_a_run_with_its_worker(project: Project) -> None:
    kill(await at_work(project, {"kind": "noop", "seconds": 300}))
    by_hand(project.layout, "DELETE FROM runs")


async def test_a_dead_worker_its_claim_and_its_files_are_cleaned_up(project: Project) -> None:
    project.settings("shell: {allow: [sleep]}\n")
    layout = project.layout
    worker = await at_work(project, {"kind": "shell", "cmd": "sleep 300"})
    await until(lambda: tuples(layout, "SELECT 1 FROM runs WHERE pid IS NOT NULL"), "it runs")
    (run_id, pid, started) = tuples(layout, "SELECT id, pid, pid_started FROM runs")[0]
    kill(worker)
    # A pid file of the same name that came back: the reaper takes the worker's own with it.
    layout.pid_file("codex", "c-2").write_text(str(worker.pid))
    checks = {one.check for one in await errors(layout)}
    assert {"workers", "runs", "pid files"} <= checks
    await mends(
        layout,
        "runs",
        f"run {run_id} lost task 'long', for its worker 'c-1' was gone",
        f"worker 'c-1' counts as lost, for its process {worker.pid} was gone",
        "codex-c-2.pid is stale",
    )
    assert identify(pid) != ProcessId(pid, started)
    assert project.state("long") == "READY"
    assert project.kinds()[-2:] == ["LEASE_EXPIRED", "WORKER_LOST"]
    assert list(layout.pids.iterdir()) == []


async def test_a_lost_run_reference_is_put_back_and_the_run_goes_on(
    project: Project, stage: Stage
) -> None:
    layout = project.layout
    go_on = asyncio.Event()

    async def wait(_context: Any) -> Outcome:
        await go_on.wait()
        return Outcome(RunOutcome.DONE)

    stage.play = wait
    async with project.engine() as engine:
        task = a_task("t", payload={"kind": "stage"})
        await engine.execute(Seed(project.dag(task)))
        await engine.start_worker("codex")
        await until(lambda: stage.begun, "the run begins")
        before = tuples(layout, "SELECT * FROM runs")
        by_hand(layout, "DELETE FROM runs")
        assert {"claims", "fold"} == {one.check for one in await errors(layout)}
        (sentence,) = await engine.repair()
        assert "of task 't' was put back into the runs table" in sentence
        assert await errors(layout) == []
        assert tuples(layout, "SELECT * FROM runs") == before
        go_on.set()
        await until(lambda: project.state("t") == "DONE", "the run is finished")
    assert await errors(layout) == []


async def test_a_lost_run_reference_of_a_dead_worker_is_cleaned_up(project: Project) -> None:
    await lose_a_run_with_its_worker(project)
    await mends(project.layout, "claims", "was put back into the runs table", "lost task 'long'")
    assert project.state("long") == "READY"


async def test_a_start_cleans_up_a_lost_run_reference(project: Project) -> None:
    await lose_a_run_with_its_worker(project)
    async with project.engine() as engine:
        await engine.start_worker("gemini")
        await until(lambda: project.state("long") == "READY", "its run is expired")
    assert await errors(project.layout) == []


async def test_a_busy_fleet_is_not_touched(project: Project) -> None:
    async def look(engine: Engine) -> None:
        assert await engine.repair() == []

    chains = [a_task(f"t{n}", *([f"t{n - 1}"] if n % 7 else [])) for n in range(300)]
    await look_while_busy(project, look, *chains)
    assert not set(project.kinds()) & {"TASK_BLOCKED", "LEASE_EXPIRED", "LATE_RESULT"}
