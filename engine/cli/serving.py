"""`agentmux serve`: the engine over HTTP, without workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from engine.api import load_serving
from engine.cli.render import say
from engine.cli.session import existing_engine
from engine.cli.signals import Signals

if TYPE_CHECKING:
    import argparse


async def serve(args: argparse.Namespace) -> int:
    """`serve`: until a signal asks it to end; 0 then."""
    serving = load_serving()
    with Signals() as signals:
        async with existing_engine(args.state_dir, read_only=False, keeps_services=True) as engine:
            given = {"host": args.host, "port": args.port}
            settings = replace(
                engine.config.api, **{name: one for name, one in given.items() if one is not None}
            )
            api = await engine.attach(serving.served(engine, settings))
            say(f"{api.url}\ntoken: {api.token}")
            await signals.wait()
    return 0
