"""`agentmux agents`: agents that somebody else has started, known here all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.cli.render import Column, print_table, say, say_json_list
from engine.cli.session import existing_engine
from engine.cli.signals import interruptible
from engine.cli.steering import ordered, print_receipt
from engine.clock import SystemClock
from engine.commands import BeatAgents, RegisterAgent, UnregisterAgents
from engine.errors import ValidationError
from engine.model import External, to_json
from engine.processes.signalling import identify
from engine.text import age, plural

if TYPE_CHECKING:
    import argparse
    from datetime import datetime

    from engine.commands import OnAgents
    from engine.views import ExternalRow

TABLE = (
    Column("agent", yields=1),
    Column("type", yields=1, drops=1),
    Column("pid", right=True, drops=3),
    Column("tmux", yields=2, drops=2),
    Column("since", right=True, drops=4),
    Column("beat", right=True),
    Column("meta", yields=4, least=16, sentence=True),
)


async def list_agents(args: argparse.Namespace) -> int:
    """`agents ls`."""
    async with existing_engine(args.state_dir, read_only=True) as engine:
        agents = await engine.queries.externals()
    if args.json:
        say_json_list(map(to_json, agents))
    elif agents:
        now = SystemClock().now()
        print_table(TABLE, [_row(agent, now) for agent in agents])
    else:
        say("no agent is registered; `agentmux ps` lists the workers of the fleet")
    return 0


@interruptible
async def register(args: argparse.Namespace) -> int:
    """`agents register`."""
    process = None if args.pid is None else identify(args.pid)
    if args.pid is not None and process is None:
        raise ValidationError(f"there is no process {args.pid}")
    agent = External(args.agent, args.type, process, args.tmux, dict(args.meta))
    return await _order(args, RegisterAgent(agent), dry_run=args.dry_run)


@interruptible
async def beat(args: argparse.Namespace) -> int:
    """`agents beat`."""
    return await _order(args, BeatAgents(tuple(dict.fromkeys(args.agents))))


@interruptible
async def unregister(args: argparse.Namespace) -> int:
    """`agents unregister`; `--end` asks first."""
    command = UnregisterAgents(tuple(dict.fromkeys(args.agents)), end=args.end)

    async def order() -> UnregisterAgents:
        return command

    async with existing_engine(args.state_dir, read_only=False) as engine:
        return await ordered(
            engine,
            args,
            order,
            lambda count: f"end {plural(count, 'agent')}",
            asks=args.end,
            nothing="no agent is registered",
        )


async def _order(args: argparse.Namespace, command: OnAgents, *, dry_run: bool = False) -> int:
    async with existing_engine(args.state_dir, read_only=False) as engine:
        receipt = await engine.execute(command, dry_run=dry_run)
    return print_receipt(command, receipt, as_json=args.json)


def _row(agent: ExternalRow, now: datetime) -> tuple[str, ...]:
    return (
        agent.id,
        agent.type,
        "" if agent.pid is None else str(agent.pid),
        agent.tmux or "",
        age((now - agent.registered_at).total_seconds()),
        age((now - agent.beat_at).total_seconds()),
        " ".join(f"{key}={value}" for key, value in agent.meta.items()),
    )
