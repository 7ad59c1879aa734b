"""What the README tells somebody to do who wants agents to work in his repository, done."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from support.agents import AgentFleet, a_fleet, agent_task
from support.engines import ENVIRONMENT
from support.patience import PATIENCE
from support.program import PROGRAM
from support.repositories import git

from engine.config import load_config
from engine.dag import load_dag

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")
SAMPLE = ROOT / "sample_dags" / "agents.yaml"


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AgentFleet:
    return a_fleet(tmp_path, monkeypatch, "edits")


def typed(
    fleet: AgentFleet, *words: str, variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `agentmux` in the user's repository."""
    return subprocess.run(
        [*PROGRAM, *words],
        cwd=fleet.folder,
        env=ENVIRONMENT | fleet.variables | (variables or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def settings_of_the_sample() -> str:
    """Return the agentmux.yaml that the comment of the sample shows."""
    shown = re.findall(r"^#   (.*)$", SAMPLE.read_text("utf-8"), re.MULTILINE)
    return "".join(f"{line}\n" for line in shown if not line.startswith(("agentmux ", "git ")))


def program(fleet: AgentFleet, name: str, script: str) -> None:
    file = fleet.folder.parent / "bin" / name
    file.write_text(script)
    file.chmod(0o755)


def test_the_settings_of_the_sample_allow_what_its_tasks_run(fleet: AgentFleet) -> None:
    fleet.settings(settings_of_the_sample())
    config = load_config(fleet.folder / "agentmux.yaml")
    wanted = [task.payload for task in load_dag(SAMPLE).tasks if task.payload["kind"] == "shell"]
    assert {shlex.split(payload["cmd"])[0] for payload in wanted} == set(config.shell.allow)
    assert config.budget
    assert config.agents.keys() == {task.agent for task in load_dag(SAMPLE).tasks}


def test_the_sample_goes_from_a_plan_to_a_review_of_two_branches(fleet: AgentFleet) -> None:
    fleet.settings(settings_of_the_sample())
    program(fleet, "pytest", "#!/bin/sh\npwd\n")
    before = fleet.belongings()
    looked = typed(fleet, "tasks", "seed", str(SAMPLE), "--dry-run")
    assert (looked.returncode, "you" in looked.stdout) == (0, False), looked
    done = typed(fleet, "run", str(SAMPLE))
    assert done.returncode == 0, done
    assert "5 done" in done.stdout
    prompt = (fleet.artifacts("review") / "prompt.md").read_text("utf-8")
    base = git(fleet.folder, "rev-parse", "HEAD")
    for dep in ("docs", "tests"):
        assert f"`git diff {base} agentmux/{dep}/1`" in prompt
        assert git(fleet.folder, "rev-list", "--count", f"{base}..agentmux/{dep}/1") == "1"
    assert f"The tests say: {fleet.worktree('tests').resolve()}" in prompt
    assert "Written and committed." in (fleet.artifacts("docs") / "prompt.md").read_text("utf-8")
    assert fleet.belongings() == before


def test_without_any_cli_it_is_said_what_to_do_and_nothing_is_started(fleet: AgentFleet) -> None:
    fleet.settings(settings_of_the_sample())
    bare = fleet.folder.parent / "bare"
    bare.mkdir()
    found = shutil.which("git")
    assert found is not None
    (bare / "git").symlink_to(found)
    poor = {"PATH": str(bare)}
    dry = typed(fleet, "tasks", "seed", str(SAMPLE), "--dry-run", variables=poor)
    assert dry.returncode == 0
    assert not (fleet.folder / "state").exists()
    said = {
        "plan": "plan: needs you: 'gemini', the CLI of gemini, was not found; install it",
        "tests": "tests: needs you: 'codex', the CLI of codex, was not found; install it",
    }
    assert all(line in dry.stdout for line in said.values())
    assert "docs: needs you: 'claude', the CLI of claude, was not found" in dry.stdout
    real = typed(fleet, "tasks", "seed", str(SAMPLE), variables=poor)
    assert "4 need you\n" in real.stdout
    assert all(line in real.stdout for line in said.values())
    # What is missing for several tasks is said once.
    claude = "docs, review: need you: 'claude', the CLI of claude, was not found; install it"
    assert real.stdout.count("the CLI of claude") == real.stdout.count(claude) == 1
    ran = typed(fleet, "run", str(SAMPLE), variables=poor)
    assert ran.returncode == 1
    assert re.search(r"▲ +plan +blocked +needs you: 'gemini', the CLI of gemini", ran.stdout)
    assert "TASK_CLAIMED" not in fleet.kinds()


def test_run_says_what_is_missing_before_it_begins(fleet: AgentFleet) -> None:
    del fleet.variables["CODEX_API_KEY"]
    dag = fleet.dag(agent_task("good"), agent_task("bad", agent="codex"))
    done = typed(fleet, "run", str(dag))
    assert done.returncode == 1
    assert "bad: needs you: codex is not logged in: run `codex login`" in done.stderr
    assert fleet.state("good") == "DONE"


@pytest.mark.parametrize(
    ("scenario", "settings", "why"),
    [
        ("no-login", "", r"claims of claude are held, .+: log in, then `agentmux resume claude`"),
        (
            "edits",
            "budget: 0.0001\n",
            r"claude are held, .+ spent.*: raise `budget:` .+, then run again",
        ),
    ],
)
def test_a_run_that_ends_because_an_agent_is_held_says_why_and_what_lifts_it(
    fleet: AgentFleet, scenario: str, settings: str, why: str
) -> None:
    fleet.settings(settings)
    dag = fleet.dag(agent_task("a"), agent_task("b", "a"), agent_task("c", "a"))
    done = typed(fleet, "run", str(dag), variables={"STANDIN": scenario})
    assert done.returncode == 1
    assert re.search(why, done.stdout), done.stdout


def test_a_run_says_once_that_a_limit_holds_it_and_resume_ends_the_wait(
    fleet: AgentFleet,
) -> None:
    dag = str(fleet.dag(agent_task("a"), agent_task("b")))
    process = subprocess.Popen(
        [*PROGRAM, "run", dag],
        cwd=fleet.folder,
        env=ENVIRONMENT | fleet.variables | {"STANDIN": "rate-limit"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        held = (
            r"claims of claude are held \(.+limit.+\); they go on by themselves in .+, or with .+\n"
        )
        assert re.fullmatch(held, process.stderr.readline())
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, err) == (130, "")
    assert re.search(r"\(interrupted; claims of claude are held, .+limit", out), out
    assert "or after `agentmux resume claude`" in typed(fleet, "explain", "a").stdout
    assert typed(fleet, "resume", "claude").stdout == "claude: resumed\n"
    assert typed(fleet, "run", dag, "--timeout", "60").returncode == 0
    fleet.check()


def ways_back() -> list[str]:
    """Return the commands of the README that bring saved work back."""
    return re.findall(r"^git worktree add .*?$", README, re.MULTILINE)


def test_what_was_saved_comes_back_with_the_command_of_the_readme(fleet: AgentFleet) -> None:
    first, *others = [shlex.split(line, comments=True) for line in ways_back()]
    assert others == [first]
    variables = {"STANDIN": "fails", "STANDIN_WRITE": "half.txt"}
    assert typed(fleet, "run", str(fleet.dag(agent_task())), variables=variables).returncode == 1
    (ref,) = fleet.saved()
    assert ref in git(fleet.folder, "for-each-ref", "refs/agentmux/saved")
    assert typed(fleet, "worktrees", "prune", "--keep", "0", "--yes").returncode == 0
    assert not fleet.worktree().exists()
    files = fleet.belongings()["files"]
    words = [ref if word == "refs/agentmux/saved/TASK/RUN" else word for word in first]
    subprocess.run(words, cwd=fleet.folder, check=True, capture_output=True, timeout=PATIENCE)
    assert (fleet.folder.parent / "rescued" / "half.txt").read_text() == "Do it."
    assert git(fleet.folder, "rev-parse", "rescued") == fleet.saved()[ref]
    assert fleet.belongings()["files"] == files
