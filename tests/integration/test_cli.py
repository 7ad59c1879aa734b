"""The whole command line as its users run it: real processes over real folders."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import stat
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from support.patience import PATIENCE
from support.program import ENVIRONMENT, LONG, PROGRAM, Project, on_terminal, outcome

from engine.filters import STATES
from engine.text import cells, clean_text

if TYPE_CHECKING:
    from pathlib import Path

DIAMOND = """
tasks:
  - {id: "plan", agent: claude, payload: {kind: noop, seconds: 0}}
  - {id: "impl:a", name: "Implement a", agent: codex, deps: [plan], payload: {seconds: 0}}
  - {id: "impl:b", agent: codex, deps: [plan], payload: {kind: shell, cmd: "echo built"}}
  - {id: "review", agent: claude, deps: ["impl:a", "impl:b"], payload: {kind: noop, seconds: 0}}
"""
FAILING = """
tasks:
  - {id: good, agent: codex, payload: {kind: shell, cmd: "true"}}
  - {id: bad, agent: codex, payload: {kind: shell, cmd: "false"}}
  - {id: after, agent: codex, deps: [bad]}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_without_a_store_readers_refuse_say_what_to_do_and_make_nothing(project: Project) -> None:
    for args in (["tasks", "ls"], ["ps", "--json"], ["events", "--follow"], ["hold"], ["status"]):
        assert "agentmux tasks seed DAG" in project.refused(*args, code="IO_ERROR")
    assert list(project.folder.iterdir()) == []


