"""Promises of the sample DAGs: each loads, and shows what its opening comment says."""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.config import HARMLESS
from engine.dag import load_dag

if TYPE_CHECKING:
    from engine.model import Dag, TaskDef

FOLDER = Path(__file__).parents[2] / "sample_dags"
SAMPLES = sorted(path.name for path in FOLDER.glob("*.yaml"))
NOT_ALLOWED = {"blocked.yaml": {"ssh"}, "agents.yaml": {"pytest"}}
"""The one is there to be refused, the other allowed by the settings that its comment shows."""
QUICK = [name for name in SAMPLES if name not in {"demo.yaml", "agents.yaml"}]
BACKOFF = 5.0


def load(name: str) -> Dag:
    return load_dag(FOLDER / name)


def argv(task: TaskDef) -> list[str]:
    return shlex.split(task.payload["cmd"]) if "cmd" in task.payload else list(task.payload["argv"])


def program(task: TaskDef) -> str:
    return argv(task)[0] if task.payload["kind"] == "shell" else ""


def seconds(task: TaskDef) -> float:
    if program(task) == "sleep":
        return float(argv(task)[1])
    return float(task.payload.get("seconds", 2)) if task.payload["kind"] == "noop" else 0.1


def exit_code(task: TaskDef) -> int:
    folder = FOLDER.parent / task.payload.get("cwd", ".")
    environment = {**os.environ, **task.payload.get("env", {})}
    done = subprocess.run(
        argv(task), cwd=folder, env=environment, capture_output=True, timeout=30, check=False
    )
    return done.returncode


def dependents(dag: Dag, task_id: str) -> list[str]:
    return [task.id for task in dag.tasks if task_id in task.deps]


def play(dag: Dag, fails: frozenset[str]) -> tuple[float, dict[str, float]]:
    """Work a DAG off by hand with one worker for each agent: when it ends, and each task."""
    now, done, gone = 0.0, dict[str, float](), set(fails)
    free_at = {task.agent: 0.0 for task in dag.tasks}
    not_before: dict[str, float] = {}
    left_to_fail = {task.id: int(task.payload.get("fail_attempts", 0)) for task in dag.tasks}
    while True:
        for agent, free in list(free_at.items()):
            ready = [
                task
                for task in dag.tasks
                if task.agent == agent
                and task.id not in done
                and task.id not in gone
                and all(done.get(dep, now + 1) <= now for dep in task.deps)
                and not_before.get(task.id, 0) <= now
            ]
            if not ready or free > now:
                continue
            task = max(ready, key=lambda task: task.priority)
            free_at[agent] = now + seconds(task)
            if left_to_fail[task.id]:
                left_to_fail[task.id] -= 1
                not_before[task.id] = free_at[agent] + BACKOFF
            else:
                done[task.id] = free_at[agent]
        moments = [*free_at.values(), *not_before.values(), *done.values()]
        later = [moment for moment in moments if moment > now]
        if not later:
            return now, done
        now = min(later)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_opens_with_what_it_shows_and_the_command_that_runs_it(name: str) -> None:
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    comment = list(itertools.takewhile(lambda line: line.startswith("#"), lines))
    assert any(f"#   agentmux run sample_dags/{name}" in line for line in comment)
    assert load(name).tasks


@pytest.mark.parametrize("name", SAMPLES)
def test_every_program_of_a_sample_is_on_the_default_allow_list(name: str) -> None:
    programs = {program(task) for task in load(name).tasks} - {""}
    assert programs - set(HARMLESS) == NOT_ALLOWED.get(name, set())


@pytest.mark.parametrize("name", QUICK)
def test_every_small_sample_takes_a_few_seconds(name: str) -> None:
    end, done = play(load(name), frozenset())
    assert len(done) == len(load(name).tasks)
    assert end <= 12


@pytest.mark.parametrize("name", SAMPLES)
def test_every_program_of_a_sample_ends_as_it_should(name: str) -> None:
    fail, other = {"build", "deploy:staging"}, NOT_ALLOWED.get(name, set()) | {"sleep"}
    for task in load(name).tasks:
        if program(task) and program(task) not in other:
            assert (exit_code(task) != 0) == (task.id in fail), task.id


