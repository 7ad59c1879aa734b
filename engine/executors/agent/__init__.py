"""The executor that runs a coding agent's CLI in a git worktree of its own.

executor     one run from its worktree to its outcome
planning     what a task asks for, checked before anything is made
following    the transcript as it grows: what the agent does now, and what it takes
watching     what ends a program from outside: a file STOP, that it is through and stays
reporting    how it ended, and whether what was expected is there
"""

from __future__ import annotations

from engine.executors.agent.executor import AgentExecutor

__all__ = ["AgentExecutor"]
