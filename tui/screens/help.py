"""The help: every action and every symbol, generated from the tables that make them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from tui import look
from tui.actions.model import Action, Group
from tui.actions.table import ACTIONS, bindings
from tui.screens.once import Once
from tui.screens.question import more_text
from tui.widgets.cells import Cell, Line, Tone, fitted, line_width, wrapped
from tui.widgets.document import Document

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from tui.keymap import Keymap


class HelpScreen(Once[None], ModalScreen[None]):
    """Every action and every symbol, generated from the tables that make them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Close", show=False, id="back"),
        Binding("enter", "leave", "Close", show=False),
        Binding("?", "leave", "Close", id="help", show=False),
        *bindings(["quit"]),
    ]

    def __init__(self, keymap: Keymap) -> None:
        super().__init__()
        self._keymap = keymap
        self.text = Document(id="help-text")

    def compose(self) -> ComposeResult:
        """Lay the help out."""
        with Vertical(id="help", classes="dialog") as box:
            box.border_title = Content("Help")
            box.border_subtitle = Content(f"{self._leaving} closes")
            yield self.text

    @property
    def _leaving(self) -> str:
        return next(iter(self._keymap.leaving(("enter",)).values()))

    def hints(self) -> list[tuple[str, str]]:
        """Return its keys."""
        return [("j k", "scroll"), (self._leaving, "close")]

    @on(Document.Seen)
    def seen(self, event: Document.Seen) -> None:
        """Say that there is more text than one sees."""
        event.stop()
        closes, more = f"{self._leaving} closes", more_text(self.text)
        self.query_one("#help").border_subtitle = Content(f"{more} · {closes}" if more else closes)

    def on_mount(self) -> None:
        """Show the text."""
        self.text.show(lambda width: help_lines(width, self._keymap))
        self.call_after_refresh(self._fit)

    def on_resize(self) -> None:
        """Be as high as the text, if there is room."""
        self.call_after_refresh(self._fit)

    def _fit(self) -> None:
        self.text.styles.height = min(len(self.text.lines), self.size.height - 6)

    def action_leave(self) -> None:
        """Close the help."""
        self.dismiss()


_KEYS = 12


def help_lines(width: int, keymap: Keymap) -> list[Line]:
    """Return the help for `width` cells: two columns of it if there is room."""
    half = (width - 4) // 2 if width >= 96 else width
    groups = [_group(group, half, keymap) for group in Group]
    if half == width:
        return [line for block in [*groups, _legend(half)] for line in [*block, ()]][:-1]
    steer, looking, text, moving, program = groups
    left = [*steer, (), *looking]
    right = [*moving, (), *text, (), *program, (), *_legend(half)]
    return _beside(left, right, half)


def _beside(left: list[Line], right: list[Line], half: int) -> list[Line]:
    height = max(len(left), len(right))
    left = left + [()] * (height - len(left))
    right = right + [()] * (height - len(right))
    lines: list[Line] = []
    for first, second in zip(left, right, strict=True):
        room: Cell = (" " * (half - line_width(first) + 4), Tone.TEXT)
        lines.append((*first, room, *second))
    return lines


def _group(group: Group, width: int, keymap: Keymap) -> list[Line]:
    lines: list[Line] = [((f"{group}", Tone.BOLD),)]
    for action in ACTIONS:
        if action.group is group:
            lines += _entry(action, width, keymap)
    return lines


def _entry(action: Action, width: int, keymap: Keymap) -> list[Line]:
    keys = " ".join(keymap.all_shown(action)[:2])
    first, *rest = wrapped(action.full_help, max(10, width - _KEYS))
    head: Line = ((fitted(keys, _KEYS - 2, right=True) + "  ", Tone.BOLD), (first, Tone.TEXT))
    return [head, *(((" " * _KEYS + text, Tone.TEXT),) for text in rest)]


def _legend(width: int) -> list[Line]:
    lines: list[Line] = [(("Symbols", Tone.BOLD),)]
    a_row = 2 if width >= 52 else 1
    column = width // a_row
    row: list[Cell] = []
    for symbol, words in look.LEGEND:
        tone = look.tone_of(symbol)
        row += [(f"  {symbol} ", tone), (fitted(words, column - 4), Tone.TEXT)]
        if len(row) == 2 * a_row:
            lines.append(tuple(row))
            row = []
    return [*lines, tuple(row)] if row else lines
