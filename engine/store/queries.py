"""Reading: short queries over one connection that cannot write, rows typed at this border.

Every read is one statement, so no snapshot is held for longer than it takes: a reader that dwells
lets the WAL grow by 20 KB a transition.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from engine.clock import Clock, from_iso, to_iso
from engine.errors import TaskNotFound
from engine.model import ALL_AGENTS, UP, Event, HoldCause, ProcessId, RunOutcome, Spending, State
from engine.store.alerts import read_alert, read_alerts
from engine.store.counting import read_counters, read_durations
from engine.store.explain import explain
from engine.store.graph import CriticalPaths, read_graph
from engine.store.registry import read_external_rows
from engine.store.rows import (
    EVENT,
    TASK,
    WORKER,
    read_event,
    read_task,
    read_worker,
)
from engine.store.services import read_asked, read_services
from engine.store.spending import SPENT_EVER
from engine.store.windows import Windows
from engine.views import (
    AlertRow,
    CriticalPath,
    ExternalRow,
    GraphNode,
    HoldRow,
    Metrics,
    Neighbour,
    Progress,
    ServiceRow,
    SpentRow,
    TaskDetail,
    TaskRow,
    WorkerRow,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine.store.reader import Reader

_RECENT_MINUTES = 15
_HELD = (
    "SELECT agent, (SELECT coalesce(sum(n), 0) FROM tallies WHERE state = 'READY' AND NOT waiting"
    f" AND (h.agent = '{ALL_AGENTS}' OR tallies.agent = h.agent)) FROM holds h ORDER BY agent"
)
"""Who is held (`*`: all), and how many tasks wait for nothing else."""

_OLDEST = (
    "SELECT min(coalesce(r.started_at, r.claimed_at)) FROM tasks t JOIN runs r ON r.id = t.run_id"
    " WHERE t.state IN ('CLAIMED', 'RUNNING')"
)
_LIVE_WORKERS = "SELECT agent, pid, pid_started FROM workers WHERE status IN ('live', 'stopping')"


class Queries(Windows):
    """What screens and commands read. Ages are for the reader: times come as they were stored."""

    def __init__(self, reader: Reader, clock: Clock, is_alive: Callable[[ProcessId], bool]) -> None:
        super().__init__(reader, clock)
        self._is_alive = is_alive
        self._critical_paths = CriticalPaths(reader.rows, clock)

    async def progress(self) -> Progress:
        """Return the whole DAG in numbers; the cost does not grow with the DAG."""
        tallies = await self._rows(
            "SELECT state, waiting, sum(n) FROM tallies GROUP BY state, waiting"
        )
        by_state: dict[State, int] = {}
        waiting = 0
        for state, is_waiting, n in tallies:
            by_state[State(state)] = by_state.get(State(state), 0) + n
            waiting += n if is_waiting else 0
        now = self._clock.now()
        minutes = [
            to_iso(now - timedelta(minutes=back))[:16]
            for back in range(_RECENT_MINUTES - 1, -1, -1)
        ]
        pace = dict(
            await self._rows("SELECT minute, done FROM pace WHERE minute >= ?", minutes[:1])
        )
        human = "SELECT count(*) FROM tasks WHERE state = 'BLOCKED' AND instr(reasons, 'human') > 0"
        more = (
            "SELECT (SELECT value FROM meta WHERE key = 'dag'), sum(input_tokens),"
            " sum(cached_tokens), sum(output_tokens), sum(cost) FROM spent"
        )
        dag, *spent = (await self._rows(more))[0]
        held = {row[0]: row[1] for row in await self._rows(_HELD)}
        return Progress(
            total=sum(by_state.values()),
            by_state={state: n for state, n in by_state.items() if n},
            ready=by_state.get(State.READY, 0) - waiting,
            waiting=waiting,
            needs_human=(await self._rows(human))[0][0],
            held=tuple(held),
            held_back=held.get(ALL_AGENTS, sum(held.values())),
            recent=tuple(pace.get(minute, 0) for minute in minutes),
            dag=dag or "",
            spending=Spending(None, *(told or None for told in spent)),
        )

    async def holds(self) -> list[HoldRow]:
        """Return the claims that are held, in alphabetical order of the agents."""
        rows = await self._rows(
            "SELECT agent, since, cause, reason, until FROM holds ORDER BY agent"
        )
        return [
            HoldRow(
                agent, from_iso(since), HoldCause(cause), reason, from_iso(until) if until else None
            )
            for agent, since, cause, reason, until in rows
        ]

    async def alerts(self, limit: int, *, every: bool = False) -> list[AlertRow]:
        """Return the newest alerts that nobody has acknowledged (or `every` one), oldest first."""
        return await read_alerts(self._rows, limit, every=every)

    async def alert(self, number: int) -> AlertRow | None:
        """Return an alert by its number; None: there is none."""
        return await read_alert(self._rows, number)

    async def externals(self) -> list[ExternalRow]:
        """Return the agents that somebody else has started, in alphabetical order."""
        return await read_external_rows(self._rows)

    async def services(self) -> list[ServiceRow]:
        """Return all services that a keeper has entered, in alphabetical order."""
        return await read_services(self._rows, self._is_alive)

    async def asked_services(self) -> dict[str, str]:
        """Return what operators want of services and nobody has done yet."""
        return await read_asked(self._rows)

    async def spent(self) -> list[SpentRow]:
        """Return what each agent took since the last reset, in alphabetical order."""
        rows = await self._rows(
            "SELECT agent, priced, input_tokens, cached_tokens, output_tokens, cost"
            " FROM spent ORDER BY agent"
        )
        return [SpentRow(row[0], row[1], Spending(None, *row[2:])) for row in rows]

    async def metrics(self) -> Metrics:
        """Return the fleet in numbers; the cost does not grow with the DAG."""
        (oldest,), *_ = await self._rows(_OLDEST)
        age = (self._clock.now() - from_iso(oldest)).total_seconds() if oldest else None
        services = await read_services(self._rows, self._is_alive)
        workers = await self._rows(_LIVE_WORKERS)
        return Metrics(
            counters=await read_counters(self._rows),
            durations=await read_durations(self._rows),
            spent={row[0]: Spending(None, *row[1:]) for row in await self._rows(SPENT_EVER)},
            tasks=await self.agent_counts(),
            workers=Counter(
                agent for agent, pid, started in workers if self._is_alive(ProcessId(pid, started))
            ),
            services=sum(row.state in UP and row.keeper is not None for row in services),
            oldest_running=max(0.0, age) if age is not None else None,
        )

    async def agent_counts(self) -> Mapping[str, Mapping[State, int]]:
        """Return the number of tasks by agent and state; agents in alphabetical order."""
        counts: dict[str, dict[State, int]] = {}
        for agent, state, n in await self._rows(
            "SELECT agent, state, sum(n) FROM tallies WHERE n > 0 GROUP BY agent, state"
        ):
            counts.setdefault(agent, {})[State(state)] = n
        return counts

    async def workers(self) -> list[WorkerRow]:
        """Return all workers ever known, live ones first, each with the task that it holds."""
        rows = await self._rows(
            f"SELECT {WORKER.columns} FROM workers w {WORKER.join}"
            " ORDER BY w.status NOT IN ('live', 'stopping'), w.agent, w.id"
        )
        return [read_worker(row, self._is_alive) for row in rows]

    async def events(self, *, after: int = 0, limit: int = -1) -> list[Event]:
        """Return events with a seq above `after`, oldest first."""
        rows = await self._rows(
            f"SELECT {EVENT.columns} FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
        )
        return [read_event(row) for row in rows]

    async def events_before(self, seq: int, limit: int) -> list[Event]:
        """Return the last `limit` events with a seq below `seq`, oldest first."""
        rows = await self._rows(
            f"SELECT {EVENT.columns} FROM events WHERE seq < ? ORDER BY seq DESC LIMIT ?",
            (seq, limit),
        )
        return [read_event(row) for row in reversed(rows)]

    async def last_events(self, limit: int) -> list[Event]:
        """Return the newest events, oldest first."""
        return await self.events_before(2**62, limit)

    async def last_seq(self) -> int:
        """Return the seq of the newest event, 0 if there is none."""
        return int((await self._rows("SELECT coalesce(max(seq), 0) FROM events"))[0][0])

    async def task(self, task_id: str) -> TaskRow:
        """Return one task. Raises TaskNotFound."""
        rows = await self._rows(
            f"SELECT {TASK.columns} FROM tasks t {TASK.join} WHERE t.id = ?", (task_id,)
        )
        if not rows:
            raise TaskNotFound(task_id)
        return read_task(rows[0])

    async def detail(self, task_id: str, *, runs: int = 50, events: int = 50) -> TaskDetail:
        """Return everything about a task, with its newest runs and events. Raises TaskNotFound."""
        task = await self.task(task_id)
        (payload, timeout), *_ = await self._rows(
            "SELECT payload, timeout FROM tasks WHERE id = ?", (task_id,)
        ) or [("{}", 0.0)]
        happened = await self._rows(
            f"SELECT {EVENT.columns} FROM events WHERE task_id = ? ORDER BY seq DESC LIMIT ?",
            (task_id, events),
        )
        tried = await self.runs(task_id, limit=runs)
        done = next((run for run in tried if run.outcome is RunOutcome.DONE), None)
        return TaskDetail(
            task=task,
            payload=json.loads(payload),
            timeout=timeout,
            result=done.result if done is not None and task.state is State.DONE else None,
            deps=await self._neighbours(
                "SELECT e.value, d.state FROM tasks t, json_each(t.deps) e"
                " LEFT JOIN tasks d ON d.id = e.value WHERE t.id = ? ORDER BY e.key LIMIT 1000",
                task_id,
            ),
            dependents=await self._neighbours(
                "SELECT e.task, d.state FROM edges e JOIN tasks d ON d.id = e.task"
                " WHERE e.dep = ? ORDER BY d.position LIMIT 1000",
                task_id,
            ),
            runs=tuple(tried),
            events=tuple(read_event(row) for row in reversed(happened)),
            explanation=await self.explain(task_id),
            spending=await self._spent_on(task_id),
        )

    async def _spent_on(self, task_id: str) -> Spending:
        rows = await self._rows(
            "SELECT sum(turns), sum(input_tokens), sum(cached_tokens), sum(output_tokens),"
            " sum(cost) FROM runs WHERE task_id = ?",
            (task_id,),
        )
        return Spending(*rows[0])

    async def explain(self, task_id: str) -> tuple[str, ...]:
        """Say in sentences why a task is not running. Raises TaskNotFound."""
        task = await self.task(task_id)
        workers = [w for w in await self.workers() if w.agent == task.agent and w.alive]
        return await explain(task, workers, self._rows, self._clock.now())

    async def graph(self, around: str | None = None, *, limit: int = 5000) -> list[GraphNode]:
        """Return the tasks in the order of the file; if there are more than `limit`, those nearest
        to the task `around`: its deps and dependents, theirs, and so on. Without it, those nearest
        to what runs or is stuck.
        """  # noqa: D205 - one sentence reads better unbroken
        return await read_graph(self._rows, around, limit)

    async def critical_path(self) -> CriticalPath:
        """Return the chain of tasks still to be worked that takes longest, as of lately.

        What is BLOCKED, FAILED or CANCELLED, and what hangs on it, will not be worked. Empty also
        if more than `engine.store.graph.MOST` tasks are left: then only the rate can tell.
        """
        return await self._critical_paths.find()

    async def _neighbours(self, sql: str, task_id: str) -> tuple[Neighbour, ...]:
        return tuple(
            Neighbour(row[0], State(row[1]) if row[1] else None)
            for row in await self._rows(sql, (task_id,))
        )
