"""One external agent: an agent that somebody else has started, and told of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.text import clean_text, cut_middle
from tui import look
from tui.actions.model import Place, Selection
from tui.describe import laid_out
from tui.describe_fleet import external_about
from tui.panes.pane import Pane
from tui.screens.listing import ListingScreen, read
from tui.snapshot import Section
from tui.widgets.cells import Tone
from tui.widgets.document import Document

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from engine.views import ExternalRow
    from tui.ports import Engine
    from tui.widgets.cells import Line


class ExternalScreen(ListingScreen):
    """Everything that is known of an external agent. One that is gone stays as it was seen last."""

    def __init__(self, engine: Engine, agent_id: str, *, watching: bool = False) -> None:
        super().__init__(engine, watching=watching)
        self._agent_id = agent_id
        self._agent: Section[ExternalRow | None] = Section(None)
        self._held: Section[tuple[str, ...]] = Section(())
        self._gone = False
        self.about = Document(id="about")
        self._pane = Pane(1, "External agent", self.about, id="external")

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        yield self.head
        yield self._pane
        yield self.keys

    @property
    def panes(self) -> tuple[Pane, ...]:
        """The agent."""
        return (self._pane,)

    async def load(self, *, changed: bool) -> None:
        """Read the agent again if the store changed."""
        if changed or self._agent.read_at is None or self._agent.trouble:
            now = self._engine.clock.now
            self._agent = await read(self._agent, self._read_agent, now)
            self._held = await read(self._held, self._read_held, now)
        self.tick()
        self.refresh_bars()

    async def _read_agent(self) -> ExternalRow | None:
        known = await self._engine.queries.externals()
        found = next((agent for agent in known if agent.id == self._agent_id), None)
        self._gone = found is None
        return found or self._agent.value

    async def _read_held(self) -> tuple[str, ...]:
        return (await self._engine.queries.progress()).held

    def tick(self) -> None:
        """Let the ages grow."""
        agent, now = self._agent.value, self._engine.clock.now()
        state = ("registered no more", Tone.DIM) if self._gone else ("external", Tone.TEXT)
        name = cut_middle(clean_text(self._agent_id), max(12, self.size.width - 40))
        self.show_head(f"{look.EXTERNAL} {name}", state, trouble=self._agent.trouble)

        def about(width: int) -> list[Line]:
            return [] if agent is None else external_about(agent, now, width)

        self.about.show(laid_out(about))

    def selection(self) -> Selection:
        """Return the agent, unless it is gone."""
        agent = None if self._gone else self._agent.value
        return Selection(
            Place.EXTERNAL, held=self._held.value, watching=self._watching, external=agent
        )
