"""A run, a worker, a service, an external agent, what needs a person: each told in full. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from engine import narrate
from engine.model import LIVE_WORKERS, UP, ServiceState, WorkerStatus
from engine.text import clean_text, duration
from tui import look
from tui.describe import LONGEST, long_lines, pair, pairs, rest_lines, section, text_lines
from tui.widgets.cells import Line, Tone, fitted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from engine.config import Probe, ServiceConfig
    from engine.views import AttentionRow, ExternalRow, RunRow, ServiceRow, TaskRow, WorkerRow

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


def service_about(
    service: ServiceRow, config: ServiceConfig | None, now: datetime, width: int
) -> list[Line]:
    """Return a service for a pane `width` cells wide; `config` is None if it left the settings."""
    symbol, tone = look.service_look(service)
    lines: list[Line] = [((f"{symbol} {service.state}", tone),)]
    if service.message:
        lines += long_lines(service.message, width, tone)
    if service.state is not ServiceState.STOPPED:
        since = f"{look.day_time(service.since, now)}, {look.since(service.since, now)} ago"
        lines += pair("since", since, width)
    lines += section("Process", width)
    if service.pid is not None and service.state in UP:
        lines += pair("pid", str(service.pid), width)
    if service.port is not None:
        lines += pair("port", str(service.port), width)
    lines += pair("restarts", str(service.restarts), width)
    if service.recovery:
        lines += pair("recovery", service.recovery, width)
    keeper = "nobody" if service.keeper is None else f"process {service.keeper}"
    lines += pair("kept by", keeper, width)
    lines += section("Settings", width)
    if config is None:
        return [*lines, *text_lines("agentmux.yaml here does not name it", width, Tone.DIM)]
    return [*lines, *_service_settings(config, width)]


def _service_settings(config: ServiceConfig, width: int) -> list[Line]:
    lines = pair("command", _command(config.command), width)
    told = {
        "cwd": config.cwd or "",
        "depends on": ", ".join(config.depends_on),
        "ready": _probe(config.ready),
        "health": _probe(config.health),
        "restart": config.restart,
        "recover": " · ".join(_command(step.run) for step in config.recover.steps)
        if config.recover is not None
        else "",
        "stop within": duration(config.stop_timeout),
    }
    for label, text in told.items():
        if text:
            lines += pair(label, clean_text(text), width)
    return lines


def _probe(probe: Probe | None) -> str:
    """Say what is asked of a service."""
    if probe is None:
        return ""
    parts = [] if probe.http is None else [f"http {probe.http}"]
    parts += [] if probe.port is None else [f"port {probe.port}"]
    parts += [f"file {file}" for file in probe.files]
    parts += [] if probe.command is None else [_command(probe.command)]
    return ", ".join(parts)


def _command(words: Sequence[str]) -> str:
    return clean_text(shlex.join(words))


def external_about(agent: ExternalRow, now: datetime, width: int) -> list[Line]:
    """Return an external agent for a pane `width` cells wide."""
    lines: list[Line] = [((f"{look.EXTERNAL} external", Tone.TEXT),)]
    lines += text_lines("somebody else has started it: it takes no tasks", width, Tone.DIM)
    lines += section("Who", width)
    lines += pair("type", clean_text(agent.type), width)
    lines += pair("where", look.place_of(agent) or "nobody has told", width)
    at = f"{look.day_time(agent.registered_at, now)}, {look.since(agent.registered_at, now)} ago"
    lines += pair("registered", at, width)
    lines += pair("last beat", f"{look.since(agent.beat_at, now)} ago", width)
    if agent.meta:
        lines += section("Told of it", width)
        lines += pairs(agent.meta, width)
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
