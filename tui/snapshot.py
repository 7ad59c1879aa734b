"""One frozen picture of the store for each refresh: the screen never shows half an update.

Reads only what may have changed: the window that each list shows, never a whole table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from engine.text import clean_text
from engine.views import ExternalRow, Order, Progress, ServiceRow, TaskRow, WorkerRow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterator
    from datetime import datetime

    from engine.filters import Filter
    from engine.model import Event
    from tui.matching import Matching
    from tui.ports import Queries
    from tui.widgets.rows import Window

T = TypeVar("T")


class Section(Struct, Generic[T], frozen=True):
    """One part of the picture. `read_at` is None until it was read for the first time.

    After a failed read `trouble` says why, and `value` is still the last one that was read.
    """

    value: T
    read_at: datetime | None = None
    trouble: str = ""


class Page(Struct, Generic[T], frozen=True):
    """A window of a long list: `rows[0]` is row `offset` of `total`.

    `cursor_at` is where the row `cursor` is now, which was the chosen one when this was asked
    for; None if nobody had chosen one, or it is gone.
    `complete` is false while a filter has not looked at everything yet.
    """

    rows: tuple[T, ...] = ()
    offset: int = 0
    total: int = 0
    cursor_at: int | None = None
    complete: bool = True
    cursor: Hashable | None = None


class Wants(Struct, frozen=True):
    """What the panes show: filter and order of the tasks, and the windows of the long lists.

    `matching` are the events that their filter finds, None without one.
    """

    where: Filter
    tasks: Window
    events: Window
    order: Order = Order()
    matching: Matching | None = None


class Snapshot(Struct, frozen=True):
    """The picture. `wants` is what it was taken for."""

    wants: Wants | None = None
    progress: Section[Progress] = field(default_factory=lambda: Section(Progress()))
    workers: Section[tuple[WorkerRow, ...]] = field(default_factory=lambda: Section(()))
    tasks: Section[Page[TaskRow]] = field(default_factory=lambda: Section(Page()))
    events: Section[Page[Event]] = field(default_factory=lambda: Section(Page()))
    externals: Section[tuple[ExternalRow, ...]] = field(default_factory=lambda: Section(()))
    services: Section[tuple[ServiceRow, ...]] = field(default_factory=lambda: Section(()))

    @property
    def _core(self) -> Iterator[Section[object]]:
        yield from (self.progress, self.workers, self.tasks, self.events)  # type: ignore[misc]  # only read
        yield from (self.externals, self.services)  # type: ignore[misc]  # likewise

    @property
    def trouble(self) -> str:
        """Why a part could not be read; empty if all could."""
        return next((section.trouble for section in self._core if section.trouble), "")

    @property
    def read_at(self) -> datetime | None:
        """When the oldest part was read; None if one never was."""
        moments = [section.read_at for section in self._core]
        known = [moment for moment in moments if moment is not None]
        return min(known) if len(known) == len(moments) else None


async def take(
    queries: Queries,
    wants: Wants,
    now: Callable[[], datetime],
    before: Snapshot,
    *,
    changed: bool,
    recheck: bool = False,
) -> Snapshot:
    """Return the next picture. Unless the store has `changed`, only new windows are read.

    With `recheck` workers and services are read in any case: a process that was killed commits
    nothing.
    A query that fails leaves its section as it was, with the reason.
    """

    async def read(
        section: Section[T], same: bool, query: Callable[[], Awaitable[T]]
    ) -> Section[T]:
        if same and not changed and section.read_at is not None and not section.trouble:
            return section
        moment = now()
        try:
            value = await query()
        except Exception as error:  # noqa: BLE001 - whatever a query throws is shown in its pane
            return replace(section, trouble=explain(error))
        return Section(value, moment)

    old = before.wants
    same_tasks = old is not None and (
        (old.where, old.tasks, old.order) == (wants.where, wants.tasks, wants.order)
    )
    same_events = old is not None and (old.events, old.matching) == (wants.events, wants.matching)
    same_events &= before.events.value.complete
    return Snapshot(
        wants=wants,
        progress=await read(before.progress, True, queries.progress),
        workers=await read(before.workers, not recheck, lambda: _all(queries.workers)),
        tasks=await read(before.tasks, same_tasks, lambda: _tasks(queries, wants)),
        events=await read(before.events, same_events, lambda: _events(queries, wants)),
        externals=await read(before.externals, True, lambda: _all(queries.externals)),
        services=await read(before.services, not recheck, lambda: _all(queries.services)),
    )


def explain(error: Exception) -> str:
    """Return an error as one clean line."""
    text = clean_text(str(error)).strip()
    return text or type(error).__name__


async def _all(query: Callable[[], Awaitable[list[T]]]) -> tuple[T, ...]:
    return tuple(await query())


async def _tasks(queries: Queries, wants: Wants) -> Page[TaskRow]:
    total = await queries.count_tasks(wants.where)
    cursor_at = None
    if isinstance(wants.tasks.cursor, str):
        cursor_at = await queries.locate_task(wants.where, wants.tasks.cursor, wants.order)
    offset, limit = wants.tasks.moved(cursor_at)
    offset = min(offset, max(0, total - limit))
    rows = await queries.tasks(wants.where, limit=limit, offset=offset, order=wants.order)
    return Page(tuple(rows), offset, total, cursor_at, cursor=wants.tasks.cursor)


async def _events(queries: Queries, wants: Wants) -> Page[Event]:
    span = await queries.event_span()
    window, matching = wants.events, wants.matching
    complete, total, place = True, span.total, span.place
    if matching is not None:
        complete = await matching.extend(queries, span.first, span.last)
        total, place = len(matching.seqs), matching.place
    cursor_at = place(window.cursor) if isinstance(window.cursor, int) else None
    # Places change only when old events are forgotten.
    offset, limit = window.moved(cursor_at)
    if window.at_end or offset + limit > total:
        offset = max(0, total - limit)
    if matching is None:
        rows = await queries.events(after=span.seq_at(offset) - 1, limit=limit)
    else:
        rows = await queries.events_at(matching.seqs[offset : offset + limit])
    if len(rows) < limit:
        total = offset + len(rows)  # fewer than their numbers promise: some are missing
    # Where one of those is missing, what was read tells better than any reckoning.
    read = (at for at, event in enumerate(rows, offset) if event.seq == window.cursor)
    return Page(tuple(rows), offset, total, next(read, cursor_at), complete, window.cursor)
