"""The words of the project as types: tasks, runs, workers, events. No I/O, no decisions.

Python is snake_case here; `to_json` gives the camelCase that every file and `--json` shows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

from msgspec import Struct, field

from engine.clock import to_iso

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
"""Agents and workers; `fullmatch` it. `.` and `..` are refused where names become files."""

ALL_AGENTS = "*"
"""The pseudo agent of a hold on everything."""


class State(StrEnum):
    """Where a task stands. Waiting is not a state: it is READY with unmet deps."""

    READY = "READY"
    CLAIMED = "CLAIMED"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    BLOCKED = "BLOCKED"
    CANCELLED = "CANCELLED"


ACTIVE = frozenset({State.CLAIMED, State.RUNNING})
"""Somebody holds the task."""
FINISHED = frozenset({State.DONE, State.FAILED, State.CANCELLED})
"""Nothing more happens to the task unless an operator asks."""
BROKEN = frozenset({State.FAILED, State.CANCELLED, State.BLOCKED})
"""A dep in one of these blocks what depends on it."""


class Reason(StrEnum):
    """Why a task is BLOCKED. A task may have several; BLOCKED ends with the last."""

    UPSTREAM = "upstream"
    HUMAN = "human"
    REMOVED = "removed"


class EventType(StrEnum):
    """Everything that can stand in the event log."""

    TASK_CREATED = "TASK_CREATED"
    TASK_UPDATED = "TASK_UPDATED"
    TASK_READY = "TASK_READY"
    TASK_CLAIMED = "TASK_CLAIMED"
    TASK_STARTED = "TASK_STARTED"
    TASK_PROGRESS = "TASK_PROGRESS"
    TASK_COMPLETED = "TASK_COMPLETED"
    TASK_FAILED = "TASK_FAILED"
    TASK_BLOCKED = "TASK_BLOCKED"
    TASK_RELEASED = "TASK_RELEASED"
    LEASE_EXPIRED = "LEASE_EXPIRED"
    TASK_CANCELLED = "TASK_CANCELLED"
    TASK_RETRIED = "TASK_RETRIED"
    TASK_PURGED = "TASK_PURGED"
    ISSUE_TOLD = "ISSUE_TOLD"
    WORKER_STARTED = "WORKER_STARTED"
    WORKER_STOPPING = "WORKER_STOPPING"
    WORKER_STOPPED = "WORKER_STOPPED"
    WORKER_KILLED = "WORKER_KILLED"
    WORKER_LOST = "WORKER_LOST"
    SEEDED = "SEEDED"
    RESET = "RESET"
    HELD = "HELD"
    RESUMED = "RESUMED"
    LATE_RESULT = "LATE_RESULT"
    ALERT = "ALERT"
    ALERT_ACKNOWLEDGED = "ALERT_ACKNOWLEDGED"
    SERVICE = "SERVICE"
    AGENT_REGISTERED = "AGENT_REGISTERED"
    AGENT_UNREGISTERED = "AGENT_UNREGISTERED"


class RunOutcome(StrEnum):
    """How a run ended. A run without one is still going."""

    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"
    RELEASED = "released"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    KILLED = "killed"
    TIMED_OUT = "timed out"


class HoldCause(StrEnum):
    """Why claims are held. What an operator holds, only an operator lifts."""

    OPERATOR = "operator"
    LOGIN = "login"
    """The agent's CLI is not logged in."""
    LIMIT = "limit"
    """The agent has reached a limit of its own; lifted when that is over."""
    BUDGET = "budget"
    """The next run could cost more than is left; lifted by a start with a larger budget."""


class WorkerStatus(StrEnum):
    """What the workers table says of a worker; idle or working follows from the task it holds."""

    LIVE = "live"
    STOPPING = "stopping"
    STOPPED = "stopped"
    LOST = "lost"
    KILLED = "killed"


LIVE_WORKERS = frozenset({WorkerStatus.LIVE, WorkerStatus.STOPPING})


class TaskDef(Struct, frozen=True):
    """A task as its DAG file defines it.

    `timeout` is in seconds for one run. `retries` are extra attempts after a failure.
    `payload["kind"]` is always present and names the executor.
    """

    id: str
    name: str
    agent: str
    deps: tuple[str, ...] = ()
    priority: int = 0
    timeout: float = 3600.0
    retries: int = 0
    payload: Mapping[str, Any] = field(default_factory=lambda: {"kind": "noop"})


class AgentRule(Struct, frozen=True):
    """What a DAG says of an agent: at most `limit` runs at once (None: no limit), `stagger`
    seconds between two starts.
    """  # noqa: D205 - one sentence reads better unbroken

    limit: int | None = None
    stagger: float = 0.0


class Dag(Struct, frozen=True):
    """A validated DAG. `tasks` keep the file's order; every dep is one of them; no cycles."""

    tasks: tuple[TaskDef, ...]
    agents: Mapping[str, AgentRule] = field(default_factory=dict)
    source: str = ""


class Event(Struct, frozen=True):
    """One thing that happened. `data` holds what only this type carries."""

    seq: int
    ts: datetime
    type: EventType
    agent: str | None = None
    worker_id: str | None = None
    task_id: str | None = None
    run_id: str | None = None
    state: State | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


