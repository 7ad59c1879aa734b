"""What happened and where a task stands, told to people: one sentence, one symbol. Pure.

The words of events are written here once, for the command line and the dashboard alike. All
text that came from outside passes through `clean_text`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from engine.clock import from_iso
from engine.model import (
    ALL_AGENTS,
    Event,
    EventType,
    HoldCause,
    Reason,
    RunOutcome,
    ServiceState,
    State,
)
from engine.text import clean_text, cut_middle, duration, money, plural, tokens

if TYPE_CHECKING:
    from datetime import datetime

    from engine.model import Spending

RUNNING, CLAIMED, READY, WAITING = "●", "◐", "◌", "◦"
DONE, FAILED, HUMAN, UPSTREAM, REMOVED, CANCELLED = "✓", "✗", "▲", "⊘", "▽", "–"  # noqa: RUF001 - an en dash is meant
STOPPING = "◑"
NOTE = "·"
"""An event that moves no task."""

_BY_STATE = {
    State.RUNNING: RUNNING,
    State.CLAIMED: CLAIMED,
    State.READY: READY,
    State.DONE: DONE,
    State.FAILED: FAILED,
    State.BLOCKED: UPSTREAM,
    State.CANCELLED: CANCELLED,
}
_BY_SERVICE_STATE = {
    ServiceState.READY: DONE,
    ServiceState.STARTING: CLAIMED,
    ServiceState.RECOVERING: CLAIMED,
    ServiceState.STOPPING: STOPPING,
    ServiceState.WAITING: WAITING,
    ServiceState.UNHEALTHY: FAILED,
    ServiceState.FAILED: FAILED,
    ServiceState.STOPPED: CANCELLED,
}
_NOTES = frozenset(
    {
        EventType.TASK_CREATED,
        EventType.TASK_UPDATED,
        EventType.TASK_PURGED,
        EventType.LEASE_EXPIRED,
    }
)
"""Events of a task that say nothing about where it stands."""
_SERVICE_STATES = frozenset(map(str, ServiceState))
_WHY_BLOCKED = {
    Reason.HUMAN: "needs you",
    Reason.REMOVED: "it left the DAG",
    Reason.UPSTREAM: "a dep did not succeed",
}
_LONGEST_ERROR = 300


def symbol(state: State, reasons: Collection[Reason] = (), pending: int = 0) -> str:
    """Return the one character that stands for a task's state.

    `pending` counts what a READY task still waits for; above zero it is shown as waiting. Of
    several reasons the one that only a person can lift is shown.
    """
    if state is State.READY and pending > 0:
        return WAITING
    if state is State.BLOCKED:
        if Reason.HUMAN in reasons:
            return HUMAN
        return REMOVED if Reason.REMOVED in reasons else UPSTREAM
    return _BY_STATE[state]


def service_symbol(state: ServiceState) -> str:
    """Return the one character that stands for a service's state; ready: its checks pass."""
    return _BY_SERVICE_STATE[state]


def event_symbol(event: Event) -> str:
    """Return the one character that stands for an event."""
    match event.type:
        case EventType.TASK_FAILED:
            return FAILED
        case EventType.TASK_BLOCKED:
            return symbol(State.BLOCKED, _reasons(event.data))
        case EventType.ALERT | EventType.WORKER_LOST | EventType.LATE_RESULT:
            return NOTE if _is_spending(event) else HUMAN
        case EventType.SERVICE:
            state = _text(event.data, "serviceState")
            return service_symbol(ServiceState(state)) if state in _SERVICE_STATES else NOTE
    if event.state is not None and event.type not in _NOTES:
        return symbol(event.state, _reasons(event.data))
    return NOTE


def describe(event: Event) -> str:
    """Return one plain sentence for an event; never raises for lack of a key."""
    return _SENTENCES[event.type](event)


