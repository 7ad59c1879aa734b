"""What the dashboard and the detail screen share: panes side by side, or as tabs.

Below 100 columns, and when zoomed, one pane has the whole screen and the others are tabs.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import events, on
from textual.message import Message
from textual.screen import Screen
from textual.widget import Widget

from tui.actions.table import ACTIONS, bindings
from tui.screens.once import Once
from tui.widgets.bars import Bar, Piece
from tui.widgets.cells import Tone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from textual.binding import BindingType

    from tui.actions.model import Selection, Target
    from tui.fitted import FittedApp
    from tui.panes.pane import Pane
    from tui.widgets.rows import RowList

NARROW = 100
"""Columns below which panes become tabs."""


class PanedScreen(Screen[None]):
    """A screen of numbered panes, one of them the current one."""

    BINDINGS: ClassVar[list[BindingType]] = [*bindings()]
    AUTO_FOCUS = ""  # `on_mount` knows better
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (NARROW, "-normal"), (160, "-wide")]  # noqa: RUF012 - typed by Textual
    VERTICAL_BREAKPOINTS = [(0, "-low"), (34, "-mid"), (52, "-tall")]  # noqa: RUF012 - typed by Textual

    class Wanted(Message):
        """The screen needs to be loaded again, now."""

    class Go(Message):
        """Somebody wants to see another screen: what the action `name` opens for these."""

        def __init__(
            self,
            name: str,
            *,
            task_id: str | None = None,
            run_id: str | None = None,
            worker_id: str | None = None,
        ) -> None:
            super().__init__()
            self.name = name
            self.task_id = task_id
            self.run_id = run_id
            self.worker_id = worker_id

    def __init__(self) -> None:
        super().__init__()
        self.tabs = Bar(gap=3, id="tabs")
        self.keys = Bar(id="keys")
        self.needs = 0
        self.target: Target | None = None
        """What it was opened for, None if nobody asked for it."""
        self._current = 0
        self._zoomed = False

    # -- what subclasses say ---------------------------------------------------------------

    @property
    @abstractmethod
    def panes(self) -> tuple[Pane, ...]:
        """The panes in the order of their numbers."""

    @abstractmethod
    def selection(self) -> Selection:
        """Return what an action would act on now."""

    @abstractmethod
    async def load(self, *, changed: bool) -> None:
        """Read what the screen shows and show it; `changed` says that the store did."""

    def pin(self) -> None:
        """Stay with what is under the cursor: an action is about to be done to it."""

    def clear_marks(self) -> None:
        """Mark nothing any longer: what was to be done with the marked rows is done."""

    @abstractmethod
    def tick(self) -> None:
        """Let the ages grow; called once a second."""

    @property
    def fitted(self) -> FittedApp[Any]:
        """The app, with its keys and what the user chose."""
        return cast("FittedApp[Any]", self.app)

    # -- panes -----------------------------------------------------------------------------

    @property
    def current(self) -> Pane:
        """The pane that keys act on."""
        return self.panes[self._current]

    @property
    def single(self) -> bool:
        """Whether one pane has the whole screen."""
        return self._zoomed or self._tabbed

    @property
    def zoomed(self) -> bool:
        """Whether the user zoomed in, and can see it."""
        return self._zoomed and not self._tabbed

    @property
    def _tabbed(self) -> bool:
        return 0 < self.size.width < NARROW

    def on_mount(self) -> None:
        """Begin with the pane that the screen opens on."""
        self.go_to(self._current)

    def on_resize(self, _event: events.Resize) -> None:
        """Turn panes into tabs, or back."""
        self._arrange()
        self.call_after_refresh(self._keep_focus)

    def size_classes(self) -> Iterator[str]:
        """Yield the classes of the breakpoints; set before it is styled, it is styled once."""
        for breakpoints, size in (
            (self.HORIZONTAL_BREAKPOINTS, self.app.size.width),
            (self.VERTICAL_BREAKPOINTS, self.app.size.height),
        ):
            yield max((at, name) for at, name in breakpoints if at <= size)[1]

    def go_to(self, index: int) -> None:
        """Make a pane the current one."""
        self._current = index % len(self.panes)
        self._arrange()
        # At once, not by `focus()`, which only asks: the next key may be here already, and it
        # must not act on the pane before.
        self.set_focus(self._body(self.current), scroll_visible=False)
        self.refresh_bars()

    def _keep_focus(self) -> None:
        # A list that had no room for a moment has lost its focus.
        if self.focused is None:
            self.set_focus(self._body(self.current), scroll_visible=False)

    def _arrange(self) -> None:
        single = self.single
        for pane in self.panes:
            pane.set_class(pane is self.current, "-current")
        current = set(self.current.ancestors_with_self)
        for box in self.query(".box"):
            box.display = not single or box in current
        for pane in self.panes:
            pane.display = not single or pane is self.current
        self.tabs.display = single and len(self.panes) > 1
        self.set_class(single, "-single")
        self.refresh_bars()

    @staticmethod
    def _body(pane: Pane) -> Widget | None:
        # There is none if the app leaves before the pane has been filled.
        return next((child for child in pane.walk_children(Widget) if child.focusable), None)

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """Follow the focus wherever the mouse takes it."""
        for index, pane in enumerate(self.panes):
            if pane in event.widget.ancestors_with_self and index != self._current:
                self._current = index
                self._arrange()

    def action_next_pane(self) -> None:
        """Go to the next pane."""
        self.go_to(self._current + 1)

    def action_previous_pane(self) -> None:
        """Go to the pane before."""
        self.go_to(self._current - 1)

    def action_pane(self, number: int) -> None:
        """Go to a pane by its number, if there is one with that number."""
        if number <= len(self.panes):
            self.go_to(number - 1)

    def action_back(self) -> None:
        """Leave zoom, else the screen."""
        if self.zoomed:
            self.action_zoom()
        else:
            self.dismiss()

    def choose_columns(self, rows: RowList[Any], done: Callable[[], None]) -> None:
        """Ask which columns of a list are shown; `done` is called when that was changed."""
        from tui.screens.choosing import Showing  # noqa: PLC0415 - rarely needed

        columns = [(c.name, c.title or c.name, c.name not in rows.hidden) for c in rows.columns]

        def chosen(hidden: frozenset[str] | None) -> None:
            if hidden is not None:
                rows.hidden = hidden
                done()

        choice = [column for column, c in zip(columns, rows.columns, strict=True) if c.drop]
        self.app.push_screen(Showing("Columns", choice), chosen)

    def action_zoom(self) -> None:
        """Give the current pane the whole screen, or give it back."""
        if self._tabbed:
            words = f"below {NARROW} columns a pane has the whole screen anyway"
            self.notify(words, severity="warning", markup=False)
            return
        self._zoomed = not self._zoomed
        self._arrange()

    # -- bars ------------------------------------------------------------------------------

    def on_screen_suspend(self) -> None:
        """Show the keys of what is above now."""
        self.refresh_bars()

    def on_screen_resume(self) -> None:
        """Show the own keys again."""
        self.refresh_bars()

    def refresh_bars(self) -> None:
        """Show the tabs and the footer as they are for what is selected now.

        Below a dialog the footer has the keys of that: no others do anything.
        """
        if self.is_attached:
            above = self.app.screen
            pieces = dialog_pieces(above) if isinstance(above, Once) else self._key_pieces()
            self.keys.put(list(pieces))
            self.tabs.put(list(self._tab_pieces()))

    def _key_pieces(self) -> Iterator[Piece]:
        selection, keymap = self.selection(), self.fitted.keymap
        here = [a for a in ACTIONS if a.is_offered(selection)]
        # What only this screen can do comes first: everything else is known from elsewhere.
        here.sort(key=lambda action: not action.is_special(selection))
        for rank, action in enumerate(here):
            legal = action.refuse(selection) is None and not (
                self._tabbed and action.name == "zoom"
            )
            tones = (Tone.BOLD, Tone.TEXT) if legal else (Tone.OFF, Tone.OFF)
            key, label = keymap.shown(action), action.label_for(selection, self.needs)
            needed = action.name == "attention" and self.needs > 0
            always = action.name in {"help", "quit"} or needed
            yield Piece(
                ((key, tones[0]), (f" {label}", tones[1])), action.name, 0 if always else rank + 1
            )

    def _tab_pieces(self) -> Iterator[Piece]:
        for pane in self.panes:
            tone = Tone.BOLD if pane is self.current else Tone.DIM
            mark = "▌" if pane is self.current else " "
            text = f"{mark}{pane.number} {pane.heading.split()[0]}"
            yield Piece(((text, tone), (f" {pane.count}", Tone.DIM)), f"pane_{pane.number}")

    @on(Bar.Pressed)
    async def pressed(self, event: Bar.Pressed) -> None:
        """Do what a click on a bar means."""
        event.stop()
        await self.run_action(f"app.act({event.name!r})")


def dialog_pieces(dialog: Once[Any]) -> Iterator[Piece]:
    """Yield what the footer says below a dialog."""
    for key, words in dialog.hints():
        yield Piece(((key, Tone.BOLD), (f" {words}", Tone.TEXT)))
