"""What readers see: frozen rows for the screen, the command line and `--json`. No decisions."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from engine.model import Spending

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from engine.model import (
        AlertKind,
        Event,
        HoldCause,
        Reason,
        RunOutcome,
        ServiceState,
        State,
        WorkerStatus,
    )


TRANSCRIBED = frozenset({"agent"})
"""The kinds of tasks whose runs keep a transcript."""


class Progress(Struct, frozen=True):
    """The whole DAG in numbers.

    `ready` can be claimed, `waiting` has unmet deps or is in backoff; both are State.READY.
    `recent` counts the tasks DONE in each of the last minutes, oldest first, the running
    minute last. `held` names agents whose claims are held (`*`: all), `held_back` counts those of
    `ready` that wait for that. `spending`: what all runs took since the last reset, as far as they
    have told it.
    """

    total: int = 0
    by_state: Mapping[State, int] = field(default_factory=dict)
    ready: int = 0
    waiting: int = 0
    needs_human: int = 0
    held: tuple[str, ...] = ()
    held_back: int = 0
    recent: tuple[int, ...] = ()
    dag: str = ""
    spending: Spending = Spending()


class HoldRow(Struct, frozen=True):
    """Claims that are held: of an agent, or of all (`*`). `reason` in words, if it says one.

    `until`: lifted by itself then; None: never.
    """

    agent: str
    since: datetime
    cause: HoldCause
    reason: str
    until: datetime | None = None


class SpentRow(Struct, frozen=True):
    """What an agent's runs took since the last reset. `runs`: how many told a cost."""

    agent: str
    runs: int
    spending: Spending


class TaskRow(Struct, frozen=True):
    """A task as lists show it. `pending` counts unmet deps; `worker_id` is that of the last run.

    `claimed_by`, `lease_until` and `timeout_at` are None unless a run holds the task. `ending` is
    the former run while its tree may still live: the task cannot be claimed before it is gone.
    `started_at` and `ended_at` are those of the last run. `kind` names the executor.
    """

    id: str
    name: str
    agent: str
    state: State
    deps: tuple[str, ...]
    reasons: tuple[Reason, ...]
    error: str | None
    attempts: int
    retries: int
    priority: int
    pending: int
    claimed_by: str | None
    run_id: str | None
    lease_until: datetime | None
    timeout_at: datetime | None
    not_before: datetime | None
    worker_id: str | None
    started_at: datetime | None
    ended_at: datetime | None
    created_at: datetime
    updated_at: datetime
    ending: str | None = None
    kind: str = ""


class RunRow(Struct, frozen=True):
    """One attempt. `outcome` is None while it goes on. `exit_code` is None without a process.

    `kind` is what its task is for now, empty if that is gone.
    """

    id: str
    task_id: str
    agent: str
    worker_id: str
    attempt: int
    outcome: RunOutcome | None
    claimed_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    exit_code: int | None
    error: str | None
    result: Mapping[str, Any] | None
    spending: Spending = Spending()
    kind: str = ""


class WorkerRow(Struct, frozen=True):
    """A worker. `alive` says whether its process is there now, whatever the table says.

    `task_id`, `run_id`, `run_started_at` and `lease_until` are of the task it holds.
    `own_process`: the process is there for this worker alone, and ends when it is killed.
    """

    id: str
    agent: str
    pid: int
    status: WorkerStatus
    alive: bool
    task_id: str | None
    run_id: str | None
    run_started_at: datetime | None
    lease_until: datetime | None
    started_at: datetime
    beat_at: datetime
    note: str
    own_process: bool = False


class Neighbour(Struct, frozen=True):
    """A dep or a dependent of a task. `state` is None for a task that is gone."""

    id: str
    state: State | None


class TaskDetail(Struct, frozen=True):
    """Everything about one task. `runs` newest first, `events` oldest first, both cut.

    `spending`: what all of its runs took together.
    """

    task: TaskRow
    payload: Mapping[str, Any]
    timeout: float
    result: Mapping[str, Any] | None
    deps: tuple[Neighbour, ...]
    dependents: tuple[Neighbour, ...]
    runs: tuple[RunRow, ...]
    events: tuple[Event, ...]
    explanation: tuple[str, ...]
    spending: Spending = Spending()


