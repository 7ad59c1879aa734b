"""The words with which people pick tasks, runs and events: `retry state:!done agent:codex`.

Pure; knows no SQL. A filter is terms, which must all hold:

    word            any part of any text of the row, whatever the case (see engine.patterns)
    "two words"     the same; a quoted word is never a field
    /^impl.*4$/     a regular expression (RE2, whatever the case) in any text of the row
    field:value     see TASK_FIELDS, RUN_FIELDS and EVENT_FIELDS for which and Kind for how
    !term           what does not; also field:!value

What names something else than the row (agent, worker, task, run) is meant whole; what describes
the row (id, name, why, error) by any part. Both also take `/regex/`, and lists hold whatever is
in one of their places: `state:failed,blocked`.

A word may have a colon: `impl:T-004` is one. But what stands before the colon and is nearly the
name of a field is taken for a slip and refused: `stat:failed`, `agnet:codex`. Quotes help then.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from enum import Enum, auto
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.errors import ValidationError
from engine.model import EventType, RunOutcome, State
from engine.moments import parse_moment, parse_span
from engine.patterns import check_pattern

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

WORD = "word"
"""The field of a term that is no field's: any text of the row."""
STATE, AGENT, WORKER, ID, NAME, WHY = "state", "agent", "worker", "id", "name", "why"
TASK, RUN, OUTCOME, ERROR, AFTER, BEFORE = "task", "run", "outcome", "error", "after", "before"
TOOK, TYPE = "took", "type"

READY = "ready"
"""READY, and nothing but a worker is missing."""
WAITING = "waiting"
"""READY, but a dep is unmet, the backoff is not over, or its former run's tree may still live."""
STATES = (WAITING, *(state.lower() for state in State))
"""Values of a state term, in lower case: the states of the store, READY told apart in two."""
RUNNING = "running"
"""The outcome of a run that has none yet."""
OUTCOMES = (RUNNING, *(outcome.replace(" ", "-") for outcome in RunOutcome))
TYPES = tuple(kind.lower() for kind in EventType)

_MOST_TERMS = 100
_LONGEST = 10_000
_NEARLY = 0.8


class Kind(Enum):
    """What the value of a field is."""

    PART = auto()
    """Any part of the text, whatever the case; or a regular expression."""
    WHOLE = auto()
    """An exact name, or several with commas between them; or a regular expression."""
    CHOICE = auto()
    """One of a list, or several with commas between them."""
    MOMENT = auto()
    """See engine.moments.parse_moment."""
    SPAN = auto()
    """See engine.moments.parse_span."""


class Fields(Struct, frozen=True):
    """What the rows of a list can be picked by; `rows` is what they are called."""

    rows: str
    kinds: Mapping[str, Kind]
    choices: Mapping[str, tuple[str, ...]]


TASK_FIELDS = Fields(
    "tasks",
    {
        STATE: Kind.CHOICE,
        AGENT: Kind.WHOLE,
        WORKER: Kind.WHOLE,
        ID: Kind.PART,
        NAME: Kind.PART,
        WHY: Kind.PART,
    },
    {STATE: STATES},
)
"""`worker` is that of the last run, `why` the error and the reasons of a BLOCKED task."""
RUN_FIELDS = Fields(
    "runs",
    {
        OUTCOME: Kind.CHOICE,
        TASK: Kind.WHOLE,
        AGENT: Kind.WHOLE,
        WORKER: Kind.WHOLE,
        RUN: Kind.WHOLE,
        ERROR: Kind.PART,
        AFTER: Kind.MOMENT,
        BEFORE: Kind.MOMENT,
        TOOK: Kind.SPAN,
    },
    {OUTCOME: OUTCOMES},
)
"""`after` (that moment included) and `before` are about the claim; a run that goes on has no
`took` yet."""
EVENT_FIELDS = Fields(
    "events",
    {
        TYPE: Kind.CHOICE,
        TASK: Kind.WHOLE,
        AGENT: Kind.WHOLE,
        WORKER: Kind.WHOLE,
        RUN: Kind.WHOLE,
        AFTER: Kind.MOMENT,
        BEFORE: Kind.MOMENT,
    },
    {TYPE: TYPES},
)
"""The type `failed` is short for `task_failed`, `lost` for `worker_lost`. Words look into the type,
the names and ids, and what was told: error, note, message."""
_TABLES = (TASK_FIELDS, RUN_FIELDS, EVENT_FIELDS)
_ALL = tuple(dict.fromkeys(name for table in _TABLES for name in table.kinds))
_LISTS = frozenset(
    name
    for table in _TABLES
    for name, kind in table.kinds.items()
    if kind in {Kind.CHOICE, Kind.WHOLE}
)

