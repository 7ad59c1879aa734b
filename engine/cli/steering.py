"""The commands that ask: tasks seed / release / retry, unlock, hold, resume, worker --stop.

Each turns its arguments into a command of the engine and prints the receipt.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from engine.cli.progress import busy
from engine.cli.reading import selection
from engine.cli.render import complain, hint, say
from engine.cli.session import existing_engine, seeding_engine
from engine.commands import Hold, Receipt, Release, Resume, Retry, Seed, Stop
from engine.errors import CommandNotAllowed, ValidationError, WorkerNotFound
from engine.model import ALL_AGENTS
from engine.text import plural

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from engine.commands import Command

LISTED = 20
"""Subjects that a receipt names in print; more are only counted."""


async def seed(args: argparse.Namespace) -> int:
    """`tasks seed`."""
    async with seeding_engine(args.state_dir, dry_run=args.dry_run) as engine:
        with busy("seeding") as through:
            command = Seed(args.dag)
            receipt = await engine.execute(command, dry_run=args.dry_run, progress=through)
    return print_receipt(receipt, list_done=args.dry_run)


async def release(args: argparse.Namespace) -> int:
    """`tasks release` and `unlock`: by id, or all that a filter finds."""
    return await _on_tasks(args, Release, "release")


async def retry(args: argparse.Namespace) -> int:
    """`tasks retry`: by id, or all that a filter finds."""
    return await _on_tasks(args, Retry, "retry")


async def _on_tasks(
    args: argparse.Namespace, command: Callable[[tuple[str, ...]], Command], verb: str
) -> int:
    chosen = selection(args)
    if not args.ids and not chosen:
        raise ValidationError(f"name the tasks to {verb}, or choose them by --state or --agent")
    async with existing_engine(args.state_dir, read_only=False) as engine:
        ids: tuple[str, ...] = tuple(dict.fromkeys(args.ids))
        if chosen:
            found = {task.id for task in await engine.queries.tasks(chosen)}
            ids = tuple(one for one in ids if one in found) if ids else tuple(sorted(found))
        if not ids:
            say("no task matches")
            return 0
        if chosen and not args.dry_run and not args.yes:
            print_receipt(await engine.execute(command(ids), dry_run=True))
            if not await _agreed(verb, plural(len(ids), "task")):
                hint("nothing was changed")
                return 1
        receipt = await engine.execute(command(ids), dry_run=args.dry_run)
    return print_receipt(receipt)


async def hold(args: argparse.Namespace) -> int:
    """`hold`: no new claims."""
    return await _ask(args, Hold(args.agent))


async def resume(args: argparse.Namespace) -> int:
    """`resume`: claims again."""
    return await _ask(args, Resume(args.agent))


async def stop_worker(args: argparse.Namespace) -> int:
    """`worker --stop`: ask one live worker, which goes on by itself from there."""
    if args.worker_id is None:
        raise ValidationError("--stop needs --worker-id; `agentmux ps` lists the live workers")
    async with existing_engine(args.state_dir, read_only=False) as engine:
        workers = await engine.queries.workers()
        if not any(
            one.id == args.worker_id and one.agent == args.agent and one.alive for one in workers
        ):
            raise WorkerNotFound(
                f"no live worker {args.worker_id!r} of agent {args.agent!r}; "
                "`agentmux ps` lists them"
            )
        receipt = await engine.execute(Stop((args.worker_id,)))
    return print_receipt(receipt)


def print_receipt(receipt: Receipt, *, list_done: bool = True) -> int:
    """Print what was done; refusals go to stderr, each with its code. Return the exit code."""
    if receipt.dry_run:
        say("a dry run, nothing was changed; it would be:")
    if list_done:
        for subject, what in list(receipt.done.items())[:LISTED]:
            say(f"{'all agents' if subject == ALL_AGENTS else subject}: {what}")
        more = len(receipt.done) - LISTED
        if more > 0:
            say(f"… and {more:,} more")
    if receipt.counts:
        counts = ", ".join(f"{count:,} {word}" for word, count in receipt.counts.items())
        say(counts)
    for refusal in receipt.refused:
        complain(refusal.code, refusal.message)
    return 1 if receipt.refused else 0


async def _ask(args: argparse.Namespace, command: Command) -> int:
    async with existing_engine(args.state_dir, read_only=False) as engine:
        return print_receipt(await engine.execute(command))


async def _agreed(verb: str, subject: str) -> bool:
    if not sys.stdin.isatty():
        raise CommandNotAllowed(f"this would {verb} {subject}; say --yes to do it without asking")
    hint(f"{verb} {subject}? [y/N]")
    # Waiting on the loop and not in readline keeps Ctrl+C alive.
    answered = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, answered.set)
    try:
        await answered.wait()
    finally:
        loop.remove_reader(sys.stdin)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
