"""The dashboard under the fingers: every key that steers, opens a screen or leaves."""

from __future__ import annotations

import asyncio

import pytest
from support.desk import desk
from support.patience import PATIENCE
from support.screens import FakeQueries, ended, worker
from textual.events import Key

from engine.commands import Hold, Receipt, Refusal, Release, Resume, Stop
from engine.errors import Code, LeaseConflict
from engine.model import State
from tui.actions.model import Target
from tui.actions.table import ACTIONS
from tui.screens.detail import DetailScreen
from tui.screens.graph import GraphScreen
from tui.screens.help import HelpScreen
from tui.screens.main import MainScreen
from tui.screens.question import Question
from tui.widgets.document import Document, Layout

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
        async with asyncio.timeout(PATIENCE):
            while at.app.main.task_filter.input.value != "uu":
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


async def test_p_holds_all_claims_though_one_agent_is_held_and_resumes_all() -> None:
    async with desk() as at:
        at.engine.queries.held = ("gemini",)
        await at.change()
        assert "p hold" in at.footer
        await at.press("p")
        at.engine.queries.held = ("*", "gemini")
        await at.change()
        assert "HELD all" in at.lines[0]
        assert "p resume" in at.footer
        await at.press("p")
        assert at.engine.commands == [Hold(), Resume()]


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
        (LeaseConflict("impl:T-004 is held by host b"), "Release: impl:T-004 is held by host b"),
        (RuntimeError("boom"), "Release failed: boom"),
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
        (("r",), "impl:T-004 is running; K kills its run, u releases it"),
        (("1", "space", "u"), "the marks are on workers, and this is for tasks"),
        (("1", "space", "c"), "the marks are on workers, and this is for tasks"),
        (("G", "s"), "no worker holds spike:graphql"),
        (("1", "j", "j", "j", "u"), "codex-2 holds no task"),
        (("2", "/", *"xyzzy", "enter", "enter"), "nothing here to show"),
        (("1", "j", "j", "j", "j", "s"), "gemini-1 is stopping already"),
        (("3", "u"), "choose a task or a worker first"),
        (("3", "s"), "choose a worker first"),
    ],
)
async def test_an_action_that_makes_no_sense_says_why(keys: tuple[str, ...], reason: str) -> None:
    async with desk() as at:
        await at.press(*keys)
        (told,) = at.toasts
        assert told.startswith(reason)
        assert at.engine.commands == []
        assert at.engine.dry_runs == []


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
        assert len(at.toasts) == 1, "what is on the screen already is not said again"
        assert "only watches" in at.toasts[0]
        await at.press("2", "space")
        assert at.app.main.task_rows.marked == ()
        await at.press("enter")
        assert at.shows(DetailScreen)
        await at.press("u")
        assert at.engine.commands == []


async def test_clicking_the_footer_does_what_its_key_does() -> None:
    async with desk() as at:
        x = at.footer.index("u release")
        await at.pilot.click("#keys", offset=(x + 1, 0))
        await at.settle()
        assert at.engine.commands == [Release(("impl:T-004",))]


def test_every_action_has_its_own_keys_and_a_sentence() -> None:
    everywhere = [key for a in ACTIONS if not (a.local and a.places) for key in a.keys]
    assert len(everywhere) == len(set(everywhere))
    assert all(action.help and action.help[0].isupper() for action in ACTIONS)


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
            assert all(word in flat for word in action.full_help.split())
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


@pytest.mark.parametrize(
    ("keys", "laid_out"), [((), {"about", "runs-text"}), (("G",), {"about"})], ids=["runs", "ended"]
)
async def test_as_time_goes_by_only_what_ages_is_laid_out_again(
    keys: tuple[str, ...], laid_out: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: set[str | None] = set()
    show = Document.show

    def noted(document: Document, layout: Layout) -> None:
        shown.add(document.id)
        show(document, layout)

    async with desk() as at:
        await at.press(*keys, "enter")
        monkeypatch.setattr(Document, "show", noted)
        await at.engine.clock.sleep(1)
        at.app.tick()
        await at.settle()
        assert shown == laid_out
        await at.change()
        assert shown == {"about", "runs-text", "events-text"}, "nothing new is in the output"


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


@pytest.mark.parametrize("key", ["!", "h", "d", "T", "l", "w"])
async def test_the_key_of_a_screen_does_not_open_it_once_more_from_itself(key: str) -> None:
    async with desk() as at:
        await at.press(key)
        shown = at.app.screen
        await at.press(key)
        assert at.app.screen is shown
        (told,) = at.toasts
        assert "already" in told
        await at.press("escape")
        assert at.shows(MainScreen)


async def test_d_in_the_graph_goes_on_to_the_graph_around_another_task() -> None:
    async with desk() as at:
        await at.press("d", "right", "d")
        graph = at.app.screen
        assert isinstance(graph, GraphScreen)
        assert graph.target == Target("graph", graph.selection().opens)
        assert graph.target != Target("graph", "impl:T-004")
        await at.press("escape")
        assert at.shows(MainScreen)


@pytest.mark.parametrize("key", ["l", "d", "T"])
async def test_where_there_is_one_pane_z_says_so_and_escape_still_leaves(key: str) -> None:
    async with desk() as at:
        await at.press(key, "z")
        assert at.toasts == ["there is one pane here, and it has the whole screen"]
        await at.press("escape")
        assert at.shows(MainScreen)


async def test_below_100_columns_z_says_that_there_is_nothing_to_zoom() -> None:
    async with desk(size=(80, 24)) as at:
        await at.press("enter", "z")
        assert at.toasts == ["below 100 columns a pane has the whole screen anyway"]
        await at.press("escape")
        assert at.shows(MainScreen)


async def test_a_zoom_that_cannot_be_seen_any_longer_does_not_hold_up_escape() -> None:
    async with desk() as at:
        await at.press("enter", "z")
        await at.pilot.resize_terminal(80, 24)
        await at.settle()
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
        async with asyncio.timeout(PATIENCE):
            while at.app.is_running:  # noqa: ASYNC110 - leaving has no event
                await asyncio.sleep(0.01)
