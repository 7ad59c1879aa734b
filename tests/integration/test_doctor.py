"""What doctor must find, and what it must not: over the store and the log of a real run."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import engine
from engine.care.inspection import inspect
from engine.commands import Seed
from engine.core import Engine
from engine.files import Layout
from engine.findings import CAP, Finding, Level
from engine.log.check import check_log
from engine.log.repair import rewrite
from engine.logfiles import log_files
from engine.model import Claim, State, TaskDef
from engine.processes.trees import end_tree, environment, identify, spawn
from engine.store.audit import audit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 20.0
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
PROGRAM = [sys.executable, "-m", "engine.cli"]
SOURCE = str(Path(engine.__file__).parent.parent)
DAG = """
defaults: {agent: codex}
agents: {codex: {limit: 3}}
tasks:
  - {id: plan, agent: claude, payload: {seconds: 0}}
  - {id: "build:ä", deps: [plan], payload: {kind: shell, cmd: "echo built"}}
  - {id: docs, deps: [plan], priority: 3, payload: {seconds: 0}}
  - {id: review, agent: claude, deps: ["build:ä", docs], payload: {seconds: 0}}
  - {id: broken, payload: {kind: shell, cmd: "false"}}
  - {id: after, deps: [broken, plan]}
  - {id: later, deps: [after]}
  - {id: odd, payload: {kind: unheard-of}}
  - {id: held, agent: nobody}
"""
RESEEDED = DAG.replace("priority: 3", "priority: 4").replace("  - {id: held, agent: nobody}\n", "")
LONG = 'tasks:\n  - {id: long, agent: codex, payload: {kind: shell, cmd: "sleep 300"}}\n'


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which everything has happened that can, and nobody is at work any more."""
    folder = tmp_path_factory.mktemp("finished")
    dag = folder / "dag.yaml"

    async def work() -> None:
        async with Engine(folder / "state", project=folder) as fleet, asyncio.timeout(PATIENCE):
            dag.write_text(DAG)
            await fleet.execute(Seed(dag))
            for agent in ("claude", "codex", "codex"):
                await fleet.start_worker(agent, until_idle=True)
            await fleet.wait_workers()
            dag.write_text(RESEEDED)
            await fleet.execute(Seed(dag))

    asyncio.run(work())
    return folder


@pytest.fixture
def layout(finished: Path, tmp_path: Path) -> Layout:
    """A copy of that project's state, for one test to damage."""
    shutil.copytree(finished / "state", tmp_path / "state")
    return Layout(tmp_path / "state")


async def look(engine: Engine) -> list[Finding]:
    return await inspect(engine.layout, engine.clock)


async def doctor(layout: Layout) -> list[Finding]:
    async with Engine(layout.state, read_only=True) as watching, asyncio.timeout(PATIENCE):
        return await look(watching)


async def errors(layout: Layout) -> list[str]:
    return [f"{one.check}: {one.message}" for one in await doctor(layout) if is_error(one)]


def is_error(finding: Finding) -> bool:
    return finding.level == "error"


def log_errors(layout: Layout, *, at_work: bool = False) -> list[str]:
    return [one.message for one in check_log(layout, at_work=at_work) if is_error(one)]


def sql(layout: Layout, *statements: str) -> None:
    with closing(sqlite3.connect(layout.database, isolation_level=None)) as db:
        for statement in statements:
            assert db.execute(statement).rowcount, f"{statement} changed nothing"


def lines_of(layout: Layout) -> list[bytes]:
    return layout.log.read_bytes().splitlines(keepends=True)


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.02)


async def test_a_store_that_worked_without_trouble_has_no_error(layout: Layout) -> None:
    states = {row[0] for row in read(layout, "SELECT state FROM tasks")}
    assert states == {"DONE", "FAILED", "BLOCKED"}, "the run must have met everything"
    assert await errors(layout) == []


def read(layout: Layout, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(layout.database)) as db:
        return db.execute(query).fetchall()


