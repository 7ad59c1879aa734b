"""`agentmux worktrees` as its users run it: what it lists, asks, saves and removes."""

from __future__ import annotations

import asyncio
import os
import re
import shutil

import pytest
from support.program import Project, on_terminal, outcome
from support.repositories import Home, git

from engine.workspaces import finished, list_worktrees

DAG = """
tasks:
  - {id: "impl:a", agent: codex, payload: {kind: shell, cmd: "sleep 300"}}
"""


@pytest.fixture
def project(home: Home) -> Project:
    project = Project(home.project)
    project.ok("tasks", "seed", project.write(DAG))
    return project


def left(home: Home, *tasks: str) -> None:
    """Leave worktrees of these tasks behind, with work in them."""

    async def leave() -> None:
        for task in tasks:
            tree = await home.ensure(task, run=f"run of {task}")
            (tree.path / "work").write_text("uncommitted\n")
            await finished(home.place, task, tree.run, home.clock)

    asyncio.run(leave())


def test_without_worktrees_it_says_what_would_make_one(project: Project) -> None:
    assert "a run of an agent makes one" in project.ok("worktrees", "ls")
    assert project.json("worktrees", "ls") == []
    assert project.json("worktrees", "prune", "--dry-run") == {
        "dryRun": True,
        "worktrees": [],
        "clones": [],
    }


def test_every_worktree_is_listed_with_what_it_started_from(home: Home, project: Project) -> None:
    left(home, "impl:a", "b")
    rows = project.json("worktrees", "ls")
    assert [(row["task"], row["attempt"], row["stage"], row["inUse"]) for row in rows] == [
        ("b", 1, "over", False),
        ("impl:a", 1, "over", False),
    ]
    assert {"path", "branch", "base", "baseRef", "behind", "madeAt", "usedAt", "saved"} < set(
        rows[0]
    )
    assert rows[0]["base"] == git(home.project, "rev-parse", "HEAD")
    shown = project.ok("worktrees", "ls")
    assert re.search(r"^b +1 +over +agentmux/b/1 +main [0-9a-f]{8} ", shown, re.MULTILINE)
    assert str(home.place.root / "b" / "1") in shown
    shutil.rmtree(home.place.root / "b" / "1")
    assert re.search(r"^b +1 +gone ", project.ok("worktrees", "ls"), re.MULTILINE)


def test_a_dry_run_names_what_would_go_and_changes_nothing(home: Home, project: Project) -> None:
    left(home, "a", "b")
    told = project.ok("worktrees", "prune", "--keep", "1", "--dry-run")
    assert "it would remove 1 worktree\na, try 1: beyond keep 1" in told
    assert len(project.json("worktrees", "ls")) == 2
    assert home.saved() == {}


def test_it_asks_saves_and_removes(home: Home, project: Project) -> None:
    left(home, "a", "b")
    args = ("worktrees", "prune", "--older-than", "0s")
    refused = project.refused(*args, code="COMMAND_NOT_ALLOWED")
    assert "this would remove 2 worktrees: what is uncommitted is saved first" in refused
    assert "say --yes" in refused
    code, shown = on_terminal(project, *args, columns=100, say="n")
    assert (code, "nothing was changed" in shown) == (1, True)
    assert home.saved() == {}
    code, shown = on_terminal(project, *args, columns=100, say="y")
    assert code == 0
    assert "removed 2 worktrees" in shown
    assert "refs/agentmux/saved/a/" in shown
    assert len(home.saved()) == 2
    assert project.json("worktrees", "ls") == []


def test_what_cannot_be_saved_stays_and_the_exit_code_says_so(home: Home, project: Project) -> None:
    left(home, "a", "b")
    inner = home.place.root / "a" / "1" / "clone"
    inner.mkdir()
    git(inner, "init", "-q")
    git(inner, "commit", "-q", "--allow-empty", "-m", "its own")
    said = project.refused("worktrees", "prune", "--keep", "0", "--yes", code="IO_ERROR")
    assert "a, try 1 stays: not all in it could be saved: clone is a repository" in said
    assert [row["task"] for row in project.json("worktrees", "ls")] == ["a"]


def test_a_worktree_whose_run_goes_on_is_in_use_and_stays(home: Home, project: Project) -> None:
    with project.started("worker", "--agent", "codex", "--worker-id", "w") as worker:
        project.wait_for("RUNNING", "impl:a")
        (run,) = project.json("history")
        asyncio.run(made_for(home, run["id"]))
        assert [row["inUse"] for row in project.json("worktrees", "ls")] == [True]
        assert "in use" in project.ok("worktrees", "ls")
        project.ok("worktrees", "prune", "--keep", "0", "--yes")
        assert len(project.json("worktrees", "ls")) == 1
        worker.terminate()
        outcome(worker)
    (row,) = project.json("worktrees", "ls")
    assert (row["inUse"], row["waits"]) == (False, True)
    assert re.search(r"\bwaits\b", project.ok("worktrees", "ls"))
    project.ok("worktrees", "prune", "--keep", "0", "--yes")
    assert len(project.json("worktrees", "ls")) == 1, "its next run goes on there"
    project.ok("worktrees", "prune", "--older-than", "0s", "--yes")
    assert project.json("worktrees", "ls") == []


async def made_for(home: Home, run_id: str) -> None:
    await home.ensure("impl:a", run=run_id)
    assert len(await list_worktrees(home.place)) == 1


def test_the_folder_of_the_settings_is_used(home: Home, project: Project) -> None:
    (home.project / "agentmux.yaml").write_text("worktrees: {folder: elsewhere, keep: 0}\n")
    home.place = type(home.place)(home.project / "elsewhere", home.place.state)
    left(home, "a")
    assert project.json("worktrees", "ls")[0]["path"] == str(home.project / "elsewhere/a/1")
    project.ok("worktrees", "prune", "--yes")
    assert project.json("worktrees", "ls") == []


@pytest.mark.parametrize("args", [["--keep", "-1"], ["--keep", "x"], ["--older-than", "soon"]])
def test_wrong_usage_is_told(project: Project, args: list[str]) -> None:
    done = project.run("worktrees", "prune", *args)
    assert done.returncode == 2
    assert "usage:" in done.stderr
    assert os.listdir(project.state)  # noqa: PTH208 - any will do
