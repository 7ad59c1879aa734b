"""The one line in which people type: a filter, or what to find. It does its keys in their order.

Knows nothing of what is typed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import events
from textual.widgets import Input

if TYPE_CHECKING:
    from collections.abc import Callable


class LineInput(Input):
    """An input for a single line among others. What is typed or pasted is shown as it is.

    Textual puts a letter in at once, but carries a key that does something on from queue to queue
    first: of what comes together, over a slow line or from a fast typist, the letters after it are
    there before it is done. Here such a key is done right where it arrives, and what comes after
    the one that closes the line goes to whoever has the keys then.

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

    async def on_key(self, event: events.Key) -> None:
        """Do at once what a key of the line does; hand on those that came too late for it."""
        heir = self.screen.focused
        if heir is not None and heir is not self:
            event.stop()
            event.prevent_default()
            # Not by a queue: a key that the app already has in its own was pressed after this one.
            await self.app.on_event(events.Key(event.key, event.character))
            return
        for binding in self._bindings.key_to_bindings.get(event.key, ()):
            if await self.app.run_action(binding.action, self):
                event.stop()
                event.prevent_default()
                return
