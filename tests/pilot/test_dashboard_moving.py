"""The dashboard under the fingers: panes, rows, the zoom and the filter."""

from __future__ import annotations

import pytest
from support.desk import desk
from textual.events import MouseScrollDown
from textual.widgets import Input

from tui.actions.model import Place
from tui.screens.detail import DetailScreen

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
