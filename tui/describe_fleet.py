"""A run, a worker, and what needs a person, each told in full. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine import narrate
from engine.model import LIVE_WORKERS, WorkerStatus
from engine.text import clean_text
from tui import look
from tui.describe import LONGEST, long_lines, pair, pairs, rest_lines, section, text_lines
from tui.widgets.cells import Line, Tone, fitted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from engine.views import AttentionRow, RunRow, TaskRow, WorkerRow

_KEY = 4
_ENDED = {
    WorkerStatus.STOPPED: Tone.DIM,
    WorkerStatus.KILLED: Tone.DIM,
    WorkerStatus.LOST: Tone.STALE,
}


def run_about(run: RunRow, now: datetime, width: int) -> list[Line]:
    """Return a run for a pane `width` cells wide."""
    symbol = look.run_symbol(run)
    tone = look.tone_of(symbol)
    head = f"{symbol} {look.run_words(run)}"
    if run.exit_code is not None:
        head += f", exit code {run.exit_code}"
    took = look.run_took(run, now)
    lines: list[Line] = [((head, tone), (f"  {took}", Tone.TEXT))]
    if run.error:
        lines += long_lines(run.error, width, tone)
    lines += pair("task", clean_text(run.task_id), width)
    who = f"{clean_text(run.worker_id)} ({clean_text(run.agent)})"
    lines += pair("worker", f"{who}, try #{run.attempt}", width)
    until = "" if run.ended_at is None else f" to {look.day_time(run.ended_at, now)}"
    lines += pair("claimed", look.day_time(run.claimed_at, now) + until, width)
    if spent := narrate.describe_spending(run.spending):
        lines += pair("cost", spent, width)
    lines += pair("run", clean_text(run.id), width)
    if run.result:
        lines += section("Result", width)
        lines += pairs(run.result, width)
    return lines


def worker_state(worker: WorkerRow, now: datetime, stale_after: float) -> tuple[str, Tone]:
    """Return a worker's symbol with its state in words, and the tone of both."""
    if worker.status not in LIVE_WORKERS:
        return f"· {worker.status.value}", _ENDED.get(worker.status, Tone.DIM)
    health = look.health(worker, now, stale_after)
    symbol, tone = look.worker_look(health)
    return f"{symbol} {health.value}", tone


def worker_about(
    worker: WorkerRow, task: TaskRow | None, now: datetime, stale_after: float, width: int
) -> list[Line]:
    """Return a worker for a pane `width` cells wide. `task` is the one that it holds."""
    words, tone = worker_state(worker, now, stale_after)
    started = worker.run_started_at
    ran = "" if started is None else f"  {look.since(started, now)}"
    lines: list[Line] = [((words, tone), (ran, Tone.TEXT))]
    if worker.note:
        lines += long_lines(worker.note, width, Tone.TEXT)
    lines += section("Holds", width)
    if worker.task_id is None:
        lines += text_lines("nothing", width, Tone.DIM)
    else:
        lines += pair("task", clean_text(worker.task_id), width)
        if task is not None and task.name != task.id:
            lines += pair("name", clean_text(task.name), width)
        if task is not None:
            lines += pair("try", look.tries(task), width)
        if worker.run_id is not None:
            lines += pair("run", clean_text(worker.run_id), width)
        lines += pair("lease", f"{look.until(worker.lease_until, now)} left", width)
    lines += section("Who", width)
    lines += pair("agent", clean_text(worker.agent), width)
    alive = "alive" if worker.alive else "gone"
    fate = "ends with this worker" if worker.own_process else "shared with other work"
    lines += pair("process", f"pid {worker.pid}, {alive}, {fate}", width)
    since = f"{look.day_time(worker.started_at, now)}, {look.since(worker.started_at, now)} ago"
    lines += pair("since", since, width)
    lines += pair("heartbeat", f"{look.since(worker.beat_at, now)} ago", width)
    return lines


def need_about(
    need: AttentionRow, keys: Sequence[tuple[str, str]], now: datetime, width: int, more: str = ""
) -> list[Line]:
    """Return what needs a person, and the keys that can settle it with what each does.

    `more` is what an alert tells that does not fit into a line.
    """
    symbol, word, tone = look.need_look(need.need)
    when = f"{look.since(need.since, now)}, since {look.day_time(need.since, now)}"
    lines = text_lines(f"{symbol} {clean_text(need.subject)}", width, tone)
    lines.append(((f"{word} for ", Tone.DIM), (when, Tone.TEXT)))
    lines.append(())
    for part in clean_text(need.words[:LONGEST], newlines=True).strip().split("\n"):
        lines += text_lines(part, width, Tone.TEXT)
    if len(need.words) > LONGEST:
        lines += rest_lines(width)
    if keys:
        lines += section("What you can do", width)
    for key, words in keys:
        first, *rest = text_lines(words, max(8, width - _KEY), Tone.TEXT)
        lines.append(((fitted(key, _KEY), Tone.BOLD), *first))
        lines += [((" " * _KEY, Tone.TEXT), *line) for line in rest]
    if more:
        lines += section("What was found", width)
        for part in more.split("\n"):
            lines += text_lines(part, width, Tone.TEXT) if part else [()]
    return lines
