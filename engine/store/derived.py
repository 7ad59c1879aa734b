"""What in the database follows from something else in it: queries that find where it does not.

pending and broken follow from the states of the deps, edges from deps, tallies from the states,
`ending` from the endings table, READY or BLOCKED from the reasons. The audit tells what is found
here, mending writes what it must be; a sound store has nothing to find.
"""

from __future__ import annotations

from engine.machine import settle
from engine.model import Reason, State

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


def settled(
    state: State, reasons: tuple[Reason, ...], *, broken: int, removed: bool
) -> tuple[State, tuple[Reason, ...]]:
    """Return the state and the reasons that a task in `state` must have."""
    if state not in {State.READY, State.BLOCKED}:
        return state, ()
    return settle(human=Reason.HUMAN in reasons, broken=broken, removed=removed)
