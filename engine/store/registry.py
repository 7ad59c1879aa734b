"""Agents that somebody else has started: registered, beating, forgotten.

Whatever takes a transaction is called inside one, on the writer's thread.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from engine.clock import from_iso
from engine.errors import LeaseConflict
from engine.model import EventType, External, ProcessId, TmuxPlace
from engine.store.alerts import raise_alerts
from engine.store.transaction import dump
from engine.views import ExternalRow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from engine.model import NewAlert
    from engine.store.transaction import Transaction

    Rows = Callable[..., Awaitable[list[Any]]]

_ROW = (
    "id, type, pid, pid_started, tmux, meta, registered_at, beat_at, tmux_id, tmux_pid,"
    " tmux_started"
)


def register(tx: Transaction, agent: External, is_alive: Callable[[ProcessId], bool]) -> bool:
    """Enter an agent, or change what is known of it; False: it was there already.

    Raises:
        LeaseConflict: another process that lives has this id, or a worker has.

    """
    found = tx.db.execute(f"SELECT {_ROW} FROM externals WHERE id = ?", (agent.id,)).fetchone()
    if found is not None:
        process = _external(found).process
        if process is not None and process != agent.process and is_alive(process):
            raise LeaseConflict(
                f"agent {agent.id!r} is registered, and its process {process.pid} lives; choose "
                f"another id, or `agentmux agents unregister {agent.id}` first"
            )
    worker = tx.db.execute(
        "SELECT 1 FROM workers WHERE id = ? AND status IN ('live', 'stopping')", (agent.id,)
    ).fetchone()
    if worker is not None:
        raise LeaseConflict(f"{agent.id!r} is the id of a worker; choose another")
    here = (None, None) if agent.process is None else (agent.process.pid, agent.process.started)
    place = agent.place
    there = (
        (None, None, None) if place is None else (place.id, place.server.pid, place.server.started)
    )
    tx.db.execute(
        f"INSERT INTO externals({_ROW}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9, ?10)"
        " ON CONFLICT(id) DO UPDATE SET type = ?2, pid = ?3, pid_started = ?4, tmux = ?5,"
        " meta = ?6, beat_at = ?7, tmux_id = ?8, tmux_pid = ?9, tmux_started = ?10",
        (agent.id, agent.type, *here, agent.tmux, dump(agent.meta), tx.ts, *there),
    )
    if found is None:
        data: dict[str, Any] = {"agentId": agent.id, "agentType": agent.type}
        if agent.process is not None:
            data["pid"] = agent.process.pid
        tx.event(EventType.AGENT_REGISTERED, data=data)
    tx.bulk += 1
    return found is None


def beat(tx: Transaction, ids: Iterable[str]) -> list[str]:
    """Note a sign of life of agents; return those that are registered."""
    rows = tx.db.execute(
        "UPDATE externals SET beat_at = ? WHERE id IN (SELECT value FROM json_each(?))"
        " RETURNING id",
        (tx.ts, dump(list(ids))),
    ).fetchall()
    tx.bulk += len(rows)
    return [row[0] for row in rows]


def unregister(
    tx: Transaction,
    whys: Mapping[str, str],
    alerts: Iterable[NewAlert] = (),
    targets: Iterable[str] = (),
) -> list[str]:
    """Forget agents, for reasons that are empty if somebody wanted it; return who was there."""
    rows = tx.db.execute(
        "DELETE FROM externals WHERE id IN (SELECT value FROM json_each(?)) RETURNING id",
        (dump(list(whys)),),
    ).fetchall()
    gone = sorted(row[0] for row in rows)
    for name in gone:
        why = {"why": whys[name]} if whys[name] else {}
        tx.event(EventType.AGENT_UNREGISTERED, data={"agentId": name} | why)
    raise_alerts(tx, [alert for alert in alerts if alert.subject in gone], targets)
    return gone


async def read_externals(rows: Rows) -> list[External]:
    """Return the registered agents, as they were registered."""
    return [_external(row) for row in await rows(f"SELECT {_ROW} FROM externals ORDER BY id")]


async def read_external_rows(rows: Rows) -> list[ExternalRow]:
    """Return the registered agents for a screen, in alphabetical order."""
    return [_row(row) for row in await rows(f"SELECT {_ROW} FROM externals ORDER BY id")]


def _external(row: tuple[Any, ...]) -> External:
    name, kind, pid, started, tmux, meta, _, _, tmux_id, tmux_pid, tmux_started = row
    process = ProcessId(pid, started) if pid is not None else None
    place = TmuxPlace(tmux_id, ProcessId(tmux_pid, tmux_started)) if tmux_id is not None else None
    return External(name, kind, process, tmux, json.loads(meta), place)


def _row(row: tuple[Any, ...]) -> ExternalRow:
    name, kind, pid, _, tmux, meta, registered_at, beat_at = row[:8]
    at, beaten = from_iso(registered_at), from_iso(beat_at)
    return ExternalRow(name, kind, pid, tmux, json.loads(meta), at, beaten)
