"""The orders of lists as SQL: their columns, and how many rows stand before one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from engine.clock import to_iso
from engine.store.filtering import LAST_WORKER, RUN_TOOK, SECONDS
from engine.store.rows import ON_SCREEN

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from engine.views import Order

RANKS: Final = {
    "running": (0, 0),
    "claimed": (0, 0),
    "blocked": (1, 1),
    "failed": (2, 2),
    "ready": (3, 3),
    "waiting": (3, 4),
    "done": (5, 5),
    "cancelled": (6, 6),
}
"""The least and the greatest value of ON_SCREEN of each state that filters know."""


class Key(Struct, frozen=True):
    """An expression that rows are sorted by. Those that may be NULL stand last, either way.

    `:now` in it stands for the moment at which one asks.
    """

    sql: str
    descending: bool = False
    nullable: bool = False

    def __str__(self) -> str:
        """Write it for an ORDER BY. SQLite takes NULL for less than anything."""
        if self.descending:
            return f"{self.sql} DESC"
        return f"{self.sql} NULLS LAST" if self.nullable else self.sql

    def at(self, now: datetime) -> Key:
        """Return the key at a moment, which no parameter can be: a key is written several times."""
        return replace(self, sql=self.sql.replace(":now", f"'{to_iso(now)}'"))


class Sorting(Struct, frozen=True):
    """Keys that tell all rows apart."""

    keys: tuple[Key, ...]

    def __str__(self) -> str:
        """Write them for an ORDER BY."""
        return ", ".join(map(str, self.keys))

    def before(self, table: str, which: str) -> tuple[str, ...]:
        """Return conditions of which just one holds for a row that stands before another one.

        That is the row of `table` for which `which` holds; its value is to be bound once for each
        `?` of a condition.
        """

        def its(key: Key) -> str:
            return f"(SELECT {key.sql} FROM {table} WHERE {which})"

        head, *ties = self.keys
        if not head.nullable and len({key.descending for key in self.keys}) == 1:
            # An index that begins with these keys answers each in one step.
            sign = ">" if head.descending else "<"
            return tuple(
                " AND ".join(
                    [
                        *(f"{same.sql} = {its(same)}" for same in self.keys[:n]),
                        f"{key.sql} {sign} {its(key)}",
                    ]
                )
                for n, key in enumerate(self.keys)
            )
        nearer = f"{head.sql} {'>' if head.descending else '<'} {its(head)}"
        if head.nullable:
            nearer = f"({nearer} OR ({head.sql} IS NOT NULL AND {its(head)} IS NULL))"
        names = ", ".join(key.sql for key in ties)
        sign = ">" if ties[0].descending else "<"
        tie = f"({names}) {sign} (SELECT {names} FROM {table} WHERE {which})"
        return (f"({nearer} OR ({head.sql} IS {its(head)} AND {tie}))",)


class Sortable(Struct, frozen=True):
    """The orders of a list: its own, which breaks all ties, and those by a column."""

    own: tuple[Key, ...]
    columns: Mapping[str, Key | tuple[Key, ...]]

    def by(self, order: Order, now: datetime) -> Sorting:
        """Return an order of the list; what goes on has taken until `now`.

        Raises:
            ValueError: it has no such column.

        """
        return Sorting(tuple(key.at(now) for key in self._keys(order)))

    def _keys(self, order: Order) -> tuple[Key, ...]:
        if not order.column:
            if not order.descending:
                return self.own
            return tuple(replace(key, descending=not key.descending) for key in self.own)
        if order.column not in self.columns:
            raise ValueError(f"no order {order.column!r}; there are {', '.join(self.columns)}")
        found = self.columns[order.column]
        if isinstance(found, tuple):  # these tell all rows apart
            return tuple(replace(key, descending=order.descending) for key in found)
        return (replace(found, descending=order.descending), *self.own)


_LAST_RUN: Final = "FROM runs l WHERE l.n = (SELECT max(n) FROM runs WHERE task_id = t.id)"
# What the screen tells of a task: how long its run takes, or its last one took.
_SPENT: Final = (
    f"(SELECT CASE WHEN t.state IN ('CLAIMED', 'RUNNING') THEN"
    f" {SECONDS.format(end=':now', start='l.started_at')} WHEN t.state <> 'READY' THEN"
    f" {SECONDS.format(end='l.ended_at', start='l.started_at')} END {_LAST_RUN})"
)
TASKS: Final = Sortable(
    # Tasks that left the file keep their position: the row's number tells those apart that share
    # one. Like all of these keys it stands in the index, so that rows above a window are not read.
    (Key(ON_SCREEN), Key("t.position"), Key("t.rowid")),
    {
        "file": (Key("t.position"), Key("t.rowid")),
        "id": (Key("t.id"),),
        "name": Key("t.name COLLATE NOCASE"),
        "agent": Key("t.agent"),
        "worker": Key(LAST_WORKER, nullable=True),
        "try": Key("t.attempts"),
        "time": Key(_SPENT, nullable=True),
        "priority": Key("t.priority"),
        "state": Key(ON_SCREEN),
        "updated": Key("t.updated_at"),
    },
)
"""Over `tasks t`. States are sorted as on the screen: what runs, what is stuck, what is over."""
RUNS: Final = Sortable(
    (Key("r.n", descending=True),),
    {
        "task": Key("r.task_id"),
        "agent": Key("r.agent"),
        "worker": Key("r.worker_id"),
        "try": Key("r.attempt"),
        "outcome": Key("r.outcome", nullable=True),
        "started": Key("r.started_at", nullable=True),
        "took": Key(RUN_TOOK, nullable=True),
        "cost": Key("r.cost", nullable=True),
    },
)
"""Over `runs r`; a run that goes on has no outcome yet and took nothing yet."""
