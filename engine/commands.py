"""What an operator can ask, as values. `Engine.execute` is the only door that takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct, field

from engine.filters import Filter
from engine.model import ALL_AGENTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from engine.errors import Code
    from engine.model import Dag, External

Tasks = tuple[str, ...] | Filter
"""The tasks that a command is for: by id, or all that a filter finds when it is carried out."""

Workers = tuple[str, ...] | None
"""The workers that a command is for, by id; None: all that live."""


class Seed(Struct, frozen=True):
    """Upsert the tasks of a DAG file. None: the file last seeded, else agentmux/dag.yaml.

    `dag` is what is in the file, from whoever has read it already.
    """

    path: Path | None = None
    dag: Dag | None = None


class Reset(Struct, frozen=True):
    """Hold claims, stop all workers, rotate the log, reseed, resume.

    Waits `timeout` seconds for the workers; refuses with the names of those that still live,
    unless `force`: then they are killed. `fresh` also retries every task that is in the DAG.
    """

    path: Path | None = None
    force: bool = False
    timeout: float = 15.0
    fresh: bool = False


class Hold(Struct, frozen=True):
    """No new claims for an agent, or for all."""

    agent: str = ALL_AGENTS


class Resume(Struct, frozen=True):
    """Claims again."""

    agent: str = ALL_AGENTS


class Release(Struct, frozen=True):
    """Take tasks from their workers and make them READY; uses no retry."""

    tasks: Tasks


class Cancel(Struct, frozen=True):
    """End tasks for good: unfinished ones become CANCELLED, their runs are ended."""

    tasks: Tasks


class Kill(Struct, frozen=True):
    """End the runs of tasks, which become FAILED. `force`: SIGKILL at once."""

    tasks: Tasks
    force: bool = False


class Retry(Struct, frozen=True):
    """Make tasks READY again that are finished, or BLOCKED `human`; attempts count afresh.

    `downstream`: and every finished task that depends on them, however far down.
    """

    tasks: Tasks
    downstream: bool = False


class Purge(Struct, frozen=True):
    """Remove tasks and their runs from the store; an unfinished one is cancelled first."""

    tasks: Tasks


class Stop(Struct, frozen=True):
    """Stop workers: at once, their tasks released, or with `drain` after the current task."""

    workers: Workers
    drain: bool = False


class KillWorkers(Struct, frozen=True):
    """End the runs of workers, which are FAILED, then the workers and the processes of their own.

    `force`: SIGKILL at once.
    """

    workers: Workers
    force: bool = False


class AddWorkers(Struct, frozen=True):
    """Start `count` more workers for an agent in this process."""

    agent: str
    count: int = 1


class Acknowledge(Struct, frozen=True):
    """Take alerts off the list of what needs a person, by number; None: all of them."""

    alerts: tuple[int, ...] | None


class RegisterAgent(Struct, frozen=True):
    """Let an agent that somebody else has started be known; again, to change what is known."""

    agent: External


class BeatAgents(Struct, frozen=True):
    """Say that registered agents are alive."""

    agents: tuple[str, ...]


class UnregisterAgents(Struct, frozen=True):
    """Forget registered agents. `end`: their process or window is ended first."""

    agents: tuple[str, ...]
    end: bool = False


class StartServices(Struct, frozen=True):
    """Start services, and what they depend on; None: all."""

    services: tuple[str, ...] | None


class StopServices(Struct, frozen=True):
    """End services, and all that they have started; None: all."""

    services: tuple[str, ...] | None


class RestartServices(Struct, frozen=True):
    """End services and start them anew; None: all."""

    services: tuple[str, ...] | None


OnTasks = Release | Cancel | Kill | Retry | Purge
OnWorkers = Stop | KillWorkers
OnAgents = RegisterAgent | BeatAgents | UnregisterAgents
OnServices = StartServices | StopServices | RestartServices
OnFleet = Seed | Reset | Hold | Resume | AddWorkers | Acknowledge
Command = OnFleet | OnTasks | OnWorkers | OnAgents | OnServices


class Step(Struct, frozen=True):
    """How far a long piece of work is: what is done now, and what comes next.

    `count` is how many (tasks, events) are through. While workers are waited for, `waiting_for`
    names them and `seconds_left` says how long still.
    """

    what: str
    count: int = 0
    waiting_for: tuple[str, ...] = ()
    seconds_left: float | None = None
    next: str = ""


GIVEN_UP = "the reset is given up"
"""What the last step of a reset says that was given up; its `next` says how things stand then."""

OnStep = Callable[[Step], None]
"""Is told each Step, possibly on another thread."""

NEEDS_YOU = "needs you: "
"""How a receipt begins to say why a task cannot be done before somebody has seen to something."""


class Refusal(Struct, frozen=True):
    """Why one part of a command was not done."""

    subject: str
    code: Code
    message: str


class EndedRun(Struct, frozen=True):
    """A run that a command ends, or would end, and the processes of its tree at that moment."""

    run_id: str
    task_id: str
    worker_id: str
    pids: tuple[int, ...] = ()


class Receipt(Struct, frozen=True):
    """What a command did or, after a dry run, would do.

    `done` says for each subject (a task, a worker, an agent) what happened to it, in words.
    `counts` sums them up, for example `created: 3`. `ends` are the runs whose trees are ended.
    """

    dry_run: bool = False
    done: Mapping[str, str] = field(default_factory=dict)
    refused: tuple[Refusal, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    ends: tuple[EndedRun, ...] = ()
