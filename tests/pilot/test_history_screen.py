"""The history of runs under the fingers: every key of the screen, and what it does with trouble."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from support.desk import Desk, desk
from support.runs import ended_run, run
from support.screens import FakeEngine, FakeQueries, busy

from engine.errors import StorageError
from engine.model import RunOutcome
from engine.views import Order
from tui.actions.model import Target
from tui.actions.table import ACTIONS
from tui.screens.choosing import Showing
from tui.screens.history import HistoryScreen
from tui.screens.main import MainScreen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from engine.views import RunRow

LEAVE = {"quit", "back"}

ERROR = "exit code 1: 4 errors in src/api/routes.py"


def past() -> list[RunRow]:
    """Return runs as they began: yesterday's, then today's, one that goes on."""
    return [
        ended_run("r1", "spec:part-1", 40_000, 11, worker_id="gemini-1", agent="gemini"),
        ended_run("r2", "lint:types", 900, 61, RunOutcome.FAILED, error=ERROR, exit_code=1),
        ended_run("r3", "lint:types", 700, 500, RunOutcome.TIMED_OUT, attempt=2),
        ended_run("r4", "impl:T-001", 300, 7, worker_id="codex-2", result={"exitCode": 0}),
        run("r5", "tests:race", 41, worker_id="codex-1"),
    ]


@asynccontextmanager
async def history(
    task_id: str | None = None,
    *,
    runs: list[RunRow] | None = None,
    size: tuple[int, int] = (120, 40),
    watching: bool = False,
    queries: FakeQueries | None = None,
) -> AsyncIterator[tuple[Desk, HistoryScreen]]:
    queries = queries or busy()
    queries.every_run = past() if runs is None else runs
    async with desk(engine=FakeEngine(queries), size=size, watching=watching) as at:
        at.app.open(Target("history", task_id))
        await at.settle()
        screen = at.app.screen
        assert isinstance(screen, HistoryScreen)
        yield at, screen


def shown(screen: HistoryScreen) -> list[str]:
    rows = [screen.rows._row(index) for index in range(screen.rows.total)]
    return [row.id for row in rows if row is not None]


# -- what is shown ---------------------------------------------------------------------------


async def test_h_shows_all_runs_newest_first() -> None:
    queries = busy()
    queries.every_run = past()
    async with desk(queries) as at:
        await at.press("h")
        screen = at.app.screen
        assert isinstance(screen, HistoryScreen)
        assert shown(screen) == ["r5", "r4", "r3", "r2", "r1"]
        assert "5 runs" in at.lines[0]


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_a_row_tells_how_the_run_went(size: tuple[int, int]) -> None:
    async with history(size=size) as (at, _screen):
        row = next(line for line in at.lines if "lint:types" in line and "failed" in line)
        assert "✗" in row
        assert "exit code 1" in row
        assert "1:01" in row
        row = next(line for line in at.lines if "tests:race" in line)
        assert "running" in row
        assert "41s" in row


async def test_a_run_of_another_day_says_which() -> None:
    runs = [ended_run("r1", "old", 86_400 * 2, 5), ended_run("r2", "older", 86_400 * 400, 5)]
    async with history(runs=runs) as (at, _screen):
        assert "12 Mar 10:12" in at.screen
        assert "2025-02-07" in at.screen


async def test_the_run_under_the_cursor_is_told_in_full() -> None:
    error = "first of many words " * 12 + "and the last"
    runs = [ended_run("r2", "lint:types", 900, 61, RunOutcome.FAILED, error=error, exit_code=1)]
    async with history(runs=runs) as (at, screen):
        text = "\n".join("".join(cell for cell, _ in line) for line in screen.about.lines)
        assert "and the last" in text
        assert "exit code 1" in text
        assert "run         r2" in text
        assert "and the last" in at.screen


async def test_what_an_agent_printed_cannot_act_on_the_terminal() -> None:
    bad = "\x1b]52;c;aGk=\x07\x9b2J[red]\u202e"
    runs = [
        ended_run("r2", f"t{bad}", 9, 1, RunOutcome.FAILED, error=bad, result={"last": bad},
                  worker_id=f"w{bad}", agent=f"a{bad}"),
    ]  # fmt: skip
    async with history(runs=runs) as (at, _screen):
        assert all(line.isprintable() for line in at.lines)
        assert "[red]" in at.screen


async def test_without_runs_it_says_what_would_be_here() -> None:
    async with history(runs=[]) as (at, _screen):
        assert "no run yet" in at.screen


async def test_new_runs_appear_at_the_top_while_the_cursor_stays_on_its_run() -> None:
    async with history() as (at, screen):
        await at.press("j", "j")
        assert screen.rows.current is not None
        assert screen.rows.current.id == "r3"
        at.engine.queries.every_run.append(run("r6", "new:task", 1))
        await at.change()
        assert "new:task" in at.screen
        assert screen.rows.current.id == "r3"
        assert screen.rows.cursor == 3


async def test_a_million_runs_are_read_in_windows() -> None:
    runs = [ended_run(f"r{n}", "t", 100_000 - n, 1) for n in range(5_000)]
    async with history(runs=runs) as (at, screen):
        for key in ("G", "pageup", "g", "pagedown"):
            await at.press(key)
            assert screen.rows.current is not None
            assert len(screen.rows._rows) < 200
        await at.press("G")
        assert screen.rows.current is not None
        assert screen.rows.current.id == "r0"
        assert "5,000 of 5,000" in at.screen


# -- filter ----------------------------------------------------------------------------------


async def test_slash_filters_while_one_types_and_enter_keeps_it() -> None:
    async with history() as (at, screen):
        await at.press("/", *"outcome:failed")
        assert shown(screen) == ["r2"]
        await at.press("enter")
        assert not screen.filter.display
        assert at.app.focused is screen.rows
        assert "Runs  outcome:failed" in at.screen
        assert "1 run matches" in at.lines[0]


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        ("task:lint:types", ["r3", "r2"]),
        ("worker:codex-2", ["r4"]),
        ("agent:gemini", ["r1"]),
        ("outcome:failed,timed-out", ["r3", "r2"]),
        ("after:10m", ["r5", "r4"]),
        ("took:>60s", ["r3", "r2"]),
        ("!agent:codex", ["r1"]),
        ("/^lint/", ["r3", "r2"]),
    ],
)
async def test_runs_are_filtered_by(words: str, ids: list[str]) -> None:
    async with history() as (at, screen):
        await at.press("/", *words, "enter")
        assert shown(screen) == ids


async def test_a_filter_that_cannot_be_read_yet_is_explained_and_does_not_count() -> None:
    async with history() as (at, screen):
        await at.press("/", *"lint outcome:bogus")
        assert shown(screen) == ["r3", "r2"]
        assert "no outcome 'bogus'" in at.screen
        await at.press("enter")
        assert screen.filter.display
        await at.press("escape")
        assert len(shown(screen)) == 5
        assert "no outcome" not in at.screen


async def test_a_filter_without_matches_says_so_and_escape_shows_the_others() -> None:
    async with history() as (at, screen):
        await at.press("/", *"xyzzy", "enter")
        assert "no run matches xyzzy" in at.screen
        await at.press("escape")
        assert len(shown(screen)) == 5
        assert at.shows(HistoryScreen)


async def test_a_click_elsewhere_closes_the_filters_line_and_keeps_what_holds() -> None:
    async with history() as (at, screen):
        await at.press("/", *"lint")
        await at.pilot.click("#history-list", offset=(5, 2))
        await at.settle()
        assert not screen.filter.display
        assert shown(screen) == ["r3", "r2"]


async def test_what_could_not_be_read_is_dropped_when_the_line_closes() -> None:
    async with history() as (at, screen):
        await at.press("/", *"lint outcome:bogus")
        await at.pilot.click("#history-list", offset=(5, 2))
        await at.settle()
        assert not screen.filter.display
        assert "no outcome" not in at.screen
        assert shown(screen) == ["r3", "r2"]
        await at.press("/")
        assert screen.filter.input.value == "lint"
        await at.press(*" took:>100s")
        assert shown(screen) == ["r3"]


async def test_the_history_of_a_task_begins_with_its_runs() -> None:
    async with history("lint:types") as (at, screen):
        assert shown(screen) == ["r3", "r2"]
        assert "task:lint:types" in at.screen
        await at.press("/", *" outcome:failed", "enter")
        assert shown(screen) == ["r2"]
        await at.press("escape")
        assert shown(screen) == ["r3", "r2"]
        await at.press("escape")
        assert at.shows(MainScreen)


async def test_the_filter_of_a_task_can_be_taken_away() -> None:
    async with history("lint:types") as (at, screen):
        await at.press("/", *["backspace"] * 15, "enter")
        assert len(shown(screen)) == 5


async def test_a_task_id_that_looks_like_a_filter_is_still_one_task() -> None:
    odd = 'task:"a b" !x'
    async with history(odd, runs=[*past(), ended_run("r9", odd, 5, 1)]) as (_at, screen):
        assert shown(screen) == ["r9"]


# -- sort and columns ------------------------------------------------------------------------


async def test_o_sorts_by_one_column_after_the_other_and_shift_o_turns_it_round() -> None:
    async with history() as (at, screen):
        await at.press("o")
        assert screen.rows.order == Order("started")
        assert shown(screen)[0] == "r1"
        assert "started▲" in at.screen
        await at.press("O")
        assert shown(screen)[0] == "r5"
        assert "started▼" in at.screen
        await at.press("o")
        assert shown(screen)[0] == "r4"
        for _ in range(7):
            await at.press("o")
        assert screen.rows.order == Order()
        assert shown(screen) == ["r5", "r4", "r3", "r2", "r1"]
        await at.press("O")
        assert shown(screen) == ["r1", "r2", "r3", "r4", "r5"]


async def test_a_click_on_a_title_sorts_by_it_and_again_turns_it_round() -> None:
    async with history() as (at, screen):
        header = next(line for line in at.lines if "outcome" in line)
        x = header.index("took") - header.index("started") + 4
        for first in ("r4", "r3"):
            await at.pilot.click("#history-list", offset=(x, 0))
            await at.settle()
            assert screen.rows.order.column == "took"
            assert shown(screen)[0] == first


async def test_v_chooses_the_columns() -> None:
    async with history() as (at, screen):
        await at.press("v")
        assert at.shows(Showing)
        await at.press("space", "enter")
        assert at.app.screen is screen
        assert screen.rows.hidden == {"agent"}
        header = next(line for line in at.lines if "outcome" in line)
        assert "agent" not in header


async def test_order_and_columns_are_as_they_were_left() -> None:
    async with history() as (at, screen):
        await at.press("o", "o", "v", "space", "enter", "escape")
        assert at.shows(MainScreen)
        await at.press("h")
        again = at.app.screen
        assert isinstance(again, HistoryScreen)
        assert again is not screen
        assert again.rows.order == Order("task")
        assert again.rows.hidden == {"agent"}


async def test_an_order_that_nothing_stands_for_is_forgotten() -> None:
    async with desk(engine=FakeEngine(busy())) as at:
        at.app.preferences.set_order("history", Order("colour"))
        await at.press("h")
        assert isinstance(at.app.screen, HistoryScreen)
        assert at.app.screen.rows.order == Order()


# -- going elsewhere -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("enter", Target("log", "lint:types", "r3")),
        ("l", Target("log", "lint:types", "r3")),
        ("t", Target("transcript", "lint:types", "r3")),
        ("w", Target("worker", worker_id="codex-1")),
    ],
)
async def test_a_key_opens_what_belongs_to_the_run(
    key: str, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Target] = []
    async with history() as (at, _screen):
        monkeypatch.setattr(at.app, "open", opened.append)
        await at.press("j", "j", key)
        assert opened == [target]


async def test_a_double_click_opens_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Target] = []
    async with history() as (at, _screen):
        monkeypatch.setattr(at.app, "open", opened.append)
        await at.pilot.click("#history-list", offset=(5, 2), times=2)
        await at.settle()
        assert opened == [Target("log", "impl:T-001", "r4")]


async def test_where_no_run_is_enter_says_so() -> None:
    async with history(runs=[]) as (at, screen):
        await at.press("enter", "l")
        assert at.app.screen is screen
        assert len(at.toasts) >= 1


async def test_escape_leaves_zoom_then_the_screen() -> None:
    async with history() as (at, screen):
        await at.press("z")
        assert "▌1 Runs" in at.lines[1]
        await at.press("escape")
        assert "▌1 Runs" not in at.lines[1]
        assert at.app.screen is screen
        await at.press("escape")
        assert at.shows(MainScreen)


async def test_number_keys_and_tab_choose_the_pane() -> None:
    async with history() as (at, screen):
        for key, place in (("2", 1), ("1", 0), ("tab", 1), ("tab", 0), ("shift+tab", 1)):
            await at.press(key)
            assert screen.current is screen.panes[place]
            assert screen.focused is (screen.rows, screen.about)[place]


async def test_below_100_columns_the_panes_are_tabs() -> None:
    async with history(size=(80, 24)) as (at, screen):
        assert "▌1 Runs 5" in at.lines[1]
        await at.press("j", "j", "2")
        assert "▌2 Run #2" in at.lines[1]
        assert "timed out" in at.screen
        await at.pilot.click("#tabs", offset=(3, 0))
        await at.settle()
        assert screen.current is screen.panes[0]


async def test_enter_on_a_run_of_an_agent_opens_its_transcript(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = [ended_run("r1", "impl:T-001", 300, 7, kind="agent")]
    opened: list[Target] = []
    async with history(runs=runs) as (at, _screen):
        assert "⏎ transcript" in at.footer
        monkeypatch.setattr(at.app, "open", opened.append)
        await at.press("enter")
    assert opened == [Target("transcript", "impl:T-001", "r1")]


async def test_p_holds_claims_from_here_too() -> None:
    async with history() as (at, _screen):
        await at.press("p")
        assert len(at.engine.commands) == 1


async def test_no_key_of_the_table_breaks_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [key for action in ACTIONS for key in action.keys if action.name not in LEAVE]
    async with history() as (at, screen):
        monkeypatch.setattr(at.app, "open", lambda _target: None)
        for key in keys:
            await at.press(key)
            while at.app.screen is not screen:
                await at.press("escape")
        assert at.app.is_running


# -- trouble ---------------------------------------------------------------------------------


async def test_a_query_that_fails_shows_in_the_pane_and_heals() -> None:
    queries = busy()
    queries.broken["runs"] = RuntimeError("no such column: \x1b[31mx")
    async with history(queries=queries) as (at, screen):
        assert "no such column: x" in at.screen
        queries.broken.clear()
        at.app.tick()
        await at.settle()
        assert len(shown(screen)) == 5
        assert "no such column" not in at.screen


async def test_a_locked_store_keeps_the_rows_and_says_why_they_are_old() -> None:
    async with history() as (at, screen):
        at.engine.queries.broken["count_runs"] = StorageError("the database is locked")
        at.engine.change()
        await at.pilot.pause()
        await at.settle()
        assert len(shown(screen)) == 5
        assert "the database is locked" in at.lines[0]
        at.engine.queries.broken.clear()
        at.app.tick()
        await at.settle()
        assert "locked" not in at.screen


async def test_nothing_is_read_while_nothing_changes() -> None:
    async with history() as (at, _screen):
        before = at.engine.queries.asked.count("runs")
        at.app.tick()
        at.app.ring(urgent=True)
        await at.settle()
        assert at.engine.queries.asked.count("runs") == before


async def test_a_running_run_ages_on_screen() -> None:
    async with history() as (at, _screen):
        await at.engine.clock.sleep(60)
        at.app.tick()
        await at.settle()
        assert "1:41" in at.screen
