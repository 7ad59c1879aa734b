"""Where toasts stand: in nobody's way, whatever the size of the terminal."""

from __future__ import annotations

import pytest
from support.desk import desk

from tui.fitted import Fitting


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