async def test_looking_changes_nothing(layout: Layout) -> None:
    sql(layout, "UPDATE tasks SET state = 'READY' WHERE id = 'plan'")
    layout.pid_file("codex", "codex-9").write_text("1\n")
    layout.log.write_bytes(layout.log.read_bytes()[:-9])

    def contents() -> dict[str, str]:
        return {
            str(file): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(layout.state.rglob("*"))
            # SQLite's shared memory holds the marks of who is reading.
            if file.is_file() and not file.name.endswith("-shm")
        }

    async with Engine(layout.state, read_only=True) as watching:
        with closing(sqlite3.connect(layout.database)) as other:
            version = other.execute("PRAGMA data_version").fetchone()
            before = contents()
            assert len(await look(watching)) > 2
            assert contents() == before
            assert other.execute("PRAGMA data_version").fetchone() == version


@pytest.mark.parametrize(
    ("change", "check", "message"),
    [
        (
            "UPDATE tasks SET state = 'READY' WHERE id = 'plan'",
            "fold",
            "task 'plan': state: the log says DONE, the table says READY",
        ),
        (
            "UPDATE tasks SET name = 'Plan' WHERE id = 'plan'",
            "fold",
            "task 'plan': name: the log says plan, the table says Plan",
        ),
        ("UPDATE tasks SET agent = 'x' WHERE id = 'plan'", "fold", "agent: the log says claude"),
        ("UPDATE tasks SET timeout = 1 WHERE id = 'docs'", "fold", "timeout: the log says 3600"),
        ("UPDATE tasks SET retries = 1 WHERE id = 'docs'", "fold", "retries: the log says 0"),
        ("UPDATE tasks SET priority = 3 WHERE id = 'docs'", "fold", "priority: the log says 4"),
        (
            """UPDATE tasks SET payload = '{"kind":"noop","seconds":1}' WHERE id = 'docs'""",
            "fold",
            'payload: the log says {"kind": "noop", "seconds": 0}, the table says {',
        ),
        ("UPDATE tasks SET payload = '{' WHERE id = 'docs'", "fold", "its row cannot be read"),
        ("UPDATE tasks SET attempts = 7 WHERE id = 'docs'", "fold", "attempts: the log says 1"),
        (
            """UPDATE tasks SET reasons = '["human"]' WHERE id = 'later'""",
            "fold",
            'reasons: the log says ["upstream"], the table says ["human"]',
        ),
        (
            """UPDATE tasks SET reasons = '["upstream"]' WHERE id = 'plan'""",
            "derived",
            "it is DONE and must have none",
        ),
        ("UPDATE tasks SET removed = 0 WHERE id = 'held'", "derived", "it must be READY []"),
        (
            "DELETE FROM tasks WHERE id = 'odd'",
            "fold",
            "task 'odd': the log says BLOCKED, the table does not have it",
        ),
        (
            (
                "INSERT INTO tasks(id, name, agent, state, created_at, updated_at, position)"
                " VALUES ('new', 'new', 'codex', 'READY', '', '', 99)"
            ),
            "fold",
            "task 'new': the log does not know it, the table says READY",
        ),
        ("DELETE FROM runs WHERE task_id = 'plan'", "fold", "the log says true, the table"),
        (
            "UPDATE runs SET outcome = 'done' WHERE task_id = 'broken'",
            "fold",
            "the log says failed, the table says done",
        ),
        ("UPDATE runs SET worker_id = 'x' WHERE task_id = 'plan'", "fold", "says claude-1, the"),
        ("UPDATE runs SET attempt = 2 WHERE task_id = 'plan'", "fold", "attempt of run "),
        ("UPDATE events SET state = 'READY' WHERE type = 'TASK_FAILED'", "fold", "'broken': state"),
        ("UPDATE events SET data = '{' WHERE type = 'TASK_FAILED'", "fold", "cannot be read"),
        ("UPDATE events SET type = 'x' WHERE type = 'TASK_FAILED'", "fold", "cannot be read"),
        ("DELETE FROM events WHERE seq = 5", "events", "nothing between 4 and 6"),
        ("DELETE FROM events WHERE seq < 3", "events", "begins with 3, not with 1"),
        (
            "UPDATE tasks SET pending = 2 WHERE id = 'after'",
            "derived",
            "'after': its deps make pending 1 and broken 1, the table says 2 and 1",
        ),
        ("UPDATE tasks SET broken = 0 WHERE id = 'later'", "derived", "broken 1, the table says 1"),
        ("DELETE FROM edges WHERE dep = 'docs'", "derived", "'docs' is missing from the edges"),
        ("INSERT INTO edges VALUES ('odd', 'plan')", "derived", "'odd' does not belong into"),
        (
            "UPDATE tallies SET n = n + 1 WHERE agent = 'claude' AND state = 'DONE'",
            "derived",
            "claude has 2 tasks DONE, the tallies table says 3",
        ),
        ("DELETE FROM tallies WHERE state = 'FAILED'", "derived", "codex has 1 task FAILED"),
        ("UPDATE tallies SET n = -1 WHERE state = 'FAILED'", "derived", "tallies table says -1"),
        (
            """UPDATE tasks SET deps = '["nowhere"]' WHERE id = 'later'""",
            "deps",
            "task 'later': its dep 'nowhere' is neither there nor purged",
        ),
        (
            "INSERT INTO purged VALUES ('plan', 1)",
            "purged",
            "task 'plan' is there, but the purged table has it too",
        ),
        (
            "UPDATE tasks SET ending = 'r' WHERE id = 'odd'",
            "endings",
            "task 'odd' waits for the end of run r, which the endings table lacks",
        ),
        (
            (
                "INSERT INTO endings(run_id, task_id, agent, worker_id, since, host_pid,"
                " host_started) VALUES ('r', 'odd', 'codex', 'c', '', 1, '')"
            ),
            "endings",
            "task 'odd' does not wait for its former run r, which is being ended",
        ),
        ("UPDATE workers SET status = 'live', beat_at = 'x'", "workers", "cannot be read"),
        ("UPDATE tasks SET run_id = 'r' WHERE id = 'plan'", "claims", "is DONE, but run r of"),
        ("UPDATE tasks SET state = 'RUNNING' WHERE id = 'plan'", "claims", "is RUNNING, but the"),
        (
            (
                "UPDATE tasks SET state = 'RUNNING', run_id = 'r', claimed_by = 'w',"
                " lease_until = '' WHERE id = 'plan'"
            ),
            "claims",
            "held by run r, which the runs table lacks",
        ),
        (
            (
                "UPDATE tasks SET state = 'CLAIMED', claimed_by = 'w', lease_until = '',"
                " run_id = (SELECT id FROM runs WHERE task_id = 'docs') WHERE id = 'plan'"
            ),
            "claims",
            "which is a run of codex-",
        ),
        (
            (
                "UPDATE tasks SET state = 'CLAIMED', claimed_by = 'claude-1', lease_until = '',"
                " run_id = (SELECT id FROM runs WHERE task_id = 'plan') WHERE id = 'plan'"
            ),
            "claims",
            "ended: done",
        ),
        ("UPDATE runs SET outcome = NULL WHERE task_id = 'plan'", "claims", "has not ended, but"),
    ],
)
def test_a_changed_row_is_found(layout: Layout, change: str, check: str, message: str) -> None:
    assert audit(layout.database) == []
    sql(layout, change)
    found = audit(layout.database)
    assert any(one.check == check and message in one.message for one in found), found
    assert all(map(is_error, found))
    assert all(one.advice for one in found)


