"""What once broke a promise, and must not again."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.engines import until
from support.stores import a_dag, a_task

from engine.commands import Seed
from engine.errors import StorageError, ValidationError
from engine.processes import identify, seems_alive
from tui.tail import read_tail

if TYPE_CHECKING:
    from pathlib import Path

    from support.engines import Project
    from support.stores import Opened


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
        shutil.rmtree(project.layout.state)
        with pytest.raises(StorageError, match="removed or replaced"):
            await engine.queries.progress()
        with pytest.raises(StorageError, match="removed or replaced"):
            await engine.execute(Seed(project.dag(a_task("b"))))
        project.layout.create()


async def test_a_pipe_or_a_link_in_place_of_a_log_does_not_block_the_screen(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/hostname")
    async with asyncio.timeout(10):
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
