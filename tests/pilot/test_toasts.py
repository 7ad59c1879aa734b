"""Where toasts stand: in nobody's way, whatever the size of the terminal."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

import pytest
from support.desk import desk
from textual.widgets._toast import Toast

from tui.fitted import Fitting

if TYPE_CHECKING:
    from textual.notifications import Notification


@pytest.mark.parametrize("size", [(80, 24), (100, 24), (100, 34), (120, 40), (200, 60)])
@pytest.mark.parametrize("keys", ["2", "enter", "h", "!", "w", "d", "T", "l"])
async def test_toasts_cover_no_tab_no_title_and_no_key(size: tuple[int, int], keys: str) -> None:
    async with desk(size=size) as at:
        await at.press(keys)
        before = at.lines
        for number in range(4):
            at.app.say(f"toast {number} " + "\n".join(["of several lines"] * 5))
        await at.settle()
        await at.pilot.pause(0.1)
        after = at.lines
        assert "of several lines" in at.screen, "the newest is seen"
        titles = [row for row, line in enumerate(before) if "╭" in line]
        assert titles
        for row in (0, 1, *titles, len(before) - 1):
            assert after[row] == before[row]


async def test_news_of_the_opening_warn_nobody() -> None:
    async with desk(fitting=Fitting(news=["served at [red]here"])) as at:
        (toast,) = at.app._notifications
        assert (toast.message, toast.severity) == ("served at [red]here", "information")


async def test_a_toast_that_expires_while_it_is_made_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make = Toast.__init__
    left: list[float] = []

    def expire(toast: Toast, notification: Notification) -> None:
        notification.raised_at = time() - notification.timeout - 1e-5
        make(toast, notification)
        left.append(toast._timeout)
        # A timer of less would never let go of the event loop, nor of this test.
        assert toast._timeout > 0

    async with desk() as at:
        monkeypatch.setattr(Toast, "__init__", expire)
        at.app.say("late")
        await at.until(lambda: left != [])
        await at.until(lambda: not at.app.screen.query("Toast"))
        assert at.toasts == []