class Order(Struct, frozen=True):
    """How a list is sorted: by one of its columns, then by its own order.

    `column` is empty for the list's own order; which others there are, each query says.
    """

    column: str = ""
    descending: bool = False


IN_FILE = Order("file")
"""Tasks in the order of the DAG file."""


class EventSpan(Struct, frozen=True):
    """Which events there are: those numbered from `first` to `last`, but for what was `lost`.

    Old ones may have been forgotten, so the first need not be number 1; without any, `last` is
    below `first`. `lost` are pairs of first and last, ascending, all of them in between.
    """

    first: int = 1
    last: int = 0
    lost: tuple[tuple[int, int], ...] = ()

    @property
    def total(self) -> int:
        """How many there are."""
        return self.last - self.first + 1 - sum(last - first + 1 for first, last in self.lost)

    def place(self, seq: int) -> int | None:
        """Return how many come before the event with this number; None if it is not there."""
        if not self.first <= seq <= self.last:
            return None
        place = seq - self.first
        for first, last in self.lost:
            if seq < first:
                break
            if seq <= last:
                return None
            place -= last - first + 1
        return place

    def seq_at(self, place: int) -> int:
        """Return the number of the event before which there are `place` others."""
        seq = self.first + place
        for first, last in self.lost:
            if seq < first:
                break
            seq += last - first + 1
        return seq


class GraphNode(Struct, frozen=True):
    """A task as the graph shows it. `seconds`: how long its last finished run took, or None."""

    id: str
    name: str
    agent: str
    state: State
    reasons: tuple[Reason, ...]
    pending: int
    deps: tuple[str, ...]
    seconds: float | None = None


class CriticalPath(Struct, frozen=True):
    """The chain of unfinished tasks that takes longest: what decides when the work is over.

    `seconds` is estimated from the durations of finished runs (of the agent, else of all), with
    what has already run taken off; None while nothing has finished. `ids` in the order of work.
    """

    ids: tuple[str, ...] = ()
    seconds: float | None = None


class Need(StrEnum):
    """Why something needs a person."""

    HUMAN = "human"
    """BLOCKED `human`: it waits for somebody."""
    EXHAUSTED = "exhausted"
    """FAILED, and no retry is left."""
    STALE = "stale"
    """A worker gives no sign of life."""
    ORPHAN = "orphan"
    """Processes of a run whose worker is gone."""
    ALERT = "alert"
    """Anything else that `health` tells."""


class HealthStatus(StrEnum):
    """How something is, from good to bad."""

    OK = "ok"
    WARNING = "warning"
    """Somebody should look at it."""
    DEGRADED = "degraded"
    """Something is wrong."""


class HealthPart(Struct, frozen=True):
    """How a part of the fleet is, and what is not as it should be: clean sentences, worst first."""

    name: str
    status: HealthStatus = HealthStatus.OK
    reasons: tuple[str, ...] = ()


class Health(Struct, frozen=True):
    """How the fleet is: as its worst part. Without parts, nobody has looked yet."""

    status: HealthStatus = HealthStatus.OK
    parts: tuple[HealthPart, ...] = ()


class Counter(StrEnum):
    """What is counted by agent, from the first event on; nothing ever lowers it."""

    LAUNCHED = "launched"
    """Runs that claimed a task."""
    WORKTREE_ERRORS = "worktree_errors"
    """Runs that ended because they got no worktree."""
    PULL_REQUESTS = "pull_requests"
    """Runs that ended with a pull request."""
    ALERTS = "alerts"
    """Alerts, of no agent."""


DURATION_BOUNDS = (1, 5, 15, 60, 300, 900, 3600)
"""Seconds: how long runs took is counted in classes that end with these, and one beyond."""


class Durations(Struct, frozen=True):
    """How long the runs of an agent took that ended in one way, from their start (or claim) on.

    `buckets` count those that took at most as many seconds as DURATION_BOUNDS say, each with those
    before it; `count` counts all of them, `seconds` is what they took together.
    """

    agent: str
    outcome: RunOutcome
    buckets: tuple[int, ...]
    count: int
    seconds: float