def test_run_drives_a_dag_to_its_end_and_every_reader_can_tell_of_it(project: Project) -> None:
    done = project.run("run", project.write(DIAMOND), "--workers", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"4 tasks in \S+: 4 done\n", done.stdout)

    tasks = {task["id"]: task for task in project.json("tasks", "ls")}
    assert {task["state"] for task in tasks.values()} == {"DONE"}
    assert list(tasks) == ["plan", "impl:a", "impl:b", "review"]
    assert tasks["review"]["deps"] == ["impl:a", "impl:b"]
    assert set(tasks["plan"]) >= {
        "id", "name", "agent", "state", "deps", "reasons", "error", "attempts", "claimedBy",
        "leaseUntil", "timeoutAt", "createdAt", "updatedAt",
    }  # fmt: skip

    shown = project.json("tasks", "show", "impl:b")
    assert shown["payload"] == {"kind": "shell", "cmd": "echo built"}
    assert [run["outcome"] for run in shown["runs"]] == ["done"]
    assert shown["events"][0]["type"] == "TASK_CREATED"
    assert "echo built" in project.ok("tasks", "show", "impl:b")

    runs = project.json("history")
    assert {run["taskId"] for run in runs} == set(tasks)
    assert [run["taskId"] for run in project.json("history", "plan")] == ["plan"]
    assert len(project.json("history", "--limit", "1")) == 1
    assert "codex-" in project.ok("history", "impl:a")

    events = project.json("events")
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    log = (project.state / "events.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in log] == events
    assert len(project.ok("events").splitlines()) == len(events)
    assert project.json("events", "--since", str(len(events))) == []

    assert project.json("ps") == []
    assert {worker["activity"] for worker in project.json("ps", "--all")} == {"stopped"}
    assert "codex-2" in project.ok("ps", "--all")

    report = project.ok("status")
    file = project.state / "status.md"
    assert file.read_text() == report
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "| codex | 0 | 0 | 0 | 2 | 0 | 0 | 0 | 2 |" in report
    assert project.json("status")["agents"]["claude"] == {"DONE": 2}
    project.ok("doctor")


def test_run_exits_1_and_names_what_failed_and_what_that_blocks(project: Project) -> None:
    done = project.run("run", project.write(FAILING))
    assert done.returncode == 1
    assert re.match(r"3 tasks in \S+: 1 done, 1 failed, 1 blocked\n", done.stdout)
    assert re.search(r"✗ +bad +failed +.*1", done.stdout)
    assert re.search(r"⊘ +after +blocked +a dep did not succeed", done.stdout)
    assert "\x1b" not in done.stdout
    assert "`agentmux tasks retry --state failed`" in done.stdout
    assert "bad" in project.ok("explain", "after")


def test_run_without_a_dag_takes_the_one_last_seeded(project: Project) -> None:
    project.refused("run", code="IO_ERROR")
    project.ok("tasks", "seed", project.write(DIAMOND, "other.yaml"))
    project.ok("run")


def test_run_stops_gracefully_at_its_timeout(project: Project) -> None:
    done = project.run("run", project.write(LONG), "--timeout", "0.3")
    assert done.returncode == 1
    assert "(timed out)" in done.stdout
    assert project.states() == {"long": "READY", "next": "READY"}


def test_ctrl_c_releases_the_tasks_of_a_run_even_when_pressed_twice(project: Project) -> None:
    with project.started("run", project.write(LONG)) as process:
        project.wait_for("RUNNING")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        code, out, err = outcome(process)
    assert (code, err) == (130, "stopping; waits for 1 run to end: long\n")
    assert "(interrupted)" in out
    released = [event for event in project.json("events") if event["type"] == "TASK_RELEASED"]
    assert [event["taskId"] for event in released] == ["long"]
    assert project.states()["long"] == "READY"
    assert list((project.state / "pids").iterdir()) == []


def test_a_dry_seed_prints_the_plan_and_changes_nothing(project: Project) -> None:
    dag = project.write(DIAMOND)
    assert "4 created" in project.ok("tasks", "seed", dag, "--dry-run")
    assert not project.state.exists()
    project.ok("tasks", "seed", dag)
    before = project.json("events")
    changed = project.write(DIAMOND.replace("Implement a", "Build a"), "changed.yaml")
    plan = project.ok("tasks", "seed", changed, "--dry-run")
    assert "1 updated" in plan
    assert "impl:a" in plan
    assert project.json("events") == before


def test_seeding_twice_changes_nothing(project: Project) -> None:
    dag = project.write(DIAMOND)
    assert "4 created" in project.ok("tasks", "seed", dag)
    first = project.json("tasks", "ls")
    assert "4 unchanged" in project.ok("tasks", "seed", dag)
    assert project.json("tasks", "ls") == first


def test_a_bad_dag_is_refused_with_all_its_lines(project: Project) -> None:
    bad = project.write('tasks:\n  - {id: a, agent: x, deps: [ghost]}\n  - {id: a, agent: "/"}\n')
    sentence = project.refused("tasks", "seed", bad, code="VALIDATION_ERROR")
    assert "line 2" in sentence
    assert "line 3" in sentence
    project.refused("tasks", "seed", "missing.yaml", code="IO_ERROR")
    project.refused("run", bad, code="VALIDATION_ERROR")
    project.refused("run", code="IO_ERROR")
    assert not project.state.exists(), "there was no store, and there is none now"


def test_a_list_of_tasks_shows_what_was_asked_for(project: Project) -> None:
    project.ok("tasks", "seed", project.write(DIAMOND))

    def ids(*args: str) -> list[str]:
        return [task["id"] for task in project.json("tasks", "ls", *args)]

    assert ids("--state", "READY") == ["plan", "impl:a", "impl:b", "review"]
    assert ids("state:ready") == ["plan"]
    assert ids("--state", "waiting", "--agent", "codex") == ["impl:a", "impl:b"]
    assert ids("IMPLEMENT") == ["impl:a"]
    assert ids("!impl", "state:!waiting") == ["plan"]
    assert ids("--agent", "nobody") == []
    assert ids("name:/^implement/", "!/b$/") == ["impl:a"]
    assert ids("state:ready,failed") == ["plan"]
    assert "no task matches" in project.ok("tasks", "ls", "--state", "DONE")
    assert "write state:running" in project.ok("tasks", "ls", "running")
    known = project.refused("tasks", "ls", "state:x", code="VALIDATION_ERROR")
    assert all(state in known for state in STATES)
    lines = project.ok("tasks", "ls").splitlines()
    assert len(lines) == 5
    assert re.match(r"◦  review +claude +waiting .*waits for impl:a, impl:b$", lines[4])


def test_hold_and_resume_are_told_by_explain(project: Project) -> None:
    project.ok("tasks", "seed", project.write(DIAMOND))
    project.ok("hold", "claude")
    assert "held" in project.ok("explain", "plan")
    assert "claims are held" in project.ok("tasks", "ls", "plan")
    assert project.json("status")["progress"]["held"] == ["claude"]
    project.ok("resume", "claude")
    assert "held" not in project.ok("explain", "plan")
    waits = project.json("explain", "review")
    assert waits["id"] == "review"
    assert "impl:a" in " ".join(waits["explanation"])


@pytest.mark.parametrize("command", [["tasks", "show"], ["explain"], ["history"], ["unlock"]])
def test_an_unknown_task_is_refused_by_name(project: Project, command: list[str]) -> None:
    project.ok("tasks", "seed", project.write(DIAMOND))
    assert "ghost" in project.refused(*command, "ghost", code="TASK_NOT_FOUND")


def test_follow_prints_what_other_processes_do_until_ctrl_c(project: Project) -> None:
    project.ok("tasks", "seed", project.write(LONG))
    known = len(project.json("events"))
    with project.started("events", "--follow", "--json", "--since", str(known - 1)) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["type"] == "SEEDED"
        project.ok("hold", "codex")
        held = json.loads(process.stdout.readline())
        assert (held["type"], held["seq"]) == ("HELD", known + 1)
        process.send_signal(signal.SIGINT)
        assert outcome(process) == (130, "", "")


def test_a_worker_process_works_shows_itself_and_stops_when_asked(project: Project) -> None:
    project.ok("tasks", "seed", project.write(LONG))
    named = ["worker", "--agent", "codex", "--worker-id", "w1"]
    with project.started(*named) as process:
        project.wait_for("RUNNING")
        (shown,) = project.json("ps")
        assert (shown["id"], shown["pid"], shown["taskId"]) == ("w1", process.pid, "long")
        assert shown["activity"] == "working"
        pid_file = project.state / "pids" / "codex-w1.pid"
        assert pid_file.read_text().strip() == str(process.pid)
        project.refused("worker", "--agent", "codex", "--worker-id", "w1", code="LEASE_CONFLICT")
        wrong = ["worker", "--stop", "--agent", "claude", "--worker-id", "w1"]
        project.refused(*wrong, code="WORKER_NOT_FOUND")
        project.ok(*named, "--stop")
        assert outcome(process) == (0, "", "")
    assert not pid_file.exists()
    assert project.states()["long"] == "READY"
    assert project.json("ps") == []
    project.refused(*named, "--stop", code="WORKER_NOT_FOUND")
    assert project.run("worker", "--agent", "codex", "--stop").returncode == 2


def test_sigterm_ends_a_worker_gracefully(project: Project) -> None:
    project.ok("tasks", "seed", project.write(LONG))
    with project.started("worker", "--agent", "codex") as process:
        project.wait_for("RUNNING")
        process.send_signal(signal.SIGTERM)
        assert outcome(process)[0] == 0
    assert project.states()["long"] == "READY"


def test_a_worker_until_idle_ends_when_its_agent_has_nothing_left(project: Project) -> None:
    project.ok("tasks", "seed", project.write(FAILING))
    done = project.run("worker", "--agent", "codex", "--worker-id", "w1", "--until-idle")
    assert done.returncode == 0
    assert project.states() == {"good": "DONE", "bad": "FAILED", "after": "BLOCKED"}


def test_unlock_takes_a_running_task_from_its_worker(project: Project) -> None:
    project.ok("tasks", "seed", project.write(LONG))
    project.refused("unlock", "next", code="ILLEGAL_TRANSITION")
    with project.started("worker", "--agent", "codex") as process:
        project.wait_for("RUNNING")
        project.ok("hold")
        project.refused("tasks", "release", "--state", "RUNNING", code="COMMAND_NOT_ALLOWED")
        assert "long" in project.ok("tasks", "release", "--state", "RUNNING", "--dry-run")
        code, shown = on_terminal(project, "tasks", "release", "--agent", "codex", "long", say="n")
        assert code == 1
        assert "release 1 task? [y/N]" in shown
        assert project.states()["long"] == "RUNNING"
        assert "long" in project.ok("unlock", "long")
        project.wait_for("READY")
        process.send_signal(signal.SIGTERM)
        assert outcome(process)[0] == 0
    assert project.run("tasks", "release").returncode == 2


def test_doctor_exits_1_for_an_inconsistency(project: Project) -> None:
    project.ok("tasks", "seed", project.write(DIAMOND))
    assert "no inconsistency found" in project.ok("doctor")
    log = project.state / "events.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[1:]))
    done = project.run("doctor", "--json")
    assert done.returncode == 1
    findings = json.loads(done.stdout)
    assert any(finding["level"] == "error" for finding in findings)
    assert set(findings[0]) == {"level", "check", "message", "advice"}


def test_doctor_warns_of_settings_that_no_worker_would_start_with(project: Project) -> None:
    project.ok("tasks", "seed", project.write(DIAMOND))
    project.write("heartbeet: 5\n", "agentmux.yaml")
    warned = [one for one in project.json("doctor") if one["level"] == "warning"]
    assert [one["check"] for one in warned] == ["settings"]
    assert "heartbeet" in warned[0]["message"]


def test_a_reader_that_goes_away_ends_the_program_quietly(project: Project) -> None:
    project.ok("tasks", "seed", project.write(DIAMOND))
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*PROGRAM, "events"],
        cwd=project.folder,
        env=ENVIRONMENT,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=PATIENCE,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_wrong_usage_exits_2_and_a_foreign_store_is_an_io_error(project: Project) -> None:
    for args in ([], ["fly"], ["tasks", "ls", "--state", "ASLEEP"], ["run", "--workers", "0"],
                 ["tasks", "ls", "--state", "ready", "--state", "failed"]):  # fmt: skip
        assert project.run(*args).returncode == 2
    assert project.ok("--version").startswith("agentmux ")
    project.state.mkdir()
    (project.state / "tasks.db").write_text("this is no database, but long enough to look like it")
    project.refused("tasks", "ls", code="IO_ERROR")


