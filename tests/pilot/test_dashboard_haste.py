"""Keys that come while the store has not answered yet: each acts on what was seen, and once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from support.desk import desk
from support.patience import PATIENCE
from support.screens import running, task
from textual.events import AppBlur, AppFocus, Key, Paste
from textual.widgets import Input

from engine.commands import Cancel, Receipt
from tui.inorder import InOrderApp
from tui.screens.help import HelpScreen
from tui.screens.question import Question

if TYPE_CHECKING:
    from support.desk import Desk
    from textual.message import Message

    from tui.snapshot import Snapshot


class SlowPlan:
    """Dry runs that are answered when `answer` is set."""

    def __init__(self, at: Desk) -> None:
        self.answer = asyncio.Event()
        self._execute = at.engine.execute
        at.engine.plan = Receipt(done={"impl:T-004": "killed"})
        at.engine.execute = self  # type: ignore[method-assign]  # answers later

    async def __call__(self, *args: Any, dry_run: bool = False, **more: Any) -> Receipt:
        if dry_run:
            await self.answer.wait()
        return await self._execute(*args, dry_run=dry_run, **more)


def questions(at: Desk) -> int:
    return sum(isinstance(screen, Question) for screen in at.app.screen_stack)


async def test_a_cursor_that_moved_while_rows_were_read_stays_where_it_is() -> None:
    async with desk() as at:
        await at.press("j")
        async with at.held_up("tasks"):
            await at.pilot.press("j")
        assert at.current_task == "research:api"
        assert at.app.main.task_rows.cursor == 2


@pytest.mark.parametrize("keys", [("o",), ("/", "b", "e", "n")])
async def test_rows_of_an_order_or_filter_that_was_left_are_never_shown(
    keys: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk() as at:
        main, shown = at.app.main, []
        show = main.show

        def noted(picture: Snapshot) -> None:
            assert picture.wants is not None
            wanted = (picture.wants.where, picture.wants.order)
            shown.append(wanted == (main.where, main.task_rows.order))
            show(picture)

        monkeypatch.setattr(main, "show", noted)
        async with at.held_up("tasks"):
            await at.pilot.press(*keys)
        assert shown
        assert all(shown)


async def test_until_the_rows_of_a_filter_are_there_no_key_acts_on_the_others() -> None:
    async with desk() as at:
        await at.press("/")
        async with at.held_up("count_tasks"):
            await at.pilot.press(*"bench", "enter", "c")
            assert at.engine.dry_runs == []
            assert at.toasts == ["choose a task first"]
        assert at.current_task == "bench:store"


async def test_a_row_that_something_was_asked_for_stays_under_the_cursor() -> None:
    async with desk() as at:
        at.engine.plan = Receipt(done={"impl:T-004": "cancelled"})
        await at.press("c", "n")
        at.engine.queries.all_tasks.insert(0, running("aaa:first", "claude-9", 1))
        await at.change()
        assert at.current_task == "impl:T-004"


@pytest.mark.parametrize(
    ("key", "query"),
    [
        ("enter", "detail"),
        ("!", "workers"),
        ("h", "count_runs"),
        ("d", "graph"),
        ("T", "spans"),
        ("l", "runs"),
        ("w", "workers"),
    ],
)
async def test_a_screen_can_be_left_while_it_is_read(key: str, query: str) -> None:
    async with desk() as at:
        await at.press(key)
        async with at.held_up(query):
            await at.pilot.press("escape")
            assert at.app.screen is at.app.main
        await at.press("j")
        assert at.current_task == "tests:race"


async def test_what_happened_meanwhile_is_seen_on_the_screen_that_one_comes_back_to() -> None:
    async with desk() as at:
        await at.press("enter")
        at.engine.queries.all_tasks.insert(0, task("aaa:new"))
        await at.change()
        assert "aaa:new" not in at.screen
        await at.press("escape")
        assert "aaa:new" in at.screen


async def test_a_key_that_is_pressed_twice_asks_once() -> None:
    async with desk() as at:
        plan = SlowPlan(at)
        await at.pilot.press("K", "K")
        plan.answer.set()
        await at.settle()
        assert questions(at) == 1


async def test_quitting_twice_asks_once() -> None:
    async with desk() as at:
        at.engine.runs = 2
        await at.press("ctrl+q", "ctrl+q")
        assert questions(at) == 1
        await at.press("escape")
        assert questions(at) == 0


async def test_whoever_went_on_to_type_is_not_asked_about_the_key_before() -> None:
    async with desk() as at:
        plan = SlowPlan(at)
        await at.pilot.press("K", "/", "l")
        plan.answer.set()
        await at.settle()
        assert questions(at) == 0
        assert "not asked, for you went on" in at.toasts[0]
        await at.press("enter")
        assert at.engine.commands == []


async def test_a_line_one_types_in_has_the_keys_again_when_the_terminal_has() -> None:
    async with desk() as at:
        await at.press("/", "i")
        for message in (AppBlur(), AppFocus()):
            at.app.post_message(message)
            await at.settle()
        await at.press("m")
        assert isinstance(at.app.focused, Input)
        assert at.app.main.task_filter.input.value == "im"


async def test_after_a_no_the_commands_behind_it_are_not_asked_about() -> None:
    async with desk() as at:
        at.engine.plan = Receipt(done={"a": "cancelled"})
        at.app.carry_out((Cancel(("a",)), Cancel(("b",))), asks=True)
        await at.settle()
        await at.press("n")
        assert questions(at) == 0
        assert at.engine.dry_runs == [Cancel(("a",))]
        assert at.engine.commands == []


async def test_keys_that_come_all_at_once_are_done_in_their_order() -> None:
    async with desk() as at:
        await at.press("/")
        await at.burst("a", "b", "ctrl+u", "c", "d", "e", "backspace", "home", "x")
        assert at.app.main.task_filter.input.value == "xcd"


async def test_keys_right_after_the_one_that_closes_a_line_are_not_typed_into_it() -> None:
    async with desk() as at:
        await at.press("/")
        await at.burst(*"impl", "enter", "j", "j")
        main = at.app.main
        assert str(main.where) == "impl"
        assert main.task_filter.input.value == "impl"
        assert at.app.focused is main.task_rows
        assert main.task_rows.cursor == 2


async def test_a_line_that_cannot_be_read_yet_keeps_all_the_keys() -> None:
    async with desk() as at:
        await at.press("/")
        await at.burst(*"state:x", "enter", "backspace", *"done", "enter", "G")
        main = at.app.main
        assert str(main.where) == "state:done"
        assert main.task_filter.input.value == "state:done"
        assert at.app.focused is main.task_rows
        assert main.task_rows.cursor > 0


async def test_letters_right_behind_the_key_that_opens_a_line_are_typed_and_steer_nothing() -> None:
    async with desk() as at:
        await at.burst("/", *"build", "enter", "1", "2", "/", "ctrl+u", *"test")
        main = at.app.main
        assert (str(main.where), main.task_filter.input.value) == ("test", "test")
        assert at.shows(type(main))
        assert (at.engine.dry_runs, at.engine.commands) == ([], [])


async def test_what_is_pasted_right_behind_a_key_goes_where_the_key_leads() -> None:
    async with desk() as at:
        at.app.post_message(Key("slash", "/"))
        at.app.post_message(Paste("bui"))
        await at.burst(*"ld", "enter")
        assert str(at.app.main.where) == "build"


async def test_keys_for_a_widget_that_is_gone_keep_no_others_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with desk() as at:
        rows = at.app.main.task_rows
        post = rows.post_message

        def lossy(message: Message) -> bool:
            return isinstance(message, InOrderApp.Passed) or post(message)

        monkeypatch.setattr(rows, "post_message", lossy)
        await at.burst("j")
        at.app.post_message(Key("question_mark", "?"))
        await at.settle()
        assert at.shows(type(at.app.main)), "it waits for its turn"
        await rows.remove()
        async with asyncio.timeout(PATIENCE):
            while not at.shows(HelpScreen):
                await at.pilot.pause(0.01)
