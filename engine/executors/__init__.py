"""The executors that come with agentmux, by `payload.kind`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.executors.noop import NoopExecutor
from engine.executors.shell import ShellExecutor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.executors.base import Executor


def builtin_executors() -> Mapping[str, Executor]:
    """Return a fresh set of the executors that need nothing but agentmux itself."""
    return {"noop": NoopExecutor(), "shell": ShellExecutor()}
