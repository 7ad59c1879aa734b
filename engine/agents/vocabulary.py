"""What an agent's CLI can say, in the few words that all formats are read into. No I/O.

A line of output becomes none, one or several entries. Texts are as the agent wrote them: whoever
shows them cleans them (DESIGN §4.6).
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from datetime import datetime

    from engine.model import Spending


class Kind(StrEnum):
    """What an entry is."""

    SESSION = "session"
    """The CLI has begun, or begun anew: `session`, `model`."""
    MESSAGE = "message"
    """Somebody said something: `text`, by `role`."""
    CALL = "tool call"
    """A tool is used: `tool`, its key argument as `text`, all of them as `detail`."""
    ANSWER = "tool result"
    """What a tool gave back: `text`, `failed`; `call` names the call."""
    ERROR = "error"
    """Something went wrong, which need not be the end: `text`, `trouble`."""
    RESULT = "result"
    """The CLI's own last word: `text`, `failed`, `spending`, `trouble`."""
    UNKNOWN = "unknown"
    """A line that no format knows: `text` is the line."""


class Role(StrEnum):
    """Who speaks."""

    USER = "user"
    AGENT = "agent"
    THOUGHT = "thought"
    """The agent to itself."""


class Trouble(StrEnum):
    """Why a run could not go on, where that decides what comes next."""

    RATE = "rate limit"
    """Too much was asked for; later it will do: `until`, if the agent says when."""
    TURNS = "turn limit"
    LOGIN = "login"
    """The CLI is not logged in, or is not allowed to: no task of this agent can do anything."""


class Entry(Struct, frozen=True):
    """One thing that a CLI said. `at` is when, if that is known; what does not apply is empty.

    `call` pairs a tool's result with its call. `parent` is the call of the subagent that speaks.
    `detail` is JSON. `goes_on`: a message in pieces; this one belongs to the message before it if
    that is of the same role and nothing stands between them. `spending` is what the whole run took
    until then.
    """

    kind: Kind
    text: str = ""
    at: datetime | None = None
    role: Role | None = None
    tool: str = ""
    detail: str = ""
    call: str = ""
    parent: str = ""
    failed: bool = False
    goes_on: bool = False
    session: str = ""
    model: str = ""
    spending: Spending | None = None
    trouble: Trouble | None = None
    until: datetime | None = None
