"""What the dashboard is measured against: a Textual app with one empty pane, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import App
from textual.containers import Vertical

if TYPE_CHECKING:
    from textual.app import ComposeResult


class Bare(App[None]):
    """An empty frame."""

    CSS = "Vertical { border: round white; }"

    def compose(self) -> ComposeResult:
        """Give it its pane."""
        yield Vertical()


Bare().run()
