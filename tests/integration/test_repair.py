"""What `doctor --repair` mends and says, what it leaves alone, and what every start cleans up."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import uuid
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from support.engines import ENVIRONMENT, PATIENCE, Project, until
from support.stores import a_task, everything

from engine.care.inspection import inspect
from engine.care.leftovers import OLD
from engine.care.repair import tidy
from engine.commands import Hold, Purge, Seed
from engine.core import Engine
from engine.files import Layout
from engine.findings import CAP, Finding, Level
from engine.model import Claim, Outcome, ProcessId, RunOutcome, State, TaskDef
from engine.processes.trees import Child, end_tree, environment, identify, spawn
from engine.store.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from support.stage import Stage

    from engine.store.vitals import KnownWorker

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
SHELL = {"kind": "shell", "cmd": "sleep 300"}


class Later:
    """The system's clock, but ahead."""

    def __init__(self, seconds: float) -> None:
        self._ahead = timedelta(seconds=seconds)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which much has happened, purges too, and nobody is at work any more.

    plan is DONE, broken FAILED, after BLOCKED by it, next READY behind plan, waits behind next.
    gone-done and gone-failed were purged: left waits for nothing any more, stuck is BLOCKED.
    """
    folder = tmp_path_factory.mktemp("finished")
    project = Project(folder)
    tasks = (
        a_task("plan", agent="claude"),
        a_task("broken", payload={"kind": "shell", "cmd": "false"}),
        a_task("gone-done"),
        a_task("gone-failed", payload={"kind": "shell", "cmd": "false"}),
        a_task("after", "broken", "plan", agent="nobody"),
        a_task("next", "plan", agent="nobody"),
        a_task("waits", "next", agent="nobody"),
        a_task("left", "gone-done", agent="nobody"),
        a_task("stuck", "gone-failed", agent="nobody"),
    )

    async def work() -> None:
        async with project.engine() as engine, asyncio.timeout(PATIENCE):
            await engine.execute(Seed(project.dag(*tasks)))
            for agent in ("claude", "codex"):
                await engine.start_worker(agent, until_idle=True)
            await engine.wait_workers()
            receipt = await engine.execute(Purge(("gone-done", "gone-failed")))
            assert len(receipt.done) == 2

    asyncio.run(work())
    return folder


@pytest.fixture
def layout(finished: Path, tmp_path: Path) -> Layout:
    """A copy of that project's state, for one test to damage."""
    shutil.copytree(finished / "state", tmp_path / "state")
    return Layout(tmp_path / "state")


def sql(layout: Layout, *statements: str) -> None:
    with closing(sqlite3.connect(layout.database, isolation_level=None, timeout=10)) as db:
        for statement in statements:
            assert db.execute(statement).rowcount, f"{statement} changed nothing"


def rows(layout: Layout, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(layout.database, timeout=10)) as db:
        return db.execute(query, values).fetchall()


def state_of(layout: Layout, task_id: str) -> str:
    return str(rows(layout, "SELECT state FROM tasks WHERE id = ?", task_id)[0][0])


async def errors(layout: Layout) -> list[Finding]:
    async with asyncio.timeout(PATIENCE):
        found = await inspect(layout)
    assert all(one.advice for one in found), "each says what to do"
    return [one for one in found if one.level is Level.ERROR]


async def repair(layout: Layout) -> list[str]:
    async with Engine(layout.state, project=layout.state.parent) as engine:
        async with asyncio.timeout(PATIENCE):
            return await engine.repair()


async def mends(layout: Layout, check: str, *sentences: str) -> list[str]:
    """Assert that doctor finds something of this check, that repair says so and that it is gone."""
    found = await errors(layout)
    assert check in {one.check for one in found}, found
    done = await repair(layout)
    for sentence in sentences:
        assert any(sentence in one for one in done), done
    assert await errors(layout) == []
    assert await repair(layout) == [], "once is enough"
    return done


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
    before = rows(layout, "SELECT id, state, pending, broken, reasons, ending FROM tasks")
    sql(layout, change)
    await mends(layout, check, sentence)
    assert rows(layout, "SELECT id, state, pending, broken, reasons, ending FROM tasks") == before
    assert rows(layout, "SELECT * FROM endings") == []


