"""What a terminal may do that Textual does not expect, and what it can that Textual does not ask.

It may go away: an SSH connection that drops, a window that is closed. Textual writes in a thread
that dies of the first failed write, and then waits for that thread for ever. Here such output is
thrown away instead, so that the engine around the app still gets to stop and release what runs.

It may not be read: ctrl+s, a frozen SSH connection. Textual waits then, and with it all that
shares its event loop: heartbeats, leases. Here nothing waits: what nobody reads is left out, and
all of the screen is painted anew once somebody does.

It has a title bar, which is seen where the screen is not. Knows nothing of what stands in it.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from engine.text import clean_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from queue import Queue

    from textual.driver import Driver

_PUSH, _POP = "\x1b[22;0t", "\x1b[23;0t"
"""Put the title aside, and bring it back (xterm's window operations)."""
_LONGEST_TITLE = 200
_UNREAD = 30
"""Writes that may wait for a terminal before more are left out."""
_FAREWELL = 2.0
"""Seconds at the end for what is still to be written."""


class LastingOutput(io.TextIOWrapper):
    """A text stream that swallows what a vanished terminal no longer takes."""

    def write(self, text: str, /) -> int:
        """Write text, or drop it once nobody is there to read it."""
        self._attempt(lambda: super(LastingOutput, self).write(text))
        return len(text)

    def flush(self) -> None:
        """Pass on what was written, or drop it."""
        self._attempt(super().flush)

    def _attempt(self, output: Callable[[], object]) -> None:
        try:
            output()
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            # What is still buffered, and all that comes, goes where it hurts nobody.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)


@contextmanager
def lasting_terminal() -> Iterator[None]:
    """Let everything that Textual writes in this context survive the terminal."""
    before = sys.__stderr__
    if before is None:
        yield
        return
    before.flush()
    output = LastingOutput(
        io.FileIO(os.dup(before.fileno()), "w"), encoding="utf-8", write_through=True
    )
    sys.__stderr__ = output  # type: ignore[misc]  # where Textual's driver writes
    try:
        yield
    finally:
        sys.__stderr__ = before  # type: ignore[misc]  # as above
        output.close()


def _unwaiting(base: type[Driver]) -> type[Driver]:
    """Return a driver class that leaves out what nobody reads."""

    class Unwaiting(base):  # type: ignore[valid-type, misc]  # which one it is, the platform says
        _waiting: Queue[str | None] | None = None
        """What is still to be written, while some of it may be left out."""
        _left_out = False

        def start_application_mode(self) -> None:
            super().start_application_mode()
            writer = getattr(self, "_writer_thread", None)  # in the background there is none yet
            if writer is not None:
                self._waiting = writer._queue  # noqa: SLF001 - Textual offers no other way
                writer._queue.maxsize = 0  # noqa: SLF001 - likewise

        def stop_application_mode(self) -> None:
            self._waiting = None
            super().stop_application_mode()

        def write(self, data: str) -> None:
            unread = 0 if self._waiting is None else self._waiting.qsize()
            if unread >= _UNREAD:
                self._left_out = True
                return
            super().write(data)
            if self._left_out and not unread:
                self._left_out = False
                self.send_message(self.SignalResume())

        def close(self) -> None:
            writer = getattr(self, "_writer_thread", None)
            if writer is not None:
                writer.write(None)
                writer.join(_FAREWELL)
            if writer is None or not writer.is_alive():  # else it ends with the process
                super().close()

    return Unwaiting


class TitleBar:
    """The words in the terminal's title bar. What stood there before comes back at the end.

    An app that has one gives its driver class through `driver_class`: what is written goes the
    way of the driver, in its thread, and the old title is back whenever the app lets go of the
    terminal, be it only to be suspended.
    """

    def __init__(self) -> None:
        self._driver: Driver | None = None
        self._text = ""
        self._pushed = False

    def show(self, text: str) -> None:
        """Show these words, cleaned; without any, show what stood there before."""
        text = clean_text(text)[:_LONGEST_TITLE]
        if text != self._text:
            self._text = text
            self._write()

    def driver_class(self, base: type[Driver]) -> type[Driver]:
        """Return the driver class that this bar is written through."""
        bar = self

        class Titled(_unwaiting(base)):  # type: ignore[misc]  # which one it is, the platform says
            _reading: object = None

            def __init__(self, *arguments: Any, **options: Any) -> None:
                # First: the base begins to listen for signals, and one may come at once.
                self._due: list[Callable[[], None]] = []
                super().__init__(*arguments, **options)

            def start_application_mode(self) -> None:
                if self._reading is not None:
                    # Nobody hears of a SIGSTOP. Begun anew without an end, it would read keys
                    # twice, and take its own way with the terminal for how it was before.
                    self.stop_application_mode()
                    self.close()
                    self.send_message(self.SignalResume())
                before = getattr(self, "_key_thread", None)
                super().start_application_mode()
                # In the background it comes back without having begun.
                now = getattr(self, "_key_thread", None)
                self._reading = now if now is not before else None
                # Resumed in the background, a driver sleeps again and cannot write until it wakes.
                with suppress(AssertionError, AttributeError):
                    bar._begin(self)

            def _sigtstp_application(self, *_: object) -> None:
                self._at_leisure(super()._sigtstp_application)

            def _sigcont_application(self, *_: object) -> None:
                self._at_leisure(super()._sigcont_application)

            def _at_leisure(self, step: Callable[[], None]) -> None:
                # Textual writes right in its signal handlers. One that interrupts a write waits for
                # a lock of its own thread, for ever: a terminal that goes away sends a SIGCONT.
                if self._due[-1:] == [step]:
                    return  # a storm of them asks for one and the same thing

                def take_step() -> None:
                    self._due.remove(step)
                    step()

                with suppress(RuntimeError):  # the loop is closed: nothing to suspend any more
                    self._loop.call_soon_threadsafe(take_step)
                    self._due.append(step)

            def stop_application_mode(self) -> None:
                self._reading = None
                bar._end()
                super().stop_application_mode()

        return Titled

    def _begin(self, driver: Driver) -> None:
        self._driver = driver
        self._write()

    def _end(self) -> None:
        words, self._text = self._text, ""
        self._write()
        self._text, self._driver = words, None

    def _write(self) -> None:
        if self._driver is None:
            return
        if self._text:
            push = "" if self._pushed else _PUSH
            self._driver.write(f"{push}\x1b]0;{self._text}\x07")
            self._pushed = True
        elif self._pushed:
            self._driver.write(_POP)
            self._pushed = False
