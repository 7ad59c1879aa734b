"""`agentmux alerts`: what was noticed, and that somebody has seen it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.cli.render import Cell, Column, print_table, say, say_json, say_json_list, say_raw
from engine.cli.session import existing_engine
from engine.cli.signals import interruptible
from engine.cli.steering import print_receipt
from engine.clock import SystemClock
from engine.commands import Acknowledge
from engine.errors import ValidationError
from engine.model import to_json
from engine.orders.control import NO_ALERT
from engine.shapes import alert_json
from engine.text import age

if TYPE_CHECKING:
    import argparse
    from datetime import datetime

    from engine.views import AlertRow

TABLE = (
    Column("", least=1),
    Column("alert", right=True),
    Column("age", right=True),
    Column("kind", drops=2),
    Column("lines", right=True, drops=3),
    Column("what", yields=4, least=16, sentence=True),
    Column("not delivered", yields=2, drops=1, sentence=True),
)
_MOST = 1000


async def list_alerts(args: argparse.Namespace) -> int:
    """`alerts ls`: those that nobody has acknowledged, or all."""
    async with existing_engine(args.state_dir, read_only=True) as engine:
        alerts = await engine.queries.alerts(_MOST, every=args.all)
    if args.json:
        say_json_list(map(to_json, alerts))
    elif alerts:
        now = SystemClock().now()
        print_table(TABLE, [_row(alert, now) for alert in alerts])
    else:
        say("no alerts" if args.all else "no alert that nobody has acknowledged; --all lists all")
    return 0


async def show(args: argparse.Namespace) -> int:
    """`alerts show`: all that an alert tells."""
    async with existing_engine(args.state_dir, read_only=True) as engine:
        alert = await engine.queries.alert(args.alert)
        text = await engine.alert_text(args.alert)
    if alert is None:
        raise ValidationError(f"alert {args.alert}: {NO_ALERT}")
    told = alert_json(alert, text)
    if args.json:
        say_json(told)
    else:
        say_raw(told["text"])
    return 0


@interruptible
async def acknowledge(args: argparse.Namespace) -> int:
    """`alerts ack`: take alerts off the list of what needs a person."""
    command = Acknowledge(None if args.all else tuple(dict.fromkeys(args.alerts)))
    async with existing_engine(args.state_dir, read_only=False) as engine:
        receipt = await engine.execute(command)
    return print_receipt(command, receipt, as_json=args.json)


def _row(alert: AlertRow, now: datetime) -> tuple[Cell | str, ...]:
    is_over = alert.acknowledged_at is not None
    style = "dim" if is_over else "bad" if alert.error else "human"
    why = "; ".join(f"{target}: {error}" for target, error in alert.undelivered.items())
    return (
        Cell("✓" if is_over else "▲", style),
        str(alert.id),
        age((now - alert.ts).total_seconds()),
        alert.kind.value,
        f"{alert.count:,}",
        Cell(alert.summary, "dim" if is_over else ""),
        why,
    )
