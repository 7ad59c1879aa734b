"""An app fits its terminal and its user: theme, colours, ASCII, keys, switches."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from support.host import Host
from support.patience import PATIENCE
from support.screens import screen_text
from textual._compositor import LayoutUpdate
from textual.app import App
from textual.color import Color
from textual.events import Resize
from textual.geometry import Size

from engine.config import ScreenConfig
from engine.errors import ValidationError
from tui.actions.table import BY_NAME
from tui.attendant import Toast, Word
from tui.fitted import FittedApp, read_fitting
from tui.keymap import Keymap
from tui.preferences import Preferences, Switch, preferences_file
from tui.theme import meanings

if TYPE_CHECKING:
    from pathlib import Path

    from rich.style import Style
    from textual.screen import Screen

REMAPPED = Keymap({"cancel": ("X",), "down": ("n",), "filter": ("f10", "comma"), "kill": ("c",)})


@pytest.fixture(autouse=True)
def many_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locale.getencoding", lambda: "UTF-8")


def styles(app: App[None]) -> list[Style]:
    """The styles of all that is painted."""
    width, height = app.size
    strips = app.screen._compositor.render_strips(app.size)
    assert len(strips) == height
    assert width
    return [segment.style for strip in strips for segment in strip if segment.style is not None]


# -- keys ----------------------------------------------------------------------------------


async def test_a_remapped_key_works_and_the_old_one_does_not() -> None:
    app = Host(keymap=REMAPPED)
    async with app.run_test() as pilot:
        await pilot.press("X")
        assert app.acted == ["cancel"]
        await pilot.press("c")
        assert app.acted == ["cancel", "kill"]
        await pilot.press("K")
        assert app.acted == ["cancel", "kill"]


async def test_every_key_of_a_list_of_keys_works() -> None:
    app = Host(keymap=REMAPPED)
    async with app.run_test() as pilot:
        await pilot.press("f10", "comma", "slash")
        assert app.acted == ["filter", "filter"]


async def test_keys_of_lists_can_be_remapped_too() -> None:
    app = Host(keymap=REMAPPED)
    async with app.run_test() as pilot:
        await pilot.press("n", "n")
        assert app.room.rows.cursor == 2
        await pilot.press("j", "down")
        assert app.room.rows.cursor == 2
        await pilot.press("k")
        assert app.room.rows.cursor == 1


async def test_a_remapped_letter_can_still_be_typed() -> None:
    app = Host(keymap=REMAPPED)
    async with app.run_test() as pilot:
        app.room.line.focus()
        await pilot.press("X", "n", "comma", "c")
        assert app.room.line.value == "Xn,c"
        assert app.acted == []
        await pilot.press("f10")
        assert app.acted == ["filter"]


async def test_keys_that_nobody_remapped_stay() -> None:
    app = Host(keymap=REMAPPED)
    async with app.run_test() as pilot:
        await pilot.press("s", "question_mark", "colon", "ctrl+p")
        assert app.acted == ["stop", "help", "palette", "palette"]


async def test_two_actions_that_swapped_their_keys_do_each_others_work() -> None:
    app = Host(keymap=Keymap({"stop": ("K",), "kill": ("s",)}))
    async with app.run_test() as pilot:
        await pilot.press("K", "s")
        assert app.acted == ["stop", "kill"]


# -- theme ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(Host().available_themes))
async def test_every_theme_can_be_shown(name: str) -> None:
    app = Host()
    async with app.run_test() as pilot:
        app.choose_theme(name)
        await pilot.pause()
        assert "impl:T-004" in screen_text(app)
        assert app.preferences.theme == name


@pytest.mark.parametrize("name", ["agentmux", "agentmux-light", "nord", "nobodys, dracula"])
async def test_the_theme_that_the_environment_names_is_painted(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # As in a process that began with it: Textual reads it once, when it is imported.
    monkeypatch.setenv("TEXTUAL_THEME", name)
    monkeypatch.setattr(App.theme, "_default", name)
    app = Host()
    async with app.run_test() as pilot:
        await pilot.pause()
        ground = Color.parse(app.current_theme.background or "")
        assert app.current_theme.name in name
        assert app.screen.styles.background == ground
        assert app.theme_variables["row-cursor"] == meanings(app.current_theme)["row-cursor"]


async def test_the_theme_chosen_last_is_the_first_one_shown() -> None:
    preferences = Preferences()
    preferences.theme = "agentmux-light"
    assert Host(preferences=preferences).theme == "agentmux-light"


async def test_16_colours_are_shown_as_16_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLORTERM")
    monkeypatch.setenv("TERM", "xterm")
    app = Host()
    assert app.theme == "agentmux-ansi"
    async with app.run_test() as pilot:
        await pilot.pause()
        colours = {c for style in styles(app) for c in (style.color, style.bgcolor) if c}
        assert {colour.type.name for colour in colours} <= {"DEFAULT", "STANDARD"}
        assert any(style.reverse for style in styles(app))


async def test_without_colour_none_is_painted_and_the_cursor_is_in_reverse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = Host()
    async with app.run_test() as pilot:
        for name in ("agentmux-ansi", "nord", "agentmux-light"):
            app.choose_theme(name)
            await pilot.pause()
            colours = {c for style in styles(app) for c in (style.color, style.bgcolor) if c}
            assert all(colour.is_default for colour in colours)
            assert any(style.reverse for style in styles(app))


# -- ASCII ---------------------------------------------------------------------------------


async def test_in_ascii_no_other_character_is_on_the_screen_and_nothing_moves() -> None:
    seen = []
    for ascii in (False, True):  # noqa: A001 - as the setting is called
        app = Host(settings=ScreenConfig(ascii=ascii))
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            seen.append(screen_text(app).splitlines())
    plain, drawn = seen
    assert not "".join(plain).isascii()
    assert "".join(drawn).isascii()
    assert list(map(len, plain)) == list(map(len, drawn))
    assert any("+- 1 Tasks -" in line for line in drawn)


async def test_where_it_is_not_wanted_ascii_costs_nothing() -> None:
    app = Host(settings=ScreenConfig(ascii=False))
    assert list(app.get_line_filters()) == list(super(Host, app).get_line_filters())
    assert not any(type(one).__name__ == "AsciiFilter" for one in app.get_line_filters())


async def test_a_locale_without_utf_8_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locale.getencoding", lambda: "ISO-8859-1")
    app = Host()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert screen_text(app).isascii()


# -- size ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 0.003, 0.05])
async def test_a_terminal_that_was_smaller_for_a_moment_gets_all_of_the_screen_again(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Host()
    painted: list[object] = []
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        paint = app._display
        app.post_message(Resize(Size(40, 10), Size(40, 10)))
        await asyncio.sleep(seconds)

        def seen(screen: Screen[None], what: object) -> None:
            painted.append(what)
            paint(screen, what)  # type: ignore[arg-type]  # whatever it was handed

        monkeypatch.setattr(app, "_display", seen)
        app.post_message(Resize(Size(80, 24), Size(80, 24)))
        async with asyncio.timeout(PATIENCE):
            while not any(isinstance(update, LayoutUpdate) for update in painted):
                await pilot.pause(0.01)
        assert app.screen.size == (80, 24)


# -- switches ------------------------------------------------------------------------------


def test_switches_are_as_set_until_somebody_turns_them() -> None:
    preferences = Preferences()
    app = Host(settings=ScreenConfig(bell=False), preferences=preferences)
    assert [app.has_on(switch) for switch in Switch] == [False, True, True]
    assert app.turn(Switch.BELL) is True
    assert app.turn(Switch.TOASTS) is False
    again = Host(settings=ScreenConfig(bell=False), preferences=preferences)
    assert [again.has_on(switch) for switch in Switch] == [True, True, False]


def test_every_switch_has_a_setting() -> None:
    for switch in Switch:
        assert Host().has_on(switch) is True


def test_the_keys_in_force_are_told() -> None:
    assert Host(keymap=REMAPPED).keymap.shown(BY_NAME["kill"]) == "c"


async def test_what_an_attendant_says_is_said_as_far_as_it_is_switched_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rung: list[bool] = []
    app = Host()
    monkeypatch.setattr(app, "bell", lambda: rung.append(True))
    word = Word("(1) agentmux", bell=True, toasts=(Toast("[b]failed[/b]", "error", 10.0),))
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        app.attend(word)
        await pilot.pause()
        assert rung == [True]
        assert "[b]failed[/b]" in screen_text(app)
        app.turn(Switch.BELL)
        app.turn(Switch.TOASTS)
        app.attend(word)
        await pilot.pause()
        assert rung == [True]
        assert len(app._notifications) == 1


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_toasts_stand_at_the_bottom_right_above_the_keys(size: tuple[int, int]) -> None:
    app = Host()
    long = Toast("a rather long message " * 5)
    async with app.run_test(size=size, notifications=True) as pilot:
        app.attend(Word("agentmux", toasts=(Toast("short"), long, long)))
        await pilot.pause()
        regions = [toast.region for toast in app.screen.query("Toast")]
        assert len(regions) == 3
        assert {region.right for region in regions} == {size[0]}
        assert max(region.bottom for region in regions) == size[1] - 3
        assert min(region.y for region in regions) >= size[1] - 3 - (1 + 2 * 3)
        assert max(region.width for region in regions) <= 60


# -- what it is read from ------------------------------------------------------------------


async def test_a_dashboard_is_fitted_from_the_settings_and_what_was_chosen(tmp_path: Path) -> None:
    (tmp_path / "agentmux.yaml").write_text("keys: {kill: X}\nscreen: {bell: false}\n")
    chosen = Preferences(preferences_file())
    chosen.theme = "nord"
    await chosen.save()
    fitting = read_fitting(tmp_path, tmp_path / "state")
    assert fitting.keymap.shown(BY_NAME["kill"]) == "X"
    assert fitting.settings == ScreenConfig(bell=False)
    assert fitting.preferences.theme == "nord"
    assert FittedApp[None](fitting).theme == "nord"


def test_keys_that_would_not_work_are_told_before_there_is_an_app(tmp_path: Path) -> None:
    (tmp_path / "agentmux.yaml").write_text("keys:\n  kil: x\n  stop: r\n")
    with pytest.raises(ValidationError, match="has 2 problems") as caught:
        read_fitting(tmp_path, tmp_path / "state")
    assert [problem.line for problem in caught.value.problems] == [2, 3]
