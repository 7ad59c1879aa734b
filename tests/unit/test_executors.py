"""Promises of the built-in executors: what they run, what they refuse, what they leave on disk."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from support.patience import PATIENCE
from support.solo import Solo, error_of, result_of

from engine.errors import LeaseLost
from engine.executors import builtin_executors
from engine.model import Outcome, ProcessId, RunOutcome
from engine.processes.proctable import look_at
from engine.processes.signalling import identify, is_alive
from engine.processes.trees import gone

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def stage(tmp_path: Path) -> Solo:
    return Solo(tmp_path)


def test_noop_and_shell_are_built_in_and_neither_prepares_anything() -> None:
    executors = builtin_executors()
    assert not executors["noop"].prepares
    assert not executors["shell"].prepares


# noop


@pytest.mark.parametrize(("payload", "seconds"), [({}, 2), ({"seconds": 30.5}, 30.5)])
async def test_noop_sleeps_on_the_clock_it_was_given(
    stage: Solo, payload: dict[str, Any], seconds: float
) -> None:
    run = asyncio.create_task(stage.noop(**payload))
    await stage.clock.advance(seconds - 0.5)
    assert not run.done()
    await stage.clock.advance(0.5)
    assert await asyncio.wait_for(run, PATIENCE) == Outcome(
        RunOutcome.DONE, result={"slept": seconds}
    )


async def test_noop_of_zero_seconds_neither_sleeps_nor_writes(stage: Solo) -> None:
    coroutine = stage.noop(seconds=0)
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)  # it ends in its first step: it has waited for nothing at all
    assert done.value.value == Outcome(RunOutcome.DONE, result={"slept": 0})
    assert stage.clock.slept == []
    assert list(stage.project.iterdir()) == []


async def test_noop_fails_as_often_as_it_is_told_to(stage: Solo) -> None:
    outcomes = [await stage.noop(attempt, seconds=0, fail_attempts=2) for attempt in (1, 2, 3)]
    assert [outcome.kind for outcome in outcomes] == ["failed", "failed", "done"]
    assert outcomes[1].error == "attempt 2 of a task told to fail its first 2 attempts"


@pytest.mark.parametrize(
    "payload",
    [
        {"seconds": "2"},
        {"seconds": -1},
        {"seconds": True},
        {"seconds": float("inf")},
        {"seconds": float("nan")},
        {"seconds": None},
        {"fail_attempts": 1.5},
        {"fail_attempts": -1},
        {"fail_attempts": True},
    ],
)
async def test_noop_refuses_what_is_no_number(stage: Solo, payload: dict[str, Any]) -> None:
    outcome = await stage.noop(**payload)
    assert outcome.kind is RunOutcome.BLOCKED
    assert next(iter(payload)) in error_of(outcome)


# shell: what it runs


async def test_shell_splits_like_a_shell_and_runs_without_one(stage: Solo) -> None:
    outcome = await stage.shell("echo 'a  b' $HOME * ; false | true > x")
    assert outcome.kind is RunOutcome.DONE
    assert result_of(outcome)["stdout"] == "a  b $HOME * ; false | true > x"
    assert not (stage.project / "x").exists()


async def test_shell_takes_argv_as_it_is_and_numbers_as_their_digits(stage: Solo) -> None:
    outcome = await stage.shell(argv=["printf", "%s|", "a b", 1, 2.5])
    assert result_of(outcome)["stdout"] == "a b|1|2.5|"


async def test_shell_reports_the_end_in_the_outcome_and_in_the_folder(stage: Solo) -> None:
    outcome = await stage.shell(argv=["sh", "-c", "echo fine; echo '\033[31mbad\033[0m' >&2"])

    assert outcome.kind is RunOutcome.DONE
    assert outcome.exit_code == 0
    assert outcome.error is None
    assert outcome.result == {"exitCode": 0, "durationMs": 0, "stdout": "fine", "stderr": "bad"}
    assert json.loads((stage.folder / "result.json").read_text()) == outcome.result
    assert (stage.folder / "stderr.log").read_bytes() == b"\033[31mbad\033[0m\n"


async def test_shell_keeps_its_folders_and_files_private(stage: Solo) -> None:
    before = os.umask(0o022)
    try:
        await stage.shell("true")
    finally:
        os.umask(before)
    artifacts = stage.project / "artifacts"
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in [artifacts, *artifacts.rglob("*")]}
    assert modes == {
        "artifacts": 0o700,
        "t": 0o700,
        "run-1": 0o700,
        "stdout.log": 0o600,
        "stderr.log": 0o600,
        "result.json": 0o600,
    }


async def test_shell_fails_with_the_exit_code_and_the_last_line_of_stderr(stage: Solo) -> None:
    outcome = await stage.shell(
        argv=["sh", "-c", "echo one >&2; printf '\\033]0;two\\007 ' >&2; exit 3"]
    )
    assert outcome.kind is RunOutcome.FAILED
    assert outcome.exit_code == 3
    assert outcome.error == "exit code 3: one"
    assert result_of(outcome)["exitCode"] == 3


async def test_shell_fails_with_the_name_of_the_signal(stage: Solo) -> None:
    outcome = await stage.shell(argv=["sh", "-c", "kill -TERM $$"])
    assert outcome.kind is RunOutcome.FAILED
    assert outcome.exit_code == -signal.SIGTERM
    assert outcome.error == "ended by SIGTERM"


async def test_shell_measures_the_duration_on_the_clock_it_was_given(stage: Solo) -> None:
    run = asyncio.create_task(
        stage.shell(argv=["sh", "-c", "while [ ! -e go ]; do sleep 0.01; done"])
    )
    async with asyncio.timeout(PATIENCE):
        while not stage.started:  # noqa: ASYNC110 - the start of a process is no asyncio event
            await asyncio.sleep(0.001)
    await stage.clock.advance(1.5)
    (stage.project / "go").touch()
    assert result_of(await run)["durationMs"] == 1500


async def test_shell_shows_only_the_end_of_a_long_output(stage: Solo) -> None:
    script = "i=0; while [ $i -lt 50 ]; do echo line $i; i=$((i+1)); done; printf '%09000d' 7 >&2"
    result = result_of(await stage.shell(argv=["sh", "-c", script]))
    assert result["stdout"].split("\n") == [f"line {n}" for n in range(30, 50)]
    assert result["stderr"] == "0" * 4095 + "7"


async def test_shell_takes_any_bytes_as_output(stage: Solo) -> None:
    result = result_of(await stage.shell(argv=["printf", r"caf\303\251 \377\n\n\033[2Jx\000y"]))
    assert result["stdout"] == "café \ufffd\n\nxy"


@pytest.mark.parametrize("replace", ["rm", "mkfifo", "mkdir", "ln -s /etc/hostname"])
async def test_shell_ends_even_if_the_program_replaced_its_log(stage: Solo, replace: str) -> None:
    log = stage.folder / "stdout.log"
    script = f"rm '{log}'; [ '{replace}' = rm ] || {replace} '{log}'"
    outcome = await stage.shell(argv=["sh", "-c", script])
    assert outcome.kind is RunOutcome.DONE
    assert result_of(outcome)["stdout"].startswith("(stdout.log cannot be read")


async def test_shell_runs_where_it_is_told_to(stage: Solo) -> None:
    (stage.project / "sub").mkdir()
    home = str(stage.project)
    assert result_of(await stage.shell("pwd"))["stdout"] == home
    assert result_of(await stage.shell("pwd", cwd="sub"))["stdout"].endswith(home + "/sub")
    assert result_of(await stage.shell("pwd", repoPath="sub/.."))["stdout"].endswith(
        "/sub\n" + home
    )


async def test_shell_runs_in_the_folder_that_the_result_of_a_dep_names(stage: Solo) -> None:
    (stage.project / "two/sub").mkdir(parents=True)
    stage.results = {"api": {"text": "done", "workspace": str(stage.project / "two")}}
    outcome = await stage.shell("pwd", cwd="{{deps.api.workspace}}/sub")
    assert result_of(outcome)["stdout"].endswith("/two/sub")


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ({"text": "x"}, "{{deps.api.workspace}} is no text in the result of api, which has text; "),
        (None, "there is no result of api; mend the DAG"),
        ({"workspace": "/etc"}, "/etc lies outside the project"),
        ({"workspace": "../.."}, "lies outside the project"),
        ({"workspace": "gone"}, "gone is not a folder; make it"),
        ({"workspace": "a\0b"}, "no path of a folder"),
        ({"workspace": "a\ud800b"}, "a?b is not a folder"),
        ({"workspace": "x" * 9000}, "is not a folder"),
        ({"\033[2Jodd": "x"}, "which has odd; mend"),
    ],
)
async def test_shell_blocks_where_a_dep_has_no_folder_for_it(
    stage: Solo, result: dict[str, Any] | None, why: str
) -> None:
    stage.results = {"api": result}
    outcome = await stage.shell("pwd", cwd="{{deps.api.workspace}}")
    assert outcome.kind is RunOutcome.BLOCKED
    assert why in error_of(outcome)
    assert stage.started == []


async def test_shell_adds_variables_to_those_of_the_host_and_the_tag(
    stage: Solo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_HOST", "1")
    script = "echo $FROM_HOST $GREETING $PORT $AGENTMUX_RUN_ID $AGENTMUX_TASK_ID $AGENTMUX_ATTEMPT"
    outcome = await stage.shell(argv=["sh", "-c", script], env={"GREETING": "hi you", "PORT": 80})
    assert result_of(outcome)["stdout"] == "1 hi you 80 run-1 t 1"


async def test_shell_tells_of_its_process_before_it_waits_for_it(stage: Solo) -> None:
    outcome = await stage.shell(argv=["sh", "-c", "echo $$"])
    assert [str(process.pid) for process in stage.started] == [result_of(outcome)["stdout"]]


# shell: what it refuses


async def test_shell_refuses_a_program_that_is_not_on_the_list(stage: Solo) -> None:
    outcome = await stage.shell("ssh host")
    assert outcome == Outcome(
        RunOutcome.BLOCKED,
        error="'ssh' is not on the allow-list; add it under shell: allow: in agentmux.yaml, "
        "then retry the task",
    )
    assert stage.started == []
    assert not stage.folder.exists()


@pytest.mark.parametrize("cmd", ["/bin/true", "./true", "../bin/true", "true/", "TRUE", "tru"])
async def test_shell_takes_only_the_exact_word_for_allowed(stage: Solo, cmd: str) -> None:
    outcome = await stage.shell(cmd)
    assert outcome.kind is RunOutcome.BLOCKED
    assert "allow-list" in error_of(outcome)


async def test_shell_runs_a_path_that_is_on_the_list_as_it_is(stage: Solo) -> None:
    stage.allow = ("./tool",)
    tool = stage.project / "tool"
    tool.write_text("#!/bin/sh\necho $0\n")
    tool.chmod(0o755)
    (stage.project / "sub").mkdir()
    outcome = await stage.shell("./tool", cwd="sub")
    assert result_of(outcome)["stdout"] == str(tool), "relative to the project, as the list is"
    assert "allow-list" in error_of(await stage.shell("tool"))


async def test_shell_finds_names_neither_in_the_working_folder_nor_by_the_tasks_own_path(
    stage: Solo, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.allow = ("trap",)
    trap = stage.project / "trap"
    trap.write_text("#!/bin/sh\n")
    trap.chmod(0o755)
    monkeypatch.chdir(stage.project)
    for path in (
        "",
        ".",
        ":/usr/bin",
        "/usr/bin:",
        f"{stage.project.name}:../{stage.project.name}",
    ):
        monkeypatch.setenv("PATH", path)
        outcome = await stage.shell("trap", env={"PATH": str(stage.project)})
        assert outcome.kind is RunOutcome.BLOCKED
        assert "'trap' was not found" in error_of(outcome)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({}, "either cmd or argv"),
        ({"cmd": "true", "argv": ["true"]}, "either cmd or argv"),
        ({"cmd": "echo 'open"}, "no closing quotation"),
        ({"cmd": "echo open\\"}, "no escaped character"),
        ({"cmd": ""}, "names no program"),
        ({"cmd": "''"}, "names no program"),
        ({"cmd": ["true"]}, "payload.cmd: must be a string"),
        ({"cmd": "ls; ls"}, "'ls;' is no program: a task runs one, and no shell"),
        ({"argv": []}, "payload.argv"),
        ({"argv": "true"}, "payload.argv"),
        ({"argv": ["true", None]}, "payload.argv[1]"),
        ({"argv": ["echo", "a\0b"]}, "NUL"),
        ({"cmd": "echo a\0b"}, "null byte"),
        ({"cmd": "echo \ud800"}, "cannot be given to a program"),
        ({"cmd": "true", "cwd": "nowhere"}, "nowhere is not a folder"),
        ({"cmd": "true", "repoPath": "nowhere"}, "payload.repoPath"),
        ({"cmd": "true", "cwd": 7}, "payload.cwd"),
        ({"cmd": "true", "cwd": "a\0b"}, "payload.cwd"),
        ({"cmd": "true", "cwd": "/", "repoPath": "/tmp"}, "give one of them"),
        ({"cmd": "true", "env": ["A=1"]}, "payload.env"),
        ({"cmd": "true", "env": {"A=B": "1"}}, "'A=B'"),
        ({"cmd": "true", "env": {"A": None}}, "payload.env.A"),
        ({"cmd": "true", "env": {"A": True}}, "payload.env.A"),
        ({"cmd": "true", "env": {"AGENTMUX_RUN_ID": "x"}}, "is set by agentmux"),
        ({"cmd": "true", "env": {"LD_PRELOAD": "./x.so"}}, "may not be set"),
        ({"cmd": "true", "env": {"A": "x" * 3_000_000}}, "too long"),
    ],
)
async def test_shell_blocks_what_no_retry_can_help(
    stage: Solo, payload: dict[str, Any], said: str
) -> None:
    outcome = await stage.shell(**payload)
    assert outcome.kind is RunOutcome.BLOCKED
    assert said in error_of(outcome)
    assert stage.started == []


async def test_shell_blocks_a_file_that_is_no_program(stage: Solo) -> None:
    stage.allow = ("./data",)
    (stage.project / "data").write_bytes(b"\x7fELF nonsense")
    (stage.project / "data").chmod(0o755)
    outcome = await stage.shell("./data")
    assert outcome.kind is RunOutcome.BLOCKED
    assert "Exec format error" in error_of(outcome)


async def test_shell_fails_where_its_folder_cannot_be_made(stage: Solo) -> None:
    (stage.project / "artifacts").write_text("in the way")
    outcome = await stage.shell("true")
    assert outcome.kind is RunOutcome.FAILED
    assert "artifacts" in error_of(outcome)


# shell: its end


async def test_shell_ends_with_its_leader_and_ends_what_the_leader_left(stage: Solo) -> None:
    outcome = await stage.shell(argv=["sh", "-c", "sleep 60 & echo $!"])
    assert outcome.kind is RunOutcome.DONE
    assert identify(int(result_of(outcome)["stdout"])) is None
    assert look_at(stage.started[0].pid) is None, "and the leader is no zombie"


async def test_shell_ends_the_whole_tree_before_a_cancellation_passes(stage: Solo) -> None:
    stage.grace = 0.1
    script = (
        "trap '' TERM; (trap '' TERM; sleep 60 & wait) & echo up > up; while :; do sleep 1; done"
    )
    run = asyncio.create_task(stage.shell(argv=["sh", "-c", script]))
    async with asyncio.timeout(PATIENCE):
        while not (stage.project / "up").exists():  # noqa: ASYNC110 - a file raises no event
            await asyncio.sleep(0.005)
    assert len(stage.tree()) >= 2

    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run

    assert stage.tree() == set()
    assert look_at(stage.started[0].pid) is None


async def test_a_stop_that_comes_once_the_leader_is_through_does_not_lose_its_result(
    stage: Solo,
) -> None:
    stage.grace = 0.3
    script = "(trap '' TERM; echo up > up; while :; do sleep 1; done) & sleep 0.1; echo result"
    run = asyncio.create_task(stage.shell(argv=["sh", "-c", script]))
    async with asyncio.timeout(PATIENCE):
        while not stage.started:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)
        await gone(stage.started[0])
    assert not run.done(), "what the leader left is being ended"
    run.cancel()
    outcome = await run
    assert outcome.kind is RunOutcome.DONE
    assert result_of(outcome)["stdout"] == "result"
    assert stage.tree() == set()


async def test_shell_leaks_nothing_at_whatever_step_it_is_cancelled(stage: Solo) -> None:
    stage.grace = 0
    ended_by_itself = False
    for steps in count():
        run = asyncio.create_task(stage.shell(argv=["sh", "-c", "sleep 0.02 & exit 0"]))
        for _ in range(steps):
            await asyncio.sleep(0 if steps < 20 else 0.001)
        ended_by_itself |= run.done()
        if steps >= 40 and ended_by_itself:
            break
        run.cancel()
        await asyncio.wait({run})
        assert stage.tree() == set(), steps
    assert all(look_at(process.pid) is None for process in stage.started)


async def test_shell_ends_its_child_if_the_start_cannot_be_recorded(stage: Solo) -> None:
    seen: list[ProcessId] = []

    async def lost(process: ProcessId) -> None:
        await asyncio.sleep(0)
        assert is_alive(process)
        seen.append(process)
        raise LeaseLost("run-1")

    stage.on_start = lost  # type: ignore[method-assign]  # the stage plays the worker
    with pytest.raises(LeaseLost):
        await stage.shell("sleep 60")
    assert [look_at(process.pid) for process in seen] == [None]


async def test_shell_does_not_wait_for_an_heir_of_its_output(stage: Solo) -> None:
    code = "import os,time\nif os.fork()==0:\n os.setsid()\n time.sleep(60)\nprint('done')"
    stage.allow = (sys.executable,)
    outcome = await stage.shell(argv=[sys.executable, "-ISc", code])
    assert outcome.kind is RunOutcome.DONE
    assert result_of(outcome)["stdout"] == "done"
    assert stage.tree() == set()