_HEAD = re.compile(r"(?P<name>[A-Za-z]+):(?P<inner>!*)")
_VALUE = re.compile(
    r"""
    (?: "(?P<quoted>(?:[^"\\]|\\.)*)"
      | /(?P<regex>(?:[^/\\]|\\.)+)/
      | (?P<bare>[^\s"/][^\s]*)?
    ) (?=\s|$)
    """,
    re.VERBOSE | re.DOTALL,
)
_PLAIN = re.compile(r"""[^\s"/!][^\s]*""")
_ESCAPED = re.compile(r"\\.|/", re.DOTALL)


class Term(Struct, frozen=True):
    """One condition. `field` is WORD, or one of a table of fields.

    `value` of a CHOICE is one of its choices; `others` are more values of a list. A `regex` that
    was read has its slashes escaped. `at` is what the value of a MOMENT came to when it was read.
    """

    field: str
    value: str
    negated: bool = False
    regex: bool = False
    others: tuple[str, ...] = ()
    at: datetime | None = None

    @property
    def values(self) -> tuple[str, ...]:
        """Return what the field may be: one of these."""
        return (self.value, *self.others)

    def __str__(self) -> str:
        """Write the term so that `parse_filter` reads it back."""
        mark = "!" if self.negated else ""
        if self.regex:
            whole = "/" + _ESCAPED.sub(lambda m: "\\/" if m[0] == "/" else m[0], self.value) + "/"
        else:
            whole = ",".join(self.values) if self.others else self._written()
        return f"{mark}{whole}" if self.field == WORD else f"{self.field}:{mark}{whole}"

    def _written(self) -> str:
        plain = _PLAIN.fullmatch(self.value) is not None
        if self.field == WORD:
            head = _HEAD.match(self.value)
            plain &= head is None or _nearest(head["name"], _ALL) is None
        elif self.field in _LISTS:
            plain &= "," not in self.value
        if plain:
            return self.value
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'


class Filter(Struct, frozen=True):
    """Conditions that must all hold; none means every row."""

    terms: tuple[Term, ...] = ()

    def __str__(self) -> str:
        """Write the filter so that `parse_filter` reads it back."""
        return " ".join(map(str, self.terms))

    def __bool__(self) -> bool:
        return bool(self.terms)


def parse_filter(text: str, fields: Fields = TASK_FIELDS, *, now: datetime | None = None) -> Filter:
    """Read a filter as people type it. Rows with moments need `now`, which `2h` ago refers to.

    Raises:
        ValidationError: a field that is nearly one, a value that a field does not have (what it
            has is named), an open quote or regular expression, or a bad one, nothing after `!` or
            a field, or more than anybody would type.

    """
    if len(text) > _LONGEST:
        raise ValidationError(f"the filter has more than {_LONGEST:,} characters; write less")
    if not _is_text(text):
        raise ValidationError("the filter is not UTF-8 text; type it as it is shown")
    terms: list[Term] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        term, at = _Piece(text, at, fields, now).read()
        terms.append(term)
    if len(terms) > _MOST_TERMS:
        raise ValidationError(f"the filter has {len(terms)} terms; {_MOST_TERMS} are the most")
    return Filter(tuple(terms))


def state_terms(name: str) -> tuple[Term, ...]:
    """Return the terms for a state of the store, or for `waiting`, whatever the case.

    READY is meant whole here, ready and waiting; the narrower `ready` is for filters.

    Raises:
        ValidationError: there is no such state.

    """
    state = _choice(STATE, name, TASK_FIELDS)
    return (Term(STATE, state, others=(WAITING,) if state == READY else ()),)


def task_filter(words: str = "", *, state: str | None = None, agent: str | None = None) -> Filter:
    """Return the filter for tasks that words, a state and an agent ask for together.

    Raises:
        ValidationError: as `parse_filter` and `state_terms` do.

    """
    terms = parse_filter(words).terms
    if state is not None:
        terms += state_terms(state)
    if agent is not None:
        terms += (Term(AGENT, agent),)
    return Filter(terms)


def likely_meant(where: Filter, fields: Fields = TASK_FIELDS) -> str:
    """Say what a filter that found nothing may have meant: `running` for `state:running`.

    Empty if its words look like words.
    """
    for term in where.terms:
        if term.field != WORD or term.regex:
            continue
        for name in fields.choices:
            if (choice := _find_choice(name, term.value, fields)) is not None:
                return f"{term.value!r} is looked for as text; for the {name} write {name}:{choice}"
        head = _HEAD.match(term.value)
        if head is not None and head["name"].lower() in _ALL:
            return f"{term.value!r} is looked for as text: {_known(fields)}"
    return ""


