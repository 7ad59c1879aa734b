"""Stop, kill, cancel, release, retry, purge, hold and reset, as they are typed: real processes."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from support.engines import suspend
from support.program import LONG, Project, eventually, on_terminal, outcome

from engine.cli import steering
from engine.cli.parser import parse
from engine.errors import StorageError
from engine.files import Layout
from engine.presence import Presence
from engine.reaper import Reaper

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

SETTINGS = "grace: 0.5\nshell: {allow: [sh, sleep]}\n"
FLEET = """
tasks:
  - {id: quick, agent: gem, payload: {seconds: 0}}
  - {id: first, agent: codex}
  - {id: second, agent: codex, deps: [first]}
  - {id: third, agent: claude, deps: [second]}
"""
STUBBORN = """
tasks:
  - id: stubborn
    agent: codex
    payload: {kind: shell, argv: [sh, -c, "trap '' TERM; (sleep 300 & echo ready; wait)"]}
"""
GATED = """
tasks:
  - {id: gated, agent: codex, payload: {kind: shell, argv: [sh, -c, "until [ -e go ]; do sleep 0.05; done"]}}
  - {id: other, agent: claude, payload: {kind: shell, argv: [sh, -c, "until [ -e go ]; do sleep 0.05; done"]}}
  - {id: later, agent: codex, deps: [gated], payload: {seconds: 0}}
