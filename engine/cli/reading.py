"""The commands that only look: ps, tasks ls / show, explain, history, events, status."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

from engine.branches import branches_of
from engine.cli import report, tables
from engine.cli.render import (
    check_reader,
    heading,
    print_table,
    say,
    say_json,
    say_json_list,
    say_raw,
    use_colour,
)
from engine.cli.session import existing_engine
from engine.clock import SystemClock
from engine.files import write_private
from engine.filters import Filter, likely_meant, state_terms, task_filter
from engine.model import LIVE_WORKERS, to_json
from engine.shapes import as_json, detail_json, event_json, worker_json
from engine.text import clean_text
from engine.views import IN_FILE

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from engine.core import Engine
    from engine.model import Event

_READER_CHECK = 0.5
PAGE = 2000
"""Events read at a time: the log may be longer than memory should be."""


async def list_tasks(args: argparse.Namespace) -> int:
    """`tasks ls`."""
    where = selection(args, " ".join(args.words))
    async with existing_engine(args.state_dir, read_only=True) as engine:
        tasks = await engine.queries.tasks(where, order=IN_FILE)
        held = () if args.json else (await engine.queries.progress()).held
    if args.json:
        say_json_list(to_json(task) for task in tasks)
    elif tasks:
        print_table(tables.TASKS, tables.task_rows(tasks, SystemClock().now(), held))
    else:
        say(_no_task(where) if where else "no tasks; seed some with `agentmux tasks seed DAG`")
    return 0


async def show_task(args: argparse.Namespace) -> int:
    """`tasks show`."""
    async with existing_engine(args.state_dir, read_only=True) as engine:
        detail = await engine.queries.detail(args.id)
        branches = await asyncio.to_thread(branches_of, detail.runs, engine.layout)
    if args.json:
        say_json(detail_json(detail, branches))
        return 0
    now = SystemClock().now()
    for label, text in tables.definition_lines(detail, now):
        say_raw(f"{label:<10} {text}")
    if detail.explanation:
        heading("why")
        for sentence in detail.explanation:
            say_raw(f"  {clean_text(sentence)}")
    if detail.runs:
        heading("runs, newest first")
        columns = tables.RUNS_OF_TASK if branches else tables.RUNS
        print_table(columns, tables.run_rows(detail.runs, now, branches or None))
    if detail.events:
        heading("events")
        _print_events(detail.events)
    return 0


async def list_workers(args: argparse.Namespace) -> int:
    """`ps`: a worker counts as live only while its process is."""
    async with existing_engine(args.state_dir, read_only=True) as engine:
        workers = await engine.queries.workers()
        stale_after = engine.config.stale_after
    shown = [worker for worker in workers if args.all or worker.alive]
    now = SystemClock().now()
    if args.json:
        say_json_list(worker_json(worker, now, stale_after) for worker in shown)
    elif shown:
        print_table(tables.WORKERS, tables.worker_rows(shown, now, stale_after))
    else:
        say("no worker is live; start one with `agentmux worker --agent A`")
    return 0


async def explain(args: argparse.Namespace) -> int:
    """`explain`: why a task is not running."""
    async with existing_engine(args.state_dir, read_only=True) as engine:
        sentences = await engine.queries.explain(args.id)
    if args.json:
        say_json({"id": args.id, "explanation": list(sentences)})
    else:
        for sentence in sentences:
            say_raw(clean_text(sentence))
    return 0


async def history(args: argparse.Namespace) -> int:
    """`history`: runs, newest first."""
    async with existing_engine(args.state_dir, read_only=True) as engine:
        runs = await engine.queries.runs(args.id, limit=args.limit)
        if args.id is not None and not runs:
            await engine.queries.detail(args.id)  # a task without runs is no error, no task is
    if args.json:
        say_json_list(to_json(run) for run in runs)
    elif runs:
        print_table(tables.RUNS, tables.run_rows(runs, SystemClock().now()))
    else:
        say("no runs yet")
    return 0


async def events(args: argparse.Namespace) -> int:
    """`events`: the log; with --follow, one JSON object a line instead of a list."""
    async with existing_engine(args.state_dir, read_only=True) as engine:
        if args.follow:
            await _follow(engine, args.since, as_lines=args.json)
        elif args.json:
            await _print_json_log(engine, args.since)
        else:
            await _print_log(engine, args.since, as_lines=False)
    return 0


async def status(args: argparse.Namespace) -> int:
    """`status`: write state/status.md and print it; with --watch tell what happens instead."""
    if args.watch:
        from engine.cli.watching import watch  # noqa: PLC0415 - the other commands start without it

        return await watch(args)
    async with existing_engine(args.state_dir, read_only=True) as engine:
        seen = await _look(engine)
        text = report.as_markdown(seen)
        write_private(engine.layout.status, text)
    if args.json:
        say_json(report.as_json(seen))
    else:
        say_raw((report.as_read(text) if sys.stdout.isatty() else text).rstrip("\n"))
    return 0


def selection(args: argparse.Namespace, words: str = "") -> Filter:
    """Return the filter that --state, --agent and words ask for together."""
    return task_filter(words, state=args.state, agent=args.agent)


def _no_task(where: Filter) -> str:
    meant = likely_meant(where)
    return f"no task matches; {clean_text(meant)}" if meant else "no task matches"


async def _look(engine: Engine) -> report.Status:
    from engine.care.health import take_health  # noqa: PLC0415 - lists start without it

    queries = engine.queries
    seen = await take_health(engine.layout, engine.project, engine.config, engine.clock)
    blocked = Filter(state_terms("blocked"))
    return report.Status(
        at=SystemClock().now(),
        progress=await queries.progress(),
        agents=await queries.agent_counts(),
        blocked=await queries.tasks(blocked, limit=report.LISTED, order=IN_FILE),
        blocked_count=await queries.count_tasks(blocked),
        workers=[one for one in await queries.workers() if one.status in LIVE_WORKERS],
        events=await queries.last_events(10),
        stale_after=engine.config.stale_after,
        spent=await queries.spent(),
        holds=await queries.holds(),
        health=seen.health,
    )


async def _print_log(engine: Engine, after: int, *, as_lines: bool) -> int:
    """Print all events after a seq, a page at a time; return the last seq printed."""
    while page := await engine.queries.events(after=after, limit=PAGE):
        if as_lines:
            for event in page:
                say_json(event_json(event))
        else:
            _print_events(page)
        after = page[-1].seq
    return after


async def _follow(engine: Engine, last: int, *, as_lines: bool) -> None:
    """Print what comes until interrupted, or until nobody reads it any more."""
    async with engine.feed.subscribe() as changed:
        while True:
            changed.clear()
            last = await _print_log(engine, last, as_lines=as_lines)
            while not changed.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_READER_CHECK):
                        await changed.wait()
                # A pipe tells of its end only to who writes or asks; there may be nothing to write.
                check_reader()


async def _print_json_log(engine: Engine, after: int) -> None:
    """Print the log as one JSON list, a page at a time."""
    lead = "[\n"
    while page := await engine.queries.events(after=after, limit=PAGE):
        say_raw(lead + ",\n".join(as_json(event_json(event)) for event in page))
        after, lead = page[-1].seq, ","
    say_raw("[]" if lead != "," else "]")


def _print_events(happened: Sequence[Event]) -> None:
    now, colour = SystemClock().now(), use_colour()
    say_raw("\n".join(tables.event_line(event, now, colour=colour) for event in happened))