async def test_what_the_audit_finds_the_doctor_tells(layout: Layout) -> None:
    sql(layout, "UPDATE tasks SET state = 'READY' WHERE id = 'plan'")
    assert "fold: task 'plan': state: the log says DONE, the table says READY" in await errors(
        layout
    )


def test_many_differences_are_counted_not_told(layout: Layout) -> None:
    sql(layout, f"UPDATE runs SET id = id || 'x', attempt = {CAP}")
    found = [one.message for one in audit(layout.database) if one.check == "fold"]
    runs = read(layout, "SELECT count(*) FROM runs")[0][0]
    assert isinstance(runs, int)
    sql(layout, "UPDATE tasks SET name = 'x', agent = 'x', retries = 9, priority = 9, attempts = 9")
    found = [one.message for one in audit(layout.database) if one.check == "fold"]
    more = 2 * runs + 5 * 9 - CAP
    assert (len(found), found[-1]) == (CAP + 1, f"and {more} more")


async def test_damaged_pages_are_found_and_do_not_end_the_inspection(layout: Layout) -> None:
    (root,) = read(layout, "SELECT rootpage FROM sqlite_master WHERE name = 'workers'")[0]
    assert isinstance(root, int)
    with layout.database.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    layout.heartbeat_file("codex-1").write_text("")
    told = await errors(layout)
    assert {one.split(":")[0] for one in told} == {"integrity", "workers", "heartbeats"}


