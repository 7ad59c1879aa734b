"""The DAG as a graph, and the chain of it that takes longest.

A graph for the screen is one statement. A critical path needs every task that is still to be
worked, so it is read a window at a time, between which other readers get their turn, and reckoned
on a thread of its own: that shares the interpreter with the event loop, which waits for it no
longer than Python's switch interval (5 ms) at a time.
"""

from __future__ import annotations

import asyncio
import json
from array import array
from typing import TYPE_CHECKING, Any

from engine.clock import from_iso
from engine.criticalpath import longest_path
from engine.model import State
from engine.store.rows import ON_SCREEN
from engine.store.transaction import read_reasons
from engine.views import CriticalPath, GraphNode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import datetime

    from engine.clock import Clock

    Rows = Callable[..., Awaitable[list[Any]]]

MOST = 20_000
"""With more tasks left than this no path is reckoned: it would take longer to find than it is
good for, and more memory than all else on the screen."""

_SEEDS = 100
"""A graph around nothing in particular is around so many tasks, the first of the screen."""
_SHARE = 50
"""A path that took so long to find is good for so many times as long: 2 % of a core at most."""
_WINDOW = 2000
_AT_ONCE = 500
_LATEST_RUNS = 5000
"""What runs take is learnt from the newest: older ones say less, and reading them costs more."""

_NODES = (
    "SELECT t.id, t.name, t.agent, t.state, t.reasons, t.pending, t.deps, (SELECT"
    " (julianday(ended_at) - julianday(coalesce(started_at, claimed_at))) * 86400 FROM runs"
    " WHERE task_id = t.id AND outcome = 'done' ORDER BY n DESC LIMIT 1) FROM tasks t"
)
_IN_FILE = "ORDER BY t.position, t.id"

# A queue without ORDER BY is first in, first out: that is breadth first. UNION drops whom it has
# seen, so a step back leads nowhere.
_NEAREST = (
    "WITH RECURSIVE near(id) AS (SELECT value FROM json_each(?1)"
    " UNION SELECT e.task FROM near JOIN edges e ON e.dep = near.id"
    " UNION SELECT d.id FROM near JOIN tasks t ON t.id = near.id, json_each(t.deps) j"
    "  JOIN tasks d ON d.id = j.value LIMIT ?2) SELECT id FROM near"
)

_LEFT = (
    "SELECT t.id, t.agent, t.deps, t.position, t.rowid, (SELECT coalesce(started_at, claimed_at)"
    f" FROM runs WHERE id = t.run_id), t.not_before FROM tasks t WHERE {ON_SCREEN} = ?"
    " AND (t.position, t.rowid) > (?, ?) ORDER BY t.position, t.rowid LIMIT ?"
)
_ACTIVE = 0
_STAGES = (4, 3, _ACTIVE)
"""Waiting, ready, active, as ON_SCREEN numbers them. In the order in which a task goes through
them, so that none is missed that goes on between two windows."""

_TOOK = (
    "SELECT agent, count(*), sum(julianday(ended_at) - julianday(coalesce(started_at, claimed_at)))"
    " * 86400 FROM (SELECT * FROM runs ORDER BY n DESC LIMIT ?) WHERE outcome = 'done'"
    " AND ended_at IS NOT NULL GROUP BY agent"
)


async def read_graph(rows: Rows, around: str | None, limit: int) -> list[GraphNode]:
    """Return what `Queries.graph` promises. `rows` runs one statement."""
    (total,), *_ = await rows("SELECT coalesce(sum(n), 0) FROM tallies")
    if total <= limit:
        found = await rows(f"{_NODES} {_IN_FILE}")
    else:
        ids = json.dumps(await _nearest(rows, around, limit))
        found = await rows(
            f"{_NODES} WHERE t.id IN (SELECT value FROM json_each(?)) {_IN_FILE}", (ids,)
        )
    nodes: list[GraphNode] = []
    for start in range(0, len(found), _AT_ONCE):
        nodes += map(_node, found[start : start + _AT_ONCE])
        await asyncio.sleep(0)
    return nodes


def _node(row: tuple[Any, ...]) -> GraphNode:
    task_id, name, agent, state, reasons, pending, deps, seconds = row
    return GraphNode(
        id=task_id,
        name=name,
        agent=agent,
        state=State(state),
        reasons=read_reasons(reasons),
        pending=pending,
        deps=tuple(json.loads(deps)) if deps != "[]" else (),
        # Time stamps are cut to milliseconds, and a clock may have been set back.
        seconds=None if seconds is None else max(0.0, round(seconds, 3)),
    )


