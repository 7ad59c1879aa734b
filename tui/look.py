"""How rows are told: a symbol, a tone, a few words. Pure: no widget and no store in here.

All text from outside leaves this module cleaned (DESIGN §4.6).
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from engine import narrate
from engine.model import (
    ACTIVE,
    ALL_AGENTS,
    BROKEN,
    LIVE_WORKERS,
    Event,
    Reason,
    RunOutcome,
    ServiceState,
    State,
    WorkerStatus,
)
from engine.text import age, clean_text, duration, money, plural, tokens
from engine.views import HealthStatus, Need
from tui.widgets.cells import Tone

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime

    from engine.views import ExternalRow, RunRow, ServiceRow, TaskRow, WorkerRow

NOTHING = "–"  # noqa: RUF001 - an en dash stands for no value
STALE = "△"
IDLE = "○"
STOPPING = narrate.STOPPING
EXTERNAL = "◇"


class Health(StrEnum):
    """What a live worker is doing, as the screen tells it."""

    WORKING = "working"
    IDLE = "idle"
    STOPPING = "stopping"
    STALE = "stale"


_WORKER_LOOKS = {
    Health.WORKING: (narrate.RUNNING, Tone.RUNNING),
    Health.IDLE: (IDLE, Tone.TEXT),
    Health.STOPPING: (STOPPING, Tone.DIM),
    Health.STALE: (STALE, Tone.STALE),
}
_TONES = {
    narrate.RUNNING: Tone.RUNNING,
    narrate.CLAIMED: Tone.RUNNING,
    narrate.READY: Tone.TEXT,
    narrate.DONE: Tone.DONE,
    narrate.FAILED: Tone.FAILED,
    narrate.HUMAN: Tone.HUMAN,
}
STATUS_TONES = {
    HealthStatus.OK: Tone.DONE,
    HealthStatus.WARNING: Tone.HUMAN,
    HealthStatus.DEGRADED: Tone.FAILED,
}
LEGEND = (
    (narrate.RUNNING, "running"),
    (narrate.CLAIMED, "claimed"),
    (narrate.READY, "ready"),
    (narrate.WAITING, "waiting"),
    (narrate.DONE, "done"),
    (narrate.FAILED, "failed"),
    (narrate.HUMAN, "needs you"),
    (narrate.UPSTREAM, "blocked by a dep"),
    (narrate.REMOVED, "left the DAG"),
    (narrate.CANCELLED, "cancelled"),
    (IDLE, "idle worker"),
    (STOPPING, "stopping worker"),
    (STALE, "stale worker"),
    (EXTERNAL, "external agent"),
)


def tone_of(symbol: str) -> Tone:
    """Return the tone that goes with a symbol, the same everywhere."""
    return Tone.STALE if symbol == STALE else _TONES.get(symbol, Tone.DIM)


def in_backoff(task: TaskRow, now: datetime) -> bool:
    """Say whether a READY task waits for its next attempt."""
    return task.state is State.READY and task.not_before is not None and task.not_before > now


def is_ending(task: TaskRow) -> bool:
    """Say whether a READY task waits for its former run's processes to be gone."""
    return task.state is State.READY and task.ending is not None


def task_symbol(task: TaskRow, now: datetime) -> str:
    """Return a task's symbol; one in backoff waits."""
    if in_backoff(task, now) or is_ending(task):
        return narrate.WAITING
    return narrate.symbol(task.state, task.reasons, task.pending)


def state_words(task: TaskRow, now: datetime) -> str:
    """Return a task's state as people say it."""
    if task.state is State.READY and (task.pending or in_backoff(task, now) or is_ending(task)):
        return "waiting"
    return task.state.lower()


def is_live(worker: WorkerRow) -> bool:
    """Say whether the store takes the worker for a live one."""
    return worker.status in LIVE_WORKERS


def is_stale(worker: WorkerRow, now: datetime, stale_after: float) -> bool:
    """Say whether a live worker is silent for more than `stale_after` seconds, or gone."""
    silent = (now - worker.beat_at).total_seconds()
    return is_live(worker) and (not worker.alive or silent > stale_after)


def health(worker: WorkerRow, now: datetime, stale_after: float) -> Health:
    """Return what a live worker is doing."""
    if is_stale(worker, now, stale_after):
        return Health.STALE
    if worker.status is WorkerStatus.STOPPING:
        return Health.STOPPING
    return Health.WORKING if worker.task_id else Health.IDLE


