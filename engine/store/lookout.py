"""What hosts and reapers look out for: work to claim, runs that hold tasks, what is due."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from engine.clock import from_iso, to_iso
from engine.machine import ENDING_SECONDS, LONGEST_BACKOFF
from engine.model import ProcessId
from engine.store.claims import CLAIMABLE, RUNNING
from engine.store.rows import HOLDS, ActiveRun, EndingRun, LiveWorker

if TYPE_CHECKING:
    from datetime import datetime

    from engine.clock import Clock
    from engine.store.reader import Reader


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
        """Return when the next backoff or stagger ends, None if there is none to wait for."""
        rows = await self._rows(
            "SELECT min(moment) FROM (SELECT min(not_before) AS moment FROM tasks"
            " WHERE not_before IS NOT NULL UNION ALL"
            " SELECT strftime('%Y-%m-%dT%H:%M:%fZ', last_start, '+' || stagger || ' seconds')"
            " AS over"
            " FROM agents a WHERE stagger > 0 AND over > ?1 AND last_start <= ?1 AND EXISTS"
            f"  (SELECT 1 FROM tasks INDEXED BY claimable WHERE agent = a.name AND {CLAIMABLE}))",
            (to_iso(self._clock.now()),),
        )
        if not rows[0][0]:
            return None
        # Further off than any backoff, and the clock was set back since: it is due now.
        due, now = from_iso(rows[0][0]), self._clock.now()
        return due if due <= now + timedelta(seconds=LONGEST_BACKOFF) else now

    async def unfinished(self, agent: str | None = None) -> int:
        """Count the tasks that are claimable, active, in backoff, or wait for such: READY and
        active ones. What is held cannot become more than it is and does not count; nor does
        what waits, when all that could move is held. A former run that is being ended is waited
        for, unless nothing seems to end it.
        """  # noqa: D205
        rows = await self._rows(
            "WITH free AS (SELECT * FROM tallies WHERE n > 0 AND (state IN ('CLAIMED', 'RUNNING')"
            "  OR (state = 'READY' AND NOT EXISTS"
            "   (SELECT 1 FROM holds h WHERE h.agent IN ('*', tallies.agent)))))"
            " SELECT coalesce(sum(n), 0) FROM free WHERE (?1 IS NULL OR agent = ?1) AND"
            " (EXISTS (SELECT 1 FROM free WHERE state <> 'READY' OR NOT waiting) OR EXISTS"
            "  (SELECT 1 FROM tasks WHERE not_before IS NOT NULL AND state = 'READY'"
            "   AND pending = 0 AND agent IN (SELECT agent FROM free)) OR EXISTS"
            "  (SELECT 1 FROM endings e JOIN tasks t ON t.id = e.task_id WHERE t.state = 'READY'"
            "   AND t.pending = 0 AND e.since > ?2 AND t.agent IN (SELECT agent FROM free)))",
            (agent, to_iso(self._clock.now() - timedelta(seconds=ENDING_SECONDS))),
        )
        return int(rows[0][0])

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
