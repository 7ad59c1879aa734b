"""The line in which a filter is typed. It filters while one types, and says what it cannot read.

Which words there are is the business of whoever hands in the reader.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from textual import on
from textual.containers import Container
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from engine.errors import ValidationError
from engine.filters import Filter
from engine.text import clean_text
from tui.widgets.lineinput import LineInput

Reader = Callable[[str], Filter]
"""Reads a filter as people type it; raises ValidationError for one that makes no sense."""


class FilterLine(Container):
    """A line that is there while one types a filter. A last word that is not whole yet waits.

    `where` is the filter that holds; `trouble` is why the text cannot be read, empty if it can:
    that is told above the line, all of it. `closed` is called when somebody is done with the line:
    whoever owns it takes the focus back.
    """

    class Changed(Message):
        """The filter, or what is wrong with its text, is another one now."""

        def __init__(self, line: FilterLine, where: Filter, trouble: str) -> None:
            super().__init__()
            self.line = line
            self.where = where
            self.trouble = trouble

        @property
        def control(self) -> FilterLine:
            """The line that it is about."""
            return self.line

    def __init__(
        self,
        read: Reader,
        *,
        hint: str,
        closed: Callable[[], None],
        where: Filter = Filter(),  # noqa: B008 - frozen, and empty for ever
        id: str | None = None,  # noqa: A002 - Textual's own name for it
    ) -> None:
        super().__init__(id=id)
        self._read = read
        self.where = where
        self.trouble = ""
        self._give_back = closed
        self.input = LineInput(hint, self._typed, self._keep)
        self.display = False
        self._told = Static(classes="told")
        self._told.display = False

    @property
    def editing(self) -> bool:
        """Whether keys go into the line."""
        return self.display and self.input.has_focus

    def open(self) -> None:
        """Show the line and take the keys at once: the next one may be here already."""
        if not self.input.is_attached:  # most lines are never typed into
            self.mount(self._told, Static("/"), self.input)
        self._put(str(self.where))
        self.display = True
        self.screen.set_focus(self.input)

    def close(self) -> None:
        """Put the line away; what could not be read is dropped, what holds stays."""
        self.display = False
        if self.trouble:
            self._put(str(self.where))
            self._tell(self.where, "")

    def clear(self) -> None:
        """Put the line away, and the filter with it."""
        self.display = False
        self._put("")
        self._tell(Filter(), "")

    def set(self, where: Filter) -> None:
        """Filter by this, as if it had been typed."""
        self._put(str(where))
        self._tell(where, "")

    def _put(self, text: str) -> None:
        self.input.value = clean_text(text)
        self.input.cursor_position = len(self.input.value)

    def _tell(self, where: Filter, trouble: str) -> None:
        if (where, trouble) != (self.where, self.trouble):
            self.where, self.trouble = where, trouble
            self._told.update(Content(clean_text(trouble)))
            self._told.display = bool(trouble)
            self.post_message(self.Changed(self, where, trouble))

    def _typed(self, text: str) -> None:
        """Filter while one types; a last word that cannot be read yet does not count."""
        if not self.display:
            return  # put there by us
        where, trouble = self.where, ""
        try:
            where = self._read(text)
        except ValidationError as error:
            trouble = str(error)
            with suppress(ValidationError):
                where = self._read(" ".join(text.split()[:-1]))
        self._tell(where, trouble)

    def _keep(self) -> None:
        """Keep the filter; one that cannot be read stays open."""
        if not self.trouble:
            self.display = False
            self._give_back()

    @on(Input.Blurred)
    def left(self, event: Input.Blurred) -> None:
        """Put the line away when something else is clicked; the pane then says what holds."""
        event.stop()
        if self.app.app_focus:  # else it is the terminal that lost it, and gives it back
            self.close()