class _Piece:
    """One term of a text, from `at` on."""

    def __init__(self, text: str, at: int, fields: Fields, now: datetime | None) -> None:
        self._text = text
        self._start = at
        self._fields = fields
        self._now = now

    def read(self) -> tuple[Term, int]:
        """Return the term and where it ends."""
        at = self._start
        while self._text.startswith("!", at):
            at += 1
        marks = at - self._start
        name = WORD
        head = _HEAD.match(self._text, at)
        if head is not None and self._is_field(head):
            name, at = head["name"].lower(), head.end()
            marks += len(head["inner"])
        found = _VALUE.match(self._text, at)
        if found is None:
            raise self._unclosed(at)
        return self._term(name, found, negated=marks % 2 == 1), found.end()

    def _is_field(self, head: re.Match[str]) -> bool:
        """Say whether what stands before a colon is a field. Raises ValidationError if nearly."""
        typed = head["name"]
        meant = _nearest(typed, self._fields.kinds)
        if meant is None or meant == typed.lower():
            return meant is not None
        choices = self._fields.choices.get(meant)
        value = self._text[head.end() :].split(maxsplit=1)[:1]
        start = value[0].partition(",")[0].lower() if value else ""
        if choices is not None and not any(choice.startswith(start) for choice in choices):
            return False  # `stage:build`: whoever mistypes `state` goes on with a state
        raise ValidationError(
            f"{typed!r} is no field: is {meant!r} meant? {_known(self._fields)}; "
            f"to look for the text, put it in quotes"
        )

    def _term(self, name: str, found: re.Match[str], *, negated: bool) -> Term:
        kind = Kind.PART if name == WORD else self._fields.kinds[name]
        if (pattern := found["regex"]) is not None:
            if kind not in {Kind.PART, Kind.WHOLE}:
                raise ValidationError(f"{name} takes no regular expression")
            check_pattern(pattern)
            return Term(name, pattern, negated, regex=True)
        quoted = found["quoted"]
        if quoted is not None:
            values = [re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)]
        else:
            bare = found["bare"] or ""
            values = bare.split(",") if kind in {Kind.CHOICE, Kind.WHOLE} else [bare]
        if kind is Kind.CHOICE:
            values = [_choice(name, value, self._fields) for value in values]
        elif not all(values):
            typed = self._text[self._start : found.end()]
            raise ValidationError(f"the filter has nothing after {typed!r}; add a word")
        at = None
        if kind is Kind.MOMENT:
            assert self._now is not None, "rows with moments are picked at a moment"
            at = parse_moment(values[0], self._now)
        elif kind is Kind.SPAN:
            parse_span(values[0])
        return Term(name, values[0], negated, others=tuple(values[1:]), at=at)

    def _unclosed(self, at: int) -> ValidationError:
        rest = self._text[at:]
        if rest.startswith("/"):
            return ValidationError(
                f"a regular expression ends with / and a space, unlike {rest!r}; "
                "to look for a text with slashes, put it in quotes"
            )
        return ValidationError(f"the filter has a quote out of place near {rest!r}; close it")


def _nearest(typed: str, names: Mapping[str, object] | tuple[str, ...]) -> str | None:
    """Return the field that is typed, or nearly: one letter more or less, or two changed about."""
    typed = typed.lower()
    if typed in names:
        return typed
    if len(typed) < 4:
        return None  # nearly anything is near to `id`
    likely = [name for name in names if abs(len(name) - len(typed)) <= 1]
    return next(iter(get_close_matches(typed, likely, n=1, cutoff=_NEARLY)), None)


def _known(fields: Fields) -> str:
    return f"{fields.rows} have the fields {', '.join(fields.kinds)}"


def _choice(name: str, typed: str, fields: Fields) -> str:
    found = _find_choice(name, typed, fields)
    if found is None:
        raise ValidationError(f"no {name} {typed!r}; there are {', '.join(fields.choices[name])}")
    return found


def _find_choice(name: str, typed: str, fields: Fields) -> str | None:
    known = {_plainly(choice): choice for choice in fields.choices[name]}
    prefixes = ("", "task-", "worker-") if name == TYPE else ("",)
    return next(
        (known[p + _plainly(typed)] for p in prefixes if p + _plainly(typed) in known), None
    )


def _plainly(choice: str) -> str:
    return choice.lower().replace("_", "-").replace(" ", "-")


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
