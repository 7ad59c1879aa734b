"""`status --watch` tells what happened before it sums up: no number comes before its reason."""

from __future__ import annotations

import argparse
import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from support.patience import PATIENCE
from support.screens import FakeEngine, FakeQueries, ended, event, running

from engine.cli import watching
from engine.model import EventType, State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from engine.views import Progress

OPTIONS = argparse.Namespace(json=True, every=3600.0, until_done=True)


class Finishing(FakeQueries):
    """A store in which the last task is done between a look at the events and one at the sums."""

    def __init__(self) -> None:
        super().__init__(all_tasks=[running("a", "codex-1", 9)])
        self.looks = 0

    async def progress(self) -> Progress:
        self.looks += 1
        if self.looks > 1 and not self.all_events:
            self.all_tasks = [ended("a", State.DONE, "codex-1", 9)]
            self.all_events = [event(1, EventType.TASK_COMPLETED, 0, task_id="a")]
        return await super().progress()


class Subscribed(FakeEngine):
    """Tells at every look that something was committed."""

    @property
    def feed(self) -> Subscribed:
        return self

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[asyncio.Event]:
        class Always(asyncio.Event):
            def is_set(self) -> bool:
                return True

        yield Always()


async def test_what_happened_is_told_before_the_sums_that_it_changed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watching, "_PAUSE", 0)
    engine: Any = Subscribed(Finishing())
    async with asyncio.timeout(PATIENCE):
        assert await watching._Watch(engine, OPTIONS).run() == 0
    lines = [next(iter(json.loads(line))) for line in capsys.readouterr().out.splitlines()]
    assert lines == ["summary", "event", "summary"]
