"""What is found in a transcript: all that is told, in order, whatever becomes of the file."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import transcripts
from support.searching import naive, needle, run
from support.transcripts import answers, calls, says

from tui.logs.said import SaidFile, SaidSearch
from tui.logs.search import TOP, Spot

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


BLOCK = 512


def written(folder: Path, lines: Iterable[str]) -> SaidFile:
    file = SaidFile(transcripts.write(folder, lines, prompt=""), block=BLOCK)
    file.look()
    return file


def found(file: SaidFile, search: SaidSearch) -> str:
    spot = run(file, search, 300).found
    assert spot is not None
    return file.piece(spot.start).text[spot.index : spot.index + spot.length]


_WORDS = st.lists(st.sampled_from(["ab", "a", "B", "\n", "漢", "x" * 90, " ", "İ"]), max_size=6)
_LINES = st.lists(
    st.one_of(
        _WORDS.map("".join).map(says),
        _WORDS.map("".join).map(answers),
        _WORDS.map("".join).map(lambda text: calls("Edit", path="ab", text=text)),
        st.sampled_from([transcripts.line("stream_event", event={"n": "a" * 600}), "no JSON: ab"]),
    ),
    max_size=12,
)


@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lines=_LINES, what=st.sampled_from(["ab", "a", "B", "漢", "/B|漢/", "/^a/"]))
def test_every_match_is_come_to_in_order_forwards_and_backwards(
    tmp_path: Path, lines: list[str], what: str
) -> None:
    with closing(written(tmp_path, lines)) as file:
        spots = naive(file, needle(what))
        for forward in (True, False):
            order = spots if forward else spots[::-1]
            spot = TOP if forward else Spot(file.size, 0)
            for wanted in order:
                search = run(file, SaidSearch(needle(what), spot, forward=forward), 300)
                assert search.found == wanted
                assert not search.wrapped
                spot = wanted
            last = run(file, SaidSearch(needle(what), spot, forward=forward), 300)
            assert last.found == (order[0] if order else None)


def test_what_comes_while_one_searches_is_found(tmp_path: Path) -> None:
    with closing(written(tmp_path, [says(f"word {n}") for n in range(100)])) as file:
        search = SaidSearch(needle("needle"), TOP)
        for _ in range(5):
            search.step(file, 300)
        with (tmp_path / "transcript.jsonl").open("a") as growing:
            growing.write(says("a needle at last") + "\n")
        file.look()
        assert found(file, search) == "needle"
        assert not search.wrapped


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("left", [0, 1, 30])
def test_a_search_through_what_is_cut_or_replaced_meanwhile_ends(
    tmp_path: Path, forward: bool, left: int
) -> None:
    lines = [says(f"word {n}") for n in range(300)]
    with closing(written(tmp_path, lines)) as file:
        origin = TOP if forward else Spot(file.size, 0)
        search = SaidSearch(needle("needle"), origin, forward=forward)
        for _ in range(3 if not forward else 100):
            search.step(file, 300)
        transcripts.write(tmp_path, [says("needle"), *lines[:left]][:left], prompt="")
        file.look()
        run(file, search, 300)
        if search.found is not None:
            assert found(file, search) == "needle"