def test_smoke_is_one_noop_for_each_agent() -> None:
    tasks = load("smoke.yaml").tasks
    assert [(task.id, task.agent) for task in tasks] == [
        (f"smoke:noop-{agent}", agent) for agent in ("claude", "codex", "gemini")
    ]
    assert all(task.payload["kind"] == "noop" and not task.deps for task in tasks)


def test_chain_is_a_row() -> None:
    tasks = load("chain.yaml").tasks
    ids = [task.id for task in tasks]
    assert [task.deps for task in tasks] == [(), *((task_id,) for task_id in ids[:-1])]
    assert len(ids) >= 4


def test_fan_out_is_one_then_six_then_one() -> None:
    first, *middle, last = load("fan-out.yaml").tasks
    assert first.deps == ()
    assert [task.deps for task in middle] == [(first.id,)] * 6
    assert last.deps == tuple(task.id for task in middle)


def test_diamond_is_a_diamond_over_three_agents() -> None:
    top, left, right, bottom = load("diamond.yaml").tasks
    assert (top.deps, left.deps, right.deps) == ((), (top.id,), (top.id,))
    assert bottom.deps == (left.id, right.id)
    assert left.agent != right.agent


def test_retry_fails_once_and_has_a_retry_left_for_it() -> None:
    flaky, report = load("retry.yaml").tasks
    assert flaky.payload["fail_attempts"] == 1
    assert flaky.retries >= 1
    assert report.deps == (flaky.id,)


def test_priority_and_limits_has_the_urgent_task_last_in_the_file() -> None:
    dag = load("priority-and-limits.yaml")
    assert dag.agents["codex"].limit == 2
    assert dag.agents["codex"].stagger == 1
    assert max(dag.tasks, key=lambda task: task.priority) is dag.tasks[-1]
    _, done = play(dag, frozenset())
    assert sorted(done, key=lambda task_id: done[task_id]) == [
        "urgent", "high", "normal:1", "normal:2", "low",
    ]  # fmt: skip


def test_shell_shows_every_field_of_a_shell_payload() -> None:
    keys = {key for task in load("shell.yaml").tasks for key in task.payload}
    assert keys == {"kind", "cmd", "argv", "cwd", "env"}


def test_blocked_leaves_two_tasks_waiting_upstream_and_one_done() -> None:
    dag = load("blocked.yaml")
    _, done = play(dag, frozenset({"build", "deploy"}))
    assert set(done) == {"docs"}
    assert dependents(dag, "build") == ["tests"]
    assert dependents(dag, "tests") == ["publish"]


def test_agents_is_a_plan_two_changes_at_once_their_tests_and_a_review() -> None:
    plan, docs, tests, check, review = load("agents.yaml").tasks
    assert (plan.deps, docs.deps, tests.deps) == ((), ("plan",), ("plan",))
    assert docs.agent != tests.agent
    assert docs.payload["expect"] == tests.payload["expect"] == "commit"
    assert check.deps == ("tests",)
    assert check.payload["cwd"] == "{{deps.tests.workspace}}"
    assert review.deps == ("docs", "tests", "check")
    for dep in ("docs", "tests"):
        diff = f"git diff {{{{deps.{dep}.base}}}} {{{{deps.{dep}.branch}}}}"
        assert diff in review.payload["prompt"]


def test_demo_shows_everything_in_about_forty_seconds() -> None:
    dag = load("demo.yaml")
    tasks = {task.id: task for task in dag.tasks}
    assert 20 <= len(tasks) <= 30
    assert {task.agent for task in dag.tasks} == {"claude", "codex", "gemini"}
    assert {task.payload["kind"] for task in dag.tasks} == {"noop", "shell"}
    assert dag.agents
    assert len({task.priority for task in dag.tasks}) >= 3
    assert len([i for i in dependents(dag, "plan:ticketize") if i.startswith("impl:")]) == 5
    assert set(tasks["schema:freeze"].deps) == set(dependents(dag, "schema:design"))
    assert tasks["tests:race"].payload["fail_attempts"] == 1 <= tasks["tests:race"].retries
    end, done = play(dag, frozenset({"deploy:staging"}))
    assert 35 <= end <= 45
    assert set(tasks) - set(done) == {"deploy:staging", "smoke:staging", "announce"}