async def test_a_state_that_follows_from_what_was_mended_is_settled_and_told(
    layout: Layout,
) -> None:
    # As if the failure of `broken` had never reached what depends on it.
    sql(layout, "UPDATE tasks SET broken = 0, state = 'READY', reasons = '[]' WHERE id = 'after'")
    (last,) = rows(layout, "SELECT max(seq) FROM events")
    await mends(layout, "derived", "task 'after' is BLOCKED (upstream) now")
    assert state_of(layout, "after") == "BLOCKED"
    told = rows(layout, "SELECT type, task_id, state FROM events WHERE seq > ?", *last)
    assert told == [("TASK_BLOCKED", "after", "BLOCKED")]


async def test_what_is_blocked_for_no_reason_is_let_go_and_so_is_what_depends_on_it(
    layout: Layout,
) -> None:
    sql(
        layout,
        "UPDATE purged SET met = 0 WHERE id = 'gone-done'",
        """UPDATE tasks SET broken = 1, pending = 1, state = 'BLOCKED', reasons = '["upstream"]'
        WHERE id = 'left'""",
    )
    await mends(layout, "purged", "task 'left' is READY now")
    async with Engine(layout.state, project=layout.state.parent) as engine:
        await engine.start_worker("nobody", until_idle=True)
        await engine.wait_workers()
    assert {task: state_of(layout, task) for task in ("left", "next", "waits", "stuck")} == {
        "left": "DONE",
        "next": "DONE",
        "waits": "DONE",
        "stuck": "BLOCKED",
    }
    assert await errors(layout) == []


@pytest.mark.usefixtures("no_polling")
async def test_a_task_whose_last_dep_was_counted_wrongly_is_claimed_at_once(
    layout: Layout,
) -> None:
    sql(layout, "UPDATE tasks SET pending = 2 WHERE agent = 'nobody' AND state = 'READY'")
    async with Engine(layout.state, project=layout.state.parent) as engine:
        await engine.start_worker("nobody")
        assert len(await engine.repair()) >= 1
        await until(lambda: state_of(layout, "waits") == "DONE", "an idle worker is woken")
    assert await errors(layout) == []


async def test_many_mends_of_a_kind_are_counted(project: Project) -> None:
    async with project.engine() as engine:
        tasks = [a_task(f"t{n}", payload={"kind": "unheard-of"}) for n in range(CAP + 5)]
        await engine.execute(Seed(project.dag(*tasks)))
    sql(project.layout, "UPDATE tasks SET removed = 1")
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
    sql(layout, change)
    column = "name, state, attempts"
    before = rows(layout, f"SELECT {column} FROM tasks WHERE id IN ('broken', 'plan')")
    log = layout.log.read_bytes()
    await repair(layout)
    assert rows(layout, f"SELECT {column} FROM tasks WHERE id IN ('broken', 'plan')") == before
    left = await errors(layout)
    assert {one.check for one in left} <= {"fold", "events", "log"}
    assert left
    assert all("rebuilds it from the log" in one.advice for one in left)
    assert layout.log.read_bytes().startswith(log), "the log may know more than the table"


async def test_a_log_that_differs_is_written_anew_and_the_old_one_kept(layout: Layout) -> None:
    whole = layout.log.read_bytes()
    lines = whole.splitlines(keepends=True)
    damaged = b"".join([*lines[:3], *lines[4:]])
    layout.log.write_bytes(damaged)
    await mends(layout, "log", "was written anew")
    assert layout.log.read_bytes() == whole
    (kept,) = layout.quarantine.rglob("events.jsonl")
    assert kept.read_bytes() == damaged


async def test_a_log_that_knows_more_than_the_table_is_not_written_anew(layout: Layout) -> None:
    (last,) = rows(layout, "SELECT max(seq) FROM events")[0]
    log = layout.log.read_bytes()
    async with Engine(layout.state, project=layout.state.parent) as engine:
        sql(layout, f"DELETE FROM events WHERE seq > {last - 2}")
        await engine.repair()
        found = [one for one in await errors(layout) if one.check == "log"]
        assert found
        assert all("rebuild it from the log" in one.advice for one in found)
        assert layout.log.read_bytes().startswith(log)


