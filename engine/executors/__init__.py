"""The executors that come with agentmux, by `payload.kind`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.executors.agent import AgentExecutor
from engine.executors.mcp import McpExecutor
from engine.executors.noop import NoopExecutor
from engine.executors.shell import ShellExecutor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.executors.base import Executor


def builtin_executors() -> Mapping[str, Executor]:
    """Return a fresh set of them; what one needs beside agentmux it says once a task comes."""
    return {
        "noop": NoopExecutor(),
        "shell": ShellExecutor(),
        "agent": AgentExecutor(),
        "mcp-call": McpExecutor(),
    }
