"""What is found in a log is what one sees in it, all of it, in order, in either direction."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.searching import naive, needle, run

from tui.logs.file import LogFile
from tui.logs.search import TOP, NeedleError, Search, Spot, parse_needle

if TYPE_CHECKING:
    from pathlib import Path


def opened(path: Path, text: str) -> LogFile:
    path.write_text(text)
    file = LogFile(path, block=256, grid=64)
    file.look()
    return file


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs") / "stdout.log"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stdout.log"


_TEXT = st.lists(
    st.sampled_from(["ab", "a", "b", "B", "\n", "\r", "\x1b[1m", "漢", "x" * 70, " ", "İ"]),
    max_size=60,
).map("".join)


@settings(deadline=None, max_examples=150)
@given(text=_TEXT, what=st.sampled_from(["ab", "a", "B", "漢", "/a[^ab]?b/", "/^b/"]))
def test_every_match_is_come_to_in_order_forwards_and_backwards(
    log: Path, text: str, what: str
) -> None:
    with closing(opened(log, text)) as file:
        spots = naive(file, needle(what))
        for forward in (True, False):
            order = spots if forward else spots[::-1]
            spot = TOP if forward else Spot(file.size, 0)
            if not forward and file.size:
                spot = Spot(file.start_of(file.size), 1 << 30)
            for expected in order:
                search = run(file, Search(needle(what), spot, forward=forward))
                assert (search.found, search.wrapped) == (expected, False)
                assert search.found is not None
                spot = search.found
            search = run(file, Search(needle(what), spot, forward=forward))
            if not spots:
                assert search.found is None
            else:
                assert (search.found, search.wrapped) == (order[0], True)


def test_case_counts_only_with_an_upper_case_letter(path: Path) -> None:
    with closing(opened(path, "error\nError\nERROR\n")) as file:
        assert [spot.start for spot in naive(file, needle("error"))] == [0, 6, 12]
        assert [spot.start for spot in naive(file, needle("Error"))] == [6]
        assert [spot.start for spot in naive(file, needle("/e[r]+or/"))] == [0, 6, 12]
        assert [spot.start for spot in naive(file, needle("/E\\w+/"))] == [6, 12]
        assert [spot.start for spot in naive(file, needle("/^\\S+$/"))] == [0, 6, 12]


def test_what_is_found_is_what_one_sees(path: Path) -> None:
    with closing(opened(path, "e\x1b[31mrr\x1b[0mor\nhidden error\rshown\n")) as file:
        found = run(file, Search(needle("error"), TOP)).found
        assert found == Spot(0, 0, 5)
        again = run(file, Search(needle("error"), found))
        assert (again.found, again.wrapped) == (found, True)
        assert run(file, Search(needle("hidden"), TOP)).found is None


def test_a_regular_expression_stays_within_its_line(path: Path) -> None:
    with closing(opened(path, "one\ntwo\nthree\n")) as file:
        assert run(file, Search(needle("/one\\stwo/"), TOP)).found is None
        assert run(file, Search(needle("/e[^x]t/"), TOP)).found is None
        assert run(file, Search(needle("/^t.*e$/"), TOP)).found == Spot(8, 0, 5)


def test_a_pattern_that_would_never_end_elsewhere_ends_here(path: Path) -> None:
    with closing(opened(path, "a" * 20_000 + "\n")) as file:
        assert run(file, Search(needle("/(a+)+$x/"), TOP), limit=1 << 20).found is None


@pytest.mark.parametrize("pattern", ["/(/", "/[z-a]/", "/(?=a)/", "/*a/"])
def test_a_pattern_that_cannot_be_read_is_refused_with_a_reason(pattern: str) -> None:
    with pytest.raises(NeedleError, match=r"\w"):
        parse_needle(pattern)


def test_nothing_is_no_needle_and_a_lone_slash_is_text() -> None:
    assert parse_needle("") is None
    assert needle("/").first("a/b") == (1, 2)
    assert needle("/usr").first("see /usr") == (4, 8)


def test_a_search_goes_on_by_slices_and_says_how_far_it_is(path: Path) -> None:
    with closing(opened(path, "x\n" * 2000)) as file:
        search = Search(needle("nowhere"), TOP)
        shares = []
        while not search.done:
            reads = file.reads
            search.step(file, 100)
            assert file.reads - reads < 5
            shares.append(search.share(file.size))
        assert len(shares) > 30
        assert shares == sorted(shares)
        assert shares[-1] == 1.0


def test_the_search_wraps_around_once(path: Path) -> None:
    with closing(opened(path, "needle\nb\nc\nd\n")) as file:
        search = run(file, Search(needle("needle"), Spot(9, -1)))
        assert (search.found, search.wrapped) == (Spot(0, 0, 6), True)
        search = run(file, Search(needle("d"), Spot(0, 0), forward=False))
        assert (search.found, search.wrapped) == (Spot(11, 0, 1), True)