async def test_a_row_that_cannot_be_read_does_not_end_the_inspection(layout: Layout) -> None:
    sql(layout, "UPDATE workers SET beat_at = 'yesterday'")
    assert {one.split(":")[1] for one in await errors(layout)} == {
        " worker 'claude-1' cannot be read",
        " worker 'codex-1' cannot be read",
        " worker 'codex-2' cannot be read",
    }
    sql(layout, "UPDATE workers SET status = 'live'")
    assert any("workers and active runs cannot be read: " in one for one in await errors(layout))


def test_a_file_that_is_no_database_is_found(tmp_path: Path) -> None:
    (tmp_path / "tasks.db").write_text("no database" * 1000)
    (finding,) = audit(tmp_path / "tasks.db")
    assert (finding.level, finding.check) == (Level.ERROR, "integrity")


def test_every_single_line_that_is_lost_is_found(layout: Layout) -> None:
    lines = lines_of(layout)
    assert len(lines) > 30
    assert log_errors(layout) == []
    for gone, line in enumerate(lines):
        layout.log.write_bytes(b"".join(lines[:gone] + lines[gone + 1 :]))
        last = gone == len(lines) - 1
        what = f"its last 1 event, from {gone + 1} on" if last else f"event {gone + 1}"
        (message,) = log_errors(layout)
        assert message.startswith(f"the log lacks {what}"), line


def test_every_single_byte_that_is_changed_is_found(layout: Layout) -> None:
    whole = layout.log.read_bytes()
    log = os.open(layout.log, os.O_RDWR)
    try:
        for at in range(0, len(whole) - 1, 37):
            os.pwrite(log, bytes([whole[at] ^ 1]), at)
            assert log_errors(layout), f"byte {at} was changed"
            os.pwrite(log, whole[at : at + 1], at)
    finally:
        os.close(log)
    assert log_errors(layout) == []


def test_a_changed_line_is_named(layout: Layout) -> None:
    lines = lines_of(layout)
    lines[6] = lines[6].replace(b'"state":"READY"', b'"state":"ready"')
    lines[9] = lines[9].replace(b'"seq":10,', b'"seq":10;')
    layout.log.write_bytes(b"".join(lines))
    changed, garbage, lacking = log_errors(layout)
    assert changed == "line 7 of events.jsonl does not say what the events table says of event 7"
    assert garbage.startswith("line 10 of events.jsonl is no event: ")
    assert lacking == "the log lacks event 10"


def test_swapped_doubled_and_foreign_lines_are_named(layout: Layout) -> None:
    lines = lines_of(layout)
    lines[3], lines[4] = lines[4], lines[3]
    lines.insert(8, lines[2])
    lines.insert(12, b'{"seq":9999,"ts":"","type":"ALERT"}\n')
    layout.log.write_bytes(b"".join(lines))
    assert log_errors(layout) == [
        "line 5 of events.jsonl tells of event 4 out of order",
        "line 9 of events.jsonl tells of event 3 once more",
        "line 13 of events.jsonl tells of event 9999, which the events table lacks",
    ]


async def test_a_lost_row_of_the_events_table_is_found(layout: Layout) -> None:
    count = len(lines_of(layout))
    sql(layout, f"DELETE FROM events WHERE seq IN (7, {count})")
    told = await errors(layout)
    assert "log: line 7 of events.jsonl tells of event 7, which the events table lacks" in told
    assert f"log: line {count} of events.jsonl tells of event {count}, " in " ".join(told)
    assert "events: the events table has nothing between 6 and 8: 1 lost" in told


async def test_a_log_that_is_gone_is_found(layout: Layout) -> None:
    count = len(lines_of(layout))
    layout.log.unlink()
    (message,) = await errors(layout)
    assert message.startswith(f"log: the log lacks its last {count} events, from 1 on")


