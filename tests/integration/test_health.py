"""What `agentmux health` tells: its numbers, its alerts at their thresholds, its exit code."""

from __future__ import annotations

import json
import signal
import sqlite3
import uuid
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from support.engines import Project, look_while_busy, suspend, until
from support.program import agentmux
from support.stores import a_task
from support.strays import a_tree

from engine.care.alerts import (
    FEW_FAILURES,
    LONG_QUEUE,
    MOST_WORKTREE_FAILURES,
    STUCK_SECONDS,
    judge,
    stale,
)
from engine.care.facts import PARTS, Alert, Facts, Kind, Part
from engine.care.health import Report, assess, measure, take_health
from engine.commands import Hold, Seed
from engine.config import Config
from engine.core import Engine
from engine.findings import CAP, Level
from engine.machine import ENDING_SECONDS
from engine.model import HoldCause, ProcessId, ServiceState, State, WorkerStatus
from engine.store import vitals as vitals_module
from engine.store.feeds import FeedTrouble
from engine.store.vitals import (
    HoldingRun,
    KeptService,
    KnownWorker,
    LeavingRun,
    Vitals,
    read_vitals,
)
from engine.views import HealthPart, HealthStatus

if TYPE_CHECKING:
    import subprocess

    from support.stage import Stage


NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOST = ProcessId(4711, "1")
KEYS = [
    "status",
    "parts",
    "runningCount",
    "maxConcurrent",
    "queuedCount",
    "waitingCount",
    "blockedCount",
    "completedCount",
    "failedCount",
    "oldestRunningAge",
    "stuckThreshold",
    "staleWorkers",
    "alerts",
    "timestamp",
    "metrics",
]


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def a_worker(name: str = "codex-1", *, silent: float = 0, **more: Any) -> KnownWorker:
    worker = KnownWorker(name, "codex", HOST, WorkerStatus.LIVE, ago(silent))
    return replace(worker, **more)


def a_run(task_id: str = "build", *, since: float = 0, **more: Any) -> HoldingRun:
    run = HoldingRun(f"run-{task_id}", task_id, "codex", "codex-1", ago(since), HOST, False, "")
    return replace(run, **more)


def facts(vitals: Vitals, **more: Any) -> Facts:
    counted = {("codex", State.RUNNING, False): len(vitals.runs)} if vitals.runs else {}
    vitals = replace(vitals, tallies={**counted, **vitals.tallies})
    return replace(Facts(NOW, vitals, frozenset({HOST})), **more)


def told(seen: Facts) -> list[tuple[str, str, str | None]]:
    return [(str(one.level), str(one.kind), one.subject) for one in judge(seen)]


def only(seen: Facts) -> Alert:
    (alert,) = judge(seen)
    return alert


def test_a_fleet_at_work_needs_nobody() -> None:
    seen = facts(Vitals(runs=(a_run(since=60),), workers=(a_worker(silent=5),)))
    assert judge(seen) == ()
    assert not measure(seen, judge(seen)).degraded


def test_a_run_is_told_once_it_is_older_than_thirty_minutes() -> None:
    workers = (a_worker(),)
    assert told(facts(Vitals(runs=(a_run(since=STUCK_SECONDS),), workers=workers))) == []
    alert = only(facts(Vitals(runs=(a_run(since=STUCK_SECONDS + 1),), workers=workers)))
    assert (alert.level, alert.kind, alert.subject) == (Level.WARNING, Kind.STUCK, "build")
    assert "30:01, longer than 30 minutes" in alert.message


def test_many_old_runs_are_told_oldest_first_and_counted_beyond_the_cap() -> None:
    runs = tuple(a_run(f"t{n}", since=STUCK_SECONDS + 1 + n) for n in range(CAP + 3))
    alerts = judge(facts(Vitals(runs=runs, workers=(a_worker(),))))
    assert [one.subject for one in alerts] == [f"t{CAP + 2 - n}" for n in range(CAP)] + [None]
    assert "and 3 more" in alerts[-1].message


