"""Warnings of the engine on stderr, one clean line each, while a command works."""

from __future__ import annotations

import logging

from engine.errors import AgentmuxError
from engine.text import clean_text


class LineFormatter(logging.Formatter):
    """`agentmux: warning: sentence`. What went wrong follows; a traceback only for a bug."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as clean text."""
        text = f"agentmux: {record.levelname.lower()}: {record.getMessage()}"
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            if isinstance(error, AgentmuxError | OSError):
                text += f": {error}"
            else:
                text += f"\n{self.formatException(record.exc_info)}"
        return clean_text(text, newlines=True)


def log_to_stderr() -> None:
    """Send warnings of the engine to stderr; calling it again changes nothing."""
    logger = logging.getLogger("engine")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(LineFormatter())
        logger.addHandler(handler)
