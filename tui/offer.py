"""What one sees who starts the dashboard where nothing is yet: one question."""

from __future__ import annotations

import gc

from tui.screens.question import YES, demo_question
from tui.styled import Styled


class Offer(Styled[bool]):
    """Asks whether to start the bundled demo. Its result is True for yes."""

    def on_mount(self) -> None:
        """Ask."""
        gc.enable()
        self.push_screen(demo_question(), self._answered)

    def _answered(self, choice: str | None) -> None:
        self.exit(choice == YES)
