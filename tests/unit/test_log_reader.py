"""What is asked of the reader of a log is done, whatever becomes of what was asked before."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from support.patience import PATIENCE

from tui.logs.file import LogFile
from tui.logs.reader import Reader
from tui.logs.viewport import Viewport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tui.logs.viewport import Frame


class Shown:
    """Whoever looks at a log: the newest frame, and what went wrong."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.errors: list[str] = []

    def fail(self, error: Exception) -> None:
        self.errors.append(str(error))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "stdout.log"
    path.write_text("".join(f"line {n}\n" for n in range(100)))
    return path


@asynccontextmanager
async def reading(path: Path) -> AsyncIterator[tuple[Reader, Shown]]:
    shown = Shown()
    reader = Reader(
        Viewport(LogFile(path), width=20, height=5),
        show=shown.frames.append,
        tell=lambda _search: None,
        fail=shown.fail,
    )
    reader.start()
    try:
        yield reader, shown
    finally:
        await reader.stop()


def breaks(_viewport: Viewport) -> Any:
    raise OSError(5, "Input/output error")


async def test_a_job_that_fails_takes_none_of_those_behind_it_along(path: Path) -> None:
    async with reading(path) as (reader, shown), asyncio.timeout(PATIENCE):
        reader.ask(Viewport.refresh)
        reader.ask(breaks)
        reader.ask(Viewport.first)
        copied = await reader.get(Viewport.copy)
        assert copied is not None
        assert copied.text.strip() == "line 0"
        assert shown.errors == ["[Errno 5] Input/output error"]
        assert await reader.get(Viewport.frame)
        assert shown.frames[-1].rows[0].text == "line 0"


async def test_each_of_several_jobs_that_fail_is_told(path: Path) -> None:
    async with reading(path) as (reader, shown), asyncio.timeout(PATIENCE):
        for job in (breaks, breaks, Viewport.refresh):
            reader.ask(job)
        assert await reader.get(lambda viewport: viewport.file.size)
        assert len(shown.errors) == 2
