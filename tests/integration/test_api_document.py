"""The OpenAPI document of the HTTP API is true: what it allows is answered as it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from support.api import Client, served_aside
from support.engines import Project
from support.stores import a_task

from engine.api import fleet
from engine.api.events import Streams
from engine.commands import RegisterAgent, Seed
from engine.model import External
from engine.orders import on_agents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.core import Engine
    from engine.processes.tmux import Window

SAY_MORE = {"GET /api/v1/tasks", "GET /api/v1/runs", "POST /api/v1/agents"}
"""What these take no schema can say: a filter has a grammar, a process must live."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    project = Project(tmp_path_factory.mktemp("document"))

    async def begin(engine: Engine) -> None:
        tasks = [a_task("a"), a_task("b/cancel", "a"), a_task("c:d e%f")]
        await engine.execute(Seed(project.dag(*tasks)))
        await engine.execute(RegisterAgent(External("mine", "robot")))

    async def no_window() -> list[Window]:
        return []

    with pytest.MonkeyPatch.context() as patch:
        # Any number may be somebody's pid, and any word somebody's window: none is to be ended.
        patch.setattr(fleet, "identify", lambda _pid: None)
        patch.setattr(on_agents, "windows", no_window)
        # Whoever asks here would read a stream for ever: each ends once it told what is there.
        patch.setattr(Streams, "ending", True)
        with served_aside(project.engine, begin) as client:
            yield client


@pytest.fixture(scope="module")
def document(client: Client) -> Any:
    url = f"http://{client.host}:{client.port}/openapi.json"
    return schemathesis.openapi.from_url(url, headers=client.authorization)


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
@settings(max_examples=30)
def test_what_the_document_allows_is_answered_as_it_says(case: Any, client: Client) -> None:
    without = [positive_data_acceptance] if case.operation.label in SAY_MORE else []
    case.call_and_validate(headers=client.authorization, excluded_checks=without)