"""  # noqa: E501 - a task a line


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    (tmp_path / "agentmux.yaml").write_text(SETTINGS)
    return project


@pytest.fixture
def fleet(project: Project) -> Project:
    """FLEET with `quick` DONE."""
    project.ok("tasks", "seed", project.write(FLEET))
    project.ok("worker", "--agent", "gem", "--until-idle")
    return project


@contextmanager
def working(project: Project, name: str, agent: str = "codex") -> Iterator[subprocess.Popen[str]]:
    """Start a worker process and wait until it runs something."""
    with project.started("worker", "--agent", agent, "--worker-id", name) as process:
        running = "SELECT 1 FROM tasks WHERE claimed_by = ? AND state = 'RUNNING'"
        eventually(lambda: bool(project.select(running, name)))
        yield process


def said(project: Project, task_id: str) -> str:
    """Return what the runs of a task wrote to stdout."""
    logs = (project.folder / "artifacts" / task_id).glob("*/stdout.log")
    return "".join(log.read_text() for log in logs)


def is_gone(pid: int) -> bool:
    # Where the first process of a container reaps nobody, what is gone stays as a zombie.
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def receipt(project: Project, *args: str, code: int = 0) -> dict[str, Any]:
    done = project.run(*args, "--json")
    assert done.returncode == code, done
    return dict(json.loads(done.stdout))


def test_a_bulk_order_does_what_it_can_and_reports_each_refusal(fleet: Project) -> None:
    done = fleet.run("tasks", "cancel", "first", "quick", "ghost", "--yes")
    assert done.returncode == 1
    assert done.stdout == "first: cancelled\n1 cancelled, 2 tasks blocked by it, 2 refused\n"
    assert done.stderr.splitlines() == [
        "agentmux: ILLEGAL_TRANSITION: task 'quick' is DONE: cannot cancel",
        "agentmux: TASK_NOT_FOUND: no task 'ghost'; `agentmux tasks ls` lists them all",
    ]
    states = {"quick": "DONE", "first": "CANCELLED", "second": "BLOCKED", "third": "BLOCKED"}
    assert fleet.states() == states


@pytest.mark.parametrize(
    "order",
    [
        ["cancel", "quick", "long", "next", "ghost"],
        ["kill", "--agent", "codex"],
        ["kill", "--agent", "codex", "--force"],
        ["release", "quick", "long"],
        ["purge", "--state", "ready"],
        ["purge", "long", "ghost"],
        ["retry", "--state", "done"],
    ],
    ids=" ".join,
)
def test_a_dry_run_changes_nothing_and_says_what_then_happens(
    project: Project, order: list[str]
) -> None:
    quick = "  - {id: quick, agent: gem, payload: {seconds: 0}}\n"
    project.ok("tasks", "seed", project.write(LONG + quick))
    project.ok("worker", "--agent", "gem", "--until-idle")
    with working(project, "w1"):
        project.ok("hold", "codex")
        before = project.json("tasks", "ls")
        planned = project.run("tasks", *order, "--dry-run", "--json")
        assert project.json("tasks", "ls") == before
        done = project.run("tasks", *order, "--yes", "--json")
    assert (planned.returncode, planned.stderr) == (done.returncode, done.stderr)
    assert json.loads(planned.stdout) == json.loads(done.stdout) | {"dryRun": True}
    assert json.loads(done.stdout)["counts"]


def test_many_refusals_of_one_kind_become_one_line(project: Project) -> None:
    tasks = "".join(f"  - {{id: t{n}, agent: codex, payload: {{seconds: 0}}}}\n" for n in range(9))
    project.ok("run", project.write(f"tasks:\n{tasks}"))
    done = project.run("tasks", "cancel", "--agent", "codex", "t0", *(f"t{n}" for n in range(9)))
    assert (done.returncode, done.stdout) == (1, "9 refused\n")
    assert done.stderr.splitlines() == [
        *(f"agentmux: ILLEGAL_TRANSITION: task 't{n}' is DONE: cannot cancel" for n in (0, 1, 2)),
        "agentmux: ILLEGAL_TRANSITION: 6 more: each is DONE: cannot cancel",
    ]


def test_a_filter_asks_with_its_plan_and_only_yes_is_yes(fleet: Project) -> None:
    order = ["tasks", "cancel", "--agent", "codex"]
    code, shown = on_terminal(fleet, *order, columns=200, say="n")
    assert code == 1
    assert "2 tasks → CANCELLED, 1 task blocked by it\n" in shown
    assert shown.endswith("cancel 2 tasks? [y/N]\nn\nnothing was changed\n")
    assert fleet.states()["first"] == "READY"
    code, shown = on_terminal(fleet, *order, columns=200, say="y")
    assert code == 0
    assert shown.endswith("2 cancelled, 1 task blocked by it\n")
    assert fleet.states()["second"] == "CANCELLED"
    assert fleet.ok("tasks", "purge", "--agent", "nobody") == "no task matches\n"


def test_ctrl_c_at_the_question_changes_nothing(fleet: Project) -> None:
    before = fleet.json("events")
    code, shown = on_terminal(fleet, "tasks", "purge", "first", interrupt_at="[y/N]")
    assert code == 130
    assert "nothing was changed" in shown
    assert "Traceback" not in shown
    assert fleet.json("events") == before


@pytest.mark.parametrize(
    "command",
    [
        ["tasks", "cancel", "first"],
        ["tasks", "purge", "quick"],
        ["tasks", "retry", "--state", "done"],
        ["tasks", "retry", "quick", "--downstream"],
        ["reset"],
    ],
    ids=" ".join,
)
def test_without_a_terminal_what_asks_needs_yes_and_then_does_not_ask(
    fleet: Project, command: list[str]
) -> None:
    before = fleet.json("events")
    sentence = fleet.refused(*command, code="COMMAND_NOT_ALLOWED")
    assert "--yes" in sentence
    assert fleet.json("events") == before
    assert fleet.run(*command, "--yes").returncode == 0
    assert len(fleet.json("events")) > len(before)


def test_a_single_task_is_released_or_retried_without_a_question(fleet: Project) -> None:
    assert fleet.ok("tasks", "retry", "quick") == "quick: ready again\n1 ready again\n"
    fleet.refused("unlock", "quick", code="ILLEGAL_TRANSITION")
    fleet.ok("tasks", "seed", fleet.write(GATED, "gated.yaml"))
    with working(fleet, "w1"):
        fleet.ok("hold")
        assert "gated: released from w1" in fleet.ok("unlock", "gated")


def test_ids_and_a_filter_together_mean_both_and_an_unknown_id_is_told(fleet: Project) -> None:
    done = receipt(
        fleet, "tasks", "cancel", "first", "third", "ghost", "--agent", "codex", "--yes", code=1
    )
    assert set(done["done"]) == {"first"}
    assert [refusal["code"] for refusal in done["refused"]] == ["TASK_NOT_FOUND"]


def test_retry_downstream_begins_anew_what_depends_on_a_task(project: Project) -> None:
    dag = FLEET.replace("agent: codex}", "agent: codex, payload: {seconds: 0}}")
    dag = re.sub(r"deps: (\S+)}", r"deps: \1, payload: {seconds: 0}}", dag)
    project.ok("run", project.write(dag))
    done = receipt(project, "tasks", "retry", "first", "--downstream", "--yes")
    assert done["done"] == dict.fromkeys(["first", "second", "third"], "ready again")
    assert project.states() == {
        "quick": "DONE", "first": "READY", "second": "READY", "third": "READY",
    }  # fmt: skip


def test_stop_all_releases_what_runs_and_every_worker_exits_0(project: Project) -> None:
    project.ok("tasks", "seed", project.write(GATED))
    assert project.ok("stop", "--all") == "no worker is live\n"
    with working(project, "w1") as one, working(project, "w2", "claude") as two:
        project.refused("stop", "--all", code="COMMAND_NOT_ALLOWED")
        planned = receipt(project, "stop", "--all", "--dry-run")
        assert planned["done"] == {
            "w1": "stopped, gated released", "w2": "stopped, other released",
        }  # fmt: skip
        assert len(planned["ends"]) == 2
        assert all(end["pids"] for end in planned["ends"])
        done = receipt(project, "stop", "--all", "--yes")
        assert set(done["done"]) == {"w1", "w2"}
        assert outcome(one) == outcome(two) == (0, "", "")
        pids = [pid for end in planned["ends"] for pid in end["pids"]]
        assert all(is_gone(pid) for pid in pids)
    assert set(project.states().values()) == {"READY"}
    project.refused("stop", "w1", code="WORKER_NOT_FOUND")


def test_a_drained_worker_finishes_its_task_and_takes_no_other(project: Project) -> None:
    project.ok("tasks", "seed", project.write(GATED))
    with working(project, "w1") as process:
        assert "w1: stops after gated" in project.ok("stop", "w1", "--drain")
        stopping = "SELECT 1 FROM workers WHERE id = 'w1' AND status = 'stopping'"
        eventually(lambda: bool(project.select(stopping)))
        assert "The last workers of codex are stopping" in project.ok("explain", "later")
        (project.folder / "go").touch()
        assert outcome(process) == (0, "", "")
    assert project.states() == {"gated": "DONE", "other": "READY", "later": "READY"}


def test_kill_force_ends_a_worker_and_a_tree_that_ignore_sigterm_at_once(project: Project) -> None:
    # With a grace this long nothing but SIGKILL at once ends it within anybody's patience.
    (project.folder / "agentmux.yaml").write_text(SETTINGS.replace("0.5", "600"))
    project.ok("tasks", "seed", project.write(STUBBORN))
    with working(project, "w1") as process:
        eventually(lambda: "ready" in said(project, "stubborn"))
        planned = receipt(project, "kill", "w1", "--force", "--dry-run")
        (end,) = planned["ends"]
        assert len(end["pids"]) >= 2
        text = project.ok("kill", "w1", "--force", "--dry-run")
        assert re.search(r"1 run gets SIGKILL \(pids [\d, ]+\), 1 worker killed, 1 task", text)
        assert process.poll() is None
        done = receipt(project, "kill", "w1", "--force", "--yes")
        assert done["done"] == {"w1": f"killed; stubborn failed; process {process.pid} ended"}
        process.wait(30)
        assert all(is_gone(pid) for pid in end["pids"])
    assert project.worker("w1")["status"] == "killed"
    assert project.json("tasks", "ls")[0]["error"] == "killed by operator"
    assert list((project.state / "pids").iterdir()) == []


def test_kill_ends_a_tree_that_ignores_sigterm_after_its_grace(project: Project) -> None:
    project.ok("tasks", "seed", project.write(STUBBORN))
    with working(project, "w1"):
        eventually(lambda: "ready" in said(project, "stubborn"))
        (end,) = receipt(project, "tasks", "kill", "stubborn", "--yes")["ends"]
        assert all(is_gone(pid) for pid in end["pids"])
        assert project.states() == {"stubborn": "FAILED"}
        assert project.worker("w1")["activity"] == "idle"


def test_kill_of_a_worker_among_others_leaves_their_process_and_work_alone(
    project: Project,
) -> None:
    with project.started("run", project.write(GATED)) as process:
        project.wait_for_work(2)
        table = project.ok("ps")
        assert table.count("shared") == 2
        assert [one["ownProcess"] for one in project.json("ps")] == [False, False]
        done = receipt(project, "kill", "codex-1", "--yes")
        assert done["done"] == {"codex-1": "killed; gated failed"}
        assert process.poll() is None
        assert [one["id"] for one in project.json("ps")] == ["claude-1"]
        assert project.worker("codex-1")["status"] == "killed"
        (project.folder / "go").touch()
        code, out, err = outcome(process)
    assert (code, err) == (1, "")
    assert "1 done, 1 failed, 1 blocked" in out
    assert project.states() == {"gated": "FAILED", "other": "DONE", "later": "BLOCKED"}


def test_ps_says_which_workers_have_a_process_of_their_own(project: Project) -> None:
    project.ok("tasks", "seed", project.write(GATED))
    with working(project, "w1"):
        assert re.search(r"w1 +codex +\d+ +own +working +gated", project.ok("ps"))
        assert project.json("ps")[0]["ownProcess"] is True


def test_reset_stops_live_workers_rotates_the_log_and_seeds(project: Project) -> None:
    project.ok("tasks", "seed", project.write(GATED))
    with working(project, "w1") as process:
        planned = receipt(project, "reset", "--dry-run")
        assert planned["done"] == {"w1": "stopped, gated released"}
        assert "claims go on" in project.ok("reset", "--dry-run")
        assert project.events_of("HELD") == []
        done = project.run("reset", "--yes")
        assert done.returncode == 0
        assert "waiting for workers to stop (15s left): w1" in done.stderr
        assert "with gated; then the log is rotated" in done.stderr
        assert re.search(r"w1: stopped, gated released", done.stdout)
        assert "1 worker stopped, 0 created, 0 updated, 3 unchanged" in done.stdout
        assert outcome(process) == (0, "", "")
    assert set(project.states().values()) == {"READY"}
    assert project.json("status")["progress"]["held"] == []
    log = [json.loads(line) for line in (project.state / "events.jsonl").read_text().splitlines()]
    assert [event["type"] for event in log[:2]] == ["RESET", "SEEDED"]
    assert len(list(project.state.glob("events.*Z.jsonl"))) == 1
    project.ok("doctor")


def test_reset_takes_another_dag_and_fresh_begins_all_of_it_anew(fleet: Project) -> None:
    other = fleet.write(FLEET.replace("  - {id: third", "  - {id: fourth"), "other.yaml")
    fleet.ok("tasks", "cancel", "first", "--yes")
    done = receipt(fleet, "reset", "--dag", other, "--fresh", "--yes")
    assert done["counts"] == {
        "created": 1, "updated": 0, "unchanged": 3, "blocked": 1, "unblocked": 0, "readyAgain": 2,
    }  # fmt: skip
    assert fleet.states() == {
        "quick": "READY", "first": "READY", "second": "READY", "fourth": "READY",
        "third": "BLOCKED",
    }  # fmt: skip


def test_reset_refuses_with_the_name_of_who_is_alive_and_force_kills_it(project: Project) -> None:
    project.ok("tasks", "seed", project.write(GATED))
    with working(project, "w1") as process:
        before = project.worker("w1")
        asyncio.run(suspend(process, Layout(project.state)))
        done = project.run("reset", "--timeout", "0.5", "--yes")
        assert done.returncode == 1
        refusal = done.stderr.splitlines()[-1]
        assert refusal.startswith("agentmux: LEASE_CONFLICT: still alive after 0.5 s: w1 (pid ")
        assert before["taskId"] == "gated"
        assert project.states()["gated"] == "RUNNING"
        assert project.events_of("RESET") == []
        assert project.json("status")["progress"]["held"] == []

        done = project.run("reset", "--timeout", "0.5", "--force", "--yes")
        assert done.returncode == 0, done
        assert "killing w1" in done.stderr
        assert "w1: killed" in done.stdout
        assert process.wait(30) == -signal.SIGKILL
    assert set(project.states().values()) == {"READY"}
    assert len(project.events_of("RESET")) == 1
    assert project.json("status")["progress"]["held"] == []


def test_a_forced_reset_does_not_kill_a_process_that_several_workers_share(
    project: Project,
) -> None:
    with project.started("run", project.write(GATED)) as process:
        project.wait_for_work(2)
        asyncio.run(suspend(process, Layout(project.state)))
        done = project.run("reset", "--timeout", "0.5", "--force", "--yes")
        assert done.returncode == 0, done
        assert process.poll() is None, "it is no worker's alone"
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        assert outcome(process)[0] == 128 + signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_reset_that_is_interrupted_gives_up_and_nobody_else_may_reset_meanwhile(
    project: Project, number: signal.Signals
) -> None:
    project.ok("tasks", "seed", project.write(GATED))
    with working(project, "w1") as stopped:
        asyncio.run(suspend(stopped, Layout(project.state)))
        with project.started("reset", "--timeout", "600", "--yes") as waiting:
            assert waiting.stderr is not None
            assert "waiting for workers to stop" in waiting.stderr.readline()
            second = project.refused("reset", "--yes", code="LEASE_CONFLICT")
            assert "another reset is under way" in second
            assert project.json("status")["progress"]["held"] == ["*"]
            waiting.send_signal(number)
            waiting.send_signal(number)
            code, out, err = outcome(waiting)
        assert (code, out) == (128 + number, "")
        assert err.splitlines()[-1].endswith("nothing was reset; claims go on")
        assert project.json("status")["progress"]["held"] == []
        assert project.events_of("RESET") == []
        assert list(Layout(project.state).control.iterdir()) == [], "nobody is asked any longer"
        stopped.send_signal(signal.SIGCONT)
        stopped.send_signal(signal.SIGTERM)
        assert outcome(stopped)[0] == 0


async def test_a_reset_that_is_interrupted_too_late_is_completed_and_says_so(
    fleet: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def look(_reaper: Reaper) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.1)

    monkeypatch.setattr(Reaper, "look", look)
    args = parse(["--state-dir", str(fleet.state), "reset", "--yes"])
    assert await steering.reset(args) == 130
    assert "too late: the reset is complete" in capsys.readouterr().err
    assert len(fleet.events_of("RESET")) == 1
    assert fleet.json("status")["progress"]["held"] == []


async def test_a_reset_that_cannot_ask_a_worker_to_stop_lets_claims_go_on(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_presence: Presence, agent: str, worker_id: str, _word: str = "") -> Path:
        raise OSError(errno.ENOSPC, "No space left on device", f"{agent}-{worker_id}.stop")

    project.ok("tasks", "seed", project.write(GATED))
    with working(project, "w1"):
        monkeypatch.setattr(Presence, "ask_stop", full)
        args = parse(["--state-dir", str(project.state), "reset", "--yes"])
        with pytest.raises(StorageError, match="No space left"):
            await steering.reset(args)
        assert project.json("status")["progress"]["held"] == []
        assert project.events_of("RESET") == []
        assert project.worker("w1")["activity"] == "working"


def test_a_reset_on_a_terminal_shows_live_whom_it_waits_for(project: Project) -> None:
    project.ok("tasks", "seed", project.write(GATED))
    with working(project, "w1") as stopped:
        asyncio.run(suspend(stopped, Layout(project.state)))
        code, shown = on_terminal(
            project, "reset", "--yes", columns=200, interrupt_at="s left): w1"
        )
        stopped.send_signal(signal.SIGCONT)
    assert code == 130
    assert "then the log is rotated, the DAG is seeded and claims go on" in shown
    assert "nothing was reset" in shown


def test_hold_warns_of_an_agent_that_no_task_has(fleet: Project) -> None:
    planned = receipt(fleet, "hold", "codex", "--dry-run")
    assert (planned["dryRun"], planned["done"]) == (True, {"codex": "held"})
    assert fleet.json("status")["progress"]["held"] == []
    done = fleet.run("hold", "codx")
    assert (done.returncode, done.stdout) == (0, "codx: held\n")
    assert "no task is for an agent 'codx'; those of the tasks: claude, codex, gem" in done.stderr
    fleet.refused("hold", "no agent's name", code="VALIDATION_ERROR")
    fleet.ok("hold")
    done = fleet.run("resume", "codx")
    assert "`agentmux resume` lifts that" in done.stderr
    assert fleet.ok("resume", "--dry-run").endswith("all agents: resumed\n")
    fleet.ok("resume")
    assert fleet.json("status")["progress"]["held"] == []


def test_gc_removes_what_its_dry_run_names_and_asks_first(project: Project) -> None:
    dag = "tasks: [{id: a, agent: codex, payload: {kind: shell, cmd: 'sleep 0'}}]"
    project.ok("run", project.write(dag))
    (folder,) = (project.folder / "artifacts" / "a").iterdir()
    old = ["gc", "--older-than", "0s"]
    assert "nothing that may go is older than 30d" in project.ok("gc")
    assert "it would remove the artifacts of 1 run (" in project.ok(*old, "--dry-run")
    project.refused(*old, code="COMMAND_NOT_ALLOWED")
    code, shown = on_terminal(project, *old, columns=200, say="n")
    assert code == 1
    assert "remove the artifacts of 1 run (" in shown
    assert folder.exists()
    planned = project.json(*old, "--dry-run")
    done = project.json(*old, "--yes")
    assert planned | {"dryRun": False} == done
    assert (done["runs"], done["refused"]) == (1, [])
    assert not folder.exists()
    assert [run["outcome"] for run in project.json("history")] == ["done"]


def test_health_and_doctor_repair_are_there(fleet: Project) -> None:
    assert fleet.json("health")["completedCount"] == 1
    mended = fleet.json("doctor", "--repair")
    assert mended["mended"] == []


@pytest.mark.parametrize(
    "args",
    [
        ["stop"],
        ["kill"],
        ["stop", "w1", "--all"],
        ["stop", "w1", "--force"],
        ["kill", "w1", "--drain"],
        ["tasks", "cancel"],
        ["tasks", "purge", "--yes"],
        ["tasks", "kill", "--state", "asleep"],
        ["unlock"],
        ["reset", "--timeout", "-1"],
        ["reset", "dag.yaml"],
        ["gc", "--older-than", "soon"],
        ["worker", "--agent", "codex", "--stop"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2_and_says_how(project: Project, args: list[str]) -> None:
    done = project.run(*args)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: agentmux")
    assert not project.state.exists()
