"""What the engine has to say while a command works: on stderr, a clean line each."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from engine.errors import AgentmuxError
from engine.text import clean_text

if TYPE_CHECKING:
    from collections.abc import Iterable

_notices = logging.getLogger("engine.notices")
_REMEMBERED = 200


class LineFormatter(logging.Formatter):
    """`agentmux: warning: sentence`, or `10:12:44 sentence` for what goes as it should.

    What went wrong follows a warning; a traceback only for a bug.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as clean text."""
        if record.levelno == logging.INFO:
            return clean_text(f"{self.formatTime(record, '%H:%M:%S')} {record.getMessage()}")
        text = f"agentmux: {record.levelname.lower()}: {record.getMessage()}"
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            if isinstance(error, AgentmuxError | OSError):
                text += f": {error}"
            else:
                text += f"\n{self.formatException(record.exc_info)}"
        return clean_text(text, newlines=True)


class NotTwice(logging.Filter):
    """Lets a notice pass only if no warning has said it: some are both."""

    def __init__(self) -> None:
        super().__init__()
        self._said: deque[str] = deque(maxlen=_REMEMBERED)

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether to print a record."""
        if record.levelno == logging.INFO:
            return True
        text = record.getMessage()
        if record.name == _notices.name and text in self._said:
            return False
        self._said.append(text)
        return True


def log_to_stderr() -> None:
    """Send warnings of the engine to stderr; calling it again changes nothing."""
    logger = logging.getLogger("engine")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(LineFormatter())
        handler.addFilter(NotTwice())
        logger.addHandler(handler)


def tell_of_work() -> None:
    """Tell what the workers of this process take on, and how it ends."""
    logging.getLogger("engine.worker").setLevel(logging.INFO)


def tell(notices: Iterable[str]) -> None:
    """Print what an engine did unasked (see Engine.notices), each sentence once."""
    for sentence in notices:
        _notices.warning("%s", sentence)
