"""Hosts die at random while agents write and commit in worktrees: nothing of their work is lost."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from support.agents import AgentFleet, a_fleet, agent_task
from support.nursery import Nursery
from support.reckoning import check_completions, check_logs, check_nobody_is_left
from support.repositories import git, refs
from support.stores import check_store
from support.storm import AGENTS, Storm

from engine import machine
from engine.commands import Seed

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SCRIBE = """
import os, pathlib, subprocess, sys, time
run, ledger, seconds, commits = os.environ["AGENTMUX_RUN_ID"], *sys.argv[1:]
page = pathlib.Path(run + ".txt")
page.write_text(run)
with open(ledger, "a") as book:
    book.write(run + "\\n")
time.sleep(float(seconds))
if int(commits):
    git = ["git", "-c", "user.name=scribe", "-c", "user.email=scribe@localhost"]
    for words in (["add", "-A"], ["commit", "-q", "-m", run]):
        if subprocess.run([*git, *words], stdout=subprocess.DEVNULL).returncode:
            sys.exit(1)
child = subprocess.Popen(["sleep", "60"])
"""
"""Writes a page, notes in the ledger that it has, and leaves a child behind."""


def pages(fleet: AgentFleet) -> set[str]:
    """Return the runs whose page is on a branch, in what was saved, or in a worktree."""
    names: set[str] = set()
    for below in ("refs/heads/agentmux", "refs/agentmux/saved"):
        for ref in refs(fleet.folder, below):
            names.update(git(fleet.folder, "ls-tree", "--name-only", ref).split())
    names.update(path.name for path in (fleet.folder / "worktrees").glob("*/*/*.txt"))
    return {name.removesuffix(".txt") for name in names if name.endswith(".txt")}


async def test_no_page_that_an_agent_has_written_is_lost_in_a_storm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "FIRST_BACKOFF", 0.05)
    fleet = a_fleet(tmp_path, monkeypatch)
    ledger, scribe = tmp_path / "ledger", tmp_path / "scribe.py"
    scribe.write_text(SCRIBE)
    settings = ["lease: 2", "renew: 0.5", "heartbeat: 0.2", "stale_after: 1", "grace: 0.5"]
    settings += ["worktrees: {keep: 3}", "agents:"]
    for name in AGENTS:
        for n, (seconds, commits) in enumerate(((0.1, 0), (0.3, 1), (0.6, 0))):
            command = f"[python3, -IS, {scribe}, {ledger}, '{seconds}', '{commits}']"
            settings.append(f"  {name}{n}: {{command: {command}}}")
    fleet.settings("\n".join(settings) + "\n")
    dice = random.Random(20261122)
    tasks = [
        agent_task(
            f"t{n}",
            *(f"t{dep}" for dep in dice.sample(range(max(0, n - 8), n), min(n, dice.randrange(2)))),
            agent=(agent := dice.choice(AGENTS)),
            cli=f"{agent}{dice.randrange(3)}",
            retries=2,
        )
        for n in range(60)
    ]
    before = fleet.belongings()
    with Nursery(fleet.folder, **fleet.variables) as nursery:
        storm = Storm(fleet, nursery, tasks, dice)
        async with fleet.engine() as engine:
            await engine.execute(Seed(fleet.dag(*tasks)))
            for agent in AGENTS:
                await engine.start_worker(agent)
            await storm.rage(engine, kills=15, resets=1)
            await storm.calm(engine)
    assert storm.tally.errors == []
    await check_nobody_is_left(fleet.layout)
    check_store(fleet.layout)
    check_logs(fleet.layout)
    check_completions(fleet)
    written = ledger.read_text().split()
    assert len(written) >= len(tasks)
    assert set(written) - pages(fleet) == set(), "what was written and is nowhere now"
    assert fleet.belongings() == before
    assert git(fleet.folder, "fsck", "--strict", "--no-dangling", "--no-progress") == ""
