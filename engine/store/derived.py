"""What in the database follows from something else in it: queries that find where it does not.

pending and broken follow from the states of the deps, edges from deps, tallies from the states,
`ending` from the endings table, READY or BLOCKED from the reasons, what was spent from the events.
The audit tells what is found here, mending writes what it must be; a sound store has nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.machine import settle
from engine.model import Reason, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_NOTHING = (0,) * 6
"""Of an agent that has no row."""

_READABLE = "CASE WHEN json_valid(t.deps) THEN json_type(t.deps) = 'array' ELSE 0 END"
"""Nothing follows from deps that cannot be read: such a task is left as it is."""

_DEPS = (
    "WITH readable AS (SELECT t.id, t.deps, t.state, t.pending, t.broken FROM tasks t"
    f" WHERE {_READABLE}), deps AS (SELECT t.id AS task, e.value AS dep FROM readable t,"
    " json_each(t.deps) e)"
)

COUNTS = (
    f"{_DEPS}, counted AS (SELECT task,"
    "  sum(coalesce(d.state <> 'DONE', NOT p.met)) AS pending,"
    "  sum(coalesce(d.state IN ('FAILED', 'CANCELLED', 'BLOCKED'), NOT p.met)) AS broken,"
    "  sum(d.id IS NULL AND p.id IS NULL) AS unknown"
    "  FROM deps LEFT JOIN tasks d ON d.id = dep LEFT JOIN purged p ON p.id = dep GROUP BY task)"
    " SELECT id, state, t.pending, coalesce(c.pending, 0) AS right_pending, t.broken,"
    "  coalesce(c.broken, 0) AS right_broken FROM readable t LEFT JOIN counted c ON c.task = t.id"
    " WHERE coalesce(c.unknown, 0) = 0 AND (t.pending <> right_pending OR t.broken <> right_broken)"
)
"""(task, state, pending, right pending, broken, right broken) of tasks that count wrongly.

A dep that is gone counts as met if it was purged DONE, else as broken. What depends on a task
that nobody knows (see UNKNOWN) is not counted: nothing says what became of it.
"""

UNKNOWN = (
    f"{_DEPS} SELECT task, dep FROM deps WHERE NOT EXISTS (SELECT 1 FROM tasks WHERE id = dep)"
    " AND NOT EXISTS (SELECT 1 FROM purged WHERE id = dep)"
)
"""(task, dep) where the dep is neither there nor purged."""

MISSING_EDGES = f"{_DEPS} SELECT dep, task FROM deps EXCEPT SELECT dep, task FROM edges"
FOREIGN_EDGES = (
    f"{_DEPS} SELECT dep, task FROM edges WHERE task NOT IN"
    " (SELECT id FROM tasks WHERE id NOT IN (SELECT id FROM readable))"
    " EXCEPT SELECT dep, task FROM deps"
)
"""(dep, task)."""

TALLIES = "SELECT agent, state, waiting, n FROM tallies WHERE n <> 0"
COUNTED = (
    "SELECT agent, state, state = 'READY' AND (pending > 0 OR not_before IS NOT NULL"
    "  OR ending IS NOT NULL) AS waiting, count(*) FROM tasks GROUP BY agent, state, waiting"
)
"""(agent, state, waiting, n): what the tallies say, and what they must say."""

# The last word on a task: a new one of the same id may have come after a purge, and so may the
# late result of a run that the purge ended, which says nothing of the task.
_LAST_WORD = (
    "(SELECT CASE e.type WHEN 'TASK_PURGED' THEN e.state = 'DONE' END FROM events e"
    " WHERE e.task_id = {id} AND e.type <> 'LATE_RESULT' ORDER BY e.seq DESC LIMIT 1)"
)
PURGED_THERE = "SELECT p.id FROM purged p JOIN tasks t ON t.id = p.id"
"""(task) of tasks that are there and count as purged too."""
PURGED_WRONG = (
    f"SELECT p.id, p.met, {_LAST_WORD.format(id='p.id')} AS right_met FROM purged p"
    " WHERE right_met IS NOT NULL AND right_met <> p.met"
)
"""(task, met, right met) where the purge was told otherwise."""
PURGED_MISSING = (
    f"SELECT DISTINCT dep, {_LAST_WORD.format(id='dep')} AS right_met FROM ({UNKNOWN})"
    " WHERE right_met IS NOT NULL"
)
"""(task, met) of deps whose purge was told, but is not in the table."""

ENDING_LOST = (
    "SELECT t.id, t.ending FROM tasks t WHERE t.ending IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM endings e WHERE e.run_id = t.ending)"
)
"""(task, run) of tasks that wait for a run to end which the endings table does not have."""
ENDING_UNSEEN = (
    "SELECT t.id, e.run_id FROM endings e JOIN tasks t ON t.id = e.task_id"
    " WHERE t.ending IS NULL AND t.state NOT IN ('CLAIMED', 'RUNNING')"
)
"""(task, run) of tasks that could be claimed while a former run of theirs is being ended."""

OPEN_RUNS = (
    "SELECT r.id, r.task_id FROM runs r WHERE r.outcome IS NULL AND NOT EXISTS"
    " (SELECT 1 FROM tasks t WHERE t.id = r.task_id AND t.run_id = r.id)"
)
"""(run, task) of runs that have not ended and do not hold their task."""

_TOLD = """
WITH reset(seq) AS (SELECT coalesce(max(seq), 0) FROM events WHERE type = 'RESET'),
told AS (
  SELECT seq, run_id, agent, json_extract(data, '$.spending.cost') AS cost,
    json_extract(data, '$.spending.inputTokens') AS input_tokens,
    json_extract(data, '$.spending.cachedTokens') AS cached_tokens,
    json_extract(data, '$.spending.outputTokens') AS output_tokens,
    coalesce(json_extract(data, '$.spending.inputTokens'), 0)
      + coalesce(json_extract(data, '$.spending.outputTokens'), 0) > 0 AS used,
    type NOT IN ('TASK_PROGRESS', 'TASK_RELEASED', 'LATE_RESULT') AS ended
  FROM events
  WHERE run_id IS NOT NULL AND CASE WHEN instr(data, '"spending"') > 0 AND json_valid(data)
    THEN json_type(data, '$.spending') = 'object' END
),
latest AS (
  SELECT run_id, max(seq), sum(ended) AS ended, agent, input_tokens, cached_tokens,
    output_tokens, cost, cost IS NULL AND used AS unpriced, cost = 0 AND used AS free
  FROM told WHERE seq > (SELECT seq FROM reset) GROUP BY run_id
),
earlier AS (
  SELECT run_id, max(seq), agent, input_tokens, cached_tokens, output_tokens, cost,
    cost IS NULL AND used AS unpriced, cost = 0 AND used AS free
  FROM told WHERE seq <= (SELECT seq FROM reset) GROUP BY run_id
)
"""
_CLAIMED = "(SELECT run_id, agent FROM events WHERE type = 'TASK_CLAIMED') AS claim"
SPENT = f"""{_TOLD}
SELECT coalesce(claim.agent, latest.agent) AS whose, sum(latest.ended),
  sum((coalesce(latest.cost, 0) > 0) - (coalesce(earlier.cost, 0) > 0)),
  sum(coalesce(latest.unpriced, 0) - coalesce(earlier.unpriced, 0)),
  sum(coalesce(latest.free, 0) - coalesce(earlier.free, 0)),
  sum(coalesce(latest.input_tokens, 0) - coalesce(earlier.input_tokens, 0)),
  sum(coalesce(latest.cached_tokens, 0) - coalesce(earlier.cached_tokens, 0)),
  sum(coalesce(latest.output_tokens, 0) - coalesce(earlier.output_tokens, 0)),
  round(sum(coalesce(latest.cost, 0.0) - coalesce(earlier.cost, 0.0)), 6)
