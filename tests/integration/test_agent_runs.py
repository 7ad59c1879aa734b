"""A task of kind `agent` runs a CLI in a worktree of its own, and nothing of its work is lost."""

from __future__ import annotations

import asyncio
import errno
import json
import signal
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import psutil
import pytest
from support.agents import PERSON, AgentFleet, a_fleet, agent_task
from support.engines import until
from support.patience import PATIENCE
from support.program import agentmux
from support.repositories import git, refs
from support.stores import select

from engine.commands import Cancel, Kill, Retry, Seed
from engine.executors.agent import following, reporting, watching
from engine.executors.programs import finish
from engine.model import EventType
from engine.shield import shielded
from engine.workspaces import errors

if TYPE_CHECKING:
    from pathlib import Path

    from engine.core import Engine
    from engine.executors.base import RunContext
    from engine.model import TaskDef
    from engine.processes.trees import Child


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AgentFleet:
    return a_fleet(tmp_path, monkeypatch)


def lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


# -- what a run does and leaves --------------------------------------------------------------


@pytest.mark.parametrize("agent", ["claude", "codex", "gemini"])
async def test_an_agent_works_on_a_branch_of_its_own_and_the_user_sees_none_of_it(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch, agent: str
) -> None:
    monkeypatch.setenv("STANDIN", "edits")
    before = fleet.belongings()
    base = git(fleet.folder, "rev-parse", "HEAD")
    await fleet.carry_out(agent_task(agent=agent, prompt="Write {{task.name}}.", expect="commit"))
    assert fleet.kinds("a")[-2:] in (
        ["TASK_STARTED", "TASK_COMPLETED"],
        ["TASK_PROGRESS", "TASK_COMPLETED"],
    )
    result = fleet.result()
    branch = "agentmux/a/1"
    assert (result["branch"], result["base"], result["commits"]) == (branch, base, 1)
    assert result["head"] == git(fleet.folder, "rev-parse", branch)
    assert result["text"] == "Written and committed."
    assert result["exitCode"] == 0
    assert fleet.shown(branch, "standin.txt") == "Write a."
    assert git(fleet.folder, "rev-parse", f"{branch}^") == base
    assert fleet.saved() == {}
    assert fleet.belongings() == before
    fleet.check()


