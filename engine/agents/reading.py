"""Which reader reads which format. A reader turns a line of a CLI's output into entries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from engine.agents.claude import ClaudeReader
from engine.agents.codex import CodexReader
from engine.agents.gemini import GeminiReader
from engine.agents.vocabulary import Entry, Kind, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime


class Reader(Protocol):
    """Reads the output of one run, line by line.

    It may begin anywhere in it; only `spending` counts from there, but for the tokens and the cost
    of a result.
    """

    def read(self, line: bytes, at: datetime | None = None) -> tuple[Entry, ...]:
        """Return what a line says; nothing if it says nothing to us. Never raises.

        `at` is when it was written, for formats whose lines do not say so themselves.
        """


class TextReader:
    """Reads what has no format: each line is something that the agent says."""

    def read(self, line: bytes, at: datetime | None = None) -> tuple[Entry, ...]:
        """Return the line as a message; nothing for a blank one. Never raises."""
        text = line.decode("utf-8", "replace").rstrip()
        return (Entry(Kind.MESSAGE, text, at, role=Role.AGENT),) if text else ()


_READERS: Mapping[str, Callable[[str], Reader]] = {
    "claude": ClaudeReader,
    "codex": CodexReader,
    "gemini": GeminiReader,
    "text": lambda _folder: TextReader(),
}


def reader_for(format: str, folder: str = "") -> Reader:  # noqa: A002 - the setting's name
    """Return a reader of a format (`config.sections.FORMATS`), for one run.

    Paths below `folder`, the run's worktree, are shown as seen from there in calls.

    Raises:
        KeyError: there is no such format.

    """
    return _READERS[format](folder)