@pytest.mark.parametrize(
    "line",
    [
        '{"seq":999,"ts":"2026-01-01T00:00:00.000Z","type":"HELD"}',
        '{"seq":999,"ts":"2026-01-01T00:00:00.000Z","type":"HELD","agent":"x"}',
        '{"seq":2,"ts":"2026-01-01T00:00:00.000Z","type":"HELD"}',
    ],
)
def test_one_bad_last_line_does_not_keep_later_events_out_of_the_log(
    layout: Layout, line: str
) -> None:
    whole = layout.log.read_bytes()
    layout.log.write_bytes(whole + line.encode() + b"\n")
    mended = run_doctor(layout, "--repair")
    assert mended.returncode == 0, mended
    assert "the log is written anew, the old files are kept in" in mended.stdout
    assert layout.log.read_bytes() == whole

    async def hold() -> None:
        async with Engine(layout.state, project=layout.state.parent) as engine:
            await engine.execute(Hold("later"))

    asyncio.run(hold())
    events = rows(layout, "SELECT line FROM event_lines ORDER BY seq")
    for file in layout.state.glob("tasks.db*"):
        file.unlink()
    assert run_doctor(layout, "--repair").returncode == 0
    assert rows(layout, "SELECT line FROM event_lines ORDER BY seq") == events
    assert rows(layout, "SELECT agent FROM holds") == [("later",)]


@pytest.mark.parametrize("line", ['{"seq":999,"ts":"2026","type":"HELD"}', '{"seq":999}'])
def test_a_rebuild_from_a_log_with_a_bad_last_line_leaves_a_log_that_goes_on(
    layout: Layout, line: str
) -> None:
    whole = layout.log.read_bytes()
    layout.log.write_bytes(whole + line.encode() + b"\n")
    for file in layout.state.glob("tasks.db*"):
        file.unlink()
    run_doctor(layout, "--repair")
    assert layout.log.read_bytes().startswith(whole)
    told = "".join(f"{row[0]}\n" for row in rows(layout, "SELECT line FROM event_lines"))
    assert layout.log.read_bytes() == told.encode()


def test_a_pipe_among_the_files_of_workers_is_set_aside_and_never_read(layout: Layout) -> None:
    pipes = (
        layout.pids / "f.pid",
        layout.heartbeats / "x.json",
        layout.control / "x.stop",
        layout.log,
    )
    layout.log.unlink()
    for pipe in pipes:
        os.mkfifo(pipe, 0o600)
    found = run_doctor(layout)
    assert found.returncode == 1
    for pipe in pipes[:2]:
        assert f"{pipe} cannot be read: it is no regular file" in found.stdout
    assert "events.jsonl is no regular file, and no file of the log" in found.stdout
    mended = run_doctor(layout, "--repair")
    assert mended.returncode == 0, mended
    for pipe in (*pipes[:2], layout.log):
        assert next(layout.quarantine.glob(f"*/{pipe.name}")).is_fifo()
        assert not pipe.is_fifo()


async def test_a_stop_file_that_is_a_pipe_stops_its_worker(layout: Layout) -> None:
    async with Engine(layout.state, project=layout.state.parent) as engine:
        await engine.start_worker("gemini", "g-1")
        os.mkfifo(layout.stop_file("gemini", "g-1"))
        async with asyncio.timeout(PATIENCE):
            await engine.wait_workers()
    assert list(layout.control.iterdir()) == []


async def test_a_start_sets_an_old_stop_file_aside_that_is_none(layout: Layout) -> None:
    pipe, folder = layout.stop_file("codex", "c-1"), layout.stop_file("codex", "c-2")
    os.mkfifo(pipe)
    folder.mkdir()
    async with Engine(layout.state, project=layout.state.parent) as engine:
        assert await clean(engine) == []
        assert len(await clean(engine, ahead=OLD + 1)) == 2
    assert list(layout.control.iterdir()) == []
    assert {path.name for path in layout.quarantine.glob("*/*")} == {pipe.name, folder.name}


