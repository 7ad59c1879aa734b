"""Colours. One colour has one meaning in every pane and every theme (DESIGN §8).

The stylesheets speak of meanings only (`$running`, `$failed` …); here each theme says which
colour carries which. Built-in themes get theirs from their own palette where it has the hue and
can be read on its ground, else a colour of ours; what is too pale is mended, never left so.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from textual.color import Color, rgb_to_lab
from textual.theme import Theme

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

READABLE = 4.5
"""The contrast (WCAG) that text has with its ground at least."""
VISIBLE = 3.0
"""The contrast of what may stay in the background: what waits, what is dim."""
_IN_BARS = 2.6
"""The same in bars and dialogs, whose grounds are another theme's own."""
_OFF = 1.7
"""The contrast of what cannot be done now: it is seen, but not looked at."""
APART = 18.0
"""How far apart (CIE 1976) two colours are that mean two things."""

AGENTMUX = Theme(
    name="agentmux",
    primary="#6cb6ff",
    secondary="#8ea2c6",
    accent="#6cb6ff",
    warning="#f2cc60",
    error="#ff7b72",
    success="#7ee787",
    foreground="#d5dce6",
    background="#0e1218",
    surface="#141a22",
    panel="#1b232e",
    dark=True,
    variables={
        "running": "#6cb6ff",
        "ready": "#d5dce6",
        "waiting": "#929eb0",
        "done": "#6fce7a",
        "failed": "#ff7b72",
        "human": "#f2cc60",
        "stale": "#ff9e4a",
        "rule": "#2c3746",
        "off": "#4b5768",
        "rule-focus": "#aeb9c8",
        "row-cursor": "#25344a",
        "row-cursor-faint": "#1a232f",
        "row-hover": "#18212c",
    },
)

AGENTMUX_LIGHT = Theme(
    name="agentmux-light",
    primary="#0b5fbd",
    secondary="#4a5f82",
    accent="#0b5fbd",
    warning="#7a5a00",
    error="#c0262d",
    success="#1a7234",
    foreground="#1d2430",
    background="#fbfbf9",
    surface="#f1f2f0",
    panel="#e6e8e8",
    dark=False,
    variables={
        "running": "#0b5fbd",
        "ready": "#1d2430",
        "waiting": "#5a6472",
        "done": "#1a7234",
        "failed": "#c0262d",
        "human": "#735500",
        "stale": "#a84300",
        "rule": "#cdd2d8",
        "off": "#a3abb6",
        "rule-focus": "#5b6675",
        "row-cursor": "#d3e2f5",
        "row-cursor-faint": "#e9edf2",
        "row-hover": "#eff1f3",
    },
)

AGENTMUX_ANSI = Theme(
    name="agentmux-ansi",
    ansi=True,
    primary="ansi_blue",
    secondary="ansi_cyan",
    warning="ansi_yellow",
    error="ansi_red",
    success="ansi_green",
    accent="ansi_blue",
    foreground="ansi_default",
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_default",
    boost="ansi_default",
    dark=True,
    variables={
        "ansi-background": "ansi_default",
        "ansi-foreground": "ansi_default",
        "border": "ansi_bright_black",
        "border-blurred": "ansi_bright_black",
        "block-cursor-foreground": "ansi_default",
        "block-cursor-background": "ansi_default",
        "block-cursor-text-style": "reverse",
        "input-cursor-background": "ansi_default",
        "input-cursor-foreground": "ansi_default",
        "input-cursor-text-style": "reverse",
        "input-selection-background": "ansi_blue",
        "input-selection-foreground": "ansi_bright_white",
        "scrollbar": "ansi_bright_black",
        "scrollbar-hover": "ansi_default",
        "scrollbar-active": "ansi_default",
        "scrollbar-background": "ansi_default",
        "scrollbar-corner-color": "ansi_default",
        "scrollbar-background-hover": "ansi_default",
        "scrollbar-background-active": "ansi_default",
        "block-hover-background": "ansi_default",
    },
)
"""In the terminal's own 16 colours, which fit its ground whichever it is."""

OURS = (AGENTMUX, AGENTMUX_LIGHT, AGENTMUX_ANSI)

_ANSI = {
    "running": "ansi_bright_blue",
    "ready": "ansi_default",
    "waiting": "ansi_bright_black",
    "done": "ansi_green",
    "failed": "ansi_red",
    "human": "ansi_yellow",
    "stale": "ansi_magenta",  # 16 colours have no orange
    "rule": "ansi_bright_black",
    "off": "ansi_bright_black",
    "rule-focus": "ansi_default",
    # Where the cursor is, a list shows in reverse: no colour of 16 can be read on all the others.
    "row-cursor": "ansi_default",
    "row-cursor-faint": "ansi_default",
    "row-hover": "ansi_default",
}

_HUES: Mapping[str, tuple[float, float]] = {
    "done": (70, 170),
    "failed": (335, 25),
    "human": (38, 70),
    "stale": (15, 38),
    "running": (170, 335),
}
"""From which hue to which, in degrees, a theme's own colour can carry a meaning."""
_SPARE = ("#c297ff", "#56d4dd", "#8250df", "#0e7c86")
"""Taken where both a theme's colour and ours look like one that has its meaning already."""