async def _nearest(rows: Rows, around: str | None, limit: int) -> list[str]:
    if around is not None and await rows("SELECT 1 FROM tasks WHERE id = ?", (around,)):
        return await _reached(rows, [around], limit)
    first = f"SELECT t.id FROM tasks t ORDER BY {ON_SCREEN}, t.position, t.id LIMIT ?"
    ids = await _reached(rows, [row[0] for row in await rows(first, (min(limit, _SEEDS),))], limit)
    if len(ids) < limit:
        # What hangs together with those is told; many small graphs fill the rest.
        more = [row[0] for row in await rows(first, (limit,))]
        ids = list(dict.fromkeys([*ids, *more]))[:limit]
    return ids


async def _reached(rows: Rows, starts: Sequence[str], limit: int) -> list[str]:
    return [row[0] for row in await rows(_NEAREST, (json.dumps(starts), limit))]


class CriticalPaths:
    """Finds the critical path when it is asked for, but no more often than is worth it."""

    def __init__(self, rows: Rows, clock: Clock) -> None:
        self._rows = rows
        self._clock = clock
        self._finding = asyncio.Lock()
        self._seq = -1
        self._good_until = 0.0
        self._moving = False
        self._path = CriticalPath()

    async def find(self) -> CriticalPath:
        """Return the path as of now, or as of lately if finding it takes long."""
        async with self._finding:
            began = self._clock.monotonic()
            if self._seq >= 0 and began < self._good_until:
                return self._path
            seq = (await self._rows("SELECT coalesce(max(seq), 0) FROM events"))[0][0]
            if seq != self._seq or self._moving:
                self._path, self._moving = await self._find()
                took = self._clock.monotonic() - began
                self._seq, self._good_until = seq, began + took + took * _SHARE
            return self._path

    async def _find(self) -> tuple[CriticalPath, bool]:
        """Return the path, and whether it changes as time goes by."""
        left = (
            "SELECT coalesce(sum(n), 0) FROM tallies WHERE state IN ('READY', 'CLAIMED', 'RUNNING')"
        )
        if (await self._rows(left))[0][0] > MOST:
            return CriticalPath(), False
        pages: list[list[tuple[Any, ...]]] = []
        moving = False
        for stage in _STAGES:
            after = (-(2**62), 0)
            while page := await self._rows(_LEFT, (stage, *after, _WINDOW)):
                pages.append(page)
                # Times that come nearer: when what runs is over, when what waits for one begins.
                moving = moving or stage == _ACTIVE or any(row[6] for row in page)
                after = page[-1][3:5]
        took = {row[0]: (row[1], row[2]) for row in await self._rows(_TOOK, (_LATEST_RUNS,))}
        return await asyncio.to_thread(_reckon, pages, took, self._clock.now()), moving


def _reckon(
    pages: list[list[tuple[Any, ...]]], took: Mapping[str, tuple[int, float]], now: datetime
) -> CriticalPath:
    """Tasks whose deps are not among them have them behind them: one whose dep came to nothing is
    BLOCKED, and not among them itself. Empties `pages`, a page at a time: to free a hundred
    thousand rows at once would hold up the event loop.
    """  # noqa: D205 - one sentence reads better unbroken
    runs = sum(count for count, _ in took.values())
    usual = max(0.0, sum(total for _, total in took.values()) / runs) if runs else 1.0
    means = {agent: max(0.0, total / count) for agent, (count, total) in took.items()}
    numbers: dict[str, int] = {}
    needed: list[str] = []
    seconds = array("d")
    while pages:
        # The last page first: a task that went on while we read counts as what it is now.
        for task_id, agent, deps, _, _, started, not_before in pages.pop():
            if task_id in numbers:
                continue
            numbers[task_id] = len(needed)
            needed.append(deps)
            mean = means.get(agent, usual)
            if started is not None and runs:
                mean = max(0.0, mean - max(0.0, (now - from_iso(started)).total_seconds()))
            elif not_before is not None:
                mean += max(0.0, (from_iso(not_before) - now).total_seconds())
            seconds.append(mean)
    deps_of, dependents = array("l"), array("l")
    while needed:
        text = needed.pop()
        number = len(needed)
        for dep in json.loads(text) if text != "[]" else ():
            if (known := numbers.get(dep)) is not None:
                deps_of.append(known)
                dependents.append(number)
    path, total = longest_path(seconds, deps_of, dependents)
    ids = list(numbers)
    return CriticalPath(tuple(ids[number] for number in path), total if runs and path else None)
