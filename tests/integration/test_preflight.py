"""What no run could get past is told before any task is claimed, with what to do about it."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from support.agents import AgentFleet, a_fleet, agent_task
from support.engines import until
from support.patience import PATIENCE
from support.repositories import git
from support.stores import a_task

from engine.commands import Reset, Retry, Seed
from engine.executors.agent import planning

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engine.model import TaskDef


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AgentFleet:
    return a_fleet(tmp_path, monkeypatch)


async def test_a_seed_blocks_what_cannot_be_done_and_says_what_to_do(fleet: AgentFleet) -> None:
    fleet.settings("agents: {lost: {command: not-there}}\n")
    tasks = [
        agent_task("good"),
        agent_task("lost", agent="lost"),
        agent_task("also lost", agent="lost"),
        agent_task("unknown", agent="nobody"),
        agent_task("prompt", promptFile="none.md"),
        agent_task("branch", workspace={"branch": "nope"}),
        agent_task("far", workspace={"url": str(fleet.folder / "nowhere")}),
        agent_task("waits", "lost"),
        a_task("plain"),
    ]
    async with fleet.engine() as engine:
        receipt = await engine.execute(Seed(fleet.dag(*tasks)), dry_run=True)
        assert receipt.counts["need you"] == 6
        receipt = await engine.execute(Seed(fleet.dag(*tasks)))
        assert receipt.counts["need you"] == 6
        assert receipt.done["lost"].startswith("needs you: 'not-there', the CLI of lost, was not")
        assert "was not found" in receipt.done["also lost"]
        assert "agentmux knows no CLI 'nobody'" in receipt.done["unknown"]
        assert "the prompt none.md cannot be read" in receipt.done["prompt"]
        assert "no branch 'nope'" in receipt.done["branch"]
        assert "no worktree: " in receipt.done["far"]
        detail = await engine.queries.detail("unknown")
        assert detail.explanation[0].startswith("It needs you: agentmux knows no CLI")
    assert fleet.states() == {"READY": 2, "BLOCKED": 7}
    assert "TASK_CLAIMED" not in fleet.kinds()
    fleet.check()


async def test_what_waits_for_such_a_task_is_told_of_its_own_reason_at_once(
    fleet: AgentFleet,
) -> None:
    tasks = [agent_task(agent="nobody"), agent_task("b", "a", promptFile="none.md")]
    async with fleet.engine() as engine:
        receipt = await engine.execute(Seed(fleet.dag(*tasks)))
        assert receipt.counts["need you"] == 2
        assert "the prompt none.md cannot be read" in receipt.done["b"]
        assert "the prompt none.md cannot be read" in fleet.error("b")
        (fleet.folder / "none.md").write_text("Now it is here.")
        await engine.execute(Retry(("b",)))
        detail = await engine.queries.detail("b")
        assert detail.explanation[0].startswith("It cannot start because a is BLOCKED")
    fleet.check()


async def test_what_was_mended_is_done_after_a_retry(fleet: AgentFleet) -> None:
    task = agent_task(promptFile="ask.md")
    async with fleet.engine() as engine:
        await engine.execute(Seed(fleet.dag(task)))
        assert fleet.state("a") == "BLOCKED"
        (fleet.folder / "ask.md").write_text("Now it is here.")
        await engine.execute(Retry(("a",)))
        await engine.start_worker("claude")
        await until(lambda: fleet.state("a") == "DONE", "it is done")


async def test_the_start_of_a_worker_looks_again(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fleet.engine() as engine:
        await engine.execute(Seed(fleet.dag(agent_task(), agent_task("b"))))
    assert fleet.states() == {"READY": 2}
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    async with fleet.engine() as engine:
        await engine.start_worker("claude")
        assert fleet.states() == {"BLOCKED": 2}
        assert "TASK_CLAIMED" not in fleet.kinds()


async def test_a_reset_with_fresh_retries_does_not_lift_what_it_finds(fleet: AgentFleet) -> None:
    dag = fleet.dag(agent_task(agent="nobody"), agent_task("b"))
    async with fleet.engine() as engine:
        await engine.execute(Seed(dag))
        await engine.execute(Reset(fresh=True))
    assert (fleet.state("a"), fleet.state("b")) == ("BLOCKED", "READY")


async def test_what_tasks_share_is_looked_for_once(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    def noted(name: str) -> None:
        real: Callable[..., Any] = getattr(planning, name)

        def look(*args: Any, **more: Any) -> Any:
            looks.append(name)
            return real(*args, **more)

        monkeypatch.setattr(planning, name, look)

    (fleet.folder / "ask.md").write_text("Do {{task.name}}.")
    noted("find_program")
    noted("check_source")
    tasks = [agent_task(f"t{n}", promptFile="ask.md") for n in range(50)]
    branch = agent_task("x", model="m", workspace={"branch": "main"})
    async with fleet.engine() as engine:
        await engine.execute(Seed(fleet.dag(*tasks, branch)))
    assert sorted(looks) == ["check_source", "check_source", "find_program"]


def with_git_alone(fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing on PATH but git and the stand-ins."""
    program = shutil.which("git")
    assert program is not None
    folder = fleet.folder.parent / "git alone"
    folder.mkdir()
    (folder / "git").symlink_to(program)
    monkeypatch.setenv("PATH", f"{fleet.folder.parent / 'bin'}{os.pathsep}{folder}")


