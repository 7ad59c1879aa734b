"""The commands that ask: tasks seed / cancel / release / retry / kill / purge, unlock, stop, kill,
hold, resume, reset, worker --stop.

Each turns its arguments into a command of the engine and prints the receipt. What cannot be undone
(cancel, kill, purge, reset, `--all`), and what is for more than one task, shows its plan and asks
first; a worker that is named to stop, and a single task that is released or retried, are not worth
a question.
"""  # noqa: D205

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from engine import receipts
from engine.cli.asking import agreed
from engine.cli.progress import busy, busy_if_slow, steps
from engine.cli.reading import selection
from engine.cli.render import complain, hint, say, say_json
from engine.cli.session import existing_engine, first_seed, seeding_engine
from engine.cli.signals import interruptible, told_if_interrupted
from engine.commands import (
    GIVEN_UP,
    Cancel,
    Hold,
    Kill,
    KillWorkers,
    Purge,
    Receipt,
    Release,
    Reset,
    Resume,
    Retry,
    Stop,
)
from engine.errors import TaskNotFound, WorkerNotFound
from engine.model import ALL_AGENTS, EventType
from engine.shapes import receipt_json
from engine.text import plural

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    from engine.commands import Command, OnStep, Step, Tasks
    from engine.core import Engine
    from engine.filters import Filter

_UNKNOWN = (
    "interrupted: nobody waits any more, but what was ordered may be done or go on by itself; "
    "`agentmux events` shows what happened"
)
_RESET = "interrupted, but too late: the reset is complete"
_NO_RESET = "interrupted: nothing was reset"


@interruptible
async def seed(args: argparse.Namespace) -> int:
    """`tasks seed`."""
    command = await first_seed(args.state_dir, args.dag)
    async with seeding_engine(args.state_dir, dry_run=args.dry_run) as engine:
        with busy("seeding") as through, told_if_interrupted(_UNKNOWN):
            receipt = await engine.execute(command, dry_run=args.dry_run, on_step=through)
    return print_receipt(command, receipt, as_json=args.json, list_done=args.dry_run)


@interruptible
async def cancel(args: argparse.Namespace) -> int:
    """`tasks cancel`."""
    return await _on_tasks(args, Cancel, "cancel", asks=True)


@interruptible
async def release(args: argparse.Namespace) -> int:
    """`tasks release` and `unlock`."""
    return await _on_tasks(args, Release, "release")


@interruptible
async def retry(args: argparse.Namespace) -> int:
    """`tasks retry`; what is downstream of a task are more tasks."""
    command = partial(Retry, downstream=args.downstream)
    return await _on_tasks(args, command, "retry", asks=args.downstream)


@interruptible
async def kill(args: argparse.Namespace) -> int:
    """`tasks kill`."""
    return await _on_tasks(args, partial(Kill, force=args.force), "kill", asks=True)


@interruptible
async def purge(args: argparse.Namespace) -> int:
    """`tasks purge`."""
    return await _on_tasks(args, Purge, "purge", asks=True)


@interruptible
async def stop(args: argparse.Namespace) -> int:
    """`stop`: workers by id, or all."""
    command = Stop(None if args.all else tuple(args.workers), drain=args.drain)
    return await _on_workers(args, command, "stop", asks=args.all)


@interruptible
async def kill_workers(args: argparse.Namespace) -> int:
    """`kill`: workers by id, or all."""
    command = KillWorkers(None if args.all else tuple(args.workers), force=args.force)
    return await _on_workers(args, command, "kill", asks=True)


@interruptible
async def hold(args: argparse.Namespace) -> int:
    """`hold`: no new claims."""
    command = Hold(args.agent)
    async with existing_engine(args.state_dir, read_only=False) as engine:
        receipt = await engine.execute(command, dry_run=args.dry_run)
        known = await engine.queries.agent_counts()
    if args.agent != ALL_AGENTS and args.agent not in known:
        agents = receipts.listed(list(known), receipts.LISTED) or "there is none"
        hint(f"no task is for an agent {args.agent!r}; those of the tasks: {agents}")
    return print_receipt(command, receipt, as_json=args.json)


@interruptible
async def resume(args: argparse.Namespace) -> int:
    """`resume`: claims again."""
    command = Resume(args.agent)
    async with existing_engine(args.state_dir, read_only=False) as engine:
        receipt = await engine.execute(command, dry_run=args.dry_run)
        held = (await engine.queries.progress()).held
    if args.agent != ALL_AGENTS and ALL_AGENTS in held:
        hint("the claims of all agents are held all the same; `agentmux resume` lifts that")
    return print_receipt(command, receipt, as_json=args.json)


@interruptible
async def reset(args: argparse.Namespace) -> int:
    """`reset`: shows who is still alive and what comes next while it waits."""
    command = Reset(args.dag, force=args.force, timeout=args.timeout, fresh=args.fresh)
    async with existing_engine(args.state_dir, read_only=False) as engine:
        if args.dry_run or not args.yes:
            planned = await engine.execute(command, dry_run=True)
            if args.dry_run:
                return print_receipt(command, planned, as_json=args.json)
            if not await _agreed(command, planned, "reset"):
                return 1
        with steps(pipes=True) as tell:
            receipt = await _carry_out(engine, command, tell)
    return print_receipt(command, receipt, as_json=args.json)