class AgentTotals(Struct, frozen=True):
    """What ever happened to an agent: how many runs it began, how they ended, what they took."""

    agent: str
    launched: int
    durations: tuple[Durations, ...]
    spent: Spending

    def ended(self, *outcomes: RunOutcome) -> int:
        """Count its runs that ended in one of these ways, or (none named) in any."""
        return sum(one.count for one in self.durations if not outcomes or one.outcome in outcomes)

    @property
    def mean_seconds(self) -> float | None:
        """How long its runs took that ended, on average; None: none has."""
        count = self.ended()
        return sum(one.seconds for one in self.durations) / count if count else None


class Metrics(Struct, frozen=True):
    """The fleet in numbers: what ever happened, and how things are now.

    `counters` by agent (empty: of none). `spent`: what each agent ever took, resets or not. `tasks`
    counts by agent and state, `workers` those that live, by agent, `services` those that are up.
    `oldest_running`: for how many seconds the oldest run has been at work, None if none is.
    """

    counters: Mapping[Counter, Mapping[str, int]] = field(default_factory=dict)
    durations: tuple[Durations, ...] = ()
    spent: Mapping[str, Spending] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[State, int]] = field(default_factory=dict)
    workers: Mapping[str, int] = field(default_factory=dict)
    services: int = 0
    oldest_running: float | None = None

    def of_agents(self) -> list[AgentTotals]:
        """Return what ever happened to each agent that had a run, in alphabetical order."""
        launched = self.counters.get(Counter.LAUNCHED, {})
        agents = sorted({*launched, *(one.agent for one in self.durations), *self.spent})
        return [
            AgentTotals(
                agent,
                launched.get(agent, 0),
                tuple(one for one in self.durations if one.agent == agent),
                self.spent.get(agent, Spending()),
            )
            for agent in agents
        ]

    def total(self, counter: Counter) -> int:
        """Return a counter of all agents."""
        return sum(self.counters.get(counter, {}).values())


class AttentionRow(Struct, frozen=True):
    """One thing that only a person can settle: what it is about, since when, and what to do.

    `key` tells it from all others for as long as it lasts. `words` are not cleaned. `agent`: the
    one that no worker serves; `held`: the one whose claims are held. `alert`: the number of an
    alert, which is over once somebody acknowledges it.
    """

    key: str
    need: Need
    subject: str
    since: datetime
    words: str
    task_id: str | None = None
    worker_id: str | None = None
    agent: str | None = None
    held: str | None = None
    alert: int | None = None


class AlertRow(Struct, frozen=True):
    """Something that was noticed at `ts`; `acknowledged_at`: None, nobody has yet.

    `body`: a Markdown file that tells more, from the state folder on. `undelivered` says of each
    target that it cannot be handed to why not.
    """

    id: int
    ts: datetime
    error: bool
    kind: AlertKind
    subject: str
    summary: str
    count: int
    body: str | None
    task_id: str | None
    run_id: str | None
    acknowledged_at: datetime | None
    undelivered: Mapping[str, str] = field(default_factory=dict)


class ExternalRow(Struct, frozen=True):
    """An agent that somebody else has started, and told of. `pid` and `tmux`: where it is."""

    id: str
    type: str
    pid: int | None
    tmux: str | None
    meta: Mapping[str, str]
    registered_at: datetime
    beat_at: datetime


class ServiceRow(Struct, frozen=True):
    """A service. `message` says why it stands so, if that needs saying; `pid` leads its tree.

    `keeper` is the process that keeps it, None if none does. `recovery` is empty, or what became of
    the last one: in progress, complete, failed.
    """

    name: str
    state: ServiceState
    since: datetime
    message: str
    port: int | None
    pid: int | None
    restarts: int
    recovery: str
    keeper: int | None


class Usage(Struct, frozen=True):
    """What the process tree of a run takes: CPU in percent of one core, memory in bytes.

    `cpu` is None at the first look: a share needs two.
    """

    cpu: float | None
    memory: int
    processes: int


class ProcessRow(Struct, frozen=True):
    """A process of a run's tree; `depth` 0 is the run's first. `cpu` and `memory` as in Usage."""

    pid: int
    depth: int
    command: str
    cpu: float | None
    memory: int
    started_at: datetime