def how_lifted(cause: HoldCause, agent: str, wait: float | None = None) -> str:
    """Say what lets claims go on that are held for an agent, or for all (`*`).

    `wait`: the seconds until they go on by themselves, if that is known.
    """
    when = "" if wait is None else f" in {duration(max(0.0, wait))}"
    resume = "agentmux resume" if agent == ALL_AGENTS else f"agentmux resume {clean_text(agent)}"
    return {
        HoldCause.OPERATOR: f"`{resume}` lets them go on",
        HoldCause.LIMIT: f"they go on by themselves{when}, or with `{resume}`",
        HoldCause.LOGIN: f"log in, then `{resume}`",
        HoldCause.BUDGET: f"raise `budget:` in agentmux.yaml, then `{resume}`",
    }[cause]


def describe_hold(agent: str, cause: HoldCause, reason: str, wait: float | None) -> str:
    """Say whose claims are held, why, and what lets them go on; `wait` as in how_lifted."""
    claims = "all claims" if agent == ALL_AGENTS else f"claims of {clean_text(agent)}"
    why = f" ({_short(reason)})" if reason else ""
    return f"{claims} are held{why}; {how_lifted(cause, agent, wait)}"


def describe_spending(spending: Spending) -> str:
    """Tell what was spent, as far as it is known: `12 turns · 130k tokens · $1.24`."""
    parts = []
    if spending.turns is not None:
        parts.append(plural(spending.turns, "turn"))
    if spending.tokens is not None:
        parts.append(f"{tokens(spending.tokens)} tokens")
    if spending.cost is not None:
        parts.append(money(spending.cost))
    return " · ".join(parts)


def describe_reasons(reasons: Collection[Reason], error: str | None = None) -> str:
    """Say in words why a task is BLOCKED; the error goes with the reason that needs a person."""
    parts = []
    for reason in Reason:
        if reason not in reasons:
            continue
        if reason is Reason.HUMAN and error:
            parts.append(f"needs you: {_short(error)}")
        else:
            parts.append(_WHY_BLOCKED[reason])
    return "; ".join(parts)


