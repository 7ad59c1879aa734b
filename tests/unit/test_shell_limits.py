"""Promises of what bounds a shell task: its folder, its variables, its secrets, its exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.patience import PATIENCE
from support.solo import Solo, error_of, result_of

from engine.model import RunOutcome

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "tok-0123456789"


@pytest.fixture
def stage(tmp_path: Path) -> Solo:
    (tmp_path / "project").mkdir()
    return Solo(tmp_path / "project")


# the folder


async def test_a_task_runs_in_the_project_or_in_a_worktree(stage: Solo) -> None:
    for folder in ("sub/deep", "worktrees/t/1", "state/x"):
        (stage.project / folder).mkdir(parents=True)
        for given in (folder, str(stage.project / folder)):
            said = result_of(await stage.shell("pwd", cwd=given))["stdout"]
            assert said.split("\n")[-1] == str(stage.project / folder)


async def test_worktrees_may_lie_outside_the_project(stage: Solo, tmp_path: Path) -> None:
    (tmp_path / "trees" / "t").mkdir(parents=True)
    assert "outside the project" in error_of(await stage.shell("pwd", cwd="../trees/t"))
    for folder in ("../trees", str(tmp_path / "trees")):
        stage.worktrees = folder
        outcome = await stage.shell("pwd", cwd="../trees/t")
        assert result_of(outcome)["stdout"].endswith(str(tmp_path / "trees" / "t"))


@pytest.mark.parametrize("key", ["cwd", "repoPath"])
@pytest.mark.parametrize(
    "given", ["/", "..", "../project-2", "sub/../..", "link", "link/in", "nowhere/../../x", "loop"]
)
async def test_no_path_and_no_link_leads_a_task_out_of_the_project(
    stage: Solo, tmp_path: Path, key: str, given: str
) -> None:
    (tmp_path / "project-2" / "in").mkdir(parents=True)
    (stage.project / "sub").mkdir()
    (stage.project / "link").symlink_to(tmp_path / "project-2")
    (stage.project / "loop").symlink_to("loop")
    outcome = await stage.shell("pwd", **{key: given})
    assert outcome.kind is RunOutcome.BLOCKED
    said = "loop is not a folder" if given == "loop" else "lies outside the project"
    assert f"payload.{key}: " in error_of(outcome)
    assert said in error_of(outcome)
    assert stage.started == []


async def test_what_is_no_folder_is_not_run_in(stage: Solo) -> None:
    (stage.project / "file").touch()
    for given in ("file", "nowhere", "x" * 4000, "file/x"):
        outcome = await stage.shell("pwd", cwd=given)
        assert outcome.kind is RunOutcome.BLOCKED
        assert error_of(outcome).endswith(
            "is not a folder; make it or mend the DAG, then retry the task"
        )


async def test_a_project_that_is_reached_by_a_link_holds_its_own_folders(
    stage: Solo, tmp_path: Path
) -> None:
    (stage.project / "sub").mkdir()
    (tmp_path / "short").symlink_to(stage.project)
    linked = Solo(tmp_path / "short")
    for given in ("sub", str(tmp_path / "short" / "sub"), str(stage.project / "sub")):
        assert (await linked.shell("pwd", cwd=given)).kind is RunOutcome.DONE


async def test_a_program_of_the_list_is_not_looked_up_in_the_folder_of_the_task(
    stage: Solo,
) -> None:
    (stage.project / "sub").mkdir()
    for name in ("echo", "tool"):
        trap = stage.project / "sub" / name
        trap.write_text("#!/bin/sh\nprintf trapped\n")
        trap.chmod(0o755)
    stage.allow = ("echo", "./tool")
    assert result_of(await stage.shell("echo free", cwd="sub"))["stdout"] == "free"
    assert "'./tool' was not found" in error_of(await stage.shell("./tool", cwd="sub"))


# variables


async def test_a_list_bounds_what_is_inherited_and_env_adds_to_it(
    stage: Solo, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.allow = (sys.executable,)
    monkeypatch.setenv("WANTED", "1")
    monkeypatch.setenv("UNWANTED", "2")
    monkeypatch.setenv("LC_TIME", "C")
    stage.env_pass = ("WANTED",)
    code = "import os; print(*sorted(os.environ))"
    outcome = await stage.shell(argv=[sys.executable, "-ISc", code], env={"ADDED": 3})
    names = set(result_of(outcome)["stdout"].split())
    assert {"WANTED", "ADDED", "PATH", "LC_TIME", "AGENTMUX_RUN_ID"} <= names
    assert names <= {
        "WANTED", "ADDED", "PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR",
        *(name for name in names if name.startswith(("LC_", "AGENTMUX_"))),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["API_KEY", "github_token", "MySecret", "PASSWORD_FILE"])
async def test_a_task_may_not_bring_a_secret(stage: Solo, name: str) -> None:
    outcome = await stage.shell("true", env={name: "swordfish"})
    assert outcome.kind is RunOutcome.BLOCKED
    assert f"payload.env.{name}: looks like a secret" in error_of(outcome)
    assert "swordfish" not in error_of(outcome)


@pytest.mark.parametrize("passed", [True, False])
async def test_a_secret_that_is_printed_reaches_neither_store_nor_result_nor_error_nor_log(
    stage: Solo,
    monkeypatch: pytest.MonkeyPatch,
    passed: bool,
) -> None:
    """Whether the program had inherited it, or found it elsewhere."""
    monkeypatch.setenv("DEPLOY_TOKEN", TOKEN)
    stage.env_pass = None if passed else ()
    script = f"echo out {TOKEN}; echo denied for {TOKEN} >&2; exit 1"
    outcome = await stage.shell(argv=["sh", "-c", script])
    assert error_of(outcome) == "exit code 1: denied for [DEPLOY_TOKEN]"
    assert result_of(outcome)["stdout"] == "out [DEPLOY_TOKEN]"
    assert TOKEN not in json.dumps(outcome.result)
    assert TOKEN not in (stage.folder / "result.json").read_text()
    for log, text in (
        ("stdout", "out [DEPLOY_TOKEN]\n"),
        ("stderr", "denied for [DEPLOY_TOKEN]\n"),
    ):
        assert (stage.folder / f"{log}.log").read_text() == text


async def test_a_secret_is_out_of_the_log_of_a_program_that_goes_on(
    stage: Solo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPLOY_TOKEN", TOKEN)
    waits = "while [ ! -e go ]; do sleep 0.05; done"
    script = f"echo before; echo {TOKEN}; {waits}; echo {TOKEN} after"
    run = asyncio.create_task(stage.shell(argv=["sh", "-c", script]))
    log = stage.folder / "stdout.log"
    async with asyncio.timeout(PATIENCE):
        while not log.exists() or log.read_text() != "before\n[DEPLOY_TOKEN]\n":  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    assert not run.done()
    (stage.project / "go").touch()
    assert result_of(await run)["stdout"] == "before\n[DEPLOY_TOKEN]\n[DEPLOY_TOKEN] after"
    assert log.read_text() == "before\n[DEPLOY_TOKEN]\n[DEPLOY_TOKEN] after\n"


async def test_what_no_file_system_can_name_in_the_environment_does_no_harm(
    stage: Solo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environb, b"ODD_TOKEN", b"\xff\xfe" + TOKEN.encode())
    script = f"printf '\\377\\376{TOKEN}'"
    assert result_of(await stage.shell(argv=["sh", "-c", script]))["stdout"] == "[ODD_TOKEN]*****"


# exit codes


@pytest.mark.parametrize(
    ("code", "ok_codes", "kind"),
    [
        (0, None, "done"),
        (1, None, "failed"),
        (1, [0, 1], "done"),
        (2, [0, 1], "failed"),
        (0, [3], "failed"),
    ],
)
async def test_the_payload_says_which_exit_codes_are_a_success(
    stage: Solo, code: int, ok_codes: list[int] | None, kind: str
) -> None:
    given: dict[str, Any] = {} if ok_codes is None else {"ok_codes": ok_codes}
    outcome = await stage.shell(argv=["sh", "-c", f"exit {code}"], **given)
    assert (outcome.kind, outcome.exit_code) == (kind, code)
    assert outcome.error == (None if kind == "done" else f"exit code {code}")


async def test_a_signal_is_never_a_success(stage: Solo) -> None:
    outcome = await stage.shell(argv=["sh", "-c", "kill -TERM $$"], ok_codes=[15, 143, 241])
    assert outcome.kind is RunOutcome.FAILED


@pytest.mark.parametrize("codes", [[], 0, "0", [True], [-15], [256], [1.0], ["1"], {"0": 1}])
async def test_codes_that_are_none_block_the_task(stage: Solo, codes: Any) -> None:
    outcome = await stage.shell("true", ok_codes=codes)
    assert outcome.kind is RunOutcome.BLOCKED
    assert "payload.ok_codes: " in error_of(outcome)
    assert stage.started == []
