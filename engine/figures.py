"""What ever happened in a fleet, told to people: a row for each agent, and one line. Pure.

The words stand here once, for the command line and the dashboard alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.model import RunOutcome
from engine.text import clean_text, duration, money, plural
from engine.views import Counter

if TYPE_CHECKING:
    from engine.views import AgentTotals, Health, Metrics

TOTALS = (
    *("agent", "runs", "done", "failed", "blocked", "released", "lost", "stopped", "mean", "cost"),
)
"""The titles of `totals_row`."""
_ENDED = (
    (RunOutcome.DONE,),
    (RunOutcome.FAILED, RunOutcome.TIMED_OUT),
    (RunOutcome.BLOCKED,),
    (RunOutcome.RELEASED,),
    (RunOutcome.EXPIRED,),
    (RunOutcome.CANCELLED, RunOutcome.KILLED),
)


def totals_row(agent: AgentTotals) -> tuple[str, ...]:
    """Tell an agent in clean cells: runs begun, ended in each way, how long they took, their cost.

    Those that timed out have failed, those that were cancelled or killed are stopped.
    """
    mean, cost = agent.mean_seconds, agent.spent.cost
    return (
        clean_text(agent.agent),
        f"{agent.launched:,}",
        *(f"{agent.ended(*outcomes):,}" for outcomes in _ENDED),
        "" if mean is None else duration(mean),
        money(cost) if cost else "",
    )


def describe_counters(metrics: Metrics) -> str:
    """Tell what is counted beside the runs."""
    return ", ".join(
        plural(metrics.total(counter), word)
        for counter, word in (
            (Counter.PULL_REQUESTS, "pull request"),
            (Counter.WORKTREE_ERRORS, "worktree error"),
            (Counter.ALERTS, "alert"),
        )
    )


def describe_health(health: Health) -> str:
    """Tell the status, and which parts are not ok: `degraded: workers, services`."""
    amiss = [part.name for part in health.parts if part.reasons]
    return f"{health.status}: {', '.join(amiss)}" if amiss else str(health.status)
