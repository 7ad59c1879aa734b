"""Metrics and health as Prometheus reads them: its text format, from a registry of its own.

Every metric is made from what was read a moment ago, so nothing is counted in this process, and
any process of a state folder exposes the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from engine.model import State
from engine.views import DURATION_BOUNDS, Counter, HealthStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from engine.views import AgentTotals, Health, Metrics

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""What `exposition` returns, for the header of a response: every Prometheus reads it."""

_LEVELS = {status: level for level, status in enumerate(HealthStatus)}
_COUNTERS = (
    (Counter.LAUNCHED, "agentmux_runs_launched", "Runs that claimed a task."),
    (Counter.WORKTREE_ERRORS, "agentmux_worktree_errors", "Runs that got no worktree."),
    (Counter.PULL_REQUESTS, "agentmux_pull_requests", "Runs that ended with a pull request."),
)


def exposition(metrics: Metrics, health: Health) -> bytes:
    """Return metrics and health in Prometheus's text format, of the type CONTENT_TYPE."""
    registry = CollectorRegistry()
    registry.register(_Seen(metrics, health))
    return generate_latest(registry)


class _Seen(Collector):
    """What was read, as families of metrics."""

    def __init__(self, metrics: Metrics, health: Health) -> None:
        self._metrics = metrics
        self._health = health

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        agents = self._metrics.of_agents()
        yield from self._counters(agents)
        yield from _ends(agents)
        yield from _spending(agents)
        yield from self._gauges()
        yield self._health_gauge()

    def _counters(self, agents: list[AgentTotals]) -> Iterator[Metric]:
        for counter, name, words in _COUNTERS:
            family = CounterMetricFamily(name, words, labels=["agent"])
            found = self._metrics.counters.get(counter, {})
            for agent in agents:
                # A series that begins with 0 has a rate from its first event on.
                family.add_metric([agent.agent], found.get(agent.agent, 0))
            yield family
        total = self._metrics.total(Counter.ALERTS)
        yield CounterMetricFamily("agentmux_alerts", "Alerts that were raised.", value=total)

    def _gauges(self) -> Iterator[Metric]:
        seen = self._metrics
        tasks = GaugeMetricFamily("agentmux_tasks", "Tasks by state.", labels=["agent", "state"])
        for agent, counts in seen.tasks.items():
            for state in State:
                tasks.add_metric([agent, state], counts.get(state, 0))
        yield tasks
        workers = GaugeMetricFamily("agentmux_workers", "Workers that live.", labels=["agent"])
        for agent in sorted({*seen.tasks, *seen.workers}):
            workers.add_metric([agent], seen.workers.get(agent, 0))
        yield workers
        yield GaugeMetricFamily("agentmux_services", "Services that are up.", value=seen.services)
        yield GaugeMetricFamily(
            "agentmux_oldest_running_seconds",
            "For how long the oldest run has been at work; 0 if none is.",
            value=seen.oldest_running or 0.0,
        )

    def _health_gauge(self) -> Metric:
        words = "How the fleet (part all) and its parts are: 0 ok, 1 warning, 2 degraded."
        family = GaugeMetricFamily("agentmux_health", words, labels=["part"])
        family.add_metric(["all"], _LEVELS[self._health.status])
        for part in self._health.parts:
            family.add_metric([part.name], _LEVELS[part.status])
        return family


def _ends(agents: list[AgentTotals]) -> Iterator[Metric]:
    labels = ["agent", "outcome"]
    ended = CounterMetricFamily("agentmux_runs_ended", "Runs that ended.", labels=labels)
    took = HistogramMetricFamily(
        "agentmux_run_duration_seconds",
        "How long runs took, from their start (or claim) to their end.",
        labels=labels,
    )
    for agent in agents:
        for one in agent.durations:
            ended.add_metric([one.agent, one.outcome], one.count)
            upto = zip(map(str, map(float, DURATION_BOUNDS)), one.buckets, strict=True)
            buckets = [*upto, ("+Inf", one.count)]
            took.add_metric([one.agent, one.outcome], buckets, sum_value=one.seconds)
    yield ended
    yield took


def _spending(agents: list[AgentTotals]) -> Iterator[Metric]:
    cost = CounterMetricFamily(
        "agentmux_cost_dollars", "What runs cost, in US dollars.", labels=["agent"]
    )
    tokens = CounterMetricFamily(
        "agentmux_tokens",
        "Tokens that were read (input), that came from a cache of those (cached), and written.",
        labels=["agent", "kind"],
    )
    for agent in agents:
        spent = agent.spent
        cost.add_metric([agent.agent], spent.cost or 0.0)
        for kind, count in (
            ("input", spent.input_tokens),
            ("cached", spent.cached_tokens),
            ("output", spent.output_tokens),
        ):
            tokens.add_metric([agent.agent, kind], count or 0)
    yield cost
    yield tokens
