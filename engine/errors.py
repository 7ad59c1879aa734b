"""What can go wrong, as types. Every error has a code and a sentence that a user can act on.

AgentmuxError
├── ValidationError       VALIDATION_ERROR       a file, an id or a setting is not as it must be
├── TaskNotFound          TASK_NOT_FOUND
├── TaskNotReady          TASK_NOT_READY
├── IllegalTransition     ILLEGAL_TRANSITION     the current state does not allow it
├── LeaseConflict         LEASE_CONFLICT         somebody else holds it
├── LeaseLost             NOT_CLAIMED_BY_WORKER  the run no longer holds its task
├── WorkerNotFound        WORKER_NOT_FOUND
├── CommandNotAllowed     COMMAND_NOT_ALLOWED
└── StorageError          IO_ERROR               disk, permissions, locks, a foreign database
    └── StoreGone         IO_ERROR               its file is no longer where it was opened
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from msgspec import Struct


class Code(StrEnum):
    """The codes that scripts may rely on (DESIGN §4.10)."""

    VALIDATION_ERROR = "VALIDATION_ERROR"
    TASK_NOT_FOUND = "TASK_NOT_FOUND"
    TASK_NOT_READY = "TASK_NOT_READY"
    ILLEGAL_TRANSITION = "ILLEGAL_TRANSITION"
    LEASE_CONFLICT = "LEASE_CONFLICT"
    NOT_CLAIMED_BY_WORKER = "NOT_CLAIMED_BY_WORKER"
    WORKER_NOT_FOUND = "WORKER_NOT_FOUND"
    COMMAND_NOT_ALLOWED = "COMMAND_NOT_ALLOWED"
    IO_ERROR = "IO_ERROR"


class AgentmuxError(Exception):
    """Base of all errors that are meant to reach the user.

    `str(error)` is one sentence: what happened, to what, and what to do.
    """

    code: ClassVar[Code]

    def __str__(self) -> str:
        return " ".join(str(part) for part in self.args)


class Problem(Struct, frozen=True):
    """One fault of a file: where it is and what is wrong.

    `line` counts from 1; 0 means that the fault has no line (a missing file, say).
    `field` is a path such as `tasks[3].deps`, empty where the whole file is meant.
    """

    line: int
    field: str
    message: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.field + ': ' if self.field else ''}{self.message}"


class ValidationError(AgentmuxError):
    """A file, an id or a setting is not as it must be; nothing was changed."""

    code = Code.VALIDATION_ERROR

    def __init__(self, message: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join([str(self.args[0]), *(f"  {problem}" for problem in self.problems)])


class TaskNotFound(AgentmuxError):  # noqa: N818 - the name is the sentence: raise TaskNotFound(id)
    """There is no task with this id."""

    code = Code.TASK_NOT_FOUND

    def __init__(self, task_id: str) -> None:
        super().__init__(f"no task {task_id!r}; `agentmux tasks ls` lists them all")
        self.task_id = task_id


class TaskNotReady(AgentmuxError):  # noqa: N818
    """The task cannot be claimed now."""

    code = Code.TASK_NOT_READY


class IllegalTransition(AgentmuxError):  # noqa: N818
    """The task's current state does not allow what was asked; nothing changed.

    `instead` says what helps, if anything does.
    """

    code = Code.ILLEGAL_TRANSITION

    def __init__(self, task_id: str, state: str, wanted: str, instead: str = "") -> None:
        tail = f"; {instead}" if instead else ""
        super().__init__(f"task {task_id!r} is {state}: cannot {wanted}{tail}")
        self.task_id = task_id
        self.state = state
        self.wanted = wanted


class LeaseConflict(AgentmuxError):  # noqa: N818
    """Somebody else holds what was asked for."""

    code = Code.LEASE_CONFLICT


class LeaseLost(AgentmuxError):  # noqa: N818
    """A write came from a run that no longer holds its task; it changed nothing."""

    code = Code.NOT_CLAIMED_BY_WORKER

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id} no longer holds its task; its result was not taken")
        self.run_id = run_id


class WorkerNotFound(AgentmuxError):  # noqa: N818
    """There is no live worker with this id."""

    code = Code.WORKER_NOT_FOUND


class CommandNotAllowed(AgentmuxError):  # noqa: N818
    """The command is not on the operator's allow-list, or not for this caller."""

    code = Code.COMMAND_NOT_ALLOWED


class StorageError(AgentmuxError):
    """The disk, its permissions, a lock or a foreign database stands in the way."""

    code = Code.IO_ERROR


class StoreGone(StorageError):  # noqa: N818
    """The database was removed or replaced while it was open; it may come back."""
