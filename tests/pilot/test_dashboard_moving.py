"""The dashboard under the fingers: panes, rows, the zoom and the filter."""

from __future__ import annotations

import pytest
from support.desk import desk
from support.screens import FakeQueries, busy, event
from textual.events import MouseScrollDown
from textual.widgets import Input

from engine.model import EventType
from tui.actions.model import Place
from tui.actions.table import ACTIONS
from tui.screens.detail import DetailScreen
from tui.screens.worker import WorkerScreen
from tui.widgets.cells import Tone

# -- moving ----------------------------------------------------------------------------------


async def test_number_keys_and_tab_choose_the_pane() -> None:
    async with desk() as at:
        assert at.place == "tasks"
        for key, place in (("1", "workers"), ("3", "events"), ("4", "stale"), ("2", "tasks")):
            await at.press(key)
            assert at.place == place
        for place in ("events", "stale", "workers", "tasks"):
            await at.press("tab")
            assert at.place == place
        await at.press("shift+tab")
        assert at.place == "workers"


@pytest.mark.parametrize(
    ("keys", "row"),
    [
        (("j",), 1),
        (("down",), 1),
        (("j", "j", "k"), 1),
        (("j", "j", "up"), 1),
        (("G",), 25),
        (("end",), 25),
        (("G", "g"), 0),
        (("G", "home"), 0),
        (("pagedown",), 14),
        (("G", "pageup"), 11),
        (("k",), 0),
    ],
)
async def test_keys_move_the_cursor(keys: tuple[str, ...], row: int) -> None:
    async with desk() as at:
        await at.press(*keys)
        assert at.app.main.task_rows.cursor == row


async def test_the_mouse_chooses_a_pane_and_a_row_and_a_double_click_opens_it() -> None:
    async with desk() as at:
        await at.pilot.click("#workers-list", offset=(4, 3))
        await at.settle()
        assert at.place is Place.WORKERS
        row = at.app.main.worker_rows.current
        assert row is not None
        assert row.id == "codex-1"
        await at.pilot.click("#tasks-list", offset=(4, 2), times=2)
        await at.settle()
        assert at.shows(DetailScreen)
        assert "Concurrency tests" in at.screen


async def test_the_wheel_takes_the_cursor_along() -> None:
    async with desk() as at:
        rows = at.app.main.task_rows
        await at.pilot._post_mouse_events([MouseScrollDown], rows, offset=(4, 4))
        await at.settle()
        assert rows.scroll_offset.y == 3
        assert rows.cursor == 3


async def test_zoom_gives_one_pane_the_screen_and_gives_it_back() -> None:
    async with desk() as at:
        await at.press("z")
        assert "Stale heartbeats" not in at.screen
        assert "▌2 Tasks 26" in at.lines[1]
        assert "spike:graphql" in at.screen
        await at.press("3")
        assert "claude-2 claimed docs:status" in at.screen
        await at.press("z")
        assert "Stale heartbeats" in at.screen
        await at.press("z", "escape")
        assert "Stale heartbeats" in at.screen


async def test_below_100_columns_the_panes_are_tabs() -> None:
    async with desk(size=(80, 24)) as at:
        assert "▌2 Tasks 26" in at.lines[1]
        assert "1 Workers 6" in at.lines[1]
        assert "claude-2 claimed docs:status" not in at.screen
        await at.press("3")
        assert "claude-2 claimed docs:status" in at.screen
        await at.pilot.click("#tabs", offset=(3, 0))
        await at.settle()
        assert at.place is Place.WORKERS
        await at.pilot.resize_terminal(120, 40)
        await at.settle()
        assert "Stale heartbeats" in at.screen
        assert at.place is Place.WORKERS
        await at.pilot.resize_terminal(60, 16)
        await at.settle()
        await at.press("2", "j")
        assert at.current_task == "tests:race"


async def test_no_key_that_steers_or_moves_breaks_a_dashboard_without_rows() -> None:
    steers = [a.keys[0] for a in ACTIONS if a.command or a.name in {"mark", "mark_all"}]
    moves = [a.keys[0] for a in ACTIONS if a.local and not a.places]
    async with desk(FakeQueries()) as at:
        for pane in "1234":
            await at.pilot.press(pane, *moves)
            for key in steers:
                await at.pilot.press(key, "escape")
        await at.settle()
        assert at.place is Place.STALE


