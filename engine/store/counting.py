"""What ever happened, in numbers: counters by agent, and how long runs took.

Both follow from the events and from nothing else: each transaction adds what its own events tell,
in one statement for each table, and a rebuild adds what all of them do. No purge and no reset
lowers them. Events that were forgotten stay counted, until a rebuild that does not find them.

Whatever takes a connection is called inside a transaction.
"""

from __future__ import annotations

from itertools import accumulate, groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from engine.model import ADOPTED, NO_WORKTREE, EventType, RunOutcome
from engine.views import DURATION_BOUNDS, Counter, Durations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
    from sqlite3 import Connection

    Row = tuple[Any, ...]
    Rows = Callable[..., Awaitable[list[Row]]]

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
_COUNTED = frozenset(
    {
        EventType.TASK_CLAIMED,
        EventType.TASK_COMPLETED,
        EventType.TASK_FAILED,
        EventType.TASK_BLOCKED,
        EventType.ALERT,
    }
)


def _listed(types: Iterable[str]) -> str:
    return ", ".join(f"'{one}'" for one in sorted(types))


_COUNTERS = f"""
SELECT name, coalesce(agent, '') AS whose, count(*) FROM (
  SELECT agent, CASE
    WHEN type = 'TASK_CLAIMED' THEN '{Counter.LAUNCHED}'
    WHEN type = 'ALERT' THEN '{Counter.ALERTS}'
    WHEN type = 'TASK_COMPLETED' AND instr(data, '"pullRequest"') = 0 THEN NULL
    WHEN json_type(data, '$.result.pullRequest') = 'object' THEN '{Counter.PULL_REQUESTS}'
    WHEN instr(json_extract(data, '$.error'), '{NO_WORKTREE}') = 1
      THEN '{Counter.WORKTREE_ERRORS}'
    END AS name
  FROM {{events}} WHERE type IN ({_listed(_COUNTED)})
) WHERE name IS NOT NULL GROUP BY name, whose
"""
"""(name, agent, n)."""
_BOUND = " ".join(f"WHEN ms <= {bound * 1000} THEN {bound}.0" for bound in DURATION_BOUNDS)
_DURATIONS = f"""
SELECT whose, outcome, CASE {_BOUND} ELSE 9e999 END AS bound, count(*), sum(ms) FROM (
  SELECT coalesce(agent, '') AS whose, json_extract(data, '$.outcome') AS outcome,
    coalesce(json_extract(data, '$.durationMs'), 0) AS ms
  FROM {{events}} WHERE type IN ({_listed(_ENDS)})
) WHERE outcome IN ({_listed(RunOutcome)}) GROUP BY whose, outcome, bound
"""
"""(agent, outcome, bound, runs, ms). A run of which nobody knows when it began took no time."""
_ALL = (
    "(SELECT type, agent, data FROM events WHERE"
    f" CASE WHEN json_valid(data) THEN json_extract(data, '$.{ADOPTED}') IS NULL END)"
)
# The seq of an event is one more than that of the one before.
_NEWEST = "(SELECT type, agent, data FROM events WHERE seq > (SELECT max(seq) FROM events) - ?)"

COUNTERS = _COUNTERS.format(events=_ALL)
COUNTERS_NOW = "SELECT name, agent, n FROM counters"
DURATIONS = _DURATIONS.format(events=_ALL)
DURATIONS_NOW = "SELECT agent, outcome, bound, runs, ms FROM durations"
"""What the events tell, and what the tables say."""

_ADD_COUNTERS = "INSERT INTO counters {} ON CONFLICT DO UPDATE SET n = n + excluded.n"
_ADD_DURATIONS = (
    "INSERT INTO durations {} ON CONFLICT DO UPDATE"
    " SET runs = runs + excluded.runs, ms = ms + excluded.ms"
)
_COUNT_NEWEST = _ADD_COUNTERS.format(_COUNTERS.format(events=_NEWEST))
_TIME_NEWEST = _ADD_DURATIONS.format(_DURATIONS.format(events=_NEWEST))


def count_newest(db: Connection, types: Collection[str | None], n: int) -> None:
    """Count the newest `n` events; `types` are those that are among them."""
    if not _COUNTED.isdisjoint(types):
        db.execute(_COUNT_NEWEST, (n,))
    if not _ENDS.isdisjoint(types):
        db.execute(_TIME_NEWEST, (n,))


def count_all(db: Connection) -> None:
    """Count all events anew, for who has just written them."""
    db.execute("DELETE FROM counters")
    db.execute("DELETE FROM durations")
    db.execute(f"INSERT INTO counters {COUNTERS}")
    db.execute(f"INSERT INTO durations {DURATIONS}")


def miscounted(db: Connection, *, whole: bool) -> dict[tuple[str, Row], tuple[Row, Row]]:
    """Return what the tables have wrong: by table and key, what they say and what they must say.

    `whole`: no event was ever forgotten, so they say what the events tell; else no less than that.
    """
    return {
        (table, key): pair
        for table, size, told, there in (
            ("counters", 2, COUNTERS, COUNTERS_NOW),
            ("durations", 3, DURATIONS, DURATIONS_NOW),
        )
        for key, pair in _wrong(db.execute(told), db.execute(there), size, whole=whole)
    }


def _wrong(
    told: Iterable[Row], there: Iterable[Row], size: int, *, whole: bool
) -> Iterator[tuple[Row, tuple[Row, Row]]]:
    right = {row[:size]: row[size:] for row in told}
    now = {row[:size]: row[size:] for row in there}
    for key in sorted(right.keys() | now.keys()):
        nothing = (0,) * len(right.get(key) or now[key])
        has, must = now.get(key, nothing), right.get(key, nothing)
        if not whole:
            must = tuple(max(a, b) if type(b) is int else a for a, b in zip(must, has, strict=True))
        if has != must:
            yield key, (has, must)


def recount(db: Connection, *, whole: bool) -> bool:
    """Put right what `miscounted` finds; say whether there was anything."""
    wrong = miscounted(db, whole=whole)
    for (table, key), (_, must) in wrong.items():
        values = (*key, *must)
        marks = ", ".join("?" * len(values))
        db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", values)
    return bool(wrong)


async def read_counters(rows: Rows) -> dict[Counter, dict[str, int]]:
    """Return the counters by name and agent."""
    found: dict[Counter, dict[str, int]] = {}
    for name, agent, n in await rows(f"{COUNTERS_NOW} ORDER BY name, agent"):
        found.setdefault(Counter(name), {})[agent] = n
    return found


async def read_durations(rows: Rows) -> tuple[Durations, ...]:
    """Return how long runs took, by agent and outcome."""
    found = []
    by_key = await rows(f"{DURATIONS_NOW} ORDER BY agent, outcome, bound")
    for (agent, outcome), group in groupby(by_key, key=itemgetter(0, 1)):
        classes = {bound: (runs, ms) for _, _, bound, runs, ms in group}
        upto = accumulate(classes.get(float(bound), (0, 0))[0] for bound in DURATION_BOUNDS)
        count, ms = (sum(column) for column in zip(*classes.values(), strict=True))
        found.append(Durations(agent, RunOutcome(outcome), tuple(upto), count, ms / 1000))
    return tuple(found)
