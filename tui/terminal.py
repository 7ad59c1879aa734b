"""Output to a terminal that may go away: an SSH connection that drops, a window that is closed.

Textual writes in a thread that dies of the first failed write, and then waits for that thread
for ever. Here such output is thrown away instead, so that the engine around the app still gets
to stop and release what runs.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