def worker_look(state: Health) -> tuple[str, Tone]:
    """Return a worker's symbol and tone."""
    return _WORKER_LOOKS[state]


def place_of(agent: ExternalRow) -> str:
    """Return where an external agent is: its process, or its window of tmux."""
    parts = [] if agent.pid is None else [f"pid {agent.pid}"]
    parts += [] if agent.tmux is None else [f"tmux {clean_text(agent.tmux)}"]
    return ", ".join(parts)


def meta_of(agent: ExternalRow) -> str:
    """Return in a line what else was told of an external agent."""
    return clean_text(" ".join(f"{key}={value}" for key, value in agent.meta.items()))


def is_kept(service: ServiceRow) -> bool:
    """Say whether a service is as it should be kept: down, or with a process that keeps it."""
    down = service.state in {ServiceState.STOPPED, ServiceState.FAILED}
    return down or service.keeper is not None


def service_look(service: ServiceRow) -> tuple[str, Tone]:
    """Return a service's symbol and tone."""
    symbol = narrate.service_symbol(service.state) if is_kept(service) else STALE
    return symbol, tone_of(symbol)


def service_words(service: ServiceRow) -> str:
    """Return how a service stands, and why if that needs saying."""
    if not is_kept(service):
        return "nobody keeps it any more"
    why = clean_text(service.message)
    if why and service.state in {ServiceState.WAITING, ServiceState.FAILED}:
        return why  # what became of it says it all, and there is little room
    return f"{service.state}: {why}" if why else str(service.state)


def since(moment: datetime | None, now: datetime) -> str:
    """Return how long ago `moment` was, or a dash."""
    return NOTHING if moment is None else age((now - moment).total_seconds())


def until(moment: datetime | None, now: datetime) -> str:
    """Return how long it is until `moment`, or a dash."""
    return NOTHING if moment is None else age((moment - now).total_seconds())


def spent(task: TaskRow, now: datetime) -> str:
    """Return how long the task's run takes or took."""
    if task.state in ACTIVE:
        return since(task.started_at, now)
    if task.started_at is None or task.ended_at is None or task.state is State.READY:
        return NOTHING
    return age((task.ended_at - task.started_at).total_seconds())


def tries(task: TaskRow) -> str:
    """Return attempts made out of attempts allowed."""
    return f"{task.attempts}/{task.retries + 1}" if task.attempts else NOTHING


def is_held(agent: str, held: Collection[str]) -> bool:
    """Say whether claims are held for an agent."""
    return agent in held or ALL_AGENTS in held


def why(
    task: TaskRow,
    now: datetime,
    *,
    held: Collection[str] = (),
    notes: Mapping[str, str] | None = None,
    known: Mapping[str, State] | None = None,
    idle: Mapping[str, bool] | None = None,
) -> str:
    """Say in a few words what a task does now, or why it does nothing.

    `notes` has what workers said of their task, by its id. `known` are the states of other tasks
    as far as they were read, so that a task can name the deps that stand in its way. `idle` says
    of each agent that has workers whether one of them has nothing to do; None: nobody knows.
    """
    known = known or {}
    if task.state in ACTIVE:
        return clean_text((notes or {}).get(task.id, ""))
    if task.state is State.BLOCKED:
        broken = [dep for dep in task.deps if known.get(dep) in BROKEN]
        if broken and set(task.reasons) == {Reason.UPSTREAM}:
            return "blocked by " + ", ".join(map(clean_text, broken))
        return narrate.describe_reasons(task.reasons, task.error)
    if task.state is State.READY:
        return _why_not_yet(task, now, held, known, idle)
    return clean_text(task.error or "")


def _why_not_yet(
    task: TaskRow,
    now: datetime,
    held: Collection[str],
    known: Mapping[str, State],
    idle: Mapping[str, bool] | None,
) -> str:
    if task.pending:
        unmet = [dep for dep in task.deps if known.get(dep) is not State.DONE]
        if len(unmet) == task.pending:
            return "waits for " + ", ".join(map(clean_text, unmet))
        return f"waits for {task.pending} of {plural(len(task.deps), 'task')}"
    if in_backoff(task, now):
        failed = f" after: {clean_text(task.error)}" if task.error else ""
        return f"again in {until(task.not_before, now)}{failed}"
    if is_ending(task):
        return "its former run is being ended"
    if is_held(task.agent, held):
        return "claims are held"
    return _ready_for(task, idle)


