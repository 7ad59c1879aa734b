"""`agentmux transcript` as its users run it: real processes over what runs left behind."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from typing import TYPE_CHECKING

import pytest
from support import transcripts
from support.patience import PATIENCE
from support.program import ENVIRONMENT, Project, on_terminal, outcome
from support.stores import a_dag, a_task, opened
from support.transcripts import CLAIMS, answers, calls, result, says

from engine.clock import SystemClock
from engine.files import Layout
from engine.model import Outcome, RunOutcome, Spending, TaskDef
from engine.text import cells

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from engine.model import Claim

AGENT = {"kind": "agent", "prompt": transcripts.PROMPT}


class Talks(Project):
    """A project whose runs were claimed by hand, with transcripts that a test writes."""

    def __init__(self, folder: Path, *more: TaskDef) -> None:
        super().__init__(folder)
        self.tasks = (a_task("talk", payload=AGENT, retries=3), *more)
        self.claims: list[Claim] = []

    def claim(self, said: Iterable[str] | None = None, agent: str = "codex") -> Claim:
        """Let an agent run, and say these things."""
        claim = asyncio.run(self._claim(agent))
        self.claims.append(claim)
        if said is not None:
            transcripts.write(self.artifacts(claim), said, prompt=transcripts.PROMPT)
        return claim

    async def _claim(self, agent: str) -> Claim:
        async with opened(self.folder, clock=SystemClock()) as at:
            await at.store.seed(a_dag(*self.tasks))
            await at.store.end_backoff()
            return await at.claim("codex-1", agent)

    def finish(self, claim: Claim, kind: RunOutcome = RunOutcome.DONE) -> None:
        asyncio.run(self._finish(claim, kind))

    async def _finish(self, claim: Claim, kind: RunOutcome) -> None:
        spending = Spending(turns=12, input_tokens=127_000, output_tokens=3_000, cost=1.24)
        error = None if kind is RunOutcome.DONE else "the tests fail"
        async with opened(self.folder, clock=SystemClock()) as at:
            await at.store.finish(claim, Outcome(kind, error=error, spending=spending))

    def artifacts(self, claim: Claim) -> Path:
        return Layout(self.state).run_folder(claim.task.id, claim.run_id)


@pytest.fixture
def project(tmp_path: Path) -> Talks:
    return Talks(tmp_path)


def test_it_tells_what_was_said_and_done_and_at_the_end_what_it_took(project: Talks) -> None:
    project.finish(project.claim([*CLAIMS, result("all twelve pass")]))
    told = project.ok("transcript", "talk")
    for words in (
        "prompt    Make the claim test pass",
        "agent     I'll look at how a claim is made, then at the test.",
        "tool      Read engine/store/claims.py",
        "          … 115 more lines",
        "↳ failed  Exit code 1",
        "result    done · 12 turns · 130k tokens · $1.24",
        "3 messages · 4 tool uses (Bash 2, Edit 1, Read 1) · 1 unknown line",
        "run #1 of talk: done · ",
        " · 12 turns · 130k tokens · $1.24",
    ):
        assert words in told, told
    assert "\x1b" not in told
    assert re.search(r"(?m)^\d\d:\d\d:\d\d  agent", told)


def test_a_run_that_is_named_without_its_option_is_told_how_to_say_it(project: Talks) -> None:
    done = project.run("transcript", "talk", "2")
    assert done.returncode == 2
    assert done.stderr.startswith("usage: agentmux transcript ")
    assert "unrecognized arguments: 2; did you mean --run 2?" in done.stderr


def test_who_speaks_in_pieces_is_named_once_for_each_message(project: Talks) -> None:
    claim = project.claim()
    said = [{"type": "message", "role": "assistant", "content": word, "delta": True}
            for word in ("Let me ", "look.")]  # fmt: skip
    use = {"type": "tool_use", "tool_name": "read_file", "tool_id": "t1", "parameters": {}}
    lines = [json.dumps(line) for line in (*said, use, *said)]
    transcripts.write(project.artifacts(claim), lines, prompt=transcripts.PROMPT, form="gemini")
    project.finish(claim)
    assert project.ok("transcript", "talk").count("agent     Let me look.") == 2


def test_detailed_cuts_nothing(project: Talks) -> None:
    project.finish(project.claim(CLAIMS))
    told = project.ok("transcript", "talk", "--detailed")
    assert "def step_119(self)" in told
    assert "WHERE id = ? AND state = 'READY'" in told
    assert "more line" not in told


def test_json_is_an_object_an_entry(project: Talks) -> None:
    project.finish(project.claim([says("hello"), calls("Bash", command="ls"), answers("x")]))
    told = project.ok("transcript", "talk", "--json").splitlines()
    lines = [json.loads(line) for line in told[:-1]]
    assert [line["kind"] for line in lines] == ["message", "message", "tool call", "tool result"]
    assert [line.get("role") for line in lines] == ["user", "agent", None, None]
    assert (lines[2]["tool"], lines[2]["text"]) == ("Bash", "ls")
    assert all(line["at"].endswith("Z") for line in lines)
    places = [line["place"] for line in lines]
    assert places == sorted(set(places))
    data = (project.artifacts(project.claims[0]) / "transcript.jsonl").read_bytes()
    assert b"hello" in data[lines[1]["line"] : lines[1]["end"]]


def test_json_ends_with_the_summary(project: Talks) -> None:
    claim = project.claim([*CLAIMS, result("all twelve pass")])
    project.finish(claim)
    last = json.loads(project.ok("transcript", "talk", "--json").splitlines()[-1])
    assert last.pop("seconds") >= 0
    assert last == {
        "kind": "summary",
        "taskId": "talk",
        "runId": claim.run_id,
        "attempt": 1,
        "outcome": "done",
        "error": None,
        "messages": 3,
        "toolUses": 4,
        "tools": {"Bash": 2, "Edit": 1, "Read": 1},
        "errors": 0,
        "unknownLines": 1,
        "spending": {
            "turns": 12, "inputTokens": 127_000, "cachedTokens": None, "outputTokens": 3_000,
            "cost": 1.24,
        },
    }  # fmt: skip


def test_a_run_is_named_by_its_attempt_or_its_id_and_the_newest_is_meant_without(
    project: Talks,
) -> None:
    first = project.claim([says("first try")])
    project.finish(first, RunOutcome.RELEASED)
    second = project.claim([says("second try")])
    project.finish(second)
    assert "second try" in project.ok("transcript", "talk")
    assert "first try" in project.ok("transcript", "talk", "--run", first.run_id)
    assert "second try" in project.ok("transcript", "talk", "--run", str(second.attempt))
    refused = project.refused("transcript", "talk", "--run", "77", code="VALIDATION_ERROR")
    assert "has no run '77'" in refused
    assert "agentmux history talk" in refused


def test_what_cannot_be_shown_is_refused_with_a_code_and_what_to_do(tmp_path: Path) -> None:
    other = a_task("build", agent="other", payload={"kind": "shell", "cmd": "true"})
    third = a_task("later", "talk", agent="third", payload=AGENT)
    plain = a_task("plain", "talk", agent="third")
    project = Talks(tmp_path, other, third, plain)
    talk = project.claim()
    project.claim(agent="other")
    for args, code, words in (
        (["nobody"], "TASK_NOT_FOUND", "no task 'nobody'"),
        (["later"], "TASK_NOT_READY", "'later' has not run yet"),
        (["build"], "VALIDATION_ERROR", "'build' is no agent's, but of kind shell"),
        (["plain"], "VALIDATION_ERROR", "'plain' is no agent's, but of kind noop"),
    ):
        assert words in project.refused("transcript", *args, code=code)
    assert "run #1 of talk: still running" in project.ok("transcript", "talk")
    project.finish(talk)
    gone = project.refused("transcript", "talk", code="IO_ERROR")
    assert "is not there" in gone
    (project.artifacts(talk) / "transcript.jsonl").mkdir(parents=True)
    assert "cannot read transcript.jsonl" in project.refused("transcript", "talk", code="IO_ERROR")


def test_follow_tells_what_comes_until_the_run_is_over(project: Talks) -> None:
    claim = project.claim([says("hello")])
    path = project.artifacts(claim) / "transcript.jsonl"
    with project.started("transcript", "talk", "--follow") as process:
        assert process.stdout is not None
        read_until(process.stdout.readline, "hello")
        with path.open("a") as file:
            file.write(says("more to come") + "\n" + says("last words"))
        read_until(process.stdout.readline, "more to come")
        project.finish(claim)
        code, out, err = outcome(process)
    assert (code, err) == (0, "")
    assert "last words" in out
    assert "run #1 of talk: done" in out


def test_follow_goes_on_with_the_next_attempt_unless_a_run_was_named(project: Talks) -> None:
    first = project.claim([says("first try")])
    with project.started("transcript", "talk", "--follow") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        read_until(process.stdout.readline, "first try")
        project.finish(first, RunOutcome.RELEASED)
        read_until(process.stdout.readline, "run #1 of talk: released")
        read_until(process.stderr.readline, "talk is to run again: waiting for that")
        second = project.claim([says("second try")])
        read_until(process.stdout.readline, "second try")
        project.finish(second)
        code, out, err = outcome(process)
    assert (code, err) == (0, "")
    assert f"run #{second.attempt} of talk: done" in out
    named = project.run("transcript", "talk", "--follow", "--run", first.run_id)
    assert (named.returncode, named.stderr) == (0, "")
    assert "second try" not in named.stdout


@pytest.mark.parametrize("end", ["cancel", "purge"])
def test_follow_ends_with_a_task_that_is_not_to_run_again(project: Talks, end: str) -> None:
    first = project.claim([says("first try")])
    with project.started("transcript", "talk", "--follow") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        read_until(process.stdout.readline, "first try")
        project.finish(first, RunOutcome.RELEASED)
        read_until(process.stderr.readline, "is to run again")
        project.ok("tasks", end, "talk", "--yes")
        code, _, err = outcome(process)
    assert (code, err) == (0, "")


def test_following_ends_quietly_when_its_reader_has_gone(project: Talks) -> None:
    project.claim([says("hello")])
    with project.started("transcript", "talk", "--follow") as process:
        assert process.stdout is not None
        read_until(process.stdout.readline, "hello")
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr is not None
        assert process.stderr.read() == ""
        process.stdout = None


def test_a_transcript_outlasts_that_its_task_is_an_agents(project: Talks) -> None:
    project.finish(project.claim([says("hello")]), RunOutcome.RELEASED)
    project.tasks = (a_task("talk", payload={"kind": "shell", "cmd": "true"}),)
    project.claim()
    assert "hello" in project.ok("transcript", "talk", "--run", project.claims[0].run_id)
    refused = project.refused("transcript", "talk", code="VALIDATION_ERROR")
    assert "is no agent's, but of kind shell" in refused
    assert refused.endswith("lies in artifacts/talk/\n")


def test_what_is_too_long_to_be_told_in_detail_says_how_much_is_left(project: Talks) -> None:
    project.finish(project.claim([answers("x" * 300_000)]))
    told = project.ok("transcript", "talk", "--detailed")
    assert "… 37,856 more characters: see transcript.jsonl" in told


def test_many_tools_are_named_as_far_as_they_can_be_read(project: Talks) -> None:
    names = [f"tool_{number:02}" for number in range(30)]
    project.finish(project.claim([calls(name) for name in [*names, "x" * 1_000]]))
    summary = project.ok("transcript", "talk").splitlines()[-2]
    assert summary.endswith("tool_18 1, tool_19 1, …)")
    assert "31 tool uses" in summary


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_ctrl_c_ends_following_at_once(project: Talks, how: tuple[str, ...]) -> None:
    project.claim([says("hello")])
    with project.started("transcript", "talk", "--follow", *how) as process:
        assert process.stdout is not None
        read_until(process.stdout.readline, "hello")
        process.send_signal(signal.SIGINT)
        code, _, err = outcome(process)
    assert (code, err) == (130, "")


def test_on_a_terminal_nothing_is_wider_than_it_and_colours_can_be_refused(
    project: Talks, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.finish(project.claim(CLAIMS))
    code, shown = on_terminal(project, "transcript", "talk", columns=60)
    assert code == 0
    assert "\x1b[" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "\x1b" not in plain
    assert max(map(cells, plain.splitlines())) <= 60
    monkeypatch.setitem(ENVIRONMENT, "NO_COLOR", "1")
    assert "\x1b" not in on_terminal(project, "transcript", "talk", columns=60)[1]


def test_what_an_agent_prints_cannot_act_on_the_terminal(project: Talks) -> None:
    evil = "a\x1b]52;c;eA==\x07b\x1b[2Jc\u202ed"
    project.finish(project.claim([says(evil), calls(evil, command=evil), answers(evil), evil]))
    for how in ((), ("--detailed",), ("--json",)):
        told = project.ok("transcript", "talk", *how)
        assert not set(told) & set("\x1b\x07\u202e\x9b"), told


def read_until(line: object, words: str) -> None:
    """Read lines until one has these words."""
    assert callable(line)
    told = [line()]
    while words not in told[-1]:
        assert told[-1], told
        told.append(line())
