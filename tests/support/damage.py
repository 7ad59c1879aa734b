"""Everything that can happen to the files of a store, and what leaves them as a SIGKILL does.

`stopped_dead` leaves commits that are only in the -wal, and a log that is complete; what is in
DAMAGES loses something of it.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

from support.pasts import DONE
from support.stores import Opened, a_dag, a_task, opened, select

from engine.clock import SystemClock
from engine.log.mirror import Mirror
from engine.logfiles import log_files
from engine.store.database import WriteLock
from engine.store.recovery.opening import Opening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

    from engine.clock import Clock
    from engine.commands import OnStep
    from engine.files import Layout

BESIDE = ("", "-wal", "-shm")
_PAGE = 4096


def mirror(layout: Layout) -> None:
    """Write the log as it must be after all that was committed."""
    write_log(layout, [])
    layout.log_lock.unlink(missing_ok=True)
    with closing(Mirror(layout, SystemClock())) as log:
        assert log.catch_up()


def lines_of(layout: Layout) -> list[bytes]:
    """Return all lines of the log, each with its line end."""
    return [
        line for file in log_files(layout) for line in file.read_bytes().splitlines(keepends=True)
    ]


def write_log(layout: Layout, lines: Iterable[bytes]) -> None:
    """Write a log of one file."""
    for file in log_files(layout):
        file.unlink()
    layout.log.write_bytes(b"".join(lines))
    layout.log.chmod(0o600)


@asynccontextmanager
async def stopped_dead(folder: Path) -> AsyncIterator[Opened]:
    """Yield an open store; afterwards its files are as if its process had been killed then."""
    copies: dict[Path, Path] = {}
    try:
        async with opened(folder) as it:
            yield it
            mirror(it.layout)
            for suffix in BESIDE:
                file = beside(it.layout, suffix)
                copies[file] = file.with_name(f"killed{suffix}")
                shutil.copy2(file, copies[file])
    finally:
        for file, copy in copies.items():
            copy.rename(file)


STATES = {"a": "DONE", "b": "READY"}


async def a_killed_store(folder: Path) -> Layout:
    """Make a store whose process was killed, with the tasks of STATES."""
    async with stopped_dead(folder) as it:
        await it.store.seed(a_dag(a_task("a"), a_task("b", "a")))
        await it.store.finish(await it.claim(), DONE)
    return it.layout


def files_of(layout: Layout) -> dict[str, bytes]:
    """Return all files below the state folder that are of any interest."""
    return {
        str(path.relative_to(layout.state)): path.read_bytes()
        for path in layout.state.rglob("*")
        if path.is_file() and not path.name.endswith((".lock", "-shm"))
    }


def quarantined(layout: Layout, name: str = "tasks.db") -> Path:
    """Return the one file of this name that was set aside."""
    (found,) = layout.quarantine.glob(f"*/{name}")
    return found


def beside(layout: Layout, suffix: str) -> Path:
    return layout.database.with_name(layout.database.name + suffix)


def open_once(
    layout: Layout,
    *,
    clock: Clock | None = None,
    deep: bool = False,
    on_step: OnStep | None = None,
) -> list[str]:
    """Open a store for writing, as a process does, and close it; return what it was told."""
    opening = Opening(layout, (clock or SystemClock()).now(), deep=deep, on_step=on_step)
    with closing(WriteLock(layout.write_lock)) as lock:
        connection, _ = opening.open(lock)
        connection.close()
    return opening.notices


def by_hand(layout: Layout, *statements: str) -> None:
    """Change rows behind the engine's back; each statement changes some."""
    with closing(sqlite3.connect(layout.database, isolation_level=None, timeout=10)) as db:
        for statement in statements:
            assert db.execute(statement).rowcount, f"{statement} changed nothing"


def _write(layout: Layout, offset: int, data: bytes) -> None:
    with layout.database.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def _first_page(layout: Layout, name: str) -> int:
    row = select(layout, "SELECT rootpage FROM sqlite_master WHERE name = ?", name)[0]
    return int(row["rootpage"] - 1) * _PAGE


def zero_middle(layout: Layout) -> None:
    """Zero some pages in the middle of the file."""
    size = layout.database.stat().st_size
    _write(layout, size // 2 // _PAGE * _PAGE, bytes(3 * _PAGE))


def zero_table(layout: Layout, table: str) -> None:
    """Zero the first page of a table."""
    settle(layout)
    _write(layout, _first_page(layout, table), bytes(_PAGE))


def scribble(layout: Layout, name: str) -> None:
    """Write nonsense over the first page of a table or an index."""
    _write(layout, _first_page(layout, name), b"\xff" * _PAGE)


def scramble_a_name(layout: Layout) -> None:
    """Write bytes that are no UTF-8 where SQLite quotes the schema in its message."""
    settle(layout)
    content = layout.database.read_bytes()
    assert content.count(b"CREATE TABLE tasks") == 1
    layout.database.write_bytes(content.replace(b"CREATE TABLE tasks", b"CREA\xff\xfe TABLE tasks"))


def truncate(layout: Layout) -> None:
    """Cut the file in the middle of a page."""
    os.truncate(layout.database, layout.database.stat().st_size // 2 + 77)


def scramble_header(layout: Layout) -> None:
    """Write nonsense where the file says what it is."""
    _write(layout, 0, random.Random(1).randbytes(100))


def empty(layout: Layout) -> None:
    """Leave nothing but the file's name."""
    os.truncate(layout.database, 0)


def delete(layout: Layout) -> None:
    """Take the database away, and what SQLite keeps beside it."""
    for suffix in BESIDE:
        beside(layout, suffix).unlink(missing_ok=True)


def delete_main(layout: Layout) -> None:
    """Take the database away, but not its -wal."""
    layout.database.unlink()


def destroy_wal(layout: Layout) -> None:
    """Write nonsense over the -wal: what was committed last is gone, and nothing tells of it."""
    wal = beside(layout, "-wal")
    wal.write_bytes(random.Random(1).randbytes(wal.stat().st_size))


def settle(layout: Layout) -> None:
    """Bring everything into the database itself, as the end of the last process does."""
    with closing(sqlite3.connect(layout.database, isolation_level=None)) as db:
        assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


def _settled(damage: Callable[[Layout], None]) -> Callable[[Layout], None]:
    def settled(layout: Layout) -> None:
        settle(layout)
        damage(layout)

    return settled


DAMAGES: dict[str, Callable[[Layout], None]] = {
    "zeros in the middle": _settled(zero_middle),
    "a table's first page": lambda layout: zero_table(layout, "tallies"),
    "truncated": _settled(truncate),
    "header": _settled(scramble_header),
    "empty": _settled(empty),
    "deleted": delete,
    "deleted, but for its -wal": delete_main,
    "-wal destroyed": destroy_wal,
}
"""What can happen to the files of a store whose process was killed; each loses something."""