def test_a_queue_is_told_once_it_is_longer_than_ten() -> None:
    tallies = {("codex", State.READY, False): LONG_QUEUE, ("codex", State.READY, True): 99}
    workers = (a_worker(), a_worker("claude-1", agent="claude"))
    assert told(facts(Vitals(tallies=tallies, workers=workers))) == []
    tallies["claude", State.READY, False] = 1
    alert = only(facts(Vitals(tallies=tallies, workers=workers)))
    assert (alert.level, alert.kind) == (Level.WARNING, Kind.QUEUE)
    assert "11 tasks are queued, more than 10: 10 for codex, 1 for claude" in alert.message


def test_work_that_no_worker_could_take_is_told_with_what_starts_one() -> None:
    tallies = {
        ("codex", State.READY, False): 2,
        ("claude", State.READY, False): 1,
        ("gemini", State.READY, True): 5,
    }
    workers = (a_worker(), a_worker("claude-1", agent="claude", status=WorkerStatus.STOPPING))
    alert = only(facts(Vitals(tallies=tallies, workers=workers)))
    assert (alert.level, alert.kind, alert.subject) == (Level.WARNING, Kind.UNSERVED, "claude")
    assert alert.message == (
        "no claude worker runs, and 1 task waits for one; "
        "`agentmux worker --agent claude --worker-id claude-1` starts one"
    )
    dead = facts(Vitals(tallies=tallies, workers=(a_worker(),)), alive=frozenset())
    assert {("unserved", "codex"), ("unserved", "claude")} <= {line[1:] for line in told(dead)}
    held = facts(Vitals(tallies=tallies, workers=workers, held=("claude",)))
    assert "unserved" not in {kind for _, kind, _ in told(held)}


def test_a_silent_worker_is_an_error_only_if_it_holds_a_task() -> None:
    at_the_edge = facts(Vitals(workers=(a_worker(silent=15),)))
    assert told(at_the_edge) == []
    idle = facts(Vitals(workers=(a_worker(silent=15.1),)))
    assert told(idle) == [("warning", "stale", "codex-1")]
    holding = facts(Vitals(workers=(a_worker(silent=20),), runs=(a_run(),)))
    assert told(holding) == [("error", "stale", "codex-1")]
    message = only(holding).message
    assert "is silent for 20s and holds task 'build'; " in message
    assert "`agentmux kill codex-1`" in message
    assert [worker.id for worker in stale(holding)] == ["codex-1"]


def test_a_worker_whose_process_is_gone_is_stale_however_lately_it_was_heard() -> None:
    vitals = Vitals(workers=(a_worker(silent=1),), runs=(a_run(),))
    seen = facts(vitals, alive=frozenset())
    assert told(seen) == [("error", "stale", "codex-1")]
    assert "is gone without a word" in only(seen).message


def test_patience_with_silence_is_a_setting() -> None:
    vitals = Vitals(workers=(a_worker(silent=20),))
    assert told(facts(vitals, stale_after=30)) == []


def test_a_hold_is_a_warning_only_while_tasks_wait_for_it() -> None:
    tallies = {("codex", State.READY, False): 2, ("codex", State.READY, True): 5}
    assert told(facts(Vitals(held=("codex", "gemini"), tallies=tallies))) == [
        ("warning", "held", "codex"),
        ("note", "held", "gemini"),
    ]
    alert = only(facts(Vitals(held=("*",), tallies=tallies)))
    assert "held for all agents, 2 queued tasks wait for it; `agentmux resume`" in alert.message


def test_a_hold_that_somebody_must_do_something_about_is_an_alert_of_its_own() -> None:
    tallies = {("codex", State.READY, False): 1, ("claude", State.READY, False): 1}
    causes = {
        "claude": (HoldCause.LOGIN, "not logged in"),
        "codex": (HoldCause.BUDGET, "$1.00 of the $1.00 of codex are spent"),
        "gemini": (HoldCause.LIMIT, "usage limit"),
    }
    seen = facts(Vitals(held=tuple(causes), causes=causes, tallies=tallies))
    assert told(seen) == [
        ("warning", "login", "claude"),
        ("warning", "budget", "codex"),
        ("note", "held", "gemini"),
    ]
    login, budget, limit = (alert.message for alert in judge(seen))
    assert login.endswith("1 queued task waits for it; log in, then `agentmux resume claude`")
    assert "(not logged in)" in login
    assert budget.endswith("raise `budget:` in agentmux.yaml, then `agentmux resume codex`")
    assert limit.endswith("they go on by themselves, or with `agentmux resume gemini`")


