"""The frame around a list: its number, its title, how many rows it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Vertical
from textual.content import Content

from engine.text import clean_text

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.widget import Widget


class Pane(Vertical):
    """A bordered frame. `title` is fixed; what stands behind it and below changes."""

    def __init__(self, number: int, title: str, *content: Widget, id: str) -> None:  # noqa: A002 - Textual's own name for it
        super().__init__(id=id, classes="pane")
        self.number = number
        self.heading = title
        self._content = content
        self.count = ""
        self._captions = ("", "")

    def compose(self) -> ComposeResult:
        """Put the content in."""
        yield from self._content

    def on_mount(self) -> None:
        """Show the bare title until there is more to say."""
        if not self.border_title:
            self.caption()

    def caption(self, detail: str = "", foot: str = "", count: str | None = None) -> None:
        """Say something behind the title and in the lower border; both are shown as they are.

        `count` is what stands on the pane's tab, where it is not all of `foot`.
        """
        self.count = foot if count is None else count
        captions = (clean_text(detail), clean_text(foot))
        if captions == self._captions and self.border_title:
            return
        self._captions = captions
        title = Content.assemble(
            f"{self.number} ",
            (self.heading, "bold"),
            f"  {captions[0]}" if captions[0] else "",
        )
        self.border_title = title
        self.border_subtitle = Content(captions[1])
