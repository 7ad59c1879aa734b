"""What Prometheus is told: every metric of a real store, parsed back; and the sample board."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.stores import a_task

from engine.api.exposition import CONTENT_TYPE, exposition
from engine.commands import Seed
from engine.model import RunOutcome, Spending, State
from engine.views import Counter, Durations, Health, HealthPart, HealthStatus, Metrics

if TYPE_CHECKING:
    from support.engines import Project

Sample = tuple[str, tuple[tuple[str, str], ...]]


def parsed(text: bytes) -> dict[Sample, float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


METRICS = Metrics(
    counters={Counter.LAUNCHED: {"codex": 4}, Counter.ALERTS: {"": 2}},
    durations=(Durations("codex", RunOutcome.DONE, (1, 2, 2, 2, 2, 2, 2), 3, 4000.5),),
    spent={"codex": Spending(None, 100, 60, 7, 1.25)},
    tasks={"codex": {State.READY: 3}},
    workers={"codex": 2},
    services=1,
    oldest_running=12.5,
)
HEALTH = Health(
    HealthStatus.DEGRADED,
    (HealthPart("workers", HealthStatus.DEGRADED, ("gone",)), HealthPart("tasks")),
)


def test_all_numbers_are_exposed_under_prometheus_names() -> None:
    seen = parsed(exposition(METRICS, HEALTH))
    agent, done = ("agent", "codex"), (("agent", "codex"), ("outcome", "done"))
    assert {
        ("agentmux_runs_launched_total", (agent,)): 4,
        ("agentmux_worktree_errors_total", (agent,)): 0,
        ("agentmux_pull_requests_total", (agent,)): 0,
        ("agentmux_alerts_total", ()): 2,
        ("agentmux_runs_ended_total", done): 3,
        ("agentmux_run_duration_seconds_count", done): 3,
        ("agentmux_run_duration_seconds_sum", done): 4000.5,
        ("agentmux_run_duration_seconds_bucket", (agent, ("le", "1.0"), done[1])): 1,
        ("agentmux_run_duration_seconds_bucket", (agent, ("le", "3600.0"), done[1])): 2,
        ("agentmux_run_duration_seconds_bucket", (agent, ("le", "+Inf"), done[1])): 3,
        ("agentmux_cost_dollars_total", (agent,)): 1.25,
        ("agentmux_tokens_total", (agent, ("kind", "cached"))): 60,
        ("agentmux_tasks", (agent, ("state", "READY"))): 3,
        ("agentmux_tasks", (agent, ("state", "DONE"))): 0,
        ("agentmux_workers", (agent,)): 2,
        ("agentmux_services", ()): 1,
        ("agentmux_oldest_running_seconds", ()): 12.5,
        ("agentmux_health", (("part", "all"),)): 2,
        ("agentmux_health", (("part", "tasks"),)): 0,
    }.items() <= seen.items()


def test_a_fleet_of_which_nothing_is_known_has_metrics_too() -> None:
    seen = parsed(exposition(Metrics(), Health()))
    assert seen["agentmux_alerts_total", ()] == 0
    assert seen["agentmux_health", (("part", "all"),)] == 0
    assert CONTENT_TYPE.startswith("text/plain")


async def test_a_store_is_exposed_as_it_is(project: Project) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a"), a_task("b", agent="claude"))))
        await engine.start_worker("codex", until_idle=True)
        await engine.wait_workers()
        seen = parsed(exposition(await engine.queries.metrics(), await engine.health()))
    assert seen["agentmux_runs_ended_total", (("agent", "codex"), ("outcome", "done"))] == 1
    assert seen["agentmux_tasks", (("agent", "claude"), ("state", "READY"))] == 1
    assert seen["agentmux_health", (("part", "store"),)] == 0


@pytest.fixture
def board() -> dict[str, object]:
    text = (files("engine.api") / "grafana.json").read_text(encoding="utf-8")
    board: dict[str, object] = json.loads(text)
    return board


def test_every_metric_of_the_sample_board_is_exposed_and_the_other_way_round(
    board: dict[str, object],
) -> None:
    used = set(re.findall(r"\bagentmux_\w+", json.dumps(board)))
    exposed = {name for name, _ in parsed(exposition(METRICS, HEALTH))}
    told_by_buckets = {"agentmux_run_duration_seconds_count", "agentmux_run_duration_seconds_sum"}
    assert used == exposed - told_by_buckets


def test_the_panels_of_the_sample_board_have_places_of_their_own(board: dict[str, object]) -> None:
    panels = board["panels"]
    assert isinstance(panels, list)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)
