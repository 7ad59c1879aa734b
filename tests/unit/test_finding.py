"""Which lines of a log tell of trouble: each is found, once, whatever stands around it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ValidationError
from engine.logwatch.finding import Finder

_LINES = st.lists(
    st.text(alphabet="abE RO\r\t\xe9\x00", max_size=12).map(str.encode), max_size=12
).map(b"\n".join)


def _found(finder: Finder, data: bytes) -> list[bytes]:
    return [data[start:end] for start, end in finder.find(data)]


@given(_LINES)
def test_a_search_of_the_whole_finds_what_a_look_at_each_line_finds(data: bytes) -> None:
    finder = Finder(["ERR", "^a.*b$"], ["O"])

    lines = data.split(b"\n")
    trouble = [line for line in lines if re.search(rb"ERR|^a[^\n]*b$", line) and b"O" not in line]
    assert _found(finder, data) == trouble


@pytest.mark.parametrize(
    "pattern",
    [r"one\s+two", r"one\ntwo", r"(?s)one.two", r"one[^x]two"],
)
def test_no_match_goes_beyond_a_line(pattern: str) -> None:
    assert _found(Finder([pattern], []), b"one\ntwo\n") == []


def test_what_is_no_utf8_hides_nothing() -> None:
    assert _found(Finder([r"\bERROR\b"], []), b"\xff\xfe ERROR \x80\n\xc3\n") == [
        b"\xff\xfe ERROR \x80"
    ]


def test_case_counts() -> None:
    assert _found(Finder(["FAILED"], []), b"failed\nFAILED\n") == [b"FAILED"]


def test_patterns_are_good_each_by_itself() -> None:
    with pytest.raises(ValidationError, match="no regular expression"):
        Finder(["a(b", "c)d"], [])


def test_without_patterns_nothing_is_found() -> None:
    assert _found(Finder([], ["x"]), b"ERROR\n") == []