class Claim(Struct, frozen=True):
    """A task in a worker's hands, good until `lease_until` unless renewed.

    `run_id` is the token that every later write must name (DESIGN §4.1).
    """

    run_id: str
    task: TaskDef
    worker_id: str
    attempt: int
    state: State
    claimed_at: datetime
    lease_until: datetime


class Spending(Struct, frozen=True):
    """What a run took of what costs money; None is what nobody has told.

    `turns` are answers of the model. `input_tokens` are all that it read, `cached_tokens` those of
    them that came from a cache; `cost` is in US dollars, as the agent's CLI or `prices:` have it.
    """

    turns: int | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None

    @property
    def tokens(self) -> int | None:
        """How many were read and written, in all."""
        if self.input_tokens is None and self.output_tokens is None:
            return None
        return (self.input_tokens or 0) + (self.output_tokens or 0)


class Budget(Struct, frozen=True):
    """What may be spent since the last reset, in US dollars: by all agents, and by some of them."""

    total: float | None = None
    agents: Mapping[str, float] = field(default_factory=dict)


class Outcome(Struct, frozen=True):
    """How an executor's work ended, as it reports it to the worker.

    `kind` is DONE, FAILED, BLOCKED (no retry can help) or RELEASED: it was not to be, through no
    fault of the task, which is READY again, from `not_before` on if there is one, and no retry is
    used. `error` is a sentence for people. `result` must be JSON. `exit_code` is None where no
    process ran. `holds`: claims of its agent are held, for all of its tasks would fare the same,
    until `not_before`, or until it is logged in.
    """

    kind: RunOutcome
    result: Mapping[str, Any] | None = None
    error: str | None = None
    exit_code: int | None = None
    spending: Spending | None = None
    not_before: datetime | None = None
    holds: bool = False


class AlertKind(StrEnum):
    """What was noticed."""

    LOG = "log"
    """Lines of a log that tell of trouble."""
    DELIVERY = "delivery"
    """An alert that cannot be handed to whom it is meant for."""
    SERVICE = "service"
    """A service that does not come up, or is not well."""
    AGENT = "agent"
    """A registered agent that has vanished, or one that nobody has registered."""
    DISK = "disk"
    """Too little room is left where the fleet writes."""


class ServiceState(StrEnum):
    """Where a service stands."""

    STOPPED = "stopped"
    WAITING = "waiting"
    """For what it depends on, or for its next start."""
    STARTING = "starting"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    RECOVERING = "recovering"
    STOPPING = "stopping"
    FAILED = "failed"
    """Nobody starts it again but an operator."""


UP = frozenset(
    {
        ServiceState.STARTING,
        ServiceState.READY,
        ServiceState.UNHEALTHY,
        ServiceState.RECOVERING,
        ServiceState.STOPPING,
    }
)
"""A service in one of these has processes."""


class NewAlert(Struct, frozen=True):
    """Something that was noticed, and that is shown until somebody acknowledges it.

    `subject` is what it is about, as people name it. `summary` is one line, `count` how many things
    it tells of (lines). `body`: a Markdown file that tells more, from the state folder on.
    """

    kind: AlertKind
    subject: str
    summary: str
    error: bool = False
    count: int = 1
    body: str | None = None
    task_id: str | None = None
    run_id: str | None = None


ADOPTED = "adopted"
"""The key in the data of events that an older agentmux told: they are kept, and mean nothing."""
LOOK = "preflight-"
"""What the id of a run begins with that holds no task: it only looks ahead, for seconds."""
NO_WORKTREE = "no worktree: "
"""What the error of a run begins with that got none."""
SERVICE = "service-"
"""What the run id in the tag of a service's processes begins with."""


class Needed(Struct, frozen=True):
    """Runs whose worktrees are still needed, by id.

    `at_work` are those that hold a task or whose tree may still live. `waiting` are over, but the
    attempt is not: the next run of their task goes on where they were.
    """

    at_work: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()


class ProcessId(Struct, frozen=True):
    """A process, safely: a pid alone is reused, a pid with its start time is not.

    `started` is compared, never computed with: `ticks@boot-id` on Linux.
    """

    pid: int
    started: str


class TmuxPlace(Struct, frozen=True):
    """A window or a session of tmux as its server knows it, whatever it is called by now.

    `id`: `@3` a window, `$1` a session. A server never gives one twice.
    """

    id: str
    server: ProcessId


class External(Struct, frozen=True):
    """An agent that somebody else has started: by hand, in tmux, by another tool.

    It is there while its process and its window are; one that has neither must beat. `tmux` is
    what its user calls the window (`session:window`), `place` what that stood for when the agent
    was registered. `meta` is whatever its user wants to know of it.
    """

    id: str
    type: str
    process: ProcessId | None = None
    tmux: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    place: TmuxPlace | None = None


@lru_cache(maxsize=1024)
def camel(name: str) -> str:
    """Turn `lease_until` into `leaseUntil`."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


_PLAIN = frozenset({str, int, float, bool, type(None)})


def to_json(value: Any) -> Any:
    """Turn structs, enums, times and sets into plain JSON values with camelCase keys.

    Keys of plain mappings (payloads, results) are the user's and stay as they are.
    """
    if type(value) in _PLAIN:  # most are; the questions below cost several times as much
        return value
    if isinstance(value, Struct):
        return {camel(name): to_json(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, datetime):
        return to_iso(value)
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = [to_json(item) for item in value]
        return items if isinstance(value, list | tuple) else sorted(items)
    return value
