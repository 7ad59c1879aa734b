"""The graph under the fingers: what is shown, every key, the mouse, and what may go wrong."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from support.desk import Desk, desk
from support.patience import PATIENCE
from support.screens import FakeQueries, ended, running, task, worker

from engine.commands import Cancel, Kill, Release, Retry, Stop
from engine.model import State
from engine.views import CriticalPath
from tui.screens.detail import DetailScreen
from tui.screens.graph import GraphScreen
from tui.screens.main import MainScreen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tui.panes.graph import GraphCanvas


def dag() -> FakeQueries:
    """A plan, two parts of which one runs, a fan of tests, what waits for all, a lone failure."""
    impl = running("impl:b", "claude-1", 30, deps=("plan",))
    return FakeQueries(
        all_tasks=[
            ended("plan", State.DONE, "codex-1", 9),
            ended("impl:a", State.DONE, "codex-1", 9, deps=("plan",)),
            impl,
            *(task(f"test:{n}", deps=("impl:a",)) for n in range(8)),
            task(
                "ship",
                deps=("impl:b", *(f"test:{n}" for n in range(8)), "gone"),
                pending=9,
            ),
            ended("lone", State.FAILED, "codex-2", 3, error="exit code 1"),
        ],
        all_workers=[worker("claude-1", impl), worker("codex-1")],
        path=CriticalPath(("impl:b", "ship"), 90),
    )


@asynccontextmanager
async def graph(
    queries: FakeQueries | None = None,
    *,
    start: str | None = None,
    size: tuple[int, int] = (120, 40),
    watching: bool = False,
) -> AsyncIterator[tuple[Desk, GraphScreen, GraphCanvas]]:
    async with desk(queries or dag(), size=size, watching=watching) as at:
        screen = GraphScreen(at.engine, start, watching=watching)
        await at.app.push_screen(screen)
        await settled(at, screen)
        yield at, screen, screen.canvas


async def settled(at: Desk, screen: GraphScreen) -> None:
    screen.post_message(screen.Wanted())
    await at.settle()
    async with asyncio.timeout(PATIENCE):
        while not screen.canvas.given:
            await at.pilot.pause(0.01)
    await at.settle()


# -- what is shown ---------------------------------------------------------------------------


async def test_d_opens_the_graph_on_the_task_under_the_cursor() -> None:
    async with desk(dag()) as at:
        await at.press("2", "j", "d")
        assert at.shows(GraphScreen)
        screen = at.app.screen
        assert isinstance(screen, GraphScreen)
        await settled(at, screen)
        chosen = screen.selection().task
        assert chosen is not None
        assert chosen.id != "impl:b"
        await at.press("escape")
        assert at.shows(MainScreen)


async def test_states_edges_and_the_critical_path_are_drawn() -> None:
    async with graph() as (at, _, _):
        assert "13 tasks  4 layers  ━ critical path 2 tasks ~1:30" in at.lines[0]
        assert "✓ plan ─" in at.screen
        assert "▌● impl:b" in at.screen
        assert "■ 8 tasks ◌ 8" in at.screen
        assert "✗ lone" in at.screen
        assert "━┄▸ ◦ ship" in at.screen


async def test_without_a_task_it_opens_on_what_runs() -> None:
    async with graph() as (at, screen, canvas):
        assert canvas.chosen == "impl:b"
        assert "impl:b ● running on claude-1 · 1 dep · 1 dependent" in at.screen
        assert screen.selection().worker is not None


async def test_a_task_that_would_be_folded_is_seen_when_one_comes_for_it() -> None:
    async with graph(start="test:5") as (at, _, canvas):
        assert canvas.chosen == "test:5"
        assert "▌◌ test:5" in at.screen


async def test_an_empty_store_says_what_would_fill_the_graph() -> None:
    async with graph(FakeQueries()) as (at, screen, _):
        assert "no tasks yet: S reads a DAG file" in at.screen
        await at.press("j", "k", "left", "right", "g", "G", "space", "pagedown", "v")
        assert screen.selection().opens is None


async def test_only_the_nearest_of_very_many_tasks_are_drawn_and_it_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tui.screens.graph.LIMIT", 3)
    async with graph() as (at, _, _):
        assert "3 nearest of 13" in at.lines[0]


async def test_what_an_agent_named_so_cannot_act_on_the_terminal() -> None:
    queries = FakeQueries(all_tasks=[task("a\x1b]0;x\x07[b]\u202e"), task("b", deps=("gone\x9b",))])
    async with graph(queries) as (at, _, _):
        assert "◌ a[b]" in at.screen
        assert "\x1b" not in at.screen


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_every_size_shows_the_cursor_and_its_facts(size: tuple[int, int]) -> None:
    async with graph(size=size) as (at, screen, _):
        assert screen.as_tree == (size[0] < 100)
        assert "▌● impl:b" in at.screen
        assert "1 dependent" in at.screen
        assert all(len(line) <= size[0] for line in at.lines)


# -- refreshing ------------------------------------------------------------------------------


async def test_states_change_in_place_and_only_structure_lays_out_again() -> None:
    async with graph() as (at, screen, canvas):
        scene, tasks = canvas.scene, at.engine.queries.all_tasks
        at.engine.queries.all_tasks = [
            replace(t, state=State.DONE, claimed_by=None) if t.id == "impl:b" else t for t in tasks
        ]
        await at.change()
        assert canvas.scene is scene
        assert "✓ impl:b" in at.screen
        at.engine.queries.all_tasks = [*tasks, task("more", deps=("ship",))]
        await at.change()
        assert canvas.scene is not scene
        assert "◌ more" in at.screen
        assert canvas.chosen == "impl:b"
        assert screen.selection().opens == "impl:b"


async def test_a_tick_without_a_change_reads_nothing() -> None:
    async with graph() as (at, _, _):
        asked = list(at.engine.queries.asked)
        at.app.screen.tick()  # type: ignore[attr-defined]  # a PanedScreen
        await at.settle()
        assert at.engine.queries.asked == asked


async def test_a_large_graph_rests_between_two_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.screens.graph._LARGE", 5)
    async with graph() as (at, screen, _):
        reads = at.engine.queries.asked.count("graph")
        at.engine.queries.all_tasks[-1] = replace(at.engine.queries.all_tasks[-1], state=State.DONE)
        screen.app.ring(changed=True)  # type: ignore[attr-defined]  # the dashboard
        await at.settle()
        assert at.engine.queries.asked.count("graph") == reads
        await at.engine.clock.sleep(3)
        screen.tick()
        await at.settle()
        assert at.engine.queries.asked.count("graph") == reads + 1
        assert "✓ lone" in at.screen


async def test_when_the_task_under_the_cursor_goes_the_cursor_stays_near() -> None:
    async with graph(start="impl:a") as (at, _, canvas):
        tasks = at.engine.queries.all_tasks
        at.engine.queries.all_tasks = [
            replace(t, deps=tuple(d for d in t.deps if d != "impl:a"))
            for t in tasks
            if t.id != "impl:a"
        ]
        await at.change()
        assert canvas.chosen != "impl:a"
        assert "▌" in at.screen


async def test_an_error_is_shown_and_the_screen_lives_on() -> None:
    queries = dag()
    queries.broken = {"graph": RuntimeError("disk \x1b[31mon fire")}
    async with desk(queries) as at:
        await at.press("d")
        await at.settle()
        assert "disk on fire" in at.screen
        queries.broken = {}
        at.app.screen.tick()  # type: ignore[attr-defined]  # a PanedScreen
        await at.settle()
        assert "● impl:b" in at.screen
        queries.broken = {"graph": RuntimeError("again")}
        await at.change()
        assert "● impl:b" in at.screen
        assert "again" in at.screen


# -- moving ----------------------------------------------------------------------------------


async def test_j_and_k_move_within_the_layer() -> None:
    rows = [task("start"), *(task(f"t{n}", deps=("start",)) for n in range(4))]
    async with graph(FakeQueries(all_tasks=rows), start="t0") as (at, _, canvas):
        seen = []
        for key in ("k", "j", "down", "j", "j", "k", "up"):
            await at.press(key)
            seen.append(canvas.chosen)
        assert seen == ["t0", "t1", "t2", "t3", "t3", "t2", "t1"]


async def test_left_and_right_follow_edges_and_come_back() -> None:
    async with graph() as (at, _, canvas):
        await at.press("right")
        assert canvas.chosen == "ship"
        await at.press("right")
        assert canvas.chosen == "ship"
        await at.press("left")
        assert canvas.chosen == "impl:b"
        await at.press("left", "left")
        assert canvas.chosen == "plan"


async def test_g_goes_to_the_beginning_and_capital_g_to_the_end() -> None:
    async with graph() as (at, _, canvas):
        await at.press("G")
        assert canvas.chosen == "ship"
        await at.press("g")
        assert canvas.chosen == "plan"
        await at.press("end")
        assert canvas.chosen == "ship"
        await at.press("home")
        assert canvas.chosen == "plan"


def wide(count: int = 90) -> FakeQueries:
    rows = [task(f"a{n}", deps=(f"b{n - 1}",) if n else ()) for n in range(count)]
    for n in range(count):
        rows += [task(f"b{n}", deps=(f"a{n}",)), task(f"c{n}", deps=(f"a{n}", f"x{n}"))]
    return FakeQueries(all_tasks=rows)


async def test_the_cursor_stays_in_view_wherever_it_goes() -> None:
    async with graph(wide(40), start="a0") as (at, _, canvas):
        for keys in (["right"] * 12, ["G"], ["left"] * 8, ["g"]):
            await at.press(*keys)
            assert "▌" in at.screen
        await at.press("v")
        for keys in (["pagedown"] * 3, ["G"], ["pageup"], ["g"]):
            await at.press(*keys)
            assert "▌" in at.screen
        assert canvas.scroll_offset.y == 0


async def test_pages_move_by_a_screenful() -> None:
    rows = [task(f"t{n:03d}", agent=f"{n}", deps=(f"x{n}",)) for n in range(200)]
    async with graph(FakeQueries(all_tasks=rows), start="t000") as (at, _, canvas):
        await at.press("pagedown")
        assert canvas.chosen == f"t{canvas.size.height - 1:03d}"
        await at.press("pageup", "pageup")
        assert canvas.chosen == "t000"


# -- folding and turning ---------------------------------------------------------------------


async def test_space_unfolds_the_fan_and_folds_it_again() -> None:
    async with graph(start="impl:a") as (at, _, canvas):
        await at.press("right")
        assert "8 tasks with the same deps and dependents" in at.screen
        assert "space unfolds" in at.screen
        await at.press("space")
        await at.settle()
        assert "▌◌ test:0" in at.screen
        assert "◌ test:7" in at.screen
        await at.press("j", "space")
        await at.settle()
        assert "▌■ 8 tasks" in at.screen
        assert canvas.chosen == "test:1"


async def test_space_says_what_folds_where_nothing_does() -> None:
    async with graph() as (at, _, _):
        await at.press("space")
        assert any("six or more" in words for words in at.toasts)


async def test_v_turns_the_graph_into_a_tree_and_back() -> None:
    async with graph() as (at, screen, canvas):
        await at.press("v")
        await at.settle()
        assert screen.as_tree
        assert "├─" in at.screen
        assert "also under" in at.screen
        assert "▌● impl:b" in at.screen
        await at.press("right")
        assert canvas.chosen == "ship"
        await at.press("k", "j", "left", "left", "left")
        assert canvas.chosen == "plan"
        await at.press("v")
        await at.settle()
        assert not screen.as_tree


async def test_below_a_hundred_columns_it_is_a_tree_until_somebody_turns_it() -> None:
    async with graph(size=(120, 30)) as (at, screen, _):
        await at.pilot.resize_terminal(90, 30)
        await at.settle()
        assert "├─" in at.screen
        assert screen.as_tree
        await at.press("v")
        await at.settle()
        assert "├─" not in at.screen.replace("├──", "")
        await at.pilot.resize_terminal(85, 30)
        await at.settle()
        assert not screen.as_tree


# -- steering --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "key", "expected"),
    [
        ("impl:b", "s", Stop(("claude-1",))),
        ("impl:b", "u", Release(("impl:b",))),
        ("lone", "r", Retry(("lone",))),
    ],
)
async def test_keys_steer_the_task_under_the_cursor(start: str, key: str, expected: Any) -> None:
    async with graph(start=start) as (at, _, _):
        await at.press(key)
        await at.settle()
        assert at.engine.commands == [expected]


@pytest.mark.parametrize(
    ("key", "expected"), [("K", Kill(("impl:b",))), ("c", Cancel(("impl:b",)))]
)
async def test_keys_that_hurt_show_their_dry_run_for_the_task_under_the_cursor(
    key: str, expected: Any
) -> None:
    async with graph(start="impl:b") as (at, _, _):
        await at.press(key)
        await at.settle()
        assert at.engine.dry_runs == [expected]
        assert at.engine.commands == []


async def test_a_folded_fan_is_steered_as_a_whole_after_a_dry_run() -> None:
    async with graph(start="impl:a") as (at, screen, _):
        await at.press("right")
        assert screen.selection().marked == tuple(f"test:{n}" for n in range(8))
        assert screen.selection().opens is None
        await at.press("c")
        await at.settle()
        assert at.engine.dry_runs == [Cancel(tuple(f"test:{n}" for n in range(8)))]
        assert at.engine.commands == []


async def test_what_may_be_done_goes_with_what_became_of_the_task() -> None:
    async with graph(start="impl:b") as (at, screen, _):
        at.engine.queries.all_tasks[2] = ended("impl:b", State.DONE, "claude-1", 31)
        await at.change()
        await settled(at, screen)
        await at.press("u")
        assert at.engine.commands == []
        assert at.toasts == ["impl:b is done: no worker holds it"]


async def test_a_key_never_acts_on_a_task_that_was_read_before_the_cursor_moved() -> None:
    async with graph(start="impl:b") as (at, screen, canvas):
        canvas.choose("lone")
        assert screen.selection().opens == "lone"
        assert screen.selection().task is None
        await at.settle()
        chosen = screen.selection().task
        assert chosen is not None
        assert chosen.id == "lone"


async def test_watching_steers_nothing() -> None:
    async with graph(watching=True) as (at, _, _):
        await at.press("c", "u", "K")
        assert at.engine.commands == at.engine.dry_runs == []


async def test_enter_opens_the_detail_of_the_task() -> None:
    async with graph() as (at, _, _):
        await at.press("enter")
        await at.settle()
        assert at.shows(DetailScreen)
        assert "impl:b" in at.lines[0]
        await at.press("escape")
        assert at.shows(GraphScreen)


# -- the mouse -------------------------------------------------------------------------------


def place_of(at: Desk, words: str) -> tuple[int, int]:
    y = next(n for n, row in enumerate(at.lines) if words in row)
    return at.lines[y].index(words) + 1, y


async def test_a_click_chooses_and_a_double_click_opens() -> None:
    async with graph() as (at, _, canvas):
        await at.pilot.click(offset=place_of(at, "✓ plan"))
        assert canvas.chosen == "plan"
        await at.pilot.click(offset=(100, 30))
        assert canvas.chosen == "plan"
        await at.pilot.click(offset=place_of(at, "■ 8 tasks"), times=2)
        await at.settle()
        assert "test:7" in at.screen
        await at.pilot.click(offset=place_of(at, "✗ lone"), times=2)
        await at.settle()
        assert at.shows(DetailScreen)


async def test_the_wheel_and_a_drag_scroll_with_the_cursor_in_view() -> None:
    async with graph(wide(), start="a0") as (at, _, canvas):
        canvas.dragged(-60, 0)
        await at.settle()
        assert canvas.scroll_offset.x == 60
        assert canvas.chosen != "a0"
        assert "▌" in at.screen
        await at.pilot.mouse_down(canvas, offset=(50, 10))
        await at.pilot.hover(canvas, offset=(20, 10))
        await at.pilot.mouse_up(canvas, offset=(20, 10))
        await at.settle()
        assert canvas.scroll_offset.x == 90
        assert "▌" in at.screen


async def test_only_what_changed_is_painted_again() -> None:
    async with graph() as (at, _, canvas):
        painted: list[int] = []
        rendered = canvas.render_line

        def render_line(y: int) -> Any:
            painted.append(y)
            return rendered(y)

        canvas.render_line = render_line  # type: ignore[method-assign]
        canvas.repaint()
        await at.settle()
        assert painted == []
        await at.press("left")
        assert 0 < len(set(painted)) < canvas.size.height


# -- finding ---------------------------------------------------------------------------------


async def test_slash_finds_a_task_by_id_while_one_types_and_n_goes_on() -> None:
    async with graph() as (at, screen, canvas):
        await at.press("/", "i", "m", "p", "l")
        assert at.app.focused is screen.find.input
        assert canvas.chosen == "impl:b", "what it was on matches already"
        assert "impl: 2 of 2" in at.screen
        await at.press("enter")
        assert canvas.has_focus
        await at.press("n")
        assert canvas.chosen == "impl:a"
        assert screen.selection().opens == "impl:a"
        assert "impl: 1 of 2" in at.screen
        await at.press("N")
        assert canvas.chosen == "impl:b"
        await at.press("escape")
        assert "impl: " not in at.lines[1]
        assert at.shows(GraphScreen)
        await at.press("escape")
        assert at.shows(MainScreen)


async def test_n_right_after_enter_is_no_letter_of_what_is_sought() -> None:
    async with graph() as (at, screen, canvas):
        await at.press("/")
        await at.burst(*"impl", "enter", "n")
        assert screen.find.input.value == "impl"
        assert canvas.chosen == "impl:a"
        assert "impl: 1 of 2" in at.screen


async def test_a_task_is_found_by_its_name_too_and_case_counts_if_it_is_typed() -> None:
    queries = dag()
    queries.all_tasks[-1] = replace(queries.all_tasks[-1], name="Write the Manual")
    async with graph(queries) as (at, _, canvas):
        await at.press("/", *"manual", "enter")
        assert canvas.chosen == "lone"
        await at.press("g", "/", *"MANUAL")
        assert canvas.chosen != "lone"
        assert "no task matches MANUAL" in at.screen


async def test_a_match_in_a_folded_fan_unfolds_it_and_esc_folds_it_again() -> None:
    async with graph() as (at, screen, canvas):
        await at.press("/", *"test:5")
        assert canvas.chosen == "test:5"
        assert "▌◌ test:5" in at.screen
        await at.press("escape")
        await settled(at, screen)
        assert canvas.chosen == "impl:b"
        assert "■ 8 tasks" in at.screen
        await at.press("/", *"test:5", "enter")
        assert screen.selection().opens == "test:5"


async def test_n_without_anything_to_find_says_how_one_asks() -> None:
    async with graph() as (at, _, canvas):
        before = canvas.chosen
        await at.press("n")
        assert at.toasts == ["nothing to find yet: / asks for it"]
        assert canvas.chosen == before


async def test_a_pattern_that_cannot_be_read_is_told_and_moves_nothing() -> None:
    async with graph() as (at, _, canvas):
        await at.press("/", *"/(/")
        assert canvas.chosen == "impl:b"
        assert "missing )" in at.screen


async def test_the_label_of_v_says_what_it_leads_to() -> None:
    async with graph(size=(200, 60)) as (at, _, _):
        assert "v tree" in at.footer
        await at.press("v")
        assert "v layers" in at.footer