async def test_a_run_leaves_its_prompt_its_transcript_and_when_each_line_came(
    fleet: AgentFleet,
) -> None:
    await fleet.carry_out(agent_task(prompt="Fix it.\nAll of it."))
    folder = fleet.artifacts()
    assert (folder / "prompt.md").read_text() == "Fix it.\nAll of it."
    transcript = lines(folder / "transcript.jsonl")
    assert json.loads(transcript[-1])["type"] == "result"
    about = json.loads((folder / "agent.json").read_text())
    assert (about["cli"], about["format"]) == ("claude", "claude")
    *_, last = lines(folder / "transcript.times")
    assert int(last.split()[1]) == (folder / "transcript.jsonl").stat().st_size
    assert datetime.fromisoformat(last.split()[0]) <= datetime.now(UTC)
    for name in ("prompt.md", "transcript.jsonl", "transcript.times", "result.json"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600


async def test_what_a_run_took_is_known(fleet: AgentFleet) -> None:
    await fleet.carry_out(agent_task())
    (row,) = select(fleet.layout, "SELECT turns, input_tokens, output_tokens, cost FROM runs")
    assert all(value > 0 for value in row.values())
    (spent,) = select(fleet.layout, "SELECT agent, runs, cost FROM spent")
    assert spent == {"agent": "claude", "runs": 1, "cost": row["cost"]}


async def test_tokens_without_a_price_cost_what_the_operator_says(fleet: AgentFleet) -> None:
    fleet.settings("agents: {codex: {prices: {input: 2, cached: 1, output: 10}}}\n")
    await fleet.carry_out(agent_task(agent="codex"))
    columns = "input_tokens AS i, cached_tokens AS c, output_tokens AS o, cost"
    (row,) = select(fleet.layout, f"SELECT {columns} FROM runs")
    cost = ((row["i"] - row["c"]) * 2 + row["c"] * 1 + row["o"] * 10) / 1_000_000
    assert row["cost"] == pytest.approx(cost)
    assert cost > 0


async def test_what_an_agent_does_now_is_told(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_PACE", "0.6")
    await fleet.carry_out(agent_task())
    notes = [e.data["note"] for e in fleet.events("a") if e.type is EventType.TASK_PROGRESS]
    assert "Edit src/shop.py" in notes
    assert "Bash pytest -q" in notes


async def test_the_results_of_deps_are_there_by_name(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "edits")
    said = "Go on from {{deps.a.branch}}: {{deps.a}} ({{task.attempt}}, {{task.branch}})"
    await fleet.carry_out(agent_task("a"), agent_task("b", "a", prompt=said))
    want = "Go on from agentmux/a/1: Written and committed. (1, agentmux/b/1)"
    assert (fleet.artifacts("b") / "prompt.md").read_text() == want
    assert fleet.shown("agentmux/b/1", "standin.txt") == want


async def test_a_prompt_can_be_a_file(fleet: AgentFleet) -> None:
    (fleet.folder / "ask.md").write_text("Please, {{task.id}}.")
    await fleet.carry_out(agent_task(promptFile="ask.md"))
    assert (fleet.artifacts() / "prompt.md").read_text() == "Please, a."


async def test_a_prompt_is_no_shell_command(fleet: AgentFleet) -> None:
    nasty = "$(touch owned) `touch owned`; touch owned # \"'\n--version"
    fleet.settings("agents: {mine: {command: [printf, '%s', '{prompt}'], prompt: argv}}\n")
    await fleet.carry_out(agent_task(prompt=nasty), agent_task("b", agent="mine", prompt=nasty))
    assert fleet.states() == {"DONE": 2}
    assert (fleet.artifacts("b") / "transcript.jsonl").read_text() == nasty
    assert not list(fleet.folder.rglob("owned"))


async def test_any_program_can_be_an_agent(fleet: AgentFleet) -> None:
    fleet.settings(
        "agents: {mine: {command: [sh, -c, 'cat; pwd; echo $HELLO'], env: {HELLO: you}}}\n"
    )
    await fleet.carry_out(agent_task(agent="mine", prompt="Say it.\n"))
    said = lines(fleet.artifacts() / "transcript.jsonl")
    assert said == ["Say it.", str(fleet.worktree().resolve()), "you"]


# -- how it ends -----------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["fails", "sudden-death"])
async def test_a_run_that_failed_uses_an_attempt_and_says_why(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch, scenario: str
) -> None:
    monkeypatch.setenv("STANDIN", scenario)
    monkeypatch.setattr("engine.machine.FIRST_BACKOFF", 0.02)
    monkeypatch.setenv("STANDIN_WRITE", "half.txt")
    await fleet.carry_out(agent_task(retries=1))
    assert fleet.kinds("a").count("TASK_FAILED") == 2
    error = fleet.last().data["error"]
    assert {"fails": "failed", "sudden-death": "SIGKILL"}[scenario] in error
    assert len(fleet.saved()) == 2
    assert {fleet.shown(ref, "half.txt") for ref in fleet.saved()} == {"Do it."}


async def test_who_has_used_up_its_turns_goes_on_where_it_was_but_not_for_ever(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "turn-limit")
    monkeypatch.setattr("engine.machine.FIRST_BACKOFF", 0.02)
    await fleet.carry_out(agent_task(retries=1))
    ends = [event for event in fleet.events("a") if "outcome" in event.data]
    # Each of the two attempts is given a second run, in the same worktree.
    assert [event.data["outcome"] for event in ends] == ["released", "failed"] * 2
    assert [event.data["attempts"] for event in ends] == [0, 1, 1, 2]
    assert all("used up its turns" in event.data["error"] for event in ends)
    branches = [event.data["result"]["branch"] for event in ends]
    assert branches == ["agentmux/a/1"] * 2 + ["agentmux/a/2"] * 2
    assert select(fleet.layout, "SELECT * FROM holds") == []


async def test_at_a_limit_the_task_waits_as_long_as_the_agent_says_and_so_do_the_others(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    resets = datetime.now(UTC) + timedelta(hours=2)
    monkeypatch.setenv("STANDIN", "rate-limit")
    monkeypatch.setenv("STANDIN_RESETS", str(int(resets.timestamp())))
    async with fleet.engine() as engine:
        await engine.execute(Seed(fleet.dag(agent_task("a"), agent_task("b"))))
        await engine.start_worker("claude")
        await until(lambda: "HELD" in fleet.kinds(), "its claims are held")
        (hold,) = await engine.queries.holds()
        assert (hold.agent, hold.cause) == ("claude", "limit")
        assert hold.until is not None
        assert timedelta(0) < hold.until - resets < timedelta(minutes=1)
        task = await engine.queries.task("a")
        assert (task.state, task.attempts, task.not_before) == ("READY", 0, hold.until)
    assert fleet.kinds().count("TASK_CLAIMED") == 1


async def test_a_login_that_is_missing_holds_the_agent_and_blames_no_task(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "no-login")
    await fleet.carry_out(
        agent_task("a"), agent_task("b"), agent_task("c", agent="codex", cli="mine")
    )
    (hold,) = select(fleet.layout, "SELECT * FROM holds")
    assert (hold["agent"], hold["cause"], hold["until"]) == ("claude", "login", None)
    assert "/login" in hold["reason"]
    assert (fleet.state("a"), fleet.state("b")) == ("READY", "READY")
    assert fleet.kinds().count("TASK_RELEASED") == 1


async def test_what_was_expected_and_is_not_there_fails_the_run(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_WRITE", "there.txt")
    (fleet.folder / "outside").write_text("x")
    await fleet.carry_out(
        agent_task("commit", expect="commit"),
        agent_task("file", expect={"file": "not/there.txt"}),
        agent_task("there", expect={"file": "there.txt"}),
        agent_task("long", expect={"file": "x" * 300}),
    )
    errors = {name: fleet.last(name).data.get("error") for name in ("commit", "file", "long")}
    assert errors == {
        "commit": "expected a commit, and agentmux/commit/1 has none",
        "file": "expected the file not/there.txt, and it is not there",
        "long": f"expected the file {'x' * 300}, and it is not there",
    }
    assert fleet.state("there") == "DONE"


GH = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/asked"
printf '%s' '[{"number":7,"url":"https://github.com/acme/site/pull/7","state":"OPEN",
"headRefName":"agentmux/a/1","isCrossRepository":false},{"number":9,"url":"x","state":"OPEN",
"headRefName":"agentmux/a/1","isCrossRepository":true}]'
"""


def put_gh(fleet: AgentFleet, script: str) -> Path:
    program = fleet.folder.parent / "bin" / "gh"
    program.write_text(script)
    program.chmod(0o755)
    git(fleet.folder, "remote", "add", "origin", "git@github.com:acme/site.git")
    return program


async def test_a_pull_request_is_asked_for_by_branch_and_stands_in_the_result(
    fleet: AgentFleet,
) -> None:
    program = put_gh(fleet, GH)
    await fleet.carry_out(agent_task(expect="pull-request"))
    assert fleet.result()["pullRequest"] == {
        "number": 7,
        "url": "https://github.com/acme/site/pull/7",
        "state": "OPEN",
    }
    asked = (program.parent / "asked").read_text()
    assert asked.startswith("pr list --repo acme/site --head agentmux/a/1 --state all")


@pytest.mark.parametrize(
    ("script", "state", "why"),
    [
        ("#!/bin/sh\necho '[]'\n", "FAILED", "agentmux/a/1, and acme/site has none"),
        ("#!/bin/sh\necho nothing; exit 0\n", "FAILED", "does not answer as expected"),
        ("#!/bin/sh\necho 'HTTP 502' >&2; exit 1\n", "FAILED", "gh pr list failed: HTTP 502"),
        # The next run would fare the same, and cost as much.
        ("#!/bin/sh\nexit 4\n", "BLOCKED", "gh is not logged in: run `gh auth login`"),
    ],
)
async def test_without_a_pull_request_the_run_has_failed_and_says_why(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch, script: str, state: str, why: str
) -> None:
    monkeypatch.setattr(reporting, "_AGAIN", 0.0)
    put_gh(fleet, script)
    await fleet.carry_out(agent_task(expect="pull-request"))
    assert fleet.state("a") == state
    assert why in fleet.last().data["error"]


async def test_a_hiccup_of_github_costs_no_work(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "_AGAIN", 0.0)
    hiccup = 'asked="$(dirname "$0")/asked"; [ -e "$asked" ] || { touch "$asked"; exit 1; }\n'
    put_gh(fleet, GH.replace("#!/bin/sh\n", f"#!/bin/sh\n{hiccup}"))
    await fleet.carry_out(agent_task(expect="pull-request"))
    assert fleet.result()["pullRequest"]["number"] == 7


# -- what cannot be done ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ({"cli": "nobody"}, "agentmux knows no CLI 'nobody': give its `command:`"),
        ({"cli": "lost"}, "'not-there', the CLI of lost, was not found"),
        ({"promptFile": "none.md"}, "the prompt none.md cannot be read: No such file"),
        ({"workspace": {"url": "/nowhere/at/all"}}, "no worktree: "),
        ({"workspace": {"branch": "nope"}}, "no worktree: "),
        ({"model": "m", "cli": "plain"}, "plain has no place for a model"),
    ],
)
async def test_what_no_retry_can_mend_needs_a_person(
    fleet: AgentFleet, payload: dict[str, object], why: str
) -> None:
    fleet.settings("agents: {lost: {command: not-there}, plain: {command: cat}}\n")
    await fleet.carry_out(agent_task(**payload))  # type: ignore[arg-type]  # as a DAG file has it
    assert fleet.state("a") == "BLOCKED"
    assert why in fleet.error()


async def test_without_a_login_nothing_is_started(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    await fleet.carry_out(agent_task())
    assert fleet.error().startswith("claude is not logged in: start `claude` once")
    assert "TASK_CLAIMED" not in fleet.kinds()


async def test_who_is_to_commit_and_has_no_name_for_it_is_told_before_any_work(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PERSON:
        monkeypatch.delenv(name)
    git(fleet.folder, "config", "user.useConfigOnly", "true")  # else git may guess
    dag = fleet.dag(agent_task(expect="commit"), agent_task("b"))
    async with fleet.engine() as engine:
        receipt = await engine.execute(Seed(dag), dry_run=True)
        assert "git does not know in whose name" in receipt.done["a"]
        assert receipt.done["b"] == "created"
        for name in ("name", "email"):
            git(fleet.folder, "config", f"user.{name}", "x")
        receipt = await engine.execute(Seed(dag), dry_run=True)
        assert receipt.done["a"] == "created"


async def test_a_project_without_a_repository_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_fleet(tmp_path, monkeypatch)
    bare = tmp_path / "bare"
    bare.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    fleet = AgentFleet(bare)
    await fleet.carry_out(agent_task())
    assert fleet.state("a") == "BLOCKED"
    assert "git" in fleet.error()


async def test_who_ends_on_a_branch_without_a_commit_is_told_so_and_its_work_is_saved(
    fleet: AgentFleet,
) -> None:
    fleet.settings("setup: [git, checkout, -q, --orphan, fresh]\n")
    await fleet.carry_out(agent_task())
    assert fleet.state("a") == "DONE"
    result = fleet.result()
    assert (result["note"], result["commits"]) == ("it ended on a branch that has no commit", 0)
    assert list(fleet.saved()) == [result["saved"]]


# -- the setup -------------------------------------------------------------------------------


async def test_the_setup_runs_in_the_worktree_before_the_agent_and_has_a_log(
    fleet: AgentFleet,
) -> None:
    fleet.settings("setup: [sh, -c, 'pwd; echo made > made.txt']\n")
    await fleet.carry_out(agent_task(expect={"file": "made.txt"}))
    assert fleet.state("a") == "DONE"
    assert lines(fleet.artifacts() / "setup.log") == [str(fleet.worktree().resolve())]


async def test_a_setup_that_fails_ends_the_run_with_what_it_said_of_it_and_where_the_rest_is(
    fleet: AgentFleet,
) -> None:
    fleet.settings("setup: [sh, -c, 'echo npm error EUSAGE >&2; echo See: x.log >&2; exit 3']\n")
    await fleet.carry_out(agent_task())
    log = (fleet.artifacts() / "setup.log").relative_to(fleet.folder)
    told = f"setup failed (exit code 3): npm error EUSAGE; see {log}"
    assert fleet.last().data["error"] == told
    assert not (fleet.artifacts() / "transcript.jsonl").exists()


@pytest.mark.parametrize(
    ("said", "telling"),
    [
        ("", ""),
        ("begun\nno luck\n\n", "no luck"),
        ("0 errors\nnpm ERR! code EUSAGE\nnpm ERR! A complete log: x.log", "npm ERR! code EUSAGE"),
        ("error-prone 1.0\n  ModuleNotFoundError: No module y", "ModuleNotFoundError: No module y"),
        ("sh: 1: npm: not found\nbye", "sh: 1: npm: not found"),
    ],
)
def test_of_what_a_setup_said_that_line_is_told_which_says_why(said: str, telling: str) -> None:
    assert reporting.telling_line(said) == telling


async def test_a_stop_in_the_moment_in_which_the_setup_ends_is_obeyed(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, go_on = asyncio.Event(), asyncio.Event()

    async def slow(context: RunContext, child: Child) -> int:
        code = await finish(context, child)
        ended.set()
        # As while its tree is ended: a cancellation is swallowed here.
        await shielded(go_on.wait(), reraise=False)
        return code

    monkeypatch.setattr(watching, "finish", slow)
    monkeypatch.setenv("STANDIN", "endless")
    fleet.settings("setup: 'true'\n")
    async with asyncio.timeout(PATIENCE), fleet.engine() as engine:
        await engine.execute(Seed(fleet.dag(agent_task())))
        await engine.start_worker("claude")
        await ended.wait()
        run = engine._host.workers["claude-1"]._run
        assert run is not None
        stopping = asyncio.create_task(engine.stop_workers())
        await until(run.cancelling, "the stop has come")
        go_on.set()
        await stopping
    assert fleet.state("a") == "READY"
    assert not (fleet.artifacts() / "transcript.jsonl").exists()


async def test_a_file_stop_ends_the_setup_too(fleet: AgentFleet) -> None:
    fleet.settings("grace: 0.5\nsetup: [sh, -c, 'touch begun; sleep 60']\n")
    async with fleet.engine() as engine:
        await engine.execute(Seed(fleet.dag(agent_task())))
        await engine.start_worker("claude")
        await until((fleet.worktree() / "begun").exists, "the setup has begun")
        (fleet.worktree() / "STOP").touch()
        await until(lambda: fleet.state("a") == "BLOCKED", "it has stopped")
    assert "stopped by a file STOP" in fleet.error()
    assert not (fleet.worktree() / "STOP").exists()
    assert not (fleet.artifacts() / "transcript.jsonl").exists()
    assert not agents_alive(fleet)


# -- programs that do not behave -------------------------------------------------------------

ODD = """
import glob, json, os, sys, time
def say(**line):
    os.write(1, json.dumps(line).encode() + b"\\n")
def agent(words):
    say(type="assistant", message={"content": [{"type": "text", "text": words}]})
def result(words="Done.", end=b"\\n"):
    line = {"type": "result", "subtype": "success", "is_error": False, "result": words}
    os.write(1, json.dumps(line).encode() + end)
agent("I begin.")
"""


BROKEN = b'{"type":"result","subtype":"success","is_error":false,"result":"caf\xe9"}\n'


async def behave(fleet: AgentFleet, script: str, settings: str = "") -> None:
    """Do a task by a program that speaks like Claude Code."""
    await fleet.carry_out(odd(fleet, script, settings))


def odd(fleet: AgentFleet, script: str, settings: str = "") -> TaskDef:
    """Return a task for a program that speaks like Claude Code."""
    program = fleet.folder.parent / "odd.py"
    program.write_text(ODD + script)
    command = json.dumps([sys.executable, "-IS", str(program)])
    fleet.settings(
        f"grace: 0.5\n{settings}agents: {{odd: {{command: {command}, format: claude}}}}\n"
    )
    return agent_task(agent="odd")


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("result(end=b'')", "Done."),
        (f"os.write(1, {BROKEN!r})", "caf\ufffd"),
        ("result(); os.close(1); time.sleep(0.3); open('late.txt', 'w').close()", "Done."),
        ("os.write(2, b'noise ' * 200_000); result()", "Done."),
        ("result('first'); agent('more'); result('last')", "last"),
        ("[os.unlink(path) for path in glob.glob('../../../artifacts/a/*/t*')]; result()", "Done."),
    ],
    ids=["no last line end", "no UTF-8", "closes its output", "a flood on stderr", "two turns",
         "removes its transcript"],
)  # fmt: skip
async def test_odd_ways_of_speaking_are_understood(
    fleet: AgentFleet, script: str, text: str
) -> None:
    await behave(fleet, script, "shell: {max_output: 65536}\n")
    assert fleet.state("a") == "DONE", fleet.error()
    assert fleet.result()["text"] == text
    assert (fleet.artifacts() / "stderr.log").stat().st_size <= 65536
    if "late.txt" in script:
        assert (fleet.worktree() / "late.txt").exists()


async def test_an_agent_commits_in_the_name_that_the_environment_gives(fleet: AgentFleet) -> None:
    await behave(fleet, "os.system('git commit -q --allow-empty -m x'); result()")
    name = git(fleet.folder, "log", "-1", "--format=%an <%ae>", "agentmux/a/1")
    assert name == "Somebody <somebody@localhost>"


async def test_megabytes_without_a_line_end_are_one_unknown_line(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_LONGEST_LINE", 1_000_000)
    script = "for _ in range(100): os.write(1, b'x' * 100_000)\n"
    await behave(fleet, f"{script}os.write(1, b'\\n'); result()")
    assert fleet.state("a") == "DONE"
    assert fleet.result()["unknownLines"] == 1
    assert (fleet.artifacts() / "transcript.jsonl").stat().st_size > 10_000_000


async def test_a_cli_that_has_given_its_result_and_does_not_end_is_ended_and_loses_nothing(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_LINGER", 0.5)
    await behave(fleet, "result()\nwhile True: say(type='keep_alive'); time.sleep(0.02)\n")
    assert fleet.state("a") == "DONE"
    result = fleet.result()
    assert (result["text"], result["exitCode"]) == ("Done.", -signal.SIGTERM)
    assert "did not end" in result["note"]


@pytest.mark.parametrize("how", ["its time is over", "stop", "a file STOP"])
async def test_a_result_that_was_given_counts_whatever_ends_the_run_afterwards(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "its time is over":
        monkeypatch.setattr(following, "_LATE", 59.0)
        monkeypatch.setattr(following, "_SHARE", 1.0)
    given = fleet.folder.parent / "given"
    script = f"result()\nopen({str(given)!r}, 'w').close()\ntime.sleep(60)\n"
    task = odd(fleet, script)
    async with fleet.engine() as engine:
        await engine.execute(Seed(fleet.dag(task)))
        await engine.start_worker("odd")
        if how != "its time is over":
            await until(given.exists, "it has given its result")
        if how == "stop":
            await engine.stop_workers()
        elif how == "a file STOP":
            (fleet.worktree() / "STOP").touch()
        await until(lambda: fleet.state("a") == "DONE", "it is done")
    assert fleet.result()["text"] == "Done."
    assert "did not end" in fleet.result()["note"]


async def test_who_would_wait_for_a_limit_beyond_its_time_goes_on_when_that_is_over(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_LATE", 59.0)
    monkeypatch.setattr(following, "_SHARE", 1.0)
    waits = "say(type='system', subtype='api_retry', error='rate_limit', error_status=429)\n"
    task = odd(fleet, f"{waits}time.sleep(60)\n")
    async with fleet.engine() as engine:
        await engine.execute(Seed(fleet.dag(task)))
        await engine.start_worker("odd")
        await until(lambda: "HELD" in fleet.kinds(), "its claims are held")
    assert fleet.last().type is EventType.TASK_RELEASED
    assert "limit is reached: the API said rate_limit (429)" in fleet.last().data["error"]
    assert fleet.state("a") == "READY"


async def test_secrets_reach_neither_the_transcript_nor_what_is_told_of_it(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "tok-0123456789")
    script = (
        "token = os.environ['SHOP_TOKEN']; agent(token); os.write(2, token.encode())\n"
        "say(type='system', subtype='init', session_id=token, model=token)\n"
        "os.system('git init -q ' + token); open(token + '/x', 'w').close()\n"
    )
    await behave(fleet, f"{script}result('It is ' + token)")
    # Read before or after it was written over, with as many bytes.
    shown = {"[SHOP_TOKEN]", "[SHOP_TOKEN]**"}
    told = fleet.result()
    assert told["text"].removeprefix("It is ") in shown
    assert {told["session"], told["model"]} <= shown
    assert any("[SHOP_TOKEN]" in name for name in told["notSaved"])
    left = b"".join(path.read_bytes() for path in fleet.artifacts().iterdir())
    store = b"".join(path.read_bytes() for path in fleet.layout.state.glob("*.*"))
    assert b"tok-0123456789" not in left + store
    transcript = lines(fleet.artifacts() / "transcript.jsonl")
    types = [json.loads(line)["type"] for line in transcript]
    assert types == ["assistant", "assistant", "system", "result"]


# -- whatever ends a run ---------------------------------------------------------------------


async def endless(fleet: AgentFleet, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an agent work for ever, with something that is not committed."""
    monkeypatch.setenv("STANDIN", "endless")
    monkeypatch.setenv("STANDIN_WRITE", "half.txt")
    await engine.execute(Seed(fleet.dag(agent_task())))
    await engine.start_worker("claude")
    await until((fleet.worktree() / "half.txt").exists, "the agent has written")
    await until(lambda: fleet.state("a") == "RUNNING", "it runs")


def agents_alive(fleet: AgentFleet) -> list[int]:
    """Return the processes that stand in one of the worktrees."""
    alive = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(fleet.folder / "worktrees")):
                alive.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return alive


@pytest.mark.parametrize("how", ["stop", "cancel", "kill"])
async def test_what_is_not_committed_is_saved_however_a_run_is_ended(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    before = fleet.belongings()
    async with fleet.engine() as engine:
        await endless(fleet, engine, monkeypatch)
        if how == "stop":
            await engine.stop_workers()
        else:
            await engine.execute(Cancel(("a",)) if how == "cancel" else Kill(("a",)))
        await until(fleet.saved, "its work is saved")
        await until(lambda: not agents_alive(fleet), "nothing of it is alive")
    assert fleet.state("a") == {"stop": "READY", "cancel": "CANCELLED", "kill": "FAILED"}[how]
    (ref,) = fleet.saved()
    assert fleet.shown(ref, "half.txt") == "Do it."
    assert fleet.belongings() == before
    fleet.check()


async def test_what_is_not_committed_is_saved_when_the_time_is_over(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "endless")
    monkeypatch.setenv("STANDIN_WRITE", "half.txt")
    await fleet.carry_out(agent_task(timeout=2.0))
    assert "timed out" in fleet.last().data["error"]
    await until(fleet.saved, "its work is saved")
    (ref,) = fleet.saved()
    assert fleet.shown(ref, "half.txt") == "Do it."


async def test_a_run_that_was_stopped_goes_on_in_the_same_worktree(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fleet.engine() as engine:
        await endless(fleet, engine, monkeypatch)
        await engine.stop_workers()
    monkeypatch.setenv("STANDIN", "edits")
    monkeypatch.delenv("STANDIN_WRITE")
    await fleet.carry_out(agent_task())
    assert fleet.state("a") == "DONE"
    assert (fleet.worktree() / "half.txt").read_text() == "Do it."
    assert refs(fleet.folder, "refs/heads/agentmux").keys() == {"refs/heads/agentmux/a/1"}


async def test_a_file_stop_in_the_worktree_ends_the_run_and_asks_for_a_person(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fleet.engine() as engine:
        await endless(fleet, engine, monkeypatch)
        (fleet.worktree() / "STOP").touch()
        await until(lambda: fleet.state("a") == "BLOCKED", "it has stopped")
        assert "stopped by a file STOP" in fleet.last().data["error"]
        assert not agents_alive(fleet)
        # It has done its work: no commit of the agent can take it along.
        assert not (fleet.worktree() / "STOP").exists()
        monkeypatch.setenv("STANDIN", "ok")
        await engine.execute(Retry(("a",)))
        await until(lambda: fleet.state("a") == "DONE", "it goes on")


async def test_a_file_stop_that_is_part_of_the_repository_stops_nothing_and_stays(
    fleet: AgentFleet,
) -> None:
    (fleet.folder / "STOP").write_text("Stop! In the name of love\n")
    git(fleet.folder, "add", "STOP")
    git(fleet.folder, "commit", "-q", "-m", "a song")
    await fleet.carry_out(agent_task())
    assert fleet.state("a") == "DONE"
    assert (fleet.worktree() / "STOP").exists()


async def test_a_child_that_an_agent_leaves_behind_is_ended_with_it(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "leaves-child")
    await fleet.carry_out(agent_task())
    assert fleet.state("a") == "DONE"
    assert not agents_alive(fleet)


async def test_an_agent_that_ignores_sigterm_is_ended_all_the_same(
    fleet: AgentFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.settings("grace: 0.5\n")
    monkeypatch.setenv("STANDIN", "ignores-term")
    async with fleet.engine() as engine:
        await engine.execute(Seed(fleet.dag(agent_task())))
        await engine.start_worker("claude")
        await until(lambda: agents_alive(fleet), "it works")
        await engine.stop_workers()
    assert not agents_alive(fleet)
    assert fleet.state("a") == "READY"


async def test_what_a_host_left_that_was_killed_is_saved_by_the_next(fleet: AgentFleet) -> None:
    fleet.settings("lease: 2\nrenew: 0.5\nheartbeat: 0.2\nstale_after: 1\ngrace: 0.5\n")
    fleet.variables |= {"STANDIN": "endless", "STANDIN_WRITE": "half.txt"}
    before = fleet.belongings()
    async with fleet.engine() as engine:
        await engine.execute(Seed(fleet.dag(agent_task())))
    worker = fleet.work("claude-1", agent="claude")
    await until((fleet.worktree() / "half.txt").exists, "the agent has written")
    worker.send_signal(signal.SIGKILL)
    await asyncio.to_thread(worker.wait)
    await until(lambda: not agents_alive(fleet), "its guard has ended the agent")
    assert fleet.saved() == {}
    async with fleet.engine() as engine:
        await engine.start_worker("other")
        await until(lambda: fleet.state("a") == "READY", "the run is expired")
        (ref,) = fleet.saved()
    assert fleet.shown(ref, "half.txt") == "Do it."
    assert fleet.belongings() == before
    fleet.check()


async def test_the_branch_of_each_run_is_told_however_it_ended(
    fleet: AgentFleet,
) -> None:
    fleet.settings("setup: 'false'\n")
    await fleet.carry_out(agent_task())
    fleet.settings("")
    async with asyncio.timeout(PATIENCE), fleet.engine() as engine:
        await engine.execute(Retry(("a",)))
        await engine.start_workers()
        await engine.settled()
    told = agentmux(fleet.folder, "tasks", "show", "a")
    lines = told.stdout[told.stdout.index("runs, newest first") :].splitlines()
    assert lines[1].split()[0] == "branch"
    assert [line.split()[1] for line in lines[2:4]] == ["agentmux/a/2", "agentmux/a/1"]
    runs = json.loads(agentmux(fleet.folder, "tasks", "show", "a", "--json").stdout)["runs"]
    assert [(run["outcome"], run["branch"]) for run in runs] == [
        ("done", "agentmux/a/2"),
        ("failed", "agentmux/a/1"),
    ]
    silent = agentmux(fleet.folder, "transcript", "a", "--run", runs[1]["id"])
    assert silent.returncode == 1
    assert f"it ended before its agent began: {runs[1]['error']}" in silent.stderr


# -- what the disk refuses -------------------------------------------------------------------


@pytest.mark.parametrize("what", ["worktrees", "artifacts", "repository"])
async def test_where_nobody_may_write_a_person_is_needed_and_no_attempt_is_wasted(
    fleet: AgentFleet, what: str
) -> None:
    nowhere = "/sys"  # nobody may make a folder there, root neither; on macOS there is none
    if what == "worktrees":
        fleet.settings(f"worktrees: {{folder: {nowhere}/worktrees}}\n")
    elif what == "artifacts":
        (fleet.folder / "artifacts").symlink_to(nowhere)
    else:
        (fleet.folder / ".git" / "worktrees").symlink_to(nowhere)
    await fleet.carry_out(agent_task(retries=3))
    assert fleet.state("a") == "BLOCKED"
    assert len(select(fleet.layout, "SELECT id FROM runs")) == 1
    assert fleet.error().endswith("then retry the task")


@pytest.mark.parametrize(("number", "lasts"), [(errno.EROFS, True), (errno.ENOSPC, False)])
def test_a_full_disk_is_tried_again_and_one_that_may_only_be_read_is_not(
    number: int, *, lasts: bool
) -> None:
    error = errors.trouble("x", OSError(number, "y"))
    assert error.hopeless is lasts
    assert str(error) == f"x: y; mend that, {'then retry the task' if lasts else 'try again'}"
