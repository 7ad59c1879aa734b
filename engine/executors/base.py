"""What an executor is given, and what it must do. It knows nothing of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from engine.model import Needed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from engine.clock import Clock
    from engine.config import Config
    from engine.files import Layout
    from engine.model import Claim, Outcome, ProcessId, Spending, TaskDef


class Progress(Protocol):
    """Tells in words what a run does now, and what it took until now, in all."""

    async def __call__(self, note: str, spending: Spending | None = None) -> None:
        """Tell it; a store that does not take it is no fault of the run."""


async def _nothing() -> None:
    """Begin a run that nobody keeps a record of."""


async def _nobody() -> frozenset[str]:
    """Return the runs before the only one."""
    return frozenset()


async def _none(_runs: Iterable[str]) -> Needed:
    """Return what a fleet of one needs."""
    return Needed()


class RunContext(Struct, frozen=True):
    """One run, as its executor sees it.

    `project` is the folder that relative paths of a payload start from.
    `begin` says that all is prepared and the work begins; one that `prepares` calls it, once.
    `starting` must be called before the executor starts its first process, and `started` be
    awaited with the identity of every process that it starts, before anything else happens to it:
    what is recorded can be ended by others if this host dies. `results` gives those of the task's
    deps, by id; `before` the ids of the runs that this one goes on from, whose attempt it is, too;
    `needed` says which of some runs are not done with.
    """

    claim: Claim
    layout: Layout
    project: Path
    config: Config
    clock: Clock
    starting: Callable[[], None]
    started: Callable[[ProcessId], Awaitable[None]]
    progress: Progress
    results: Callable[[], Awaitable[Mapping[str, Mapping[str, Any] | None]]]
    begin: Callable[[], Awaitable[None]] = _nothing
    before: Callable[[], Awaitable[frozenset[str]]] = _nobody
    needed: Callable[[Iterable[str]], Awaitable[Needed]] = _none

    @property
    def artifacts(self) -> Path:
        """This run's own folder; not made yet."""
        return self.layout.run_folder(self.claim.task.id, self.claim.run_id)

    @property
    def state_dir(self) -> Path:
        """The state folder that the run's tag names."""
        return self.layout.state


class Site(Struct, frozen=True):
    """Where tasks will be carried out: what a RunContext has that is no run's own."""

    layout: Layout
    project: Path
    config: Config


class Checker(Protocol):
    """An executor that can say beforehand that tasks of its kind cannot be carried out."""

    async def preflight(self, tasks: Sequence[TaskDef], site: Site) -> Mapping[str, str]:
        """Return why tasks can never be done as things are, by id; nothing for those that may be.

        Bounded: whoever seeds waits for it. Nothing may be left behind.
        """


class Executor(Protocol):
    """Carries out the tasks of one `payload.kind`.

    `prepares` is True if time passes between the claim and the start of the work (a workspace
    is made, say); the task is CLAIMED for that time, until `context.begin` is called. Otherwise
    claim and start are one step.
    """

    prepares: bool

    async def run(self, context: RunContext) -> Outcome:
        """Do the work and say how it ended.

        Cancellation means stop: end every process of the run, then let CancelledError pass.
        No process of the run may be alive when this returns or raises.
        """


def no_executor(kind: str, known: Iterable[str]) -> str:
    """Say that there is none for a kind of task, and what to do."""
    return (
        f"no executor for kind {kind!r}; known: {', '.join(sorted(known))}; mend the DAG, or "
        "install the package that brings it and restart the workers, then retry the task"
    )