def test_a_reset_that_is_not_completed_is_told_instead_of_its_hold() -> None:
    seen = facts(Vitals(held=("*",), resetting=True))
    assert told(seen) == [("warning", "reset", None)]
    assert "`agentmux reset` completes it" in only(seen).message


def test_a_process_of_a_run_that_holds_nothing_is_an_orphan() -> None:
    one, two, three = (ProcessId(pid, "1") for pid in (12, 13, 14))
    leaving = LeavingRun("leaving", "build", "codex-1", ago(1), HOST)
    vitals = Vitals(runs=(a_run("build"),), leaving=(leaving,), workers=(a_worker(),))
    mine = {one: "run-build", two: "leaving"}
    assert told(facts(vitals, processes=mine)) == []
    seen = facts(vitals, processes=mine | {three: "gone", ProcessId(9, "1"): "gone"})
    assert told(seen) == [("error", "orphan", "gone")]
    assert "processes of it live: 9, 14; `agentmux doctor --repair`" in only(seen).message


def test_processes_that_cannot_be_looked_at_are_only_a_note() -> None:
    assert told(facts(Vitals(), processes="no /proc")) == [("note", "orphan", None)]


def test_a_tree_that_does_not_end_is_an_error_after_a_minute() -> None:
    run = LeavingRun("r", "build", "codex-1", ago(ENDING_SECONDS), HOST)
    assert told(facts(Vitals(leaving=(run,)))) == []
    late = replace(run, since=ago(ENDING_SECONDS + 1))
    assert told(facts(Vitals(leaving=(late,)))) == [("error", "ending", "r")]


def test_what_contradicts_itself_at_first_sight_is_an_error() -> None:
    workers = (a_worker(),)
    flawed = Vitals(runs=(a_run(flaw="task 'build' is odd"),), workers=workers)
    assert told(facts(flawed)) == [("error", "inconsistency", "build")]
    assert only(facts(flawed)).message == "task 'build' is odd; `agentmux doctor` says what to do"
    miscounted = Vitals(runs=(a_run(),), tallies={("codex", State.RUNNING, False): 2})
    assert told(facts(replace(miscounted, workers=workers))) == [
        ("error", "inconsistency", "tallies")
    ]
    negative = Vitals(tallies={("codex", State.DONE, False): -1})
    assert told(facts(negative)) == [("error", "inconsistency", "codex")]


def test_notes_come_last_and_are_nothing_wrong() -> None:
    seen = facts(Vitals(held=("codex",), workers=(a_worker(),)), processes="no /proc")
    seen = replace(seen, alive=frozenset())
    assert [alert.level for alert in judge(seen)] == [Level.WARNING, Level.NOTE, Level.NOTE]
    assert not measure(seen, judge(seen)).degraded


def test_a_feed_that_nobody_wants_any_more_is_not_told() -> None:
    vitals = Vitals(feeds=(FeedTrouble("acme/site", ago(60), "no gh"),))
    assert told(facts(vitals, feed="acme/site")) == [("warning", "feed", "acme/site")]
    assert told(facts(vitals)) == told(facts(vitals, feed="acme/shop")) == []


def test_worktrees_that_cannot_be_made_are_an_error_once_they_are_more_than_ten_in_a_row() -> None:
    assert told(facts(Vitals(), worktree_failures=MOST_WORKTREE_FAILURES)) == []
    seen = facts(Vitals(), worktree_failures=MOST_WORKTREE_FAILURES + 1)
    assert told(seen) == [("error", "worktrees", None)]
    assert only(seen).message.startswith("11 worktrees in a row could not be made; ")


def test_more_failures_than_completions_are_told_once_they_are_five_within_an_hour() -> None:
    def ended(failed: int, done: int, minutes: int = 30) -> Facts:
        minute = ago(60 * minutes).isoformat()[:16]
        return facts(Vitals(pace={minute: (done, failed)}))

    assert told(ended(FEW_FAILURES - 1, 0)) == []
    assert told(ended(FEW_FAILURES, FEW_FAILURES)) == []
    assert told(ended(FEW_FAILURES, 0, minutes=61)) == []
    seen = ended(FEW_FAILURES, FEW_FAILURES - 1)
    assert told(seen) == [("warning", "failing", None)]
    assert only(seen).message.startswith("in the last hour 5 runs failed and 4 completed; ")


