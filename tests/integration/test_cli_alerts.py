"""Alerts, as they are typed: listed, shown and acknowledged."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from support.program import Project

from engine.clock import SystemClock
from engine.files import Layout
from engine.model import AlertKind, NewAlert
from engine.store.store import Store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project with two alerts, the first of which has a body."""

    async def fill() -> None:
        layout = Layout(tmp_path / "state")
        layout.create()
        (layout.alerts / "one.md").write_text("# 2 lines in app.log\n\n    ERROR \x1b[31mred\n")
        store = Store(layout, SystemClock(), lease=600)
        await store.open()
        one = NewAlert(AlertKind.LOG, "app.log", "2 lines", count=2, body="alerts/one.md")
        await store.raise_alerts([one, NewAlert(AlertKind.DELIVERY, "webhook", "it is down")])
        await store.close()

    asyncio.run(fill())
    return Project(tmp_path)


def test_alerts_are_listed_until_they_are_acknowledged(project: Project) -> None:
    listed = project.ok("alerts", "ls")
    assert "2 lines" in listed
    assert "it is down" in listed
    assert "1 acknowledged" in project.ok("alerts", "ack", "1")
    listed = project.ok("alerts", "ls")
    assert "2 lines" not in listed
    assert "it is down" in listed
    assert "2 lines" in project.ok("alerts", "ls", "--all")
    project.ok("alerts", "ack", "--all")
    assert "no alert" in project.ok("alerts", "ls")
    first, second = json.loads(project.ok("alerts", "ls", "--all", "--json"))
    assert (first["id"], first["count"], first["body"]) == (1, 2, "alerts/one.md")
    assert second["acknowledgedAt"] is not None


def test_an_alert_is_shown_with_all_that_it_tells(project: Project) -> None:
    assert project.ok("alerts", "show", "1") == "# 2 lines in app.log\n\n    ERROR red\n"
    assert project.ok("alerts", "show", "2") == "it is down\n"
    assert project.json("alerts", "show", "1")["text"] == "# 2 lines in app.log\n\n    ERROR red"


def test_what_is_no_alert_is_refused_and_the_others_are_done(project: Project) -> None:
    done = project.run("alerts", "ack", "2", "9")
    assert (done.returncode, "alert 2: acknowledged" in done.stdout) == (1, True)
    assert "VALIDATION_ERROR" in done.stderr
    assert "alert 9: there is no such alert" in done.stderr
    again = project.run("alerts", "ack", "2")
    assert (again.returncode, "was acknowledged already" in again.stderr) == (1, True)
    unknown = project.run("alerts", "show", "9")
    assert (unknown.returncode, "there is no such alert" in unknown.stderr) == (1, True)
    unnamed = project.run("alerts", "ack")
    assert (unnamed.returncode, "give --all" in unnamed.stderr) == (2, True)
