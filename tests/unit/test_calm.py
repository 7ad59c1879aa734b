"""A test of an app goes on once the app has done what it was asked to, and not before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from textual import _wait, events, on
from textual.app import App
from textual.widgets import Static

if TYPE_CHECKING:
    from textual.app import ComposeResult


class Relay(App[None]):
    """Hands a key on from message to message, and shows at last how often it did."""

    def __init__(self, hops: int) -> None:
        super().__init__()
        self.hops = hops

    def compose(self) -> ComposeResult:
        yield Static("0")

    @on(events.Key)
    async def go_on(self, event: events.Key) -> None:
        if event.key == "x" and self.hops:
            self.hops -= 1
            self.call_later(self.post_message, events.Key("x", "x"))
        else:
            await self.mount(Static("there", id="there"))


@pytest.fixture
def starved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Textual's own look find the process idle at once, as one does that gets no CPU."""

    async def no_wait(_min_sleep: float = 0, _max_sleep: float = 1) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(_wait, "wait_for_idle", no_wait)


@pytest.mark.usefixtures("starved")
async def test_all_that_follows_from_a_key_is_done_and_laid_out() -> None:
    app = Relay(hops=30)
    async with app.run_test() as pilot:
        await pilot.press("x")
        assert app.query_one("#there").region.width > 0
