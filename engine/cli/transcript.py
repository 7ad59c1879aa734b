"""`agentmux transcript`: what the agent of a run said and did, for people and for programs."""

from __future__ import annotations

import asyncio
import shutil
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.cli.render import (
    check_reader,
    hint,
    is_terminal,
    paint,
    say_json,
    say_raw,
    use_colour,
)
from engine.cli.session import existing_engine
from engine.errors import StorageError, TaskNotFound, TaskNotReady, ValidationError
from engine.files import shown_path
from engine.growing import News, Standing
from engine.model import ACTIVE, Spending, State, to_json
from engine.narrate import describe_spending
from engine.shapes import as_json
from engine.text import clean_text, duration, plural
from engine.transcripts.rows import rows_of
from engine.transcripts.telling import WHO, Mood, tell
from engine.transcripts.transcript import LINES, Transcript, Walk, continues
from engine.views import TRANSCRIBED

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from engine.agents.summary import Summary
    from engine.agents.vocabulary import Entry
    from engine.core import Engine
    from engine.transcripts.transcript import Said
    from engine.views import RunRow

_PAUSE = 0.25
"""Seconds between two looks at a transcript that grows."""
_TIME = 10
_NARROWEST = 20
_NAMED, _LONGEST_NAME = 20, 60
"""How many tools the summary names, and the characters of a name."""
_STYLES = {
    Mood.PLAIN: ("bold", ""),
    Mood.QUIET: ("dim", "dim"),
    Mood.BUSY: ("accent", ""),
    Mood.GOOD: ("good", ""),
    Mood.BAD: ("bad", "bad"),
}
"""The colours of who speaks, and of what is said."""


class Looks(Struct, frozen=True):
    """How entries are printed: in `width` cells (None: unwrapped), all of their texts or less."""

    width: int | None = None
    colour: bool = False
    detailed: bool = False


async def transcript(args: argparse.Namespace) -> int:
    """`transcript`: until its end as it is now; with --follow until no run is to come by itself."""
    async with existing_engine(args.state_dir, read_only=True) as engine:
        run: RunRow | None = await _find_run(engine, args.task, args.run)
        while run is not None:
            seen = Transcript(engine.layout.run_folder(run.task_id, run.id))
            try:
                await _Telling(engine, run, seen, args).run()
            finally:
                await asyncio.to_thread(seen.close)
            goes_on = args.follow and args.run is None
            run = await _next_run(engine, run) if goes_on else None
    return 0


async def _find_run(engine: Engine, task_id: str, wanted: str | None) -> RunRow:
    """Return the newest run of a task, or the newest with this attempt or id.

    Raises:
        TaskNotFound, TaskNotReady, ValidationError: there is none, or there never will be.

    """
    runs = await engine.queries.runs(task_id)
    if not runs:
        detail = await engine.queries.detail(task_id)
        kind = str(detail.payload.get("kind", ""))
        if kind not in TRANSCRIBED:
            raise _no_agents(engine, task_id, kind)
        raise TaskNotReady(
            f"task {task_id!r} has not run yet, so there is no transcript; "
            f"`agentmux explain {task_id}` says why"
        )
    found = [run for run in runs if wanted is None or wanted in {run.id, str(run.attempt)}]
    if not found:
        attempts = ", ".join(dict.fromkeys(str(run.attempt) for run in runs))
        raise ValidationError(
            f"task {task_id!r} has no run {wanted!r}; name an attempt ({attempts}) or the id of a "
            f"run: `agentmux history {task_id}` lists them"
        )
    return found[0]


async def _next_run(engine: Engine, before: RunRow) -> RunRow | None:
    """Wait for the run after this one; None if none comes before somebody orders it."""
    told = False
    while True:
        for newest in await engine.queries.runs(before.task_id, limit=1):
            if newest.id != before.id:
                return newest
        try:
            task = await engine.queries.task(before.task_id)
        except TaskNotFound:
            return None
        if task.state is not State.READY and task.state not in ACTIVE:
            return None
        if not told:
            told = True
            hint(f"{task.id} is to run again: waiting for that; Ctrl+C ends it")
        await asyncio.sleep(_PAUSE)
        check_reader()


