"""What the engine warns of, kept beside the state as well: state/agentmux.log.

Warnings go to stderr, or nowhere while a dashboard has the terminal; a fleet that works unwatched
needs them afterwards. All processes of a state folder append to the one file.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from engine.clock import to_iso
from engine.files import private
from engine.secrets import redact
from engine.text import clean_text

if TYPE_CHECKING:
    from pathlib import Path

    from engine.clock import Clock

LARGEST = 5 << 20
"""Bytes of the file; then it becomes agentmux.log.1, in place of the one before."""


class OwnLog(logging.Handler):
    """Appends what is worth a warning to a file, from `open` to `close`. Never raises.

    A file that is rotated in the same moment by two processes loses the older half of what it had.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        super().__init__(logging.WARNING)
        self._path = path
        self._clock = clock

    def open(self) -> None:
        """Begin to listen."""
        logging.getLogger("engine").addHandler(self)

    def close(self) -> None:
        """Listen no more."""
        logging.getLogger("engine").removeHandler(self)
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Append one record; what cannot be written is lost, and was said elsewhere."""
        with suppress(Exception):
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text += f"\n{logging.Formatter().formatException(record.exc_info)}"
            text = clean_text(redact(text, os.environ), newlines=True).replace("\n", "\n  ")
            line = f"{to_iso(self._clock.now())} {record.levelname} {record.name}: {text}\n"
            with open(self._path, "ab", opener=private) as file:
                file.write(line.encode())
                if file.tell() > LARGEST:
                    self._path.replace(self._path.with_name(f"{self._path.name}.1"))
