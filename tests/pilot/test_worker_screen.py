"""One worker, under the fingers: every key of the screen, and what it does with trouble."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from support.desk import Desk, desk
from support.runs import ago, ended_run, process, run
from support.screens import NOW, FakeEngine, busy, event, running, worker

from engine.commands import Cancel, Command, KillWorkers, Receipt, Release, Stop
from engine.errors import StorageError
from engine.model import EventType, RunOutcome, WorkerStatus
from tui import look
from tui.actions.model import Target
from tui.actions.table import ACTIONS
from tui.describe_fleet import worker_about
from tui.screens.main import MainScreen
from tui.screens.worker import WorkerScreen
from tui.widgets.cells import line_width

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from engine.views import ProcessRow, WorkerRow

LEAVE = {"quit", "back"}

WHO = "codex-1"
RUN = "run-tests:race"


def engine_with_past() -> FakeEngine:
    """Return an engine in which `WHO` holds tests:race with three processes, and has a past."""
    engine = FakeEngine(busy())
    engine.queries.every_run = [
        ended_run("r0", "other:task", 800, 5, worker_id="claude-1"),
        ended_run("r1", "impl:T-002", 400, 7),
        ended_run("r2", "lint:types", 300, 61, RunOutcome.FAILED, error="exit code 1: no"),
        run(RUN, "tests:race", 41),
    ]
    engine.processes[RUN] = [
        process(4711, 0, "pytest -q tests/race"),
        process(4712, 1, "python -m worker", cpu=102.4, memory=410 << 20),
        process(4713, 2, "git status", cpu=None, memory=1300 << 20),
    ]
    return engine


@asynccontextmanager
async def shown(
    engine: FakeEngine | None = None,
    *,
    who: str = WHO,
    size: tuple[int, int] = (120, 40),
    watching: bool = False,
) -> AsyncIterator[tuple[Desk, WorkerScreen]]:
    engine = engine or engine_with_past()
    async with desk(engine=engine, size=size, watching=watching) as at:
        at.app.open(Target("worker", worker_id=who))
        await at.settle()
        screen = at.app.screen
        assert isinstance(screen, WorkerScreen)
        yield at, screen


def set_worker(at: Desk, **more: object) -> None:
    rows = at.engine.queries.all_workers
    place = next(index for index, row in enumerate(rows) if row.id == WHO)
    rows[place] = replace(rows[place], **more)


async def tick(at: Desk, times: int = 1) -> None:
    for _ in range(times):
        at.app.tick()
        await at.settle()


# -- what is shown ---------------------------------------------------------------------------


async def test_w_shows_the_worker_under_the_cursor() -> None:
    async with desk(engine=engine_with_past()) as at:
        row = at.app.main.task_rows.current
        assert row is not None
        await at.press("w")
        assert at.shows(WorkerScreen)
        assert f" {row.claimed_by} " in at.lines[0]


async def test_it_tells_who_the_worker_is_and_what_it_holds() -> None:
    async with shown() as (at, _screen):
        for words in (
            "● working  41s",
            "tests:race",
            RUN,
            "Concurrency tests",
            "agent       codex",
            "alive",
            "09:57:46, 15:00 ago",
            "heartbeat   1s ago",
            "lease       9:19 left",
        ):
            assert words in at.screen, words
        assert "agentmux  codex-1  ● working" in at.lines[0]


async def test_it_shows_the_processes_of_its_run_as_a_tree() -> None:
    async with shown() as (at, _screen):
        root = next(line for line in at.lines if "4711" in line)
        child = next(line for line in at.lines if "4712" in line)
        grandchild = next(line for line in at.lines if "4713" in line)
        assert "12%" in root
        assert "88M" in root
        assert "102%" in child
        assert "410M" in child
        assert "1.3G" in grandchild
        assert root.rindex("pytest -q") + 2 == child.rindex("python")
        assert child.rindex("└ python") + 2 == grandchild.rindex("└ git")
        assert "3 processes, 114% 1.8G" in at.screen


async def test_the_processes_are_looked_at_every_two_seconds_and_not_more_often() -> None:
    async with shown() as (at, _screen):
        looks: list[str] = []
        real = at.engine.processes_of

        async def watched(run_id: str) -> list[ProcessRow]:
            looks.append(run_id)
            return await real(run_id)

        at.engine.processes_of = watched  # type: ignore[method-assign]  # counts what is asked
        at.engine.processes[RUN] = [process(9000, 0, "something new")]
        await tick(at, 6)
        assert looks == [RUN] * 3
        assert "something new" in at.screen


async def test_its_runs_are_its_own_newest_first() -> None:
    async with shown() as (at, screen):
        ids = [screen.rows._row(index) for index in range(screen.rows.total)]
        assert [row.id for row in ids if row is not None] == [RUN, "r2", "r1"]
        assert "other:task" not in at.screen


async def test_its_events_are_its_own_and_only_new_ones_are_looked_through() -> None:
    async with shown() as (at, screen):
        text = "\n".join("".join(c for c, _ in line) for line in screen.events_text.lines)
        assert "codex-1 started tests:race" in text
        assert "claude" not in text
        queries = at.engine.queries
        asked: list[tuple[int, int]] = []
        real = queries.event_seqs

        async def watched(where: object, *, after: int, upto: int) -> list[int]:
            asked.append((after, upto))
            return await real(where, after=after, upto=upto)  # type: ignore[arg-type]  # as it is given

        queries.event_seqs = watched  # type: ignore[method-assign]  # sees what is asked
        last = queries.all_events[-1].seq
        for number, who in ((1, WHO), (2, "claude-1")):
            data = {"message": f"said by {who}"}
            row = event(last + number, EventType.ALERT, 0, worker_id=who, data=data)
            queries.all_events.append(row)
        await at.change()
        assert asked == [(last, last + 2)]
        assert "said by codex-1" in at.screen
        assert "said by claude-1" not in at.screen


async def test_a_worker_that_holds_nothing_says_so_in_each_pane() -> None:
    engine = FakeEngine(busy())
    engine.queries.all_workers.append(worker("new-1"))
    async with shown(engine, who="new-1") as (at, _screen):
        assert "○ idle" in at.lines[0]
        assert "it holds no task: no process runs for it" in at.screen
        assert "it has not run anything yet" in at.screen
        assert "no events" in at.screen


async def test_a_run_without_processes_says_so() -> None:
    engine = engine_with_past()
    engine.processes.clear()
    async with shown(engine) as (at, _screen):
        assert "its run has no process of its own" in at.screen


async def test_a_worker_that_is_gone_stays_as_it_was_seen_last() -> None:
    async with shown() as (at, _screen):
        at.engine.queries.all_workers = []
        await at.change()
        assert "gone: as it was seen last" in at.lines[0]
        assert "tests:race" in at.screen
        assert "4711" in at.screen
        await at.press("K")
        assert at.engine.commands == []
        assert "choose a worker first" in at.toasts


async def test_a_worker_that_never_was_says_so() -> None:
    async with shown(who="nobody-7") as (at, _screen):
        assert "no such worker" in at.screen


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"status": WorkerStatus.STOPPED, "task_id": None, "run_id": None}, "· stopped"),
        ({"status": WorkerStatus.LOST, "task_id": None, "run_id": None}, "· lost"),
        ({"status": WorkerStatus.STOPPING}, "◑ stopping"),
        ({"alive": False}, "△ stale"),
    ],
)
async def test_the_head_says_how_the_worker_is(more: dict[str, object], words: str) -> None:
    async with shown() as (at, _screen):
        set_worker(at, **more)
        await at.change()
        assert words in at.lines[0]


async def test_a_process_that_dies_is_noticed_though_nothing_is_committed() -> None:
    async with shown() as (at, _screen):
        set_worker(at, alive=False)
        await tick(at, 2)
        assert "△ stale" in at.lines[0]
        assert "gone" in at.screen


async def test_what_others_wrote_cannot_act_on_the_terminal() -> None:
    bad = "\x1b]52;c;aGk=\x07\x9b2J[red]\u202e"
    engine = engine_with_past()
    engine.processes[RUN] = [process(1, 0, f"sh -c {bad}")]
    task = running(f"t{bad}", WHO, 5, name=f"n{bad}", run_id=RUN)
    engine.queries.all_tasks.append(task)
    engine.queries.all_workers = [worker(WHO, task, note=f"note {bad}")]
    async with shown(engine) as (at, _screen):
        assert all(line.isprintable() for line in at.lines)
        assert "note [red]" in at.screen
        assert "sh -c [red]" in at.screen


# -- acting ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "command"),
    [
        (("s",), Stop((WHO,))),
        (("u",), Release(("tests:race",))),
        (("c", "y"), Cancel(("tests:race",))),
        (("K", "y"), KillWorkers((WHO,))),
        (("3", "j", "s"), Stop((WHO,))),
    ],
)
async def test_a_key_acts_on_the_worker_or_on_what_it_holds(
    keys: tuple[str, ...], command: Command
) -> None:
    async with shown() as (at, _screen):
        at.engine.receipt = Receipt(done={"it": "is done"})
        for key in keys:
            await at.press(key)
        assert at.engine.commands == [command]


@pytest.mark.parametrize(
    ("keys", "target"),
    [
        (("enter",), Target("detail", "tests:race")),
        (("l",), Target("log", "tests:race")),
        (("2", "enter"), Target("detail", "tests:race")),
        (("3", "j", "l"), Target("log", "lint:types", "r2")),
        (("t",), Target("transcript", "tests:race")),
        (("3", "j", "t"), Target("transcript", "lint:types", "r2")),
    ],
)
async def test_a_key_opens_what_belongs_to_the_worker(
    keys: tuple[str, ...], target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Target] = []
    async with shown() as (at, _screen):
        monkeypatch.setattr(at.app, "open", opened.append)
        await at.press(*keys)
        assert opened == [target]


async def test_enter_and_a_double_click_on_a_run_open_its_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[Target] = []
    async with shown() as (at, _screen):
        monkeypatch.setattr(at.app, "open", opened.append)
        await at.press("3", "j", "enter")
        await at.pilot.click("#worker-runs-list", offset=(5, 3), times=2)
        await at.settle()
        assert opened == [Target("log", "lint:types", "r2"), Target("log", "impl:T-002", "r1")]


async def test_a_dashboard_that_watches_steers_nothing() -> None:
    async with shown(watching=True) as (at, _screen):
        for key in ("s", "K", "u", "c", "r"):
            await at.press(key)
        assert at.engine.commands == []


async def test_number_keys_and_tab_choose_the_pane() -> None:
    async with shown() as (at, screen):
        focused = (screen.about, screen.process_rows, screen.rows, screen.events_text)
        for key, place in (("2", 1), ("4", 3), ("3", 2), ("1", 0), ("tab", 1), ("shift+tab", 0)):
            await at.press(key)
            assert screen.current is screen.panes[place]
            assert screen.focused is focused[place]


async def test_keys_move_in_the_lists() -> None:
    async with shown() as (at, screen):
        await at.press("2", "j", "j", "k")
        assert screen.process_rows.cursor == 1
        await at.press("G", "3", "j", "G")
        assert screen.process_rows.cursor == 2
        assert screen.rows.cursor == 2
        await at.press("g")
        assert screen.rows.cursor == 0


async def test_the_cursor_stays_on_its_process_while_others_come() -> None:
    async with shown() as (at, screen):
        await at.press("2", "j")
        at.engine.processes[RUN].insert(1, process(4800, 1, "new child"))
        await tick(at, 2)
        assert screen.process_rows.current is not None
        assert screen.process_rows.current.pid == 4712


async def test_escape_leaves_zoom_then_the_screen() -> None:
    async with shown() as (at, screen):
        await at.press("2", "z")
        assert "▌2 Processes 3" in at.lines[1]
        await at.press("escape")
        assert "▌2 Processes" not in at.lines[1]
        assert at.app.screen is screen
        await at.press("escape")
        assert at.shows(MainScreen)


async def test_below_100_columns_the_panes_are_tabs() -> None:
    async with shown(size=(80, 24)) as (at, screen):
        assert "▌1 Worker" in at.lines[1]
        assert "heartbeat" in at.screen
        for key, words in (("2", "4711"), ("3", "lint:types"), ("4", "codex-1 started")):
            await at.press(key)
            assert words in at.screen
        await at.pilot.click("#tabs", offset=(3, 0))
        await at.settle()
        assert screen.current is screen.panes[0]


async def test_no_key_of_the_table_breaks_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [key for action in ACTIONS for key in action.keys if action.name not in LEAVE]
    async with shown() as (at, screen):
        monkeypatch.setattr(at.app, "open", lambda _target: None)
        for key in keys:
            await at.press(key)
            while at.app.screen is not screen:
                await at.press("escape")
        assert at.app.is_running


# -- trouble ---------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["workers", "count_runs", "event_seqs", "detail"])
async def test_a_query_that_fails_takes_nothing_else_with_it_and_heals(query: str) -> None:
    engine = engine_with_past()
    async with shown(engine) as (at, _screen):
        engine.queries.broken[query] = StorageError("the database is locked")
        await at.change()
        assert at.shows(WorkerScreen)
        for words in ("tests:race", "4711", "lint:types", "codex-1 started"):
            assert words in at.screen
        assert ("the database is locked" in at.screen) == (query != "detail")
        engine.queries.broken.clear()
        await tick(at)
        assert "locked" not in at.screen


async def test_what_was_never_read_shows_its_trouble_in_its_pane() -> None:
    engine = engine_with_past()
    engine.queries.broken["runs"] = RuntimeError("no such column: \x1b[31mx")
    async with shown(engine) as (at, _screen):
        assert "no such column: x" in at.screen
        assert "4711" in at.screen


class Broken(FakeEngine):
    """An engine that cannot look at processes."""

    async def processes_of(self, run_id: str) -> list[ProcessRow]:
        raise PermissionError(f"may not look at {run_id}")


async def test_processes_that_cannot_be_looked_at_show_why() -> None:
    whole = engine_with_past()
    engine = Broken(whole.queries)
    async with shown(engine) as (at, _screen):
        assert f"may not look at {RUN}" in at.screen
        assert "lint:types" in at.screen


# -- words -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0B"),
        (999, "999B"),
        (88 << 20, "88M"),
        (1000 << 20, "1.0G"),
        (1300 << 20, "1.3G"),
        (64 << 30, "64G"),
        (3 << 40, "3T"),
        (9999 << 40, "9999T"),
    ],
)
def test_memory_takes_five_characters_at_most(size: int, words: str) -> None:
    assert look.memory(size) == words
    assert len(words) <= 5


def test_cpu_takes_five_characters_at_most() -> None:
    assert [look.cpu(share) for share in (None, 0.2, 99.6, 1600.0, 1e9)] == [
        look.NOTHING, "0%", "100%", "1600%", "9999%",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [20, 40, 90])
def test_no_line_about_a_worker_is_wider_than_its_pane(width: int) -> None:
    task = running("i" * 200, WHO, 5, name="n" * 300)
    row: WorkerRow = worker(WHO, task, note="w" * 300, started_at=ago(9e6))
    for line in worker_about(row, task, NOW, 15, width):
        assert line_width(line) <= width
