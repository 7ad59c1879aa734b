"""Fixtures of all tests over real folders: a store, a project, an executor to play with."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.api import Client, serving
from support.engines import Project, a_project
from support.finished import finish, finish_and_purge
from support.kept import Fleet
from support.logs import LogDesk
from support.repositories import ISOLATED, Home
from support.stage import Stage
from support.stores import (
    Opened,
    check_store,
    opened,
)

from engine import machine, preflight
from engine import worker as worker_module
from engine.executors import builtin_executors
from engine.processes.signalling import identify
from engine.store.recovery import condition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from engine.core import Engine
    from engine.model import ProcessId


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with a_project(tmp_path) as project:
        yield project


@pytest.fixture
async def engine(project: Project) -> AsyncIterator[Engine]:
    async with project.engine() as engine:
        yield engine


@pytest.fixture
async def client(engine: Engine) -> AsyncIterator[Client]:
    async with serving(engine) as client:
        yield client


@pytest.fixture
def fleet(project: Project) -> Iterator[Fleet]:
    fleet = Fleet(project)
    yield fleet
    left = fleet.lives()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[LogDesk]:
    desk = LogDesk(tmp_path)
    await desk.open()
    yield desk
    await desk.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Return a project in a repository, with git as nobody has set it up."""
    for name, value in ISOLATED.items():
        monkeypatch.setenv(name, value)
    return Home(tmp_path)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = Stage()
    staged = {**builtin_executors(), "stage": stage}
    monkeypatch.setattr(preflight, "builtin_executors", lambda: staged)
    return stage


@pytest.fixture
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let retries come after hundredths of a second."""
    monkeypatch.setattr(machine, "FIRST_BACKOFF", 0.02)


@pytest.fixture
def no_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this safety net whoever is not woken sleeps for ever."""
    monkeypatch.setattr(worker_module, "POLLS", (3600.0,))


@pytest.fixture
def restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every look at the machine's boot find a new one."""
    boots = iter(range(1000))
    monkeypatch.setattr(condition, "_boot", lambda: f"boot {next(boots)}")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project for copies of it, in which everything has happened that can."""
    folder = tmp_path_factory.mktemp("finished")
    asyncio.run(finish(folder))
    return folder


@pytest.fixture(scope="session")
def finished_with_purges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project for copies of it; see support.finished for who is in which state."""
    folder = tmp_path_factory.mktemp("finished")
    asyncio.run(finish_and_purge(folder))
    return folder


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Opened]:
    async with opened(tmp_path) as it:
        yield it
        check_store(it.layout)


@pytest.fixture
def silent() -> Iterator[ProcessId]:
    """A live process that never says anything."""
    process = subprocess.Popen(["sleep", "300"])
    try:
        identity = identify(process.pid)
        assert identity is not None
        yield identity
    finally:
        process.kill()
        process.wait()
