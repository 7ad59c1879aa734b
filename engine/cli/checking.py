"""The command that checks: doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.cli.render import say, say_json_list
from engine.cli.session import existing_engine
from engine.inspection import inspect
from engine.model import to_json

if TYPE_CHECKING:
    import argparse


async def doctor(args: argparse.Namespace) -> int:
    """`doctor`: exit 1 for an inconsistency, never for a note."""
    async with existing_engine(args.state_dir, read_only=True) as engine:
        findings = await inspect(engine.layout, engine.queries)
    if args.json:
        say_json_list(to_json(finding) for finding in findings)
    else:
        for finding in findings:
            say(f"{finding.level}: {finding.check}: {finding.message}")
    errors = sum(finding.level == "error" for finding in findings)
    if not args.json and not errors:
        say("no inconsistency found")
    return 1 if errors else 0
