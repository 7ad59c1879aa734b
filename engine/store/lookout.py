"""What hosts and reapers look out for: work to claim, runs that hold tasks, what is due."""

from __future__ import annotations

import json
from collections.abc import Mapping  # noqa: TC003 - a struct's field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.clock import from_iso, to_iso
from engine.machine import ENDING_SECONDS, LONGEST_BACKOFF
from engine.model import Needed, ProcessId, State, TaskDef
from engine.store.alerts import LONGEST_WAIT, read_due, read_next_due
from engine.store.claims import CLAIMABLE, RUNNING, SET_BACK
from engine.store.registry import read_externals
from engine.store.rows import HOLDS, ActiveRun, EndingRun, LiveWorker
from engine.store.services import read_asked, read_known
from engine.store.watched import read_runs, read_watched

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from engine.clock import Clock
    from engine.model import AlertKind, External
    from engine.store.alerts import Delivery
    from engine.store.reader import Reader
    from engine.store.services import KnownService
    from engine.store.watched import Watched, WatchedRun

_STRETCH = 2000
"""Tasks that are looked through in one statement: a few milliseconds."""
_GIVEN_BACK = "('released', 'expired', 'blocked')"
_GOES_ON = (
    f"r.outcome IN {_GIVEN_BACK} AND NOT EXISTS (SELECT 1 FROM runs later"
    f" WHERE later.task_id = r.task_id AND later.n > r.n AND later.outcome NOT IN {_GIVEN_BACK})"
)
"""Of a run `r` that is over: neither it nor one after it has used its attempt up. Whoever is DONE
or FAILED, cancelled, killed or timed out has: a retry by hand begins anew."""


class IssueTask(Struct, frozen=True):
    """A task that came from an issue. `told`: the issue has heard of `result`, its last run's."""

    id: str
    state: State
    number: int
    result: Mapping[str, Any] | None
    told: bool
    run_id: str | None