async def test_a_pull_request_that_cannot_be_asked_for_is_told_before_any_work(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = agent_task(expect="pull-request")
    with_git_alone(fleet, monkeypatch)
    async with fleet.engine() as engine:
        receipt = await engine.execute(Seed(fleet.dag(task)), dry_run=True)
        assert "the program gh was not found; install it" in receipt.done["a"]
        gh = fleet.folder.parent / "bin" / "gh"
        gh.write_text("#!/bin/sh\necho '[]'\n")
        gh.chmod(0o755)
        receipt = await engine.execute(Seed(fleet.dag(task)), dry_run=True)
        assert "its repository has no origin on GitHub; give it one" in receipt.done["a"]
        git(fleet.folder, "remote", "add", "origin", "git@github.com:acme/site.git")
        receipt = await engine.execute(Seed(fleet.dag(task)), dry_run=True)
        assert receipt.done["a"] == "created"


@pytest.mark.parametrize(
    ("settings", "payload", "why"),
    [
        ("setup: [not-there, x]\n", {}, "setup: 'not-there' was not found"),
        ("", {"model": "--yolo"}, "'--yolo' is no model but an option"),
        (
            "agents: {mine: {command: [cat]}}\n",
            {"cli": "mine", "model": "m"},
            "no place for a model",
        ),
        ("agents: {claude: {env_pass: [X]}}\n", {}, "ANTHROPIC_API_KEY is not in its `env_pass`"),
        ("agents: {claude: {prompt: argv}}\n", {}, "takes the prompt from standard input"),
        ("", {"promptFile": "pipe"}, "the prompt pipe cannot be read: it is no regular file"),
        ("", {"promptFile": "empty.md"}, "the prompt empty.md is empty"),
        ("", {"promptFile": "holes.md"}, "{{deps.x}} names no dep of this task"),
        ("", {"workspace": {"url": "~nobody-knows/repo"}}, "no worktree: "),
    ],
)
async def test_what_a_run_could_not_get_past_is_told_at_the_seed(
    fleet: AgentFleet, settings: str, payload: dict[str, Any], why: str
) -> None:
    os.mkfifo(fleet.folder / "pipe")
    (fleet.folder / "empty.md").write_text(" \n")
    (fleet.folder / "holes.md").write_text("See {{deps.x}}.")
    fleet.settings(settings)
    async with asyncio.timeout(PATIENCE), fleet.engine() as engine:
        receipt = await engine.execute(Seed(fleet.dag(agent_task(**payload))))
    assert why in receipt.done["a"]
    assert fleet.state("a") == "BLOCKED"


async def test_a_login_is_looked_for_where_the_agent_will_look(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    (tmp_path / "other/.claude").mkdir(parents=True)
    (tmp_path / "other/.claude/.credentials.json").write_text("{}")
    fleet.settings(f"agents: {{claude: {{env: {{HOME: {tmp_path / 'other'}}}}}}}\n")
    async with fleet.engine() as engine:
        receipt = await engine.execute(Seed(fleet.dag(agent_task())))
    assert receipt.done["a"] == "created"


def shell_task(task_id: str, *deps: str, cmd: str = "echo x", **payload: Any) -> TaskDef:
    payload = {"kind": "shell", "cmd": cmd} | payload
    return a_task(task_id, *deps, agent="claude", payload=payload)


async def test_a_shell_task_that_no_run_could_get_past_is_told_at_the_seed(
    fleet: AgentFleet,
) -> None:
    fleet.settings("shell: {allow: [echo, not-there, ./not-made]}\n")
    (fleet.folder / "way").symlink_to("/etc")
    tasks = [
        shell_task("list", cmd="ssh host"),
        shell_task("two", cmd="ls; ls"),
        shell_task("found", cmd="not-there"),
        shell_task("outside", cwd="../.."),
        shell_task("link", repoPath="way"),
        shell_task("good"),
        shell_task("later", "good", cmd="ssh host"),
        # What another task may make is no fault yet.
        shell_task("made", "good", cmd="./not-made"),
        shell_task("installed", "good", cmd="not-there"),
        shell_task("folder", cwd="not/made"),
        shell_task("hole", "good", cwd="{{deps.good.workspace}}"),
        a_task("kind", payload={"kind": "agnt"}),
    ]
    async with fleet.engine() as engine:
        for dry_run in (True, False):
            receipt = await engine.execute(Seed(fleet.dag(*tasks)), dry_run=dry_run)
            told = {name: why for name, why in receipt.done.items() if "needs you" in why}
            assert told.keys() == {"list", "two", "found", "outside", "link", "later", "kind"}
            assert "'ssh' is not on the allow-list; add it" in told["list"]
            assert "'ls;' is no program" in told["two"]
            assert "'not-there' was not found on this machine; install it" in told["found"]
            assert "lies outside the project" in told["outside"]
            assert "/etc lies outside the project" in told["link"]
            assert "no executor for kind 'agnt'; known: agent, mcp-call, noop" in told["kind"]
    assert fleet.states() == {"READY": 5, "BLOCKED": 7}
    assert "TASK_CLAIMED" not in fleet.kinds()


async def test_a_shell_task_runs_where_the_attempt_worked_that_was_done(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = shell_task("check", "a", cmd="pwd", cwd="{{deps.a.workspace}}")
    monkeypatch.setenv("STANDIN", "fails")
    async with fleet.engine() as engine:
        await engine.execute(Seed(fleet.dag(agent_task(), check)))
        await engine.start_worker("claude")
        await until(lambda: fleet.state("a") == "FAILED", "its first attempt has failed")
        monkeypatch.setenv("STANDIN", "edits")
        await engine.execute(Retry(("a",)))
        await until(lambda: fleet.state("check") == "DONE", "the second one is looked at")
    assert (fleet.artifacts("check") / "stdout.log").read_text().strip().endswith("worktrees/a/2")


async def test_no_look_ahead_touches_the_repository(fleet: AgentFleet) -> None:
    before = fleet.belongings()
    async with fleet.engine() as engine:
        await engine.execute(Seed(fleet.dag(agent_task(), agent_task("b", workspace={"url": "."}))))
    assert fleet.belongings() == before
    assert not (fleet.folder / "worktrees").exists()
    assert git(fleet.folder, "worktree", "list").count("\n") == 0