@pytest.mark.parametrize(
    ("state", "kept", "level"),
    [
        (ServiceState.READY, True, None),
        (ServiceState.STARTING, True, None),
        (ServiceState.STOPPED, True, None),
        (ServiceState.RECOVERING, True, "warning"),
        (ServiceState.UNHEALTHY, True, "error"),
        (ServiceState.FAILED, True, "error"),
        (ServiceState.READY, False, "warning"),
        (ServiceState.FAILED, False, None),
        (ServiceState.STOPPED, False, None),
    ],
)
def test_a_service_that_is_not_well_is_told_while_somebody_wants_it(
    state: ServiceState, kept: bool, level: str | None
) -> None:
    keeper = HOST if kept else ProcessId(1, "gone")
    seen = facts(Vitals(services=(KeptService("web", state, "port 80", 0, keeper),)))
    assert told(seen) == ([] if level is None else [(level, "service", "web")])


@pytest.mark.parametrize(("restarts", "levels"), [(0, []), (1, ["warning"])])
def test_a_service_that_waits_for_its_next_start_is_told(restarts: int, levels: list[str]) -> None:
    service = KeptService("web", ServiceState.WAITING, "it ended with 3", restarts, HOST)
    assert [level for level, _, _ in told(facts(Vitals(services=(service,))))] == levels


def test_alerts_of_an_error_that_nobody_acknowledged_are_a_warning() -> None:
    alert = only(facts(Vitals(noticed=2)))
    assert (alert.level, alert.kind) == (Level.WARNING, Kind.NOTICED)
    assert alert.message.startswith("2 alerts that tell of an error wait for somebody; ")


def an_alert(level: Level, kind: Kind, message: str = "it is so") -> Alert:
    return Alert(level, kind, None, message)


def test_the_fleet_is_as_its_worst_part_and_each_part_says_why() -> None:
    assert PARTS.keys() == {*Kind}
    health = assess(
        [
            an_alert(Level.ERROR, Kind.STALE, "w is gone\x1b[2J"),
            an_alert(Level.WARNING, Kind.UNSERVED, "no codex"),
            an_alert(Level.WARNING, Kind.LOGIN),
        ]
    )
    parts = {part.name: part for part in health.parts}
    assert health.status is HealthStatus.DEGRADED
    assert parts["workers"] == HealthPart(
        "workers", HealthStatus.DEGRADED, ("w is gone", "no codex")
    )
    assert parts["agents"].status is HealthStatus.WARNING
    assert parts["store"] == HealthPart("store", HealthStatus.OK)
    assert assess([an_alert(Level.WARNING, Kind.LOGIN)]).status is HealthStatus.WARNING


def test_notes_and_what_needs_nobody_leave_the_fleet_ok() -> None:
    alerts = [
        an_alert(Level.NOTE, Kind.ORPHAN),
        an_alert(Level.WARNING, Kind.QUEUE),
        an_alert(Level.WARNING, Kind.HELD),
    ]
    assert assess(alerts).status is HealthStatus.OK


async def test_runs_that_fail_are_counted_by_the_minute_for_health(project: Project) -> None:
    broken = {"kind": "shell", "cmd": "false"}
    project.settings("shell: {allow: ['false']}\n")
    async with project.engine() as engine:
        await engine.execute(
            Seed(project.dag(*(a_task(f"t{n}", payload=broken) for n in range(5))))
        )
        await engine.start_worker("codex", until_idle=True)
        await engine.wait_workers()
        seen = await health_of(engine)
        assert [alert.kind for alert in seen.alerts] == [Kind.FAILING]
        health = await engine.health()
    assert (seen.status, health.status) == (HealthStatus.WARNING, HealthStatus.WARNING)
    async with Engine(project.layout.state, project=project.folder, read_only=True) as engine:
        assert (await engine.health()).parts == health.parts
    lines = run_health(project).stdout.splitlines()
    assert lines[0] == "warning: tasks"
    at = lines.index("runs since the beginning")
    assert [line.split()[:4] for line in lines[at + 1 : at + 3]] == [
        ["agent", "runs", "done", "failed"],
        ["codex", "5", "0", "5"],
    ]
    assert lines[at + 3] == "0 pull requests, 0 worktree errors, 0 alerts"


