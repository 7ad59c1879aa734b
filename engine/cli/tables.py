"""Rows of the store as rows of text: which columns people see, and in which words. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from engine.cli.render import Cell, Column, paint
from engine.model import ALL_AGENTS, Event, Reason, RunOutcome, State, to_json
from engine.narrate import describe, describe_reasons, describe_spending, event_symbol, symbol
from engine.shapes import worker_status
from engine.text import age, clean_text, duration, money, plural, tokens

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from engine.views import RunRow, TaskDetail, TaskRow, WorkerRow

TASKS = (
    Column("", least=1),
    Column("id", yields=2, least=12),
    Column("name", yields=3, drops=5),
    Column("agent", yields=1, drops=1),
    Column("state"),
    Column("worker", yields=1, drops=3),
    Column("try", right=True, drops=4),
    Column("time", right=True, drops=2),
    Column("updated", right=True, drops=6),
    Column("why", yields=4, least=16, sentence=True),
)
WORKERS = (
    Column("", least=1),
    Column("worker", yields=1),
    Column("agent", yields=1, drops=1),
    Column("pid", right=True, drops=2),
    Column("process", drops=6),
    Column("status"),
    Column("task", yields=2, least=12),
    Column("time", right=True, drops=3),
    Column("lease", right=True, drops=4),
    Column("heartbeat", right=True),
    Column("note", yields=3, sentence=True, drops=5),
)
RUNS = (
    Column("", least=1),
    Column("task", yields=2, least=12),
    Column("try", right=True, drops=3),
    Column("outcome"),
    Column("worker", yields=1, drops=1),
    Column("started", right=True, drops=4),
    Column("took", right=True, drops=2),
    Column("tokens", right=True, drops=8),
    Column("cost", right=True, drops=5),
    Column("exit", right=True, drops=6),
    Column("run", yields=3, least=8, drops=7),
    Column("error", yields=4, least=16, sentence=True),
)

RUNS_OF_TASK = tuple(
    Column("branch", yields=2, least=12) if one.title == "task" else one for one in RUNS
)
"""Where all runs are of one task, and worked on branches."""

_STYLES = {
    State.RUNNING: "accent",
    State.CLAIMED: "accent",
    State.DONE: "good",
    State.FAILED: "bad",
    State.BLOCKED: "dim",
    State.CANCELLED: "dim",
}
_OUTCOMES = {
    RunOutcome.DONE: State.DONE,
    RunOutcome.FAILED: State.FAILED,
    RunOutcome.KILLED: State.FAILED,
    RunOutcome.TIMED_OUT: State.FAILED,
    RunOutcome.BLOCKED: State.BLOCKED,
    RunOutcome.CANCELLED: State.CANCELLED,
    RunOutcome.RELEASED: State.READY,
    RunOutcome.EXPIRED: State.READY,
}


def task_rows(
    tasks: Sequence[TaskRow], now: datetime, held: Collection[str] = ()
) -> list[tuple[Cell | str, ...]]:
    """Return the cells of TASKS. `held` names agents whose claims are held."""
    known = {task.id: task.state for task in tasks}
    return [_task_row(task, now, held, known) for task in tasks]


def worker_rows(
    workers: Sequence[WorkerRow], now: datetime, stale_after: float
) -> list[tuple[Cell | str, ...]]:
    """Return the cells of WORKERS. `stale_after` is in seconds of silence."""
    rows: list[tuple[Cell | str, ...]] = []
    for worker in workers:
        word = worker_status(worker, now, stale_after)
        style = {"working": "accent", "stale": "stale", "idle": "", "stopping": ""}.get(word, "dim")
        sign = {"working": "●", "stale": "▲"}.get(word, "○" if worker.alive else "–")  # noqa: RUF001 - an en dash is meant
        rows.append(
            (
                Cell(sign, style),
                worker.id,
                worker.agent,
                str(worker.pid),
                ("own" if worker.own_process else "shared") if worker.alive else "",
                Cell(word, style),
                worker.task_id or "–",  # noqa: RUF001
                _since(worker.run_started_at, now),
                "" if worker.lease_until is None else _ahead(worker.lease_until, now),
                _since(worker.beat_at, now),
                worker.note,
            )
        )
    return rows


def run_rows(
    runs: Sequence[RunRow], now: datetime, branches: Mapping[str, str] | None = None
) -> list[tuple[Cell | str, ...]]:
    """Return the cells of RUNS; with `branches`, by the ids of runs, those of RUNS_OF_TASK."""
    rows: list[tuple[Cell | str, ...]] = []
    for run in runs:
        state = State.RUNNING if run.outcome is None else _OUTCOMES[run.outcome]
        style = _STYLES.get(state, "")
        began = run.started_at or run.claimed_at
        rows.append(
            (
                Cell(symbol(state), style),
                run.task_id if branches is None else branches.get(run.id, ""),
                str(run.attempt),
                Cell("running" if run.outcome is None else run.outcome.value, style),
                run.worker_id,
                f"{_since(began, now)} ago",
                duration(((run.ended_at or now) - began).total_seconds()),
                "" if run.spending.tokens is None else tokens(run.spending.tokens),
                "" if run.spending.cost is None else money(run.spending.cost),
                "" if run.exit_code is None else str(run.exit_code),
                run.id,
                run.error or "",
            )
        )
    return rows


def event_line(event: Event, now: datetime, *, colour: bool = False) -> str:
    """Return an event as one clean line: seq, local time, symbol, sentence."""
    style = _event_style(event)
    sign = paint(event_symbol(event), style, colour=colour)
    return f"{event.seq:>6}  {local_time(event.ts, now)}  {sign} {describe(event)}"


def definition_lines(detail: TaskDetail, now: datetime) -> list[tuple[str, str]]:
    """Return what defines a task and where it stands, as label and text."""
    task = detail.task
    limits = [f"timeout {age(detail.timeout)}", plural(task.retries, "retry", "retries")]
    lines = [
        ("id", task.id),
        ("name", task.name),
        ("agent", task.agent),
        ("state", f"{mark(task, now).text} {state_word(task, now)}"),
        ("limits", ", ".join([*limits, f"priority {task.priority}"])),
        ("payload", json.dumps(to_json(detail.payload), ensure_ascii=False)),
        ("deps", _neighbours([(dep.id, dep.state) for dep in detail.deps])),
        ("needed by", _neighbours([(dep.id, dep.state) for dep in detail.dependents])),
        ("attempts", str(task.attempts)),
    ]
    if task.claimed_by:
        lines.append(("held by", f"{task.claimed_by} (run {task.run_id})"))
    if task.lease_until:
        lines.append(("lease", f"{_ahead(task.lease_until, now)} left"))
    if spent := describe_spending(detail.spending):
        lines.append(("cost", spent))
    if task.error:
        lines.append(("error", task.error))
    if detail.result is not None:
        lines.append(("result", json.dumps(to_json(detail.result), ensure_ascii=False)))
    return [(label, clean_text(text)) for label, text in lines]


def state_word(task: TaskRow, now: datetime) -> str:
    """Say a task's state in lower case, READY told apart in ready and waiting."""
    return "waiting" if _is_waiting(task, now) else task.state.lower()