def describe_changes(fields: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Say of each field (before, after) how it changed; a payload's keys are told one by one."""
    told: list[str] = []
    for name, (before, after) in fields.items():
        if name == "deps":
            gone = [f"-{dep}" for dep in before if dep not in after]
            new = [f"+{dep}" for dep in after if dep not in before]
            told.append("deps " + (" ".join(map(clean_text, [*new, *gone])) or "in another order"))
        elif isinstance(before, Mapping) and isinstance(after, Mapping):
            told += [
                f"{clean_text(key)} {_value(before.get(key))} → {_value(after.get(key))}"
                for key in dict.fromkeys((*before, *after))
                if before.get(key) != after.get(key)
            ]
        else:
            told.append(f"{name} {_value(before)} → {_value(after)}")
    return told


def _value(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return cut_middle(clean_text(text), 48)


def _created(event: Event) -> str:
    definition = event.data.get("definition")
    agent = event.agent
    if agent is None and isinstance(definition, Mapping):
        agent = _text(definition, "agent")
    return f"{_task(event)} was added" + (f" for {clean_text(agent)}" if agent else "")


def _updated(event: Event) -> str:
    changed = event.data.get("changed")
    if not isinstance(changed, list | tuple) or not changed:
        return f"{_task(event)} was redefined"
    return f"{_task(event)} was redefined: {', '.join(clean_text(str(one)) for one in changed)}"


def _ready(event: Event) -> str:
    if "notBefore" in event.data:
        return f"{_task(event)} need not wait any longer"
    return f"{_task(event)} is ready"


def _claimed(event: Event) -> str:
    attempt = _number(event.data, "attempt")
    again = f", attempt {attempt:.0f}" if attempt is not None and attempt > 1 else ""
    return f"{_worker(event)} claimed {_task(event)}{again}"


def _progress(event: Event) -> str:
    note = _text(event.data, "note") or _text(event.data, "message")
    return f"{_task(event)}: {_short(note)}" if note else f"{_task(event)} makes progress"


def _completed(event: Event) -> str:
    took = _number(event.data, "durationMs")
    how_long = "" if took is None else f" in {duration(took / 1000)}"
    return f"{_worker(event)} finished {_task(event)}{how_long}"


def _failed(event: Event) -> str:
    data = event.data
    sentence = f"{_task(event)} {'was killed' if _outcome(data) == RunOutcome.KILLED else 'failed'}"
    error = _text(data, "error")
    if _outcome(data) == RunOutcome.KILLED:
        sentence += " by the operator"
    elif error:
        sentence += f": {_short(error)}"
    elif _outcome(data) == RunOutcome.TIMED_OUT:
        sentence += ": timed out"
    attempts, retries = _number(data, "attempts"), _number(data, "retries")
    if event.state is State.READY:
        sentence += "; retry"
        if attempts is not None and retries is not None:
            sentence += f" {attempts:.0f}/{retries:.0f}"
        sentence += _again(event, "")
    elif retries:
        sentence += "; no retry is left"
    return sentence


def _again(event: Event, words: str = "; tries again", key: str = "notBefore") -> str:
    again = _moment(event.data, key)
    if again is None:
        return ""
    return f"{words} in {duration(max(0.0, (again - event.ts).total_seconds()))}"


def _blocked(event: Event) -> str:
    reasons = _reasons(event.data)
    why = describe_reasons(reasons, _text(event.data, "error"))
    if reasons == {Reason.HUMAN}:
        return f"{_task(event)} {why}"
    return f"{_task(event)} is blocked{': ' + why if why else ''}"


def _released(event: Event) -> str:
    error = _text(event.data, "error")
    if error:
        return f"{_task(event)} was put back: {_short(error)}{_again(event)}"
    by = _text(event.data, "by")
    worker = f" from {clean_text(event.worker_id)}" if event.worker_id else ""
    return f"{_task(event)} was released{worker}{': ' + _short(by) if by else ''}"


def _expired(event: Event) -> str:
    lost = _number(event.data, "lost")
    row = f" ({lost:.0f} times in a row)" if lost is not None and lost > 1 else ""
    return f"{_task(event)} was lost: {_worker(event)} went silent{row}"


def _seeded(event: Event) -> str:
    dag = _text(event.data, "dag")
    parts = []
    for key in ("created", "updated", "unchanged", "blocked", "unblocked"):
        count = _number(event.data, key)
        if count:
            parts.append(f"{count:.0f} {key}")
    return f"seeded{' from ' + clean_text(dag) if dag else ''}{': ' if parts else ''}" + ", ".join(
        parts
    )


def _is_spending(event: Event) -> bool:
    """Say whether it tells nothing but what a run took."""
    return "spending" in event.data and not event.data.keys() & {"outcome", "error", "message"}


def _late(event: Event) -> str:
    if _is_spending(event):
        return f"{_worker(event)} told what its run of {_task(event)} took, which was over"
    what = _text(event.data, "error") or _text(event.data, "outcome")
    tail = f" ({_short(what)})" if what else ""
    return f"a late result of {_worker(event)} for {_task(event)} was refused{tail}"


def _worker_started(event: Event) -> str:
    pid = _number(event.data, "pid")
    return f"{_worker(event)} started{'' if pid is None else f' (pid {pid:.0f})'}"


def _lost(event: Event) -> str:
    pid = _number(event.data, "pid")
    return (
        f"{_worker(event)} is lost: its process is gone{'' if pid is None else f' (pid {pid:.0f})'}"
    )


def _reset(event: Event) -> str:
    dag = _text(event.data, "dag")
    return f"reset{' to ' + clean_text(dag) if dag else ''}; the log begins anew"


def _alert(event: Event) -> str:
    data = event.data
    message = _text(data, "summary") or _text(data, "message") or _text(data, "error")
    return f"alert: {_short(message)}" if message else "alert"


def _acknowledged(event: Event) -> str:
    alerts = event.data.get("alerts")
    count = len(alerts) if isinstance(alerts, list | tuple) else 1
    return f"{plural(count, 'alert')} {'was' if count == 1 else 'were'} acknowledged"


def _registered(event: Event) -> str:
    kind, name = _text(event.data, "agentType"), _text(event.data, "agentId")
    return f"{_short(name or 'an agent')} was registered" + (f" ({_short(kind)})" if kind else "")


def _unregistered(event: Event) -> str:
    why = _text(event.data, "why")
    said = f"{_short(_text(event.data, 'agentId') or 'an agent')} is registered no more"
    return f"{said}: {_short(why)}" if why else said


def _service(event: Event) -> str:
    name, state = _text(event.data, "service"), _text(event.data, "serviceState")
    why = _text(event.data, "message")
    said = f"service {_short(name or '?')} is {_short(state or '?')}"
    return f"{said}: {_short(why)}" if why else said


def _held(event: Event) -> str:
    why = _text(event.data, "reason")
    until = _again(event, "; they go on", "until")
    return f"claims are held for {_whom(event.agent)}{': ' + _short(why) if why else ''}{until}"


def _plain(words: str) -> Callable[[Event], str]:
    return lambda event: words.format(
        task=_task(event), worker=_worker(event), whom=_whom(event.agent)
    )


_SENTENCES: Mapping[EventType, Callable[[Event], str]] = {
    EventType.TASK_CREATED: _created,
    EventType.TASK_UPDATED: _updated,
    EventType.TASK_READY: _ready,
    EventType.TASK_CLAIMED: _claimed,
    EventType.TASK_STARTED: _plain("{worker} started {task}"),
    EventType.TASK_PROGRESS: _progress,
    EventType.TASK_COMPLETED: _completed,
    EventType.TASK_FAILED: _failed,
    EventType.TASK_BLOCKED: _blocked,
    EventType.TASK_RELEASED: _released,
    EventType.LEASE_EXPIRED: _expired,
    EventType.TASK_CANCELLED: _plain("{task} was cancelled"),
    EventType.TASK_RETRIED: _plain("{task} will be tried again"),
    EventType.TASK_PURGED: _plain("{task} was purged"),
    EventType.ISSUE_TOLD: _plain("the issue of {task} was told of its result"),
    EventType.WORKER_STARTED: _worker_started,
    EventType.WORKER_STOPPING: _plain("{worker} is stopping"),
    EventType.WORKER_STOPPED: _plain("{worker} stopped"),
    EventType.WORKER_KILLED: _plain("{worker} was killed"),
    EventType.WORKER_LOST: _lost,
    EventType.SEEDED: _seeded,
    EventType.RESET: _reset,
    EventType.HELD: _held,
    EventType.RESUMED: _plain("claims are resumed for {whom}"),
    EventType.LATE_RESULT: _late,
    EventType.ALERT: _alert,
    EventType.SERVICE: _service,
    EventType.AGENT_REGISTERED: _registered,
    EventType.AGENT_UNREGISTERED: _unregistered,
    EventType.ALERT_ACKNOWLEDGED: _acknowledged,
}


def _task(event: Event) -> str:
    return clean_text(event.task_id) if event.task_id else "a task"


def _worker(event: Event) -> str:
    return clean_text(event.worker_id) if event.worker_id else "a worker"


def _whom(agent: str | None) -> str:
    return "all agents" if agent in {None, ALL_AGENTS} else clean_text(str(agent))


def _short(text: str) -> str:
    return cut_middle(clean_text(text).strip(), _LONGEST_ERROR)


def _text(data: Mapping[str, Any], key: str) -> str | None:
    value = data.get(key)
    return value if isinstance(value, str) and value else None


def _number(data: Mapping[str, Any], key: str) -> float | None:
    value = data.get(key)
    return value if isinstance(value, int | float) else None


def _moment(data: Mapping[str, Any], key: str) -> datetime | None:
    text = _text(data, key)
    if text is None:
        return None
    try:
        moment = from_iso(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def _outcome(data: Mapping[str, Any]) -> str | None:
    return _text(data, "outcome")


def _reasons(data: Mapping[str, Any]) -> frozenset[Reason]:
    value = data.get("reasons")
    if not isinstance(value, list | tuple):
        return frozenset()
    return frozenset(reason for reason in Reason if reason in value)