def test_a_short_command_loads_neither_rich_nor_textual(project: Project) -> None:
    project.ok("tasks", "seed", project.write(DIAMOND))
    script = (
        "import sys; from engine.cli import main; code = main(['tasks', 'ls']);"
        "print(sorted({'rich', 'textual'} & set(sys.modules))); sys.exit(code)"
    )
    done = project.python(script)
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_terminal_gets_colour_and_lines_that_fit(project: Project) -> None:
    long = "review:" + "x" * 90
    project.ok("tasks", "seed", project.write(DIAMOND.replace("review", long)))
    code, shown = on_terminal(project, "tasks", "ls")
    assert code == 0
    assert "\x1b[2mwaiting\x1b[0m" in shown
    lines = clean_text(shown, newlines=True).splitlines()
    assert all(cells(line) <= 60 for line in lines)
    assert "…" in lines[4]
    assert "waiting" in lines[4]
    assert long in project.ok("tasks", "ls")


def test_nothing_in_the_store_can_act_on_the_terminal(project: Project) -> None:
    project.run("run", project.write(FAILING))
    evil = "\x1b]0;pwned\x07\x1b[2J\x1b[31mred\x9bAevil\u202e\x7f"
    with closing(sqlite3.connect(project.state / "tasks.db")) as store, store:
        store.execute("UPDATE tasks SET name = ?1, error = ?1", (evil,))
        store.execute("UPDATE runs SET error = ?", (evil,))
        store.execute("UPDATE workers SET note = ?", (evil,))
        store.execute("UPDATE events SET data = ?", (json.dumps({"error": evil, "dag": evil}),))
    for args in (["tasks", "ls"], ["tasks", "show", "bad"], ["history"], ["explain", "bad"],
                 ["events"], ["status"], ["ps", "--all"], ["events", "--json"]):  # fmt: skip
        code, shown = on_terminal(project, *args, columns=200)
        assert code == 0
        plain = re.sub(r"\x1b\[(0|1|2|3\d|38;5;208)m", "", shown.replace("\x1b[31mred", "!"))
        assert clean_text(plain, newlines=True) == plain
        assert "!" not in plain
        assert "red" in plain


