"""Dialogs: the keys that they take and show, the footer below them, text that does not fit."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, get_args

import pytest
from support.desk import Desk
from support.screens import FakeEngine, busy, settle

from engine.commands import (
    BeatAgents,
    Command,
    Receipt,
    Refusal,
    RegisterAgent,
    UnregisterAgents,
)
from engine.errors import Code
from tui import steering
from tui.app import Dashboard
from tui.fitted import Fitting
from tui.keymap import Keymap
from tui.screens.main import MainScreen
from tui.screens.question import Question
from tui.steering import title_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OPENING = {"a question": "K", "the columns": "v", "the agents": "a", "help": "?", "palette": ":"}


@asynccontextmanager
async def dashboard(
    *, size: tuple[int, int] = (120, 40), **keys: tuple[str, ...]
) -> AsyncIterator[Desk]:
    engine = FakeEngine(busy())
    app = Dashboard(engine, Fitting(keymap=Keymap(keys)), pace=0.01, ticks=None)
    async with app.run_test(size=size, notifications=True) as pilot:
        await settle(pilot)
        engine.plan = Receipt(done={"impl:T-004": "killed"}, counts={"killed": 1})
        yield Desk(engine, app, pilot)


@pytest.mark.parametrize("opens", OPENING.values(), ids=OPENING)
async def test_a_dialog_takes_and_shows_the_key_that_goes_back(opens: str) -> None:
    async with dashboard(back=("f10",)) as at:
        await at.press("2", opens)
        assert not at.shows(MainScreen)
        assert "f10" in at.footer
        assert "esc" not in at.screen.split()
        await at.press("escape")
        assert not at.shows(MainScreen), "that is the key of nothing now"
        await at.press("f10")
        assert at.shows(MainScreen)
        assert at.engine.commands == []


@pytest.mark.parametrize("opens", OPENING.values(), ids=OPENING)
async def test_below_a_dialog_the_footer_has_the_keys_of_that_alone(opens: str) -> None:
    async with dashboard() as at:
        await at.press("2")
        before = at.footer
        assert "q quit" in before
        await at.press(opens)
        assert not at.shows(MainScreen)
        assert "q quit" not in at.footer
        assert "esc" in at.footer
        await at.press("escape")
        assert at.footer == before


async def test_a_key_that_is_an_answer_stays_one_though_it_also_goes_back() -> None:
    async with dashboard(back=("y", "f9")) as at:
        await at.press("2", "K")
        assert "n f9 leave it" in at.screen
        await at.press("y")
        assert len(at.engine.commands) == 1


async def test_a_dialog_says_how_much_more_text_there_is() -> None:
    async with dashboard(size=(60, 16)) as at:
        refused = tuple(Refusal(f"t{n}", Code.LEASE_CONFLICT, f"reason {n}") for n in range(20))
        at.engine.plan = Receipt(done={"x": "released"}, refused=refused)
        await at.press("2", "space", "u")
        assert at.shows(Question)
        assert "more lines" in at.screen
        assert "↑" not in at.screen
        await at.press("G")
        assert "↑" in at.screen
        assert "reason 19" in at.screen
        await at.press("escape", "?")
        assert "more lines · esc closes" in at.screen


async def test_a_dialog_that_fits_says_nothing_of_more() -> None:
    async with dashboard() as at:
        await at.press("2", "K")
        assert at.shows(Question)
        assert "more line" not in at.screen


def test_every_command_of_a_dashboard_has_a_title() -> None:
    told = set(get_args(Command)) - {RegisterAgent, BeatAgents}
    assert told - {UnregisterAgents} == set(steering._TITLES)
    assert [title_of(UnregisterAgents((), end=end)) for end in (True, False)] == ["End", "Forget"]
