"""`agentmux services`: how they stand, their logs, and what operators want of them."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from engine.cli.render import Cell, Column, print_table, say, say_json_list
from engine.cli.session import existing_engine
from engine.cli.signals import interruptible
from engine.cli.steering import print_receipt
from engine.clock import SystemClock
from engine.commands import RestartServices, StartServices, StopServices
from engine.errors import StorageError, ValidationError
from engine.files import open_regular
from engine.model import ServiceState, to_json
from engine.narrate import service_symbol
from engine.text import age, clean_text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from datetime import datetime
    from typing import BinaryIO

    from engine.commands import OnServices
    from engine.views import ServiceRow

TABLE = (
    Column("", least=1),
    Column("service", yields=1),
    Column("state"),
    Column("for", right=True, drops=2),
    Column("pid", right=True, drops=4),
    Column("port", right=True, drops=3),
    Column("restarts", right=True, drops=5),
    Column("recovery", drops=6),
    Column("why", yields=4, least=16, sentence=True),
)
_STYLES = {
    ServiceState.READY: "good",
    ServiceState.STARTING: "accent",
    ServiceState.RECOVERING: "accent",
    ServiceState.UNHEALTHY: "bad",
    ServiceState.FAILED: "bad",
}
_POLL = 0.25
_BLOCK = 1 << 16


async def list_services(args: argparse.Namespace) -> int:
    """`services ls`."""
    async with existing_engine(args.state_dir, read_only=True) as engine:
        services = await engine.queries.services()
    if args.json:
        say_json_list(map(to_json, services))
    elif services:
        now = SystemClock().now()
        print_table(TABLE, [_row(service, now) for service in services])
    else:
        say("no services; `services:` in agentmux.yaml names them, `agentmux up` starts them")
    return 0


@interruptible
async def start(args: argparse.Namespace) -> int:
    """`services start`."""
    return await _order(args, StartServices)


@interruptible
async def stop(args: argparse.Namespace) -> int:
    """`services stop`."""
    return await _order(args, StopServices)


@interruptible
async def restart(args: argparse.Namespace) -> int:
    """`services restart`."""
    return await _order(args, RestartServices)


async def _order(
    args: argparse.Namespace, command: Callable[[tuple[str, ...] | None], OnServices]
) -> int:
    order = command(tuple(dict.fromkeys(args.services)) or None)
    async with existing_engine(args.state_dir, read_only=False) as engine:
        receipt = await engine.execute(order, dry_run=args.dry_run)
    return print_receipt(order, receipt, as_json=args.json)


@interruptible
async def logs(args: argparse.Namespace) -> int:
    """`services logs`: what a service has printed, with what was done to it."""
    async with existing_engine(args.state_dir, read_only=True) as engine:
        path = engine.layout.service_log(args.service)
        known = {*engine.config.services, *(row.name for row in await engine.queries.services())}
    try:
        file = open_regular(path)
    except FileNotFoundError as error:
        if args.service not in known:
            raise ValidationError(
                f"there is no service {args.service!r}; `agentmux services ls` lists them"
            ) from error
        raise StorageError(
            f"service {args.service!r} was never started; `agentmux up` starts it"
        ) from error
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error
    with file:
        await _print(file, follow=args.follow)
    return 0


async def _print(file: BinaryIO, *, follow: bool) -> None:
    rest = b""
    while True:
        while block := file.read(_BLOCK):
            *lines, rest = (rest + block).split(b"\n")
            sys.stdout.writelines(f"{_clean(line)}\n" for line in lines)
        if not follow:
            break
        sys.stdout.flush()
        await asyncio.sleep(_POLL)
    if rest:
        sys.stdout.write(f"{_clean(rest)}\n")


def _clean(line: bytes) -> str:
    return clean_text(line.decode(errors="replace")).rstrip()


def _row(service: ServiceRow, now: datetime) -> tuple[Cell | str, ...]:
    symbol, style = service_symbol(service.state), _STYLES.get(service.state, "dim")
    kept = service.keeper is not None
    message = service.message
    if not kept and service.state not in {ServiceState.STOPPED, ServiceState.FAILED}:
        symbol, style, message = "?", "stale", "nobody keeps it any more; `agentmux up` does"
    return (
        Cell(symbol, style),
        service.name,
        Cell(service.state.value, style),
        age((now - service.since).total_seconds()),
        "" if service.pid is None else str(service.pid),
        "" if service.port is None else str(service.port),
        str(service.restarts) if service.restarts else "",
        service.recovery,
        message,
    )
