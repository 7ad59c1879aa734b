"""All that the dashboard needs of the engine, in one page.

`engine.core.Engine` is one; tests hand in another whose rows they choose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from engine.clock import Clock
    from engine.commands import Command, Receipt
    from engine.config import Config
    from engine.files import Layout
    from engine.filters import TaskFilter
    from engine.model import Event
    from engine.views import Progress, TaskDetail, TaskRow, WorkerRow


class Queries(Protocol):
    """Short reads of the store."""

    async def progress(self) -> Progress:
        """Return the whole DAG in numbers."""

    async def tasks(
        self,
        where: TaskFilter = ...,
        *,
        limit: int = ...,
        offset: int = ...,
        order: Literal["screen", "file"] = ...,
    ) -> list[TaskRow]:
        """Return one window of the tasks that match."""

    async def count_tasks(self, where: TaskFilter) -> int:
        """Return how many tasks match."""

    async def locate_task(self, where: TaskFilter, task_id: str) -> int | None:
        """Return the task's row in screen order, None if it does not match."""

    async def workers(self) -> list[WorkerRow]:
        """Return all workers that the store knows."""

    async def events(self, *, after: int = ..., limit: int = ...) -> list[Event]:
        """Return the first `limit` events past `after`, oldest first."""

    async def last_seq(self) -> int:
        """Return the number of the newest event, 0 without any."""

    async def detail(self, task_id: str) -> TaskDetail:
        """Return everything about one task.

        Raises:
            TaskNotFound: there is no such task.

        """


class Engine(Protocol):
    """The engine, opened around the app by whoever starts it."""

    @property
    def config(self) -> Config:
        """Return the operator's settings."""

    @property
    def layout(self) -> Layout:
        """Return where everything lies on disk."""

    @property
    def queries(self) -> Queries:
        """Return the reads."""

    @property
    def clock(self) -> Clock:
        """Return the time."""

    def changes(self) -> AsyncIterator[None]:
        """Yield once at once, then after every commit by any process."""

    async def execute(self, command: Command, *, dry_run: bool = ...) -> Receipt:
        """Do what an operator asks."""

    def active_runs(self) -> int:
        """Return how many runs this process has now."""

    async def stop_workers(self, *, drain: bool = ...) -> None:
        """End the workers of this process; their tasks are released, or finished with `drain`."""