@pytest.mark.parametrize("held", ["codex", "*"])
def test_a_worker_whose_claims_are_held_can_run_no_more_than_it_does(held: str) -> None:
    workers = (a_worker(), a_worker("codex-2"), a_worker("claude-1", agent="claude"))
    seen = facts(Vitals(held=(held,), workers=workers, runs=(a_run(),)))
    assert measure(seen, ()).max_concurrent == (1 if held == "*" else 2)


def test_the_numbers_are_those_of_the_tallies_the_runs_and_the_workers() -> None:
    tallies = {
        ("codex", State.READY, False): 3,
        ("codex", State.READY, True): 4,
        ("claude", State.RUNNING, False): 1,
        ("codex", State.CLAIMED, False): 1,
        ("codex", State.BLOCKED, False): 5,
        ("codex", State.DONE, False): 6,
        ("codex", State.FAILED, False): 7,
        ("codex", State.CANCELLED, False): 8,
    }
    gone = ProcessId(1, "gone")
    workers = (
        *(a_worker(f"codex-{n}") for n in range(3)),
        a_worker("claude-1", agent="claude", status=WorkerStatus.STOPPING),
        a_worker("claude-2", agent="claude", status=WorkerStatus.STOPPING),
        a_worker("claude-3", agent="claude", host=gone, beat_at=ago(60)),
    )
    runs = (a_run("t1", since=1.5), a_run("t2", since=2.25, worker_id="claude-1"))
    vitals = Vitals(tallies=tallies, runs=runs, workers=workers, limits={"codex": 2})
    seen = Facts(NOW, vitals, frozenset({HOST}))
    assert measure(seen, ()) == Report(
        status=HealthStatus.OK,
        parts=tuple(HealthPart(part) for part in Part),
        running_count=2,
        max_concurrent=3,  # two of codex, its limit, and the one that claude-1 still has
        queued_count=3,
        waiting_count=4,
        blocked_count=5,
        completed_count=6,
        failed_count=7,
        oldest_running_age=2250,
        stuck_threshold=1_800_000,
        stale_workers=("claude-3",),
        alerts=(),
        timestamp=NOW,
    )


def run_health(project: Project, *options: str) -> subprocess.CompletedProcess[str]:
    return agentmux(project.folder, "health", *options)


async def health_of(engine: Engine) -> Report:
    return await take_health(engine.layout, engine.project, engine.config, engine.clock)


def errors_of(seen: Report) -> list[str | None]:
    return [alert.subject for alert in seen.alerts if alert.level is Level.ERROR]


async def test_a_healthy_fleet_is_told_in_json_with_exactly_these_keys(
    project: Project, stage: Stage
) -> None:
    tasks = (a_task("run", payload={"kind": "stage"}), a_task("next", "run"), a_task("free"))
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(*tasks)))
        await engine.start_worker("codex")
        await until(lambda: stage.begun == ["run"], "the run begins")
        done = run_health(project, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        seen = json.loads(done.stdout)
        assert list(seen) == KEYS
        assert seen["oldestRunningAge"] >= 0
        counts = {key: seen[key] for key in KEYS[2:9]}
        assert counts == dict(zip(KEYS[2:], (1, 1, 1, 1, 0, 0, 0), strict=False))
        assert seen["stuckThreshold"] == 1_800_000
        assert seen["staleWorkers"] == []
        assert {alert["level"] for alert in seen["alerts"]} <= {"note"}
        assert all(
            set(alert) == {"level", "kind", "subject", "message"} for alert in seen["alerts"]
        )
        assert abs(datetime.fromisoformat(seen["timestamp"]) - datetime.now(UTC)) < timedelta(
            minutes=1
        )


async def test_health_in_words_tells_numbers_and_alerts(project: Project) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(*(a_task(f"t{n}") for n in range(11)))))
        await engine.execute(Hold("codex"))
    done = run_health(project)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:2] == ["ok", "0 running; 0 can run at once now"]
    assert lines[2] == "11 queued, 0 waiting, 0 blocked, 0 completed, 0 failed"
    assert any(line.startswith("warning: queue: 11 tasks are queued") for line in lines)
    assert any(
        line.startswith("warning: held: claims are held for agent 'codex'") for line in lines
    )


