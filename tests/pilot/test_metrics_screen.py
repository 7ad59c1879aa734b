"""Health and metrics on the screen: a word in the first line, and all of it behind a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.metrics import HEALTH, METRICS, with_metrics
from support.screens import NOW, FakeEngine, busy, settle

from engine.errors import StorageError
from engine.model import RunOutcome
from engine.views import Durations, Health, HealthPart, HealthStatus, Metrics
from tui.app import Dashboard
from tui.describe_metrics import health_lines, metrics_lines
from tui.headline import Mood, headline
from tui.screens.metrics import MetricsScreen
from tui.snapshot import Snapshot
from tui.widgets.cells import Tone, line_width

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.pilot import Pilot

    from tui.widgets.cells import Line


def text_of(lines: Iterable[Line]) -> list[str]:
    return ["".join(text for text, _ in line).rstrip() for line in lines]


def shown(pilot: Pilot[None]) -> list[str]:
    screen = pilot.app.screen
    assert isinstance(screen, MetricsScreen)
    return [line.strip() for line in text_of(screen.text.lines)]


def test_parts_that_are_not_ok_tell_their_reasons_and_the_others_only_their_names() -> None:
    lines = health_lines(HEALTH, 60)
    assert text_of(lines)[0].startswith("workers     worker 'gemini-2' (pid 4411) is silent")
    assert {line[0] for line in lines if line[0][0].strip()} == {
        ("workers     ", Tone.FAILED),
        ("tasks       ", Tone.HUMAN),
        ("ok          ", Tone.DONE),
    }
    assert " ".join(text_of(lines)[-2:]).split() == (
        ["ok", "store,", "processes,", "worktrees,", "agents,", "services,", "alerts"]
    )
    assert text_of(health_lines(Health(), 60)) == ["nobody has looked yet"]


@pytest.mark.parametrize("width", [66, 76, 120])
def test_no_line_of_the_metrics_is_wider_than_its_pane(width: int) -> None:
    assert all(line_width(line) <= width for line in metrics_lines(HEALTH, METRICS, width))


def test_each_agent_has_a_row_and_each_class_of_durations_a_bar() -> None:
    lines = text_of(metrics_lines(HEALTH, METRICS, 100))
    rows = {line.split()[0]: line.split() for line in lines if line}
    assert rows["claude"] == ["claude", "212", "187", "21", "0", "0", "0", "0", "8:10", "$312"]
    assert rows["codex"][1:8] == ["1,204", "1,150", "12", "0", "0", "0", "5"]
    assert "31 pull requests, 2 worktree errors, 1 alert" in lines
    bars = {line[:12].strip(): line[12:].split() for line in lines[-8:]}
    assert bars["≤ 1 s"] == ["310", "█" * 31 + "▌"]
    assert bars["≤ 5 s"] == ["393", "█" * 40]
    assert sum(int(count) for count, *_ in bars.values()) == 1377


def test_a_class_of_few_runs_is_seen_beside_one_of_many() -> None:
    took = (
        Durations("codex", RunOutcome.DONE, (999, 1000, 1000, 1000, 1000, 1000, 1000), 1000, 1.0),
    )
    lines = text_of(metrics_lines(Health(), Metrics(durations=took), 100))
    assert lines[-8].split()[-1] == "█" * 40
    assert lines[-7].split()[-1] == "▏"
    assert lines[-1].split() == [">", "1", "h", "0"]


def pieces(health: Health, width: int) -> list[str]:
    line = headline(Snapshot(), NOW, width, Mood(health=health))
    return ["".join(text for text, _ in piece.cells) for piece in line]


def test_the_first_line_says_how_the_fleet_is_only_if_it_is_not_ok() -> None:
    assert pieces(HEALTH, 200)[-1] == "degraded: workers, tasks"
    assert pieces(HEALTH, 100)[-1] == "degraded"
    warning = Health(HealthStatus.WARNING, (HealthPart("tasks", HealthStatus.WARNING, ("so",)),))
    assert pieces(warning, 100)[-1] == "warning"
    assert "ok" not in pieces(Health(HealthStatus.OK, (HealthPart("tasks"),)), 200)


async def test_the_dashboard_tells_health_and_a_key_shows_all_of_it() -> None:
    engine = with_metrics(FakeEngine(busy()))
    async with Dashboard(engine, pace=0.01, ticks=None).run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        app = pilot.app
        assert isinstance(app, Dashboard)
        assert app.main.facts.health == HEALTH
        await pilot.press("M")
        await settle(pilot)
        assert shown(pilot)[0].startswith("workers")
        assert any(line.startswith("claude") for line in shown(pilot))
        engine.well = Health(HealthStatus.OK, (HealthPart("store"),))
        engine.change()
        await settle(pilot)
        assert shown(pilot)[0].split() == ["ok", "store"]
        await pilot.press("M")
        await settle(pilot)
        assert isinstance(app.screen, MetricsScreen), "it is there already"
        await pilot.press("escape")
        await settle(pilot)
        assert app.screen_stack == [app.main]


async def test_what_was_read_once_stays_when_the_store_cannot_be_read() -> None:
    engine = with_metrics(FakeEngine(busy()))
    async with Dashboard(engine, pace=0.01, ticks=None).run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("M")
        await settle(pilot)
        engine.queries.broken["metrics"] = StorageError("the disk is gone")
        engine.change()
        await settle(pilot)
        assert any(line.startswith("claude") for line in shown(pilot))
        screen = pilot.app.screen
        assert isinstance(screen, MetricsScreen)
        head = "".join(text for piece in screen.head._pieces for text, _ in piece.cells)
        assert "the disk is gone" in head
