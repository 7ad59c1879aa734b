"""Opening the engine for a command, and telling what that did unasked."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engine.cli import logs
from engine.cli.progress import slow_steps
from engine.commands import Seed
from engine.core import Engine
from engine.dag import load_dag
from engine.errors import StorageError
from engine.files import Layout
from engine.logfiles import log_files
from engine.orders.control import DEFAULT_DAG

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def require_store(state_dir: Path) -> None:
    """Raise StorageError if there is no store: what reads or steers must not make one.

    A log without a database counts as one: whoever may write rebuilds the database from it.
    """
    if not is_store(state_dir):
        raise StorageError(
            f"no store in {state_dir.absolute()}; go to the project's folder, or seed one here: "
            "`agentmux tasks seed DAG`"
        )


@asynccontextmanager
async def opened_engine(
    state_dir: Path, *, read_only: bool = False, keeps_services: bool = False
) -> AsyncIterator[Engine]:
    """Open the engine, making the store if there is none.

    What a damaged or older store needs first may take a while, so it is shown.
    """
    async with AsyncExitStack() as stack:
        with slow_steps(pipes=True) as tell:
            engine = Engine(
                state_dir, read_only=read_only, keeps_services=keeps_services, on_step=tell
            )
            await stack.enter_async_context(engine)
        logs.tell(engine.notices)
        yield engine


@asynccontextmanager
async def existing_engine(
    state_dir: Path, *, read_only: bool, keeps_services: bool = False
) -> AsyncIterator[Engine]:
    """Open the engine over a store that is there already.

    Raises:
        StorageError: there is none, or its database is gone and this may only read.

    """
    require_store(state_dir)
    database = Layout(state_dir).database
    if read_only and not database.exists():
        raise StorageError(
            f"{database} is gone, but its log is there; `agentmux doctor --repair` rebuilds it"
        )
    async with opened_engine(
        state_dir, read_only=read_only, keeps_services=keeps_services
    ) as engine:
        yield engine


@asynccontextmanager
async def seeding_engine(state_dir: Path, *, dry_run: bool) -> AsyncIterator[Engine]:
    """Open the engine for a seed, making the store if there is none.

    A dry run without a store is carried out on an empty one in a temporary folder.
    """
    if not dry_run or is_store(state_dir):
        async with opened_engine(state_dir) as engine:
            yield engine
        return
    with tempfile.TemporaryDirectory(prefix="agentmux-") as folder:
        async with opened_engine(Path(folder) / "state") as engine:
            yield engine


async def first_seed(state_dir: Path, path: Path | None) -> Seed:
    """Return the command that seeds a DAG, read already if there is no store yet.

    So a file that is none, or a bad one, leaves no empty store behind.

    Raises:
        ValidationError, StorageError: what is wrong with the file, before a store is made for it.

    """
    if is_store(state_dir):
        return Seed(path)
    return Seed(path, await asyncio.to_thread(load_dag, (path or DEFAULT_DAG).absolute()))


def is_store(state_dir: Path) -> bool:
    """Say whether there is a store: a database, or a log from which one can be rebuilt."""
    layout = Layout(state_dir)
    if layout.database.exists() or layout.log.exists():
        return True
    return state_dir.is_dir() and bool(log_files(layout))
