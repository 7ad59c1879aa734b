"""The line in which one types what to find. Whoever owns it searches while one types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import on
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Static

from tui.logs.search import NeedleError, parse_needle
from tui.widgets.lineinput import LineInput

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from tui.logs.search import Needle


class FindLine(Horizontal):
    """A line that is there while one types. `trouble` is why the text cannot be searched for."""

    class Changed(Message):
        """Something else is to be found; with a `trouble`, nothing yet."""

        def __init__(self, needle: Needle | None, text: str, trouble: str) -> None:
            super().__init__()
            self.needle = needle
            self.text = text
            self.trouble = trouble

    class Closed(Message):
        """Somebody is done with the line: whoever owns it takes the focus back."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name for it
        super().__init__(id=id)
        self.input = LineInput("text, or a /regex/; an upper-case letter makes case count")
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
        with self.input.prevent(Input.Changed):
            self.input.value = ""
        self.display = True
        self.screen.set_focus(self.input)

    @on(Input.Changed)
    def typed(self, event: Input.Changed) -> None:
        """Search while one types."""
        event.stop()
        try:
            self.post_message(self.Changed(parse_needle(event.value), event.value, ""))
        except NeedleError as error:
            self.post_message(self.Changed(None, event.value, str(error)))

    @on(Input.Submitted)
    def kept(self, event: Input.Submitted) -> None:
        """Keep what was found."""
        event.stop()
        self.post_message(self.Closed())

    @on(Input.Blurred)
    def left(self, event: Input.Blurred) -> None:
        """Put the line away when something else is clicked."""
        event.stop()
        if self.app.app_focus:  # else it is the terminal that lost it, and gives it back
            self.display = False