def _ready_for(task: TaskRow, idle: Mapping[str, bool] | None) -> str:
    agent = clean_text(task.agent)
    if idle is None:
        return f"waits for a {agent} worker"
    if task.agent not in idle:
        return f"ready, but no {agent} worker runs"
    if idle[task.agent]:
        return f"ready, as the limits of {agent} allow"
    return f"waits for a {agent} worker"


def why_tone(task: TaskRow) -> Tone:
    """Return the tone of `why`: loud only where something went wrong."""
    if task.state is State.FAILED:
        return Tone.FAILED
    return Tone.HUMAN if Reason.HUMAN in task.reasons else Tone.DIM


def event_tones(event: Event) -> tuple[str, Tone, Tone]:
    """Return an event's symbol, the symbol's tone and the sentence's."""
    symbol = narrate.event_symbol(event)
    tone = tone_of(symbol)
    loud = tone in {Tone.FAILED, Tone.HUMAN}
    return symbol, tone, tone if loud else (Tone.DIM if tone is Tone.DIM else Tone.TEXT)


def clock_time(moment: datetime) -> str:
    """Return the time of day where the user is."""
    return moment.astimezone().strftime("%H:%M:%S")


def day_time(moment: datetime, now: datetime) -> str:
    """Return a time of today as 10:12:46, of this year as 13 Mar 22:10, else as 2025-12-31."""
    here, today = moment.astimezone(), now.astimezone()
    if here.date() == today.date():
        return here.strftime("%H:%M:%S")
    return here.strftime("%d %b %H:%M" if here.year == today.year else "%Y-%m-%d")


def cpu(share: float | None) -> str:
    """Return a share of one core in percent, in five characters at most, or a dash."""
    return NOTHING if share is None else f"{min(share, 9999):.0f}%"


def memory(size: float) -> str:
    """Return a number of bytes in five characters at most: 88M, 1.2G."""
    for unit in "BKMG":
        if size < 999.5:
            return f"{size:.1f}G" if unit == "G" and size < 9.95 else f"{size:.0f}{unit}"
        size /= 1024
    return f"{size:.0f}T"


_RUN_SYMBOLS = {
    RunOutcome.DONE: narrate.DONE,
    RunOutcome.FAILED: narrate.FAILED,
    RunOutcome.KILLED: narrate.FAILED,
    RunOutcome.TIMED_OUT: narrate.FAILED,
    RunOutcome.BLOCKED: narrate.HUMAN,
    RunOutcome.CANCELLED: narrate.CANCELLED,
}


def run_symbol(run: RunRow) -> str:
    """Return a run's symbol."""
    if run.outcome is None:
        return narrate.RUNNING
    return _RUN_SYMBOLS.get(run.outcome, narrate.NOTE)


def run_words(run: RunRow) -> str:
    """Return how a run ended, or that it goes on."""
    return "running" if run.outcome is None else run.outcome.value


def run_took(run: RunRow, now: datetime) -> str:
    """Return how long a run took, or in whole seconds for how long it has gone on."""
    began = run.started_at or run.claimed_at
    if run.ended_at is None:
        return since(began, now)
    return duration((run.ended_at - began).total_seconds())


def run_cost(run: RunRow) -> str:
    """Return what a run cost, or if that is not known how many tokens it took."""
    spent = run.spending
    if spent.cost is not None:
        return money(spent.cost)
    return "" if spent.tokens is None else tokens(spent.tokens)


_NEEDS = {
    Need.HUMAN: (narrate.HUMAN, "needs you"),
    Need.EXHAUSTED: (narrate.FAILED, "failed"),
    Need.STALE: (STALE, "stale"),
    Need.ORPHAN: (STALE, "orphan"),
    Need.ALERT: (narrate.HUMAN, "alert"),
}


def need_look(need: Need) -> tuple[str, str, Tone]:
    """Return the symbol, the word and the tone of what needs a person."""
    symbol, word = _NEEDS[need]
    return symbol, word, tone_of(symbol)