def rotated(layout: Layout, *resets: int) -> list[Path]:
    """Make these events a RESET, and the log what it is then; return its files."""
    numbers = ", ".join(map(str, resets))
    sql(layout, f"UPDATE events SET type = 'RESET' WHERE seq IN ({numbers})")
    assert rewrite(layout) is not None
    assert check_log(layout, at_work=False) == []
    files = log_files(layout)
    assert len(files) == len(resets) + 1
    return files


def test_a_log_in_several_files_is_one_log(layout: Layout) -> None:
    _, middle, _ = rotated(layout, 6, 21)
    lines = middle.read_bytes().splitlines(keepends=True)
    assert len(lines) == 15
    middle.write_bytes(b"".join(lines[:-1]))
    assert log_errors(layout) == ["the log lacks event 20"]
    middle.write_bytes(b"".join(lines)[:-9])
    torn, lacking = log_errors(layout)
    assert torn.startswith(f"{middle.name} ends in half a line: ")
    assert lacking == "the log lacks event 20"
    middle.unlink()
    assert log_errors(layout) == [f"the log lacks event {seq}" for seq in range(6, 21)]


def test_a_reset_that_does_not_begin_a_file_is_found(layout: Layout) -> None:
    oldest, middle, newest = rotated(layout, 6, 21)
    middle.write_bytes(middle.read_bytes() + newest.read_bytes())
    newest.unlink()
    assert log_errors(layout) == [f"line 16 of {middle.name} is a RESET; that begins a file"]
    oldest.write_bytes(oldest.read_bytes() + middle.read_bytes())
    middle.unlink()
    assert log_errors(layout) == [
        f"line {line} of {oldest.name} is a RESET; that begins a file" for line in (6, 21)
    ]


def test_a_file_that_does_not_begin_with_a_reset_is_found(layout: Layout) -> None:
    oldest, newest = rotated(layout, 6)
    lines = newest.read_bytes().splitlines(keepends=True)
    oldest.write_bytes(oldest.read_bytes() + lines[0])
    newest.write_bytes(b"".join(lines[1:]))
    assert log_errors(layout) == [
        f"line 6 of {oldest.name} is a RESET; that begins a file",
        "events.jsonl does not begin with RESET and is not the oldest",
    ]


def test_a_payload_that_speaks_of_a_reset_is_none(layout: Layout) -> None:
    words = """json_set(data, '$.x', json('{"seq":1,"type":"RESET"}'))"""
    sql(layout, f"UPDATE events SET data = {words} WHERE seq = 9")
    assert rewrite(layout) is not None
    assert log_files(layout) == [layout.log]
    assert check_log(layout, at_work=False) == []


@pytest.mark.parametrize("at_work", [True, False])
def test_a_log_that_is_behind_is_only_a_note_but_lines_that_were_lost_are_an_error(
    layout: Layout, *, at_work: bool
) -> None:
    whole = lines_of(layout)
    sql(layout, "INSERT INTO events(ts, type) SELECT ts, 'ALERT' FROM events WHERE seq < 4")
    (finding,) = check_log(layout, at_work=at_work)
    assert (finding.level, finding.message) == (
        Level.NOTE,
        "the log is 3 events behind its table",
    )
    assert ("`agentmux resume`" in finding.advice) is not at_work
    layout.log.write_bytes(b"".join(whole[:-1]))
    (finding,) = check_log(layout, at_work=at_work)
    assert finding.level is Level.ERROR
    assert finding.message == f"the log lacks its last 4 events, from {len(whole)} on"
    assert ("`agentmux resume`" in finding.advice) is not at_work


def test_a_log_of_which_nobody_noted_how_far_it_went_must_be_whole_unless_somebody_is_at_work(
    layout: Layout,
) -> None:
    layout.log_lock.write_text("")
    layout.log.write_bytes(b"".join(lines_of(layout)[:-1]))
    assert [one.level for one in check_log(layout, at_work=True)] == [Level.NOTE]
    assert len(log_errors(layout)) == 1


async def test_half_a_last_line_is_no_error_and_is_mended_at_the_next_start(layout: Layout) -> None:
    whole = layout.log.read_bytes()
    layout.log.write_bytes(whole[:-20])
    (note,) = [one for one in await doctor(layout) if one.check == "log"]
    assert note.level is Level.NOTE
    assert "half-written" in note.message
    async with Engine(layout.state) as restarted:
        assert [one for one in await look(restarted) if one.check == "log"] == []
    assert layout.log.read_bytes() == whole