async def stop_worker(args: argparse.Namespace) -> int:
    """`worker --stop`: ask one live worker and wait until it has ended."""
    command = Stop((args.worker_id,))
    async with existing_engine(args.state_dir, read_only=False) as engine:
        workers = await engine.queries.workers()
        if not any(
            one.id == args.worker_id and one.agent == args.agent and one.alive for one in workers
        ):
            raise WorkerNotFound(
                f"no live worker {args.worker_id!r} of agent {args.agent!r}; "
                "`agentmux ps` lists them"
            )
        receipt = await engine.execute(command)
    return print_receipt(command, receipt)


def print_receipt(
    command: Command, receipt: Receipt, *, as_json: bool = False, list_done: bool = True
) -> int:
    """Print what was done; refusals go to stderr, each with its code. Return the exit code."""
    if as_json:
        say_json(receipt_json(receipt))
    else:
        if receipt.dry_run:
            say("a dry run, nothing was changed; it would be:")
        for line in receipts.done_lines(receipt) if list_done else ():
            say(line)
        total = receipts.plan(command, receipt) if receipt.dry_run else receipts.sums(receipt)
        if total:
            say(total)
        if not list_done or len(receipt.done) > receipts.LISTED:
            for line in receipts.need_lines(receipt):
                say(line)
    for code, sentence in receipts.refusal_lines(receipt.refused):
        complain(code, sentence)
    return 1 if receipt.refused else 0


async def _on_tasks(
    args: argparse.Namespace, command: Callable[[Tasks], Command], verb: str, *, asks: bool = False
) -> int:
    chosen = selection(args)
    named = tuple(dict.fromkeys(args.ids))
    async with existing_engine(args.state_dir, read_only=False) as engine:

        async def order() -> Command:
            # What a filter finds is decided when it is carried out: it may have changed since.
            if not named:
                return command(chosen)
            return command(await _matching(engine, named, chosen) if chosen else named)

        return await ordered(
            engine,
            args,
            order,
            lambda count: f"{verb} {plural(count, 'task')}",
            asks=asks or bool(chosen) or len(named) > 1,
            nothing="no task matches",
        )


async def _on_workers(args: argparse.Namespace, command: Command, verb: str, *, asks: bool) -> int:
    async with existing_engine(args.state_dir, read_only=False) as engine:

        async def order() -> Command:
            return command

        return await ordered(
            engine,
            args,
            order,
            lambda count: f"{verb} {plural(count, 'worker')}",
            asks=asks,
            nothing="no worker is live",
        )


async def ordered(
    engine: Engine,
    args: argparse.Namespace,
    order: Callable[[], Awaitable[Command]],
    what: Callable[[int], str],
    *,
    asks: bool,
    nothing: str,
) -> int:
    """Plan, ask if need be, carry out, print. `what` words it for a count of subjects."""

    def tell(receipt: Receipt) -> int:
        if receipt.done or receipt.refused or args.json:
            return print_receipt(command, receipt, as_json=args.json)
        say(nothing)
        return 0

    command = await order()
    if args.dry_run:
        return tell(await engine.execute(command, dry_run=True))
    if asks and not args.yes:
        planned = await engine.execute(command, dry_run=True)
        if not planned.done:  # there is nothing to agree to, and nothing that could be done
            return tell(replace(planned, dry_run=False))
        if not await _agreed(command, planned, what(len(planned.done))):
            return 1
        command = await order()
    with busy_if_slow("waiting for processes to end") as on_step:
        receipt = await _carry_out(engine, command, on_step)
    return tell(receipt)


async def _agreed(command: Command, planned: Receipt, what: str) -> bool:
    return await agreed(what, receipts.done_lines(planned), receipts.plan(command, planned))


async def _carry_out(engine: Engine, command: Command, on_step: OnStep) -> Receipt:
    """Execute a command; if it is cut short, say how things stand then."""
    seen = await engine.queries.last_seq()
    stands = "claims go on"

    def through(step: Step) -> None:
        nonlocal stands
        if step.what == GIVEN_UP:
            stands = step.next
        else:
            on_step(step)

    try:
        return await engine.execute(command, on_step=through)
    except asyncio.CancelledError:
        sentence = _UNKNOWN
        if isinstance(command, Reset):
            since = await engine.queries.events(after=seen)
            complete = any(event.type is EventType.RESET for event in since)
            sentence = _RESET if complete else f"{_NO_RESET}; {stands}"
        hint(sentence)
        raise


async def _matching(engine: Engine, named: tuple[str, ...], chosen: Filter) -> tuple[str, ...]:
    """Return those of the tasks that a filter finds, and those that are none: they are refused."""
    found = set(await engine.queries.task_ids(chosen))
    return tuple([one for one in named if one in found or not await _exists(engine, one)])


async def _exists(engine: Engine, task_id: str) -> bool:
    try:
        await engine.queries.task(task_id)
    except TaskNotFound:
        return False
    return True
