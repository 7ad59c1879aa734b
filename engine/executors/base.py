"""What an executor is given, and what it must do. It knows nothing of the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from engine.clock import Clock
    from engine.config import Config
    from engine.model import Claim, Outcome, ProcessId


@dataclass(frozen=True, slots=True)
class RunContext:
    """One run, as its executor sees it.

    `artifacts` is this run's own folder; it is not made until an executor needs it.
    `project` is the folder that relative paths of a payload start from.
    `started` must be awaited with the identity of every process the executor starts, before
    anything else happens to it: what is recorded can be ended by others if this host dies.
    """

    claim: Claim
    artifacts: Path
    project: Path
    state_dir: Path
    config: Config
    clock: Clock
    started: Callable[[ProcessId], Awaitable[None]]
    progress: Callable[[str], Awaitable[None]]


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
