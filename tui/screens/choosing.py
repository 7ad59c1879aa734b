"""Choosing from a few things: one of them, or which of them are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from engine.text import clean_text
from tui.screens.once import Once

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import App, ComposeResult

    from tui.fitted import FittedApp

_MOVES: list[BindingType] = [
    Binding("j", "cursor_down", "Down", show=False),
    Binding("k", "cursor_up", "Up", show=False),
    Binding("g", "first", "To the top", show=False),
    Binding("G", "last", "To the end", show=False),
]
_TAKEN = ("j", "k", "g", "G", "up", "down", "home", "end", "pageup", "pagedown", "space", "enter")
"""The keys of the lists."""


def _leaving(app: App[Any]) -> str:
    """Return the key that leaves a list, as it is written."""
    return next(iter(cast("FittedApp[Any]", app).keymap.leaving(_TAKEN).values()))


class _Paged(OptionList):
    """Pages only once it was laid out: Textual's own raises where there was no room for that."""

    def action_page_down(self) -> None:
        """Go down by a screenful."""
        if self.size:
            super().action_page_down()  # type: ignore[no-untyped-call]  # Textual's

    def action_page_up(self) -> None:
        """Go up by a screenful."""
        if self.size:
            super().action_page_up()  # type: ignore[no-untyped-call]  # Textual's


class Choosing(Once[str | None], ModalScreen[str | None]):
    """Asks for one of some names; dismissed with it, or with None. `first`: where one begins."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", show=False, id="back")
    ]

    class _List(_Paged):
        BINDINGS: ClassVar[list[BindingType]] = _MOVES

    def __init__(self, title: str, names: Sequence[str], first: str | None = None) -> None:
        super().__init__()
        self._title = title
        self._names = names
        self._first = first

    def compose(self) -> ComposeResult:
        """Lay the names out."""
        with Vertical(id="choosing", classes="dialog") as box:
            box.border_title = Content(self._title)
            box.border_subtitle = Content(f"enter chooses, {_leaving(self.app)} leaves")
            yield self._List(*(Option(Content(clean_text(name))) for name in self._names))

    def on_mount(self) -> None:
        """Begin where the user probably wants to."""
        names = list(self._names)
        index = names.index(self._first) if self._first in names else 0
        self.query_one(OptionList).highlighted = index

    @on(OptionList.OptionSelected)
    def chosen(self, event: OptionList.OptionSelected) -> None:
        """Be done with it."""
        event.stop()
        self.dismiss(self._names[event.option_index])

    def hints(self) -> list[tuple[str, str]]:
        """Return its keys."""
        return [("j k", "move"), ("enter", "choose"), (_leaving(self.app), "leave")]

    def action_leave(self) -> None:
        """Choose nothing."""
        self.dismiss(None)


class Showing(Once[frozenset[str] | None], ModalScreen[frozenset[str] | None]):
    """Asks which columns are shown; dismissed with those that are not, or None to change nothing.

    `columns` are (name, title, is shown), in order.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", show=False, id="back"),
        Binding("space", "turn", "Show or hide", show=False, priority=True),
        Binding("enter", "keep", "Keep", show=False, priority=True),
    ]

    class _List(_Paged):
        BINDINGS: ClassVar[list[BindingType]] = _MOVES

    def __init__(self, title: str, columns: Sequence[tuple[str, str, bool]]) -> None:
        super().__init__()
        self._title = title
        self._titles = {name: column for name, column, _ in columns}
        self._shown = {name: shown for name, _, shown in columns}

    def compose(self) -> ComposeResult:
        """Lay the columns out."""
        with Vertical(id="choosing", classes="dialog") as box:
            box.border_title = Content(self._title)
            leaving = _leaving(self.app)
            box.border_subtitle = Content(f"space shows or hides, enter keeps, {leaving} leaves")
            yield self._List(*(Option(self._line(name)) for name in self._titles))

    def on_mount(self) -> None:
        """Begin at the first."""
        self.query_one(OptionList).highlighted = 0

    def _line(self, name: str) -> Content:
        # Told apart without colours, too.
        return Content(f"{'✓' if self._shown[name] else ' '} {self._titles[name]}")

    def action_turn(self) -> None:
        """Show the column under the cursor, or hide it."""
        listed = self.query_one(OptionList)
        if listed.highlighted is None:
            return
        name = list(self._titles)[listed.highlighted]
        self._shown[name] = not self._shown[name]
        listed.replace_option_prompt_at_index(listed.highlighted, self._line(name))

    def action_keep(self) -> None:
        """Be done with it."""
        self.dismiss(frozenset(name for name, shown in self._shown.items() if not shown))

    def hints(self) -> list[tuple[str, str]]:
        """Return its keys."""
        keys = [("j k", "move"), ("space", "show or hide"), ("enter", "keep")]
        return [*keys, (_leaving(self.app), "leave")]

    def action_leave(self) -> None:
        """Change nothing."""
        self.dismiss(None)
