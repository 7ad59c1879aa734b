"""An app that deals with its keys one after the other, however fast they come.

Textual sends a key to whatever has the focus as soon as it arrives, and from there it goes from
queue to queue to the app, which does what is bound to it. Of keys that come together, over a slow
line or from a fast typist, the later ones are on their way by then: to a list, although the first
one opened a line to type in, or to a line that the one before them has just closed.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

from textual import events, on
from textual.app import App
from textual.message import Message

if TYPE_CHECKING:
    from textual.dom import DOMNode
    from textual.events import Event
    from textual.timer import Timer

T = TypeVar("T")

_LOOKS = 0.05
"""Seconds between two looks whether a key can still come back, while others wait for it."""
_PATIENCE = 100
"""Looks after which nobody waits for a key any longer."""


class InOrderApp(App[T]):
    """An app that sends a key, or what is pasted, on its way once the one before is dealt with."""

    class Passed(Message):
        """Goes the way of a key, right behind it. It is back: so the key has been dealt with."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    # Of the class, for Textual has events for an app before its constructor is through.
    _under_way: DOMNode | None = None
    _number = 0
    _looks = 0
    _looking: Timer | None = None

    def __init__(self, *, ansi_color: bool | None = None) -> None:
        self._typed: deque[events.Key | events.Paste] = deque()
        super().__init__(ansi_color=ansi_color)

    async def on_event(self, event: Event) -> None:
        """Let keys wait for their turn; everything else is for Textual alone."""
        if isinstance(event, events.Key | events.Paste) and not event.is_forwarded:
            self._typed.append(event)
            await self._send()
        else:
            await super().on_event(event)

    async def _send(self) -> None:
        while self._typed and self._under_way is None:
            event = self._typed.popleft()
            target = self.focused or self.screen
            await super().on_event(event)
            # One that is bound in front of everything has been dealt with already.
            if event.is_forwarded and target.post_message(self.Passed(self._number + 1)):
                self._number += 1
                self._under_way, self._looks = target, 0
        if self._typed and self._looking is None:
            self._looking = self.set_interval(_LOOKS, self._look)

    @on(Passed)
    async def passed(self, event: Passed) -> None:
        """Send the next one."""
        if event.number == self._number:
            self._under_way = None
            await self._send()

    async def _look(self) -> None:
        """Wait no longer for a key that went to a widget which is gone, with all that it had."""
        self._looks += 1
        target = self._under_way
        if target is not None and (not target.is_attached or self._looks > _PATIENCE):
            self._under_way = None
            await self._send()
        if not self._typed and self._looking is not None:
            self._looking.stop()
            self._looking = None
