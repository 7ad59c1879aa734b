"""A fleet in numbers, for screens: two agents, a few hundred runs, something amiss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.model import RunOutcome, Spending
from engine.views import Counter, Durations, Health, HealthPart, HealthStatus, Metrics

if TYPE_CHECKING:
    from support.screens import FakeEngine

HEALTH = Health(
    HealthStatus.DEGRADED,
    (
        HealthPart("store"),
        HealthPart(
            "workers",
            HealthStatus.DEGRADED,
            ("worker 'gemini-2' (pid 4411) is silent for 1:12 and holds task 'docs:status'",),
        ),
        HealthPart(
            "tasks",
            HealthStatus.WARNING,
            ("in the last hour 9 runs failed and 4 completed; `agentmux history` says why",),
        ),
        *(HealthPart(name) for name in ("processes", "worktrees", "agents", "services", "alerts")),
    ),
)
METRICS = Metrics(
    counters={
        Counter.LAUNCHED: {"claude": 212, "codex": 1204, "gemini": 3},
        Counter.PULL_REQUESTS: {"claude": 31},
        Counter.WORKTREE_ERRORS: {"codex": 2},
        Counter.ALERTS: {"": 1},
    },
    durations=(
        Durations("claude", RunOutcome.DONE, (0, 0, 1, 9, 70, 150, 180), 187, 98_000.0),
        Durations("claude", RunOutcome.FAILED, (0, 2, 9, 11, 15, 19, 21), 21, 4_100.0),
        Durations("codex", RunOutcome.DONE, (310, 700, 900, 1000, 1100, 1150, 1150), 1150, 61_000),
        Durations("codex", RunOutcome.TIMED_OUT, (0, 0, 0, 0, 0, 0, 12), 12, 43_200.0),
        Durations("codex", RunOutcome.KILLED, (0, 0, 1, 4, 5, 5, 5), 5, 300.0),
        Durations("gemini", RunOutcome.RELEASED, (0, 1, 2, 2, 2, 2, 2), 2, 12.5),
    ),
    spent={"claude": Spending(cost=312.4), "codex": Spending(cost=41.07)},
)


def with_metrics(engine: FakeEngine) -> FakeEngine:
    """Give an engine this health and these numbers."""
    engine.well, engine.queries.numbers = HEALTH, METRICS
    return engine
