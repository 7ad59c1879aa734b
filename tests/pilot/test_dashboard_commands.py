"""Commands that ask first: the dry run in words, the answer, what is done, and what is told."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from support.desk import desk
from support.patience import PATIENCE
from support.screens import NOW, FakeEngine, busy

from engine.commands import (
    AddWorkers,
    Cancel,
    EndedRun,
    Kill,
    KillWorkers,
    Purge,
    Receipt,
    Refusal,
    Release,
    Reset,
    Retry,
    Seed,
    Step,
    Stop,
)
from engine.errors import Code, LeaseConflict, StorageError
from tui import dagfile
from tui.screens.choosing import Choosing, Showing
from tui.screens.main import MainScreen
from tui.screens.question import Question

if TYPE_CHECKING:
    from pathlib import Path

    from support.desk import Desk

KILLED = Receipt(
    done={"impl:T-004": "killed; its run by claude-1 ended"},
    counts={"killed": 1, "runs ended": 1, "tasks blocked by it": 3},
    ends=(EndedRun("run-impl:T-004", "impl:T-004", "claude-1", (501, 502)),),
)


def planned(at: Desk, receipt: Receipt) -> None:
    at.engine.plan = at.engine.receipt = receipt


def flat(at: Desk) -> str:
    """What is on the screen, without frames and line breaks."""
    return " ".join(at.screen.replace("│", " ").split())


# -- asking ----------------------------------------------------------------------------------


async def test_kill_says_what_ends_and_what_goes_on_and_asks() -> None:
    async with desk() as at:
        planned(at, KILLED)
        await at.press("K")
        assert at.shows(Question)
        assert at.engine.commands == []
        assert at.engine.dry_runs == [Kill(("impl:T-004",))]
        pid = next(w.pid for w in at.engine.queries.all_workers if w.id == "claude-1")
        text = flat(at)
        assert "1 run gets SIGTERM (pids 501, 502)" in text
        assert "1 task → FAILED" in text
        assert "3 tasks blocked by it" in text
        assert "ends the run of impl:T-004 by claude-1: processes 501, 502" in text
        assert f"worker claude-1 (process {pid}) goes on with the next task" in text
        await at.press("y")
        assert at.engine.commands == [Kill(("impl:T-004",))]
        assert at.toasts == ["impl:T-004: killed; its run by claude-1 ended"]
        assert at.shows(MainScreen)


@pytest.mark.parametrize(
    ("keys", "command"),
    [
        (("K",), Kill(("impl:T-004",))),
        (("c",), Cancel(("impl:T-004",))),
        (("S",), Seed()),
        (("R",), Reset()),
        (("1", "K"), KillWorkers(("claude-1",))),
        (("1", "c"), Cancel(("impl:T-004",))),
        (("4", "K"), KillWorkers(("gemini-2",))),
        (("enter", "K"), Kill(("impl:T-004",))),
        (("D",), Purge(("impl:T-004",))),
        (("enter", "c"), Cancel(("impl:T-004",))),
        (("3", "S"), Seed()),
        (("enter", "R"), Reset()),
    ],
)
@pytest.mark.parametrize("answer", ["y", "enter", "n", "escape"])
async def test_what_can_hurt_is_done_only_after_a_yes(
    keys: tuple[str, ...], command: object, answer: str
) -> None:
    async with desk() as at:
        planned(at, Receipt(done={"x": "done"}, counts={"created": 1}))
        await at.press(*keys)
        assert at.shows(Question)
        assert at.engine.dry_runs == [command]
        assert at.engine.commands == []
        await at.press(answer)
        assert not at.shows(Question)
        assert at.engine.commands == ([command] if answer in {"y", "enter"} else [])


async def test_an_answer_can_be_clicked() -> None:
    async with desk() as at:
        planned(at, KILLED)
        await at.press("K")
        row = next(n for n, line in enumerate(at.lines) if "leave it" in line)
        await at.pilot.click(offset=(at.lines[row].index("leave it"), row))
        await at.settle()
        assert at.shows(MainScreen)
        assert at.engine.commands == []


async def test_retry_and_release_ask_nothing_for_one_task() -> None:
    async with desk() as at:
        await at.press("u")
        await at.press(*("j" for _ in range(7)))
        assert at.current_task == "lint:types"
        await at.press("r")
        assert at.engine.dry_runs == []
        assert at.engine.commands == [Release(("impl:T-004",)), Retry(("lint:types",))]


async def test_a_command_that_would_do_nothing_says_so_and_asks_nothing() -> None:
    async with desk() as at:
        refusal = Refusal("impl:T-004", Code.LEASE_CONFLICT, "it is over already")
        planned(at, Receipt(refused=(refusal,)))
        await at.press("K")
        assert at.shows(MainScreen)
        assert at.toasts == ["impl:T-004: it is over already"]
        planned(at, Receipt(counts={"unchanged": 26}))
        await at.press("S")
        assert at.shows(MainScreen)
        assert at.toasts[1:] == ["nothing would change"]
        assert at.engine.commands == []


async def test_a_long_plan_that_changes_nothing_can_be_read_but_not_agreed_to() -> None:
    async with desk() as at:
        refused = (Refusal(f"t-{n}", Code.LEASE_CONFLICT, f"it is over, {n}") for n in range(9))
        planned(at, Receipt(refused=tuple(refused)))
        await at.press("K")
        assert "t-8 it is over, 8" in flat(at)
        for key in ("y", "enter"):
            await at.press(key)
            assert at.engine.commands == []
        await at.press("escape")
        assert at.shows(MainScreen)


async def test_ctrl_c_is_no_yes() -> None:
    async with desk() as at:
        planned(at, KILLED)
        await at.press("K", "ctrl+c")
        assert at.engine.commands == []


async def test_a_dry_run_that_fails_is_told_and_nothing_is_done() -> None:
    async with desk() as at:
        at.engine.refusal = LeaseConflict("line 4: no such field [x]")
        await at.press("S")
        assert at.shows(MainScreen)
        assert at.toasts == ["Reseed: line 4: no such field [x]"]
        assert at.engine.commands == []


async def test_a_long_plan_scrolls_and_can_still_be_answered() -> None:
    async with desk(size=(80, 24)) as at:
        done = {f"task-{n:03d}": "updated: timeout 3600 → 5" for n in range(300)}
        planned(at, Receipt(done=done, counts={"updated": 300}))
        await at.press("S")
        assert "300 updated" in at.screen
        assert "task-299" not in at.screen
        assert "y enter reseed" in at.screen
        await at.press("G")
        assert "task-299" in at.screen
        await at.press("y")
        assert at.engine.commands == [Seed()]


async def test_reseed_shows_each_difference_field_by_field() -> None:
    async with desk() as at:
        done = {"new:one": "created", "impl:T-004": 'updated: name "a" → "b"; timeout 60 → 5'}
        planned(at, Receipt(done=done, counts={"created": 1, "updated": 1, "unchanged": 24}))
        await at.press("S")
        text = flat(at)
        assert "new:one created" in text
        assert 'updated: name "a" → "b"; timeout 60 → 5' in text


# -- marks -----------------------------------------------------------------------------------


async def test_marked_rows_are_done_together_after_a_yes_and_lose_their_marks() -> None:
    async with desk() as at:
        done = dict.fromkeys(("impl:T-004", "docs:status"), "released")
        planned(at, Receipt(done=done, counts={"released": 2}))
        await at.press("space", "j", "space")
        assert "2 marked" in at.screen
        await at.press("G", "u")
        assert at.engine.dry_runs == [Release(("impl:T-004", "research:api"))]
        assert at.shows(Question)
        await at.press("y")
        assert at.engine.commands == [Release(("impl:T-004", "research:api"))]
        assert "marked" not in at.screen


async def test_marks_stay_if_the_answer_is_no_and_escape_takes_them_away() -> None:
    async with desk() as at:
        planned(at, Receipt(done={"impl:T-004": "cancelled"}))
        await at.press("space", "c", "n")
        assert "1 marked" in at.screen
        await at.press("escape")
        assert "marked" not in at.screen
        assert at.engine.commands == []


async def test_all_that_the_filter_shows_can_be_marked_at_once() -> None:
    async with desk() as at:
        planned(at, Receipt(done={"x": "retried"}))
        await at.press("/", *"state:failed", "enter", "ctrl+a", "r", "y")
        assert at.engine.commands == [Retry(("lint:types",))]
        await at.press("ctrl+a")
        assert "1 marked" in at.screen
        await at.press("ctrl+a")
        assert "marked" not in at.screen


async def test_workers_can_be_marked_and_stopped_together() -> None:
    async with desk() as at:
        planned(at, Receipt(done=dict.fromkeys(("claude-1", "claude-2"), "stopped")))
        await at.press("1", "space", "space", "s", "y")
        assert at.engine.commands == [Stop(("claude-1", "claude-2"))]


async def test_what_is_to_be_marked_elsewhere_does_not_count_here() -> None:
    async with desk() as at:
        await at.press("space", "1", "s")
        assert at.engine.commands == [Stop(("claude-1",))]


# -- receipts --------------------------------------------------------------------------------


async def test_the_mark_of_a_stale_worker_that_is_back_is_gone() -> None:
    async with desk() as at:
        await at.press("4", "space")
        assert at.app.main.stale_rows.marked == ("gemini-2",)
        workers = at.engine.queries.all_workers
        workers[5] = replace(workers[5], beat_at=NOW)
        await at.change()
        at.app.tick()
        assert not at.app.main.selection().marked


async def test_marking_all_of_a_store_that_cannot_be_read_says_why() -> None:
    async with desk() as at:
        at.engine.queries.broken["task_ids"] = StorageError("disk I/O error")
        await at.press("ctrl+a")
        assert at.toasts == ["disk I/O error"]
        assert at.app.main.task_rows.marked == ()


async def test_every_refusal_of_a_bulk_command_can_be_read() -> None:
    async with desk() as at:
        refused = tuple(
            Refusal(f"task-{n}", Code.LEASE_CONFLICT, f"because of {n}") for n in range(30)
        )
        planned(at, Receipt(done={"impl:T-004": "released"}, refused=refused))
        await at.press("space", "u")
        assert "27 refused for other reasons" in flat(at)
        await at.press("y")
        assert at.shows(Question)
        await at.press("g")
        assert "task-0 because of 0" in flat(at)
        for _ in range(3):
            await at.press("pagedown")
        assert "task-29 because of 29" in flat(at)
        await at.press("escape")
        assert at.shows(MainScreen)


# -- reset -----------------------------------------------------------------------------------

WAITING = Step(
    "waiting for workers to stop", 0, ("w1 (pid 77) with gated",), 12.0, "then the log is rotated"
)


async def resetting(at: Desk) -> None:
    at.engine.may_step.clear()
    at.engine.steps = [WAITING]
    planned(at, Receipt(done={"w1": "stopped"}, counts={"workers stopped": 1}))
    await at.press("R", "y")
    async with asyncio.timeout(PATIENCE):
        while "waiting for workers to stop" not in at.screen:
            await at.pilot.pause(0.01)


async def test_reset_shows_whom_it_waits_for_and_what_comes_next() -> None:
    async with desk() as at:
        await resetting(at)
        text = flat(at)
        assert "w1 (pid 77) with gated" in text
        assert "12s left" in text
        assert "then the log is rotated" in text
        at.engine.may_step.set()
        await at.settle()
        assert at.shows(MainScreen)
        assert at.toasts == ["w1: stopped"]


async def test_a_reset_can_be_hurried() -> None:
    async with desk() as at:
        await resetting(at)
        assert at.engine.hurry is not None
        assert not at.engine.hurry.is_set()
        await at.press("K")
        assert at.engine.hurry.is_set()
        at.engine.may_step.set()
        await at.settle()
        assert at.toasts == ["w1: stopped"]


async def test_a_reset_that_waits_can_be_given_up() -> None:
    async with desk() as at:
        await resetting(at)
        await at.press("escape")
        async with asyncio.timeout(PATIENCE):
            while not at.toasts:
                await at.pilot.pause(0.01)
        assert at.toasts == ["the reset is given up: claims go on"]
        assert at.shows(MainScreen)


async def test_a_reset_that_ends_under_another_question_leaves_no_screen_behind() -> None:
    async with desk() as at:
        at.engine.runs = 1
        await resetting(at)
        await at.press("ctrl+q")
        at.engine.may_step.set()
        async with asyncio.timeout(PATIENCE):
            while not at.toasts:
                await at.pilot.pause(0.01)
        await at.press("escape")
        assert at.shows(MainScreen)


# -- the DAG file ----------------------------------------------------------------------------


async def news(at: Desk, *, shown: bool) -> None:
    async with asyncio.timeout(PATIENCE):
        while ("changed: S" in at.lines[0]) is not shown:
            await at.app._look_at_file()
            at.app.tick()
            await at.pilot.pause(0.02)


async def test_a_dag_file_that_changes_on_disk_is_offered_until_it_is_seeded(
    tmp_path: Path,
) -> None:
    path = tmp_path / "dag.yaml"
    path.write_text("tasks: []")
    queries = busy()
    queries.dag = str(path)
    async with desk(queries, size=(160, 40)) as at:
        await at.app._look_at_file()
        path.write_text("tasks: [{id: a, agent: codex}]")
        await news(at, shown=True)
        planned(at, Receipt(done={"a": "created"}, counts={"created": 1}))
        await at.press("S", "y")
        await news(at, shown=False)


async def test_the_dag_file_is_never_looked_at_on_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, lookers = tmp_path / "dag.yaml", set()
    path.write_text("tasks: []")
    look = dagfile._look

    def noted(*arguments: Any) -> Any:
        lookers.add(threading.get_ident())
        return look(*arguments)

    monkeypatch.setattr(dagfile, "_look", noted)
    queries = busy()
    queries.dag = str(path)
    async with desk(queries, size=(160, 40)) as at:
        planned(at, Receipt(done={"a": "created"}, counts={"created": 1}))
        await at.press("S", "y")
        await at.app._look_at_file()
        path.write_text("tasks: [{id: a, agent: codex}]")
        await news(at, shown=True)
    assert lookers
    assert threading.get_ident() not in lookers


async def test_a_dashboard_that_only_watches_offers_no_reseed(tmp_path: Path) -> None:
    path = tmp_path / "dag.yaml"
    path.write_text("tasks: []")
    queries = busy()
    queries.dag = str(path)
    async with desk(queries, watching=True) as at:
        for _ in range(5):
            path.write_text(path.read_text() + " ")
            await at.app._look_at_file()
            at.app.tick()
            await at.settle()
        assert "changed: S" not in at.screen


# -- workers, columns, order -----------------------------------------------------------------


async def test_a_adds_a_worker_for_the_agent_that_one_chooses() -> None:
    async with desk() as at:
        await at.press("a")
        assert at.shows(Choosing)
        await at.press("j", "enter")
        assert at.engine.commands == [AddWorkers("codex")]


async def test_a_begins_at_the_agent_under_the_cursor_and_escape_adds_nobody() -> None:
    async with desk() as at:
        await at.press("1", "j", "j", "a", "enter")
        assert at.engine.commands == [AddWorkers("codex")]
        await at.press("a", "escape")
        assert at.shows(MainScreen)
        assert at.engine.commands == [AddWorkers("codex")]


async def test_a_asks_nothing_where_there_is_one_agent() -> None:
    queries = busy()
    queries.all_tasks = [row for row in queries.all_tasks if row.agent == "codex"]
    async with desk(queries) as at:
        await at.press("a")
        assert at.engine.commands == [AddWorkers("codex")]


async def test_a_without_tasks_says_what_to_do() -> None:
    queries = busy()
    queries.all_tasks = []
    async with desk(queries) as at:
        await at.press("a")
        assert at.toasts == ["no tasks, so no agent to work for: seed a DAG first"]


async def test_a_on_a_store_that_cannot_be_read_says_why() -> None:
    async with desk() as at:
        at.engine.queries.broken["agent_counts"] = StorageError("disk I/O error")
        await at.press("a")
        assert at.toasts == ["disk I/O error"]


async def test_o_sorts_by_the_next_column_and_shift_o_turns_the_order_round() -> None:
    async with desk() as at:
        await at.press("o", "o")
        assert at.app.main.task_rows.order.column == "id"
        assert at.current_task == "bench:store"
        await at.press("O")
        assert at.current_task == "tests:race"


async def test_v_hides_columns_and_shows_them_again() -> None:
    async with desk(size=(200, 60)) as at:
        header = next(line for line in at.lines if "now / why" in line)
        assert "agent" in header.split("│")[1]
        await at.press("v")
        assert at.shows(Showing)
        await at.press("j", "space", "enter")
        assert at.app.main.task_rows.hidden == {"agent"}
        header = next(line for line in at.lines if "now / why" in line)
        assert "agent" not in header.split("│")[1]
        await at.press("v", "j", "space", "escape")
        assert at.app.main.task_rows.hidden == {"agent"}


# -- leaving ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "drains", "kills"), [("y", False, False), ("w", True, False), ("K", False, True)]
)
async def test_quitting_ends_the_runs_in_the_way_that_was_chosen(
    answer: str, drains: bool, kills: bool
) -> None:
    engine = FakeEngine(busy())
    engine.runs = 2
    async with desk(engine=engine) as at:
        await at.press("q")
        assert "2 runs of this dashboard are alive" in at.screen
        await at.pilot.press(answer)
        async with asyncio.timeout(PATIENCE):
            while at.app.is_running:
                await at.pilot.pause(0.01)
        assert engine.stopped == [drains]
        assert engine.commands == ([KillWorkers(engine.mine)] if kills else [])
