"""Promises of the ASCII screen: same widths, nothing but ASCII, and nothing confused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.color import Color

from tui import glyphs, look
from tui.glyphs import AsciiFilter, to_ascii, wants_ascii


def test_no_two_symbols_become_one() -> None:
    assert len(set(glyphs.SYMBOLS.values())) == len(glyphs.SYMBOLS)
    assert {symbol for symbol, _ in look.LEGEND} <= set(glyphs.SYMBOLS)
    assert len({to_ascii(symbol) for symbol, _ in look.LEGEND}) == len(look.LEGEND)


def test_the_bars_of_a_sparkline_stay_apart() -> None:
    assert len({to_ascii(bar) for bar in "▁▂▃▄▅▆▇"}) == 7


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("plain [id=3]", "plain [id=3]"),
        ("╭─ 1 Workers ─╮", "+- 1 Workers -+"),
        ("│ ● claude-1 │", "| * claude-1 |"),
        ("━━━───", "===---"),
        ("naïve", "na?ve"),
        ("计划", "????"),
        ("e\u0301", "e"),
        ("🚀 go", "?? go"),
        ("follows · 12", "follows : 12"),
    ],
)
def test_text_becomes_ascii_of_the_same_width(text: str, drawn: str) -> None:
    assert to_ascii(text) == drawn


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_keeps_its_width_and_ends_up_in_ascii(text: str) -> None:
    drawn = to_ascii(text)
    assert drawn.isascii()
    assert cell_len(drawn) == sum(map(cell_len, text))


def test_the_filter_keeps_styles() -> None:
    style = Style(bold=True)
    (segment,) = AsciiFilter().apply([Segment("✓ ok", style)], Color(0, 0, 0))
    assert segment == Segment("+ ok", style)


@pytest.mark.parametrize(
    ("setting", "encoding", "terminal", "wanted"),
    [
        (None, "UTF-8", "xterm-256color", False),
        (None, "utf8", "xterm", False),
        (None, "ISO-8859-1", "xterm-256color", True),
        (None, "ANSI_X3.4-1968", "xterm", True),
        (None, "UTF-8", "linux", True),
        (True, "UTF-8", "xterm", True),
        (False, "ISO-8859-1", "linux", False),
    ],
)
def test_ascii_is_drawn_where_nothing_else_can_be_or_where_it_is_wanted(
    setting: bool | None, encoding: str, terminal: str, *, wanted: bool
) -> None:
    assert wants_ascii(setting, encoding, terminal) is wanted
