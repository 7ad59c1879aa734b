"""Filters as SQL. Knows the columns of each list, and no connection.

Only constants of this file become SQL; whatever was typed is bound. The functions `has_word` and
`has_match` are the reader's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from engine.clock import to_iso
from engine.filters import (
    AFTER,
    AGENT,
    BEFORE,
    ERROR,
    EVENT_FIELDS,
    ID,
    NAME,
    OUTCOME,
    READY,
    RUN,
    RUN_FIELDS,
    RUNNING,
    STATE,
    TASK,
    TASK_FIELDS,
    TOOK,
    TYPE,
    WAITING,
    WHY,
    WORD,
    WORKER,
    Fields,
    Filter,
    Kind,
    Term,
)
from engine.moments import parse_span

if TYPE_CHECKING:
    from collections.abc import Iterable

SECONDS: Final = "round((julianday({end}) - julianday({start})) * 86400, 3)"
"""How long something took; julianday() knows a moment to some 40 µs."""
RUN_TOOK: Final = SECONDS.format(end="r.ended_at", start="coalesce(r.started_at, r.claimed_at)")
LAST_WORKER: Final = (
    "(SELECT worker_id FROM runs WHERE task_id = t.id AND n ="
    " (SELECT max(n) FROM runs WHERE task_id = t.id))"
)
_REASONS: Final = "replace(trim(t.reasons, '[]'), '\"', '')"
_CLAIMABLE: Final = "t.pending = 0 AND t.not_before IS NULL AND t.ending IS NULL"

Choice = Callable[[str], str]
"""Turns a value of a CHOICE, which is one of a fixed list, into a condition."""


class Source(Struct, frozen=True):
    """A list that can be filtered: its fields, and the columns that they and words look into."""

    fields: Fields
    words: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]]
    choices: Mapping[str, Choice]


def _task_state(value: str) -> str:
    if value == READY:
        return f"t.state = 'READY' AND {_CLAIMABLE}"
    if value == WAITING:
        return f"t.state = 'READY' AND NOT ({_CLAIMABLE})"
    return f"t.state = '{value.upper()}'"


def _tallied_state(value: str) -> str:
    if value in {READY, WAITING}:
        return f"state = 'READY' AND waiting = {value == WAITING:d}"
    return f"state = '{value.upper()}'"


def _outcome(value: str) -> str:
    return "r.outcome IS NULL" if value == RUNNING else f"r.outcome = '{value.replace('-', ' ')}'"


def _told(key: str) -> str:
    return f"CASE WHEN e.data <> '{{}}' THEN json_extract(e.data, '$.{key}') END"


TASKS: Final = Source(
    TASK_FIELDS,
    ("t.id", "t.name", "t.agent", "t.error", LAST_WORKER),
    {
        AGENT: ("t.agent",),
        WORKER: (LAST_WORKER,),
        ID: ("t.id",),
        NAME: ("t.name",),
        WHY: ("t.error", _REASONS),
    },
    {STATE: _task_state},
)
"""Over `tasks t`."""
TALLIES: Final = Source(TASK_FIELDS, (), {AGENT: ("agent",)}, {STATE: _tallied_state})
"""Over `tallies`, which can say how many tasks are in which state; see `countable`."""
RUNS: Final = Source(
    RUN_FIELDS,
    ("r.task_id", "r.agent", "r.worker_id", "coalesce(r.outcome, 'running')", "r.error"),
    {
        TASK: ("r.task_id",),
        AGENT: ("r.agent",),
        WORKER: ("r.worker_id",),
        RUN: ("r.id",),
        ERROR: ("r.error",),
        AFTER: ("r.claimed_at",),
        BEFORE: ("r.claimed_at",),
        TOOK: (RUN_TOOK,),
    },
    {OUTCOME: _outcome},
)
"""Over `runs r`."""
EVENTS: Final = Source(
    EVENT_FIELDS,
    ("e.task_id", "e.agent", "e.worker_id", "e.type", *map(_told, ("error", "note", "message"))),
    {
        TASK: ("e.task_id",),
        AGENT: ("e.agent",),
        WORKER: ("e.worker_id",),
        RUN: ("e.run_id",),
        AFTER: ("e.ts",),
        BEFORE: ("e.ts",),
    },
    {TYPE: lambda value: f"e.type = '{value.upper()}'"},
)
"""Over `events e`."""


def where_sql(
    where: Filter | None, source: Source, *more: str, values: Iterable[Any] = ()
) -> tuple[str, list[Any]]:
    """Turn a filter into a WHERE clause and its values; empty if nothing is asked for.

    `more` are conditions that hold as well, `values` what they want bound: they come first.
    """
    conditions = list(more)
    bound = list(values)
    for term in where.terms if where is not None else ():
        condition, its_values = _term_sql(term, source)
        # What is NULL is not found, and so is found by the negated term.
        conditions.append(f"NOT coalesce(({condition}), 0)" if term.negated else f"({condition})")
        bound.extend(its_values)
    return (f"WHERE {' AND '.join(conditions)}" if conditions else ""), bound


def countable(where: Filter | None) -> bool:
    """Say whether the tallies can count the tasks of a filter: it asks for state and agent only."""
    terms = where.terms if where is not None else ()
    return all(term.field in {STATE, AGENT} for term in terms)


def states_wanted(where: Filter | None) -> frozenset[str] | None:
    """Return the states that alone can pass a filter, as in STATES; None if it asks for none."""
    wanted: frozenset[str] | None = None
    for term in where.terms if where is not None else ():
        if term.field == STATE and not term.negated:
            named = frozenset(term.values)
            wanted = named if wanted is None else wanted & named
    return wanted


def _term_sql(term: Term, source: Source) -> tuple[str, list[Any]]:
    kind = Kind.PART if term.field == WORD else source.fields.kinds[term.field]
    if kind is Kind.CHOICE:
        choice = source.choices[term.field]
        return " OR ".join(f"({choice(value)})" for value in dict.fromkeys(term.values)), []
    places = source.words if term.field == WORD else source.columns[term.field]
    if kind is Kind.PART or term.regex:
        return _text_sql(term, places)
    (place,) = places
    if kind is Kind.WHOLE:
        return f"{place} IN ({', '.join('?' * len(term.values))})", list(term.values)
    if kind is Kind.SPAN:
        sign, seconds = parse_span(term.value)
        return f"{place} {sign} ?", [seconds]
    assert term.at is not None, "a moment was read before it is asked for"
    return f"{place} {'>=' if term.field == AFTER else '<'} ?", [to_iso(term.at)]


def _text_sql(term: Term, places: tuple[str, ...]) -> tuple[str, list[Any]]:
    if term.regex or not term.value.isascii() or "\0" in term.value:
        function = "has_match" if term.regex else "has_word"
        return f"{function}(?, {', '.join(places)})", [term.value]
    # As has_word does it, at a fifth of the cost: LIKE, too, knows the case of ASCII only.
    part = re.sub(r"([\\%_])", r"\\\1", term.value)
    found = " OR ".join(f"{place} LIKE ? ESCAPE '\\'" for place in places)
    return found, [f"%{part}%"] * len(places)