class Lookout:
    """Short reads for those who make things happen; screens have Queries."""

    def __init__(self, reader: Reader, clock: Clock) -> None:
        self._rows = reader.rows
        self._clock = clock

    async def claimable(self, agent: str, limit: int) -> int:
        """Count what workers of `agent` could claim now, up to `limit`; holds and limits count."""
        rows = await self._rows(
            "SELECT CASE WHEN EXISTS(SELECT 1 FROM holds WHERE agent IN ('*', ?1)) OR EXISTS("
            "SELECT 1 FROM agents WHERE name = ?1 AND stagger > 0 AND"
            " strftime('%Y-%m-%dT%H:%M:%fZ', last_start, '+' || stagger || ' seconds') > ?3"
            " AND last_start <= ?3)"
            " THEN 0 ELSE"
            " min((SELECT count(*) FROM (SELECT 1 FROM tasks INDEXED BY claimable WHERE agent = ?1"
            f"  AND {CLAIMABLE} LIMIT ?2)),"
            f" coalesce((SELECT run_limit FROM agents WHERE name = ?1) - ({RUNNING}), ?2)) END",
            (agent, limit, to_iso(self._clock.now())),
        )
        return max(0, int(rows[0][0]))

    async def next_due(self) -> datetime | None:
        """Return when the next backoff, hold or stagger ends, None if there is none to wait for."""
        now = self._clock.now()
        rows = await self._rows(
            "SELECT min(moment) FROM (SELECT min(not_before) AS moment FROM tasks"
            " WHERE not_before IS NOT NULL UNION ALL"
            " SELECT min(iif(since > ?1, ?1, until)) FROM holds WHERE until IS NOT NULL UNION ALL"
            f" SELECT ?1 WHERE EXISTS (SELECT 1 FROM tasks WHERE {SET_BACK}) UNION ALL"
            " SELECT strftime('%Y-%m-%dT%H:%M:%fZ', last_start, '+' || stagger || ' seconds')"
            " AS over"
            " FROM agents a WHERE stagger > 0 AND over > ?1 AND last_start <= ?1 AND EXISTS"
            f"  (SELECT 1 FROM tasks INDEXED BY claimable WHERE agent = a.name AND {CLAIMABLE}))",
            (to_iso(now), to_iso(now + timedelta(seconds=LONGEST_BACKOFF))),
        )
        return from_iso(rows[0][0]) if rows[0][0] else None

    async def unfinished(self, agent: str | None = None) -> int:
        """Count the tasks that are claimable, active, in backoff, or wait for such: READY and
        active ones. What is held cannot become more than it is and does not count, unless the hold
        lifts by itself; nor does what waits, when all that could move is held. A former run that is
        being ended is waited for, unless nothing seems to end it.
        """  # noqa: D205
        rows = await self._rows(
            "WITH free AS (SELECT * FROM tallies WHERE n > 0 AND (state IN ('CLAIMED', 'RUNNING')"
            "  OR (state = 'READY' AND NOT EXISTS"
            "   (SELECT 1 FROM holds h WHERE h.agent IN ('*', tallies.agent)"
            "    AND h.until IS NULL))))"
            " SELECT coalesce(sum(n), 0) FROM free WHERE (?1 IS NULL OR agent = ?1) AND"
            " (EXISTS (SELECT 1 FROM free WHERE state <> 'READY' OR NOT waiting) OR EXISTS"
            "  (SELECT 1 FROM tasks WHERE not_before IS NOT NULL AND state = 'READY'"
            "   AND pending = 0 AND agent IN (SELECT agent FROM free)) OR EXISTS"
            "  (SELECT 1 FROM endings e JOIN tasks t ON t.id = e.task_id WHERE t.state = 'READY'"
            "   AND t.pending = 0 AND e.since > ?2 AND t.agent IN (SELECT agent FROM free)))",
            (agent, to_iso(self._clock.now() - timedelta(seconds=ENDING_SECONDS))),
        )
        return int(rows[0][0])

    async def results(self, task: TaskDef) -> Mapping[str, Mapping[str, Any] | None]:
        """Return the result of each dep of a task, as its last run that is DONE has it."""
        rows = await self._rows(
            "SELECT value, (SELECT result FROM runs WHERE task_id = value AND outcome = 'done'"
            " ORDER BY n DESC LIMIT 1) FROM json_each(?)",
            (json.dumps(task.deps),),
        )
        return {dep: json.loads(result) if result else None for dep, result in rows}

    async def ready_of(self, agent: str, kinds: Iterable[str]) -> list[TaskDef]:
        """Return the tasks of an agent that are READY, waiting ones included, of some kinds.

        A stretch of the file at a time: no index helps, and nobody shall wait for all of it.
        """
        wanted = json.dumps(list(kinds))
        ((first, last),) = await self._rows(
            "SELECT (SELECT min(position) FROM tasks), (SELECT max(position) FROM tasks)"
        )
        if first is None or wanted == "[]":
            return []
        found: list[TaskDef] = []
        for begin in range(first, last + 1, _STRETCH):
            rows = await self._rows(
                "SELECT id, name, deps, payload FROM tasks INDEXED BY in_file"
                " WHERE position BETWEEN ? AND ? AND agent = ? AND state = 'READY'"
                " AND json_extract(payload, '$.kind') IN (SELECT value FROM json_each(?))",
                (begin, begin + _STRETCH - 1, agent, wanted),
            )
            found += (
                TaskDef(id_, name, agent, tuple(json.loads(deps)), payload=json.loads(payload))
                for id_, name, deps, payload in rows
            )
        return found

    async def agents(self) -> list[str]:
        """Return the agents of all tasks, in alphabetical order."""
        rows = await self._rows("SELECT DISTINCT agent FROM tallies WHERE n > 0 ORDER BY agent")
        return [row[0] for row in rows]

    async def active(self) -> list[ActiveRun]:
        """Return every run that holds a task, with what is known of its host and its leader."""
        rows = await self._rows(
            "SELECT t.id, t.run_id, t.claimed_by, t.lease_until, t.asked, r.pid, r.pid_started,"
            " r.host_pid, r.host_started, w.pid, w.pid_started, w.status, t.timeout_at,"
            " w.beat_at FROM tasks t"
            " LEFT JOIN runs r ON r.id = t.run_id"
            " LEFT JOIN workers w ON w.id = t.claimed_by WHERE t.state IN ('CLAIMED', 'RUNNING')"
        )
        return [ActiveRun.read(row) for row in rows]

    async def some_endings(self) -> bool:
        """Say whether any run has lost its task and may still live."""
        return bool(await self._rows("SELECT 1 FROM endings LIMIT 1"))

    async def needed(self, runs: Iterable[str]) -> Needed:
        """Return all runs that are at work, and those of `runs` that a later one goes on from."""
        rows = await self._rows(
            "SELECT run_id, 1 FROM tasks WHERE state IN ('CLAIMED', 'RUNNING')"
            " UNION SELECT run_id, 1 FROM endings"
            " UNION SELECT r.id, 0 FROM json_each(?) JOIN runs r ON r.id = value"
            " JOIN tasks t ON t.id = r.task_id"
            f" WHERE t.state NOT IN ('DONE', 'FAILED', 'CANCELLED') AND {_GOES_ON}",
            (json.dumps(list(runs)),),
        )
        at_work = frozenset(row[0] for row in rows if row[1])
        return Needed(at_work, frozenset(row[0] for row in rows) - at_work)

    async def before(self, task_id: str) -> frozenset[str]:
        """Return the runs that the next run of a task, or the one at work, goes on from."""
        rows = await self._rows(
            f"SELECT r.id FROM runs r WHERE r.task_id = ? AND {_GOES_ON}", (task_id,)
        )
        return frozenset(row[0] for row in rows)

    async def issue_tasks(self, repo: str) -> list[IssueTask]:
        """Return the tasks that came from issues of a repository; their ids begin with `issue:`."""
        rows = await self._rows(
            "SELECT t.id, t.state, json_extract(t.payload, '$.issue.number'), r.result,"
            " EXISTS (SELECT 1 FROM meta WHERE key = 'told:' || t.id AND value = r.id), r.id"
            " FROM tasks t LEFT JOIN runs r"
            " ON r.n = (SELECT max(n) FROM runs WHERE task_id = t.id)"
            " WHERE t.id GLOB 'issue:*' AND json_extract(t.payload, '$.issue.repo') = ?",
            (repo,),
        )
        return [
            IssueTask(
                row[0], State(row[1]), row[2], json.loads(row[3] or "null"), bool(row[4]), row[5]
            )
            for row in rows
        ]

    async def taken(self, ids: Iterable[str]) -> frozenset[str]:
        """Return which of these ids tasks have."""
        rows = await self._rows(
            "SELECT id FROM tasks WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(ids)),),
        )
        return frozenset(row[0] for row in rows)

    async def endings(self) -> list[EndingRun]:
        """Return every run that lost its task and whose tree may still live."""
        rows = await self._rows(
            "SELECT run_id, task_id, worker_id, since, pid, pid_started, host_pid, host_started"
            " FROM endings ORDER BY since"
        )
        return [EndingRun.read(row) for row in rows]

    async def workers(self) -> list[LiveWorker]:
        """Return every worker that says it is live, with the run that it holds."""
        rows = await self._rows(
            "SELECT w.id, w.agent, w.pid, w.pid_started, w.own_process, t.id, t.run_id,"
            " w.status = 'stopping'"
            f" FROM workers w {HOLDS} WHERE w.status IN ('live', 'stopping') ORDER BY w.id"
        )
        return [LiveWorker.read(row) for row in rows]

    async def idle_live(self) -> list[tuple[str, str, ProcessId]]:
        """Return (id, agent, host) of every worker that says it is live and holds nothing."""
        rows = await self._rows(
            "SELECT id, agent, pid, pid_started FROM workers w WHERE status IN ('live', 'stopping')"
            " AND NOT EXISTS (SELECT 1 FROM tasks INDEXED BY held"
            "  WHERE state IN ('CLAIMED', 'RUNNING') AND claimed_by = w.id)"
        )
        return [(row[0], row[1], ProcessId(row[2], row[3])) for row in rows]

    async def watched(self) -> Watched:
        """Return how far logs were read, and what was found there and not told of yet."""
        return await read_watched(self._rows)

    async def watched_runs(self, after: int, known: Iterable[str], limit: int) -> list[WatchedRun]:
        """Return the runs after a number, at most `limit`, and those that are known by id."""
        return await read_runs(self._rows, after, known, limit)

    async def externals(self) -> list[External]:
        """Return the agents that somebody else has started, as they were registered."""
        return await read_externals(self._rows)

    async def beats_of_externals(self) -> dict[str, datetime]:
        """Return when each registered agent gave a sign of life last."""
        rows = await self._rows("SELECT id, beat_at FROM externals")
        return {row[0]: from_iso(row[1]) for row in rows}

    async def known_services(self) -> list[KnownService]:
        """Return what is known of the processes of services, and who keeps them."""
        return await read_known(self._rows)

    async def asked_services(self) -> dict[str, str]:
        """Return what operators want of services and nobody has begun to do."""
        return await read_asked(self._rows)

    async def unacknowledged(self, kind: AlertKind) -> list[tuple[str, bool]]:
        """Return what alerts of a kind are about, oldest first, and whether each is of an error."""
        rows = await self._rows(
            "SELECT subject, error FROM alerts WHERE acknowledged_at IS NULL AND kind = ?"
            " ORDER BY id",
            (kind,),
        )
        return [(subject, bool(error)) for subject, error in rows]

    async def due_deliveries(self, target: str, limit: int) -> list[Delivery]:
        """Return the alerts that have to be handed to a target now, the oldest first."""
        return await read_due(self._rows, target, self._clock.now(), limit)

    async def next_delivery(self, target: str) -> float | None:
        """Return in how many seconds a target has to be handed an alert; None: there is none."""
        moment = await read_next_due(self._rows, target)
        if moment is None:
            return None
        wait = moment - self._clock.now()
        return wait.total_seconds() if wait <= LONGEST_WAIT else 0.0
