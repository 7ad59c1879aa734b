"""What was seen of a fleet, and what can be told of it: alerts of a kind, which concern a part."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from engine.disks import Disk
    from engine.findings import Level
    from engine.model import ProcessId
    from engine.store.vitals import Vitals


class Kind(StrEnum):
    """What an alert is about."""

    STUCK = "stuck"
    QUEUE = "queue"
    UNSERVED = "unserved"
    STALE = "stale"
    HELD = "held"
    LOGIN = "login"
    BUDGET = "budget"
    UNPRICED = "unpriced"
    FEED = "feed"
    RESET = "reset"
    ORPHAN = "orphan"
    ENDING = "ending"
    INCONSISTENCY = "inconsistency"
    FAILING = "failing"
    WORKTREES = "worktrees"
    DISK = "disk"
    SERVICE = "service"
    NOTICED = "noticed"


class Part(StrEnum):
    """What of the fleet may be well while something else is not."""

    STORE = "store"
    WORKERS = "workers"
    TASKS = "tasks"
    PROCESSES = "processes"
    WORKTREES = "worktrees"
    DISKS = "disks"
    AGENTS = "agents"
    SERVICES = "services"
    ISSUES = "issues"
    ALERTS = "alerts"


PARTS = {
    Kind.INCONSISTENCY: Part.STORE,
    Kind.RESET: Part.STORE,
    Kind.STALE: Part.WORKERS,
    Kind.UNSERVED: Part.WORKERS,
    Kind.STUCK: Part.TASKS,
    Kind.QUEUE: Part.TASKS,
    Kind.FAILING: Part.TASKS,
    Kind.ORPHAN: Part.PROCESSES,
    Kind.ENDING: Part.PROCESSES,
    Kind.WORKTREES: Part.WORKTREES,
    Kind.DISK: Part.DISKS,
    Kind.HELD: Part.AGENTS,
    Kind.LOGIN: Part.AGENTS,
    Kind.BUDGET: Part.AGENTS,
    Kind.UNPRICED: Part.AGENTS,
    Kind.SERVICE: Part.SERVICES,
    Kind.FEED: Part.ISSUES,
    Kind.NOTICED: Part.ALERTS,
}
NEEDS_NOBODY = frozenset({Kind.QUEUE, Kind.HELD})
"""Work that goes on as it can, and what somebody wanted: told, but nothing is amiss."""


class Alert(Struct, frozen=True):
    """One thing to look at. `subject` is the id of the task, worker, run or agent it is about.

    `message` says what is so and what to do.
    """

    level: Level
    kind: Kind
    subject: str | None
    message: str


class Facts(Struct, frozen=True):
    """What was seen at `now`. `alive` are the hosts that live, of all that `vitals` names.

    `processes` are those that carry the tag of a run, or why they cannot be known. `stale_after`
    is in seconds; `feed` is the repository whose issues the settings want as tasks, if any.
    `worktree_failures`: how many worktrees in a row could not be made.
    `disks`: those that the fleet writes to.
    """

    now: datetime
    vitals: Vitals
    alive: frozenset[ProcessId]
    processes: Mapping[ProcessId, str] | str = field(default_factory=dict)
    stale_after: float = 15.0
    feed: str | None = None
    worktree_failures: int = 0
    disks: tuple[Disk, ...] = ()