async def test_files_that_nobody_owns_are_removed_or_kept_in_quarantine(layout: Layout) -> None:
    ended = await asyncio.create_subprocess_exec("true")
    await ended.wait()
    dead, alive = layout.pid_file("codex", "c-7"), layout.pid_file("codex", "c-8")
    corrupt, beat = layout.pid_file("codex", "c-9"), layout.heartbeat_file("c-9")
    dead.write_text(str(ended.pid))
    alive.write_text(str(os.getpid()))
    corrupt.write_bytes(b"\xffno pid")
    beat.write_text("{torn")
    for file in (dead, alive, corrupt, beat):
        file.chmod(0o600)
    done = await mends(layout, "pid files")
    assert {one.rsplit("; ", 1)[0] for one in done} == {
        f"{dead} is stale: it names pid {ended.pid}, no live worker owns it",
        f"{alive} is stale: it names pid {os.getpid()}, no live worker owns it",
        f"{corrupt} cannot be read: it holds '\ufffdno pid', no pid",
        f"{beat} holds no JSON object: '{{torn'",
    }
    assert not any(file.exists() for file in (dead, alive, corrupt, beat))
    kept = {
        file.name: file.read_bytes() for file in layout.quarantine.rglob("*.*") if file.is_file()
    }
    assert kept == {corrupt.name: b"\xffno pid", beat.name: b"{torn"}


async def test_the_pid_file_of_a_live_worker_is_written_anew(layout: Layout) -> None:
    async with Engine(layout.state, project=layout.state.parent) as engine:
        await engine.start_worker("gemini", "g-1")
        file = layout.pid_file("gemini", "g-1")
        for wrong in ("1", "garbage"):
            file.write_text(wrong)
            assert [one.check for one in await errors(layout)] == ["pid files"]
            (sentence,) = await engine.repair()
            assert sentence.endswith("; written anew")
            assert file.read_text() == str(os.getpid())
        assert await errors(layout) == []


async def test_what_others_can_reach_is_closed_to_them(layout: Layout) -> None:
    layout.log.chmod(0o644)
    layout.pids.chmod(0o755)
    link = layout.state / "link"
    link.symlink_to("/")
    done = await repair(layout)
    assert done == [
        f"{layout.pids} was 0755 and is 0700 now",
        f"{layout.log} was 0644 and is 0600 now",
    ]
    assert await repair(layout) == []
    assert layout.log.stat().st_mode & 0o777 == 0o600


def tagged_sleep(layout: Layout, run_id: str, *, state: Path | None = None) -> Child:
    claim = Claim(run_id, TaskDef("t", "t", "a"), "a-1", 1, State.RUNNING, MOMENT, MOMENT)
    folder = layout.state.parent
    return spawn(
        ["sleep", "300"],
        cwd=folder,
        env=environment(os.environ, claim, state or layout.state),
        stdout=folder / "out",
        stderr=folder / "err",
    )


@asynccontextmanager
async def a_tree(layout: Layout, run_id: str, **more: Any) -> AsyncIterator[ProcessId]:
    """Yield a process that carries the tag of a run; it is gone afterwards."""
    leader = tagged_sleep(layout, run_id, **more)
    try:
        yield leader.identity
    finally:
        await end_tree(run_id, layout.state, [leader.identity], grace=0)
        leader.reap()


async def test_orphans_are_ended_and_nobody_else(layout: Layout, tmp_path: Path) -> None:
    orphan, stranger = uuid.uuid4().hex, uuid.uuid4().hex
    other = tmp_path / "other" / "state"
    async with a_tree(layout, orphan) as one, a_tree(layout, stranger, state=other) as two:
        await mends(layout, "orphans", f"run {orphan}, which holds no task, was ended: {one.pid}")
        assert identify(one.pid) is None
        assert identify(two.pid) == two


