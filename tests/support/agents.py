"""A project with a repository, and stand-ins for the CLIs of agents on PATH."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from support.engines import Project
from support.patience import PATIENCE
from support.repositories import ISOLATED, belongings, git, refs, repository
from support.standins.install import install
from support.stores import a_task, select, tasks_of

from engine.commands import Seed

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from engine.model import Event, TaskDef

PERSON = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Somebody"), ("EMAIL", "somebody@localhost"))
}
LOGINS = {f"{name}_API_KEY": f"key-0123456789-{name}" for name in ("ANTHROPIC", "CODEX", "GEMINI")}


def agent_task(
    task_id: str = "a",
    *deps: str,
    agent: str = "claude",
    prompt: str = "Do it.",
    retries: int = 0,
    timeout: float = 60.0,
    **payload: Any,
) -> TaskDef:
    """Make a task for an agent's CLI."""
    payload = {"kind": "agent", "prompt": prompt} | payload
    if "promptFile" in payload:
        del payload["prompt"]
    return a_task(task_id, *deps, agent=agent, retries=retries, timeout=timeout, payload=payload)


@dataclass
class AgentFleet(Project):
    """A project whose agents are stand-ins; the user's repository is `folder`."""

    def saved(self) -> dict[str, str]:
        """What was saved: refs and commits."""
        return refs(self.folder, "refs/agentmux/saved")

    def shown(self, ref: str, path: str) -> str:
        """Return a file as a ref has it."""
        return git(self.folder, "show", f"{ref}:{path}")

    def worktree(self, task_id: str = "a", attempt: int = 1) -> Path:
        return self.folder / "worktrees" / task_id / str(attempt)

    def artifacts(self, task_id: str = "a") -> Path:
        """Return the folder of a task's last run."""
        (row,) = select(
            self.layout, "SELECT id FROM runs WHERE task_id = ? ORDER BY n DESC LIMIT 1", task_id
        )
        return self.layout.run_folder(task_id, row["id"])

    def last(self, task_id: str = "a") -> Event:
        """Return the last event of a task that says how a run ended."""
        return [e for e in self.events(task_id) if "outcome" in e.data][-1]

    def error(self, task_id: str = "a") -> str:
        """Return what is wrong with a task."""
        return str(tasks_of(self.layout)[task_id]["error"])

    def result(self, task_id: str = "a") -> dict[str, Any]:
        """Return the result that the last run left in its folder; its event has the same."""
        text = (self.artifacts(task_id) / "result.json").read_text("utf-8")
        result: dict[str, Any] = json.loads(text)
        assert self.last(task_id).data["result"] == result
        return result

    def belongings(self) -> dict[str, object]:
        """What is the user's: nothing of it may change."""
        theirs = belongings(self.folder)
        files = theirs["files"]
        assert isinstance(files, dict)
        ours = ("state", "artifacts", "worktrees", "dag.yaml", "agentmux.yaml")
        kept = {
            name: digest
            for name, digest in files.items()
            if name.split("/")[0] not in ours and not name.endswith(".err")
        }
        return theirs | {"files": kept}

    async def carry_out(self, *tasks: TaskDef) -> None:
        """Do tasks, in this process, until nothing more can be done."""
        async with asyncio.timeout(PATIENCE), self.engine() as at:
            await at.execute(Seed(self.dag(*tasks)))
            await at.start_workers()
            await at.settled()


def a_fleet(folder: Path, monkeypatch: pytest.MonkeyPatch, scenario: str = "ok") -> AgentFleet:
    """Make a project with a repository; its agents act by `scenario`."""
    project = repository(folder / "project")
    (project / ".gitignore").write_text("state/\nartifacts/\n*.yaml\n*.err\n")
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "two")
    programs = install(folder / "bin")
    home = folder / "home"
    home.mkdir()
    variables = {
        **ISOLATED,
        **LOGINS,
        **PERSON,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "STANDIN": scenario,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return AgentFleet(project, variables=variables)
