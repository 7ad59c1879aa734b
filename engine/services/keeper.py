"""Who keeps services: one process of a state folder at a time, whoever has the lock.

It obeys what operators ask through the store, from any process, and ends all services when it
ends. If it is killed its guard ends their processes.
"""

from __future__ import annotations

import asyncio
import logging
import os
from functools import partial
from typing import TYPE_CHECKING

from engine.errors import AgentmuxError, LeaseConflict, StorageError
from engine.files import private, take_lock
from engine.processes.guard import Guard
from engine.processes.signalling import seems_alive
from engine.services.keeping import Kept
from engine.shield import shielded
from engine.store.services import RESTART, START, STOP

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from pathlib import Path

    from engine.clock import Clock
    from engine.config import ServiceConfig
    from engine.feed import Feed
    from engine.files import Layout
    from engine.model import NewAlert, ProcessId, ServiceState
    from engine.store.lookout import Lookout
    from engine.store.services import Standing
    from engine.store.store import Store

log = logging.getLogger(__name__)

_TEND = 1.0
_TURN = 0.05
"""Seconds between two looks whether a service that is started anew has begun."""


class Keeper:
    """The services of one state folder, from `open` to `close`."""

    def __init__(
        self,
        *,
        services: Mapping[str, ServiceConfig],
        targets: tuple[str, ...],
        me: ProcessId,
        store: Store,
        lookout: Lookout,
        feed: Feed,
        layout: Layout,
        project: Path,
        clock: Clock,
        watch: Callable[[], Awaitable[None]],
    ) -> None:
        """`watch` begins to hand alerts on, in this process if no other does."""
        self._me = me
        self._targets = targets
        self._store = store
        self._lookout = lookout
        self._feed = feed
        self._layout = layout
        self._watch = watch
        self._guard = Guard(layout.state)
        self._kept = {
            name: Kept(
                name,
                config,
                layout=layout,
                project=project,
                clock=clock,
                guard=self._guard,
                note=self._note,
                until_up=self._waits_for(config.depends_on),
            )
            for name, config in services.items()
        }
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._coming: set[str] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._handle: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether this process keeps the services."""
        return self._handle is not None

    async def open(self) -> None:
        """Keep the services from now on; none is started yet.

        Raises:
            LeaseConflict: another process keeps them.
            StorageError: the lock or the store refuses.

        """
        try:
            self._layout.services.mkdir(mode=0o700, exist_ok=True)
            path = self._layout.services_lock
            handle = private(str(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        except OSError as error:
            raise StorageError(f"{error.filename}: {error.strerror}") from error
        if not take_lock(handle):
            os.close(handle)
            raise LeaseConflict(await self._who_keeps())
        self._handle = handle
        for known in await self._lookout.known_services():
            if known.run_id is not None and known.name in self._kept:
                self._kept[known.name].knows(known.run_id, known.leader)
        ports = {name: kept.config.port for name, kept in self._kept.items()}
        await self._store.enter_services(ports, self._me)
        await self._watch()
        self._loops = [
            asyncio.create_task(self._listen(), name="services"),
            asyncio.create_task(self._tend(), name="guard of services"),
        ]

    async def _who_keeps(self) -> str:
        keepers = {known.keeper for known in await self._lookout.known_services()}
        who = "".join(f" ({one.pid})" for one in keepers if one is not None and seems_alive(one))
        return (
            f"another process{who} keeps the services already; `agentmux services` steers them "
            "there, or end it first"
        )

    async def close(self) -> None:
        """End all services, those that depend on others first."""
        if self._handle is None:
            return
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await shielded(self._stop_all())
        await asyncio.to_thread(self._guard.close)
        os.close(self._handle)
        self._handle = None

    def names(self, wanted: Iterable[str] | None = None) -> list[str]:
        """Return the services that are wanted, with all that they depend on, deps first."""
        listed: list[str] = []

        def add(name: str) -> None:
            if name not in listed:
                for dep in self._kept[name].config.depends_on:
                    add(dep)
                listed.append(name)

        for name in self._kept if wanted is None else wanted:
            add(name)
        return listed

    def start(self, names: Iterable[str] | None = None) -> list[str]:
        """Begin to start services (None: all) and what they depend on; return whose was begun."""
        begun = [name for name in self.names(names) if name not in self._lives]
        for name in begun:
            life = asyncio.create_task(self._kept[name].run(), name=f"service {name}")
            self._lives[name] = life
            life.add_done_callback(partial(self._over, name))
        return begun

    async def stop(self, names: Iterable[str]) -> list[str]:
        """End services and wait; return those that were running."""
        lives = {name: self._lives[name] for name in names if name in self._lives}
        for life in lives.values():
            life.cancel()
        if lives:
            await asyncio.wait(lives.values())
        return list(lives)

    async def restart(self, names: Iterable[str]) -> None:
        """End services and begin them anew; who waits until they are ready goes on waiting."""
        coming = [*names]
        self._coming.update(coming)
        try:
            await self.stop(coming)
            self.start(coming)
        finally:
            self._coming.difference_update(coming)

    @property
    def alive(self) -> tuple[str, ...]:
        """The services that are being started, kept or ended here."""
        return tuple(name for name in self._kept if name in self._lives)

    async def until_ready(self, names: Iterable[str] | None = None) -> list[str]:
        """Wait until services are ready; return those that will not be, or wait for such."""
        looks: dict[str, asyncio.Task[bool]] = {}

        async def ready(name: str) -> bool:
            deps = [looks[dep] for dep in self._kept[name].config.depends_on]
            if not all(await asyncio.gather(*deps)):
                return False
            up = asyncio.create_task(self._kept[name].up.wait())
            try:
                while not up.done() and name in self._lives.keys() | self._coming:
                    life = self._lives.get(name) or asyncio.create_task(asyncio.sleep(_TURN))
                    await asyncio.wait({life, up}, return_when=asyncio.FIRST_COMPLETED)
                return up.done()
            finally:
                up.cancel()

        for name in self.names(names):
            looks[name] = asyncio.create_task(ready(name))
        try:
            await asyncio.gather(*looks.values())
        finally:
            for look in looks.values():
                look.cancel()
        return [name for name, look in looks.items() if not look.result()]

    def _waits_for(self, deps: Iterable[str]) -> Callable[[], Awaitable[None]]:
        async def until_up() -> None:
            for dep in deps:
                await self._kept[dep].up.wait()

        return until_up

    def _over(self, name: str, life: asyncio.Task[None]) -> None:
        if self._lives.get(name) is life:
            del self._lives[name]
        if not life.cancelled() and (error := life.exception()) is not None:
            log.error("service %s is not kept any more: %s", name, error, exc_info=error)

    async def _note(self, name: str, standing: Standing, alerts: tuple[NewAlert, ...]) -> None:
        try:
            await self._store.stand_service(name, standing, alerts, self._targets)
        except AgentmuxError as error:
            # What is to be done for the service is done all the same.
            log.warning("service %s: %s", name, error)

    async def _stop_all(self) -> None:
        """End those on which nobody depends, then what these depended on, and so on."""
        for name in reversed(self.names()):
            await self.stop([name])

    # -- what operators ask ----------------------------------------------------------------

    async def _listen(self) -> None:
        async with self._feed.subscribe() as changed:
            while True:
                await changed.wait()
                changed.clear()
                try:
                    asked = await self._lookout.asked_services()
                    for name, what in asked.items():
                        await self._obey(name, what)
                except AgentmuxError as error:
                    log.warning("services: %s", error)

    async def _obey(self, name: str, what: str) -> None:
        if name not in self._kept:
            return
        if what == RESTART:
            await self.restart([name])
        elif what == STOP:
            await self.stop([name])
        elif what == START:
            self.start([name])
        await self._store.obey_service([name], what)

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(_TEND)
            self._guard.tend()

    def states(self) -> dict[str, ServiceState]:
        """Return where each service stands."""
        return {name: kept.state for name, kept in self._kept.items()}