def test_run_shows_progress_on_a_terminal_and_ends_with_its_summary(project: Project) -> None:
    dag = project.write(DIAMOND.replace("seconds: 0", "seconds: 0.4"))
    code, shown = on_terminal(project, "run", dag, columns=100)
    assert code == 0
    assert "/4" in shown
    assert re.search(r"4 tasks in \S+: 4 done\n$", shown)


@pytest.mark.parametrize(
    "command",
    [
        ["tasks", "cancel", "--yes"],
        ["tasks", "ls"],
        ["tasks", "ls", "--agent"],
        ["hold"],
        ["explain"],
        ["kill", "--yes"],
        ["worker", "--agent"],
        ["tasks", "seed"],
        ["run"],
    ],
)
def test_an_argument_that_is_no_utf_8_is_wrong_usage(project: Project, command: list[str]) -> None:
    project.ok("tasks", "seed", project.write(DIAMOND))
    done = project.run(*command, os.fsdecode(b"x\x9b31m"))
    assert done.returncode == 2
    assert "is not UTF-8 text" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_state_folder_may_have_any_name(project: Project) -> None:
    folder = os.fsdecode(b"st\xffate")
    project.ok("--state-dir", folder, "tasks", "seed", project.write(DIAMOND))
    assert "plan" in project.ok("--state-dir", folder, "tasks", "ls")
    project.ok("--state-dir", folder, "doctor")


