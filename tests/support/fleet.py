"""A busy fleet for pictures of every screen: rows, runs, needs, processes, logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace
from support import transcripts
from support.lists import NOW
from support.runs import ended_run, need, process, run
from support.screens import FakeEngine, ago, busy, external, service

from engine.config import Config, Probe, ServiceConfig
from engine.model import RunOutcome, ServiceState, Spending, State
from engine.views import CriticalPath, Need, Usage

if TYPE_CHECKING:
    from pathlib import Path

    from engine.views import AttentionRow, RunRow

_LOG = "".join(
    f"tests/race/test_claims.py::test_two_hosts_never_share_a_task[{n}] PASSED\n" for n in range(90)
)
_ERRORS = "Traceback (most recent call last):\n  [red]boom[/]\n"
_SERVICE_LOG = (
    "[agentmux 2026-01-01T10:10:29.004Z] starting: pid 5118\n"
    "  > preview\n  listening on http://127.0.0.1:4173\n"
    "[agentmux 2026-01-01T10:10:32.710Z] unhealthy: GET /health answers 500\n"
)
_SPENT = {
    "claude": Spending(14, 412_000, 371_000, 9_400, 1.37),
    "codex": Spending(None, 96_000, 61_000, 4_100, 0.14),
    "gemini": Spending(None, 38_000, 20_000, 2_300),
}
"""What a run of each agent took; Gemini tells no cost, and no prices are set for it."""


def fleet(state: Path) -> FakeEngine:
    """Return the fleet of `busy()` with all that the other screens show of it."""
    engine = FakeEngine(busy(), state=state)
    queries = engine.queries
    queries.every_run = _runs(engine)
    queries.spent = {one.id: one.spending for one in queries.every_run}
    path = ("impl:T-004", "review:spec", "integrate:all")
    queries.path = CriticalPath(path, 310.0)
    engine.needs = _needs()
    engine.used = {
        "run-impl:T-004": Usage(38.4, 410 << 20, 4),
        "run-tests:race": Usage(102.0, 88 << 20, 2),
        "run-docs:status": Usage(None, 12 << 20, 1),
    }
    engine.processes["run-tests:race"] = [
        process(4471, 0, "pytest -q tests/race --maxfail=1", cpu=2.0),
        process(4480, 1, "python -c worker [1]", cpu=61.0),
        process(4481, 2, "git status --porcelain", cpu=None, memory=6 << 20),
    ]
    folder = engine.layout.run_folder("tests:race", "run-tests:race")
    folder.mkdir(parents=True)
    (folder / "stdout.log").write_text(_LOG)
    (folder / "stderr.log").write_text(_ERRORS)
    transcripts.write(folder, transcripts.CLAIMS)
    return engine


def serving(state: Path) -> FakeEngine:
    """Return the fleet of `busy()` beside services in every state, and with external agents."""
    queries = busy()
    queries.all_services = [
        service("db", port=5432, since=ago(7300)),
        service("docs", ServiceState.STOPPED, port=9000, pid=None, keeper=None),
        service("index", ServiceState.RECOVERING, message="attempt 1 of 3: dist/index.html: gone",
                recovery="in progress", since=ago(4)),
        service("queue", ServiceState.WAITING, restarts=3, since=ago(2),
                message="it ended with 3; it is started again in 4s"),
        service("search", ServiceState.FAILED, recovery="failed", message="it ended with 1"),
        service("web", ServiceState.UNHEALTHY, port=4173, message="GET /health answers 500"),
    ]  # fmt: skip
    queries.all_workers = queries.all_workers[:3]
    queries.all_externals = [
        external("cursor-9", type="cursor", pid=6201),
        external("helper-1", pid=None, tmux="dev:helper", meta={"branch": "main", "who": "ann"}),
    ]
    engine = FakeEngine(queries, state=state)
    web = ServiceConfig(
        ("npm", "run", "preview"), cwd="web", port=4173, depends_on=("db",),
        ready=Probe(http="/"), health=Probe(http="/health", files=("dist/index.html",)),
    )  # fmt: skip
    engine.config = Config(services={"web": web})
    log = engine.layout.service_log("web")
    log.parent.mkdir(parents=True)
    log.write_text(_SERVICE_LOG)
    return engine


def _runs(engine: FakeEngine) -> list[RunRow]:
    runs: list[RunRow] = []
    outcomes = {
        State.DONE: RunOutcome.DONE,
        State.FAILED: RunOutcome.FAILED,
        State.BLOCKED: RunOutcome.BLOCKED,
    }
    at = 900.0
    for row in engine.queries.all_tasks:
        if row.run_id is not None and row.started_at is not None:
            seconds = (NOW - row.started_at).total_seconds()
            new = run(row.run_id, row.id, seconds, worker_id=row.worker_id, agent=row.agent)
        elif row.state in outcomes and row.worker_id is not None:
            at -= 37
            took = 20.0 + at % 50
            new = ended_run(
                f"run-{row.id}", row.id, at, took, outcomes[row.state],
                worker_id=row.worker_id, agent=row.agent, error=row.error,
            )  # fmt: skip
        else:
            continue
        runs.append(replace(new, attempt=max(1, row.attempts), spending=_SPENT[row.agent]))
    return sorted(runs, key=lambda one: one.claimed_at)


def _needs() -> list[AttentionRow]:
    return [
        need("human:deploy:staging", Need.HUMAN, "deploy:staging", 5400,
             "command not allowed: ssh; `agentmux tasks retry` it then", task_id="deploy:staging"),
        need("exhausted:lint:types", Need.EXHAUSTED, "lint:types", 95,
             "exit code 1: 4 errors in src/api/routes.py; 3 of 3 attempts", task_id="lint:types"),
        need("stale:gemini-2", Need.STALE, "gemini-2", 72,
             "no sign of life for 1:12; its process 4411 is there", worker_id="gemini-2"),
        need("alert:queue", Need.ALERT, "codex", 30, "12 tasks wait for a codex worker: add some"),
    ]  # fmt: skip
