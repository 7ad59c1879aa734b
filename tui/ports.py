"""All that the dashboard needs of the engine, in one page.

`engine.front.Front` is one; tests hand in another whose rows they choose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Mapping, Sequence
    from datetime import datetime

    from engine.clock import Clock
    from engine.commands import Command, OnStep, Receipt, Step
    from engine.config import Config
    from engine.files import Layout
    from engine.filters import Filter
    from engine.model import Event, State
    from engine.views import (
        AttentionRow,
        CriticalPath,
        EventSpan,
        ExternalRow,
        GraphNode,
        Health,
        Metrics,
        Order,
        ProcessRow,
        Progress,
        RunRow,
        ServiceRow,
        TaskDetail,
        TaskRow,
        Usage,
        WorkerRow,
    )


class Queries(Protocol):
    """Short reads of the store."""

    async def progress(self) -> Progress:
        """Return the whole DAG in numbers."""

    async def tasks(
        self, where: Filter = ..., *, limit: int = ..., offset: int = ..., order: Order = ...
    ) -> list[TaskRow]:
        """Return one window of the tasks that match."""

    async def count_tasks(self, where: Filter) -> int:
        """Return how many tasks match."""

    async def locate_task(self, where: Filter, task_id: str, order: Order = ...) -> int | None:
        """Return the task's row in that order, None if it does not match."""

    async def task_ids(self, where: Filter) -> list[str]:
        """Return the ids of all tasks that match."""

    async def agent_counts(self) -> Mapping[str, Mapping[State, int]]:
        """Return how many tasks each agent has, by state."""

    async def workers(self) -> list[WorkerRow]:
        """Return all workers that the store knows."""

    async def externals(self) -> list[ExternalRow]:
        """Return the agents that somebody else has started, in alphabetical order."""

    async def services(self) -> list[ServiceRow]:
        """Return all services that somebody has kept, in alphabetical order."""

    async def runs(
        self,
        task_id: str | None = ...,
        *,
        where: Filter = ...,
        limit: int = ...,
        offset: int = ...,
        order: Order = ...,
    ) -> list[RunRow]:
        """Return one window of the runs that match, newest first unless `order` says otherwise."""

    async def count_runs(self, where: Filter) -> int:
        """Return how many runs match."""

    async def locate_run(self, where: Filter, run_id: str, order: Order = ...) -> int | None:
        """Return the run's row in that order, None if it does not match."""

    async def run(self, run_id: str) -> RunRow | None:
        """Return one run, None if it is gone."""

    async def spans(self, since: datetime, until: datetime, limit: int = ...) -> list[RunRow]:
        """Return the runs that were going on at any moment from `since` to `until`, by start."""

    async def events(self, *, after: int = ..., limit: int = ...) -> list[Event]:
        """Return the first `limit` events past `after`, oldest first."""

    async def event_seqs(self, where: Filter, *, after: int, upto: int) -> list[int]:
        """Return the numbers of the events from `after` + 1 to `upto` that match, ascending."""

    async def events_at(self, seqs: Sequence[int]) -> list[Event]:
        """Return the events with these numbers, ascending; those that are gone are left out."""

    async def event_span(self) -> EventSpan:
        """Return which events there are, by their numbers."""

    async def last_seq(self) -> int:
        """Return the number of the newest event, 0 without any."""

    async def detail(self, task_id: str) -> TaskDetail:
        """Return everything about one task.

        Raises:
            TaskNotFound: there is no such task.

        """

    async def graph(self, around: str | None = ..., *, limit: int = ...) -> list[GraphNode]:
        """Return the tasks as a graph: all of them, unless they are more than `limit`.

        Then those nearest to the task `around`: its deps and dependents, theirs, and so on.
        """

    async def metrics(self) -> Metrics:
        """Return the fleet in numbers: what ever happened, and how things are."""

    async def critical_path(self) -> CriticalPath:
        """Return the chain of unfinished tasks that takes longest."""


class Engine(Protocol):
    """The engine, opened around the app by whoever starts it; it may still be opening."""

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

    @property
    def opening(self) -> Step | None:
        """Return how far the engine is that is not open yet; None once that is over."""

    def begin(self) -> None:
        """Begin to open the engine, if nobody has."""

    @property
    def failure(self) -> BaseException | None:
        """Return why the engine could not be opened; None if it could, or may still be."""

    @property
    def over(self) -> asyncio.Event:
        """Return what is set once it is known how opening went."""

    @property
    def notices(self) -> list[str]:
        """Return what was mended when the store was opened."""

    def changes(self) -> AsyncIterator[None]:
        """Yield once at once, then after every commit by any process."""

    async def execute(
        self,
        command: Command,
        *,
        dry_run: bool = ...,
        on_step: OnStep = ...,
        hurry: asyncio.Event | None = ...,
    ) -> Receipt:
        """Do what an operator asks, or with `dry_run` only say what that would do.

        Raises:
            AgentmuxError: nothing was done.

        """

    async def attention(self) -> list[AttentionRow]:
        """Return what only a person can settle, oldest first."""

    async def health(self) -> Health:
        """Return how the fleet is, and why; without parts, nobody has looked yet."""

    async def alert_text(self, number: int) -> str:
        """Return what an alert tells that does not fit into a line; clean, empty if nothing."""

    async def usage(self) -> Mapping[str, Usage]:
        """Return what the process tree of each run that goes on takes, by run id."""

    async def processes_of(self, run_id: str) -> list[ProcessRow]:
        """Return the process tree of a run, parents before their children."""

    def active_runs(self) -> int:
        """Return how many runs this process has now."""

    def own_workers(self) -> tuple[str, ...]:
        """Return the ids of the workers of this process."""

    async def stop_workers(self, *, drain: bool = ...) -> None:
        """End the workers of this process; their tasks are released, or finished with `drain`."""

    @property
    def workers_wait(self) -> bool:
        """Return whether workers are to start here once all services are ready."""

    def own_services(self) -> tuple[str, ...]:
        """Return the services that this process keeps and that have not ended."""

    async def stop_services(self) -> None:
        """End the services that this process keeps."""