def test_a_database_that_cannot_be_opened_is_one_sentence(project: Project) -> None:
    (project.state / "tasks.db").mkdir(parents=True)
    for _ in range(3):
        told = project.refused("ps", code="IO_ERROR")
        assert len(told.splitlines()) == 1, told
        assert "is a folder; move it away" in told


@pytest.mark.parametrize(
    "place",
    [
        "engine.cli.parser.build_parser",
        "engine.cli.main.log_to_stderr",
        "engine.cli.main._handler",
        "engine.cli.main.parse",
        "engine.cli.main._open_closed_streams",
    ],
)
def test_ctrl_c_before_the_command_began_is_quiet(project: Project, place: str) -> None:
    # A real SIGINT to a real process, at the moment that the test names.
    module, _, name = place.rpartition(".")
    script = (
        "import os, signal, sys, importlib; from engine.cli import main;"
        f"module = importlib.import_module({module!r});"
        "interrupt = lambda *_: os.kill(os.getpid(), signal.SIGINT);"
        f"setattr(module, {name!r}, interrupt); sys.exit(main(['ps']))"
    )
    done = project.python(script)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_while_modules_are_loaded_is_quiet(project: Project) -> None:
    script = (
        "import os, signal, sys; from engine.cli import main\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'engine.cli.parser': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder()); sys.exit(main(['ps']))"
    )
    done = project.python(script)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_run_that_ends_because_claims_are_held_says_so(project: Project) -> None:
    dag = project.write(DIAMOND)
    project.ok("tasks", "seed", dag)
    project.ok("hold", "codex")
    done = project.run("run", dag)
    assert done.returncode == 1
    assert "(claims of codex are held: `agentmux resume codex`, then run again)" in done.stdout
    project.ok("hold")
    done = project.run("run", dag)
    assert "(claims are held: `agentmux resume`, or await the reset" in done.stdout
    project.ok("resume")
    project.ok("resume", "codex")
    assert "held" not in project.ok("run", dag)


def test_a_run_whose_workers_are_stopped_from_elsewhere_says_so(project: Project) -> None:
    with project.started("run", project.write(LONG)) as process:
        project.wait_for("RUNNING")
        project.ok("stop", "--all", "--yes")
        code, out, err = outcome(process)
    assert (code, err) == (1, "")
    assert "(its workers were stopped from elsewhere; run again to go on)" in out
