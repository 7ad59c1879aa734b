"""Services in the store: how they stand, who keeps them, what operators ask of them.

Whatever takes a transaction is called inside one, on the writer's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.clock import from_iso
from engine.model import EventType, ProcessId, ServiceState
from engine.store.alerts import raise_alerts
from engine.store.transaction import dump
from engine.views import ServiceRow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from engine.model import NewAlert
    from engine.store.transaction import Transaction

    Rows = Callable[..., Awaitable[list[Any]]]

START, STOP, RESTART = "start", "stop", "restart"
"""What operators ask."""

_ROW = "name, state, since, message, port, pid, restarts, recovery, keeper_pid, keeper_started"


class Standing(Struct, frozen=True):
    """How a service stands, as its keeper tells it. `leader`: of its processes, if there are any;
    `run_id` is in their tag.
    """  # noqa: D205 - one sentence reads better unbroken

    state: ServiceState
    message: str = ""
    run_id: str | None = None
    leader: ProcessId | None = None
    restarts: int = 0
    recovery: str = ""


class KnownService(Struct, frozen=True):
    """What the store knows of a service: its processes, and who keeps it."""

    name: str
    state: ServiceState
    run_id: str | None
    leader: ProcessId | None
    keeper: ProcessId | None


def enter(tx: Transaction, ports: Mapping[str, int | None], keeper: ProcessId) -> None:
    """Note who keeps which services from now on; what is none any more is forgotten."""
    tx.db.executemany(
        "INSERT INTO services(name, state, since, port, keeper_pid, keeper_started)"
        " VALUES (?1, 'stopped', ?2, ?3, ?4, ?5) ON CONFLICT(name) DO UPDATE SET port = ?3,"
        " asked = NULL, keeper_pid = ?4, keeper_started = ?5",
        ((name, tx.ts, port, keeper.pid, keeper.started) for name, port in ports.items()),
    )
    tx.db.execute(
        "DELETE FROM services WHERE name NOT IN (SELECT value FROM json_each(?))",
        (dump(list(ports)),),
    )
    tx.bulk += len(ports)


def stand(
    tx: Transaction,
    name: str,
    standing: Standing,
    alerts: Iterable[NewAlert],
    targets: Iterable[str],
) -> None:
    """Note how a service stands now, with its event, and raise alerts over it."""
    before = tx.db.execute("SELECT state, message FROM services WHERE name = ?", (name,)).fetchone()
    if before is None:
        return  # it left the settings
    leader = standing.leader
    changed = before != (standing.state, standing.message)
    tx.db.execute(
        "UPDATE services SET state = ?, since = iif(state = ?1, since, ?), message = ?,"
        " run_id = ?, pid = ?, pid_started = ?, restarts = ?, recovery = ? WHERE name = ?",
        (
            *(standing.state, tx.ts, standing.message, standing.run_id),
            *((leader.pid, leader.started) if leader is not None else (None, None)),
            *(standing.restarts, standing.recovery, name),
        ),
    )
    if changed:
        data = {"service": name, "serviceState": standing.state}
        tx.event(
            EventType.SERVICE,
            data=data | ({"message": standing.message} if standing.message else {}),
        )
    raise_alerts(tx, alerts, targets)


def ask(tx: Transaction, names: Iterable[str], what: str) -> list[str]:
    """Note what an operator wants of services; return those that there are."""
    rows = tx.db.execute(
        "UPDATE services SET asked = ? WHERE name IN (SELECT value FROM json_each(?))"
        " RETURNING name",
        (what, dump(list(names))),
    ).fetchall()
    tx.bulk += len(rows)
    return sorted(row[0] for row in rows)


def obey(tx: Transaction, names: Iterable[str], what: str) -> None:
    """Note that what was asked is being done, unless something else was asked since."""
    tx.db.execute(
        "UPDATE services SET asked = NULL WHERE asked = ? AND name IN"
        " (SELECT value FROM json_each(?))",
        (what, dump(list(names))),
    )
    tx.bulk += 1


async def read_services(rows: Rows, is_alive: Callable[[ProcessId], bool]) -> list[ServiceRow]:
    """Return all services that a keeper has entered, in alphabetical order."""
    found = await rows(f"SELECT {_ROW} FROM services ORDER BY name")
    return [_row(row, is_alive) for row in found]


def _row(row: tuple[Any, ...], is_alive: Callable[[ProcessId], bool]) -> ServiceRow:
    name, state, since, message, port, pid, restarts, recovery, keeper, keeper_started = row
    kept = keeper is not None and is_alive(ProcessId(keeper, keeper_started))
    return ServiceRow(
        name=name,
        state=ServiceState(state),
        since=from_iso(since),
        message=message,
        port=port,
        pid=pid,
        restarts=restarts,
        recovery=recovery,
        keeper=keeper if kept else None,
    )


async def read_asked(rows: Rows) -> dict[str, str]:
    """Return what operators want of services and nobody has begun to do."""
    return dict(await rows("SELECT name, asked FROM services WHERE asked IS NOT NULL"))


async def read_known(rows: Rows) -> list[KnownService]:
    """Return what is known of the processes of services, and who keeps them."""
    found = await rows(
        "SELECT name, state, run_id, pid, pid_started, keeper_pid, keeper_started FROM services"
    )
    return [
        KnownService(
            name,
            ServiceState(state),
            run_id,
            ProcessId(pid, started) if pid is not None else None,
            ProcessId(keeper, keeper_started) if keeper is not None else None,
        )
        for name, state, run_id, pid, started, keeper, keeper_started in found
    ]