def test_half_a_line_of_something_else_is_an_error(layout: Layout) -> None:
    with layout.log.open("ab") as log:
        log.write(b'{"seq":99')
    (message,) = log_errors(layout)
    assert "half a line that is no event" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{dead}", "is stale: it names pid {dead}, no live worker owns it"),
        ("{alive}", "is stale: it names pid {alive}, no live worker owns it"),
        ("", "holds '', no pid"),
        ("-5", "holds '-5', no pid"),
        ("12 13", "holds '12 13', no pid"),
    ],
)
async def test_a_stale_pid_file_is_found(layout: Layout, text: str, message: str) -> None:
    ended = await asyncio.create_subprocess_exec("true")
    await ended.wait()
    pids = {"dead": str(ended.pid), "alive": str(os.getpid())}
    file = layout.pid_file("codex", "codex-7")
    file.write_text(text.format(**pids))
    (found,) = await errors(layout)
    assert found.startswith(f"pid files: {file} ")
    assert message.format(**pids) in found
    assert file.exists()


async def test_a_pid_file_with_the_pid_of_another_process_is_found(layout: Layout) -> None:
    async with Engine(layout.state) as fleet:
        await fleet.start_worker("gemini", "g-1")
        assert [one for one in await look(fleet) if is_error(one)] == []
        layout.pid_file("gemini", "g-1").write_text("1")
        (finding,) = [one for one in await look(fleet) if is_error(one)]
        assert f"names pid 1, its worker's is {os.getpid()}" in finding.message


@pytest.mark.parametrize("text", ["{", "[]", "", "[" * 5000, '{"ts": "\xff'])
async def test_a_heartbeat_file_that_is_no_json_object_is_found(layout: Layout, text: str) -> None:
    layout.heartbeat_file("codex-1").write_bytes(text.encode("latin-1"))
    (found,) = await errors(layout)
    assert "codex-1.json holds no JSON object" in found


async def test_files_that_others_can_read_are_only_a_note(layout: Layout) -> None:
    assert [one for one in await doctor(layout) if one.check == "permissions"] == []
    layout.log.chmod(0o644)
    layout.pids.chmod(0o750)
    notes = [one for one in await doctor(layout) if one.check == "permissions"]
    assert {one.level for one in notes} == {Level.NOTE}
    assert [one.message.split(":")[0] for one in notes] == [
        f"{layout.pids} is 0750, not 0700",
        f"{layout.log} is 0644, not 0600",
    ]


