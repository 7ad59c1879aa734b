"""The dashboard under the fingers: every key that is wired, on a fleet chosen by hand."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.screens import (
    FakeEngine,
    FakeQueries,
    ago,
    busy,
    ended,
    event,
    running,
    screen_text,
    settle,
    task,
    worker,
)
from textual.events import Key, MouseScrollDown
from textual.widgets import Input

from engine.commands import Hold, Receipt, Refusal, Release, Resume, Stop
from engine.errors import Code, LeaseConflict, StorageError
from engine.model import EventType, State
from tui.actions import ACTIONS, Place
from tui.app import Dashboard
from tui.screens.detail import DetailScreen
from tui.screens.dialogs import HelpScreen, Question
from tui.screens.main import MainScreen
from tui.widgets.document import Document

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from textual.pilot import Pilot
    from textual.screen import Screen


class Desk:
    """A dashboard on a fake engine, and the hands on its keys."""

    def __init__(self, engine: FakeEngine, app: Dashboard, pilot: Pilot[None]) -> None:
        self.engine = engine
        self.app = app
        self.pilot = pilot

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.settle()

    async def change(self) -> None:
        """Let the dashboard see what became of the rows."""
        asked = len(self.engine.queries.asked)
        self.engine.change()
        async with asyncio.timeout(10):
            while len(self.engine.queries.asked) == asked:
                await self.pilot.pause(0.01)
        await self.settle()

    async def settle(self) -> None:
        await settle(self.pilot)

    @property
    def screen(self) -> str:
        return screen_text(self.app)

    @property
    def lines(self) -> list[str]:
        return self.screen.splitlines()

    @property
    def footer(self) -> str:
        return self.lines[-1]

    @property
    def toasts(self) -> list[str]:
        return [toast.message for toast in self.app._notifications]

    def shows(self, kind: type[Screen[Any]]) -> bool:
        return isinstance(self.app.screen, kind)

    @property
    def place(self) -> Place:
        return self.app.main.selection().place

    @property
    def current_task(self) -> str | None:
        row = self.app.main.task_rows.current
        return row.id if row is not None else None


@asynccontextmanager
async def desk(
    queries: FakeQueries | None = None,
    *,
    size: tuple[int, int] = (120, 40),
    watching: bool = False,
    engine: FakeEngine | None = None,
) -> AsyncIterator[Desk]:
    engine = engine or FakeEngine(queries if queries is not None else busy())
    app = Dashboard(engine, watching=watching, pace=0.01)
    async with app.run_test(size=size, notifications=True) as pilot:
        await settle(pilot)
        yield Desk(engine, app, pilot)


# -- what is shown ---------------------------------------------------------------------------


async def test_the_four_panes_and_the_line_of_progress_show_what_the_store_holds() -> None:
    async with desk() as at:
        head = at.lines[0]
        assert "agentmux build.yaml" in head
        assert "11/26" in head
        for count in ("● 4", "◌ 2", "◦ 4", "⊘ 2", "✗ 1", "▲ 1", "△ 1"):
            assert count in head
        for title in ("1 Workers", "2 Tasks", "3 Events", "4 Stale heartbeats"):
            assert title in at.screen
        assert "waits for impl:T-004" in at.screen
        assert "blocked by lint:types" in at.screen
        assert "needs you: command not allowed" in at.screen
        assert "again in 12s after: exit code 7" in at.screen
        stale = next(line for line in at.lines if "△  gemini-2" in line)
        assert "1:12" in stale
        assert "research:api" in stale
        assert "claude-2 claimed docs:status" in at.screen


async def test_stopped_workers_are_not_shown_as_workers() -> None:
    async with desk() as at:
        assert "codex-9" not in at.screen


async def test_an_empty_pane_says_what_would_fill_it() -> None:
    async with desk(FakeQueries()) as at:
        assert "no workers: `agentmux worker" in at.screen
        assert "no tasks: `agentmux-tui DAG`" in at.screen
        assert "no events yet" in at.screen
        assert "every worker gives signs of life" in at.screen


async def test_markup_is_shown_as_it_is() -> None:
    name = "list[int] [bold]x[/bold] [/] [@click=app.quit]y[/]"
    queries = FakeQueries(all_tasks=[task("a[b]", name=name, error="[red]")], dag="[blink].yaml")
    async with desk(queries, size=(200, 60)) as at:
        assert "a[b]" in at.screen
        assert "list[int] [bold]x[/bold]" in at.screen
        assert "[blink].yaml" in at.screen
        at.app.say("[bold]loud[/bold]")
        await at.settle()
        assert "[bold]loud[/bold]" in at.screen


@pytest.mark.parametrize(
    "evil",
    [
        "\x1b]52;c;aGk=\x07",
        "\x1b[2J",
        "\x9b2J",
        "\x1bPq\x1b\\",
        "\x7f",
        "\u202e",
        "\x1b]0;title\x07",
    ],
)
async def test_control_characters_of_agents_never_reach_the_screen(evil: str) -> None:
    done = running("victim", "codex-1", 5, name=f"na{evil}me")
    queries = FakeQueries(
        all_tasks=[replace(done, id=f"vic{evil}tim"), task("b", State.FAILED, error=f"er{evil}r")],
        all_workers=[worker("codex-1", replace(done, id=f"vic{evil}tim"), note=f"no{evil}te")],
        all_events=[
            event(1, EventType.ALERT, 1, data={"message": f"al{evil}ert"}, task_id=f"vic{evil}tim")
        ],
        dag=f"d{evil}ag.yaml",
    )
    async with desk(queries) as at:
        await at.press("enter")
        shown = at.screen
        await at.press("escape")
        for text in (shown, at.screen, "\n".join(at.toasts)):
            assert all(char.isprintable() or char == "\n" for char in text)
            assert "\u202e" not in text
        assert "victim" in at.screen


async def test_ages_grow_without_a_change_in_the_store() -> None:
    async with desk() as at:
        assert "41s" in at.screen
        before = len(at.engine.queries.asked)
        await at.engine.clock.sleep(9)
        at.app.tick()
        await at.settle()
        assert "50s" in at.screen
        assert len(at.engine.queries.asked) == before


async def test_a_worker_that_falls_silent_becomes_stale_without_a_commit() -> None:
    async with desk() as at:
        assert at.app.main.stale_rows.total == 1
        await at.engine.clock.sleep(13)
        at.app.tick()
        await at.settle()
        # gemini-1 and codex-2 beat 4 and 3 s before, so they are past 15 s now.
        assert at.app.main.stale_rows.total == 3


async def test_a_worker_whose_process_is_gone_is_stale_at_once() -> None:
    queries = FakeQueries(all_workers=[worker("codex-1", alive=False)])
    async with desk(queries) as at:
        line = next(line for line in at.lines if "△  codex-1" in line and "gone" in line)
        assert "nothing" in line


async def test_killed_processes_are_looked_for_every_few_seconds() -> None:
    queries = FakeQueries(all_workers=[worker("codex-1")])
    async with desk(queries) as at:
        queries.all_workers = [worker("codex-1", alive=False)]
        for _ in range(5):
            at.app.tick()
        await at.settle()
        assert at.app.main.stale_rows.total == 1


# -- refreshing ------------------------------------------------------------------------------


async def test_nothing_is_read_while_nothing_changes() -> None:
    async with desk() as at:
        before = list(at.engine.queries.asked)
        at.app.tick()
        at.app.ring(urgent=True)
        await at.settle()
        assert at.engine.queries.asked == before


async def test_a_burst_of_changes_costs_at_most_two_refreshes() -> None:
    async with desk() as at:
        before = at.engine.queries.asked.count("progress")
        for _ in range(50):
            at.app.ring(changed=True)
        await at.settle()
        assert 1 <= at.engine.queries.asked.count("progress") - before <= 2


async def test_the_cursor_stays_on_its_task_while_rows_move() -> None:
    async with desk() as at:
        await at.press("j")
        assert at.current_task == "tests:race"
        rows = at.engine.queries.all_tasks
        rows[1] = ended("tests:race", State.DONE, "codex-1", 44)
        rows.insert(0, running("new:first", "codex-3", 1))
        await at.change()
        assert at.current_task == "tests:race"
        assert at.app.main.task_rows.cursor > 10
        assert any("▌✓  tests:race" in line for line in at.lines)


async def test_until_a_row_is_chosen_the_list_stays_at_its_top() -> None:
    async with desk() as at:
        at.engine.queries.all_tasks.insert(0, running("new:first", "codex-3", 1))
        await at.change()
        assert at.current_task == "new:first"
        await at.press("j", "g")
        at.engine.queries.all_tasks.insert(0, running("newer:first", "codex-4", 1))
        await at.change()
        assert at.current_task == "newer:first"


async def test_a_task_that_is_gone_leaves_the_cursor_where_it_was() -> None:
    async with desk() as at:
        await at.press("j")
        del at.engine.queries.all_tasks[1]
        await at.change()
        assert at.app.main.task_rows.cursor == 1
        assert at.current_task == "research:api"


async def test_a_list_of_100000_tasks_reads_only_windows() -> None:
    queries = FakeQueries(all_tasks=[task(f"t{n:06d}") for n in range(100_000)])
    sizes: list[int] = []
    real = queries.tasks

    async def watched(*args: object, **more: object) -> object:
        rows = await real(*args, **more)  # type: ignore[arg-type]  # passes on what it is given
        sizes.append(len(rows))
        return rows

    queries.tasks = watched  # type: ignore[method-assign, assignment]  # watches what is asked
    async with desk(queries) as at:
        await at.press("G")
        assert at.current_task == "t099999"
        await at.press("pageup")
        assert at.current_task is not None
        await at.press("g")
        assert at.current_task == "t000000"
    assert max(sizes) < 200


async def test_events_follow_their_end_until_one_scrolls() -> None:
    async with desk() as at:
        await at.press("3")
        queries = at.engine.queries
        queries.all_events.append(event(40, EventType.ALERT, 0, data={"message": "first"}))
        await at.change()
        assert "first" in at.screen
        await at.press("k", "k")
        chosen = at.app.main.event_rows.current
        for number in range(41, 80):
            queries.all_events.append(event(number, EventType.ALERT, 0, data={"message": "later"}))
        await at.change()
        assert at.app.main.event_rows.current == chosen
        assert "later" not in at.screen
        await at.press("G")
        assert "later" in at.screen
        queries.all_events.append(event(80, EventType.ALERT, 0, data={"message": "last"}))
        await at.change()
        assert "last" in at.screen


# -- trouble ---------------------------------------------------------------------------------


async def test_a_query_that_fails_shows_in_its_pane_and_the_rest_lives_on() -> None:
    queries = busy()
    queries.broken["tasks"] = RuntimeError("no such column: \x1b[31mx")
    async with desk(queries) as at:
        assert "no such column: x" in at.screen
        assert "claude-1" in at.screen
        assert "claude-2 claimed docs:status" in at.screen
        del queries.broken["tasks"]
        await at.change()
        assert "impl:T-004" in at.screen
        assert "no such column" not in at.screen


async def test_a_locked_store_keeps_the_rows_and_shows_how_old_they_are() -> None:
    async with desk() as at:
        for name in ("progress", "workers", "count_tasks", "last_seq"):
            at.engine.queries.broken[name] = StorageError("the database is locked")
        await at.engine.clock.sleep(7)
        await at.change()
        assert "impl:T-004" in at.screen
        assert "the database is locked" in at.screen
        assert "data 7s old" in at.lines[0]
        at.engine.queries.broken.clear()
        at.app.tick()
        await at.settle()
        assert "old" not in at.lines[0]


async def test_a_store_that_does_not_answer_is_shown_as_busy() -> None:
    queries = busy()
    async with desk(queries) as at:
        gate = asyncio.Event()
        entered = asyncio.Event()

        async def wait(_name: str) -> None:
            entered.set()
            await gate.wait()

        queries.gate = wait
        at.engine.change()
        async with asyncio.timeout(10):
            await entered.wait()
        await at.engine.clock.sleep(3)
        at.app.tick()
        await at.pilot.pause()
        assert "store busy for 3s" in at.lines[0]
        gate.set()
        await at.settle()


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
        await at.press("3", "/", *"spec")
        assert at.app.main.task_rows.total == 9
        assert at.app.focused is at.app.main.filter
        await at.press("escape")
        assert at.app.main.task_rows.total == 26
        assert at.place is Place.TASKS
        assert not at.app.main.filter_line.display


async def test_a_filter_that_cannot_be_read_yet_is_explained_and_does_not_count() -> None:
    async with desk() as at:
        await at.press("/", *"state:fail")
        assert at.app.main.task_rows.total == 26
        assert "no state 'fail'" in at.screen


async def test_a_filter_that_cannot_be_read_is_not_kept() -> None:
    async with desk() as at:
        await at.press("/", *"state:bogus", "enter")
        assert at.app.main.filter_line.display
        await at.press("escape", "/", *"spec", "enter")
        assert at.app.main.filter.value == "spec"
        assert at.app.main.task_rows.total == 9


async def test_a_filter_without_matches_says_so() -> None:
    async with desk() as at:
        await at.press("/", *"xyzzy", "enter")
        assert "no task matches xyzzy: esc clears the filter" in at.screen


async def test_keys_typed_into_the_filter_do_nothing_else() -> None:
    async with desk() as at:
        await at.press("/", *"qsupz?12")
        assert at.app.main.filter.value == "qsupz?12"
        assert at.engine.commands == []
        assert at.app.is_running


async def test_control_characters_cannot_be_pasted_into_the_filter() -> None:
    async with desk() as at:
        await at.press("/")
        line = at.app.main.filter
        line.insert_text_at_cursor("ab")
        line.insert_text_at_cursor("\x9b2J\x1b[2J")
        await at.settle()
        assert line.value == "ab"
        assert isinstance(line, Input)


# -- steering --------------------------------------------------------------------------------


async def test_s_stops_the_worker_under_the_cursor() -> None:
    async with desk() as at:
        await at.press("1", "s")
        assert at.engine.commands == [Stop(("claude-1",))]


async def test_keys_that_come_faster_than_the_screen_act_where_they_were_meant() -> None:
    async with desk() as at:
        for key in ("1", "j", "j", "s", "slash", "u", "u"):
            at.app.post_message(Key(key, "/" if key == "slash" else key))
        await at.settle()
        assert at.engine.commands == [Stop(("codex-1",))]
        async with asyncio.timeout(10):
            while at.app.main.filter.value != "uu":
                await at.pilot.pause(0.01)
        assert at.engine.commands == [Stop(("codex-1",))]


async def test_s_on_a_task_stops_the_worker_that_holds_it() -> None:
    async with desk() as at:
        await at.press("j", "s")
        assert at.engine.commands == [Stop(("codex-1",))]


async def test_u_releases_the_task_in_every_place_that_shows_one() -> None:
    async with desk() as at:
        await at.press("u", "1", "j", "u", "4", "u")
        assert at.engine.commands == [
            Release(("impl:T-004",)),
            Release(("docs:status",)),
            Release(("research:api",)),
        ]


async def test_p_holds_all_claims_and_resumes_what_is_held() -> None:
    async with desk() as at:
        assert "p hold" in at.footer
        await at.press("p")
        at.engine.queries.held = ("gemini", "*")
        await at.change()
        assert "HELD all" in at.lines[0]
        assert "p resume" in at.footer
        await at.press("p")
        assert at.engine.commands == [Hold(), Resume("gemini"), Resume("*")]


async def test_the_receipt_is_shown_with_every_refusal() -> None:
    async with desk() as at:
        at.engine.receipt = Receipt(
            done={"impl:T-004": "released from claude-1 [now]"},
            refused=(Refusal("x", Code.LEASE_CONFLICT, "somebody else holds it"),),
        )
        await at.press("u")
        assert at.toasts == [
            "impl:T-004: released from claude-1 [now]",
            "x: somebody else holds it",
        ]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (LeaseConflict("impl:T-004 is held by host b"), "release: impl:T-004 is held by host b"),
        (RuntimeError("boom"), "release failed: boom"),
    ],
)
async def test_a_command_that_fails_is_reported_and_the_screen_lives_on(
    error: Exception, words: str
) -> None:
    async with desk() as at:
        at.engine.refusal = error
        await at.press("u")
        assert at.toasts == [words]
        await at.press("j")
        assert at.current_task == "tests:race"


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (("G", "u"), "spike:graphql is cancelled: no worker holds it"),
        (("G", "s"), "no worker holds spike:graphql"),
        (("1", "j", "j", "j", "u"), "codex-2 holds no task"),
        (("1", "j", "j", "j", "enter"), "no task here to show"),
        (("1", "j", "j", "j", "j", "s"), "gemini-1 is stopping already"),
        (("3", "u"), "choose a task or a worker first"),
        (("3", "s"), "choose a worker first"),
    ],
)
async def test_an_action_that_makes_no_sense_says_why(keys: tuple[str, ...], reason: str) -> None:
    async with desk() as at:
        await at.press(*keys)
        assert at.toasts == [reason]
        assert at.engine.commands == []


async def test_a_dead_process_cannot_be_stopped_and_the_reason_says_what_to_do() -> None:
    queries = FakeQueries(all_workers=[worker("codex-1", alive=False)])
    async with desk(queries) as at:
        await at.press("4", "s")
        assert "the process of codex-1 is gone" in at.toasts[0]


async def test_watching_shows_everything_and_steers_nothing() -> None:
    async with desk(watching=True) as at:
        assert "watching" in at.lines[0]
        await at.press("s", "u", "p", "1", "s")
        assert at.engine.commands == []
        assert len(at.toasts) == 4
        assert all("only watches" in toast for toast in at.toasts)
        await at.press("2", "enter")
        assert at.shows(DetailScreen)
        await at.press("u")
        assert at.engine.commands == []


async def test_clicking_the_footer_does_what_its_key_does() -> None:
    async with desk() as at:
        x = at.footer.index("u release")
        await at.pilot.click("#keys", offset=(x + 1, 0))
        await at.settle()
        assert at.engine.commands == [Release(("impl:T-004",))]


# -- help, detail, quit ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_help_names_every_action_and_scrolls(size: tuple[int, int]) -> None:
    async with desk(size=size) as at:
        await at.press("?")
        assert at.shows(HelpScreen)
        lines = at.app.screen.query_one(Document).lines
        text = " ".join("".join(cell for cell, _ in line) for line in lines)
        flat = " ".join(text.split())
        for action in ACTIONS:
            assert all(word in flat for word in action.help.split())
        await at.press("G", "escape")
        assert at.shows(MainScreen)
        await at.press("?", "?")
        assert at.shows(MainScreen)


async def test_enter_shows_the_task_and_escape_goes_back() -> None:
    async with desk() as at:
        await at.press("j", "enter")
        for words in (
            "Concurrency tests", "Definition", "pytest -q tests/race", "Depends on nothing",
            "Needed by 1", "integrate:all", "tests:race is running.", "codex-1 started tests:race",
        ):  # fmt: skip
            assert words in at.screen
        await at.press("escape")
        assert at.shows(MainScreen)
        assert at.current_task == "tests:race"


async def test_enter_on_a_worker_a_stale_worker_and_an_event_opens_their_task() -> None:
    async with desk() as at:
        for keys, name in (
            (("1",), "impl:T-004"),
            (("4",), "research:api"),
            (("3",), "docs:status"),
        ):
            await at.press(*keys, "enter")
            assert name in at.lines[0]
            await at.press("escape")


async def test_the_detail_screen_is_live_and_steers_its_task() -> None:
    async with desk() as at:
        await at.press("j", "enter", "u", "s")
        assert at.engine.commands == [Release(("tests:race",)), Stop(("codex-1",))]
        at.engine.queries.all_tasks[1] = ended("tests:race", State.DONE, "codex-1", 44)
        await at.change()
        assert "✓ done" in at.lines[0]
        await at.press("u")
        assert at.toasts[-1] == "tests:race is done: no worker holds it"
        del at.engine.queries.all_tasks[1]
        await at.change()
        assert "this task is gone" in at.screen
        await at.press("escape")
        assert at.shows(MainScreen)


async def test_detail_panes_are_chosen_zoomed_and_scrolled_by_the_same_keys() -> None:
    async with desk(size=(120, 24)) as at:
        await at.press("enter", "z")
        assert "▌1 Task" in at.lines[1]
        await at.press("G", "g", "j", "k", "pagedown", "pageup")
        await at.press("4")
        assert "impl:T-004: Edit src/api/routes.py" in at.screen
        await at.press("tab")
        assert "▌1 Task" in at.lines[1]
        await at.press("escape")
        assert at.shows(DetailScreen)
        await at.press("escape")
        assert at.shows(MainScreen)


async def test_q_quits_at_once_when_nothing_runs_here() -> None:
    async with desk() as at:
        await at.pilot.press("q")
        await at.pilot.pause()
        assert not at.app.is_running
        assert at.engine.stopped == []


@pytest.mark.parametrize("keys", [("q",), ("ctrl+q",), ("ctrl+c",), ("?", "q"), ("enter", "q")])
async def test_quitting_asks_from_every_screen_while_runs_are_alive(keys: tuple[str, ...]) -> None:
    async with desk() as at:
        at.engine.runs = 2
        await at.press(*keys)
        assert at.shows(Question)
        assert "2 runs of this dashboard are alive" in at.screen
        await at.press("escape")
        assert at.app.is_running
        assert at.engine.stopped == []


@pytest.mark.parametrize("key", ["y", "enter"])
async def test_yes_stops_and_releases_the_runs_and_then_leaves(key: str) -> None:
    async with desk() as at:
        at.engine.runs = 1
        await at.press("q")
        await at.pilot.press(key)
        await at.pilot.pause()
        assert at.engine.stopped == [False]
        assert not at.app.is_running


async def test_w_waits_for_the_runs_and_a_second_q_can_hurry() -> None:
    async with desk() as at:
        at.engine.runs = 2
        at.engine.may_stop.clear()
        await at.press("q", "w")
        assert at.engine.stopped == [True]
        assert "quits when 2 runs end" in at.lines[0]
        await at.press("j")
        assert at.current_task == "tests:race"
        await at.press("q")
        assert "Waiting for 2 runs to end" in at.screen
        await at.press("w")
        assert at.shows(Question)
        await at.press("escape", "q")
        await at.pilot.press("y")
        at.engine.may_stop.set()
        await at.pilot.pause()
        assert at.engine.stopped == [True, False]
        async with asyncio.timeout(10):
            while at.app.is_running:  # noqa: ASYNC110 - leaving has no event
                await asyncio.sleep(0.01)


async def test_every_builtin_theme_has_a_colour_for_each_meaning() -> None:
    async with desk(size=(80, 24)) as at:
        for theme in at.app.available_themes:
            at.app.theme = theme
            await at.pilot.pause()
            for name in ("running", "ready", "waiting", "done", "failed", "human", "stale"):
                assert at.app.theme_variables[name]


def test_every_action_has_its_own_keys_and_a_sentence() -> None:
    keys = [key for action in ACTIONS for key in action.keys]
    assert len(keys) == len(set(keys))
    assert all(action.help and action.help[0].isupper() for action in ACTIONS)
    assert {action.name for action in ACTIONS if action.places and not action.label} == set()


async def test_ages_take_at_most_five_characters() -> None:
    queries = FakeQueries(
        all_tasks=[running("a", "codex-1", 10**seconds) for seconds in range(9)],
        all_workers=[worker("codex-1", running("a", "codex-1", 10**8), beat_at=ago(10**7))],
    )
    async with desk(queries) as at:
        for rows in (at.app.main.task_rows, at.app.main.worker_rows):
            for row in rows._rows:
                assert all(len(text) <= 5 for text, _ in rows.cells_of(row)[3:5][:1])  # type: ignore[arg-type]  # each list gets its own rows
