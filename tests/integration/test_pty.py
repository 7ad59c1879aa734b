"""The whole dashboard in a real terminal: started, watched, left, hung up on, killed softly."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.patience import PATIENCE
from support.program import ENVIRONMENT
from support.terminal import ESC, dashboard, gone

if TYPE_CHECKING:
    from pathlib import Path

LONG = """
tasks:
  - {id: long, agent: codex, payload: {kind: shell, cmd: "sleep 300"}}
  - {id: after, agent: codex, deps: [long]}
"""


def tasks(folder: Path) -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "engine.cli", "tasks", "ls", "--json"],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        check=True,
        timeout=PATIENCE,
    )
    return {task["id"]: task for task in json.loads(done.stdout)}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "long.yaml").write_text(LONG)
    return tmp_path


def test_the_demo_starts_works_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with dashboard(tmp_path, "--demo") as at:
        for title in ("1 Workers", "2 Tasks", "3 Events", "4 Stale heartbeats", "? help"):
            at.shows(title)
        at.shows("claude-1")
        at.shows(" finished ")
        at.press("?")
        at.shows("Stop the worker gracefully")
        below = at.tree()
        # Not esc: with the next key behind it, it may be read as one key with alt.
        at.press("?q")
        at.shows("stop and release")
        at.press("y")
        assert at.ended() == 0
        assert gone(below)
    assert list(tmp_path.iterdir()) == []


def test_quitting_stops_the_run_and_releases_its_task(project: Path) -> None:
    with dashboard(project, "long.yaml") as at:
        at.until(lambda _: "sleep" in [one.name() for one in at.tree()], "running sleep")
        at.shows("codex-1 started long")
        below = at.tree()
        at.press("q")
        at.shows("1 run of this dashboard is alive")
        at.press("\r")
        assert at.ended() == 0
        assert gone(below)
    long = tasks(project)["long"]
    assert (long["state"], long["attempts"]) == ("READY", 0)
    assert list((project / "state" / "pids").iterdir()) == []


def test_escape_stays_and_the_run_goes_on(project: Path) -> None:
    with dashboard(project, "long.yaml") as at:
        at.shows("codex-1 started long")
        at.press("q")
        at.shows("stop and release")
        at.press(ESC)
        at.hides("stop and release")
        assert "sleep" in [one.name() for one in at.tree()]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_stops_and_releases_unasked(project: Path, sent: signal.Signals) -> None:
    with dashboard(project, "long.yaml") as at:
        at.shows("codex-1 started long")
        at.until(lambda _: "sleep" in [one.name() for one in at.tree()], "running sleep")
        below = at.tree()
        at.child.kill(sent)
        assert at.ended() == 0
        assert gone(below)
    assert tasks(project)["long"]["state"] == "READY"


def test_a_terminal_that_goes_away_leaves_no_process_and_no_claim(project: Path) -> None:
    with dashboard(project, "long.yaml") as at:
        at.until(lambda _: "sleep" in [one.name() for one in at.tree()], "running sleep")
        below = [at.process, *at.tree()]
        at.hang_up()
        assert gone(below)
    assert tasks(project)["long"]["state"] == "READY"
    assert list((project / "state" / "pids").iterdir()) == []


def test_a_second_dashboard_watches_and_steers_nothing(project: Path) -> None:
    with dashboard(project, "long.yaml") as at:
        at.shows("codex-1 started long")
        with dashboard(project, "--watch", size=(80, 24)) as other:
            other.shows("watching")
            other.shows("long")
            other.press("u")
            other.shows("only watches")
            other.press("1")
            other.shows("codex-1")
            other.press("q")
            assert other.ended() == 0
        assert "sleep" in [one.name() for one in at.tree()]


def test_what_another_process_commits_is_shown(project: Path) -> None:
    with dashboard(project, "long.yaml", "--workers", "0") as at:
        at.shows("no codex worker runs")
        subprocess.run(
            [sys.executable, "-m", "engine.cli", "hold"],
            cwd=project,
            env=ENVIRONMENT,
            check=True,
            capture_output=True,
            timeout=PATIENCE,
        )
        at.shows("HELD all")
        at.press("p")
        at.hides("HELD")
        at.press("q")
        assert at.ended() == 0


def test_where_nothing_is_yet_the_demo_is_offered_and_no_means_nothing(tmp_path: Path) -> None:
    with dashboard(tmp_path) as at:
        at.shows("Watch the bundled demo?")
        at.press(ESC)
        assert at.ended() == 0
    assert list(tmp_path.iterdir()) == []


def test_the_offered_demo_starts_after_yes(tmp_path: Path) -> None:
    with dashboard(tmp_path) as at:
        at.shows("Watch the bundled demo?")
        at.press("y")
        at.shows("claude-1")
        at.press("q")
        at.shows("stop and release")
        at.press("y")
        assert at.ended() == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--watch",), 1, "there is nothing to watch yet"),
        (("missing.yaml",), 1, "missing.yaml"),
        (("--demo", "long.yaml"), 2, "--demo brings its own DAG"),
        (("--watch", "long.yaml"), 2, "--watch seeds nothing"),
        (("--workers", "many"), 2, "'many' is no number from 0 to 64"),
        (("--version",), 0, "agentmux-tui"),
    ],
)
def test_what_cannot_be_opened_is_said_in_plain_text(
    project: Path, arguments: tuple[str, ...], status: int, words: str
) -> None:
    with dashboard(project, *arguments, size=(200, 24)) as at:
        at.shows(words)
        assert at.ended() == status


def test_without_a_terminal_it_says_what_works_without_one(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tui", "long.yaml"],
        cwd=project,
        env=ENVIRONMENT,
        capture_output=True,
        check=False,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2
    assert "`agentmux run` works without one" in done.stderr