async def test_a_tree_that_nobody_ends_is_ended(layout: Layout) -> None:
    me = identify(os.getpid())
    assert me is not None
    async with a_tree(layout, "r") as process:
        sql(
            layout,
            "INSERT INTO endings VALUES ('r', 'next', 'nobody', 'c-1',"
            f" '2026-01-01T00:00:00.000Z', {me.pid}, '{me.started}', {process.pid},"
            f" '{process.started}')",
            "UPDATE tasks SET ending = 'r' WHERE id = 'next'",
        )
        (found,) = await errors(layout)
        assert found.message == (
            "run r lost task 'next' at 2026-01-01T00:00:00.000Z, and its processes are still not "
            "known gone"
        )
        await mends(layout, "endings", "the processes of run r, which had lost task 'next', are")
        assert identify(process.pid) is None
    assert rows(layout, "SELECT ending FROM tasks WHERE id = 'next'") == [(None,)]


async def test_a_tree_that_is_just_being_ended_is_left_to_its_host(layout: Layout) -> None:
    me = identify(os.getpid())
    assert me is not None
    async with a_tree(layout, "r") as process:
        sql(
            layout,
            "INSERT INTO endings SELECT 'r', 'next', 'nobody', 'c-1',"
            " strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),"
            f" {me.pid}, '{me.started}', {process.pid}, '{process.started}'",
            "UPDATE tasks SET ending = 'r' WHERE id = 'next'",
        )
        assert await errors(layout) == []
        assert await repair(layout) == []
        assert identify(process.pid) == process


async def test_a_dead_worker_its_claim_and_its_files_are_cleaned_up(project: Project) -> None:
    project.settings("shell: {allow: [sleep]}\n")
    layout = project.layout
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("long", payload=SHELL))))
    worker = project.work("c-1")
    await until(lambda: rows(layout, "SELECT 1 FROM runs WHERE pid IS NOT NULL"), "it runs")
    (run_id, pid, started) = rows(layout, "SELECT id, pid, pid_started FROM runs")[0]
    worker.send_signal(signal.SIGKILL)
    worker.wait(PATIENCE)
    # A pid file of the same name that came back: the reaper takes the worker's own with it.
    layout.pid_file("codex", "c-2").write_text(str(worker.pid))
    checks = {one.check for one in await errors(layout)}
    assert {"workers", "runs", "pid files"} <= checks
    await mends(
        layout,
        "runs",
        f"run {run_id} lost task 'long', for its worker 'c-1' was gone",
        f"worker 'c-1' counts as lost, for its process {worker.pid} was gone",
        "codex-c-2.pid is stale",
    )
    assert identify(pid) != ProcessId(pid, started)
    assert state_of(layout, "long") == "READY"
    assert project.kinds()[-2:] == ["LEASE_EXPIRED", "WORKER_LOST"]
    assert list(layout.pids.iterdir()) == []


async def test_a_lost_run_reference_is_put_back_and_the_run_goes_on(
    project: Project, stage: Stage
) -> None:
    layout = project.layout
    go_on = asyncio.Event()

    async def wait(_context: Any) -> Outcome:
        await go_on.wait()
        return Outcome(RunOutcome.DONE)

    stage.play = wait
    async with project.engine() as engine:
        task = a_task("t", payload={"kind": "stage"})
        await engine.execute(Seed(project.dag(task)))
        await engine.start_worker("codex")
        await until(lambda: stage.begun, "the run begins")
        before = rows(layout, "SELECT * FROM runs")
        sql(layout, "DELETE FROM runs")
        assert {"claims", "fold"} == {one.check for one in await errors(layout)}
        (sentence,) = await engine.repair()
        assert "of task 't' was put back into the runs table" in sentence
        assert await errors(layout) == []
        assert rows(layout, "SELECT * FROM runs") == before
        go_on.set()
        await until(lambda: state_of(layout, "t") == "DONE", "the run is finished")
    assert await errors(layout) == []