def why(
    task: TaskRow,
    now: datetime,
    held: Collection[str] = (),
    known: Mapping[str, State] | None = None,
) -> str:
    """Say in a few words why a task is not going on; empty where there is nothing to say.

    `known` are the states of other tasks, as far as they are at hand: with them the unmet deps
    can be named.
    """
    if task.state is State.BLOCKED:
        return describe_reasons(task.reasons, task.error)
    if task.state is not State.READY:
        # A task that runs again, or came through at last, still has its former error.
        return task.error or "" if task.state in {State.FAILED, State.CANCELLED} else ""
    if task.pending:
        return f"waits for {_unmet(task, known or {})}"
    if task.not_before is not None and task.not_before > now:
        again = f"tries again in {_ahead(task.not_before, now)}"
        return f"{again}: {task.error}" if task.error else again
    if task.ending is not None:
        return "its former run is being ended"
    return "claims are held" if ALL_AGENTS in held or task.agent in held else ""


def mark(task: TaskRow, now: datetime) -> Cell:
    """Return the symbol of a task's state in its colour."""
    waiting = _is_waiting(task, now)
    style = _STYLES.get(task.state, "dim" if waiting else "")
    if Reason.HUMAN in task.reasons:
        style = "human"
    return Cell(symbol(task.state, task.reasons, int(waiting)), style)


def local_time(moment: datetime, now: datetime) -> str:
    """Write a moment in local time, with its date unless it is today."""
    here, today = moment.astimezone(), now.astimezone().date()
    return here.strftime("%H:%M:%S" if here.date() == today else "%Y-%m-%d %H:%M:%S")


def _task_row(
    task: TaskRow, now: datetime, held: Collection[str], known: Mapping[str, State]
) -> tuple[Cell | str, ...]:
    shown = mark(task, now)
    tries = f"{task.attempts}/{task.retries + 1}" if task.attempts else ""
    time = ""
    if task.claimed_by is not None:
        time = _since(task.started_at or task.updated_at, now)
    elif task.state is State.DONE and task.started_at and task.ended_at:
        time = duration((task.ended_at - task.started_at).total_seconds())
    return (
        shown,
        task.id,
        task.name if task.name != task.id else "",
        task.agent,
        Cell(state_word(task, now), shown.style),
        task.worker_id or "",
        tries,
        time,
        f"{_since(task.updated_at, now)} ago",
        why(task, now, held, known),
    )


def _is_waiting(task: TaskRow, now: datetime) -> bool:
    backs_off = task.not_before is not None and task.not_before > now
    waits = task.pending > 0 or backs_off or task.ending is not None
    return task.state is State.READY and waits


def _event_style(event: Event) -> str:
    shown = event_symbol(event)
    by_symbol = {symbol(state): style for state, style in _STYLES.items()}
    by_symbol[symbol(State.BLOCKED, [Reason.HUMAN])] = "human"
    return by_symbol.get(shown, "")


def _unmet(task: TaskRow, known: Mapping[str, State]) -> str:
    unmet = [dep for dep in task.deps if known.get(dep) is not State.DONE]
    if len(unmet) == task.pending:
        return ", ".join(unmet)
    return f"{task.pending} of {plural(len(task.deps), 'dep')}"


def _neighbours(pairs: Sequence[tuple[str, State | None]]) -> str:
    parts = [f"{name} ({'gone' if state is None else state.lower()})" for name, state in pairs]
    return ", ".join(parts) or "none"


def _since(moment: datetime | None, now: datetime) -> str:
    return "" if moment is None else age((now - moment).total_seconds())


def _ahead(moment: datetime, now: datetime) -> str:
    return age((moment - now).total_seconds())
