"""Promises that need several processes: each task once, no locks in the way, nobody left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter

import pytest
from support.engines import ENVIRONMENT, QUICK, SOURCE, Project, ended, suspend, until
from support.stores import a_task, select

from engine.commands import Seed
from engine.model import ProcessId
from engine.processes.signalling import identify, is_alive

# The first attempt hangs until it is ended; the next one is through at once.
ONCE_HANGING = ["sh", "-c", "test -e marker || { touch marker; sleep 300 & wait; }"]


def leader_of(project: Project, task_id: str) -> ProcessId | None:
    rows = select(project.layout, "SELECT * FROM runs WHERE task_id = ? ORDER BY n", task_id)
    if not rows or rows[-1]["pid"] is None:
        return None
    return ProcessId(rows[-1]["pid"], rows[-1]["pid_started"])


def children_of(pid: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    )
    pairs = (map(int, line.split()) for line in listed.stdout.splitlines())
    return [child for child, parent in pairs if parent == pid]


@pytest.mark.parametrize("count", [2, 4])
async def test_processes_that_race_for_the_same_tasks_run_each_exactly_once(
    project: Project, count: int
) -> None:
    # All wait for one task of another agent, so that nobody starts before all are there.
    gate = a_task("gate", agent="claude")
    tasks = [
        a_task(f"t{n}", "gate", *([f"t{n - 20}"] if n % 3 == 0 and n >= 20 else []))
        for n in range(200)
    ]
    names = [f"codex-{n}" for n in range(count)]
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(gate, *tasks)))
        workers = [project.work(name, "--until-idle") for name in names]
        await until(lambda: project.kinds().count("WORKER_STARTED") == count, "all have started")
        await engine.start_worker("claude")
        codes = [await ended(worker) for worker in workers]
    said = [project.said(name) for name in names]
    assert codes == [0] * count, said
    assert not any("locked" in text or "Traceback" in text for text in said), said
    assert project.states() == {"DONE": 201}
    runs = select(project.layout, "SELECT * FROM runs WHERE agent = 'codex'")
    assert Counter(run["task_id"] for run in runs) == {f"t{n}": 1 for n in range(200)}
    assert {(run["outcome"], run["attempt"]) for run in runs} == {("done", 1)}
    assert {run["worker_id"] for run in runs} == set(names), "all had their share"
    kinds = Counter(project.kinds())
    for kind in ("TASK_CLAIMED", "TASK_STARTED", "TASK_COMPLETED"):
        assert kinds[kind] == 201
    project.check()


async def test_a_task_of_a_killed_worker_is_finished_by_another_exactly_once(
    project: Project,
) -> None:
    project.settings(QUICK + "shell: {allow: [sh]}\n")
    shell = {"kind": "shell", "argv": ONCE_HANGING}
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a", payload=shell), a_task("b", "a"))))
        first = project.work("codex-1")
        await until((project.folder / "marker").exists, "the first attempt is at it")
        await until(lambda: leader_of(project, "a"), "its leader is known")
        leader = leader_of(project, "a")
        assert leader is not None
        await until(lambda: children_of(leader.pid), "it has a child")
        sleeper = identify(children_of(leader.pid)[0])
        assert sleeper is not None
        first.send_signal(signal.SIGKILL)
        await ended(first)
        second = project.work("codex-2", "--until-idle")
        assert await ended(second) == 0, project.said("codex-2")
        assert not is_alive(leader)
        assert not is_alive(sleeper)
        workers = {worker.id: worker.status for worker in await engine.queries.workers()}
        run_ids = [run.outcome for run in await engine.queries.runs("a")]
    assert project.states() == {"DONE": 2}
    assert project.kinds("a").count("TASK_COMPLETED") == 1
    assert project.kinds("a").count("LEASE_EXPIRED") == 1
    assert run_ids == ["done", "expired"]
    assert workers == {"codex-1": "lost", "codex-2": "stopped"}
    assert not project.layout.pid_file("codex", "codex-1").exists()
    project.check()


async def test_a_stopped_worker_past_its_lease_cannot_finish_what_another_holds(
    project: Project,
) -> None:
    project.settings(QUICK + "shell: {allow: [sh]}\n")
    # It succeeds while its host is stopped, so that the host learns of both at once.
    until_told = "echo > marker; while [ ! -e go ]; do sleep 0.05; done"
    shell = {"kind": "shell", "argv": ["sh", "-c", until_told]}
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a", payload=shell))))
        first = project.work("codex-1")
        await until((project.folder / "marker").exists, "the first one runs it")
        await until(lambda: leader_of(project, "a"), "its leader is known")
        await suspend(first, project.layout)
        (project.folder / "go").touch()
        await engine.start_worker("codex", "codex-2")
        await until(lambda: project.kinds("a").count("TASK_CLAIMED") == 2, "the second one has it")
        first.send_signal(signal.SIGCONT)
        await until(lambda: "LATE_RESULT" in project.kinds("a"), "the first one comes too late")
        await until(lambda: project.state("a") == "DONE", "the second one finishes it")
        first.send_signal(signal.SIGTERM)
        assert await ended(first) == 0, project.said("codex-1")
    late = next(event for event in project.events("a") if event.type == "LATE_RESULT")
    assert late.worker_id == "codex-1"
    done = [event for event in project.events("a") if event.type == "TASK_COMPLETED"]
    assert [event.worker_id for event in done] == ["codex-2"]
    assert project.kinds("a").count("LEASE_EXPIRED") == 1
    project.check()


async def test_a_stopped_workers_tree_is_gone_before_its_task_is_claimed_again(
    project: Project,
) -> None:
    project.settings(QUICK + "shell: {allow: [sh]}\n")
    shell = {"kind": "shell", "argv": ONCE_HANGING}
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a", payload=shell))))
        first = project.work("codex-1")
        await until(lambda: leader_of(project, "a"), "its leader is known")
        leader = leader_of(project, "a")
        assert leader is not None
        await until((project.folder / "marker").exists, "the first attempt is at it")
        await suspend(first, project.layout)
        await engine.start_worker("codex", "codex-2")
        await until(lambda: "LEASE_EXPIRED" in project.kinds("a"), "its lease is over")
        # A zombie of the stopped worker is nobody: it only waits to be reaped.
        assert not is_alive(leader)
        await until(lambda: project.state("a") == "DONE", "the second one does it")
        first.send_signal(signal.SIGCONT)
        first.send_signal(signal.SIGTERM)
        assert await ended(first) == 0, project.said("codex-1")
    assert project.kinds("a").count("TASK_COMPLETED") == 1
    project.check()


async def test_hot_writers_in_several_processes_never_see_a_locked_database(
    project: Project,
) -> None:
    """Claims and ends as fast as they come, with a reader and a log in each process."""
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from engine.core import Engine\n"
        "async def main():\n"
        "    async with Engine(Path('state')) as engine:\n"
        "        await engine.start_workers(4)\n"
        "        await engine.settled()\n"
        "asyncio.run(main())\n"
    )
    tasks = (a_task(f"t{n}", agent=("codex", "claude")[n % 2]) for n in range(600))
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(*tasks)))
        hosts = [
            subprocess.Popen(  # noqa: ASYNC220 - it returns at once
                [sys.executable, "-c", code],
                cwd=project.folder,
                env=ENVIRONMENT | {"PYTHONPATH": SOURCE},
                stderr=subprocess.PIPE,
            )
            for _ in range(3)
        ]
        project.processes.extend(hosts)
        codes = [await ended(host) for host in hosts]
        said = [host.stderr.read() if host.stderr else b"" for host in hosts]
        for host in hosts:
            assert host.stderr is not None
            host.stderr.close()
    assert (codes, said) == ([0] * 3, [b""] * 3)
    assert project.states() == {"DONE": 600}
    assert Counter(project.kinds())["TASK_CLAIMED"] == 600
    project.check()