def _no_agents(engine: Engine, task_id: str, kind: str) -> ValidationError:
    folder = engine.layout.run_folder(task_id, "run").parent
    return ValidationError(
        f"task {task_id!r} is no agent's, but of kind {kind}: only agents leave a transcript; "
        f"what its runs wrote lies in {shown_path(folder, Path.cwd())}/"
    )


def _why_silent(run: RunRow, seen: Transcript) -> str:
    """Say why a run that is over has no transcript."""
    if run.started_at is not None:
        return f"its agent never spoke, or `agentmux gc` removed it ({seen.folder / LINES})"
    why = f": {clean_text(run.error)}" if run.error else ""
    return f"it ended before its agent began{why}"


class _Telling:
    """Prints what one run has said, and what it says."""

    def __init__(
        self, engine: Engine, run: RunRow, seen: Transcript, args: argparse.Namespace
    ) -> None:
        self._engine, self._run, self._seen = engine, run, seen
        self._as_json: bool = args.json
        self._follows: bool = args.follow
        self._walk = Walk(seen)
        self._last: Entry | None = None
        on_terminal = is_terminal()
        width = shutil.get_terminal_size().columns if on_terminal else None
        self._looks = Looks(width, use_colour(), args.detailed)

    async def run(self) -> None:
        """Print all that there is, and the summary; with --follow all that comes until then.

        Raises:
            StorageError: there is nothing, and nothing will come, or it cannot be read.
            ValidationError: there is nothing because it was not an agent that ran.

        """
        await self._read()
        if self._seen.standing is not Standing.THERE:
            if self._run.kind and self._run.kind not in TRANSCRIBED:
                raise _no_agents(self._engine, self._run.task_id, self._run.kind)
            if self._run.outcome is not None and not self._follows:
                raise StorageError(
                    f"the transcript of run {self._run.id} of {self._run.task_id!r} is not there: "
                    f"{_why_silent(self._run, self._seen)}"
                )
        if self._follows:
            await self._follow()
        summary, now = self._walk.summary, self._engine.clock.now()
        if self._as_json:
            say_json(summary_json(summary, self._run, now))
        else:
            say_raw("\n".join(_ending(summary, self._run, now, self._looks)))

    async def _follow(self) -> None:
        """Go on until the run is over, and all that it said is told."""
        while self._run.outcome is None:
            await asyncio.sleep(_PAUSE)
            # A pipe tells of its end only to who writes or asks; there may be nothing to write.
            check_reader()
            run = await self._engine.queries.run(self._run.id)
            if run is None:
                raise StorageError(f"run {self._run.id} was removed from the store")
            self._run = run
            await self._read()

    async def _read(self) -> None:
        """Print all that there is now. What the run wrote is whole once it is over."""
        self._seen.over = self._run.outcome is not None
        if await asyncio.to_thread(self._seen.look) is News.ANEW:
            self._walk, self._last = Walk(self._seen), None
        if self._seen.standing is Standing.REFUSED:
            raise StorageError(self._seen.trouble)
        while not self._walk.done:
            self._print(await asyncio.to_thread(self._walk.step))

    def _print(self, said: Sequence[Said]) -> None:
        if not said:
            return
        if self._as_json:
            say_raw("\n".join(as_json(entry_json(one)) for one in said))
        else:
            say_raw("\n".join(line for one in said for line in self._lines(one)))

    def _lines(self, said: Said) -> Iterator[str]:
        """Return the lines of an entry; a message in pieces may have begun with the last one."""
        before, self._last = self._last, said.entry
        goes_on = before is not None and continues(before, said.entry)
        return entry_lines(said, self._looks, goes_on=goes_on)


def entry_json(said: Said) -> dict[str, object]:
    """Return an entry and the bytes of its line; what does not apply is left out."""
    facts = to_json(said.entry)
    known = {name: value for name, value in facts.items() if value or name == "text"}
    return {"place": said.start, "line": said.line, "end": said.end} | known


