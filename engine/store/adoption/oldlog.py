"""The log of an older agentmux, whose lines have no seq, as rows of `events`.

How its lines look is not known for certain: what is recognised becomes a column, the rest stays
in the event's data, and a line that says nothing we know is kept whole. Reads only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from engine.clock import to_iso
from engine.files import open_regular
from engine.model import ADOPTED, EventType, State
from engine.store.adoption.loose import Notes, clean, find_error, read_json, read_moment
from engine.store.transaction import dump

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

_NOT_A_LETTER = re.compile(r"[^A-Z]+")


class Clue(Struct):
    """What the old log says of a task: who took it last and when, how that ended, and why."""

    worker_id: str | None = None
    since: datetime | None = None
    ended: EventType | None = None
    error: str | None = None


class History(Struct):
    """The lines of an old log, one after the other, and what they say of each task."""

    now: datetime
    notes: Notes
    clues: dict[str, Clue] = field(default_factory=dict)
    count: int = 0

    def read(self, log: Path) -> Iterator[tuple[str | None, ...]]:
        """Yield each line as a row of `events` without its seq; only blank lines are left out.

        Raises:
            OSError: the log cannot be read.

        """
        at = self.now
        with open_regular(log, linked=True) as file:
            for number, raw in enumerate(file, 1):
                text = raw.decode("utf-8", "replace").strip().removeprefix("\ufeff")
                if not text:
                    continue
                self.count += 1
                line = read_json(text)
                is_object = isinstance(line, dict)
                event = _Line(line if is_object else {"line": text})
                if not is_object:
                    self.notes.add(
                        "these lines of the old log are no JSON objects and are kept as alerts",
                        f"line {number}",
                    )
                elif event.type is None:
                    self.notes.add(
                        "these lines of the old log are of no known type and are kept as alerts",
                        f"line {number}",
                    )
                if event.at is not None:
                    at = event.at
                elif is_object:
                    self.notes.add(
                        "these lines of the old log have no time and got that of the one before",
                        f"line {number}",
                    )
                self._learn(event, at)
                yield event.row(at)

    def _learn(self, event: _Line, at: datetime) -> None:
        if event.task_id is None:
            return
        clue = self.clues.setdefault(event.task_id, Clue())
        clue.worker_id = event.worker_id or clue.worker_id
        match event.type:
            case EventType.TASK_CLAIMED:
                clue.since, clue.ended = at, None
            case EventType.TASK_STARTED:
                clue.since = at if clue.ended or clue.since is None else clue.since
                clue.ended = None
            case EventType.TASK_COMPLETED | EventType.TASK_CANCELLED:
                clue.ended, clue.error = event.type, None
            case EventType.TASK_FAILED | EventType.TASK_BLOCKED:
                inner = event.left.get("data")
                clue.error = find_error(event.left) or find_error(
                    inner if isinstance(inner, dict) else {}
                )
                clue.ended = event.type


class _Line:
    """A line of the old log, with what is recognised taken out of `left`."""

    # Other names in an event's data would stand twice in its line of the new log.
    _COLUMNS = frozenset(
        {"seq", "ts", "type", "agent", "workerId", "taskId", "runId", "state", ADOPTED}
    )

    def __init__(self, line: dict[str, Any]) -> None:
        self._whole = line
        self.left = dict(line)
        self.type = self._take(("type", "event", "kind"), _read_type)
        self.at = self._take(("ts", "time", "timestamp"), read_moment)
        self._agent = self._take(("agent",), _name)
        self.worker_id = self._take(("workerId", "worker_id", "worker"), _name)
        self.task_id = self._take(("taskId", "task_id", "task"), _name)
        self._run_id = self._take(("runId", "run_id", "run"), _name)
        self._state = self._take(("state",), _read_state)

    def _take(self, keys: Sequence[str], read: Callable[[object], Any]) -> Any:
        for key in keys:
            if key in self.left and (value := read(self.left[key])) is not None:
                del self.left[key]
                return value
        return None

    def row(self, at: datetime) -> tuple[str | None, ...]:
        if self.type is None:
            what = next((self._whole[key] for key in ("type", "event") if key in self._whole), None)
            said = (
                f"noted {what}" if isinstance(what, str) else "wrote a line that is not understood"
            )
            data: dict[str, Any] = {"message": f"an older agentmux {said}", ADOPTED: self._whole}
        else:
            clash = {key: self.left.pop(key) for key in self._COLUMNS & self.left.keys()}
            data = {**self.left, ADOPTED: clash or True}
        names = (self._agent, self.worker_id, self.task_id, self._run_id)
        kind = self.type or EventType.ALERT
        return to_iso(at), kind, *names, self._state if self.type else None, dump(data)


def _read_type(value: object) -> EventType | None:
    word = _NOT_A_LETTER.sub("_", value.upper()).strip("_") if isinstance(value, str) else ""
    return EventType(word) if word in EventType.__members__ else None


def _read_state(value: object) -> State | None:
    word = value.upper() if isinstance(value, str) else ""
    return State(word) if word in State.__members__ else None


def _name(value: object) -> str | None:
    return clean(value) or None if isinstance(value, str) else None
