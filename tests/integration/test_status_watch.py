"""`agentmux status --watch` as its users run it: a process that tells what others do."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from support.patience import PATIENCE
from support.program import (
    ENVIRONMENT,
    LONG,
    PROGRAM,
    Project,
    on_terminal,
    outcome,
)
from support.stores import opened

from engine.clock import SystemClock

if TYPE_CHECKING:
    from pathlib import Path

MIXED = """
tasks:
  - {id: plan, agent: claude, payload: {seconds: 0}}
  - {id: "impl:a", agent: codex, deps: [plan], payload: {seconds: 1.5}}
  - {id: ask, agent: codex, priority: 1, payload: {kind: shell, cmd: ls, cwd: nowhere}}
"""
TIME = re.compile(r"\d\d:\d\d:\d\d [^ ].*")
WATCH = ("status", "--watch", "--every", "0.2")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def line_with(process: subprocess.Popen[str], words: str) -> list[str]:
    """Read lines until one has these words in it; the program is killed if none comes."""
    assert process.stdout is not None
    lines: list[str] = []
    deadline = threading.Timer(PATIENCE, process.kill)
    deadline.start()
    try:
        while not lines or words not in lines[-1]:
            line = process.stdout.readline()
            assert line, f"it ended before {words!r}: {lines}"
            lines.append(line.rstrip("\n"))
    finally:
        deadline.cancel()
    return lines


def test_it_tells_first_how_things_are_then_what_other_processes_do_until_ctrl_c(
    project: Project,
) -> None:
    project.ok("tasks", "seed", project.write(LONG))
    with project.started(*WATCH) as process:
        (first,) = line_with(process, "0 of 2 tasks")
        assert first.startswith("At ")
        line_with(process, "Nothing needs you.")
        with project.started("worker", "--agent", "codex", "--worker-id", "w1") as worker:
            # If that takes long, a summary stands in between.
            for words in ("w1 started", "w1 started long"):
                told = line_with(process, words)
                assert TIME.fullmatch(told[-1]), told
            line_with(process, "1 worker is live, 1 at work.")
            worker.send_signal(signal.SIGTERM)
            line_with(process, "long was released from w1")
            assert worker.wait(PATIENCE) == 0
        line_with(process, "No worker is live.")
        process.send_signal(signal.SIGINT)
        code, _, err = outcome(process)
    assert (code, err) == (130, "")
    assert not (project.state / "status.md").exists()


def test_until_done_ends_with_the_dag_and_says_by_its_exit_code_how_that_went(
    project: Project,
) -> None:
    project.ok("tasks", "seed", project.write(MIXED))
    with project.started(*WATCH, "--until-done") as process:
        line_with(process, "Nothing needs you.")
        project.run("run", "dag.yaml")
        code, out, err = outcome(process)
    assert (code, err) == (1, "")
    assert " 2 of 3 tasks of " in out.rsplit("At ", 1)[1]
    assert "claude-1 finished plan" in out
    assert out.count("ask: needs you: ") == 1
    project.ok("tasks", "cancel", "ask", "--yes")
    project.ok("tasks", "purge", "ask", "--yes")
    done = project.run("status", "--watch", "--until-done")
    assert done.returncode == 0
    assert " all 2 tasks of " in done.stdout


def test_it_ends_quietly_when_its_reader_has_gone(project: Project) -> None:
    project.ok("tasks", "seed", project.write(LONG))
    with project.started(*WATCH) as process:
        assert process.stdout is not None
        assert "0 of 2 tasks" in process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr is not None
        assert process.stderr.read() == ""
        process.stdout = None


def test_json_comes_as_one_object_a_line(project: Project) -> None:
    project.ok("tasks", "seed", project.write(MIXED))
    with project.started(*WATCH, "--until-done", "--json") as process:
        (first,) = line_with(process, "summary")
        project.run("run", "dag.yaml")
        _, out, _ = outcome(process)
    lines = [json.loads(line) for line in out.splitlines()]
    assert all(len(line) == 1 for line in lines)
    assert json.loads(first)["summary"]["progress"]["total"] == 3
    assert lines[-1]["summary"]["needs"][0]["taskId"] == "ask"
    events = [line["event"] for line in lines if "event" in line]
    assert [event["seq"] for event in events] == list(
        range(events[0]["seq"], events[0]["seq"] + len(events))
    )
    assert events == project.json("events")[-len(events) :]


def test_on_a_terminal_no_cursor_moves_and_nothing_is_coloured_or_drawn(project: Project) -> None:
    project.ok("tasks", "seed", project.write(LONG))
    code, shown = on_terminal(project, *WATCH, columns=40, interrupt_at="Nothing needs you.")
    assert code == 130
    assert "\x1b" not in shown
    assert re.fullmatch(r"[\x20-\x7e\n^]*", shown.replace(str(project.folder), "")), shown


def test_a_quiet_fleet_is_told_once(project: Project) -> None:
    """However often it looks, nothing that has not changed is said again."""
    project.ok("tasks", "seed", project.write(LONG))
    with project.started("status", "--watch", "--every", "0.05") as process:
        line_with(process, "Nothing needs you.")
        project.ok("hold", "codex")
        told = line_with(process, "Claims are held for codex.")
        process.send_signal(signal.SIGINT)
        _, rest, _ = outcome(process)
    assert sum("0 of 2 tasks" in line for line in told) == 1
    assert "0 of 2" not in rest


def test_its_options_go_with_it_only(project: Project) -> None:
    for options in (["--every", "3"], ["--until-done"]):
        done = project.run("status", *options)
        assert done.returncode == 2
        assert "--watch" in done.stderr


def test_a_pipe_that_is_cut_by_head_leaves_no_trace(project: Project) -> None:
    project.ok("tasks", "seed", project.write(LONG))
    command = f"'{PROGRAM[0]}' -m engine.cli status --watch | head -1"
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=project.folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_of_what_an_agent_does_the_latest_is_told_now_and_then(project: Project) -> None:
    """An agent tells each second what it does: who hears all of that hears nothing else."""
    project.ok("tasks", "seed", project.write(LONG))
    with project.started("status", "--watch", "--every", "1") as process:
        line_with(process, "Nothing needs you.")
        asyncio.run(_work(project.folder))
        told = line_with(process, "step 40 of long")
        process.send_signal(signal.SIGINT)
        _, rest, _ = outcome(process)
    assert sum("step" in line for line in told) < 20
    assert "step" not in rest


async def _work(folder: Path) -> None:
    async with opened(folder, clock=SystemClock()) as at:
        claim = await at.claim()
        for step in range(1, 41):
            await at.store.progress(claim, f"step {step} of long")
