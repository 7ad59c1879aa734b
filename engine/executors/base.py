"""What an executor is given, and what it must do. It knows nothing of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from engine.clock import Clock
    from engine.config import Config
    from engine.files import Layout
    from engine.model import Claim, Outcome, ProcessId


class RunContext(Struct, frozen=True):
    """One run, as its executor sees it.

    `project` is the folder that relative paths of a payload start from.
    `starting` must be called before the executor starts its first process, and `started` be
    awaited with the identity of every process that it starts, before anything else happens to it:
    what is recorded can be ended by others if this host dies.
    """

    claim: Claim
    layout: Layout
    project: Path
    config: Config
    clock: Clock
    starting: Callable[[], None]
    started: Callable[[ProcessId], Awaitable[None]]
    progress: Callable[[str], Awaitable[None]]

    @property
    def artifacts(self) -> Path:
        """This run's own folder; not made yet."""
        return self.layout.run_folder(self.claim.task.id, self.claim.run_id)

    @property
    def state_dir(self) -> Path:
        """The state folder that the run's tag names."""
        return self.layout.state


class Executor(Protocol):
    """Carries out the tasks of one `payload.kind`.

    `prepares` is True if time passes between the claim and the start of the work (a workspace
    is made, say); the task is CLAIMED for that time. Otherwise claim and start are one step.
    """

    prepares: bool

    async def run(self, context: RunContext) -> Outcome:
        """Do the work and say how it ended.

        Cancellation means stop: end every process of the run, then let CancelledError pass.
        No process of the run may be alive when this returns or raises.
        """
