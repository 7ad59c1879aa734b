"""Opening the engine for a command."""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core import Engine
from engine.errors import StorageError
from engine.files import Layout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def require_store(state_dir: Path) -> None:
    """Raise StorageError if there is no store: what reads or steers must not make one."""
    if not Layout(state_dir).database.exists():
        raise StorageError(f"no store in {state_dir}; seed one with `agentmux tasks seed DAG`")


@asynccontextmanager
async def existing_engine(state_dir: Path, *, read_only: bool) -> AsyncIterator[Engine]:
    """Open the engine over a store that is there already.

    Raises:
        StorageError: there is none.

    """
    require_store(state_dir)
    async with Engine(state_dir, read_only=read_only) as engine:
        yield engine


@asynccontextmanager
async def seeding_engine(state_dir: Path, *, dry_run: bool) -> AsyncIterator[Engine]:
    """Open the engine for a seed, making the store if there is none.

    A dry run without a store is carried out on an empty one in a temporary folder.
    """
    if not dry_run or Layout(state_dir).database.exists():
        async with Engine(state_dir) as engine:
            yield engine
        return
    with tempfile.TemporaryDirectory(prefix="agentmux-") as folder:
        async with Engine(Path(folder) / "state") as engine:
            yield engine