def test_without_a_store_there_is_no_health(project: Project) -> None:
    done = run_health(project)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"IO_ERROR: no store in {project.folder / 'state'}; " in done.stderr


async def test_a_stopped_worker_that_holds_a_task_degrades_the_fleet(project: Project) -> None:
    project.settings("heartbeat: 0.2\nstale_after: 1\n")
    dag = project.dag(a_task("long", payload={"kind": "noop", "seconds": 300}))
    async with project.engine() as engine:
        await engine.execute(Seed(dag))
    worker = project.work("c-1")
    await until(lambda: read_vitals(project.layout.database).runs, "it claims the task")
    assert run_health(project).returncode == 0
    await suspend(worker, project.layout)
    try:

        async def is_stale() -> bool:
            config = Config(stale_after=1)
            seen = await take_health(project.layout, project.folder, config, engine.clock)
            return seen.stale_workers == ("c-1",)

        await until(is_stale, "its silence is noticed")
        done = run_health(project, "--json")
        assert done.returncode == 1
        (alert,) = (one for one in json.loads(done.stdout)["alerts"] if one["level"] == "error")
        assert (alert["kind"], alert["subject"]) == ("stale", "c-1")
        assert "holds task 'long'" in alert["message"]
        assert "error: stale: worker 'c-1'" in run_health(project).stdout
    finally:
        worker.send_signal(signal.SIGCONT)

    async def is_well() -> bool:
        seen = await take_health(
            project.layout, project.folder, Config(stale_after=1), engine.clock
        )
        return not seen.stale_workers and not seen.degraded

    await until(is_well, "it is heard again")


async def test_a_process_that_outlived_its_run_degrades_the_fleet(project: Project) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("t"))))
        assert errors_of(await health_of(engine)) == []
        run_id = uuid.uuid4().hex
        async with a_tree(project.layout, run_id) as process:
            seen = await health_of(engine)
            assert errors_of(seen) == [run_id]
            assert str(process.pid) in seen.alerts[0].message
        assert errors_of(await health_of(engine)) == []


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        ("UPDATE tallies SET n = n + 1 WHERE state = 'RUNNING'", "tallies"),
        ("DELETE FROM runs", "t"),
        ("UPDATE runs SET outcome = 'done'", "t"),
        ("UPDATE runs SET worker_id = 'x'", "t"),
        ("UPDATE tasks SET lease_until = NULL", "t"),
    ],
)
async def test_a_contradiction_about_what_runs_is_found_cheaply(
    project: Project, stage: Stage, change: str, subject: str
) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("t", payload={"kind": "stage"}))))
        await engine.start_worker("codex")
        await until(lambda: stage.begun, "the run begins")
        assert errors_of(await health_of(engine)) == []
        with closing(sqlite3.connect(project.layout.database, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            kept = db.execute("SELECT * FROM runs").fetchall()
            values = db.execute("SELECT lease_until FROM tasks").fetchone()
            assert db.execute(change).rowcount
            db.execute("COMMIT")
            seen = await health_of(engine)
            # As it was, so that the worker can stop.
            db.execute("DELETE FROM runs")
            db.executemany(f"INSERT INTO runs VALUES ({', '.join('?' * len(kept[0]))})", kept)
            db.execute("UPDATE tasks SET lease_until = ?", values)
            db.execute("UPDATE tallies SET n = 1 WHERE state = 'RUNNING'")
        assert errors_of(seen) == [subject]
        assert {alert.kind for alert in seen.alerts if alert.level is Level.ERROR} == {
            Kind.INCONSISTENCY
        }


def test_looking_is_cheap_however_large_the_dag(tmp_path: Path) -> None:
    """No part of the look may scan the tasks: that is what tallies and indexes are for."""
    script = Path(vitals_module.__file__).parents[1] / "sql" / "schema.sql"
    with closing(sqlite3.connect(tmp_path / "x.db")) as db:
        db.executescript(script.read_text())
        for query in (vitals_module._HELD, vitals_module._ENDING, vitals_module._LIVE):
            plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {query}")]
            assert not any(step == "SCAN t" for step in plan), plan


async def test_a_busy_fleet_is_never_called_degraded(project: Project) -> None:
    async def look(engine: Engine) -> None:
        assert errors_of(await health_of(engine)) == []

    await look_while_busy(project, look, *(a_task(f"t{n}") for n in range(300)))
