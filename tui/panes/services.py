"""The services: which are ready, what is wrong with the others, and since when."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from engine.model import UP, ServiceState
from engine.text import clean_text
from engine.views import ServiceRow
from tui import look
from tui.panes.pane import Pane
from tui.widgets.cells import Line, Tone
from tui.widgets.columns import Column
from tui.widgets.rows import RowList

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from engine.config import ServiceConfig


class ServicesList(RowList[ServiceRow]):
    """All services, in alphabetical order."""

    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("", 1, name="state"),
        Column("service", 8, 24, middle=True),
        Column("for", 5, right=True, drop=1),
        Column("port", 5, right=True, drop=2, rare=True),
        Column("pid", 5, 8, right=True, drop=5, rare=True),
        Column("restarts", 8, right=True, drop=4, rare=True),
        Column("recovery", 11, drop=3, rare=True),
        Column("state / why", 28, 64, fills=True, name="why"),
    )
    EMPTY = "no services: `services:` in agentmux.yaml names some"

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__(id="services-list")
        self._now = now

    def key_of(self, row: ServiceRow) -> str:
        """Return the service's name."""
        return row.name

    def cells_of(self, row: ServiceRow) -> Line:
        """Tell a service."""
        symbol, tone = look.service_look(row)
        down = row.state is ServiceState.STOPPED
        pid = row.pid if row.state in UP else None
        return (
            (symbol, tone),
            (clean_text(row.name), Tone.DIM if down else Tone.TEXT),
            ("" if down else look.since(row.since, self._now()), Tone.TEXT),
            ("" if row.port is None else str(row.port), Tone.DIM),
            ("" if pid is None else str(pid), Tone.DIM),
            (str(row.restarts or ""), Tone.DIM),
            (row.recovery, Tone.FAILED if row.recovery == "failed" else Tone.DIM),
            (look.service_words(row), tone),
        )


class ServicesPane(Pane):
    """The list with its frame; red as long as something is wrong with one of them."""

    def __init__(self, number: int, now: Callable[[], datetime]) -> None:
        self.rows = ServicesList(now)
        super().__init__(number, "Services", self.rows, id="services")

    def show(
        self,
        known: Iterable[ServiceRow],
        configured: Mapping[str, ServiceConfig],
        now: datetime,
        trouble: str,
    ) -> None:
        """Show what the store knows, and what the settings name; `trouble`: why that is old."""
        listed = all_services(known, configured, now)
        self.rows.put(listed)
        states = [row.state for row in listed if look.is_kept(row)]
        broken = {ServiceState.UNHEALTHY, ServiceState.FAILED}.intersection(states)
        self.set_class(bool(broken), "-broken")
        self.set_class(len(states) < len(listed), "-alarm")
        ready = states.count(ServiceState.READY)
        self.caption(trouble, f"{ready} of {len(listed)} ready", f"{ready}/{len(listed)}")


def all_services(
    known: Iterable[ServiceRow], configured: Mapping[str, ServiceConfig], now: datetime
) -> list[ServiceRow]:
    """Return the services that the store knows, and those that nobody has kept yet."""
    rows = {row.name: row for row in known}
    for name, config in configured.items():
        if name not in rows:
            rows[name] = ServiceRow(
                name=name,
                state=ServiceState.STOPPED,
                since=now,
                message="",
                port=config.port,
                pid=None,
                restarts=0,
                recovery="",
                keeper=None,
            )
    return sorted(rows.values(), key=lambda row: row.name)
