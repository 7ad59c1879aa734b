"""Nothing printed can act on a terminal, and numbers fit where they must."""

from __future__ import annotations

import math
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.text import (
    age,
    cells,
    clean_text,
    cut_middle,
    duration,
    in_bytes,
    money,
    plural,
    tokens,
)

ESC = "\x1b"
BANNED = [chr(n) for n in range(0x20) if chr(n) != "\n"] + [chr(n) for n in range(0x7F, 0xA0)]
BANNED += [*"\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2060"]
BANNED += [*"\u2066\u2067\u2068\u2069\u061c\ufeff\xad\U000e0001\U000e0041\ud800\udcff"]
HOSTILE = st.lists(
    st.sampled_from(
        [
            *[*BANNED, "\n", "\r\n", "\t", f"{ESC}[", f"{ESC}]", f"{ESC}P", f"{ESC}\\", "\x07"],
            *["0;", "52;c;", "8;;", "31m", "2J", "?25l", "a", "é", "漢", "👩", "!"],
        ]
    )
    | st.characters(),
    max_size=40,
).map("".join)


def active(text: str, *, newlines: bool) -> list[str]:
    """Every character of `text` that a terminal would act on."""
    allowed = "\n" if newlines else ""
    return [
        char
        for char in text
        if char not in allowed
        and (
            char in BANNED or char == "\n" or unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}
        )
    ]


@given(HOSTILE, st.booleans())
def test_the_result_never_holds_anything_active(text: str, newlines: bool) -> None:
    assert active(clean_text(text, newlines=newlines), newlines=newlines) == []


@given(HOSTILE, st.booleans())
def test_cleaning_twice_changes_nothing_more(text: str, newlines: bool) -> None:
    once = clean_text(text, newlines=newlines)
    assert clean_text(once, newlines=newlines) == once


@given(st.text().filter(str.isprintable))
def test_printable_text_is_unchanged(text: str) -> None:
    assert clean_text(text) == text
    assert clean_text(f"{text}\n{text}", newlines=True) == f"{text}\n{text}"


@given(HOSTILE, st.data())
def test_a_sequence_cut_in_two_leaves_nothing_active_when_joined(
    text: str, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(text)))
    assert active(clean_text(text[:cut]) + clean_text(text[cut:]), newlines=False) == []


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (f"{ESC}[31mred{ESC}[0m", "red"),
        (f"{ESC}[2J{ESC}[1;1Hx{ESC}[?25l", "x"),
        (f"{ESC}[38:2::1:2:3mx", "x"),
        (f"{ESC}]0;title\x07x", "x"),
        (f"{ESC}]52;c;ZXZpbA=={ESC}\\x", "x"),
        (f"{ESC}]8;;http://a{ESC}\\link{ESC}]8;;{ESC}\\", "link"),
        ("\x9d0;title\x9cx", "x"),
        ("\x9b31mx", "x"),
        (f"{ESC}Pq#0;2;0{ESC}\\x", "x"),
        (f"{ESC}Xsos{ESC}\\{ESC}^pm{ESC}\\{ESC}_apc{ESC}\\x", "x"),
        ("\x90dcs\x9c\x98sos\x9c\x9epm\x9c\x9fapc\x9cx", "x"),
        (f"{ESC}(Bx{ESC}7{ESC}8{ESC}cx", "xx"),
        (f"{ESC}Mx{ESC}Dx", "xx"),
        (f"end{ESC}", "end"),
        (f"end{ESC}[12;", "end"),
        ("a\tb\x00\x08c\x7f", "a bc"),
        ("a\nb\r\nc\rd", "a b c d"),
        ("\u202eevil\u202c\u2066x\u2069\u200b\ufeff\u2028", "evilx"),
        ("x\U000e0041\U000e007f", "x"),
        ("\ud800x\udcff", "\ufffdx\ufffd"),
        ("naïve 漢字 👍🏽 e\u0301\xa0b", "naïve 漢字 👍🏽 e\u0301\xa0b"),
    ],
)
def test_each_kind_of_sequence_goes_and_the_text_around_it_stays(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean


@pytest.mark.parametrize("introducer", [f"{ESC}]0;", f"{ESC}P", f"{ESC}_", "\x9d0;", "\x90"])
def test_an_open_string_sequence_cannot_hide_the_lines_after_it(introducer: str) -> None:
    cleaned = clean_text(f"a{introducer}b\nthe error\x07", newlines=True)
    assert cleaned.split("\n")[1] == "the error"


def test_newlines_stay_only_when_asked_for() -> None:
    assert clean_text("a\r\nb\nc\rd", newlines=True) == "a\nb\nc\nd"


@pytest.mark.parametrize(
    "piece", [f"{ESC}]", "\x9d", f"{ESC}[", f"{ESC}]0;x", f"{ESC}[1;", f"{ESC}  "]
)
def test_hostile_input_costs_no_more_than_its_length(piece: str) -> None:
    def cost(text: str) -> float:
        started = time.process_time()
        clean_text(text)
        return time.process_time() - started

    # Quadratic work would take 2,000 times as long; a slow machine is no reason to fail.
    small = min(cost(piece * 100) for _ in range(5))
    assert cost(piece * 200_000) < max(small, 1e-5) * 100_000


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0s"), (0, "0s"), (0.9, "0s"), (2, "2s"), (59.9, "59s"), (60, "1:00"), (134, "2:14"),
        (3599, "59:59"), (3600, "1h00m"), (3840, "1h04m"), (35_999, "9h59m"), (36_000, "10h"),
        (86_399, "23h"), (86_400, "1d00h"), (273_600, "3d04h"), (864_000, "10d"),
        (86_400 * 364, "364d"), (86_400 * 365 * 4, "4y"), (math.inf, "9999y"), (math.nan, "0s"),
    ],
)  # fmt: skip
def test_an_age_names_its_unit(seconds: float, shown: str) -> None:
    assert age(seconds) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 KiB"), (12_345, "12 KiB"),
        (812 * 2**20, "812 MiB"), (2**30, "1.0 GiB"), (2**50, "1024 TiB"),
    ],
)  # fmt: skip
def test_a_size_names_its_unit(size: int, shown: str) -> None:
    assert in_bytes(size) == shown


