"""The palette finds every action, task, worker, theme and switch, and runs what is chosen."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from support.host import Host
from support.patience import PATIENCE
from support.screens import FakeEngine, FakeQueries, busy, screen_text, task
from textual.command import CommandList

from engine.errors import StorageError
from tui.actions.model import Place, Selection
from tui.actions.table import ACTIONS, BY_NAME
from tui.keymap import Keymap
from tui.palette import MOST, Palette, refusal
from tui.preferences import Switch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from textual.pilot import Pilot

    from engine.views import TaskRow


class Open:
    """An open palette, and the hands that type in it."""

    def __init__(self, app: Host, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    @property
    def options(self) -> list[str]:
        lists = self.app.screen.query(CommandList)
        return [str(option.prompt) for found in lists for option in found.options]

    async def until(self, fulfilled: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not fulfilled():
                await self.pilot.pause(0.01)

    async def type(self, text: str, expected: str) -> None:
        await self.pilot.press(*text)
        await self.until(lambda: any(expected in option for option in self.options[:2]))

    async def choose(self) -> None:
        await self.pilot.press("enter")
        await self.until(lambda: not isinstance(self.app.screen, Palette))
        await self.pilot.pause()


@asynccontextmanager
async def palette(
    engine: FakeEngine | None = None, *, size: tuple[int, int] = (120, 40), **fitting: object
) -> AsyncIterator[Open]:
    app = Host(engine, **fitting)
    async with app.run_test(size=size) as pilot:
        app.push_screen(Palette())
        opened = Open(app, pilot)
        await opened.until(lambda: isinstance(app.screen, Palette) and bool(opened.options))
        yield opened


async def test_it_offers_every_action_with_its_key_before_anything_is_typed() -> None:
    async with palette() as at:
        shown = at.options
        for action, option in zip(ACTIONS, shown, strict=False):
            key, _, rest = option.strip().partition("  ")
            assert key == Keymap().shown(action)
            assert rest.strip()
        assert sum("theme: " in option for option in shown) == len(at.app.available_themes)
        assert sum("turn off" in option for option in shown) == len(Switch)


async def test_it_shows_the_keys_in_force() -> None:
    async with palette(keymap=Keymap({"hold": ("f9",)})) as at:
        await at.type("hold", "f9  hold")


async def test_an_action_is_found_by_its_name_and_done() -> None:
    async with palette() as at:
        await at.type("attent", "needs you")
        await at.choose()
        assert at.app.acted == ["attention"]


async def test_an_action_is_found_by_what_it_means() -> None:
    async with palette() as at:
        await at.type("rotate the log", "reset")


async def test_what_cannot_be_done_says_why_before_and_when_it_is_chosen() -> None:
    queries = FakeQueries(all_tasks=[task("one")])
    async with palette(FakeEngine(queries)) as at:
        await at.type("release", "not now: one is waiting or ready")
        await at.choose()
        assert at.app.acted == []
        assert at.app.said == ["warning: one is waiting or ready: no worker holds it"]


async def test_an_action_of_the_list_goes_to_the_list() -> None:
    async with palette() as at:
        await at.type("last", "last")
        await at.choose()
        rows = at.app.room.rows
        assert rows.cursor == rows.total - 1


def test_an_action_of_another_screen_says_where_it_works() -> None:
    selection = Selection(Place.TASKS)
    assert refusal(BY_NAME["wrap"], selection) == "only on a screen with a log"
    assert refusal(BY_NAME["down"], selection) is None
    assert refusal(BY_NAME["help"], None) is not None


async def test_a_task_is_found_by_a_word_and_opened() -> None:
    async with palette() as at:
        await at.type("graphql", "spike:graphql")
        await at.choose()
        (gone,) = at.app.gone
        assert (gone.name, gone.task_id) == ("detail", "spike:graphql")


async def test_tasks_are_found_by_the_words_of_filters() -> None:
    async with palette() as at:
        await at.type("state:failed", "lint:types")
        assert sum(" task  " in option for option in at.options) == 1


async def test_a_worker_is_found_by_its_name_and_opened() -> None:
    async with palette() as at:
        await at.type("claude-2", "claude-2")
        workers = [option for option in at.options if "worker" in option.split("\n")[0]]
        assert len(workers) == 1
        await at.pilot.press(*["down"] * at.options.index(workers[0]))
        await at.choose()
        (gone,) = at.app.gone
        assert (gone.name, gone.worker_id) == ("worker", "claude-2")


async def test_of_many_tasks_only_a_few_are_asked_for() -> None:
    limits: list[int] = []

    class Many(FakeQueries):
        async def tasks(self, *where: Any, **more: Any) -> list[TaskRow]:
            limits.append(more["limit"])
            return await super().tasks(*where, **more)

    rows = [task(f"number-{n}") for n in range(1000)]
    async with palette(FakeEngine(Many(all_tasks=rows))) as at:
        await at.type("number-", "number-0")
        assert len(at.options) == MOST
        assert set(limits) == {MOST}


async def test_half_a_word_of_the_filter_language_finds_no_task_and_breaks_nothing() -> None:
    async with palette() as at:
        await at.pilot.press(*'state:"')
        await at.until(lambda: not any("task" in option for option in at.options))
        await at.pilot.press("escape")
        await at.until(lambda: not isinstance(at.app.screen, Palette))


async def test_a_store_that_cannot_be_read_leaves_the_actions() -> None:
    queries = busy()
    queries.broken["tasks"] = StorageError("the disk is gone")
    async with palette(FakeEngine(queries)) as at:
        await at.type("hold", "hold")
        await at.choose()
        assert at.app.acted == ["hold"]


async def test_brackets_and_escapes_in_names_are_shown_as_text() -> None:
    rows = [
        task("list[int] [id=3]", name="[red]x[/red] [@click=app.quit]go[/]"),
        task("evil\x1b]52;c;eA==\x07task"),
    ]
    async with palette(FakeEngine(FakeQueries(all_tasks=rows))) as at:
        await at.type("list[int]", "list[int] [id=3]")
        assert "[red]x[/red] [@click=app.quit]go[/]" in at.options[0]
        assert "[red]x[/red] [@click=app.quit]go[/]" in screen_text(at.app)
        await at.choose()
        assert at.app.gone[0].task_id == "list[int] [id=3]"


async def test_nothing_from_outside_acts_on_the_terminal() -> None:
    rows = [task("evil\x1b]52;c;eA==\x07task", name="a\u202eb\x9b2Jc")]
    async with palette(FakeEngine(FakeQueries(all_tasks=rows))) as at:
        await at.type("evil", "eviltask")
        assert all(character.isprintable() or character == "\n" for character in at.options[0])


async def test_a_theme_is_chosen_and_remembered() -> None:
    async with palette() as at:
        await at.type("theme: nord", "theme: nord")
        await at.choose()
        assert at.app.theme == at.app.preferences.theme == "nord"


async def test_a_switch_is_turned_and_says_so() -> None:
    async with palette() as at:
        await at.type("toasts", "toasts: turn off")
        await at.choose()
        assert at.app.said == ["information: toasts: off"]
        assert at.app.has_on(Switch.TOASTS) is False


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_it_fits_on_every_screen(size: tuple[int, int]) -> None:
    async with palette(size=size) as at:
        await at.type("kill", "kill")
        assert "Kill the worker, or the task's run" in screen_text(at.app)


@pytest.mark.parametrize("size", [(1, 1), (4, 2), (10, 3), (20, 5), (80, 7)])
async def test_in_a_terminal_of_a_few_cells_no_key_breaks_it(size: tuple[int, int]) -> None:
    every = ("pagedown", "pageup", "ctrl+end", "ctrl+home", "down", "up", "pagedown")
    async with palette(size=size) as at:
        await at.pilot.press(*every)
        await at.type("hold", "hold")
        await at.pilot.press(*every, "ctrl+home")
        await at.choose()
        assert at.app.acted == ["hold"]


async def test_it_lives_through_a_terminal_that_gets_too_small_for_it() -> None:
    async with palette() as at:
        for size in ((10, 3), (1, 1), (4, 2), (120, 40)):
            await at.pilot.resize_terminal(*size)
            await at.pilot.press("pagedown")
        await at.type("hold", "hold")
        await at.choose()
        assert at.app.acted == ["hold"]


@pytest.mark.parametrize("variable", ["NO_COLOR", "TERM"])
async def test_what_is_chosen_is_seen_in_few_colours_and_in_none(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("COLORTERM", raising=False)
    monkeypatch.setenv(variable, "xterm")
    async with palette() as at:
        found = at.app.screen.query_one(CommandList)
        first, other = found.render_line(0), found.render_line(2)
        looks = [
            {(style.bgcolor, style.underline) for _, style, _ in strip if style is not None}
            for strip in (first, other)
        ]
        assert not looks[0] & looks[1]


def test_a_dashboard_that_opens_no_palette_does_not_import_it() -> None:
    script = "import sys, tui.app; print('tui.palette' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"
