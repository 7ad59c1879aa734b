"""The state folder of an older agentmux, written row by row and line by line, and its adoption."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.checkup import audit_errors
from support.stores import tasks_of, tuples

import engine
from engine.files import Layout
from engine.narrate import describe
from engine.store.adoption.adoption import Adopted, convert, is_older
from engine.store.database import SCHEMA_VERSION
from engine.store.rows import EVENT, RUN, read_event, read_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.model import Event

SCHEMA = Path(engine.__file__).parent / "sql" / "schema.sql"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CREATED, UPDATED = "2026-02-01T08:00:00.000Z", "2026-02-01T09:30:00.000Z"
COLUMNS = (
    *("id", "name", "agent", "state", "deps", "payload", "result", "claimed_by"),
    *("lease_until", "retries", "created_at", "updated_at"),
)
NOTHING = Adopted(0, 0, ())


def old(task_id: Any, state: Any = "READY", *deps: str, **more: Any) -> dict[str, Any]:
    """Return a row of an old table."""
    row = dict.fromkeys(COLUMNS)
    row |= {"id": task_id, "name": f"Task {task_id}", "agent": "codex", "state": state}
    row |= {"deps": json.dumps(deps), "payload": '{"kind": "noop", "seconds": 0}', "retries": 0}
    return row | {"created_at": CREATED, "updated_at": UPDATED} | more


@dataclass
class Left:
    """The state folder of an older agentmux, and what becomes of it."""

    folder: Path
    adopted: Adopted = NOTHING

    @property
    def layout(self) -> Layout:
        return Layout(self.folder / "state")

    @property
    def old_database(self) -> Path:
        return self.folder / "old.db"

    @property
    def old_log(self) -> Path:
        return self.folder / "old.jsonl"

    def write(self, rows: Iterable[dict[str, Any]], lines: Sequence[object] = ()) -> None:
        """Write an old store; a line is an object, text or bytes."""
        with closing(sqlite3.connect(self.old_database)) as db:
            # Without types: nothing is known of what the old columns would have refused.
            db.execute(f"CREATE TABLE tasks({', '.join(COLUMNS)}, colour DEFAULT 'red')")
            db.execute("CREATE TABLE leases(task, until)")
            marks = ", ".join(f":{column}" for column in COLUMNS)
            db.executemany(f"INSERT INTO tasks({', '.join(COLUMNS)}) VALUES ({marks})", rows)
            # Text that is no UTF-8.
            db.execute(
                "UPDATE tasks SET result = CAST(result AS TEXT) WHERE typeof(result) = 'blob'"
            )
            db.commit()
        with self.old_log.open("wb") as file:
            for line in lines:
                text = line if isinstance(line, str | bytes) else json.dumps(line)
                file.write((text if isinstance(text, bytes) else text.encode()) + b"\n")

    def convert(self, *more_schema: str) -> Adopted:
        """Adopt what was written."""
        self.layout.create()
        with (
            closing(sqlite3.connect(f"file:{self.old_database}?mode=ro", uri=True)) as before,
            closing(sqlite3.connect(self.layout.database, isolation_level=None)) as new,
        ):
            assert is_older(before)
            new.executescript(SCHEMA.read_text(encoding="utf-8"))
            new.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            for statement in more_schema:
                new.execute(statement)
            self.adopted = convert(before, self.old_log, new, NOW)
        return self.adopted

    def adopt(self, *rows: dict[str, Any], log: Sequence[object] = ()) -> dict[str, dict[str, Any]]:
        """Write, adopt, check all that must be true of any store; return its tasks."""
        self.write(rows, log)
        self.convert()
        self.check()
        return tasks_of(self.layout)

    def check(self) -> None:
        assert audit_errors(self.layout) == []
        for (line,) in tuples(self.layout, "SELECT line FROM event_lines"):
            pairs: list[tuple[str, Any]] = json.loads(line, object_pairs_hook=list)
            keys = [key for key, _ in pairs]
            assert len(keys) == len(set(keys)), line
        for event in self.events():
            describe(event)

    def events(self) -> list[Event]:
        """Return every event, as the store itself reads it."""
        rows = tuples(self.layout, f"SELECT {EVENT.columns} FROM events ORDER BY seq")
        return [read_event(row) for row in rows]

    def history(self) -> list[Event]:
        """Return what the old log told."""
        return [event for event in self.events() if "adopted" in event.data]

    def told(self, task_id: str) -> list[str]:
        """Return the types of a task's own events."""
        return [
            str(event.type)
            for event in self.events()
            if event.task_id == task_id and "adopted" not in event.data
        ]

    def runs(self, task_id: str) -> list[Any]:
        rows = tuples(self.layout, f"SELECT task_id, {RUN.columns} FROM runs r ORDER BY n")
        return [read_run(row[1:]) for row in rows if row[0] == task_id]
