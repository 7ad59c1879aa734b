"""What doctor must find, and what it must not: in a real run, its processes and its files."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sqlite3
import uuid
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from support import program
from support.checkup import doctor, errors, in_words
from support.damage import by_hand
from support.engines import Project, look_while_busy
from support.finished import copied
from support.patience import PATIENCE
from support.stores import a_task, tuples
from support.strays import a_dead_pid, a_tree

from engine.core import Engine
from engine.files import Layout
from engine.findings import Level
from engine.processes.signalling import identify
from engine.processes.trees import end_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def layout(finished: Path, tmp_path: Path) -> Layout:
    """A copy of its state, for one test to damage."""
    return copied(finished, tmp_path)


async def test_a_store_that_worked_without_trouble_has_no_error(layout: Layout) -> None:
    states = {row[0] for row in tuples(layout, "SELECT state FROM tasks")}
    assert states == {"DONE", "FAILED", "BLOCKED"}, "the run must have met everything"
    assert await errors(layout) == []


async def test_looking_changes_nothing(layout: Layout) -> None:
    by_hand(layout, "UPDATE tasks SET state = 'READY' WHERE id = 'plan'")
    layout.pid_file("codex", "codex-9").write_text("1\n")
    layout.log.write_bytes(layout.log.read_bytes()[:-9])

    def contents() -> dict[str, str]:
        return {
            str(file): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(layout.state.rglob("*"))
            # SQLite's shared memory holds the marks of who is reading.
            if file.is_file() and not file.name.endswith("-shm")
        }

    async with Engine(layout.state, read_only=True):
        with closing(sqlite3.connect(layout.database)) as other:
            version = other.execute("PRAGMA data_version").fetchone()
            before = contents()
            assert len(await doctor(layout)) > 2
            assert contents() == before
            assert other.execute("PRAGMA data_version").fetchone() == version


async def test_a_fleet_at_work_is_no_finding(project: Project) -> None:
    async def look(_engine: Engine) -> None:
        assert await errors(project.layout) == []

    tasks = [a_task(f"t{n}") for n in range(400)]
    async with asyncio.timeout(PATIENCE):
        await look_while_busy(project, look, *tasks, workers=3)


# Processes.


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[Layout]:
    """The state folder of a worker that was killed with its task in hand."""
    folder = program.Project(tmp_path)
    layout = Layout(folder.state)
    run_id = ""

    def runs() -> bool:
        nonlocal run_id
        if not layout.database.exists():
            return False
        try:
            rows = tuples(layout, "SELECT id FROM runs WHERE pid IS NOT NULL")
        except sqlite3.OperationalError:  # the schema is being made
            return False
        run_id = str(rows[0][0]) if rows else ""
        return bool(rows)

    with folder.started("run", folder.write(program.LONG)) as worker:
        try:
            program.eventually(runs, PATIENCE)
            worker.kill()
            worker.wait(PATIENCE)
            yield layout
        finally:
            worker.kill()
            asyncio.run(end_tree(run_id, layout.state, [], grace=0))


def test_a_killed_worker_its_run_and_its_pid_file_are_found(killed: Layout) -> None:
    done = program.agentmux(killed.state.parent, "doctor", "--json", patience=PATIENCE)
    assert (done.returncode, done.stderr) == (1, "")
    found = {one["check"]: one["message"] for one in json.loads(done.stdout)}
    assert "worker 'codex-1' is live, but its process" in found["workers"]
    assert "holds task 'long', but its worker 'codex-1' is gone" in found["runs"]
    assert "codex-codex-1.pid is stale" in found["pid files"]
    assert "fold" not in found
    assert "claims" not in found


async def test_a_process_that_outlived_its_run_is_found(layout: Layout) -> None:
    run_id = uuid.uuid4().hex
    async with a_tree(layout, run_id) as process:
        assert in_words(await errors(layout)) == [
            f"orphans: process {process.pid} is left of run {run_id}, which holds no task"
        ]
        assert identify(process.pid) == process, "doctor only looks"
    assert await errors(layout) == []


# Files.


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
    pids = {"dead": str(await a_dead_pid()), "alive": str(os.getpid())}
    file = layout.pid_file("codex", "codex-7")
    file.write_text(text.format(**pids))
    (found,) = in_words(await errors(layout))
    assert found.startswith(f"pid files: {file} ")
    assert message.format(**pids) in found
    assert file.exists()


async def test_a_pid_file_with_the_pid_of_another_process_is_found(layout: Layout) -> None:
    async with Engine(layout.state) as fleet:
        await fleet.start_worker("gemini", "g-1")
        assert await errors(layout) == []
        layout.pid_file("gemini", "g-1").write_text("1")
        (finding,) = await errors(layout)
        assert f"names pid 1, its worker's is {os.getpid()}" in finding.message


@pytest.mark.parametrize(
    "text", ["{", "[]", "", pytest.param("[" * 5000, id="deep"), '{"ts": "\xff']
)
async def test_a_heartbeat_file_that_is_no_json_object_is_found(layout: Layout, text: str) -> None:
    layout.heartbeat_file("codex-1").write_bytes(text.encode("latin-1"))
    (found,) = await errors(layout)
    assert "codex-1.json holds no JSON object" in found.message


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
