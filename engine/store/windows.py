"""Windows of the long lists: tasks, runs and events, filtered and sorted.

A window is cut by its keys first; whole rows, and what is joined to them, are read for what is
shown alone. Nothing here costs more than one pass over a list, and what a screen asks again and
again, the tasks in its own order or by their states, costs a step down an index.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from engine.clock import to_iso
from engine.store import filtering, sorting
from engine.store.filtering import countable, states_wanted, where_sql
from engine.store.forgetting import LOST, read_lost
from engine.store.rows import EVENT, ON_SCREEN, RUN, TASK, read_event, read_run, read_task
from engine.views import IN_FILE, EventSpan, Order

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from engine.clock import Clock
    from engine.filters import Filter
    from engine.model import Event
    from engine.store.reader import Reader
    from engine.store.sorting import Sorting
    from engine.views import RunRow, TaskRow

OWN: Final = Order()
"""A list's own order: tasks as on the screen, runs newest first."""


class Windows:
    """The long lists. `limit` -1: all rows that are left; an offset past the end gives none."""

    def __init__(self, reader: Reader, clock: Clock) -> None:
        self._rows = reader.rows
        self._clock = clock

    # -- tasks -----------------------------------------------------------------------------

    async def tasks(
        self,
        where: Filter | None = None,
        *,
        limit: int = -1,
        offset: int = 0,
        order: Order = OWN,
    ) -> list[TaskRow]:
        """Return a window of the tasks that pass the filter; see sorting.TASKS for the orders."""
        by = self._by(sorting.TASKS, order)
        condition, values = _of_tasks(where)
        rows = await self._rows(
            f"SELECT {TASK.columns} FROM"
            f" (SELECT t.rowid AS key FROM tasks t {condition} ORDER BY {by} LIMIT ? OFFSET ?)"
            f" CROSS JOIN tasks t ON t.rowid = key {TASK.join} ORDER BY {by}",
            (*values, limit, offset),
        )
        return [read_task(row) for row in rows]

    async def task_ids(self, where: Filter) -> list[str]:
        """Return the ids of the tasks that pass the filter, in the order of the file."""
        by = self._by(sorting.TASKS, IN_FILE)
        condition, values = _of_tasks(where)
        rows = await self._rows(f"SELECT t.id FROM tasks t {condition} ORDER BY {by}", values)
        return [row[0] for row in rows]

    async def count_tasks(self, where: Filter | None = None) -> int:
        """Count the tasks that pass the filter; by state and agent that costs next to nothing."""
        if countable(where):
            condition, values = where_sql(where, filtering.TALLIES)
            return await self._number(
                f"SELECT coalesce(sum(n), 0) FROM tallies {condition}", values
            )
        condition, values = _of_tasks(where)
        return await self._number(f"SELECT count(*) FROM tasks t {condition}", values)

    async def locate_task(
        self, where: Filter | None, task_id: str, order: Order = OWN
    ) -> int | None:
        """Return the row of a task in the filtered and sorted list, from 0; None if not in it."""
        before = self._by(sorting.TASKS, order).before("tasks t", "t.id = ?")
        its, its_values = where_sql(where, filtering.TASKS, "t.id = ?", values=[task_id])
        parts = [_of_tasks(where, one, values=[task_id] * one.count("?")) for one in before]
        return await self._place("tasks t", parts, its, its_values)

    # -- runs ------------------------------------------------------------------------------

    async def runs(
        self,
        task_id: str | None = None,
        *,
        where: Filter | None = None,
        limit: int = -1,
        offset: int = 0,
        order: Order = OWN,
    ) -> list[RunRow]:
        """Return a window of the runs that pass the filter, of one task or of all.

        See sorting.RUNS for the orders.
        """
        by = self._by(sorting.RUNS, order)
        mine = () if task_id is None else ("r.task_id = ?",)
        condition, values = where_sql(
            where, filtering.RUNS, *mine, values=[task_id] if task_id is not None else []
        )
        rows = await self._rows(
            f"SELECT {RUN.columns} FROM"
            f" (SELECT r.n AS key FROM runs r {condition} ORDER BY {by} LIMIT ? OFFSET ?)"
            f" CROSS JOIN runs r ON r.n = key ORDER BY {by}",
            (*values, limit, offset),
        )
        return [read_run(row) for row in rows]

    async def count_runs(self, where: Filter | None = None) -> int:
        """Count the runs that pass the filter."""
        condition, values = where_sql(where, filtering.RUNS)
        return await self._number(f"SELECT count(*) FROM runs r {condition}", values)

    async def locate_run(self, where: Filter | None, run_id: str, order: Order = OWN) -> int | None:
        """Return the row of a run in the filtered and sorted list, from 0; None if not in it."""
        before = self._by(sorting.RUNS, order).before("runs r", "r.id = ?")
        its, its_values = where_sql(where, filtering.RUNS, "r.id = ?", values=[run_id])
        parts = [
            where_sql(where, filtering.RUNS, one, values=[run_id] * one.count("?"))
            for one in before
        ]
        return await self._place("runs r", parts, its, its_values)

    async def run(self, run_id: str) -> RunRow | None:
        """Return one run, None if it is gone."""
        rows = await self._rows(f"SELECT {RUN.columns} FROM runs r WHERE r.id = ?", (run_id,))
        return read_run(rows[0]) if rows else None

    async def spans(self, since: datetime, until: datetime, limit: int = 5000) -> list[RunRow]:
        """Return the runs that were going on at any moment from `since` to `until`, by start.

        If they are more than `limit`, those that began last.
        """
        rows = await self._rows(
            f"SELECT {RUN.columns} FROM runs r WHERE r.claimed_at <= ?"
            " AND (r.ended_at IS NULL OR r.ended_at >= ?) ORDER BY r.n DESC LIMIT ?",
            (to_iso(until), to_iso(since), limit),
        )
        return sorted(map(read_run, rows), key=lambda run: run.claimed_at)

    # -- events ----------------------------------------------------------------------------

    async def event_span(self) -> EventSpan:
        """Return which events there are: a step down the index for either end, not a scan."""
        first, last, noted = (
            await self._rows(
                "SELECT (SELECT min(seq) FROM events), (SELECT max(seq) FROM events),"
                " (SELECT value FROM meta WHERE key = ?)",
                (LOST,),
            )
        )[0]
        if first is None:
            return EventSpan()
        lost = sorted(gap for gap in read_lost(noted) if first < gap.first <= gap.last < last)
        return EventSpan(first, last, tuple((gap.first, gap.last) for gap in lost))

    async def event_seqs(self, where: Filter | None, *, after: int, upto: int) -> list[int]:
        """Return the numbers of the events from `after` + 1 to `upto` that match, ascending."""
        condition, values = where_sql(
            where, filtering.EVENTS, "e.seq > ?", "e.seq <= ?", values=(after, upto)
        )
        rows = await self._rows(f"SELECT e.seq FROM events e {condition} ORDER BY e.seq", values)
        return [row[0] for row in rows]

    async def events_at(self, seqs: Sequence[int]) -> list[Event]:
        """Return the events with these numbers, ascending; those that are gone are left out."""
        rows = await self._rows(
            f"SELECT {EVENT.columns} FROM events"
            " WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq",
            (json.dumps(list(seqs)),),
        )
        return [read_event(row) for row in rows]

    def _by(self, list_: sorting.Sortable, order: Order) -> Sorting:
        return list_.by(order, self._clock.now())

    async def _place(
        self, table: str, before: list[tuple[str, list[Any]]], its: str, its_values: list[Any]
    ) -> int | None:
        """Count the rows before the one that `its` finds, in one or more parts; None: no row."""
        counts = " + ".join(f"(SELECT count(*) FROM {table} {ahead})" for ahead, _ in before)
        bound = [value for _, values in before for value in values]
        rows = await self._rows(f"SELECT {counts} FROM {table} {its}", (*bound, *its_values))
        return int(rows[0][0]) if rows else None

    async def _number(self, sql: str, values: Sequence[Any]) -> int:
        return int((await self._rows(sql, values))[0][0])


def _of_tasks(
    where: Filter | None, *more: str, values: Sequence[Any] = ()
) -> tuple[str, list[Any]]:
    """Return the WHERE clause over `tasks t`, with the stretch of the index that alone matters."""
    wanted = states_wanted(where)
    if wanted:
        ranks = [sorting.RANKS[state] for state in wanted]
        least, greatest = min(low for low, _ in ranks), max(high for _, high in ranks)
        more = (f"{ON_SCREEN} BETWEEN {least} AND {greatest}", *more)
    return where_sql(where, filtering.TASKS, *more, values=values)
