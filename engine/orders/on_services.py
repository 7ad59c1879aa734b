"""What operators ask of services: carried out here, or by the process that keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.commands import Receipt, Refusal, RestartServices, StartServices, StopServices
from engine.config.services import NO_SERVICES
from engine.errors import Code, CommandNotAllowed, ValidationError
from engine.model import UP, ServiceState
from engine.services.ending import WATCHDOG
from engine.store.services import RESTART, START, STOP

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.config import ServiceConfig
    from engine.feed import Feed
    from engine.services.keeper import Keeper
    from engine.store.queries import Queries
    from engine.store.store import Store
    from engine.views import ServiceRow

    OnServices = StartServices | StopServices | RestartServices

_PATIENCE = 2 * WATCHDOG
"""Seconds in which the process that keeps services must have done what is asked, beside the time
that the services themselves have to end."""
_NOBODY = "no process keeps the services; `agentmux up` does, or a dashboard"


class ServiceOrders:
    """Starts, stops and restarts services. `may_keep`: this process keeps them if nobody does."""

    def __init__(
        self,
        *,
        services: Mapping[str, ServiceConfig],
        keeper: Keeper,
        store: Store,
        queries: Queries,
        feed: Feed,
        may_keep: bool,
    ) -> None:
        self._services = services
        self._keeper = keeper
        self._store = store
        self._queries = queries
        self._feed = feed
        self._may_keep = may_keep

    async def carry_out(self, command: OnServices, *, dry_run: bool) -> Receipt:
        """Do it, or with `dry_run` say what would be done; see Engine.execute.

        Raises:
            ValidationError: it is for all services, and the settings name none.
            CommandNotAllowed: nobody keeps them and this process may not, or who does is silent.

        """
        if command.services is None and not self._services:
            raise ValidationError(NO_SERVICES)
        rows = {row.name: row for row in await self._queries.services()}
        names = [*self._services] if command.services is None else [*command.services]
        refused = tuple(self._unknown(name) for name in names if name not in self._services)
        names = [name for name in names if name in self._services]
        if isinstance(command, StartServices):
            names = self._keeper.names(names)  # what they depend on, too
        done = {name: _fate(command, rows.get(name)) for name in names}
        if names and not dry_run:
            await self._do(command, names, rows)
        return Receipt(dry_run, done, refused, {"services": len(done)})

    def _unknown(self, name: str) -> Refusal:
        known = f"; there are: {', '.join(self._services)}" if self._services else "; it names none"
        why = f"there is no service {name!r} in agentmux.yaml{known}"
        return Refusal(name, Code.VALIDATION_ERROR, why)

    async def _do(
        self, command: OnServices, names: list[str], rows: Mapping[str, ServiceRow]
    ) -> None:
        if not self._keeper.is_open and not _is_kept(rows.values()):
            if isinstance(command, StopServices):
                return  # nobody keeps them, so none is up
            if not self._may_keep:
                raise CommandNotAllowed(_NOBODY)
            await self._keeper.open()
        if self._keeper.is_open:
            match command:
                case StartServices():
                    self._keeper.start(names)
                case StopServices():
                    await self._keeper.stop(names)
                case RestartServices():
                    await self._keeper.restart(names)
            return
        await self._ask(command, names)

    async def _ask(self, command: OnServices, names: Iterable[str]) -> None:
        """Let the process that keeps the services do it, and wait until that is done."""
        what = {StartServices: START, StopServices: STOP}.get(type(command), RESTART)
        wanted = set(await self._store.ask_services(names, what))

        async def is_done() -> bool:
            return not wanted & set(await self._queries.asked_services())

        async def is_over() -> bool:
            return await is_done() or not _is_kept(await self._queries.services())

        patience = _PATIENCE + sum(self._services[name].stop_timeout for name in wanted)
        if not await self._feed.until(is_over, patience):
            raise CommandNotAllowed(
                f"the process that keeps the services has not answered within {patience:g} s; is "
                "it stopped (SIGSTOP, ctrl+z)? Continue or end it"
            )
        if not isinstance(command, StopServices) and not await is_done():
            raise CommandNotAllowed(
                "the process that kept the services has ended; `agentmux up` starts them again"
            )


def _is_kept(rows: Iterable[ServiceRow]) -> bool:
    return any(row.keeper is not None for row in rows)


def _fate(command: OnServices, row: ServiceRow | None) -> str:
    is_up = row is not None and row.keeper is not None and row.state in {*UP, ServiceState.WAITING}
    match command:
        case StartServices():
            return "is up already" if is_up else "started"
        case StopServices():
            return "stopped" if is_up else "is not up"
    return "restarted" if is_up else "started"
