"""How far logs were read, and what was found in them that no alert has told of yet.

Alerts are raised in the transaction that notes how far the log was read for them: so after a crash
no line is told of twice, and none is lost.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from engine.clock import from_iso, to_iso
from engine.store.alerts import raise_alerts
from engine.store.transaction import dump

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from datetime import datetime

    from engine.model import NewAlert
    from engine.store.transaction import Transaction

    Rows = Callable[..., Awaitable[list[Any]]]

RUNS = "watched:runs"
"""The key in `meta` of the number up to which runs are known to whoever watches their output."""
PATTERNS = "watched:files"
"""The key in `meta` of the files and globs that were watched before, as a JSON array."""

_COLUMNS = "source, pattern, positions, count, first_at, last_at, first_line, draft, quiet_until"


class WatchedLog(Struct, frozen=True):
    """A log. `pattern` of the settings names it; `positions` is JSON, of whoever reads it.

    `count` lines were found since the last alert, the first of them `first_line`; `draft` bytes of
    the next alert's body are good. Until `quiet_until` lines are only counted.
    """

    source: str
    pattern: str = ""
    positions: Any = ()
    count: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    first_line: str = ""
    draft: int = 0
    quiet_until: datetime | None = None


class Watching(Struct, frozen=True):
    """What one look at the logs has changed. `gone`: sources that nobody reads any further.

    `runs`: the number up to which runs are known; `patterns`: what is watched. None: as before.
    """

    logs: tuple[WatchedLog, ...] = ()
    gone: tuple[str, ...] = ()
    runs: int | None = None
    patterns: tuple[str, ...] | None = None
    alerts: tuple[NewAlert, ...] = ()
    targets: tuple[str, ...] = ()


class Watched(Struct, frozen=True):
    """What was known when it was last noted."""

    logs: Mapping[str, WatchedLog] = field(default_factory=dict)
    runs: int = 0
    patterns: frozenset[str] = frozenset()


class WatchedRun(Struct, frozen=True):
    """A run whose output is read. `over`: it will write no more."""

    n: int
    id: str
    task_id: str
    over: bool


def begin(tx: Transaction) -> None:
    """Let runs be watched from now on, if they never were: what older ones wrote stays untold."""
    tx.db.execute(f"INSERT OR IGNORE INTO meta SELECT '{RUNS}', coalesce(max(n), 0) FROM runs")


def note(tx: Transaction, watching: Watching) -> list[int]:
    """Note what a look has found; return the numbers of the alerts that were raised."""
    tx.db.executemany(
        f"INSERT OR REPLACE INTO watched({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        map(_row, watching.logs),
    )
    tx.db.executemany("DELETE FROM watched WHERE source = ?", ((one,) for one in watching.gone))
    tx.bulk += len(watching.logs) + len(watching.gone)
    if watching.runs is not None:
        _set(tx, RUNS, str(watching.runs))
    if watching.patterns is not None:
        _set(tx, PATTERNS, dump(watching.patterns))
    return raise_alerts(tx, watching.alerts, watching.targets)


def _set(tx: Transaction, key: str, value: str) -> None:
    tx.db.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        (key, value),
    )


def _row(log: WatchedLog) -> tuple[Any, ...]:
    first, last, quiet = (
        None if moment is None else to_iso(moment)
        for moment in (log.first_at, log.last_at, log.quiet_until)
    )
    return (
        *(log.source, log.pattern, dump(log.positions), log.count),
        *(first, last, log.first_line, log.draft, quiet),
    )


async def read_watched(rows: Rows) -> Watched:
    """Return all that is known of logs."""
    logs = [_read(row) for row in await rows(f"SELECT {_COLUMNS} FROM watched")]
    meta = dict(await rows("SELECT key, value FROM meta WHERE key IN (?, ?)", (RUNS, PATTERNS)))
    return Watched(
        {log.source: log for log in logs},
        int(meta.get(RUNS, 0)),
        frozenset(json.loads(meta.get(PATTERNS, "[]"))),
    )


def _read(row: tuple[Any, ...]) -> WatchedLog:
    source, pattern, positions, count, first, last, first_line, draft, quiet = row
    first, last, quiet = (
        None if moment is None else from_iso(moment) for moment in (first, last, quiet)
    )
    return WatchedLog(
        source, pattern, tuple(json.loads(positions)), count, first, last, first_line, draft, quiet
    )


async def read_runs(rows: Rows, after: int, known: Iterable[str], limit: int) -> list[WatchedRun]:
    """Return the runs that came after a number, at most `limit`, and those that are known by id."""
    found = await rows(
        "SELECT n, id, task_id, ended_at IS NOT NULL FROM runs WHERE id IN"
        " (SELECT value FROM json_each(?1)) UNION"
        " SELECT * FROM (SELECT n, id, task_id, ended_at IS NOT NULL FROM runs WHERE n > ?2"
        "  ORDER BY n LIMIT ?3) ORDER BY n",
        (dump([*known]), after, limit),
    )
    return [WatchedRun(n, run, task, bool(over)) for n, run, task, over in found]
