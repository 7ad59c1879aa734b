"""The tasks of an older agentmux as typed values: a table `tasks` of COLUMNS, user_version 0.

More is not known of that store for certain, so nothing is taken for granted and nothing dropped:
what cannot be read as what it should be is kept as text, and the notes say so. Reads only; what
becomes of the tasks in a new store is decided in `adoption`.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.model import NAME, State
from engine.parsing.checks import Findings
from engine.parsing.payloads import DEFAULT_KIND, check_payload
from engine.store.adoption.loose import Notes, clean, find_error, read_json, read_moment, to_text

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping
    from datetime import datetime

COLUMNS = (
    *("id", "name", "agent", "state", "deps", "payload", "result", "claimed_by"),
    *("lease_until", "retries", "created_at", "updated_at"),
)
UNKNOWN = "unknown"
"""Stands where a name, or the kind of a payload, must stand and none is known."""

_MOST_RETRIES = 1000
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9._-]", re.ASCII)
_EMPTY = frozenset({"", "null"})


class OldTask(Struct):
    """A row of the old table. `state` is None if it is none of ours.

    `trouble` says why nobody can run the task before a human has looked. `error` is what the
    old store says of a task that did not succeed.
    """

    id: str
    name: str
    agent: str
    state: State | None
    deps: tuple[str, ...]
    payload: dict[str, Any]
    result: dict[str, Any] | None
    error: str | None
    worker_id: str | None
    retries: int
    created: datetime
    updated: datetime
    trouble: str | None


def read_tasks(old: sqlite3.Connection, now: datetime, notes: Notes) -> list[OldTask]:
    """Read the table of an older store, in its order. Times in the future become `now`.

    Raises:
        sqlite3.Error: the store cannot be read.

    """
    with _any_text(old):
        rows = old.execute(f"SELECT {', '.join(COLUMNS)} FROM tasks").fetchall()
    known: dict[str, dict[str, Any]] = {}
    for row in rows:
        columns = dict(zip(COLUMNS, row, strict=True))
        raw = to_text(columns["id"])
        task_id = clean(raw)
        if not task_id:
            notes.add(
                "these rows had no id and were left out; they are named",
                repr(to_text(columns["name"])),
            )
        elif task_id in known:
            notes.add("these ids stood in the table twice, and the first row was taken", task_id)
        else:
            if task_id != raw:
                notes.add(
                    "these ids held characters that cannot be shown, which are U+FFFD now", task_id
                )
            known[task_id] = columns
    return [_read_task(task_id, columns, known, now, notes) for task_id, columns in known.items()]


def _read_task(
    task_id: str,
    columns: Mapping[str, Any],
    known: Mapping[str, Any],
    now: datetime,
    notes: Notes,
) -> OldTask:
    word = clean(to_text(columns["state"])).strip().upper()
    state = State(word) if word in State.__members__ else None
    payload, trouble = _read_payload(to_text(columns["payload"]))
    deps = _read_deps(to_text(columns["deps"]), known)
    if trouble is not None:
        notes.add(
            "the payloads of these tasks do not say what to run, so nobody can run them", task_id
        )
    if deps is None:
        notes.add("the deps of these tasks could not be read, so the tasks wait for you", task_id)
        trouble = "its deps could not be read"
    if trouble is not None:
        trouble += "; mend the DAG, seed it, then retry the task"
    if task_id in (deps or ()):
        notes.add("these tasks depended on themselves, and that dep was dropped", task_id)
    if state is None:
        notes.add(
            "these tasks were in a state that is unknown here and wait for you",
            f"{task_id} ({word or 'none'})",
        )
        trouble = trouble or f"an older agentmux left it {word or 'without a state'}; retry it"
    times = [read_moment(columns[name]) for name in ("created_at", "updated_at")]
    if None in times:
        notes.add("the times of these tasks could not be read and are those of now", task_id)
    created, updated = (min(time, now) if time is not None else now for time in times)
    result = _read_result(to_text(columns["result"]))
    return OldTask(
        id=task_id,
        name=clean(to_text(columns["name"])) or task_id,
        agent=_read_agent(to_text(columns["agent"]), task_id, notes),
        state=state,
        deps=tuple(dep for dep in deps or () if dep != task_id),
        payload=payload,
        result=result,
        error=find_error(result or {}),
        worker_id=clean(to_text(columns["claimed_by"])) or None,
        retries=_read_retries(to_text(columns["retries"])),
        created=min(created, updated),
        updated=updated,
        trouble=trouble,
    )


def _read_deps(text: str, known: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Read a JSON list of ids, one id, or ids with commas between them; None: it is neither."""
    value = [] if text.strip() in _EMPTY else read_json(text)
    if isinstance(value, dict):
        return None
    if not isinstance(value, list):
        text = value if isinstance(value, str) else text
        value = [text] if clean(text) in known else [part.strip() for part in text.split(",")]
    if any(isinstance(item, list | dict) for item in value):
        return None
    # An edge is there or not: twice the same dep would be counted twice and met once.
    ids = (clean(to_text(item)) for item in value)
    return tuple(dict.fromkeys(dep for dep in ids if dep))


def _read_payload(text: str) -> tuple[dict[str, Any], str | None]:
    """Return a payload that names its kind, and why it cannot be run if it cannot.

    A missing kind is a noop. But one that asks for more than a noop can do must not become DONE
    by doing nothing.
    """
    value = {} if text.strip() in _EMPTY else read_json(text)
    if not isinstance(value, dict):
        kept = {"text": text} if value is None else {"value": value}
        return {"kind": UNKNOWN, **kept}, "its payload is no JSON object"
    if "kind" not in value:
        noop = {"kind": DEFAULT_KIND, **value}
        findings = Findings()
        check_payload(noop, (), findings)
        if not findings.items:
            return noop, None
    elif isinstance(value["kind"], str):
        return value, None
    return {"kind": UNKNOWN, "value": value}, "its payload does not say what kind of work it is"


def _read_result(text: str) -> dict[str, Any] | None:
    if text.strip() in _EMPTY:
        return None
    value = read_json(text)
    if isinstance(value, dict):
        return value
    if value is None or isinstance(value, str):
        return {"text": value or text}
    return {"value": value}


def _read_agent(text: str, task_id: str, notes: Notes) -> str:
    if NAME.fullmatch(text) and set(text) != {"."}:
        return text
    # Agents name files, too.
    agent = _NOT_A_NAME.sub("-", text)[:64]
    agent = agent if agent.strip(".") else UNKNOWN
    notes.add(
        "the agents of these tasks had names that cannot name files", f"{task_id} ({agent} now)"
    )
    return agent


def _read_retries(text: str) -> int:
    return min(int(text), _MOST_RETRIES) if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) else 0


@contextmanager
def _any_text(db: sqlite3.Connection) -> Iterator[None]:
    """Let a connection read text that is no UTF-8, too."""
    before = db.text_factory
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        yield
    finally:
        db.text_factory = before
