"""One service: how it stands, what it is by the settings, and the end of its log. And its log."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.containers import Container

from engine.growing import Standing
from engine.model import ServiceState
from engine.text import clean_text, cut_middle
from tui import look
from tui.actions.model import Place, Selection
from tui.describe import laid_out, log_lines
from tui.describe_fleet import service_about
from tui.panes.pane import Pane
from tui.panes.services import all_services
from tui.screens.listing import ListingScreen, late, read
from tui.screens.reading import ReadingScreen
from tui.snapshot import Section, explain
from tui.styled import STYLES
from tui.tail import Tail, read_tail
from tui.widgets.bars import Piece
from tui.widgets.cells import Tone
from tui.widgets.document import Document

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from engine.views import ServiceRow
    from tui.logs.viewport import Frame
    from tui.ports import Engine
    from tui.widgets.cells import Line

_EVERY = 5
"""Ticks between two looks, though nothing was committed: who keeps it may have died."""
_GONE = "there is no such service any more"


async def _read_service(engine: Engine, name: str) -> ServiceRow | None:
    known = await engine.queries.services()
    rows = all_services(known, engine.config.services, engine.clock.now())
    return next((row for row in rows if row.name == name), None)


class ServiceScreen(ListingScreen):
    """Everything about one service, live."""

    CSS_PATH: ClassVar = STYLES / "detail.tcss"

    def __init__(self, engine: Engine, name: str, *, watching: bool = False) -> None:
        super().__init__(engine, watching=watching)
        self._service_name = name
        self._ticks = 0
        self._due = True
        self._service: Section[ServiceRow | None] = Section(None)
        self._held: Section[tuple[str, ...]] = Section(())
        self._tail = Tail()
        self.about = Document(id="about")
        self.log_text = Document(follows=True, id="log-text")
        self._panes = (
            Pane(1, "Service", self.about, id="service"),
            Pane(2, "Log", self.log_text, id="log"),
        )

    def compose(self) -> ComposeResult:
        """Lay the panes out."""
        service, log = self._panes
        yield self.head
        yield self.tabs
        with Container(id="detail"):
            with Container(id="left", classes="box"):
                yield service
            with Container(id="right", classes="box"):
                yield log
        yield self.keys

    @property
    def panes(self) -> tuple[Pane, ...]:
        """The service, and its log."""
        return self._panes

    async def load(self, *, changed: bool) -> None:
        """Read how it stands if that may have changed; the end of its log each time."""
        due, self._due = self._due, False
        if changed or due or self._service.trouble:
            now = self._engine.clock.now
            query = partial(_read_service, self._engine, self._service_name)
            self._service = await read(self._service, query, now)
            self._held = await read(self._held, self._read_held, now)
        path = self._engine.layout.service_log(self._service_name)
        tail = await asyncio.to_thread(read_tail, path)
        anew, self._tail = tail != self._tail, tail
        with self.app.batch_update():
            self._show()
            if anew or changed or due:
                self.log_text.show(laid_out(partial(log_lines, [("log", tail)])))
            self.refresh_bars()

    async def _read_held(self) -> tuple[str, ...]:
        return (await self._engine.queries.progress()).held

    def tick(self) -> None:
        """Let the ages grow, look for new output, and now and then how it stands."""
        self._ticks += 1
        self._due = self._due or self._ticks % _EVERY == 0
        self.want()
        self._show()

    def _show(self) -> None:
        service, now = self._service.value, self._engine.clock.now()
        config = self._engine.config.services.get(self._service_name)
        name = cut_middle(clean_text(self._service_name), max(12, self.size.width - 40))
        if service is None:
            missing = _GONE if self._service.read_at is not None else ""
            self.about.show(laid_out(lambda _: [((missing, Tone.DIM),)]))
            self.show_head(name, (missing, Tone.DIM), trouble=self._service.trouble)
            return

        def about(width: int) -> list[Line]:
            return service_about(service, config, now, width)

        symbol, tone = look.service_look(service)
        self.about.show(laid_out(about))
        self._panes[0].caption(late(self._service), count="")
        self._panes[1].caption(count="")
        self.show_head(name, (f"{symbol} {service.state}", tone), trouble=self._service.trouble)

    def selection(self) -> Selection:
        """Return the service."""
        return Selection(
            Place.SERVICE,
            held=self._held.value,
            watching=self._watching,
            service=self._service.value,
        )


class ServiceLogScreen(ReadingScreen):
    """What a service prints, and what is done to it."""

    def __init__(self, engine: Engine, name: str, *, watching: bool = False) -> None:
        super().__init__(engine, engine.layout.service_log(name), watching=watching)
        self._service_name = name
        self._service: ServiceRow | None = None

    async def load(self, *, changed: bool) -> None:
        """Read how the service stands."""
        if not changed and self._read and not self._trouble:
            return
        try:
            self._service = await _read_service(self._engine, self._service_name)
            self._held = (await self._engine.queries.progress()).held
        except Exception as error:  # noqa: BLE001 - whatever it is, the screen says so and lives on
            self._trouble = explain(error)
        else:
            self._trouble, self._read = "", True
        self.show()
        self.refresh_bars()

    @property
    def _live(self) -> bool:
        return True

    def _head_pieces(self, frame: Frame) -> list[Piece]:
        name = cut_middle(clean_text(self._service_name), max(12, self.size.width - 42))
        pieces = [Piece((("agentmux", Tone.BOLD),), drop=9), Piece(((name, Tone.BOLD),))]
        if self._service is not None:
            symbol, tone = look.service_look(self._service)
            pieces.append(Piece(((f"{symbol} {self._service.state}", tone),)))
        pieces.append(Piece(((look.memory(frame.size), Tone.DIM),), drop=3))
        if frame.follows:
            pieces.append(Piece((("follows", Tone.RUNNING),)))
        return pieces

    def _nothing_yet(self, standing: Standing) -> str:
        if self._service is None:
            return _GONE
        if standing is Standing.MISSING and self._service.state is ServiceState.STOPPED:
            return "it has not been started yet: a starts it"
        return "nothing yet"

    def do(self, what: str) -> None:
        """Say why a key of other logs does nothing here."""
        self._say(f"a service has one log: there is no {what} here", "warning")

    def selection(self) -> Selection:
        """Return the service."""
        return Selection(Place.LOG, held=self._held, watching=self._watching, service=self._service)
