"""A task told in full: definition, why it stands where it does, runs, events, output. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from engine import narrate
from engine.model import ACTIVE, Event, State
from engine.text import age, clean_text, cut_middle, duration
from tui import look
from tui.widgets.cells import Cell, Line, Tone, cut_end, fitted, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from engine.views import Neighbour, RunRow, TaskDetail
    from tui.tail import Tail

_LABEL = 12
_MANY = 12
"""Neighbours that are named before the rest is only counted."""
LONGEST = 8000
"""Characters of a text, or of all values of a result, that are laid out: this is done each second.

What an agent leaves can be a thousand times as long."""
_LONGEST_OF_RUN = 500
_LEAST = 20
"""Characters that a value counts for at least: it takes a line, however short it is."""
_REST = "… and more: agentmux tasks show ID --json"
_JSON = json.JSONEncoder(ensure_ascii=False, default=str)


def task_lines(detail: TaskDetail, now: datetime, width: int) -> list[Line]:
    """Return the task itself for a pane `width` cells wide."""
    task = detail.task
    symbol = look.task_symbol(task, now)
    tone = look.tone_of(symbol)
    head = f"{symbol} {look.state_words(task, now)}"
    lines: list[Line] = [((head, tone), (f"  {look.spent(task, now)}", Tone.TEXT))]
    if task.name != task.id:
        lines += long_lines(task.name, width, Tone.BOLD)
    if task.error and task.state not in ACTIVE:
        lines += long_lines(task.error, width, look.why_tone(task))
    lines += section("Why", width)
    for sentence in detail.explanation:
        lines += _bullet(sentence, width)
    lines += section("Definition", width)
    lines += pair("agent", clean_text(task.agent), width)
    if task.claimed_by:
        lines += pair("worker", clean_text(task.claimed_by), width)
        lines += pair("lease", f"{look.until(task.lease_until, now)} left", width)
    lines += pair("attempts", f"{task.attempts} of {task.retries + 1}", width)
    lines += pair("timeout", age(detail.timeout), width)
    if task.priority:
        lines += pair("priority", str(task.priority), width)
    if spent := narrate.describe_spending(detail.spending):
        lines += pair("cost", spent, width)
    lines += pairs(detail.payload, width)
    if detail.result is not None:
        lines += section("Result", width)
        lines += pairs(detail.result, width)
    lines += _neighbours("Depends on", "nothing", detail.deps, width)
    lines += _neighbours("Needed by", "nothing", detail.dependents, width)
    return lines


def run_lines(runs: Sequence[RunRow], now: datetime, width: int) -> list[Line]:
    """Return the runs, newest first."""
    if not runs:
        return [(("no run yet", Tone.DIM),)]
    lines: list[Line] = []
    for run in runs:
        symbol = look.run_symbol(run)
        end = run.ended_at or now
        took = duration((end - (run.started_at or run.claimed_at)).total_seconds())
        words = str(run.outcome or "running")
        if run.exit_code is not None and run.exit_code != 0:
            words += f", exit {run.exit_code}"
        line: Line = (
            (f"{symbol} ", look.tone_of(symbol)),
            (fitted(f"#{run.attempt}", 3, right=True), Tone.TEXT),
            (f"  {look.clock_time(run.claimed_at)}", Tone.DIM),
            (f"  {fitted(took, 5, right=True)}", Tone.TEXT),
            (f"  {fitted(clean_text(run.worker_id), 14, middle=True)}", Tone.DIM),
            (f"  {words}", look.tone_of(symbol)),
        )
        lines.append(line)
        if spent := narrate.describe_spending(run.spending):
            lines.append(((" " * 5 + spent, Tone.DIM),))
        if run.error and (room := width - 5) > 8:
            told = long_lines(run.error, room, Tone.DIM, longest=_LONGEST_OF_RUN)
            lines += [((" " * 5, Tone.DIM), *line) for line in told]
    return lines


def event_lines(events: Sequence[Event], width: int) -> list[Line]:
    """Return the events, oldest first."""
    lines: list[Line] = []
    for event in events:
        symbol, tone, words = look.event_tones(event)
        text = cut_end(narrate.describe(event), max(8, width - 12))
        lines.append(
            ((f"{look.clock_time(event.ts)}  ", Tone.DIM), (f"{symbol} ", tone), (text, words))
        )
    return lines or [(("no events", Tone.DIM),)]


def log_lines(tails: Sequence[tuple[str, Tail]], width: int) -> list[Line]:
    """Return the output of a run: stdout, then stderr if there is any."""
    shown = [(name, tail) for name, tail in tails if tail.lines or tail.error]
    if not shown:
        return [(("no output", Tone.DIM),)]
    lines: list[Line] = []
    for name, tail in shown:
        if len(shown) > 1 or tail.cut:
            lines += _rule(name + (", its end" if tail.cut else ""), width)
        if tail.error:
            lines += text_lines(tail.error, width, Tone.FAILED)
        for text in tail.lines:
            lines += text_lines(text, width, Tone.TEXT)
    return lines


def laid_out(lines: Callable[[int], list[Line]]) -> Callable[[int], list[Line]]:
    """Leave a cell free at the left and at the right of every line."""

    def layout(width: int) -> list[Line]:
        return [((" ", Tone.TEXT), *line) for line in lines(max(8, width - 2))]

    return layout


def section(title: str, width: int) -> list[Line]:
    """Return an empty line and a title with a rule behind it."""
    return [(), *_rule(title, width)]


def _rule(title: str, width: int) -> list[Line]:
    rest = max(0, width - len(title) - 1)
    return [((f"{title} ", Tone.BOLD), ("─" * rest, Tone.RULE))]


def text_lines(text: str, width: int, tone: Tone) -> list[Line]:
    """Return a clean text, wrapped."""
    return [((part, tone),) for part in wrapped(text, width)]


def long_lines(text: str, width: int, tone: Tone, *, longest: int = LONGEST) -> list[Line]:
    """Return a text from outside, cleaned and wrapped; of a very long one the beginning.

    The last line then says where the whole of it is to be read.
    """
    lines = text_lines(clean_text(text[:longest]), width, tone)
    return lines if len(text) <= longest else [*lines, *rest_lines(width)]


def rest_lines(width: int) -> list[Line]:
    """Return where the whole is to be read of what was cut off."""
    return text_lines(_REST, width, Tone.HUMAN)


def _bullet(text: str, width: int) -> list[Line]:
    first, *rest = long_lines(text, max(8, width - 2), Tone.TEXT)
    return [(("· ", Tone.DIM), *first), *((("  ", Tone.DIM), *line) for line in rest)]


def pair(label: str, text: str, width: int) -> list[Line]:
    """Return a label and a clean text beside it, wrapped."""
    first, *rest = wrapped(text, max(8, width - _LABEL))
    head: Cell = (fitted(label, _LABEL - 1) + " ", Tone.DIM)
    return [(head, (first, Tone.TEXT)), *(((" " * _LABEL + part, Tone.TEXT),) for part in rest)]


def pairs(values: Mapping[str, object], width: int) -> list[Line]:
    """Return the values of a payload or a result by their keys; of very much the beginning."""
    lines: list[Line] = []
    room, whole = LONGEST, True
    for key, value in values.items():
        if room <= 0:
            whole = False
            break
        label, text = str(key)[:LONGEST], _text(value, room)
        lines += pair(clean_text(label), clean_text(text[:room]), width)
        whole = len(text) <= room
        room -= max(len(text), _LEAST)
    return lines if whole else [*lines, *rest_lines(width)]


def _text(value: object, most: int) -> str:
    """Return a value as text, cut off soon after `most` characters."""
    if isinstance(value, str):
        return value[: most + 1]
    text = ""
    try:
        for piece in _JSON.iterencode(value):
            text += piece
            if len(text) > most:
                break
    except RecursionError:
        return "nested too deep to be told here"
    return text


def _neighbours(
    title: str, nothing: str, neighbours: Sequence[Neighbour], width: int
) -> Iterator[Line]:
    yield from section(f"{title} {len(neighbours) or nothing}", width)
    for neighbour in neighbours[:_MANY]:
        # Whether it is ready or waits is not known here; that it is still to be done, is.
        todo = neighbour.state is State.READY
        if neighbour.state is None:
            symbol, words = narrate.NOTE, "gone"
        else:
            symbol = narrate.WAITING if todo else narrate.symbol(neighbour.state)
            words = "to do" if todo else neighbour.state.lower()
        name = cut_middle(clean_text(neighbour.id), width - len(words) - 4)
        tone = Tone.DIM if neighbour.state is None else Tone.TEXT
        yield ((f"{symbol} ", look.tone_of(symbol)), (name, tone), (f"  {words}", Tone.DIM))
    if len(neighbours) > _MANY:
        yield ((f"  and {len(neighbours) - _MANY} more", Tone.DIM),)
