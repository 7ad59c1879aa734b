"""How the fleet is, part by part, and what ever happened in it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.containers import Container

from engine.views import Health, Metrics
from tui import look
from tui.actions.model import Place, Selection
from tui.describe import laid_out
from tui.describe_metrics import metrics_lines
from tui.panes.pane import Pane
from tui.screens.listing import ListingScreen, read
from tui.snapshot import Section
from tui.styled import STYLES
from tui.widgets.cells import Tone
from tui.widgets.document import Document

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from tui.ports import Engine

_EVERY = 5
"""Ticks between two looks, though nothing was committed: a process may have died."""


class MetricsScreen(ListingScreen):
    """One text: health, runs by agent, how long they took."""

    CSS_PATH: ClassVar = STYLES / "lists.tcss"

    def __init__(self, engine: Engine, *, watching: bool = False) -> None:
        super().__init__(engine, watching=watching)
        self._ticks = 0
        self._due = True
        self._health: Section[Health] = Section(Health())
        self._metrics: Section[Metrics] = Section(Metrics())
        self._held: Section[tuple[str, ...]] = Section(())
        self.text = Document(id="metrics-text")
        self._pane = Pane(1, "Metrics", self.text, id="metrics-pane")

    def compose(self) -> ComposeResult:
        """Lay the pane out."""
        yield self.head
        yield self.tabs
        with Container(id="metrics", classes="box"):
            yield self._pane
        yield self.keys

    @property
    def panes(self) -> tuple[Pane, ...]:
        """The one pane."""
        return (self._pane,)

    async def load(self, *, changed: bool) -> None:
        """Look again if the store changed or it is time."""
        if not (changed or self._due):
            return
        self._due = False
        now, queries = self._engine.clock.now, self._engine.queries
        self._health = await read(self._health, self._engine.health, now)
        self._metrics = await read(self._metrics, queries.metrics, now)
        self._held = await read(self._held, self._read_held, now)
        self._show()

    async def _read_held(self) -> tuple[str, ...]:
        return (await self._engine.queries.progress()).held

    def _show(self) -> None:
        health, metrics = self._health.value, self._metrics.value
        trouble = self._metrics.trouble or self._health.trouble
        self.text.show(laid_out(partial(metrics_lines, health, metrics)))
        status = (
            (str(health.status), look.STATUS_TONES[health.status])
            if health.parts
            else ("", Tone.DIM)
        )
        self.show_head("Metrics", status, trouble=trouble)
        self.refresh_bars()

    def tick(self) -> None:
        """Look again now and then."""
        self._ticks += 1
        if self._ticks % _EVERY == 0:
            self._due = True
            self.want()

    def selection(self) -> Selection:
        """Nothing is under the cursor here."""
        return Selection(Place.METRICS, held=self._held.value, watching=self._watching)
