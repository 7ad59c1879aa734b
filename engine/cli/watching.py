"""`status --watch`: the fleet told line after line, for screen readers, logs and plain terminals.

A summary first, then a line for each thing that happens, by whatever process. What runs tell of
their progress is told, the latest of it, when some time has passed, and so is a summary if its
numbers have changed. Lines are only ever added: no cursor moves, and nothing that was read changes
behind the reader's back. Writes nothing, not even status.md.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from engine.cli.render import check_reader, say_json, say_raw
from engine.cli.session import existing_engine
from engine.cli.spoken import Glance, Happened, summary, summary_json
from engine.model import LIVE_WORKERS, EventType
from engine.shapes import event_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from engine.core import Engine
    from engine.model import Event

_PAUSE = 0.5
"""Seconds between two looks. What comes in a burst is told together, and can be counted."""
_PAGE = 2000


async def watch(args: argparse.Namespace) -> int:
    """`status --watch`: until Ctrl+C; with --until-done 0 once all tasks are DONE, 1 if some never
    will be.
    """  # noqa: D205 - one sentence reads better unbroken
    async with existing_engine(args.state_dir, read_only=True) as engine:
        return await _Watch(engine, args).run()


class _Watch:
    def __init__(self, engine: Engine, args: argparse.Namespace) -> None:
        self._engine = engine
        self._as_json: bool = args.json
        self._every: float = args.every
        self._until_done: bool = args.until_done
        self._last_seq = 0
        self._needs: set[str] = set()
        self._doing: dict[str | None, Event] = {}

    async def run(self) -> int:
        clock = self._engine.clock
        async with self._engine.feed.subscribe() as changed:
            self._last_seq = await self._engine.queries.last_seq()
            told = await self._glance()
            told_at = clock.monotonic()
            self._tell(told)
            while not (self._until_done and told.over):
                await asyncio.sleep(_PAUSE)
                # A pipe tells of its end only to who writes or asks; there may be nothing to write.
                check_reader()
                moved = changed.is_set()
                changed.clear()
                due = clock.monotonic() - told_at >= self._every
                if moved or (due and self._doing):
                    await self._tell_events(doing=due)
                # Silence is no commit: a worker that went stale is seen by looking all the same.
                if not due and not (moved and self._until_done):
                    continue
                seen = await self._glance()
                if due:
                    told_at = clock.monotonic()
                if seen.counts != told.counts and (due or seen.over):
                    await self._tell_events()
                    self._tell(seen)
                    told = seen
        return 0 if told.succeeded else 1

    async def _glance(self) -> Glance:
        engine = self._engine
        workers = await engine.queries.workers()
        return Glance(
            at=engine.clock.now(),
            progress=await engine.queries.progress(),
            workers=[one for one in workers if one.status in LIVE_WORKERS],
            needs=await engine.attention(),
            stale_after=engine.config.stale_after,
        )

    def _tell(self, glance: Glance) -> None:
        if self._as_json:
            say_json({"summary": summary_json(glance)})
        else:
            say_raw("\n".join(summary(glance, self._needs)))
            self._needs = {need.key for need in glance.needs}

    async def _tell_events(self, *, doing: bool = False) -> None:
        """Tell what happened; what runs do now, which may be news each second, if it is time to."""
        happened = Happened()
        while page := await self._engine.queries.events(after=self._last_seq, limit=_PAGE):
            self._last_seq = page[-1].seq
            if not self._as_json:
                happened.add(self._but_progress(page))
                continue
            for event in page:
                say_json({"event": event_json(event)})
        if doing:
            happened.add(self._doing.values())
            self._doing.clear()
        if lines := happened.lines(self._engine.clock.now()):
            say_raw("\n".join(lines))

    def _but_progress(self, events: Iterable[Event]) -> Iterator[Event]:
        """Yield the others, and keep the last word of each run until it is over."""
        for event in events:
            if event.type is EventType.TASK_PROGRESS:
                self._doing[event.run_id] = event
            else:
                self._doing.pop(event.run_id, None)
                yield event