@given(st.floats())
def test_an_age_or_duration_takes_at_most_five_characters(seconds: float) -> None:
    assert 2 <= len(age(seconds)) <= 5
    assert 2 <= len(duration(seconds)) <= 5


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0ms"), (0.0004, "0ms"), (0.12, "120ms"), (0.9994, "999ms"), (0.9996, "1.0s"),
        (4.24, "4.2s"), (9.94, "9.9s"), (9.96, "10s"), (41.4, "41s"), (59.7, "1:00"), (134, "2:14"),
    ],
)  # fmt: skip
def test_a_duration_is_finer_where_it_is_short(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@given(st.text(), st.integers(-1, 30))
def test_a_cut_text_never_takes_more_cells_than_it_has(text: str, width: int) -> None:
    assert cells(cut_middle(text, width)) <= max(width, 0)


@given(st.text(), st.integers(0, 30))
def test_what_fits_is_not_cut_and_what_is_cut_says_so(text: str, width: int) -> None:
    shown = cut_middle(text, width)
    if cells(text) <= width:
        assert shown == text
    elif width:
        head, _, tail = shown.partition("…")
        assert "…" in shown
        assert text.startswith(head)
        assert text.endswith(tail)


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("impl:T-004", 10, "impl:T-004"),
        ("impl:T-004", 7, "imp…004"),
        ("impl:T-004", 6, "imp…04"),
        ("漢字漢字漢字", 7, "漢…字"),
        ("abc", 1, "…"),
        ("abc", 0, ""),
        ("a" * 9 + "e\u0301xyz", 8, "aaaa…xyz"),
    ],
)
def test_ids_are_cut_in_the_middle_by_cells(text: str, width: int, shown: str) -> None:
    assert cut_middle(text, width) == shown


def test_cells_count_wide_characters_twice_and_marks_not_at_all() -> None:
    assert [cells(text) for text in ("", "abc", "漢字", "e\u0301", "👍", "●")] == [0, 3, 4, 1, 2, 1]


def test_plural_agrees_with_its_number() -> None:
    assert plural(1, "task") == "1 task"
    assert plural(0, "task") == "0 tasks"
    assert plural(12_000, "retry", "retries") == "12,000 retries"


@pytest.mark.parametrize(
    ("dollars", "text"),
    [
        (0, "$0.00"),
        (0.0004, "$0.001"),
        (0.0042, "$0.004"),
        (0.00999, "$0.01"),
        (1.239, "$1.24"),
        (99.99, "$99.99"),
        (99.996, "$100"),
        (9994, "$9994"),
        (9996, "$10.0k"),
        (1_250_000, "$1.2M"),
    ],
)
def test_money_is_short_and_never_nothing(dollars: float, text: str) -> None:
    assert money(dollars) == text
    assert len(money(dollars)) <= 7


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (9_949, "9.9k"), (34_400, "34k"), (999_400, "999k"),
     (999_600, "1.0M"), (12_300_000, "12M")],
)  # fmt: skip
def test_tokens_are_short(count: int, text: str) -> None:
    assert tokens(count) == text
