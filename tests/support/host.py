"""A small app that has all that a dashboard's comforts need: a list, a line, an engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from support.screens import FakeEngine, busy
from textual.widgets import Input

from engine.text import clean_text
from tui.actions.model import Place, Selection
from tui.actions.table import BY_NAME
from tui.fitted import FittedApp, Fitting
from tui.panes.pane import Pane
from tui.screens.paned import PanedScreen
from tui.widgets.cells import Line, Tone
from tui.widgets.columns import Column
from tui.widgets.rows import RowList

if TYPE_CHECKING:
    from typing import Any

    from textual.app import ComposeResult

    from engine.views import TaskRow


STYLES = Path(__file__).resolve().parents[2] / "styles"


class Rows(RowList["TaskRow"]):
    """Tasks by their ids."""

    COLUMNS: ClassVar[tuple[Column, ...]] = (Column("id", 8, fills=True),)

    def key_of(self, row: TaskRow) -> str:
        return row.id

    def cells_of(self, row: TaskRow) -> Line:
        return ((clean_text(row.id), Tone.TEXT),)


class Room(PanedScreen):
    """A list of tasks over a line to type in."""

    def __init__(self, engine: FakeEngine) -> None:
        super().__init__()
        self.rows = Rows(id="rows")
        self.line = Input(id="line")
        self._pane = Pane(1, "Tasks", self.rows, self.line, id="tasks")
        self._tasks = engine.queries.all_tasks

    def compose(self) -> ComposeResult:
        yield self._pane
        yield self.keys

    def on_mount(self) -> None:
        super().on_mount()
        self.rows.put(self._tasks)
        self.line.styles.height = 1
        self.line.styles.border = ("none", "black")

    @property
    def panes(self) -> tuple[Pane, ...]:
        return (self._pane,)

    def selection(self) -> Selection:
        task = self.rows.current
        return Selection(Place.TASKS, task=task, opens=task.id if task else None)

    async def load(self, *, changed: bool) -> None:
        pass

    def tick(self) -> None:
        pass


class Host(FittedApp[None]):
    """Notes what it is asked to do, and does none of it."""

    CSS_PATH: ClassVar[list[Path]] = [STYLES / "agentmux.tcss", STYLES / "toasts.tcss"]  # type: ignore[assignment]  # Textual types the one, takes the other

    def __init__(self, engine: FakeEngine | None = None, **fitting: Any) -> None:
        super().__init__(Fitting(**fitting))
        self.engine = engine or FakeEngine(busy())
        self.room = Room(self.engine)
        self.acted: list[str] = []
        self.said: list[str] = []
        self.gone: list[PanedScreen.Go] = []

    def get_default_screen(self) -> Room:
        return self.room

    async def action_act(self, name: str) -> None:
        self.acted.append(BY_NAME[name].name)

    def on_paned_screen_go(self, event: PanedScreen.Go) -> None:
        self.gone.append(event)

    def say(self, text: str, *, severity: str = "information") -> None:
        self.said.append(f"{severity}: {text}")
