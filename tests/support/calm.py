"""When an app under test has done what it was asked to: once no widget has anything left to do.

Textual's pilot guesses that from how little CPU time passes in a fiftieth of a second. A process
that does not get the CPU, on a machine that does much else, then looks as if it had nothing to do,
and a test goes on too early. Here messages, callbacks, layout and painting are looked at, too.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import textual.app
import textual.pilot
from textual import _wait as guessing
from textual._context import active_app
from textual.message_pump import MessagePump

if TYPE_CHECKING:
    from textual.app import App
    from textual.message import Message

_QUIET = 10
"""Turns of the loop without anything to do, after which there is nothing to do. A key takes some
until the app has it."""
_STUCK = 40
"""Looks, a millisecond apart, in which nothing changes: what is being done waits for the test."""
_MOST = 1000
"""Looks after which a test goes on in any case: some apps are never at rest."""

_dispatching: set[int] = set()
"""Who is handling a message."""


def install() -> None:
    """Have the pilot wait for that."""
    dispatch = MessagePump._dispatch_message

    async def noted(self: MessagePump, message: Message) -> None:
        _dispatching.add(id(self))
        try:
            await dispatch(self, message)
        finally:
            _dispatching.discard(id(self))

    MessagePump._dispatch_message = noted  # type: ignore[method-assign]
    textual.app.wait_for_idle = idle  # type: ignore[attr-defined]
    textual.pilot.wait_for_idle = idle  # type: ignore[attr-defined]


async def idle(min_sleep: float = guessing.SLEEP_GRANULARITY, max_sleep: float = 1.0) -> None:
    """Wait until the app has nothing left to do, or what it does waits for somebody else."""
    await guessing.wait_for_idle(min_sleep, max_sleep)
    app = active_app.get()
    quiet = stuck = looks = 0
    before: tuple[int, ...] = ()
    while quiet < _QUIET and stuck < _STUCK and looks < _MOST:
        looks += 1
        now = _left(app)
        if any(now):
            quiet = 0
            stuck = stuck + 1 if now == before else 0
            before = now
            await asyncio.sleep(0.001)
        else:
            quiet += 1
            await asyncio.sleep(0)


def _left(app: App[Any]) -> tuple[int, ...]:
    """Return how much of what there is to do."""
    waiting = callbacks = 0
    for pump in _pumps(app):
        waiting += pump.message_queue_size
        callbacks += len(pump._next_callbacks)
    screen = app.screen
    undone = screen._layout_required + len(screen._dirty_widgets) + len(screen._callbacks)
    return waiting, callbacks, undone, len(_dispatching)


def _pumps(app: App[Any]) -> list[MessagePump]:
    below = [widget for screen in app.screen_stack for widget in screen.walk_children()]
    return [app, *app.screen_stack, *below]
