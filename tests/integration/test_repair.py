"""What `doctor --repair` derives anew and says of it, and what it leaves to a human."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.checkup import errors, mends, repair, run_doctor
from support.damage import by_hand
from support.engines import Project, until
from support.finished import copied
from support.stores import a_task, everything, states_of, tuples

from engine.commands import Seed
from engine.core import Engine
from engine.findings import CAP

if TYPE_CHECKING:
    from pathlib import Path

    from support.stage import Stage

    from engine.files import Layout


@pytest.fixture
def layout(finished_with_purges: Path, tmp_path: Path) -> Layout:
    """A copy of its state, for one test to damage."""
    return copied(finished_with_purges, tmp_path)


async def test_a_healthy_store_is_left_as_it_is(layout: Layout) -> None:
    assert await errors(layout) == []
    before = everything(layout), layout.log.read_bytes()
    assert await repair(layout) == []
    assert (everything(layout), layout.log.read_bytes()) == before
    assert not layout.quarantine.exists()


@pytest.mark.parametrize(
    ("change", "check", "sentence"),
    [
        (
            "UPDATE tasks SET pending = 7 WHERE id = 'next'",
            "derived",
            "the deps of 1 task were counted anew",
        ),
        (
            "UPDATE tasks SET pending = pending + 1, broken = 1 WHERE id = 'waits'",
            "derived",
            "the deps of 1 task were counted anew",
        ),
        (
            "UPDATE tasks SET pending = 1 WHERE id = 'left'",
            "derived",
            "the deps of 1 task were counted anew",
        ),
        (
            "DELETE FROM edges WHERE dep = 'plan'",
            "derived",
            "2 deps added to the edges table",
        ),
        (
            "INSERT INTO edges VALUES ('waits', 'plan')",
            "derived",
            "1 dep removed from the edges table",
        ),
        ("UPDATE tallies SET n = n + 1", "derived", "the tasks were tallied anew"),
        ("DELETE FROM tallies", "derived", "the tasks were tallied anew"),
        (
            "INSERT INTO purged VALUES ('plan', 0)",
            "purged",
            "task 'plan', which is there, no longer counts as purged",
        ),
        (
            "UPDATE purged SET met = 0 WHERE id = 'gone-done'",
            "purged",
            "task 'gone-done' counts as purged done now",
        ),
        (
            "DELETE FROM purged WHERE id = 'gone-failed'",
            "purged",
            "task 'gone-failed' counts as purged unfinished again",
        ),
        (
            """UPDATE tasks SET reasons = '["human"]' WHERE id = 'plan'""",
            "derived",
            "task 'plan', which is DONE, has no reasons",
        ),
        (
            "UPDATE tasks SET run_id = 'r', claimed_by = 'w' WHERE id = 'plan'",
            "claims",
            "task 'plan' names no run any more",
        ),
        (
            "UPDATE runs SET outcome = NULL, ended_at = NULL WHERE task_id = 'broken'",
            "claims",
            "of task 'broken' is ended, as the log says",
        ),
        (
            "UPDATE tasks SET ending = 'r' WHERE id = 'next'",
            "endings",
            "run r is being ended again, so that task 'next' can be claimed",
        ),
        (
            (
                "INSERT INTO endings(run_id, task_id, agent, worker_id, since, host_pid,"
                " host_started) VALUES ('r', 'next', 'nobody', 'c', '2026-01-01T00:00:00.000Z',"
                " 0, '')"
            ),
            "endings",
            "task 'next' waits for the end of its former run r",
        ),
        (
            ("UPDATE workers SET status = 'live', pid_started = 'long ago' WHERE id = 'codex-1'"),
            "workers",
            "worker 'codex-1' counts as lost",
        ),
    ],
)
async def test_what_can_be_derived_is_derived_anew(
    layout: Layout, change: str, check: str, sentence: str
) -> None:
    before = tuples(layout, "SELECT id, state, pending, broken, reasons, ending FROM tasks")
    by_hand(layout, change)
    await mends(layout, check, sentence)
    assert tuples(layout, "SELECT id, state, pending, broken, reasons, ending FROM tasks") == before
    assert tuples(layout, "SELECT * FROM endings") == []


async def test_a_state_that_follows_from_what_was_mended_is_settled_and_told(
    layout: Layout,
) -> None:
    # As if the failure of `broken` had never reached what depends on it.
    by_hand(
        layout, "UPDATE tasks SET broken = 0, state = 'READY', reasons = '[]' WHERE id = 'after'"
    )
    (last,) = tuples(layout, "SELECT max(seq) FROM events")
    await mends(layout, "derived", "task 'after' is BLOCKED (upstream) now")
    assert states_of(layout)["after"] == "BLOCKED"
    told = tuples(layout, "SELECT type, task_id, state FROM events WHERE seq > ?", *last)
    assert told == [("TASK_BLOCKED", "after", "BLOCKED")]


async def test_what_is_blocked_for_no_reason_is_let_go_and_so_is_what_depends_on_it(
    layout: Layout,
) -> None:
    by_hand(
        layout,
        "UPDATE purged SET met = 0 WHERE id = 'gone-done'",
        """UPDATE tasks SET broken = 1, pending = 1, state = 'BLOCKED', reasons = '["upstream"]'
        WHERE id = 'left'""",
    )
    await mends(layout, "purged", "task 'left' is READY now")
    async with Engine(layout.state, project=layout.state.parent) as engine:
        await engine.start_worker("nobody", until_idle=True)
        await engine.wait_workers()
    states = states_of(layout)
    assert [states[task] for task in ("left", "next", "waits", "stuck")] == [
        *("DONE", "DONE", "DONE", "BLOCKED")
    ]
    assert await errors(layout) == []


@pytest.mark.usefixtures("no_polling")
async def test_a_task_whose_last_dep_was_counted_wrongly_is_claimed_at_once(
    layout: Layout,
) -> None:
    by_hand(layout, "UPDATE tasks SET pending = 2 WHERE agent = 'nobody' AND state = 'READY'")
    async with Engine(layout.state, project=layout.state.parent) as engine:
        await engine.start_worker("nobody")
        assert len(await engine.repair()) >= 1
        await until(lambda: states_of(layout)["waits"] == "DONE", "an idle worker is woken")
    assert await errors(layout) == []


async def test_many_mends_of_a_kind_are_counted(project: Project) -> None:
    async with project.engine() as engine:
        tasks = [a_task(f"t{n}", payload={"kind": "unheard-of"}) for n in range(CAP + 5)]
        await engine.execute(Seed(project.dag(*tasks)))
    by_hand(project.layout, "UPDATE tasks SET removed = 1")
    done = await repair(project.layout)
    assert [one for one in done if "and 5 more like this" in one]
    assert len(done) <= CAP + 3
    assert await errors(project.layout) == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE tasks SET state = 'DONE' WHERE id = 'broken'",
        "UPDATE tasks SET name = 'x' WHERE id = 'plan'",
        "UPDATE tasks SET state = 'READY', attempts = 0 WHERE id = 'plan'",
        "DELETE FROM events WHERE seq = 3",
    ],
)
async def test_what_was_changed_by_hand_is_not_decided_but_told(
    layout: Layout, change: str
) -> None:
    by_hand(layout, change)
    column = "name, state, attempts"
    before = tuples(layout, f"SELECT {column} FROM tasks WHERE id IN ('broken', 'plan')")
    log = layout.log.read_bytes()
    await repair(layout)
    assert tuples(layout, f"SELECT {column} FROM tasks WHERE id IN ('broken', 'plan')") == before
    left = await errors(layout)
    assert {one.check for one in left} <= {"fold", "events", "log"}
    assert left
    assert all("rebuilds it from the log" in one.advice for one in left)
    assert layout.log.read_bytes().startswith(log), "the log may know more than the table"


async def test_mending_the_books_does_not_touch_what_runs(project: Project, stage: Stage) -> None:
    async with project.engine() as engine:
        tasks = (a_task("t", payload={"kind": "stage"}), a_task("next", "t"))
        await engine.execute(Seed(project.dag(*tasks)))
        await engine.start_worker("codex")
        await until(lambda: stage.begun, "the run begins")
        held = tuples(project.layout, "SELECT run_id, claimed_by, state FROM tasks WHERE id = 't'")
        by_hand(
            project.layout, "DELETE FROM tallies", "UPDATE tasks SET pending = 0 WHERE id = 'next'"
        )
        assert len(await engine.repair()) == 2
        assert await errors(project.layout) == []
        assert stage.cancelled == []
        assert (
            tuples(project.layout, "SELECT run_id, claimed_by, state FROM tasks WHERE id = 't'")
            == held
        )


# What is told.


def test_doctor_says_what_to_do_and_repair_what_it_did(layout: Layout) -> None:
    by_hand(layout, "UPDATE tasks SET pending = 7 WHERE id = 'next'")
    found = run_doctor(layout)
    assert (found.returncode, found.stderr) == (1, "")
    lines = [line for line in found.stdout.splitlines() if not line.startswith("note: ")]
    at = next(n for n, line in enumerate(lines) if line.startswith("error: derived: task 'next'"))
    assert lines[at + 1] == "  what to do: `agentmux doctor --repair` mends it"
    mended = run_doctor(layout, "--repair")
    assert (mended.returncode, mended.stderr) == (0, "")
    assert "mended: the deps of 1 task were counted anew\n" in mended.stdout
    assert mended.stdout.endswith("no inconsistency is left\n")
    again = run_doctor(layout, "--repair")
    assert again.returncode == 0
    assert again.stdout.startswith("nothing was mended\n")


def test_repair_in_json_tells_what_was_mended_and_what_is_left(layout: Layout) -> None:
    by_hand(
        layout,
        "UPDATE tasks SET name = 'x' WHERE id = 'plan'",
        "UPDATE tasks SET pending = 7 WHERE id = 'next'",
    )
    done = run_doctor(layout, "--repair", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    told = json.loads(done.stdout)
    assert set(told) == {"mended", "findings"}
    assert told["mended"] == ["the deps of 1 task were counted anew"]
    (left,) = (one for one in told["findings"] if one["level"] == "error")
    assert set(left) == {"level", "check", "message", "advice"}
    assert left["check"] == "fold"
