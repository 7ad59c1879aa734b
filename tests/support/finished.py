"""Projects in which everybody is through with their work, and copies of them to damage."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

from support.engines import Project
from support.patience import PATIENCE
from support.stores import a_task

from engine.commands import Purge, Seed
from engine.files import Layout

if TYPE_CHECKING:
    from pathlib import Path

_DAG = """
defaults: {agent: codex}
agents: {codex: {limit: 3}}
tasks:
  - {id: plan, agent: claude, payload: {seconds: 0}}
  - {id: "build:ä", deps: [plan], payload: {kind: shell, cmd: "echo built"}}
  - {id: docs, deps: [plan], priority: 3, payload: {seconds: 0}}
  - {id: review, agent: claude, deps: ["build:ä", docs], payload: {seconds: 0}}
  - {id: broken, payload: {kind: shell, cmd: "false"}}
  - {id: after, deps: [broken, plan]}
  - {id: later, deps: [after]}
  - {id: odd, payload: {kind: unheard-of}}
  - {id: held, agent: nobody}
"""
_RESEEDED = _DAG.replace("priority: 3", "priority: 4").replace(
    "  - {id: held, agent: nobody}\n", ""
)
_FALSE = {"kind": "shell", "cmd": "false"}


def copied(finished: Path, folder: Path) -> Layout:
    """Return a copy of a finished project's state, for one test to damage."""
    shutil.copytree(finished / "state", folder / "state")
    return Layout(folder / "state")


async def finish(folder: Path) -> None:
    """Let a fleet meet everything that it can, a seed that changes the DAG too."""
    dag = folder / "dag.yaml"
    async with Project(folder).engine() as fleet, asyncio.timeout(20):
        dag.write_text(_DAG)
        await fleet.execute(Seed(dag))
        for agent in ("claude", "codex", "codex"):
            await fleet.start_worker(agent, until_idle=True)
        await fleet.wait_workers()
        dag.write_text(_RESEEDED)
        await fleet.execute(Seed(dag))


async def finish_and_purge(folder: Path) -> None:
    """Let much happen to a fleet, purges too.

    plan is DONE, broken FAILED, after BLOCKED by it, next READY behind plan, waits behind next.
    gone-done and gone-failed were purged: left waits for nothing any more, stuck is BLOCKED.
    """
    project = Project(folder)
    tasks = (
        a_task("plan", agent="claude"),
        a_task("broken", payload=_FALSE),
        a_task("gone-done"),
        a_task("gone-failed", payload=_FALSE),
        a_task("after", "broken", "plan", agent="nobody"),
        a_task("next", "plan", agent="nobody"),
        a_task("waits", "next", agent="nobody"),
        a_task("left", "gone-done", agent="nobody"),
        a_task("stuck", "gone-failed", agent="nobody"),
    )
    async with project.engine() as engine, asyncio.timeout(PATIENCE):
        await engine.execute(Seed(project.dag(*tasks)))
        for agent in ("claude", "codex"):
            await engine.start_worker(agent, until_idle=True)
        await engine.wait_workers()
        receipt = await engine.execute(Purge(("gone-done", "gone-failed")))
        assert len(receipt.done) == 2
