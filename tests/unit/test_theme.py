"""Promises of the colours: all can be read, and no two meanings look alike."""

from __future__ import annotations

from itertools import combinations

import pytest
from textual.color import Color
from textual.theme import BUILTIN_THEMES, Theme

from tui.theme import (
    AGENTMUX,
    AGENTMUX_ANSI,
    AGENTMUX_LIGHT,
    APART,
    READABLE,
    VISIBLE,
    contrast,
    meanings,
    nearest,
    starting_theme,
)

OURS = [AGENTMUX, AGENTMUX_LIGHT]
BUILT_IN = [theme for theme in BUILTIN_THEMES.values() if not theme.ansi]
ANSI = [AGENTMUX_ANSI, *(theme for theme in BUILTIN_THEMES.values() if theme.ansi)]
EVERY = {theme.name: theme for theme in [*OURS, *ANSI, *BUILT_IN]}
TOLD_APART = ("ready", "running", "done", "failed", "human", "stale")


def name(theme: Theme) -> str:
    return theme.name


def colours(theme: Theme) -> dict[str, Color]:
    made = theme.to_color_system().generate() | meanings(theme)
    return {
        key: Color.parse(made[key]) for key in (*meanings(theme), "background", "surface", "panel")
    }


def test_contrast_is_that_of_wcag() -> None:
    black, white, grey = (Color.parse(one) for one in ("#000000", "#ffffff", "#767676"))
    assert contrast(black, white) == contrast(white, black) == 21
    assert contrast(grey, white) == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("theme", [*OURS, *BUILT_IN], ids=name)
def test_text_can_be_read_on_every_ground_of_a_list(theme: Theme) -> None:
    made = colours(theme)
    for ground in ("background", "row-cursor", "row-cursor-faint", "row-hover"):
        for tone in TOLD_APART:
            assert contrast(made[tone], made[ground]) >= READABLE - 0.1, (tone, ground)
        assert contrast(made["waiting"], made[ground]) >= VISIBLE, ground


@pytest.mark.parametrize("theme", [*OURS, *BUILT_IN], ids=name)
def test_text_can_be_read_in_bars_and_dialogs(theme: Theme) -> None:
    made = colours(theme)
    least, dim = (READABLE, 4.0) if theme in OURS else (3.5, 2.5)
    for ground in ("surface", "panel"):
        for tone in TOLD_APART:
            assert contrast(made[tone], made[ground]) >= least, (tone, ground)
        assert contrast(made["waiting"], made[ground]) >= dim, ground


@pytest.mark.parametrize("theme", OURS, ids=name)
def test_what_is_dim_in_our_own_themes_can_be_read_on_every_ground(theme: Theme) -> None:
    made = colours(theme)
    grounds = ("background", "surface", "panel", "row-cursor", "row-cursor-faint", "row-hover")
    for ground in grounds:
        assert contrast(made["waiting"], made[ground]) >= READABLE, ground


@pytest.mark.parametrize("theme", [*OURS, *BUILT_IN], ids=name)
def test_no_two_meanings_look_alike(theme: Theme) -> None:
    made = colours(theme)
    for one, other in combinations((*TOLD_APART, "waiting"), 2):
        assert nearest(made[one], [made[other]]) >= APART - 3, (one, other)


@pytest.mark.parametrize("theme", [*OURS, *BUILT_IN], ids=name)
def test_the_row_of_the_cursor_and_what_cannot_be_done_are_seen(theme: Theme) -> None:
    made = colours(theme)
    ground = made["background"]
    assert contrast(made["row-cursor"], ground) >= 1.15
    assert contrast(made["row-cursor"], ground) > contrast(made["row-cursor-faint"], ground)
    assert contrast(made["rule-focus"], ground) >= VISIBLE
    ready, waiting, off = (contrast(made[one], ground) for one in ("ready", "waiting", "off"))
    assert ready > 1.2 * waiting > 1.2 * off > 1.9


@pytest.mark.parametrize("theme", ANSI, ids=name)
def test_in_16_colours_each_hue_has_one_meaning(theme: Theme) -> None:
    made = meanings(theme)
    assert all(colour.startswith("ansi_") for colour in made.values())
    assert len({made[tone] for tone in (*TOLD_APART, "waiting")}) == len(TOLD_APART) + 1


def test_every_theme_gives_every_meaning() -> None:
    for theme in EVERY.values():
        assert set(meanings(theme)) == set(meanings(AGENTMUX)), theme.name


@pytest.mark.parametrize(
    ("wanted", "remembered", "few", "chosen"),
    [
        ("", "", False, "agentmux"),
        ("", "nord", False, "nord"),
        ("dracula", "nord", False, "dracula"),
        ("nobodys, dracula", "nord", False, "dracula"),
        ("nobodys", "nord", False, "nord"),
        ("", "nobodys", False, "agentmux"),
        ("", "", True, "agentmux-ansi"),
        ("", "nord", True, "agentmux-ansi"),
        ("", "ansi-light", True, "ansi-light"),
        ("nord", "", True, "nord"),
    ],
)
def test_the_environment_goes_before_memory_and_memory_before_the_default(
    wanted: str, remembered: str, chosen: str, *, few: bool
) -> None:
    assert starting_theme(wanted, remembered, EVERY, few_colours=few) == chosen
