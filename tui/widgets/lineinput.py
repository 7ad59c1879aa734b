"""The one line in which people type: a filter, or what to find. It does its keys in their order.

Knows nothing of what is typed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.widgets import Input

if TYPE_CHECKING:
    from textual import events


class LineInput(Input):
    """An input for a single line among others. What is typed or pasted is shown as it is.

    Textual puts a letter in at once, but carries a key that does something on from queue to queue
    first: of what comes together, over a slow line or from a fast typist, the letters after it are
    there before it is done. Here such a key is done right where it arrives.
    """

    def __init__(self, hint: str) -> None:
        super().__init__(
            placeholder=hint,
            compact=True,
            select_on_focus=False,
            # No control character gets in.
            restrict=r"[^\x00-\x1f\x7f-\x9f]*",
        )

    async def on_key(self, event: events.Key) -> None:
        """Do at once what a key of the line does."""
        for binding in self._bindings.key_to_bindings.get(event.key, ()):
            if await self.app.run_action(binding.action, self):
                event.stop()
                event.prevent_default()
                return
