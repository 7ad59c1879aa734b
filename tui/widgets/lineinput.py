"""The one line in which people type: a filter, or what to find.

Knows nothing of what is typed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.widgets import Input

if TYPE_CHECKING:
    from collections.abc import Callable


class LineInput(Input):
    """An input for a single line among others. What is typed or pasted is shown as it is.

    `typed` is called with the text when it is another one, `entered` when somebody is done with it:
    both before the next key is looked at.
    """

    def __init__(
        self, hint: str, typed: Callable[[str], None], entered: Callable[[], None]
    ) -> None:
        super().__init__(
            placeholder=hint,
            compact=True,
            select_on_focus=False,
            # No control character gets in.
            restrict=r"[^\x00-\x1f\x7f-\x9f]*",
        )
        self._typed = typed
        self._entered = entered

    def watch_value(self, value: str) -> None:
        """Tell of each change where it happens."""
        self._typed(value)

    async def action_submit(self) -> None:
        """Be done with the line."""
        self._entered()
