"""What ever happened, in numbers: by agent, and for runs that ended by outcome and duration.

They follow from the events and from nothing else. Each transaction adds what its own events tell,
in one upsert of the few rows that they touch; a rebuild adds what all of them do (COUNTED). No
purge and no reset lowers them. Events that were forgotten stay counted, until a rebuild that does
not find them.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate, groupby
from math import inf
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from engine.model import ADOPTED, NO_WORKTREE, EventType, RunOutcome
from engine.views import DURATION_BOUNDS, Counter, Durations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from sqlite3 import Connection

    Row = tuple[Any, ...]
    Rows = Callable[..., Awaitable[list[Row]]]
    Key = tuple[str, str, str, float]

ENDED = "ended"
"""The name of the counters of runs that ended."""
_ENDS = frozenset(
    {
        EventType.TASK_COMPLETED,
        EventType.TASK_FAILED,
        EventType.TASK_BLOCKED,
        EventType.TASK_RELEASED,
        EventType.LEASE_EXPIRED,
        EventType.TASK_CANCELLED,
    }
)
"""What may tell the end of a run: what does has an outcome."""
COUNTED_TYPES = _ENDS | {EventType.TASK_CLAIMED, EventType.ALERT}
"""The events that count."""
_BOUNDS = (*map(float, DURATION_BOUNDS), inf)
_BOUNDS_MS = tuple(bound * 1000 for bound in DURATION_BOUNDS)


class Counted(dict["Key", list[int]]):
    """What the events of one transaction add: by (name, agent, outcome, bound), how many, and ms.

    Outcome and bound (seconds: they took no longer, and longer than the bound before) are those of
    runs that ended.
    """

    def add(self, kind: EventType, agent: str, data: Mapping[str, Any]) -> None:
        """Count an event, one of COUNTED_TYPES."""
        if kind is EventType.TASK_CLAIMED:
            self._more((Counter.LAUNCHED, agent, "", 0.0))
        elif kind is EventType.ALERT:
            self._more((Counter.ALERTS, agent, "", 0.0))
        elif (outcome := data.get("outcome")) is not None:
            # A run of which nobody knows when it began took no time.
            ms = data.get("durationMs", 0)
            self._more((ENDED, agent, outcome, _BOUNDS[bisect_left(_BOUNDS_MS, ms)]), ms)
            if data.get("error", "").startswith(NO_WORKTREE):
                self._more((Counter.WORKTREE_ERRORS, agent, "", 0.0))
            result = data.get("result")  # of another package's executor, it may be anything
            if outcome == RunOutcome.DONE and isinstance(result, dict) and "pullRequest" in result:
                self._more((Counter.PULL_REQUESTS, agent, "", 0.0))

    def _more(self, key: Key, ms: int = 0) -> None:
        row = self.get(key)
        if row is None:
            self[key] = [1, ms]
        else:
            row[0] += 1
            row[1] += ms

    def write(self, db: Connection) -> None:
        """Add it to the table, inside a transaction."""
        db.executemany(_ADD, [(*key, *row) for key, row in self.items()])


_ADD = (
    "INSERT INTO counters VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET n = n + excluded.n, ms = ms + excluded.ms"
)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))


_BOUND = " ".join(f"WHEN ms <= {bound * 1000} THEN {bound}.0" for bound in DURATION_BOUNDS)
COUNTED = f"""
WITH told AS (
  SELECT type, coalesce(agent, '') AS whose, data FROM events
  WHERE type IN ({_listed(COUNTED_TYPES)})
    AND CASE WHEN json_valid(data) THEN json_extract(data, '$.{ADOPTED}') IS NULL END
),
over AS (
  SELECT whose, json_extract(data, '$.outcome') AS outcome,
    coalesce(json_extract(data, '$.durationMs'), 0) AS ms, json_extract(data, '$.error') AS error,
    instr(data, '"pullRequest"') > 0 AND json_type(data, '$.result.pullRequest') NOTNULL AS pull
  FROM told WHERE type IN ({_listed(_ENDS)})
    AND json_extract(data, '$.outcome') IN ({_listed(RunOutcome)})
)
SELECT '{Counter.LAUNCHED}' AS name, whose, '' AS outcome, 0.0 AS bound, count(*) AS n, 0 AS ms
FROM told WHERE type = 'TASK_CLAIMED' GROUP BY whose
UNION ALL
SELECT '{Counter.ALERTS}', whose, '', 0.0, count(*), 0 FROM told WHERE type = 'ALERT' GROUP BY whose
UNION ALL
SELECT '{ENDED}', whose, outcome, CASE {_BOUND} ELSE 9e999 END AS bound, count(*), sum(ms)
FROM over GROUP BY whose, outcome, bound
UNION ALL
SELECT '{Counter.WORKTREE_ERRORS}', whose, '', 0.0, count(*), 0 FROM over
WHERE instr(error, '{NO_WORKTREE}') = 1 GROUP BY whose
UNION ALL
SELECT '{Counter.PULL_REQUESTS}', whose, '', 0.0, count(*), 0 FROM over
WHERE pull AND outcome = '{RunOutcome.DONE}' GROUP BY whose
"""
"""(name, agent, outcome, bound, n, ms), from the log."""
COUNTED_NOW = "SELECT name, agent, outcome, bound, n, ms FROM counters"
"""The same as the table has it."""


def count_all(db: Connection) -> None:
    """Count all events, for who has just written them."""
    db.execute("DELETE FROM counters")
    db.execute(f"INSERT INTO counters {COUNTED}")


def miscounted(db: Connection, *, whole: bool) -> dict[Row, tuple[Row, Row]]:
    """Return what the table has wrong: by its key, what it says and what it must say.

    `whole`: no event was ever forgotten, so it says what the events tell; else no less than that.
    """
    right = {row[:4]: row[4:] for row in db.execute(COUNTED)}
    now = {row[:4]: row[4:] for row in db.execute(COUNTED_NOW)}
    wrong = {}
    for key in sorted(right.keys() | now.keys()):
        has, must = now.get(key, (0, 0)), right.get(key, (0, 0))
        if not whole:
            must = tuple(max(a, b) if type(b) is int else a for a, b in zip(must, has, strict=True))
        if has != must:
            wrong[key] = has, must
    return wrong


def recount(db: Connection, *, whole: bool) -> bool:
    """Put right what `miscounted` finds; say whether there was anything."""
    wrong = miscounted(db, whole=whole)
    db.executemany(
        "INSERT OR REPLACE INTO counters VALUES (?, ?, ?, ?, ?, ?)",
        ((*key, *must) for key, (_, must) in wrong.items()),
    )
    return bool(wrong)


async def read_counters(rows: Rows) -> dict[Counter, dict[str, int]]:
    """Return what is counted beside the runs that ended, by name and agent."""
    found: dict[Counter, dict[str, int]] = {}
    query = "SELECT name, agent, n FROM counters WHERE name <> ? ORDER BY name, agent"
    for name, agent, n in await rows(query, (ENDED,)):
        found.setdefault(Counter(name), {})[agent] = n
    return found


async def read_durations(rows: Rows) -> tuple[Durations, ...]:
    """Return how many runs ended how, and how long they took, by agent and outcome."""
    query = "SELECT agent, outcome, bound, n, ms FROM counters WHERE name = ? ORDER BY 1, 2, 3"
    found = []
    for (agent, outcome), group in groupby(await rows(query, (ENDED,)), key=itemgetter(0, 1)):
        classes = {bound: (n, ms) for _, _, bound, n, ms in group}
        upto = accumulate(classes.get(bound, (0, 0))[0] for bound in _BOUNDS[:-1])
        count, ms = (sum(column) for column in zip(*classes.values(), strict=True))
        found.append(Durations(agent, RunOutcome(outcome), tuple(upto), count, ms / 1000))
    return tuple(found)
