"""Promises of `mcp-call` in whole worker processes: how tasks end, and that no server is left."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from support.engines import Project, a_project, ended, until
from support.mcp_server import command
from support.stores import a_task

from engine.care.inspection import inspect
from engine.commands import Seed
from engine.model import TaskDef
from engine.processes.census import tagged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WITHIN = 5.0
"""Seconds after the death of a host within which its runs are gone (DESIGN §4 rule 5)."""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with a_project(tmp_path) as made:
        settle(made)
        yield made


def settle(project: Project, later: str = "plain") -> None:
    """Write the settings; of the server `later` they say another thing from time to time."""
    modes = {"plain": "plain", "stubborn": "stubborn", "later": later}
    servers = {name: {"command": list(command(mode))} for name, mode in modes.items()}
    project.settings(json.dumps({"grace": 0.5, "mcp": servers}))


def call(server: str, timeout: float = 3600, tool: str = "do") -> TaskDef:
    payload = {"kind": "mcp-call", "server": server, "tool": tool, "arguments": {}}
    return TaskDef("call", "call", "codex", timeout=timeout, payload=payload)


def servers_of(project: Project) -> list[int]:
    """Return the pids of all processes of runs of this project."""
    return [process.pid for process in tagged(project.layout.state)]


async def seeded(project: Project, *tasks: TaskDef) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(*tasks)))


async def test_a_call_is_done_by_a_worker(project: Project) -> None:
    await seeded(project, call("plain"))
    worker = project.work("codex-1", "--until-idle")
    assert await ended(worker) == 0, project.said("codex-1")
    assert project.state("call") == "DONE"
    assert servers_of(project) == []


async def test_sigkill_of_the_host_leaves_no_server_alive(project: Project) -> None:
    await seeded(project, call("stubborn"))
    worker = project.work("codex-1")
    await until(project.layout.database.exists, "there is a store")

    def called() -> bool:
        logs = project.folder.glob("artifacts/call/*/stderr.log")
        return any("got tools/call" in log.read_text() for log in logs)

    await until(called, "the tool is called")
    assert len(servers_of(project)) == 1

    worker.kill()
    died = time.monotonic()

    await until(lambda: servers_of(project) == [], "the server is gone")
    assert time.monotonic() - died <= WITHIN


async def test_a_call_whose_time_is_over_fails_and_its_server_is_ended(project: Project) -> None:
    await seeded(project, call("stubborn", timeout=1.5))
    worker = project.work("codex-1", "--until-idle")
    assert await ended(worker) == 0, project.said("codex-1")
    assert project.state("call") == "FAILED"
    assert servers_of(project) == []


async def test_a_call_that_cannot_succeed_needs_somebody_once_it_is_seeded(
    project: Project,
) -> None:
    await seeded(project, call("plain", tool="nothing"))
    assert project.state("call") == "BLOCKED"
    assert "has no tool 'nothing' (there is do, respond)" in str(project.events("call")[-1].data)
    assert servers_of(project) == []


async def test_sigkill_while_a_worker_looks_ahead_leaves_no_server_alive(project: Project) -> None:
    await seeded(project, call("later"))
    settle(project, "stubborn-mute")
    worker = project.work("codex-1")
    await until(lambda: servers_of(project), "the server is asked for its tools")
    worker.kill()
    died = time.monotonic()
    await until(lambda: servers_of(project) == [], "the server is gone")
    assert time.monotonic() - died <= WITHIN


async def test_a_server_that_hangs_holds_up_no_worker(project: Project) -> None:
    await seeded(project, call("later", timeout=0.5), a_task("other", agent="codex"))
    settle(project, "stubborn-mute")
    worker = project.work("codex-1", "--until-idle")
    assert await ended(worker) == 0, project.said("codex-1")
    assert project.state("call") == "FAILED"
    assert project.state("other") == "DONE"
    assert servers_of(project) == []


async def test_a_server_that_is_looked_at_is_no_orphan(project: Project) -> None:
    await seeded(project, call("later"))
    settle(project, "stubborn-mute")
    project.work("codex-1")
    await until(lambda: servers_of(project), "the server is asked for its tools")
    assert not [one for one in await inspect(project.layout) if one.check == "orphans"]
