"""The HTTP API inside a dashboard: over the same engine, and ended with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.api import Client
from support.servers import free_port, listens
from support.terminal import dashboard

if TYPE_CHECKING:
    from pathlib import Path

LONG = """
tasks:
  - {id: long, agent: codex, payload: {kind: shell, cmd: "sleep 300"}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "long.yaml").write_text(LONG)
    return tmp_path


def test_what_the_dashboard_runs_is_steered_from_outside(folder: Path) -> None:
    port = free_port()
    with dashboard(folder, "long.yaml", "--serve", str(port)) as at:
        at.shows(f"served at http://127.0.0.1:{port}/")
        at.shows("codex-1 started long")
        client = Client("127.0.0.1", port, (folder / "state/api.token").read_text().strip())
        assert client.ask_now("POST", "/api/v1/tasks/long/cancel").status == 200
        at.shows("over, 1 task not done")
        at.press("q")
        assert at.ended() == 0
    assert not listens(port)


def test_a_port_that_is_taken_is_told_and_the_dashboard_goes_on(folder: Path) -> None:
    port = free_port()
    with dashboard(folder, "long.yaml", "--serve", str(port)) as first:
        first.shows("served at")
        with dashboard(folder, "--workers", "0", "--serve", str(port)) as second:
            second.shows("not served: cannot listen on")
            second.shows("2 Tasks")
            second.press("q")
            assert second.ended() == 0
        assert listens(port)
