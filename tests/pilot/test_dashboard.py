"""What the dashboard shows of a fleet, when it looks again, and how it bears trouble."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace
from support.desk import desk
from support.patience import PATIENCE
from support.screens import (
    FakeEngine,
    FakeQueries,
    ago,
    busy,
    ended,
    event,
    running,
    task,
    worker,
)

from engine.errors import StorageError
from engine.model import EventType, State
from engine.views import CriticalPath
from tui.app import Dashboard

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
        assert "codex-2" in at.screen
        assert "codex-9" not in at.screen


async def test_an_empty_pane_says_what_would_fill_it() -> None:
    async with desk(FakeQueries()) as at:
        assert "no workers: a adds one" in at.screen
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


async def test_the_time_that_is_left_runs_on_without_another_look_at_the_path() -> None:
    queries = busy()
    queries.path = CriticalPath(("impl:T-004",), 600.0)
    async with desk(queries, size=(160, 40)) as at:
        async with asyncio.timeout(PATIENCE):
            while "~10:00 left" not in at.lines[0]:
                await at.pilot.pause(0.01)
        await at.engine.clock.sleep(30)
        at.app.main.tick()
        await at.settle()
        assert "~9:30 left" in at.lines[0]


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


async def test_every_builtin_theme_has_a_colour_for_each_meaning() -> None:
    async with desk(size=(80, 24)) as at:
        for theme in at.app.available_themes:
            at.app.theme = theme
            await at.pilot.pause()
            for name in ("running", "ready", "waiting", "done", "failed", "human", "stale"):
                assert at.app.theme_variables[name]


async def test_ages_take_at_most_five_characters() -> None:
    queries = FakeQueries(
        all_tasks=[running("a", "codex-1", 10**seconds) for seconds in range(9)],
        all_workers=[worker("codex-1", running("a", "codex-1", 10**8), beat_at=ago(10**7))],
    )
    async with desk(queries) as at:
        tasks, workers = at.app.main.task_rows, at.app.main.worker_rows
        lines = [*map(tasks.cells_of, tasks._rows), *map(workers.cells_of, workers._rows)]
        columns = [tasks.COLUMNS] * 9 + [workers.COLUMNS]
        ages = [
            text
            for line, titled in zip(lines, columns, strict=True)
            for (text, _), column in zip(line, titled, strict=True)
            if column.title in {"time", "run", "lease", "♥"}
        ]
        assert len(ages) == 9 + 3
        assert all(0 < len(text) <= 5 for text in ages), ages


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
        assert any("▌ ✓  tests:race" in line for line in at.lines)


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
        for name in ("progress", "workers", "count_tasks", "event_span"):
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


@pytest.mark.parametrize("query", ["last_seq", "events", "progress"])
async def test_nothing_that_a_store_may_throw_takes_the_screen_with_it(query: str) -> None:
    async with desk() as at:
        await at.press("h")
        at.engine.queries.broken[query] = ValueError("a row that nobody can read")
        at.engine.queries.all_events.append(event(40, EventType.ALERT, 0))
        await at.change()
        await at.press("escape", "j")
        assert at.current_task == "tests:race"


async def test_what_was_mended_at_the_opening_is_told() -> None:
    engine = FakeEngine(busy())
    engine.notices = ["the log was [mended]"]
    async with desk(engine=engine) as at:
        assert at.toasts == ["the log was [mended]"]


async def test_a_dashboard_whose_engine_cannot_be_opened_leaves_with_1_at_once() -> None:
    engine = FakeEngine(busy())
    engine.failure = StorageError("no")
    app = Dashboard(engine, pace=0.01, ticks=None)
    async with app.run_test() as pilot, asyncio.timeout(PATIENCE):
        while app.is_running:
            await pilot.pause(0.01)
    assert app.return_code == 1


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
        async with asyncio.timeout(PATIENCE):
            await entered.wait()
        await at.engine.clock.sleep(3)
        at.app.tick()
        await at.pilot.pause()
        assert "store busy for 3s" in at.lines[0]
        gate.set()
        await at.settle()
