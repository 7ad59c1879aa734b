"""The commands that hold workers or services: run, up, worker. All end gracefully when asked to."""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from engine import receipts
from engine.cli import logs, steering, tables
from engine.cli.progress import NAMED, busy, live_progress
from engine.cli.render import Column, hint, print_table, say
from engine.cli.session import first_seed, opened_engine
from engine.cli.signals import Signals
from engine.clock import SystemClock
from engine.config import load_config, settings_file
from engine.config.services import NO_SERVICES
from engine.errors import AgentmuxError, StorageError, ValidationError
from engine.files import Layout
from engine.filters import Filter, state_terms
from engine.model import ALL_AGENTS, HoldCause, ServiceState, State
from engine.narrate import describe_spending, how_lifted
from engine.text import duration, plural
from engine.views import IN_FILE

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Coroutine

    from engine.commands import Command
    from engine.core import Engine
    from engine.views import HoldRow, Progress, TaskRow

_LOGS = "`agentmux services logs NAME` prints what it has to say"
LISTED = 20
"""Unfinished tasks of one state that the summary names; more are only counted."""
_UNFINISHED = (
    Column("", least=1),
    Column("task", yields=1, least=12),
    Column("state"),
    Column("why", yields=2, least=16, sentence=True),
)


async def run(args: argparse.Namespace) -> int:
    """`run`: seed, work until nothing more can run, sum up; 0 only if all tasks are DONE."""
    with Signals() as signals:
        command = await first_seed(args.state_dir, args.dag)
        async with opened_engine(args.state_dir) as engine:
            return await _work(engine, command, args, signals)


async def up(args: argparse.Namespace) -> int:
    """`up`: start services and wait until they are ready; with a DAG, then what `run` does."""
    with Signals() as signals:
        # Looked at before a store is made, so that none is left in a folder that is the wrong one.
        settings = settings_file(Path.cwd(), args.state_dir)
        if not (await asyncio.to_thread(load_config, settings)).services:
            raise ValidationError(NO_SERVICES)
        command = None if args.dag is None else await first_seed(args.state_dir, args.dag)
        async with (
            opened_engine(args.state_dir, keeps_services=True) as engine,
            _services(engine),
        ):
            not_ready: list[str] = []

            async def ready() -> None:
                not_ready.extend(await engine.keeper.until_ready())

            await _first(ready(), signals.wait(), within=None)
            if not_ready:
                raise StorageError(f"not ready: {', '.join(not_ready)}; {_LOGS}")
            if signals.first is None and command is not None:
                return await _work(engine, command, args, signals)
            await signals.wait()
    return 128 + signals.first if signals.first is not None else 0


@asynccontextmanager
async def _services(engine: Engine) -> AsyncIterator[None]:
    """Keep all services, from their start to their end, and say on stderr how they stand."""
    said: dict[str, str] = {}

    async def look() -> None:
        for row in await engine.queries.services():
            words = f"{row.state}: {row.message}" if row.message else str(row.state)
            if said.get(row.name, str(ServiceState.STOPPED)) != words:
                said[row.name] = words
                hint(f"{row.name}: {words}")

    async def tell() -> None:
        async for _ in engine.changes():
            await look()

    await engine.keeper.open()
    engine.keeper.start()
    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        await engine.stop_services()
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        with suppress(AgentmuxError):
            await look()


async def _work(
    engine: Engine, command: Command, args: argparse.Namespace, signals: Signals
) -> int:
    """Seed, work until nothing more can run, and sum up; return the exit code."""
    clock = SystemClock()
    timed_out = False
    with busy("seeding") as through:
        receipt = await engine.execute(command, on_step=through)
    for line in receipts.need_lines(receipt):
        hint(line)
    began = clock.monotonic()
    try:
        if signals.first is None:
            await engine.start_workers(args.workers)
            logs.tell(engine.notices)
        async with live_progress(engine):
            timed_out = not await _first(
                engine.settled(),
                engine.wait_workers(),
                signals.wait(),
                within=args.timeout,
            )
    finally:
        if signals.first is not None:
            await _tell_of_stopping(engine)
        await engine.stop_workers()
    took = clock.monotonic() - began
    progress = await engine.queries.progress()
    holds = await engine.queries.holds()
    left = [
        (state, await engine.queries.tasks(_in(state), limit=LISTED, order=IN_FILE))
        for state in (State.FAILED, State.BLOCKED, State.CANCELLED)
    ]
    how = "timed out" if timed_out else "interrupted" if signals.first else ""
    why = _cut_short(progress, holds) if holds or not how else ""
    _sum_up(progress, left, took, "; ".join(filter(None, (how, why))))
    if signals.first is not None:
        return 128 + signals.first
    return 0 if progress.by_state.get(State.DONE, 0) == progress.total and not timed_out else 1


