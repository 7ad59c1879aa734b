"""A line of the log as a row of `events`, such that the row gives back the very same line.

What is no event, or lacks what the fold and the tables need of one, is not taken: a line that a
damaged disk left must never stop a rebuild half way, or bring into the store what nobody wrote.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from engine.clock import from_iso, to_iso
from engine.dag import from_definition
from engine.errors import ValidationError
from engine.model import ADOPTED, EventType, HoldCause, Reason, RunOutcome, State
from engine.store.spending import MOST_DOLLARS, MOST_TOKENS
from engine.store.transaction import dump

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LARGEST = 1 << 63
_TASK_EVENTS = {kind for kind in EventType if kind.startswith("TASK_")} | {EventType.LEASE_EXPIRED}
_WORKER_EVENTS = {kind for kind in EventType if kind.startswith("WORKER_")}
_DEFINING = {EventType.TASK_CREATED, EventType.TASK_UPDATED}
_HOLDS = {EventType.HELD, EventType.RESUMED}
_TYPES = {str(kind): kind for kind in EventType}
_STATES = {str(state): state for state in State}
_HEAD = {"seq", "ts", "type", "agent", "workerId", "taskId", "runId", "state"}


class Row(NamedTuple):
    """A row of `events`, in the order of its columns."""

    seq: int
    ts: str
    type: EventType
    agent: str | None
    worker_id: str | None
    task_id: str | None
    run_id: str | None
    state: str | None
    data: str


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} cannot be written again")
    return number


_decode = json.JSONDecoder(parse_constant=_finite, parse_float=_finite).decode
# As the view event_lines quotes them.
_quote = json.encoder.encode_basestring
_encode = json.JSONEncoder(ensure_ascii=False).encode


@lru_cache(maxsize=256)
def _is_moment(text: str) -> bool:
    """Whether a text is a time as the store writes it. Many lines have the same."""
    return to_iso(from_iso(text)) == text


def read_line(line: bytes) -> Row | None:
    """Read a line without its line end; None: it is no event that can be used."""
    try:
        text = line.decode()
        told = _decode(text)
        _mapping(told)
        row = _to_row(text, told)
        if not told.get(ADOPTED):
            _check(row, told)
        if "\\ud" in text:
            # Half a character, which no database takes; a whole one is two of these.
            _encode(told).encode()
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, ValidationError):
        return None
    return row


def _to_row(text: str, told: Mapping[str, Any]) -> Row:
    seq, ts, kind, state = told["seq"], told["ts"], _TYPES[told["type"]], told.get("state")
    if type(seq) is not int or not 0 < seq < _LARGEST or not _is_moment(ts):
        raise ValueError("no event has such a number or time")
    agent, worker = told.get("agent"), told.get("workerId")
    task, run = told.get("taskId"), told.get("runId")
    head = f'{{"seq":{seq},"ts":"{ts}","type":"{kind}"'
    # _quote takes nothing but text.
    if agent is not None:
        head += f',"agent":{_quote(agent)}'
    if worker is not None:
        head += f',"workerId":{_quote(worker)}'
    if task is not None:
        head += f',"taskId":{_quote(task)}'
    if run is not None:
        head += f',"runId":{_quote(run)}'
    if state is not None:
        head += f',"state":"{_STATES[state]}"'
    if text.startswith(f"{head},"):
        data = f"{{{text[len(head) + 1 :]}"
    elif text == f"{head}}}":
        data = "{}"
    else:
        # Somebody wrote it in another way: what it says counts.
        rest = {key: value for key, value in told.items() if key not in _HEAD}
        data = dump(rest) if rest else "{}"
    return Row(seq, ts, kind, agent, worker, task, run, state, data)


def _check(row: Row, told: Mapping[str, Any]) -> None:
    """Raise unless an event has what is read from one of its type."""
    kind = row.type
    if kind in _TASK_EVENTS:
        _check_task(row, told)
    elif kind in _WORKER_EVENTS:
        _need(row.agent, row.worker_id)
        _count(told.get("pid", 0))
    elif kind in _HOLDS:
        _need(row.agent)
        _check_hold(told)
    elif kind is EventType.LATE_RESULT:
        _spending(told.get("spending", {}))
    elif kind is EventType.ISSUE_TOLD:
        _need(row.task_id, row.run_id)
    elif kind is EventType.SEEDED:
        _need(told["dag"])
        rules = told.get("agents", {})
        _mapping(rules)
        for rule in rules.values():
            _mapping(rule)
            _count(rule["limit"] or 0)
            _number(rule["stagger"])


def _check_task(row: Row, told: Mapping[str, Any]) -> None:
    if row.task_id is None or row.state is None:
        raise ValueError("it says nothing of a task")
    for key in told.keys() & _FIELDS.keys():
        _FIELDS[key](told[key])
    if row.type in _DEFINING:
        _definition(told["definition"], row.task_id)
    elif row.type is EventType.TASK_CLAIMED:
        _need(row.agent, row.worker_id, row.run_id)
        _count(told["attempt"])


def _check_hold(told: Mapping[str, Any]) -> None:
    HoldCause(told.get("cause", HoldCause.OPERATOR))
    _need(told.get("reason", ""))
    if told.get("until") is not None:
        _moment(told["until"])


def _definition(definition: Any, task_id: str) -> None:
    _mapping(definition)
    task = from_definition(definition)
    if task.id != task_id:
        raise ValueError("it is another task's")
    _need(*task.deps)
    for number in (task.priority, task.retries):
        _number(number)


def _need(*texts: object) -> None:
    if not all(type(text) is str for text in texts):
        raise TypeError("a name is missing")


def _count(value: object) -> None:
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise ValueError("it is no count")


def _number(value: object) -> None:
    if type(value) not in {int, float} or not -_LARGEST < value < _LARGEST:  # type: ignore[operator] # a number then
        raise ValueError("it is no number")


def _spending(value: Any) -> None:
    _mapping(value)
    for name, number in value.items():
        _number(number)
        if not 0 <= number <= (MOST_DOLLARS if name == "cost" else MOST_TOKENS):
            raise ValueError("no run takes so much")


def _text(value: object) -> None:
    if value is not None and type(value) is not str:
        raise TypeError("it is no text")


def _mapping(value: object) -> None:
    if type(value) is not dict:
        raise TypeError("it is no object")


def _moment(value: Any) -> None:
    if not _is_moment(value):
        raise ValueError("it is no moment")


def _reasons(value: object) -> None:
    if type(value) is not list:
        raise TypeError("it is no list")
    for reason in value:
        Reason(reason)


_FIELDS: Final[Mapping[str, Callable[[Any], object]]] = {
    "attempts": _count,
    "attempt": _count,
    "lost": _count,
    "exitCode": _number,
    "error": _text,
    "notBefore": _moment,
    "reasons": _reasons,
    "outcome": RunOutcome,
    "result": _mapping,
    "spending": _spending,
}
"""What is read from the data of a task's events, each with what raises unless it is sound."""