async def test_a_lost_run_reference_of_a_dead_worker_is_cleaned_up(project: Project) -> None:
    layout = project.layout
    async with project.engine() as engine:
        noop = {"kind": "noop", "seconds": 300}
        await engine.execute(Seed(project.dag(a_task("long", payload=noop))))
    worker = project.work("c-1")
    await until(lambda: rows(layout, "SELECT 1 FROM runs"), "it runs")
    worker.send_signal(signal.SIGKILL)
    worker.wait(PATIENCE)
    sql(layout, "DELETE FROM runs")
    await mends(layout, "claims", "was put back into the runs table", "lost task 'long'")
    assert state_of(layout, "long") == "READY"


async def test_a_start_cleans_up_a_lost_run_reference(project: Project) -> None:
    layout = project.layout
    async with project.engine() as engine:
        noop = {"kind": "noop", "seconds": 300}
        await engine.execute(Seed(project.dag(a_task("long", payload=noop))))
    worker = project.work("c-1")
    await until(lambda: rows(layout, "SELECT 1 FROM runs"), "it runs")
    worker.send_signal(signal.SIGKILL)
    worker.wait(PATIENCE)
    sql(layout, "DELETE FROM runs")
    async with project.engine() as engine:
        await engine.start_worker("gemini")
        await until(lambda: state_of(layout, "long") == "READY", "its run is expired")
    assert await errors(layout) == []


async def test_a_busy_fleet_is_not_touched(project: Project) -> None:
    shell = {"kind": "shell", "cmd": "sleep 0.01"}
    tasks = [a_task(f"t{n}", *([f"t{n - 1}"] if n % 7 else [])) for n in range(300)]
    tasks += [a_task(f"s{n}", agent="shell", payload=shell) for n in range(20)]
    looks = 0
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(*tasks)))
        for agent in ("codex", "codex", "shell", "shell"):
            await engine.start_worker(agent, until_idle=True)
        while engine._host.workers:
            assert await engine.repair() == []
            looks += 1
    assert looks
    assert project.states() == {"DONE": 320}
    assert not set(project.kinds()) & {"TASK_BLOCKED", "LEASE_EXPIRED", "LATE_RESULT"}


async def test_mending_the_books_does_not_touch_what_runs(project: Project, stage: Stage) -> None:
    async with project.engine() as engine:
        tasks = (a_task("t", payload={"kind": "stage"}), a_task("next", "t"))
        await engine.execute(Seed(project.dag(*tasks)))
        await engine.start_worker("codex")
        await until(lambda: stage.begun, "the run begins")
        held = rows(project.layout, "SELECT run_id, claimed_by, state FROM tasks WHERE id = 't'")
        sql(project.layout, "DELETE FROM tallies", "UPDATE tasks SET pending = 0 WHERE id = 'next'")
        assert len(await engine.repair()) == 2
        assert await errors(project.layout) == []
        assert stage.cancelled == []
        assert (
            rows(project.layout, "SELECT run_id, claimed_by, state FROM tasks WHERE id = 't'")
            == held
        )


async def clean(engine: Engine, *, ahead: float = 0) -> list[str]:
    return await tidy(engine.layout, engine._store, Later(ahead))


async def test_a_start_removes_what_dead_workers_left_and_keeps_what_may_be_meant(
    layout: Layout,
) -> None:
    ended = await asyncio.create_subprocess_exec("true")
    await ended.wait()
    dead, alive = layout.pid_file("codex", "c-7"), layout.pid_file("codex", "c-8")
    corrupt, beat = layout.pid_file("codex", "c-9"), layout.heartbeat_file("c-9")
    stop, draft = layout.stop_file("codex", "c-1"), layout.heartbeats / ".c-9.json.123.456"
    dead.write_text(str(ended.pid))
    alive.write_text(str(os.getpid()))
    for file in (corrupt, beat, stop, draft):
        file.write_text("{")
    async with Engine(layout.state, project=layout.state.parent) as engine:
        done = await clean(engine)
        assert len(done) == 3
        assert not any(file.exists() for file in (dead, corrupt, beat))
        assert alive.exists(), "a process has this pid: only a person can tell whose it is"
        assert stop.exists(), "somebody may just have asked a worker to stop that is to start"
        assert draft.exists(), "somebody may be writing it"
        assert len(await clean(engine, ahead=OLD + 1)) == 2
        assert not stop.exists()
        assert not draft.exists()
        assert await clean(engine, ahead=OLD + 1) == []