async def _tell_of_stopping(engine: Engine) -> None:
    """Say what is waited for after Ctrl+C: an agent has some seconds to end."""
    own = engine.own_workers()
    with suppress(AgentmuxError):
        workers = await engine.queries.workers()
        tasks = [one.task_id for one in workers if one.id in own and one.task_id is not None]
        if tasks:
            runs = plural(len(tasks), "run")
            hint(f"stopping; waits for {runs} to end: {receipts.listed(tasks, NAMED)}")


async def worker(args: argparse.Namespace) -> int:
    """`worker`: claim and run until asked to stop, or until idle; 0 after a graceful stop."""
    if args.stop:
        return await steering.stop_worker(args)
    new = not Layout(args.state_dir).database.exists()
    logs.tell_of_work()
    with Signals() as signals:
        async with opened_engine(args.state_dir) as engine:
            if new:
                hint(f"a new store in {args.state_dir}: fill it with `agentmux tasks seed DAG`")
            name = await engine.start_worker(
                args.agent, args.worker_id, until_idle=args.until_idle, own_process=True
            )
            logs.tell(engine.notices)
            if sys.stderr.isatty():
                hint(f"{name} works for {args.agent}; Ctrl+C stops it gracefully")
            try:
                await _first(engine.wait_workers(), signals.wait(), within=None)
            finally:
                await engine.stop_workers()
    return 0


async def _first(*works: Coroutine[None, None, None], within: float | None) -> bool:
    """Wait until one of `works` is over, and raise its error; cancel the others.

    Return False if none was within so many seconds.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
    return bool(done)


def _in(state: State) -> Filter:
    return Filter(state_terms(state))


def _cut_short(progress: Progress, holds: list[HoldRow]) -> str:
    """Say what to do if tasks are left that could have run; empty if there are none."""
    if not progress.by_state.get(State.READY, 0):
        return ""
    if not holds:
        return "its workers were stopped from elsewhere; run again to go on"
    if any(hold.agent == ALL_AGENTS for hold in holds):
        return "claims are held: `agentmux resume`, or await the reset that holds them; run again"
    return "; ".join(map(_held, holds))


def _held(hold: HoldRow) -> str:
    claims = f"claims of {hold.agent} are held"
    if hold.cause is HoldCause.OPERATOR:
        return f"{claims}: `agentmux resume {hold.agent}`, then run again"
    return f"{claims}, {hold.reason}: {how_lifted(hold.cause, hold.agent)}, then run again"


def _sum_up(
    progress: Progress, left: list[tuple[State, list[TaskRow]]], took: float, ended: str
) -> None:
    now = SystemClock().now()
    numbers = {"waiting": progress.waiting, "ready": progress.ready}
    numbers |= {
        state.lower(): progress.by_state.get(state, 0) for state in State if state != State.READY
    }
    counts = [f"{count:,} {word}" for word, count in numbers.items() if count]
    tail = f" ({ended})" if ended else ""
    say(
        f"{plural(progress.total, 'task')} in {duration(took)}: {', '.join(counts) or 'none'}{tail}"
    )
    if spent := describe_spending(progress.spending):
        say(f"spent since the last reset: {spent}")
    rows = [
        (tables.mark(task, now), task.id, tables.state_word(task, now), tables.why(task, now))
        for _, tasks in left
        for task in tasks
    ]
    if rows:
        print_table(_UNFINISHED, rows)
    more = sum(progress.by_state.get(state, 0) - len(tasks) for state, tasks in left)
    if progress.by_state.get(State.FAILED, 0):
        say("`agentmux tasks retry --state failed` begins what has failed anew")
    if more > 0:
        say(f"… and {more:,} more; `agentmux tasks ls` lists them all")
