"""Runs as bars over time: every run is seen or counted, and times are those of the wall."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import inf
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.model import RunOutcome, WorkerStatus
from engine.views import RunRow, WorkerRow
from tui.timeline import (
    SCALES,
    Lane,
    Window,
    bars,
    begin_of,
    busy,
    end_of,
    fitting,
    lanes,
    nearest,
    neighbour,
    stays,
    ticks,
)

START = datetime(2026, 3, 14, 10, tzinfo=UTC)
AT = START.timestamp()
ZURICH = ZoneInfo("Europe/Zurich")


def run(id: str, begin: float, end: float | None, worker: str = "codex-1") -> RunRow:  # noqa: A002 - as in the row
    """Return a run from `begin` to `end`, in seconds after START; one without end goes on."""
    moment = START + timedelta(seconds=begin)
    return RunRow(
        id=id,
        task_id=f"task-{id}",
        agent="codex",
        worker_id=worker,
        attempt=1,
        outcome=None if end is None else RunOutcome.DONE,
        claimed_at=moment,
        started_at=moment,
        ended_at=None if end is None else START + timedelta(seconds=end),
        exit_code=None,
        error=None,
        result=None,
    )


def known(name: str, since: float, **more: Any) -> WorkerRow:
    """Return a live worker that started so many seconds after START."""
    began = START + timedelta(seconds=since)
    row = WorkerRow(
        id=name, agent="codex", pid=1, status=WorkerStatus.LIVE, alive=True, task_id=None,
        run_id=None, run_started_at=None, lease_until=None, started_at=began, beat_at=began,
        note="",
    )  # fmt: skip
    return replace(row, **more)


def window(step: float = 10.0, cells: int = 10) -> Window:
    return Window(int(AT / step), step, cells)


def cut(runs: list[RunRow], seen: Window, now: float = 1e6) -> str:
    """Return the cells as text: the id of the one run there, a number for several, a dot."""
    line = ["."] * seen.cells
    for bar in bars(runs, seen, AT + now):
        for cell in range(bar.first, bar.last + 1):
            line[cell] = bar.runs[0].id if len(bar.runs) == 1 else str(len(bar.runs))
    return "".join(line)


# -- bars ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runs", "line"),
    [
        ([], ".........."),
        ([("a", 10, 30)], ".aa......."),
        ([("a", 9, 31)], "aaaa......"),
        ([("a", 12, 13)], ".a........"),
        ([("a", 10, 10)], ".a........"),
        ([("a", -50, 20)], "aa........"),
        ([("a", 85, 500)], "........aa"),
        ([("a", -50, 500)], "aaaaaaaaaa"),
        ([("a", -50, 0), ("b", 100, 120)], ".........."),
        # Where one ends and the next begins, the cell is the next one's.
        ([("a", 0, 25), ("b", 27, 50)], "aabbb....."),
        ([("a", 0, 20), ("b", 20, 50)], "aabbb....."),
        ([("a", 0, 25), ("b", 26, 28)], "aab......."),
        # Nobody is left without a cell.
        ([("a", 21, 23), ("b", 24, 26)], "..2......."),
        ([("a", 21, 23), ("b", 24, 26), ("c", 27, 45)], "..3cc....."),
        ([("a", -9, 3), ("b", 4, 25)], "2bb......."),
        # Two at once, which should not be, are shown as two.
        ([("a", 0, 50), ("b", 20, 70)], "aab22bb..."),
    ],
)
def test_bars_are_exact(runs: list[tuple[str, float, float]], line: str) -> None:
    assert cut([run(*one) for one in runs], window()) == line


def test_a_run_that_goes_on_ends_now() -> None:
    assert cut([run("a", 30, None)], window(), now=55) == "...aaa...."
    assert cut([run("a", 30, None)], window(), now=61) == "...aaaa..."
    assert cut([run("a", 30, None)], window(), now=30) == "...a......"


@st.composite
def histories(draw: st.DrawFn) -> list[RunRow]:
    """The runs of one worker, one after the other."""
    runs: list[RunRow] = []
    at = draw(st.integers(-900, 600)) / 10
    for index in range(draw(st.integers(0, 20))):
        begin = at + draw(st.sampled_from([0, 0, 0.1, 3, 17, 60]))
        at = begin + draw(st.sampled_from([0, 0.1, 0.5, 4, 10, 33, 120]))
        runs.append(run(f"r{index}", begin, at))
    return runs


def test_a_moment_at_the_border_of_a_cell_is_in_the_cell_that_begins_there() -> None:
    window = Window(0, 0.1, 100)
    assert [window.cell(n / 10) for n in range(100)] == list(range(100))


def test_a_run_that_took_no_time_is_seen_where_the_window_begins() -> None:
    assert Window(int(AT), 1.0, 10).shows(run("a", 0, 0), AT + 5)


@given(histories(), st.sampled_from(SCALES), st.integers(1, 60), st.integers(0, 900))
def test_every_run_in_the_window_has_a_cell_and_no_other_has(
    runs: list[RunRow], step: float, cells: int, now: int
) -> None:
    seen = Window(0, step, cells).ending(AT + now)
    found = bars(runs, seen, AT + now)
    shown = {one.id for bar in found for one in bar.runs}
    assert shown == {one.id for one in runs if seen.shows(one, AT + now)}
    taken = [cell for bar in found for cell in range(bar.first, bar.last + 1)]
    assert taken == sorted(set(taken))
    assert all(0 <= cell < cells for cell in taken)
    assert all(bar.first == bar.last for bar in found if len(bar.runs) > 1)


@given(histories(), st.sampled_from(SCALES))
def test_a_bar_stands_where_its_run_was(runs: list[RunRow], step: float) -> None:
    seen = fitting(AT - 100, AT + 3000, 5000)
    seen = Window(int((AT - 100) / step), step, 200)
    for bar in bars(runs, seen, AT + 1e5):
        for one in bar.runs:
            assert seen.cell(begin_of(one)) <= bar.first
            assert bar.last <= max(seen.cell(end_of(one, AT + 1e5)), bar.first)


# -- the window ------------------------------------------------------------------------------


@given(st.integers(0, 10**7), st.integers(0, 10**6), st.integers(1, 300))
def test_a_fitting_window_has_all_of_it_and_no_closer_one_has(
    begin: int, length: int, cells: int
) -> None:
    start, end = AT + begin / 10, AT + (begin + length) / 10
    seen = fitting(start, end, cells)
    if seen.step < SCALES[-1]:
        assert 0 <= seen.cell(start) <= seen.cell(end) < cells
    closer = [step for step in SCALES if step < seen.step]
    for step in closer[-1:]:
        assert Window(0, step, cells).cell(end) - Window(0, step, cells).cell(start) >= cells


@given(
    st.sampled_from(SCALES), st.integers(0, 10**6), st.integers(2, 300), st.sampled_from([1, -1])
)
def test_what_one_looks_at_stays_where_it_is_while_one_zooms(
    step: float, at: int, cells: int, by: int
) -> None:
    around = AT + at / 10
    seen = Window(0, step, cells).ending(around, cells // 2)
    closer = seen.scaled(by, around)
    assert closer.cell(around) == seen.cell(around)
    assert (closer.step - step) * by <= 0


@given(st.sampled_from(SCALES), st.integers(0, 10**6), st.integers(1, 200))
def test_a_window_that_ends_now_moves_by_whole_cells(step: float, at: int, cells: int) -> None:
    seen = Window(0, step, cells).ending(AT + at / 10, 1)
    assert seen.cell(AT + at / 10) == cells - 2
    assert seen.moved(3).cell(seen.start) == -3
    assert seen.cell(seen.start) == 0


# -- shares ----------------------------------------------------------------------------------


def test_the_busy_share_counts_what_has_passed_once() -> None:
    seen = window(10.0, 10)
    assert busy([], seen, AT + 100) == 0
    assert busy([run("a", 0, 25), run("b", 50, 75)], seen, AT + 100) == 0.5
    assert busy([run("a", -40, 25), run("b", 75, 900)], seen, AT + 2000) == 0.5
    assert busy([run("a", 0, None)], seen, AT + 50) == 1
    assert busy([run("a", 25, None)], seen, AT + 50) == 0.5
    assert busy([run("a", 0, 60), run("b", 20, 50)], seen, AT + 100) == 0.6
    assert busy([run("a", 0, 60)], seen, AT - 5) == 0


def test_the_busy_share_is_of_the_time_in_which_the_worker_was_there() -> None:
    seen = window(10, 10)
    runs = [run("a", 40, 60)]
    assert busy(runs, seen, AT + 80, (AT + 40, inf)) == 0.5
    assert busy(runs, seen, AT + 80, (AT + 20, AT + 60)) == 0.5
    assert busy(runs, seen, AT + 80, (AT - 500, inf)) == 0.25, "no more than what is seen"
    assert busy(runs, seen, AT + 80, (AT + 200, inf)) == 0


def test_a_worker_was_there_from_its_first_run_or_start_to_its_last_sign() -> None:
    runs = [
        run("a", 10, 20, "again"),
        run("b", 30, 40, "gone"),
        run("c", 50, None, "unknown"),
        run("d", 60, 70, "forgotten"),
    ]
    workers = {
        "again": known("again", 25),
        "gone": known("gone", 5, alive=False, beat_at=START + timedelta(seconds=45)),
        "idle": known("idle", 0),
    }
    assert stays(runs, workers) == {
        "again": (AT + 10, inf),
        "gone": (AT + 5, AT + 45),
        "unknown": (AT + 50, inf),
        "forgotten": (AT + 60, AT + 70),
    }


# -- the axis --------------------------------------------------------------------------------


def test_times_are_round_on_the_wall() -> None:
    seen = Window(int(AT / 60), 60.0, 60)
    assert [(t.cell, t.label) for t in ticks(seen, ZURICH)] == [
        (0, "11:00"), (10, "11:10"), (20, "11:20"), (30, "11:30"), (40, "11:40"), (50, "11:50"),
    ]  # fmt: skip
    seconds = Window(int(AT / 0.5), 0.5, 60)
    assert [t.label for t in ticks(seconds, UTC)] == [
        "10:00:00", "10:00:10", "10:00:20",
    ]  # fmt: skip
    india = ticks(Window(int(AT / 1800), 1800.0, 48), ZoneInfo("Asia/Kolkata"))
    assert [t.label for t in india][:3] == ["18:00", "03-15", "06:00"]


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        # 02:00 is left out: it is 03:00 then.
        ((2026, 3, 28, 21), [(0, "22:00"), (12, "03-29"), (30, "04:00"), (42, "06:00")]),
        # 02:00 is there twice.
        (
            (2026, 10, 24, 20),
            [(0, "22:00"), (12, "10-25"), (24, "02:00"), (30, "02:00"), (42, "04:00")],
        ),
    ],
)
def test_the_night_in_which_the_clocks_are_set_is_told_as_the_wall_tells_it(
    day: tuple[int, int, int, int], expected: list[tuple[int, str]]
) -> None:
    start = datetime(*day, tzinfo=UTC).timestamp()
    found = [(t.cell, t.label) for t in ticks(Window(int(start / 600), 600.0, 54), ZURICH)]
    assert found == expected


@given(st.sampled_from(SCALES), st.integers(0, 10**8), st.integers(1, 250))
def test_labels_never_touch(step: float, at: int, cells: int) -> None:
    seen = Window(0, step, cells).ending(AT + at)
    found = ticks(seen, ZURICH)
    assert len(found) <= cells
    for one, other in pairwise(found):
        assert one.cell + len(one.label) < other.cell


# -- lanes -----------------------------------------------------------------------------------


def test_each_worker_that_ran_has_a_lane_in_the_order_of_people() -> None:
    runs = [
        run("a", 0, 5, "codex-10"),
        run("b", 0, 5, "codex-2"),
        run("c", 90, 95, "codex-2"),
        run("d", 20, 25, "codex-2"),
        run("e", 200, 300, "gemini-1"),
    ]
    found = lanes(runs, window(), AT + 1000)
    assert [(lane.worker_id, [one.id for one in lane.runs]) for lane in found] == [
        ("codex-2", ["b", "d", "c"]),
        ("codex-10", ["a"]),
    ]


def test_neighbours_and_the_nearest() -> None:
    lane = Lane("codex-1", (run("a", 0, 5), run("b", 20, 40), run("c", 90, None)))
    assert [one and one.id for one in (neighbour(lane, "b", 1), neighbour(lane, "b", -1))] == [
        "c", "a",
    ]  # fmt: skip
    assert neighbour(lane, "c", 1) is None
    assert neighbour(lane, "nobody", 1) is None
    assert [nearest(lane, AT + at, AT + 100).id for at in (-9, 11, 14, 30, 66, 70)] == [
        "a", "a", "b", "b", "c", "c",
    ]  # fmt: skip
