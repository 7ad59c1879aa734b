"""The timeline under the fingers: what is shown, every key, the mouse, and what may go wrong."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from support.desk import Desk, desk
from support.patience import PATIENCE
from support.screens import NOW, FakeQueries, ago, ended, running, worker

from engine.commands import Kill, Release, Retry
from engine.model import RunOutcome, State, WorkerStatus
from engine.views import RunRow
from tui.screens.detail import DetailScreen
from tui.screens.log import LogScreen
from tui.screens.main import MainScreen
from tui.screens.timeline import TimelineScreen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tui.panes.timeline import TimelineCanvas


def run(
    task_id: str,
    worker_id: str,
    begin: float,
    end: float | None,
    outcome: RunOutcome = RunOutcome.DONE,
    **more: Any,
) -> RunRow:
    """Return a run that began and ended so many seconds ago; one without end goes on."""
    row = RunRow(
        id=f"run-{task_id}",
        task_id=task_id,
        agent=worker_id.rsplit("-", 1)[0],
        worker_id=worker_id,
        attempt=1,
        outcome=None if end is None else outcome,
        claimed_at=ago(begin),
        started_at=ago(begin),
        ended_at=None if end is None else ago(end),
        exit_code=None,
        error=None,
        result=None,
    )
    return replace(row, **more)


def fleet() -> FakeQueries:
    """Three workers over the last quarter of an hour; one run goes on, one failed."""
    impl = running("impl", "claude-1", 120)
    lint = ended("lint", State.FAILED, "codex-1", 100, error="exit code 1: it broke")
    return FakeQueries(
        all_tasks=[impl, lint, *(ended(t, State.DONE, "codex-1", 9) for t in ("a", "b", "docs"))],
        all_workers=[
            worker("claude-1", impl),
            worker("codex-1"),
            worker("codex-10", alive=False, status=WorkerStatus.STOPPED, beat_at=ago(600)),
        ],
        every_run=[
            run("a", "codex-1", 850, 700),
            run("b", "codex-10", 840, 650),
            run("docs", "claude-1", 800, 400),
            run("lint", "codex-1", 200, 100, RunOutcome.FAILED, error="exit code 1: it broke"),
            run("impl", "claude-1", 120, None),
        ],
    )


@asynccontextmanager
async def timeline(
    queries: FakeQueries | None = None,
    *,
    size: tuple[int, int] = (120, 40),
    watching: bool = False,
) -> AsyncIterator[tuple[Desk, TimelineScreen, TimelineCanvas]]:
    async with desk(queries or fleet(), size=size, watching=watching) as at:
        await at.press("T")
        screen = at.app.screen
        assert isinstance(screen, TimelineScreen)
        await settled(at, screen)
        yield at, screen, screen.canvas


async def settled(at: Desk, screen: TimelineScreen) -> None:
    screen.post_message(screen.Wanted())
    await at.settle()
    async with asyncio.timeout(PATIENCE):
        while not screen.canvas.given:
            await at.pilot.pause(0.01)
    await at.settle()


def lane(at: Desk, worker_id: str) -> str:
    return next(row for row in at.lines if row[2:].startswith(f"{worker_id} "))


def chosen(screen: TimelineScreen) -> str | None:
    found = screen.selection().run
    return found.task_id if found is not None else None


# -- what is shown ---------------------------------------------------------------------------


async def test_each_worker_that_ran_has_a_line_with_bars_and_gaps() -> None:
    async with timeline() as (at, _, _):
        assert "3 workers, busy" in at.lines[0]
        assert "to now" in at.lines[0]
        claude, codex, tenth = (lane(at, name) for name in ("claude-1", "codex-1", "codex-10"))
        assert at.lines.index(codex) < at.lines.index(tenth)
        assert "✓ docs" in claude
        assert "● impl" in claude
        assert claude.index("✓") < claude.rindex("─") < claude.index("●")
        assert "✗ lint" in codex
        # A worker that is gone has no line of life after its last beat.
        assert tenth.rstrip("│ ").endswith("─")
        assert len(tenth.rstrip("│ ")) < len(codex.rstrip("│ "))


async def test_the_foot_tells_the_run_under_the_cursor() -> None:
    async with timeline() as (at, screen, _):
        assert chosen(screen) == "impl"
        assert "● impl #1 · running · " in at.screen
        await at.press("j")
        assert "✗ lint #1 · failed" in at.screen
        assert "1:40 · exit code 1: it broke" in at.screen


async def test_the_busy_share_of_each_worker_is_shown() -> None:
    async with timeline() as (at, _, canvas):
        assert canvas.window.start < ago(900).timestamp(), "nobody was there that early"
        assert f"{520 / 900:.0%}" in lane(at, "claude-1")
        assert f"{250 / 900:.0%}" in lane(at, "codex-1")
        assert f"{190 / 300:.0%}" in lane(at, "codex-10"), "it came 900 s ago and left 600 s ago"
        assert f"busy {(520 / 900 + 250 / 900 + 190 / 300) / 3:.0%}" in at.lines[0]


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_colours_and_signs_are_explained_where_there_is_room(size: tuple[int, int]) -> None:
    async with timeline(size=size) as (at, _, _):
        legend = at.lines[-3]
        assert "● running" in legend.replace("  ", " ")
        assert "✗  failed" in legend
        assert "─  idle" in legend or size[0] < 100


async def test_without_room_the_lines_of_the_workers_go_before_the_legend() -> None:
    runs = [run(f"t{n}", f"codex-{n}", 100 + n, 50) for n in range(40)]
    async with timeline(FakeQueries(every_run=runs), size=(120, 24)) as (at, _, _):
        assert "failed" not in at.screen


async def test_several_runs_in_one_cell_are_counted() -> None:
    quick = [run(f"q{n}", "codex-1", 20_000 - n, 20_000 - n - 0.5) for n in range(7)]
    many = [run(f"m{n}", "codex-2", 9_000 - n, 9_000 - n - 0.5) for n in range(12)]
    async with timeline(FakeQueries(every_run=[*many, *quick])) as (at, _, canvas):
        assert canvas.window.step >= 60
        assert "7" in lane(at, "codex-1")[18:]
        assert "+" in lane(at, "codex-2")[18:]


async def test_without_a_run_it_says_what_would_begin_one() -> None:
    async with timeline(FakeQueries()) as (at, screen, _):
        assert "no run yet: a bar begins when a worker claims a task" in at.screen
        await at.press("j", "k", "left", "right", "g", "G", "plus", "minus", "pagedown", "pageup")
        assert screen.selection().opens is None


async def test_work_of_long_ago_is_shown_rather_than_an_empty_present() -> None:
    day = 86_400
    queries = FakeQueries(every_run=[run("old", "codex-1", 9 * day + 900, 9 * day)])
    async with timeline(queries) as (at, screen, _):
        assert "✓ old" in at.screen
        assert not screen.follows
        await at.press("G")
        assert "no run" in at.screen


async def test_what_an_agent_named_so_cannot_act_on_the_terminal() -> None:
    queries = FakeQueries(
        every_run=[
            run("a\x1b]0;x\x07[b]", "codex-1", 90, 10, RunOutcome.FAILED, error="\x1b[2Jboom\x9b")
        ]
    )
    async with timeline(queries) as (at, _, _):
        assert "✗ a[b]" in at.screen
        assert "boom" in at.screen
        assert "\x1b" not in at.screen


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_every_size_shows_all_workers_and_the_time(size: tuple[int, int]) -> None:
    async with timeline(size=size) as (at, _, _):
        assert all(name in at.screen for name in ("claude-1", "codex-1", "codex-10"))
        assert "▾" in at.screen
        assert "#1 · running" in at.screen
        assert "●" in lane(at, "claude-1")
        assert "✓ docs" in lane(at, "claude-1")


# -- time ------------------------------------------------------------------------------------


async def test_it_follows_the_present() -> None:
    async with timeline() as (at, screen, canvas):
        before = canvas.window
        await at.engine.clock.sleep(60)
        screen.tick()
        await at.settle()
        assert canvas.window.first - before.first == round(60 / before.step)
        assert canvas.window.cell(NOW.timestamp() + 60) == canvas.window.cells - 2
        assert "running" in at.screen


async def test_a_tick_reads_nothing_and_paints_only_what_changed() -> None:
    async with timeline() as (at, screen, canvas):
        asked = list(at.engine.queries.asked)
        painted: list[int] = []
        rendered = canvas.render_line

        def render_line(y: int) -> Any:
            painted.append(y)
            return rendered(y)

        canvas.render_line = render_line  # type: ignore[method-assign]
        screen.tick()
        await at.settle()
        assert painted == []
        assert at.engine.queries.asked == asked


async def test_a_run_that_ends_is_seen_at_once() -> None:
    async with timeline() as (at, _, _):
        runs = at.engine.queries.every_run
        runs[-1] = replace(runs[-1], outcome=RunOutcome.DONE, ended_at=NOW)
        await at.change()
        assert "✓ impl" in lane(at, "claude-1")


async def test_very_many_runs_are_cut_and_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.screens.timeline.LIMIT", 3)
    async with timeline() as (at, _, _):
        assert "the newest 3 runs" in at.lines[0]


async def test_a_large_fleet_rests_between_two_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.screens.timeline._LARGE", 3)
    async with timeline() as (at, screen, _):
        reads = at.engine.queries.asked.count("spans")
        at.app.ring(changed=True)
        await at.settle()
        assert at.engine.queries.asked.count("spans") == reads
        await at.engine.clock.sleep(3)
        screen.tick()
        await at.settle()
        assert at.engine.queries.asked.count("spans") == reads + 1


async def test_an_error_is_shown_and_the_screen_lives_on() -> None:
    queries = fleet()
    queries.broken = {"spans": RuntimeError("disk \x1b[31mon fire")}
    async with desk(queries) as at:
        await at.press("T")
        await at.settle()
        assert "disk on fire" in at.screen
        queries.broken = {}
        at.app.screen.tick()  # type: ignore[attr-defined]  # a PanedScreen
        await at.settle()
        assert "● impl" in at.screen
        queries.broken = {"spans": RuntimeError("again")}
        await at.change()
        assert "● impl" in at.screen
        assert "again" in at.screen


# -- moving ----------------------------------------------------------------------------------


async def test_j_and_k_go_to_what_the_next_worker_did_then() -> None:
    async with timeline() as (at, screen, _):
        await at.press("j")
        assert chosen(screen) == "lint"
        await at.press("j")
        assert chosen(screen) == "b"
        await at.press("j")
        assert chosen(screen) == "b"
        await at.press("k")
        assert chosen(screen) == "a"
        await at.press("up", "down")
        assert chosen(screen) == "a"
        await at.press("pageup")
        assert chosen(screen) == "docs"
        await at.press("pagedown")
        assert chosen(screen) == "b"


async def test_left_and_right_go_through_the_runs_of_a_worker() -> None:
    async with timeline() as (at, screen, _):
        await at.press("left")
        assert chosen(screen) == "docs"
        assert screen.follows
        await at.press("right")
        assert chosen(screen) == "impl"
        await at.press("right")
        assert chosen(screen) == "impl"
        assert at.toasts == ["claude-1 has no later run"]
        await at.press("left", "left")
        assert at.toasts[-1] == "claude-1 has no earlier run"


def long_fleet() -> FakeQueries:
    """A worker with an hourly run for a week."""
    hour = 3600
    return FakeQueries(
        every_run=[
            run(f"t{n:03d}", "codex-1", n * hour + 1800, n * hour + 900) for n in range(167, 0, -1)
        ],
    )


async def test_a_run_outside_the_window_is_found_and_the_present_is_left() -> None:
    async with timeline(long_fleet()) as (at, screen, canvas):
        first = canvas.lanes[0].runs[0]
        number = int(first.task_id[1:])
        canvas.choose(first)
        await at.settle()
        assert "to now" in at.lines[0]
        await at.press("left")
        assert chosen(screen) == f"t{number + 1:03d}"
        assert "to now" not in at.lines[0]
        assert "G follows again" in at.lines[0]
        assert "✓" in lane(at, "codex-1")
        # What is known reaches only so far: beyond it the former run is looked for.
        canvas.choose(canvas.known[0])
        await at.settle()
        before = number_of(chosen(screen))
        await at.press("left", "left", "left")
        assert number_of(chosen(screen)) == before + 3
        canvas.choose(canvas.known[-1])
        await at.settle()
        before = number_of(chosen(screen))
        await at.press("right", "right", "right")
        assert number_of(chosen(screen)) == max(1, before - 3)


def number_of(task_id: str | None) -> int:
    assert task_id is not None
    return int(task_id[1:])


async def test_g_goes_to_the_first_run_of_all_and_capital_g_follows_again() -> None:
    async with timeline(long_fleet()) as (at, screen, canvas):
        await at.press("g")
        await at.settle()
        assert chosen(screen) == "t167"
        assert "to now" not in at.lines[0]
        await at.press("left")
        assert at.toasts == ["codex-1 has no earlier run"]
        await at.press("G")
        await at.settle()
        assert chosen(screen) == "t001"
        assert "to now" in at.lines[0]
        assert canvas.window.cell(NOW.timestamp()) == canvas.window.cells - 2
        await at.press("home")
        await at.settle()
        assert chosen(screen) == "t167"
        await at.press("right")
        await at.settle()
        assert chosen(screen) == "t166"
        await at.press("end")
        assert "to now" in at.lines[0]


async def test_plus_and_minus_zoom() -> None:
    async with timeline() as (at, screen, canvas):
        step = canvas.window.step
        await at.press("plus")
        assert canvas.window.step < step
        assert screen.follows
        await at.press("minus")
        assert canvas.window.step == step
        assert canvas.window.cell(NOW.timestamp()) == canvas.window.cells - 2
        for _ in range(40):
            canvas.action_scale(1)
        await at.settle()
        assert canvas.window.step == 0.1
        assert "a cell is 0.1 s already" in at.toasts


async def test_one_zooms_out_no_farther_than_all_that_there_is() -> None:
    queries = fleet()
    queries.every_run = [run("old", "codex-1", 90_000, 80_000), *queries.every_run]
    async with timeline(queries) as (at, _, canvas):
        for _ in range(60):
            canvas.action_scale(-1)
        await at.settle()
        assert canvas.window.start <= ago(90_000).timestamp()
        assert canvas.window.end - canvas.window.start < 3 * 90_000
        assert at.toasts[-1] == "all runs that there are can be seen already"


async def test_zooming_keeps_the_run_under_the_cursor_in_view_after_a_pan() -> None:
    async with timeline(long_fleet()) as (at, screen, _):
        await at.press("g", "right", "right")
        await at.settle()
        for _ in range(12):
            await at.press("plus")
            assert chosen(screen) == "t165"


async def test_a_window_without_runs_says_how_to_come_back() -> None:
    async with timeline(long_fleet()) as (at, screen, canvas):
        canvas.dragged(4 * canvas.window.cells * 24, 0)
        await at.settle()
        assert not screen.follows
        assert "no run at that time: G goes to the newest" in at.screen
        await at.press("G")
        await at.settle()
        assert chosen(screen) == "t001"


# -- steering and going elsewhere ------------------------------------------------------------


async def test_keys_steer_the_task_of_the_run() -> None:
    async with timeline() as (at, _, _):
        await at.press("u")
        await at.press("j", "r")
        await at.settle()
        assert at.engine.commands == [Release(("impl",)), Retry(("lint",))]


async def test_kill_shows_its_dry_run_first() -> None:
    async with timeline() as (at, _, _):
        await at.press("K")
        await at.settle()
        assert at.engine.dry_runs == [Kill(("impl",))]
        assert at.engine.commands == []


async def test_the_worker_is_offered_only_for_the_run_that_it_holds() -> None:
    async with timeline() as (at, screen, _):
        holder = screen.selection().worker
        assert holder is not None
        assert holder.id == "claude-1"
        await at.press("left")
        assert screen.selection().worker is None


async def test_watching_steers_nothing() -> None:
    async with timeline(watching=True) as (at, _, _):
        await at.press("u", "K", "c", "r")
        assert at.engine.commands == at.engine.dry_runs == []


async def test_enter_opens_the_task_and_escape_comes_back() -> None:
    async with timeline() as (at, _, _):
        await at.press("j", "enter")
        await at.settle()
        assert at.shows(DetailScreen)
        assert "lint" in at.lines[0]
        await at.press("escape")
        assert at.shows(TimelineScreen)
        await at.press("escape")
        assert at.shows(MainScreen)


async def test_l_shows_the_log_of_the_run() -> None:
    async with timeline() as (at, _, _):
        await at.press("j", "l")
        await at.settle()
        assert at.shows(LogScreen)


async def test_a_run_whose_task_is_gone_is_shown_but_not_steered() -> None:
    queries = FakeQueries(every_run=[run("purged", "codex-1", 90, 10)])
    async with timeline(queries) as (at, screen, _):
        assert "✓ purged" in at.screen
        assert screen.selection().task is None
        await at.press("r")
        assert at.engine.commands == []


# -- the mouse -------------------------------------------------------------------------------


def place_of(at: Desk, words: str) -> tuple[int, int]:
    y = next(n for n, row in enumerate(at.lines) if words in row and "╰" not in row)
    return at.lines[y].index(words), y


async def test_a_click_chooses_a_run_and_a_double_click_opens_its_task() -> None:
    async with timeline() as (at, screen, _):
        await at.pilot.click(offset=place_of(at, "✓ docs"))
        assert chosen(screen) == "docs"
        await at.pilot.click(offset=(60, 30))
        assert chosen(screen) == "docs"
        await at.pilot.click(offset=place_of(at, "✗ lint"), times=2)
        await at.settle()
        assert at.shows(DetailScreen)


async def test_a_drag_pans_and_leaves_the_present() -> None:
    async with timeline() as (at, screen, canvas):
        before = canvas.window
        await at.pilot.mouse_down(canvas, offset=(40, 10))
        await at.pilot.hover(canvas, offset=(60, 10))
        await at.pilot.mouse_up(canvas, offset=(60, 10))
        await at.settle()
        assert canvas.window.first == before.first - 20
        assert not screen.follows


async def test_a_run_that_leaves_the_window_hands_the_cursor_to_the_next_of_its_worker() -> None:
    async with timeline() as (at, screen, canvas):
        await at.press("j", "left")
        assert chosen(screen) == "a"
        canvas.dragged(-round(400 / canvas.window.step), 0)
        await at.settle()
        assert "✓ a" not in lane(at, "codex-1")
        assert chosen(screen) == "lint"
        assert "▌codex-1 " in at.screen


async def test_many_workers_scroll_with_the_cursor_in_view() -> None:
    runs = [run(f"t{n}", f"codex-{n}", 100, 10) for n in range(60)]
    runs[0] = replace(runs[0], claimed_at=ago(50))
    async with timeline(FakeQueries(every_run=runs), size=(80, 24)) as (at, screen, canvas):
        assert chosen(screen) == "t0"
        await at.press(*["j"] * 22)
        assert chosen(screen) == "t22"
        assert "▌codex-22" in at.screen
        await at.press("pagedown", "pagedown", "pagedown")
        assert "▌codex-59" in at.screen
        canvas.dragged(0, 30)
        await at.settle()
        assert "▌codex-" in at.screen
        assert chosen(screen) != "t59"
        assert "worker" in at.lines[3]


async def test_resizing_keeps_the_present_at_the_right() -> None:
    async with timeline() as (at, screen, canvas):
        await at.pilot.resize_terminal(90, 30)
        await settled(at, screen)
        assert canvas.window.cells == canvas.cells_of_time
        assert canvas.window.cell(NOW.timestamp()) == canvas.window.cells - 2
