"""Fixtures of all tests over real folders: a store, a project, an executor to play with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.engines import Project, a_project
from support.stage import Stage
from support.stores import (
    Opened,
    check_store,
    opened,
)

from engine import core, machine
from engine import worker as worker_module
from engine.executors import builtin_executors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with a_project(tmp_path) as project:
        yield project


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = Stage()
    monkeypatch.setattr(core, "builtin_executors", lambda: {**builtin_executors(), "stage": stage})
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
async def it(tmp_path: Path) -> AsyncIterator[Opened]:
    async with opened(tmp_path) as it:
        yield it
        check_store(it.layout)