@pytest.mark.parametrize("key", ["enter", "!", "h", "d", "T", "l", "w"])
async def test_every_screen_lives_through_a_terminal_of_any_size(key: str) -> None:
    async with desk() as at:
        await at.press(key)
        for size in ((1, 1), (60, 1), (400, 120), (120, 40)):
            await at.pilot.resize_terminal(*size)
            at.app.tick()
            await at.pilot.press("j", "G", "pagedown")
        await at.settle()
        assert at.app.is_running
        await at.press("escape")
        assert at.app.screen is at.app.main


@pytest.mark.parametrize("screen", ["enter", "!", "d", "T", "l", "w"])
async def test_a_key_that_a_screen_has_no_use_for_says_so(screen: str) -> None:
    async with desk() as at:
        await at.press(screen)
        for count, key in enumerate(("o", "O", "ctrl+a"), 1):
            await at.press(key)
            assert len(at.toasts) == count


# -- the filter ------------------------------------------------------------------------------


async def test_a_filter_narrows_the_tasks_while_one_types() -> None:
    async with desk() as at:
        await at.press("/", *"state:failed")
        assert at.app.main.task_rows.total == 1
        assert "Tasks  state:failed" in at.screen
        assert "1 of 26" in at.screen
        await at.press("enter")
        assert at.current_task == "lint:types"
        await at.press("escape")
        assert at.app.main.task_rows.total == 26


async def test_escape_leaves_the_filter_and_clears_it() -> None:
    async with desk() as at:
        await at.press("1", "/", *"spec")
        assert at.app.main.task_rows.total == 9
        assert at.app.focused is at.app.main.task_filter.input
        await at.press("escape")
        assert at.app.main.task_rows.total == 26
        assert at.place is Place.TASKS
        assert not at.app.main.task_filter.display


async def test_a_filter_that_cannot_be_read_yet_is_explained_and_does_not_count() -> None:
    async with desk() as at:
        await at.press("/", *"state:fail")
        assert at.app.main.task_rows.total == 26
        assert "no state 'fail'" in at.screen


async def test_a_filter_that_cannot_be_read_is_not_kept() -> None:
    async with desk() as at:
        await at.press("/", *"state:bogus", "enter")
        assert at.app.main.task_filter.display
        await at.press("escape", "/", *"spec", "enter")
        assert at.app.main.task_filter.input.value == "spec"
        assert at.app.main.task_rows.total == 9


async def test_a_filter_without_matches_says_so() -> None:
    async with desk() as at:
        await at.press("/", *"xyzzy", "enter")
        assert "nothing matches xyzzy: esc clears the filter" in at.screen


async def test_keys_typed_into_the_filter_do_nothing_else() -> None:
    async with desk() as at:
        await at.press("/", *"qsupz?12")
        assert at.app.main.task_filter.input.value == "qsupz?12"
        assert at.engine.commands == []
        assert at.app.is_running


async def test_control_characters_cannot_be_pasted_into_the_filter() -> None:
    async with desk() as at:
        await at.press("/")
        line = at.app.main.task_filter.input
        line.insert_text_at_cursor("ab")
        line.insert_text_at_cursor("\x9b2J\x1b[2J")
        await at.settle()
        assert line.value == "ab"
        assert isinstance(line, Input)


async def test_w_on_an_event_opens_its_worker_or_says_why_it_does_not() -> None:
    queries = busy()
    queries.all_events += [
        event(900, EventType.WORKER_STOPPED, 3, worker_id="codex-9"),
        event(901, EventType.WORKER_LOST, 2, worker_id="codex-99"),
        event(902, EventType.SEEDED, 1),
    ]
    async with desk(queries) as at:
        await at.press("3", "G", "w")
        assert at.toasts == ["this event is about no worker"]
        await at.press("k", "w")
        assert at.toasts[-1] == "codex-99 is gone: the store knows no worker of that name"
        keys = {piece.name: piece.cells[0][1] for piece in at.app.main.keys._pieces}
        assert keys["worker"] is Tone.OFF
        await at.press("k")
        keys = {piece.name: piece.cells[0][1] for piece in at.app.main.keys._pieces}
        assert keys["worker"] is Tone.BOLD
        await at.press("w")
        assert at.shows(WorkerScreen)
        assert "codex-9" in at.lines[0]


async def test_what_is_wrong_with_a_filter_can_be_read_to_its_end_at_80_columns() -> None:
    async with desk(size=(80, 24)) as at:
        await at.press("/", *"stat:failed")
        told = " ".join(at.screen.replace("│", " ").split())
        assert "'stat' is no field: is 'state' meant?" in told
        assert "to look for the text, put it in quotes" in told
        await at.press("escape")
        assert "is no field" not in at.screen
