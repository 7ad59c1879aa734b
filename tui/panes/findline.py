"""The line in which one types what to find. Whoever owns it searches while one types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import on
from textual.containers import Horizontal
from textual.widgets import Input, Static

from tui.logs.search import NeedleError, parse_needle
from tui.widgets.lineinput import LineInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.app import ComposeResult

    from tui.logs.search import Needle


class FindLine(Horizontal):
    """A line that is there while one types.

    `sought` is called for each text with what is to be found, None if there is nothing to find,
    the text, and why it cannot be searched for. `closed` is called when somebody is done with the
    line: whoever owns it takes the focus back.
    """

    def __init__(
        self,
        sought: Callable[[Needle | None, str, str], None],
        closed: Callable[[], None],
        *,
        id: str | None = None,  # noqa: A002 - Textual's own name for it
    ) -> None:
        super().__init__(id=id)
        hint = "text, or a /regex/; an upper-case letter makes case count"
        self.input = LineInput(hint, self._typed, closed)
        self._sought = sought
        self.display = False

    def compose(self) -> ComposeResult:
        """Lay the line out."""
        yield Static("/")
        yield self.input

    @property
    def editing(self) -> bool:
        """Whether keys go into the line."""
        return self.display and self.input.has_focus

    def open(self) -> None:
        """Show an empty line and take the keys at once: the next one may be here already."""
        self.input.value = ""
        self.display = True
        self.screen.set_focus(self.input)

    def _typed(self, text: str) -> None:
        """Search while one types."""
        if not self.display:
            return  # put there by us
        try:
            self._sought(parse_needle(text), text, "")
        except NeedleError as error:
            self._sought(None, text, str(error))

    @on(Input.Blurred)
    def left(self, event: Input.Blurred) -> None:
        """Put the line away when something else is clicked."""
        event.stop()
        if self.app.app_focus:  # else it is the terminal that lost it, and gives it back
            self.display = False
