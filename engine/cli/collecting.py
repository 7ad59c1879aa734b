"""The command that removes: gc. What may go is decided in engine.care.gc."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from engine import receipts
from engine.care import gc
from engine.cli.asking import agreed
from engine.cli.progress import busy_if_slow
from engine.cli.render import complain, say, say_json
from engine.cli.session import existing_engine
from engine.cli.signals import interruptible, told_if_interrupted
from engine.model import to_json
from engine.text import age, in_bytes, plural

if TYPE_CHECKING:
    import argparse

_REST = "interrupted: what was not removed yet stays; `agentmux gc` again removes the rest"


@interruptible
async def collect(args: argparse.Namespace) -> int:
    """`gc`: plan, ask, remove; exit 1 if something could not be removed."""
    async with existing_engine(args.state_dir, read_only=args.dry_run) as engine:
        with busy_if_slow("looking for what is old"):
            now = engine.clock.now()
            plan = await asyncio.to_thread(gc.plan, engine.layout, args.older_than, now)
        counts = gc.Collected(
            runs=len(plan.runs),
            folders=len(plan.emptied),
            logs=len(plan.logs),
            events=plan.events,
            bodies=len(plan.bodies),
            bytes=plan.bytes,
        )
        sentence = in_words(counts)
        empty = plan.is_empty
        if args.dry_run or empty:
            if args.json:
                say_json(_as_json(plan, counts, dry_run=args.dry_run))
                return 0
            nothing = f"nothing that may go is older than {age(args.older_than.total_seconds())}"
            say(nothing if empty else f"a dry run, nothing was changed; it would remove {sentence}")
            _say_kept(plan)
            return 0
        kept = [*plan.kept, gc.UNTOUCHED]
        if not args.yes and not await agreed(f"remove {sentence}", kept, f"{sentence} removed"):
            return 1
        with busy_if_slow(f"removing {sentence}"), told_if_interrupted(_REST):
            collected = await gc.carry_out(plan, engine.forget)
    if args.json:
        say_json(_as_json(plan, collected, dry_run=False))
    else:
        say(f"removed {in_words(collected)}")
        _say_kept(plan)
    for code, refusal in receipts.refusal_lines(collected.refused):
        complain(code, refusal)
    return 1 if collected.refused else 0


def in_words(what: gc.Collected) -> str:
    """Say how much it is."""
    parts = [f"the artifacts of {plural(what.runs, 'run')}"] if what.runs else []
    if what.logs or what.events:
        parts.append(f"{plural(what.logs, 'rotated log')} with {plural(what.events, 'event')}")
    if what.bodies:
        parts.append(f"what {plural(what.bodies, 'alert')} told")
    return f"{' and '.join(parts) or 'empty folders'} ({in_bytes(what.bytes)})"


def _say_kept(plan: gc.Plan) -> None:
    for sentence in plan.kept:
        say(sentence)
    say(gc.UNTOUCHED)


def _as_json(plan: gc.Plan, counts: gc.Collected, *, dry_run: bool) -> dict[str, object]:
    return {"dryRun": dry_run, **to_json(counts), "kept": list(plan.kept)}
