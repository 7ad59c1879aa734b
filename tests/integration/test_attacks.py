"""What once broke a promise, and must not again."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import damage
from support.engines import QUICK, ended, suspend, until
from support.patience import PATIENCE
from support.reckoning import leader_of
from support.stores import a_dag, a_task, select

from engine.care.inspection import inspect
from engine.cli.session import is_store
from engine.commands import Hold, Release, Reset, Seed, Stop
from engine.errors import StorageError, StoreGone, ValidationError
from engine.findings import Level
from engine.processes.signalling import identify, is_alive, seems_alive
from engine.store.database import WriteLock
from tui.tail import read_tail

if TYPE_CHECKING:
    from support.engines import Project
    from support.stores import Opened

LEADERS = "SELECT task_id, pid FROM runs"
HOLDER = """
import fcntl, time
file = open("write.lock", "w")
fcntl.flock(file, fcntl.LOCK_EX)
print()
time.sleep(60)
"""
NOW = {"kind": "noop", "seconds": 0}
SLEEPS = {"kind": "shell", "argv": ["sleep", "600"]}


async def test_an_agent_cannot_take_the_id_of_a_live_worker_but_that_of_a_dead_one(
    it: Opened,
) -> None:
    me = identify(os.getpid())
    assert me is not None
    await it.store.seed(a_dag(a_task("a")))
    await it.store.register("codex", "lw", me, seems_alive)
    with pytest.raises(ValidationError, match="lw"):
        await it.store.seed(a_dag(a_task("a", agent="lw")))
    gone = type(me)(me.pid, "never")
    await it.store.register("codex", "old", gone, seems_alive)
    assert await it.store.register("old", None, me, seems_alive) == "old-1"


async def test_an_agent_that_comes_with_a_reseed_gets_workers_too(project: Project) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a"))))
        await engine.start_workers()
        late = a_task("b", agent="gemini")
        await engine.execute(Seed(project.dag(late)))
        await until(lambda: project.state("b") == "DONE", "the late agent's task is done")


async def test_a_store_that_was_removed_while_in_use_is_an_error_and_no_success(
    project: Project,
) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a"))))
        project.layout.state.rename(project.folder / "away")
        with pytest.raises(StorageError, match="removed or replaced"):
            await engine.queries.progress()
        with pytest.raises(StorageError, match="removed or replaced"):
            await engine.execute(Seed(project.dag(a_task("b"))))
        project.layout.create()


async def test_workers_whose_store_was_removed_end_their_runs_and_then_themselves(
    project: Project,
) -> None:
    project.settings(QUICK)
    async with project.engine() as engine:
        dag = project.dag(*(a_task(name, agent=name, payload=SLEEPS) for name in ("a", "b")))
        await engine.execute(Seed(dag))
        there, here = project.work("a-1", agent="a"), await engine.start_worker("b", "b-1")
        await until(lambda: all(leader_of(project.layout, one) for one in "ab"), "both run")
        runs = {row["task_id"]: row["pid"] for row in select(project.layout, LEADERS)}
        project.layout.state.rename(project.folder / "away")
        with pytest.raises(StoreGone, match="removed or replaced"):
            await engine.wait_workers()
        assert await ended(there) == 1
        assert here == "b-1"
    assert project.said("a-1").count("removed or replaced") == 2, "as a warning, then as the end"
    assert all(identify(pid) is None for pid in runs.values())


async def test_a_store_that_comes_back_in_time_is_worked_on_as_if_it_never_left(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    project.settings(QUICK.replace("stale_after: 1", "stale_after: 60"))
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a", payload=SLEEPS))))
        await engine.start_worker("codex", "codex-1")
        await until(lambda: leader_of(project.layout, "a"), "its leader is known")
        away = project.layout.state.rename(project.folder / "away")
        await until(lambda: "removed or replaced" in caplog.text, "its loss was seen")
        away.rename(project.layout.state)
        await engine.execute(Stop(None))
        assert project.state("a") == "READY"
    assert caplog.text.count("removed or replaced") == 1
    project.check()


async def test_a_worker_tells_in_its_terminal_what_it_does(project: Project) -> None:
    async with project.engine() as engine:
        red = a_task("red", payload={"kind": "shell", "argv": ["false"]})
        await engine.execute(Seed(project.dag(a_task("green", payload=NOW), red)))
    assert await ended(project.work("codex-1", "--until-idle")) == 0
    told = [re.sub(r"[\d.]+m?s\b", "SOON", line) for line in project.said("codex-1").splitlines()]
    assert [line[9:] for line in told] == [
        "codex-1 took green",
        "codex-1 finished green in SOON",
        "codex-1 took red",
        "codex-1 did not finish red in SOON: exit code 1",
    ]


def test_who_holds_the_write_lock_is_named_and_no_link_is_followed(tmp_path: Path) -> None:
    file = tmp_path / "write.lock"
    with subprocess.Popen(
        [sys.executable, "-uISc", HOLDER], cwd=tmp_path, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with closing(WriteLock(file)) as lock:
            named = (
                f"process {process.pid} has held" if Path("/proc/locks").exists() else "has held"
            )
            with pytest.raises(StorageError, match=named):
                lock.acquire(timeout=0.01)
        process.kill()
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(OSError, match="symbolic links"):
        WriteLock(tmp_path / "link")


async def test_a_pipe_or_a_link_in_place_of_a_log_does_not_block_the_screen(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/hostname")
    async with asyncio.timeout(PATIENCE):
        pipe = await asyncio.to_thread(read_tail, tmp_path / "pipe")
        link = await asyncio.to_thread(read_tail, tmp_path / "link")
    assert (pipe.lines, link.lines) == ((), ())
    assert pipe.error
    assert link.error


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_closed_output_is_no_reason_to_fail(project: Project, closed: str) -> None:
    dag = project.dag(a_task("a"))
    command = f'exec "$0" -m engine.cli run "$1" {closed}>&-'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, str(dag)],
        cwd=project.layout.state.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


def test_following_the_log_ends_when_nobody_reads_it_any_more(project: Project) -> None:
    dag = project.dag(a_task("a"))
    folder = project.layout.state.parent
    program = [sys.executable, "-m", "engine.cli"]
    subprocess.run([*program, "run", str(dag)], cwd=folder, check=True, timeout=60)
    follow = 'exec "$0" -m engine.cli events --follow | head -1'
    done = subprocess.run(
        ["sh", "-c", follow, sys.executable],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


async def test_a_log_that_cannot_be_written_is_told_and_found(
    project: Project, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.layout.create()
    project.layout.log_lock.mkdir()
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a", payload=NOW))))
        await engine.execute(Hold())
    assert caplog.text.count("a rebuild lacks them") == 1, "once, not after every commit"
    project.layout.log_lock.rmdir()
    async with project.engine():
        pass
    project.check()
    can = os.access
    monkeypatch.setattr(
        "os.access", lambda path, mode: path != project.layout.log and can(path, mode)
    )
    (shut,) = [one for one in await inspect(project.layout) if one.level is Level.ERROR]
    assert "events.jsonl cannot be written to" in shut.message


async def test_a_rebuild_says_that_the_end_of_the_log_is_lost(project: Project) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a"), a_task("b"))))
        await engine.execute(Reset())
        await engine.execute(Hold())
    total = len(project.events())
    project.layout.log.unlink()
    damage.delete(project.layout)
    assert is_store(project.layout.state), "its rotated log is there"
    async with project.engine() as engine:
        told = " ".join(engine.notices)
    assert f"to {total}" in told
    assert "what they told is lost" in told


async def test_a_task_is_released_from_a_worker_that_hangs_past_its_lease(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.orders.on_tasks.ANSWER", 1.5)
    project.settings(QUICK)
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a", payload=SLEEPS))))
        process = project.work("codex-1")
        await until(lambda: leader_of(project.layout, "a"), "its leader is known")
        leader = leader_of(project.layout, "a")
        assert leader is not None
        await suspend(process, project.layout)
        receipt = await engine.execute(Release(("a",)))
        assert receipt.done == {"a": "released from codex-1, whose process does not answer"}
        assert not is_alive(leader)
        assert project.state("a") == "READY"
        process.send_signal(signal.SIGCONT)
        await engine.execute(Hold())
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0, project.said("codex-1")
    assert "TASK_FAILED" not in project.kinds("a")
    project.check()


async def test_a_result_that_is_never_stored_is_kept_beside_its_output(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.worker._RETRIES", (0.01,))
    tried = asyncio.Event()

    async def full(*_: object, **__: object) -> None:
        tried.set()
        raise StorageError("database or disk is full")

    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a", payload=NOW))))
        monkeypatch.setattr(engine._store, "finish_and_claim", full)
        monkeypatch.setattr(engine._store, "finish", full)
        await engine.start_worker("codex", "codex-1")
        await asyncio.wait_for(tried.wait(), PATIENCE)
        await engine.stop_workers()
    (file,) = project.layout.artifacts.glob("a/*/unstored.json")
    assert json.loads(file.read_text())["kind"] == "done"


@pytest.mark.parametrize("end", ["", "-wal"])
async def test_a_folder_in_the_place_of_the_database_is_called_one(
    project: Project, end: str
) -> None:
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("a"))))
    place = project.layout.state / f"tasks.db{end}"
    place.unlink(missing_ok=True)
    place.mkdir()
    with pytest.raises(StorageError, match=f"tasks.db{end} is a folder; move it away"):
        await project.engine().__aenter__()


async def test_a_database_is_not_written_through_a_link(project: Project, tmp_path: Path) -> None:
    project.layout.create()
    project.layout.database.symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(StorageError, match="is a link"):
        await project.engine().__aenter__()
    assert not (tmp_path / "elsewhere.db").exists()
