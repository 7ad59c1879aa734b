"""The words with which people pick tasks: `tests state:!done agent:codex`. Pure; knows no SQL.

A term is a word, or one of the fields below with a value; all terms of a filter must hold. `!`
before a term or before its value turns it round. Quotes hold spaces together, and a quoted word
is never a field: `"state:x"` looks for that text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from engine.errors import ValidationError
from engine.model import State

WORD = "word"
"""Substring of id, name, agent or worker, whatever the case."""
STATE = "state"
"""One of STATES."""
AGENT = "agent"
"""The agent's exact name."""

READY = "ready"
"""READY, and nothing but a worker is missing."""
WAITING = "waiting"
"""READY, but a dep is unmet or the backoff is not over."""
STATES = (WAITING, *(state.lower() for state in State))
"""Values of a state term, in lower case: the states of the store, READY told apart in two."""

_PIECE = re.compile(
    r"""
    (?P<outer>!*)
    (?:(?P<field>state|agent):(?P<inner>!*))?
    (?: "(?P<quoted>(?:[^"\\]|\\.)*)" (?=\s|$) | (?P<bare>[^\s"][^\s]*)? (?=\s|$) )
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_PLAIN = re.compile(r"""[^\s"!][^\s]*""")


@dataclass(frozen=True, slots=True)
class Term:
    """One condition. `field` is WORD, STATE or AGENT; a state's value is one of STATES."""

    field: str
    value: str
    negated: bool = False

    def __str__(self) -> str:
        """Write the term so that `parse_filter` reads it back."""
        plain = _PLAIN.fullmatch(self.value) and (
            self.field != WORD or not self.value.lower().startswith((f"{STATE}:", f"{AGENT}:"))
        )
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"')
        value = self.value if plain else f'"{escaped}"'
        mark = "!" if self.negated else ""
        return f"{mark}{value}" if self.field == WORD else f"{self.field}:{mark}{value}"


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Conditions that must all hold; none means every task."""

    terms: tuple[Term, ...] = ()

    def __str__(self) -> str:
        """Write the filter so that `parse_filter` reads it back."""
        return " ".join(map(str, self.terms))

    def __bool__(self) -> bool:
        return bool(self.terms)


def parse_filter(text: str) -> TaskFilter:
    """Read a filter as people type it.

    Raises:
        ValidationError: an unknown state (all are named), an open quote, or nothing after `!`,
            `state:` or `agent:`.

    """
    terms: list[Term] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        piece = _PIECE.match(text, at)
        if piece is None:
            raise ValidationError(
                f"the filter has a quote out of place near {text[at:]!r}; close it"
            )
        terms.append(_term(piece))
        at = piece.end()
    return TaskFilter(tuple(terms))


def state_terms(name: str) -> tuple[Term, ...]:
    """Return the terms for a state of the store, or for `waiting`, whatever the case.

    READY is meant whole here, ready and waiting; the narrower `ready` is for filters.

    Raises:
        ValidationError: there is no such state.

    """
    term = Term(STATE, _state(name))
    if term.value != READY:
        return (term,)
    others = (state.lower() for state in State if state is not State.READY)
    return tuple(Term(STATE, other, negated=True) for other in others)


def _term(piece: re.Match[str]) -> Term:
    name = (piece["field"] or WORD).lower()
    negated = (len(piece["outer"]) + len(piece["inner"] or "")) % 2 == 1
    if piece["quoted"] is not None:
        value = re.sub(r"\\(.)", r"\1", piece["quoted"], flags=re.DOTALL)
    else:
        value = piece["bare"] or ""
    if name == STATE:
        value = _state(value)
    elif not value:
        raise ValidationError(f"the filter has nothing after {piece[0]!r}; add a word")
    return Term(name, value, negated)


def _state(name: str) -> str:
    value = name.lower()
    if value not in STATES:
        raise ValidationError(f"no state {name!r}; there are {', '.join(STATES)}")
    return value