async def test_an_old_sqlite_is_only_a_note(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 2))
    (note,) = await doctor(layout)
    assert (note.level, note.check) == (Level.NOTE, "sqlite")
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))
    assert await doctor(layout) == []


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[Layout]:
    """The state folder of a worker that was killed with its task in hand."""
    layout = Layout(tmp_path / "state")
    (tmp_path / "dag.yaml").write_text(LONG)
    worker = subprocess.Popen(
        [*PROGRAM, "run", "dag.yaml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": SOURCE, "AGENTMUX_STATE_DIR": str(layout.state)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    run_id = ""

    def runs() -> bool:
        nonlocal run_id
        if not layout.database.exists():
            return False
        try:
            rows = read(layout, "SELECT id FROM runs WHERE pid IS NOT NULL")
        except sqlite3.OperationalError:  # the schema is being made
            return False
        run_id = str(rows[0][0]) if rows else ""
        return bool(rows)

    try:
        eventually(runs)
        worker.send_signal(signal.SIGKILL)
        worker.wait(PATIENCE)
        yield layout
    finally:
        worker.kill()
        worker.wait()
        asyncio.run(end_tree(run_id, layout.state, [], grace=0))


def test_a_killed_worker_its_run_and_its_pid_file_are_found(killed: Layout) -> None:
    done = subprocess.run(
        [*PROGRAM, "doctor", "--json", "--state-dir", str(killed.state)],
        env={**os.environ, "PYTHONPATH": SOURCE},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    found = {one["check"]: one["message"] for one in json.loads(done.stdout)}
    assert "worker 'codex-1' is live, but its process" in found["workers"]
    assert "holds task 'long', but its worker 'codex-1' is gone" in found["runs"]
    assert "codex-codex-1.pid is stale" in found["pid files"]
    assert "fold" not in found
    assert "claims" not in found


async def test_a_process_that_outlived_its_run_is_found(layout: Layout) -> None:
    run_id = uuid.uuid4().hex
    claim = Claim(run_id, TaskDef("t", "t", "a"), "a-1", 1, State.RUNNING, MOMENT, MOMENT)
    leader = spawn(
        ["sleep", "300"],
        cwd=layout.state.parent,
        env=environment(os.environ, claim, layout.state),
        stdout=layout.state.parent / "out",
        stderr=layout.state.parent / "err",
    )
    try:
        (found,) = await errors(layout)
        assert found == (
            f"orphans: process {leader.identity.pid} is left of run {run_id}, which holds no task"
        )
        assert identify(leader.identity.pid) == leader.identity, "doctor only looks"
    finally:
        await end_tree(run_id, layout.state, [leader.identity], grace=0)
        leader.reap()
    assert await errors(layout) == []


async def test_a_fleet_at_work_is_no_finding(tmp_path: Path) -> None:
    tasks = [f"  - {{id: t{n}, agent: a, payload: {{seconds: 0}}}}\n" for n in range(400)]
    tasks += [
        f"  - {{id: s{n}, agent: b, payload: {{kind: shell, cmd: 'sleep 0.01'}}}}\n"
        for n in range(20)
    ]
    (tmp_path / "dag.yaml").write_text("tasks:\n" + "".join(tasks))
    looks = 0
    async with Engine(tmp_path / "state", project=tmp_path) as fleet, asyncio.timeout(PATIENCE):
        await fleet.execute(Seed(tmp_path / "dag.yaml"))
        assert [one for one in await look(fleet) if is_error(one)] == []
        for agent in "aaabbb":
            await fleet.start_worker(agent, until_idle=True)
        work = asyncio.create_task(fleet.wait_workers())
        while not work.done():
            assert [one for one in await look(fleet) if is_error(one)] == []
            looks += 1
        await work
    assert looks


async def test_a_schema_that_is_no_text_is_a_finding(layout: Layout) -> None:
    content = layout.database.read_bytes()
    layout.database.write_bytes(content.replace(b"CREATE TABLE tasks", b"CREA\xff\xfe TABLE tasks"))
    found = await inspect(layout)
    assert "integrity" in {one.check for one in found}
    assert all("Could not decode" in one.message for one in found if one.check == "integrity")


async def test_a_database_that_cannot_be_opened_is_not_taken_for_a_damaged_one(
    layout: Layout,
) -> None:
    for suffix in ("", "-wal", "-shm"):
        layout.database.with_name(f"tasks.db{suffix}").unlink(missing_ok=True)
    layout.database.mkdir()
    (finding,) = await inspect(layout)
    assert (finding.level, finding.check) == (Level.ERROR, "access")
    assert not re.search("repair|move|rebuild", finding.advice)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("disk I/O error", "the disk or its file system fails"),
        ("attempt to write a readonly database", "mend the permissions"),
        ("database or disk is full", "free some space"),
        ("database is locked", "another program holds the database"),
    ],
)
async def test_what_the_disk_refuses_is_never_a_reason_to_move_the_database(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, text: str, advice: str
) -> None:
    def refuse(_: object) -> None:
        raise sqlite3.OperationalError(text)

    monkeypatch.setattr("engine.store.audit.open_for_reading", refuse)
    (finding,) = await inspect(layout)
    assert finding.advice.startswith(advice)
    monkeypatch.undo()
    # And if it comes about only after the audit.
    monkeypatch.setattr("engine.store.vitals.open_for_reading", refuse)
    told = [one for one in await inspect(layout) if one.check == "workers"]
    assert advice in told[0].message
    assert "move" not in told[0].advice


async def test_an_empty_database_is_told_with_what_fills_it(layout: Layout) -> None:
    layout.database.write_bytes(b"")
    (finding,) = await inspect(layout)
    assert finding.message == "the store is empty"
    assert "`agentmux doctor --repair`" in finding.advice