FROM latest LEFT JOIN earlier ON earlier.run_id = latest.run_id
LEFT JOIN {_CLAIMED} ON claim.run_id = latest.run_id
WHERE whose IS NOT NULL GROUP BY whose
"""
"""(agent, runs, priced, unpriced, free, tokens read, from a cache, written, cost), from the log.

That is what each run told last, without what it had told before the last reset. It is that of the
agent which had claimed it: its task may have been given to another one since.
"""
SPENT_BEFORE = f"""{_TOLD}
SELECT coalesce(claim.agent, earlier.agent) AS whose, sum(coalesce(input_tokens, 0)),
  sum(coalesce(cached_tokens, 0)), sum(coalesce(output_tokens, 0)),
  round(sum(coalesce(cost, 0.0)), 6)
FROM earlier LEFT JOIN {_CLAIMED} ON claim.run_id = earlier.run_id
WHERE whose IS NOT NULL GROUP BY whose
"""
"""(agent, tokens read, from a cache, written, cost): what was told before the last reset."""
SPENT_NOW = (
    "SELECT agent, runs, priced, unpriced, free, input_tokens, cached_tokens, output_tokens, cost"
    " FROM spent"
)
"""The same as the table has it."""


def misspent(
    told: Iterable[tuple[Any, ...]], there: Iterable[tuple[Any, ...]]
) -> Mapping[str, tuple[Any, Any]]:
    """Return the agents of which SPENT and SPENT_NOW say different things: what each has."""
    right = {row[0]: row[1:] for row in told}
    now = {row[0]: row[1:] for row in there}
    pairs = {
        agent: (right.get(agent, _NOTHING), now.get(agent, _NOTHING)) for agent in (*right, *now)
    }
    return {agent: pair for agent, pair in pairs.items() if not _same(*pair)}


def _same(right: tuple[Any, ...], now: tuple[Any, ...]) -> bool:
    try:
        return all(abs(a - b) < 1e-6 for a, b in zip(right, now, strict=True))
    except TypeError:
        return False  # no number: somebody has edited it


def settled(
    state: State, reasons: tuple[Reason, ...], *, broken: int, removed: bool
) -> tuple[State, tuple[Reason, ...]]:
    """Return the state and the reasons that a task in `state` must have."""
    if state not in {State.READY, State.BLOCKED}:
        return state, ()
    return settle(human=Reason.HUMAN in reasons, broken=broken, removed=removed)