async def test_a_start_never_touches_the_files_of_live_workers(project: Project) -> None:
    layout = project.layout
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("t", agent="nobody"))))
        project.work("c-1")
        await engine.start_worker("codex", "c-2")
        await until(lambda: layout.pid_file("codex", "c-1").exists(), "the worker is there")
        layout.heartbeat_file("codex").write_text("{")
        layout.pid_file("codex", "c-2").write_text("1")
        mine = layout.stop_file("codex", "c-1")
        before = {file.name for file in layout.pids.iterdir()}
        assert await clean(engine, ahead=OLD + 1) == []
        mine.touch()
        assert await clean(engine, ahead=OLD + 1) == []
        assert {file.name for file in layout.pids.iterdir()} <= before
        layout.pid_file("codex", "c-2").write_text(str(os.getpid()))
    assert project.processes[0].wait(PATIENCE) == 0, "its stop file was obeyed"


async def test_no_worker_can_enter_while_files_of_nobody_are_removed(project: Project) -> None:
    """Otherwise a worker could write its pid file just before it is removed."""
    me = identify(os.getpid())
    assert me is not None
    entered = threading.Event()
    inside = threading.Event()
    met: list[bool] = []
    other = Store(project.layout, Later(0), lease=600)

    def act(_workers: Sequence[KnownWorker]) -> None:
        inside.set()
        met.append(entered.wait(0.3))

    async def enter() -> None:
        await asyncio.to_thread(inside.wait, PATIENCE)
        await other.register("codex", "c-1", me, lambda _host: True)
        entered.set()

    async with project.engine() as engine:
        await other.open()
        try:
            await asyncio.gather(engine._store.undisturbed(act), enter())
        finally:
            await other.close()
    assert met == [False]


async def test_the_first_worker_of_a_process_cleans_up(project: Project) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("t"))))
    ended = await asyncio.create_subprocess_exec("true")
    await ended.wait()
    file = project.layout.pid_file("codex", "c-7")
    file.write_text(str(ended.pid))
    async with project.engine() as engine:
        assert file.exists()
        await engine.start_worker("codex")
        assert not file.exists()


def run_doctor(layout: Layout, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "engine.cli", "doctor", *options, "--state-dir", str(layout.state)],
        env=ENVIRONMENT,
        cwd=layout.state.parent,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_doctor_says_what_to_do_and_repair_what_it_did(layout: Layout) -> None:
    sql(layout, "UPDATE tasks SET pending = 7 WHERE id = 'next'")
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
    sql(
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


def _scribble(layout: Layout) -> None:
    (root,) = rows(layout, "SELECT rootpage FROM sqlite_master WHERE name = 'runs_of_task'")[0]
    with layout.database.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)


def _overwrite(layout: Layout) -> None:
    layout.database.write_text("no database" * 1000)


def _remove(layout: Layout) -> None:
    layout.database.unlink()


def _drop(layout: Layout) -> None:
    with closing(sqlite3.connect(layout.database)) as db:
        db.execute("DROP TRIGGER tally_update")


@pytest.mark.parametrize("damage", [_scribble, _overwrite, _remove, _drop])
def test_a_damaged_database_is_found_and_rebuilt_from_the_log(
    layout: Layout, damage: Callable[[Layout], None]
) -> None:
    query = "SELECT id, state, pending, broken, reasons FROM tasks ORDER BY id"
    before = rows(layout, query)
    damage(layout)
    found = run_doctor(layout, "--json")
    assert (found.returncode, found.stderr) == (1, "")
    told = {one["check"]: one for one in json.loads(found.stdout)}
    assert "`agentmux doctor --repair`" in told["integrity"]["advice"]
    mended = run_doctor(layout, "--repair", "--json")
    assert mended.returncode == 0, mended
    assert any("rebuilt from the log" in one for one in json.loads(mended.stdout)["mended"])
    assert rows(layout, query) == before
    if damage is not _remove:
        assert list(layout.quarantine.rglob("tasks.db"))