def entry_lines(said: Said, looks: Looks, *, goes_on: bool) -> Iterator[str]:
    """Yield the lines in which an entry is printed: when, who, and what, one below the other.

    What `goes_on` with the entry before it names nobody.
    """
    entry = said.entry
    told = tell(entry)
    who, what = _STYLES[told.mood]
    moment = entry.at.astimezone().strftime("%H:%M:%S") if entry.at is not None else ""
    name = "" if goes_on else told.who
    lead = f"{moment:<{_TIME}}"
    indent = _TIME + WHO + 2
    text = told.text if looks.detailed else told.text[: told.whole]
    room = max(_NARROWEST, looks.width - indent) if looks.width is not None else len(text) + 1
    rows = rows_of(text, room)
    spans = list(rows if looks.detailed else islice(rows, told.brief + 2))
    if not looks.detailed and len(spans) > told.brief + 1:
        del spans[told.brief :]
    for number, (begin, end) in enumerate(spans):
        title = max(0, min(told.title, end) - begin)
        row = text[begin:end].rstrip()
        row = paint(row[:title], "bold", colour=looks.colour) + paint(
            row[title:], what, colour=looks.colour
        )
        if number:
            yield f"{'':{indent}}{row}".rstrip()
        else:
            head = paint(lead, "dim", colour=looks.colour and bool(moment))
            yield f"{head}{paint(f'{name:<{WHO + 2}}', who, colour=looks.colour)}{row}".rstrip()
    left = text.count("\n", spans[-1][1])
    if spans[-1][1] < len(text):
        hint = f"… {plural(left, 'more line')}" if left else "… more"
        yield f"{'':{indent}}{paint(hint, 'dim', colour=looks.colour)}"


def summary_json(summary: Summary, run: RunRow, now: datetime) -> dict[str, object]:
    """Return what is told at the end, in the shape of an entry of its own kind."""
    return {
        "kind": "summary",
        "taskId": run.task_id,
        "runId": run.id,
        "attempt": run.attempt,
        "outcome": run.outcome,
        "error": run.error,
        "seconds": round(_seconds(run, now), 3),
        "messages": summary.messages,
        "toolUses": summary.calls,
        "tools": summary.tools,
        "errors": summary.errors,
        "unknownLines": summary.unknown,
        "spending": to_json(_spent(summary, run)),
    }


def _ending(summary: Summary, run: RunRow, now: datetime, looks: Looks) -> Iterator[str]:
    """Yield the lines of the summary: what was said, what it took, how the run ended."""
    parts = [plural(summary.messages, "message"), plural(summary.calls, "tool use")]
    if summary.tools:
        often = sorted(summary.tools.items(), key=lambda item: (-item[1], item[0]))
        names = [f"{clean_text(name[:_LONGEST_NAME])} {count}" for name, count in often[:_NAMED]]
        names += ["…"] * (len(often) > _NAMED)
        parts[-1] += f" ({', '.join(names)})"
    if summary.errors:
        parts.append(plural(summary.errors, "error"))
    if summary.unknown:
        parts.append(plural(summary.unknown, "unknown line"))
    ended = run.outcome.value if run.outcome is not None else "still running"
    words = [f"run #{run.attempt} of {clean_text(run.task_id)}: {ended}"]
    words += [duration(_seconds(run, now)), describe_spending(_spent(summary, run))]
    yield ""
    yield from _wrapped(" · ".join(parts), "dim", looks)
    yield from _wrapped(" · ".join(filter(None, words)), "bold", looks)
    if run.error:
        yield from _wrapped(clean_text(run.error), "bad", looks)


def _wrapped(text: str, style: str, looks: Looks) -> Iterator[str]:
    for begin, end in rows_of(text, looks.width if looks.width is not None else len(text) + 1):
        yield paint(text[begin:end].rstrip(), style, colour=looks.colour)


def _seconds(run: RunRow, now: datetime) -> float:
    return ((run.ended_at or now) - (run.started_at or run.claimed_at)).total_seconds()


def _spent(summary: Summary, run: RunRow) -> Spending:
    """Return what a run took: as the store has it, or until then as the agent told it."""
    return run.spending if run.spending != Spending() else summary.spending
