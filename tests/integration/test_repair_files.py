"""Files that nobody owns: `doctor --repair` removes or keeps them, and so does every start."""

from __future__ import annotations

import asyncio
import os
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from support.checkup import errors, mends, repair, run_doctor
from support.engines import Project, until
from support.finished import copied
from support.patience import PATIENCE
from support.stores import a_task
from support.strays import a_dead_pid

from engine.care.leftovers import OLD
from engine.care.repair import tidy
from engine.clock import SystemClock
from engine.commands import Seed
from engine.core import Engine
from engine.processes.signalling import identify
from engine.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from engine.files import Layout
    from engine.store.vitals import KnownWorker


class Later(SystemClock):
    """The system's clock, but ahead."""

    def __init__(self, seconds: float) -> None:
        self._ahead = timedelta(seconds=seconds)

    def now(self) -> datetime:
        return super().now() + self._ahead


@pytest.fixture
def layout(finished_with_purges: Path, tmp_path: Path) -> Layout:
    """A copy of its state, for one test to damage."""
    return copied(finished_with_purges, tmp_path)


async def clean(engine: Engine, *, ahead: float = 0) -> list[str]:
    return await tidy(engine.layout, engine._store, Later(ahead))


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
    pid = await a_dead_pid()
    dead, alive = layout.pid_file("codex", "c-7"), layout.pid_file("codex", "c-8")
    corrupt, beat = layout.pid_file("codex", "c-9"), layout.heartbeat_file("c-9")
    dead.write_text(str(pid))
    alive.write_text(str(os.getpid()))
    corrupt.write_bytes(b"\xffno pid")
    beat.write_text("{torn")
    for file in (dead, alive, corrupt, beat):
        file.chmod(0o600)
    done = await mends(layout, "pid files")
    assert {one.rsplit("; ", 1)[0] for one in done} == {
        f"{dead} is stale: it names pid {pid}, no live worker owns it",
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


# At every start.


async def test_a_start_removes_what_dead_workers_left_and_keeps_what_may_be_meant(
    layout: Layout,
) -> None:
    dead, alive = layout.pid_file("codex", "c-7"), layout.pid_file("codex", "c-8")
    corrupt, beat = layout.pid_file("codex", "c-9"), layout.heartbeat_file("c-9")
    stop, draft = layout.stop_file("codex", "c-1"), layout.heartbeats / ".c-9.json.123.456"
    dead.write_text(str(await a_dead_pid()))
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
    # No beat in between: for a clock that is ahead, the draft of one would be old.
    project.settings("heartbeat: 60\nstale_after: 120\n")
    layout = project.layout
    latest = layout.heartbeat_file("codex")
    async with project.engine() as engine:
        await engine.execute(Seed(project.dag(a_task("t", agent="nobody"))))
        await engine.start_worker("codex", "c-2")
        project.work("c-1")
        await until(lambda: '"c-1"' in latest.read_text(), "its last file is there")
        latest.write_text("{")
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
    file = project.layout.pid_file("codex", "c-7")
    file.write_text(str(await a_dead_pid()))
    async with project.engine() as engine:
        assert file.exists()
        await engine.start_worker("codex")
        assert not file.exists()