def meanings(theme: Theme) -> dict[str, str]:
    """Return the colour of each meaning in a theme, by the meaning's name."""
    if theme.ansi:
        return _ANSI
    return theme.variables if theme in OURS else _mended(_Key(theme))


class _Key:
    """A theme as the key of a cache; themes are not hashable."""

    def __init__(self, theme: Theme) -> None:
        self.theme = theme

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other.theme == self.theme

    def __hash__(self) -> int:
        return hash(self.theme.name)


@lru_cache(maxsize=4)
def _mended(key: _Key) -> dict[str, str]:
    theme = key.theme
    palette = theme.to_color_system().generate()
    ground, surface, panel = (
        Color.parse(palette[name]) for name in ("background", "surface", "panel")
    )
    ink = Color.parse("#ffffff" if theme.dark else "#000000")
    cursor = _ground(panel, ground, 1.2, 1.5)
    faint = _ground(surface, ground, 1.05, 1.2)
    grounds = (ground, cursor, faint)
    text = readable(Color.parse(palette["foreground"]), ink, grounds, READABLE + 1.5)
    colours = _hues(theme, ink, grounds, text)
    waiting = readable(ground.blend(text, 0.45), ink, grounds, VISIBLE + 0.1)
    return {name: colour.hex for name, colour in colours.items()} | {
        "ready": text.hex,
        "waiting": readable(waiting, ink, (panel, surface), _IN_BARS).hex,
        "off": readable(ground.blend(text, 0.25), ink, (ground,), _OFF).hex,
        "rule": readable(ground.blend(text, 0.15), ink, (ground,), 1.35).hex,
        "rule-focus": ground.blend(text, 0.8).hex,
        "row-cursor": cursor.hex,
        "row-cursor-faint": faint.hex,
        "row-hover": faint.hex,
    }


def _hues(theme: Theme, ink: Color, grounds: Sequence[Color], text: Color) -> dict[str, Color]:
    own = {
        "running": [theme.primary, theme.secondary, theme.accent],
        "done": [theme.success],
        "failed": [theme.error],
        "human": [theme.warning, theme.accent],
        "stale": [theme.warning, theme.accent],
    }
    ours = (AGENTMUX if theme.dark else AGENTMUX_LIGHT).variables
    chosen: dict[str, Color] = {}
    for meaning, (low, high) in _HUES.items():
        fitting = [name for name in own[meaning] if name and _is_hue(Color.parse(name), low, high)]
        candidates = [
            readable(Color.parse(name), ink, grounds) for name in (*fitting, ours[meaning], *_SPARE)
        ]
        taken = [text, *chosen.values()]
        apart = [colour for colour in candidates if nearest(colour, taken) >= APART]
        best = max(candidates, key=lambda colour: nearest(colour, taken))
        chosen[meaning] = apart[0] if apart else best
    return chosen


def _is_hue(colour: Color, low: float, high: float) -> bool:
    hue, saturation = colour.hsl.h * 360, colour.hsl.s
    inside = low <= hue <= high if low < high else hue >= low or hue <= high
    return inside and saturation > 0.15


def _ground(wanted: Color, ground: Color, least: float, most: float) -> Color:
    """Return a ground near `wanted` that can be seen on `ground` and drowns no text."""
    ink = Color.parse("#ffffff" if ground.brightness < 0.5 else "#000000")
    colour = readable(wanted, ink, (ground,), least)
    step = 0.0
    while contrast(colour.blend(ground, step), ground) > most:
        step += 0.05
    return colour.blend(ground, step)


def readable(colour: Color, ink: Color, grounds: Iterable[Color], least: float = READABLE) -> Color:
    """Return the colour, mixed with `ink` until its contrast with all grounds is `least`."""
    grounds = tuple(grounds)
    for step in range(21):
        mixed = colour.blend(ink, step / 20)
        if all(contrast(mixed, ground) >= least for ground in grounds):
            return mixed
    return ink


def contrast(one: Color, other: Color) -> float:
    """Return the contrast ratio of two colours as WCAG has it: 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: Color) -> float:
    parts = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in colour.normalized
    )
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def nearest(colour: Color, others: Collection[Color]) -> float:
    """Return how far a colour is from the one most like it (CIE 1976)."""
    here = rgb_to_lab(colour)
    there = map(rgb_to_lab, others)
    return min(math.dist((here.L, here.a, here.b), (one.L, one.a, one.b)) for one in there)


# -- which theme to start with -------------------------------------------------------------


def starting_theme(
    wanted: str, remembered: str, known: Mapping[str, Theme], *, few_colours: bool
) -> str:
    """Return the name of the theme to start with.

    `wanted` is what TEXTUAL_THEME names: one, or several of which the first that is `known`
    counts. Then comes the one that was chosen last, and then ours. With `few_colours` a theme
    made for millions of them would be mud: only one in the terminal's own colours is taken.
    """
    for name in map(str.strip, wanted.split(",")):
        if name in known:
            return name
    if remembered in known and (known[remembered].ansi or not few_colours):
        return remembered
    return (AGENTMUX_ANSI if few_colours else AGENTMUX).name
