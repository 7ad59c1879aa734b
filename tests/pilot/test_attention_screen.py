"""What needs a person, under the fingers: every key of the screen, and its troubles."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from support.desk import Desk, desk
from support.runs import need
from support.screens import FakeEngine, busy, running, worker

from engine.commands import (
    Acknowledge,
    Cancel,
    Command,
    Hold,
    Kill,
    Receipt,
    Release,
    Resume,
    Retry,
    Stop,
)
from engine.errors import StorageError
from engine.views import AttentionRow, Need
from tui import look
from tui.actions.model import Target
from tui.actions.table import ACTIONS
from tui.keymap import Keymap
from tui.screens.attention import AttentionScreen
from tui.screens.main import MainScreen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LEAVE = {"quit", "back"}

LONG = "needs you: command not allowed: ssh " + "and much more is to be said " * 8 + "in the end"


def needs() -> list[AttentionRow]:
    """Return one of each kind, oldest first."""
    return [
        need("human", Need.HUMAN, "deploy:staging", 5000, LONG, task_id="deploy:staging"),
        need("exhausted", Need.EXHAUSTED, "lint:types", 95, "failed", task_id="lint:types"),
        need("stale", Need.STALE, "gemini-2", 72, "no sign of life", worker_id="gemini-2"),
        need("orphan", Need.ORPHAN, "01J77", 50, "3 processes of a run: pids 4711, 4712"),
        need("alert", Need.ALERT, "disk", 3, "the disk is nearly full"),
    ]


@asynccontextmanager
async def attention(
    rows: list[AttentionRow] | None = None,
    *,
    size: tuple[int, int] = (120, 40),
    watching: bool = False,
    engine: FakeEngine | None = None,
) -> AsyncIterator[tuple[Desk, AttentionScreen]]:
    engine = engine or FakeEngine(busy())
    engine.needs = needs() if rows is None else rows
    async with desk(engine=engine, size=size, watching=watching) as at:
        await at.press("!")
        screen = at.app.screen
        assert isinstance(screen, AttentionScreen)
        yield at, screen


def told(screen: AttentionScreen) -> str:
    return "\n".join("".join(cell for cell, _ in line) for line in screen.about.lines)


# -- what is shown ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_each_need_has_its_symbol_its_age_and_its_words(size: tuple[int, int]) -> None:
    async with attention(size=size) as (at, screen):
        for row in needs():
            symbol, word, _ = look.need_look(row.need)
            line = next(line for line in at.lines if f" {row.subject} " in line and word in line)
            assert symbol in line
        assert screen.rows.total == 5
        assert "Needs you  5 things" in at.lines[0]
        assert "1h23m" in at.screen


async def test_the_oldest_is_under_the_cursor_and_told_in_full() -> None:
    async with attention() as (at, screen):
        assert screen.rows.current is not None
        assert screen.rows.current.subject == "deploy:staging"
        assert " ".join(told(screen).split()).count("much more is to be said") == 8
        assert "in the end" in at.screen
        await at.press("j")
        assert "in the end" not in told(screen)
        assert "lint:types" in told(screen)


async def test_what_can_be_pressed_is_told_for_each_need() -> None:
    async with attention() as (at, screen):
        text = told(screen)
        assert "r   Make a finished or blocked task ready again" in text
        assert "c   Cancel the task" in text
        assert "u   " not in text
        await at.press("j", "j")
        text = told(screen)
        assert "s   Stop the worker" in text
        assert "K   Kill" in text
        assert "u   Take the task from its worker" in text
        assert "r   " not in text


async def test_what_can_be_pressed_are_the_keys_in_force() -> None:
    async with attention() as (at, screen):
        at.app.keymap = Keymap({"retry": ("ctrl+r",)})
        await at.press("j")
        assert "^r  Make a finished or blocked task ready again" in told(screen)


async def test_when_nothing_needs_anybody_it_says_so() -> None:
    async with attention([]) as (at, screen):
        assert "nothing needs you" in at.screen
        assert told(screen) == ""
        await at.press("enter", "K", "r", "j", "G")
        assert at.shows(AttentionScreen)
        assert at.engine.commands == []


async def test_what_others_wrote_cannot_act_on_the_terminal() -> None:
    bad = "\x1b]52;c;aGk=\x07\x9b2J[red]\u202e"
    rows = [need("x", Need.ALERT, f"s{bad}", 5, f"w{bad}\n{bad}", worker_id=f"w{bad}")]
    async with attention(rows) as (at, _screen):
        assert all(line.isprintable() for line in at.lines)
        assert "w[red]" in at.screen


async def test_the_cursor_stays_on_its_need_while_others_come_and_go() -> None:
    async with attention() as (at, screen):
        await at.press("j", "j")
        at.engine.needs = [need("older", Need.ALERT, "clock", 9000, "it jumped"), *needs()[1:]]
        await at.change()
        assert screen.rows.current is not None
        assert screen.rows.current.subject == "gemini-2"
        at.engine.needs = needs()[:1]
        await at.change()
        assert screen.rows.total == 1
        assert screen.rows.current is not None


async def test_a_thousand_needs_are_painted_by_the_window() -> None:
    rows = [need(f"k{n}", Need.HUMAN, f"task-{n}", 5000 - n, "waits") for n in range(1000)]
    async with attention(rows) as (at, screen):
        await at.press("G")
        assert screen.rows.current is not None
        assert screen.rows.current.subject == "task-999"
        assert len(screen.rows._rows) < 150
        await at.press("pageup", "g")
        assert screen.rows.current is not None
        assert screen.rows.current.subject == "task-0"


async def test_it_looks_again_every_five_seconds_though_nothing_was_committed() -> None:
    async with attention([]) as (at, screen):
        at.engine.needs = needs()
        assert screen.rows.total == 0
        for _ in range(5):
            at.app.tick()
            await at.settle()
        assert screen.rows.total == 5


# -- settling --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "command"),
    [
        (("r",), Retry(("deploy:staging",))),
        (("c", "y"), Cancel(("deploy:staging",))),
        (("j", "r"), Retry(("lint:types",))),
        (("j", "j", "s"), Stop(("gemini-2",))),
        (("j", "j", "u"), Release(("research:api",))),
        (("j", "j", "K", "y"), Kill(("research:api",))),
    ],
)
async def test_a_key_settles_the_need_under_the_cursor(
    keys: tuple[str, ...], command: Command
) -> None:
    async with attention() as (at, _screen):
        at.engine.receipt = Receipt(done={"it": "is done"})
        for key in keys:
            await at.press(key)
        assert at.engine.commands == [command]


def held(agent: str = "claude") -> AttentionRow:
    words = f"claims are held for agent {agent!r} (its CLI is not logged in)"
    return need(f"login:{agent}", Need.ALERT, agent, 30, words, held=agent)


async def test_p_on_held_claims_resumes_them_alone_and_is_told_among_what_can_be_done() -> None:
    engine = FakeEngine(busy())
    engine.queries.held = ("claude", "gemini")
    async with attention([held()], engine=engine, size=(80, 24)) as (at, screen):
        assert "p resume claude" in at.footer
        await at.press("2")
        assert "p   Resume the claims of claude" in told(screen)
        await at.press("p")
        assert at.engine.commands == [Resume("claude")]


async def test_p_acts_on_the_agent_of_the_row_and_on_all_where_there_is_none() -> None:
    async with attention() as (at, _screen):
        await at.press("j", "j")
        assert "p hold gemini" in at.footer
        await at.press("p")
        at.engine.queries.held = ("*",)
        await at.change()
        assert "p resume  " in at.footer
        await at.press("p", "j")
        at.engine.queries.held = ("gemini",)
        await at.change()
        await at.press("p")
        assert at.engine.commands == [Hold("gemini"), Resume(), Hold()]


@pytest.mark.parametrize("watching", [False, True])
async def test_the_footer_offers_only_what_can_be_done_here(*, watching: bool) -> None:
    async with attention([], watching=watching) as (at, screen):
        offered = {piece.name for piece in screen.keys._pieces}
        assert not offered & {"stop", "kill", "release", "cancel", "retry", "detail", "log"}
        assert ("hold" in offered) is not watching
        at.engine.needs = needs()
        await at.change()
        offered = {piece.name for piece in screen.keys._pieces}
        assert "release" not in offered
        assert "detail" in offered
        assert ({"cancel", "retry"} <= offered) is not watching


async def test_keys_that_come_faster_than_reads_act_on_their_row() -> None:
    async with attention() as (at, _screen):
        gate = asyncio.Event()

        async def wait(_name: str) -> None:
            await gate.wait()

        at.engine.queries.gate = wait
        await at.pilot.press("j", "r")
        assert at.engine.commands == [Retry(("lint:types",))]
        gate.set()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (("u",), "no worker holds it"),
        (("j", "s"), "no worker holds lint:types"),
        (("j", "j", "j", "K"), "choose a task or a worker first"),
    ],
)
async def test_a_key_that_settles_nothing_says_why(keys: tuple[str, ...], words: str) -> None:
    async with attention() as (at, _screen):
        await at.press(*keys)
        assert words in "\n".join(at.toasts)
        assert at.engine.commands == []


async def test_a_dashboard_that_watches_settles_nothing() -> None:
    async with attention(watching=True) as (at, screen):
        assert "r   " not in told(screen)
        for key in ("K", "u", "c", "r", "s"):
            await at.press(key)
        assert at.engine.commands == []
        assert "only watches" in at.toasts[0]


# -- going elsewhere -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "target"),
    [
        (("enter",), Target("detail", "deploy:staging")),
        (("j", "j", "enter"), Target("detail", "research:api")),
        (("j", "j", "w"), Target("worker", worker_id="gemini-2")),
        (("j", "l"), Target("log", "lint:types")),
        (("j", "t"), Target("transcript", "lint:types")),
    ],
)
async def test_a_key_opens_what_the_need_is_about(
    keys: tuple[str, ...], target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Target] = []
    async with attention() as (at, _screen):
        monkeypatch.setattr(at.app, "open", opened.append)
        await at.press(*keys)
        assert opened == [target]


async def test_enter_opens_a_worker_that_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(busy())
    engine.queries.all_workers.append(worker("lost-1", alive=False))
    opened: list[Target] = []
    rows = [need("s", Need.STALE, "lost-1", 9, "silent", worker_id="lost-1")]
    async with attention(rows, engine=engine) as (at, _screen):
        monkeypatch.setattr(at.app, "open", opened.append)
        await at.press("enter")
        await at.pilot.click("#needs-list", offset=(5, 1), times=2)
        await at.settle()
        assert opened == [Target("worker", worker_id="lost-1")] * 2


async def test_escape_leaves_zoom_then_the_screen() -> None:
    async with attention() as (at, screen):
        await at.press("z")
        assert "▌1 Needs" in at.lines[1]
        await at.press("escape")
        assert "▌1 Needs" not in at.lines[1]
        assert at.app.screen is screen
        await at.press("escape")
        assert at.shows(MainScreen)


async def test_number_keys_and_tab_choose_the_pane() -> None:
    async with attention() as (at, screen):
        for key, place in (("2", 1), ("1", 0), ("tab", 1), ("tab", 0), ("shift+tab", 1)):
            await at.press(key)
            assert screen.current is screen.panes[place]
            assert screen.focused is (screen.rows, screen.about)[place]


async def test_below_100_columns_the_panes_are_tabs() -> None:
    async with attention(size=(80, 24)) as (at, screen):
        assert "▌1 Needs 5" in at.lines[1]
        await at.press("j", "2")
        assert "lint:types" in at.screen
        assert "What you can do" in at.screen
        await at.pilot.click("#tabs", offset=(3, 0))
        await at.settle()
        assert screen.current is screen.panes[0]


async def test_no_key_of_the_table_breaks_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [key for action in ACTIONS for key in action.keys if action.name not in LEAVE]
    async with attention() as (at, screen):
        monkeypatch.setattr(at.app, "open", lambda _target: None)
        for key in keys:
            await at.press(key)
            while at.app.screen is not screen:
                await at.press("escape")
        assert at.app.is_running


async def test_an_agent_without_a_worker_says_so_in_the_head_and_gets_one_with_a() -> None:
    words = "no claude worker runs, and 1 task waits for one"
    lacking = replace(need("unserved:claude", Need.ALERT, "claude", 9, words), agent="claude")
    async with attention([lacking]) as (at, screen):
        assert words in at.screen
        assert "Start one more worker in this process" in at.screen
        assert screen.selection().agent == "claude"
        await at.press("escape")
        assert at.shows(MainScreen)
        at.app._aside.facts = replace(at.app._aside.facts, needs=(lacking,))
        at.app.main.tell(at.app._aside.facts)
        await at.settle()
        assert "no claude worker runs: a adds one" in at.lines[0]


# -- trouble ---------------------------------------------------------------------------------


class Broken(FakeEngine):
    """An engine that cannot say what needs anybody while it is told so."""

    trouble: Exception | None = None

    async def attention(self) -> list[AttentionRow]:
        if self.trouble is not None:
            raise self.trouble
        return await super().attention()


async def test_a_look_that_fails_shows_in_the_pane_and_heals() -> None:
    engine = Broken(busy())
    engine.trouble = RuntimeError("no such column: \x1b[31mx")
    async with attention(engine=engine) as (at, screen):
        assert "no such column: x" in at.screen
        assert "nothing needs you" not in at.screen
        engine.trouble = None
        at.app.tick()
        await at.settle()
        assert screen.rows.total == 5
        assert "no such column" not in at.screen


async def test_a_locked_store_keeps_the_rows_and_says_why_they_are_old() -> None:
    engine = Broken(busy())
    async with attention(engine=engine) as (at, screen):
        engine.trouble = StorageError("the database is locked")
        await at.change()
        assert screen.rows.total == 5
        assert "the database is locked" in at.lines[0]


async def test_a_task_that_cannot_be_read_is_told_beside_it() -> None:
    engine = FakeEngine(busy())
    async with attention(engine=engine) as (at, screen):
        engine.queries.broken["detail"] = StorageError("the database is locked")
        await at.change()
        assert "Details  the database is locked" in at.screen
        await at.press("r")
        assert at.engine.commands == []
        engine.queries.broken.clear()
        await at.change()
        await at.press("r")
        assert at.engine.commands == [Retry(("deploy:staging",))]
        assert screen.rows.total == 5


async def test_a_task_that_is_gone_is_no_trouble() -> None:
    rows = [need("human", Need.HUMAN, "gone:task", 5, "waits", task_id="gone:task")]
    async with attention(rows) as (at, _screen):
        await at.press("r")
        assert "choose a task first" in "\n".join(at.toasts)
        assert at.shows(AttentionScreen)


async def test_a_need_of_a_task_that_runs_names_its_worker() -> None:
    engine = FakeEngine(busy())
    engine.queries.all_tasks.append(running("slow", "codex-9", 90_000))
    engine.queries.all_workers.append(worker("codex-9", engine.queries.all_tasks[-1]))
    rows = [need("stuck", Need.ALERT, "slow", 5, "runs for very long", task_id="slow")]
    async with attention(rows, engine=engine) as (at, _screen):
        await at.press("s")
        assert at.engine.commands == [Stop(("codex-9",))]


# -- alerts ----------------------------------------------------------------------------------


def alerts() -> list[AttentionRow]:
    return [
        need("alert:7", Need.ALERT, "app.log", 60, "2 lines in app.log: ERROR", alert=7),
        need("alert:8", Need.ALERT, "db.log", 5, "1 line in db.log: FAILED", alert=8),
    ]


async def test_an_alert_is_told_with_its_lines_and_acknowledged() -> None:
    engine = FakeEngine(busy())
    engine.texts = {7: "# 2 lines in app.log\n\n    ERROR one\n    ERROR two"}
    async with attention(alerts(), engine=engine) as (at, screen):
        text = told(screen)
        assert "A   Acknowledge the alert" in text
        assert "ERROR two" in text
        await at.press("enter")
        assert "stands in the second pane" in "\n".join(at.toasts)
        await at.press("A")
        assert at.engine.commands == [Acknowledge((7,))]
        await at.press("j")
        assert "ERROR two" not in told(screen)
        await at.press("A")
        assert at.engine.commands[1:] == [Acknowledge((8,))]


async def test_what_is_no_alert_is_not_acknowledged() -> None:
    async with attention() as (at, _screen):
        await at.press("G", "A")
        assert at.engine.commands == []
        assert "only alerts are acknowledged" in at.screen


async def test_lines_that_cannot_be_read_are_told_so() -> None:
    class Unreadable(FakeEngine):
        async def alert_text(self, number: int) -> str:
            raise StorageError(f"{number}.md: Permission denied")

    async with attention(alerts(), engine=Unreadable(busy())) as (at, _screen):
        assert "Permission denied" in at.screen
        await at.press("A")
        assert at.engine.commands == [Acknowledge((7,))]
