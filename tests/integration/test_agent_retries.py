"""Promises about agents' worktrees over many runs: a retry by hand begins anew, a stop goes on."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from support.agents import AgentFleet, a_fleet, agent_task
from support.engines import until
from support.patience import PATIENCE
from support.repositories import commit, git, repository

from engine import retention
from engine.commands import Retry, Seed
from engine.github import pull_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AgentFleet:
    return a_fleet(tmp_path, monkeypatch)


async def retried(fleet: AgentFleet, task_id: str = "a") -> None:
    """Retry a task by hand, and wait for its end."""
    async with asyncio.timeout(PATIENCE), fleet.engine() as engine:
        await engine.execute(Retry((task_id,)))
        await engine.start_workers()
        await engine.settled()


async def stopped(fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    """Let an agent write that file into the worktree of `a`, and stop it there."""
    monkeypatch.setenv("STANDIN", "endless")
    monkeypatch.setenv("STANDIN_WRITE", file)
    async with fleet.engine() as engine:
        await engine.execute(Seed(fleet.dag(agent_task("over"), agent_task("a"))))
        await engine.start_worker("claude")
        await until((fleet.worktree() / file).exists, "the agent has written")
        await until(lambda: fleet.state("a") == "RUNNING", "it runs")
        await engine.stop_workers()
    assert fleet.state("a") == "READY"


async def test_a_retry_by_hand_begins_anew_and_what_was_there_satisfies_nothing(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "edits")
    await fleet.carry_out(agent_task(expect="commit"))
    assert fleet.state("a") == "DONE"
    first = git(fleet.folder, "rev-parse", "agentmux/a/1")
    base = commit(fleet.folder, "meanwhile")
    monkeypatch.setenv("STANDIN", "ok")
    await retried(fleet)
    assert fleet.last().data["error"] == "expected a commit, and agentmux/a/2 has none"
    result = fleet.last().data["result"]
    assert (result["branch"], result["base"], result["commits"]) == ("agentmux/a/2", base, 0)
    assert fleet.worktree().is_dir(), "what was there stays, until it is old or one of too many"
    assert git(fleet.folder, "rev-parse", "agentmux/a/1") == first
    monkeypatch.setenv("STANDIN", "edits")
    await retried(fleet)
    assert fleet.result()["branch"] == "agentmux/a/3"
    assert fleet.state("a") == "DONE"


async def test_after_a_stop_by_file_a_retry_goes_on_where_the_run_was(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "edits")
    await fleet.carry_out(agent_task())
    monkeypatch.setenv("STANDIN", "endless")
    monkeypatch.setenv("STANDIN_WRITE", "half.txt")
    second = fleet.worktree(attempt=2)
    async with asyncio.timeout(PATIENCE), fleet.engine() as engine:
        await engine.execute(Retry(("a",)))
        await engine.start_worker("claude")
        await until((second / "half.txt").exists, "the agent has written")
        (second / "STOP").touch()
        await until(lambda: fleet.state("a") == "BLOCKED", "it has stopped")
    monkeypatch.setenv("STANDIN", "edits")
    monkeypatch.delenv("STANDIN_WRITE")
    await retried(fleet)
    assert fleet.result()["branch"] == "agentmux/a/2"
    assert (second / "half.txt").exists()
    assert not fleet.worktree(attempt=3).exists()


async def test_retention_takes_what_is_over_and_leaves_what_is_to_be_gone_on_in(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_WRITE", "done.txt")
    await fleet.carry_out(agent_task("over"))
    assert fleet.worktree("over").is_dir()
    await stopped(fleet, monkeypatch, "half.txt")
    fleet.settings("worktrees: {keep: 0}\n")
    async with fleet.engine() as engine:
        await engine.start_worker("somebody-else")
        await until(lambda: not fleet.worktree("over").exists(), "it goes without any run")
        await engine._retention.look()
    assert fleet.worktree().is_dir()
    assert [ref.split("/")[3] for ref in fleet.saved()] == ["a", "over"], "no work is lost"
    monkeypatch.setenv("STANDIN", "edits")
    monkeypatch.delenv("STANDIN_WRITE")
    await fleet.carry_out(agent_task("over"), agent_task("a"))
    assert fleet.result()["branch"] == "agentmux/a/1"
    assert (fleet.worktree() / "half.txt").read_text() == "Do it."


async def test_retention_looks_again_and_again_and_tells_once_what_has_to_stay(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await fleet.carry_out(agent_task("over"), agent_task("kept"))
    repository(fleet.worktree("kept") / "clone")
    fleet.settings("worktrees: {keep: 0}\n")
    monkeypatch.setattr(retention, "EVERY", 0.01)
    looks: list[int] = []
    with caplog.at_level(logging.INFO, logger="engine.retention"):
        async with fleet.engine() as engine:
            look = engine._retention.look
            monkeypatch.setattr(engine._retention, "look", counting(look, looks))
            await engine.start_worker("somebody-else")
            await until(lambda: len(looks) > 2, "it looks a third time")
    told = [record.message for record in caplog.records]
    stay = f"{fleet.worktree('kept').resolve()} stays: not all in it could be saved: clone is a"
    assert len([line for line in told if line.startswith(stay)]) == 1
    gone = f"removed {fleet.worktree('over').resolve()}: beyond keep 0"
    assert told.count(gone) == 1


def counting(
    look: Callable[[], Awaitable[None]], looks: list[int]
) -> Callable[[], Awaitable[None]]:
    async def counted() -> None:
        await look()
        looks.append(1)

    return counted


GH = """#!/bin/sh
cat "$(dirname "$0")/answer"
"""


def answer(fleet: AgentFleet, *pulls: Mapping[str, object]) -> None:
    """Let gh tell of these pull requests."""
    folder = fleet.folder.parent / "bin"
    (folder / "gh").write_text(GH)
    (folder / "gh").chmod(0o755)
    usual = {"state": "OPEN", "headRefName": "b", "isCrossRepository": False}
    rows = [{"number": n, "url": f"u{n}", **usual, **pull} for n, pull in enumerate(pulls)]
    (folder / "answer").write_text(json.dumps(rows))


async def test_a_pull_request_that_is_older_than_the_work_is_not_of_it(fleet: AgentFleet) -> None:
    since = datetime(2026, 11, 22, 7, tzinfo=UTC)

    async def found(head: str | None = None) -> int | None:
        pull = await pull_request("acme/site", "b", since, head)
        return None if pull is None else pull.number

    def at(hours: float) -> str:
        return (since + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")

    answer(fleet, {"createdAt": at(-24), "state": "MERGED", "headRefOid": "c0ffee"})
    assert await found() is None
    assert await found("decade") is None
    assert await found("c0ffee") == 0, "it was opened before, and has this work now"
    answer(fleet, {"createdAt": at(-24)}, {"createdAt": at(1)})
    assert await found() == 1
    answer(fleet, {"createdAt": at(-0.1)})
    assert await found() == 0, "clocks differ"
    answer(fleet, {}, {"createdAt": None})
    assert await found() == 1, "nobody says when"


async def test_a_run_is_not_done_by_the_pull_request_of_an_earlier_one(fleet: AgentFleet) -> None:
    git(fleet.folder, "remote", "add", "origin", "git@github.com:acme/site.git")
    old = {"createdAt": "2020-01-01T00:00:00Z", "headRefOid": "c0ffee"}
    answer(fleet, {"headRefName": "agentmux/a/1"} | old)
    await fleet.carry_out(agent_task(expect="pull-request"))
    assert fleet.last().data["error"].endswith("agentmux/a/1, and acme/site has none")
