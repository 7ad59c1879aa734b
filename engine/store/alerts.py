"""What was noticed: alerts until somebody acknowledges them, and where they still have to go.

Whatever takes a transaction is called inside one, on the writer's thread.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import astuple

from engine.clock import from_iso, to_iso
from engine.model import AlertKind, EventType, NewAlert, to_json
from engine.store.transaction import dump
from engine.views import AlertRow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from sqlite3 import Connection

    from engine.model import Event
    from engine.store.transaction import Transaction

    Rows = Callable[..., Awaitable[list[Any]]]

ALERT = "alert"
"""The key in the data of an ALERT event that is also a row, under this number."""
ALERTS = "alerts"
"""The key in the data of an ALERT_ACKNOWLEDGED event: the numbers of those alerts."""

LONGEST_WAIT = timedelta(hours=1)
"""No delivery is put off for so long: what is due later than that, was so by a clock that is
set back by now."""

_COLUMNS = "id, ts, error, kind, subject, summary, count, body, task_id, run_id, acknowledged_at"
_ADD = f"INSERT INTO alerts({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)"


_Number = Annotated[int, Meta(ge=0, le=2**53)]


class _Told(Struct):
    """An alert as its event tells it."""

    number: _Number
    kind: AlertKind
    subject: str
    summary: str
    error: bool
    count: _Number
    body: str | None
    task: str | None
    run: str | None


def raise_alerts(
    tx: Transaction, alerts: Iterable[NewAlert], targets: Iterable[str] = ()
) -> list[int]:
    """Add alerts, each with its event, and note where they have to go; return their numbers."""
    targets = list(targets)
    number = int(tx.db.execute("SELECT coalesce(max(id), 0) FROM alerts").fetchone()[0])
    numbers = []
    for alert in alerts:
        number += 1
        tx.db.execute(_ADD, _row(number, tx.ts, alert))
        tx.event(EventType.ALERT, data={ALERT: number} | _told(alert))
        tx.db.executemany(
            "INSERT INTO deliveries(alert, target, next_at) VALUES (?, ?, ?)",
            ((number, target, tx.ts) for target in targets),
        )
        numbers.append(number)
    return numbers


def _row(number: int, ts: str, alert: NewAlert) -> tuple[Any, ...]:
    what = alert.kind, alert.subject, alert.summary, alert.count, alert.body
    return (number, ts, alert.error, *what, alert.task_id, alert.run_id)


def _told(alert: NewAlert) -> dict[str, Any]:
    """Return what an event tells of an alert.

    The task is no task of the event: nothing happens to it, and it may be gone by then.
    """
    told: dict[str, Any] = to_json(alert)
    return told | {"task": told.pop("taskId"), "run": told.pop("runId")}


def acknowledge(tx: Transaction, numbers: Sequence[int] | None) -> list[int]:
    """Acknowledge alerts (None: all); return the numbers of those that were not before."""
    which = "" if numbers is None else " AND id IN (SELECT value FROM json_each(?))"
    rows = tx.db.execute(
        f"UPDATE alerts SET acknowledged_at = ? WHERE acknowledged_at IS NULL{which} RETURNING id",
        (tx.ts, *([] if numbers is None else [dump(list(numbers))])),
    ).fetchall()
    found = sorted(row[0] for row in rows)
    if found:
        tx.event(EventType.ALERT_ACKNOWLEDGED, data={ALERTS: found})
    return found


def refold_alerts(db: Connection, events: Iterable[Event]) -> None:
    """Fill alerts from events, for a rebuild. What still had to be handed on is not known.

    An event that is not as `raise_alerts` tells it is no row.
    """
    for event in events:
        if event.type is EventType.ALERT_ACKNOWLEDGED:
            numbers = _numbers(event.data.get(ALERTS))
            which = "id IN (SELECT value FROM json_each(?))"
            db.execute(
                f"UPDATE alerts SET acknowledged_at = ? WHERE {which}",
                (to_iso(event.ts), dump(numbers)),
            )
        elif event.type is EventType.ALERT and (told := _retold(event)) is not None:
            number, alert = told
            db.execute(f"{_ADD} ON CONFLICT DO NOTHING", _row(number, to_iso(event.ts), alert))


def _numbers(value: object) -> list[int]:
    try:
        return msgspec.convert(value, list[_Number])
    except msgspec.ValidationError:
        return []


def _retold(event: Event) -> tuple[int, NewAlert] | None:
    """Return what raise_alerts told by an event; None: it was told by something else."""
    try:
        told = msgspec.convert({**event.data, "number": event.data.get(ALERT)}, _Told)
    except msgspec.ValidationError:
        return None
    number, *what = astuple(told)
    return number, NewAlert(*what)


async def read_alerts(rows: Rows, limit: int, *, every: bool = False) -> list[AlertRow]:
    """Return the newest alerts, oldest first; `every`: those that were acknowledged, too."""
    where = "" if every else " WHERE acknowledged_at IS NULL"
    found = await rows(f"SELECT {_COLUMNS} FROM alerts{where} ORDER BY id DESC LIMIT ?", (limit,))
    errors: dict[int, dict[str, str]] = {}
    for alert, target, error in await rows(
        "SELECT alert, target, error FROM deliveries WHERE error IS NOT NULL"
    ):
        errors.setdefault(alert, {})[target] = error
    return [_alert(row, errors.get(row[0], {})) for row in reversed(found)]


async def read_alert(rows: Rows, number: int) -> AlertRow | None:
    """Return an alert by its number; None: there is none."""
    found = await rows(f"SELECT {_COLUMNS} FROM alerts WHERE id = ?", (number,))
    return _alert(found[0], {}) if found else None


def _alert(row: tuple[Any, ...], undelivered: Mapping[str, str]) -> AlertRow:
    number, ts, error, kind, subject, summary, count, body, task_id, run_id, at = row
    return AlertRow(
        id=number,
        ts=from_iso(ts),
        error=bool(error),
        kind=AlertKind(kind),
        subject=subject,
        summary=summary,
        count=count,
        body=body,
        task_id=task_id,
        run_id=run_id,
        acknowledged_at=from_iso(at) if at else None,
        undelivered=undelivered,
    )


class Delivery(Struct, frozen=True):
    """An alert that has to go to a target; `attempts` to hand it over have failed."""

    alert: AlertRow
    target: str
    attempts: int


async def read_due(rows: Rows, target: str, now: datetime, limit: int) -> list[Delivery]:
    """Return what has to be delivered to a target now, the oldest alerts first."""
    columns = ", ".join(f"a.{column}" for column in _COLUMNS.split(", "))
    found = await rows(
        f"SELECT d.attempts, {columns} FROM deliveries d JOIN alerts a ON a.id = d.alert"
        " WHERE d.target = ? AND (d.next_at <= ? OR d.next_at > ?) ORDER BY d.alert LIMIT ?",
        (target, to_iso(now), to_iso(now + LONGEST_WAIT), limit),
    )
    return [Delivery(_alert(row[1:], {}), target, row[0]) for row in found]


async def read_next_due(rows: Rows, target: str) -> datetime | None:
    """Return when something has to be delivered to a target; None: there is nothing."""
    ((moment,),) = await rows("SELECT min(next_at) FROM deliveries WHERE target = ?", (target,))
    return from_iso(moment) if moment else None


def forget_targets(tx: Transaction, but: Sequence[str]) -> None:
    """Deliver nothing any more to targets that nobody wants."""
    unwanted = "target NOT IN (SELECT value FROM json_each(?))"
    tx.db.execute(f"DELETE FROM deliveries WHERE {unwanted}", (dump(list(but)),))


def delivered(tx: Transaction, number: int, target: str) -> None:
    """Note that an alert was handed over, or that nobody tries any further."""
    tx.db.execute("DELETE FROM deliveries WHERE alert = ? AND target = ?", (number, target))
    tx.bulk += 1


def put_off(tx: Transaction, number: int, target: str, error: str, seconds: float) -> None:
    """Note that an alert could not be handed over, and in how many seconds it is tried again."""
    tx.db.execute(
        "UPDATE deliveries SET attempts = attempts + 1, next_at = ?, error = ?"
        " WHERE alert = ? AND target = ?",
        (tx.later(seconds), error, number, target),
    )
    tx.bulk += 1


def give_up(tx: Transaction, number: int, target: str, alert: NewAlert | None) -> None:
    """Try no more to hand an alert over, and raise the alert that says so, if there is one."""
    delivered(tx, number, target)
    if alert is not None:
        raise_alerts(tx, [alert])
