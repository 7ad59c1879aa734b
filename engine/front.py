"""The engine as a screen has it from its first moment: reads at once, and all else once it is open.

Opening takes several times as long as a look at the store: it imports the engine, mends what it
must, takes its place among the hosts. Until then `queries` reads over a connection of its own,
commands wait, and `opening` says how far it is.

    async with Front(Path("state"), after=start_working) as front:
        await Dashboard(front).run_async()
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from engine.clock import Clock, SystemClock
from engine.commands import Step
from engine.config import Config, load_config, settings_file
from engine.errors import StorageError, ValidationError
from engine.files import Layout
from engine.store.queries import Queries
from engine.store.reader import Reader
from engine.views import Health

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from types import TracebackType

    from engine.commands import Command, OnStep, Receipt
    from engine.core import Engine
    from engine.model import ProcessId
    from engine.views import AttentionRow, ProcessRow, Usage


class Front:
    """An engine that may still be opening. `after` is done with it as soon as it is open.

    `failure` is what opening ended with, if it failed: nothing but the reads works then.
    `over` is set once it is known how opening went.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        project: Path | None = None,
        read_only: bool = False,
        after: Callable[[Engine], Awaitable[object]] | None = None,
    ) -> None:
        self.layout = Layout(state_dir.absolute())
        self.project = (project or Path.cwd()).absolute()
        self.clock: Clock = SystemClock()
        self.read_only = read_only
        self._early_config = self._load_config()
        self.opening: Step | None = Step("opening the store")
        self.failure: BaseException | None = None
        self.over = asyncio.Event()
        self._after = after
        self._reader = Reader(self.layout.database)
        self._early = Queries(self._reader, self.clock, _seems_alive)
        self._engine: Engine | None = None
        self._task: asyncio.Task[None] | None = None
        self._orders: set[asyncio.Task[Receipt]] = set()
        self._stack = AsyncExitStack()

    def _load_config(self) -> Config:
        try:
            path = settings_file(self.project, self.layout.state)
            return load_config(
                path, only=("stale_after", "services")
            )  # what the first picture needs
        except ValidationError:
            if not self.read_only:
                raise
            return Config()  # the engine says so when it opens

    async def __aenter__(self) -> Self:
        try:
            await self._reader.__aenter__()
        except StorageError:
            # No store yet, or one that has to be mended first: nothing to be seen before that.
            self.begin()
        return self

    def begin(self) -> None:
        """Begin to open the engine; a second time does nothing.

        Not done at once where there is something to be seen: both would take twice as long.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._open(), name="opening the engine")

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # From the last to the first, each whatever becomes of the others: what stays open keeps
        # the process alive.
        steps = AsyncExitStack()
        steps.push_async_callback(self._reader.close)
        steps.push_async_exit(self._stack)
        steps.push_async_callback(self._give_up)
        await steps.__aexit__(kind, error, traceback)

    async def _give_up(self) -> None:
        """Give up the opening and what is being carried out; wait until all is left in order.

        Whoever asked may be gone without having waited: Textual cancels its workers, no more.
        """
        going_on: list[asyncio.Task[Any]] = [*self._orders]
        if self._task is not None:
            going_on.append(self._task)
        for task in going_on:
            if not task.cancelling():
                task.cancel()
        if going_on:
            await asyncio.wait(going_on)

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            engine = await asyncio.to_thread(self._make, loop)
            await self._stack.enter_async_context(engine)
            if self._after is not None:
                await self._after(engine)
            self._engine = engine
        except Exception as error:  # noqa: BLE001 - whoever opened the front is told, see `failure`
            self.failure = error
        finally:
            self.opening = None
            self.over.set()

    def _make(self, loop: asyncio.AbstractEventLoop) -> Engine:
        from engine.core import Engine  # noqa: PLC0415 - what takes the time; see above

        def on_step(step: Step) -> None:
            loop.call_soon_threadsafe(self._tell, step)

        return Engine(
            self.layout.state,
            project=self.project,
            read_only=self.read_only,
            keeps_services=not self.read_only,
            on_step=on_step,
        )

    def _tell(self, step: Step) -> None:
        if not self.over.is_set():
            self.opening = step

    async def _opened(self) -> Engine:
        await self.over.wait()
        if self._engine is None:
            raise StorageError("the engine could not be opened") from self.failure
        return self._engine

    # -- what a screen asks for ------------------------------------------------------------

    @property
    def config(self) -> Config:
        """Return the settings; until the engine is open, only what a picture needs of them."""
        return self._early_config if self._engine is None else self._engine.config

    @property
    def queries(self) -> Queries:
        """Return the reads."""
        return self._early if self._engine is None else self._engine.queries

    @property
    def notices(self) -> list[str]:
        """Return what was mended when the store was opened."""
        return [] if self._engine is None else self._engine.notices

    async def changes(self) -> AsyncIterator[None]:
        """Yield once at once, then when the engine is open, then after every commit.

        Nothing follows if it could not be opened: `failure` says why.
        """
        yield
        await self.over.wait()
        if self._engine is None:
            return  # `failure` says why; nothing will change
        async for _ in self._engine.changes():
            yield

    async def execute(
        self,
        command: Command,
        *,
        dry_run: bool = False,
        on_step: OnStep = lambda _step: None,
        hurry: asyncio.Event | None = None,
    ) -> Receipt:
        """Do what an operator asks, as soon as the engine is open; see Engine.execute."""
        engine = await self._opened()
        order = asyncio.create_task(
            engine.execute(command, dry_run=dry_run, on_step=on_step, hurry=hurry),
            name=f"carrying out {type(command).__name__}",
        )
        self._orders.add(order)
        order.add_done_callback(self._orders.discard)
        try:
            return await asyncio.shield(order)
        except asyncio.CancelledError:
            if not order.cancelling():
                order.cancel()  # once: another one would cut short how it is given up
            await asyncio.wait({order})
            return order.result()

    async def attention(self) -> list[AttentionRow]:
        """Return what only a person can settle; nothing is known before the engine is open."""
        return [] if self._engine is None else await self._engine.attention()

    async def health(self) -> Health:
        """Return how the fleet is; nothing is known before the engine is open."""
        return Health() if self._engine is None else await self._engine.health()

    async def alert_text(self, number: int) -> str:
        """Return what an alert tells that does not fit into a line."""
        return "" if self._engine is None else await self._engine.alert_text(number)

    async def usage(self) -> Mapping[str, Usage]:
        """Return what the process tree of each run takes; nothing before the engine is open."""
        return {} if self._engine is None else await self._engine.usage()

    async def processes_of(self, run_id: str) -> list[ProcessRow]:
        """Return the process tree of a run."""
        return await (await self._opened()).processes_of(run_id)

    def active_runs(self) -> int:
        """Count the runs of this process."""
        return 0 if self._engine is None else self._engine.active_runs()

    def own_workers(self) -> tuple[str, ...]:
        """Return the ids of the workers of this process."""
        return () if self._engine is None else self._engine.own_workers()

    async def stop_workers(self, *, drain: bool = False) -> None:
        """End the workers of this process; see Engine.stop_workers."""
        if self._engine is not None:
            await self._engine.stop_workers(drain=drain)

    @property
    def workers_wait(self) -> bool:
        """Return whether workers are to start here once all services are ready."""
        return self._engine is not None and self._engine.workers_wait

    def own_services(self) -> tuple[str, ...]:
        """Return the services that this process keeps and that have not ended."""
        return () if self._engine is None else self._engine.own_services()

    async def stop_services(self) -> None:
        """End the services that this process keeps."""
        if self._engine is not None:
            await self._engine.stop_services()


def _seems_alive(process: ProcessId) -> bool:
    from engine.processes.signalling import seems_alive  # noqa: PLC0415 - loads psutil

    return seems_alive(process)
