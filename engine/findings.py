"""What `doctor` and `health` find, as values. Knows nothing of where anybody looks."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

CAP = 20
"""Findings of one kind that are told one by one; the rest is only counted."""

NO_TAMPERING = (
    "if somebody changed the store by hand, change it back; if nobody did, end all agentmux "
    "processes and move tasks.db out of the state folder: the next start rebuilds it from the log"
)
"""What to do where table and log contradict each other, and neither can be derived from more."""

REBUILD = (
    "end all agentmux processes, then let `agentmux doctor --repair` keep the damaged database in "
    "state/quarantine and rebuild it from the log"
)

RESET_BEGUN = "a reset has begun and is not completed, so nothing is claimed"
RESET_ADVICE = "if nobody is at it, `agentmux reset` completes it and `agentmux resume` gives it up"

REPAIR = "`agentmux doctor --repair` mends it"


class Level(StrEnum):
    """How much it matters: with an error doctor and health exit 1, never without."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Finding(Struct, frozen=True):
    """One thing that doctor found.

    `check` names what was looked at, `message` is a sentence, `advice` says what to do about it.
    """

    level: Level
    check: str
    message: str
    advice: str = ""


class Findings:
    """Collects the findings of one check; beyond CAP they are only counted."""

    def __init__(self, check: str, level: Level = Level.ERROR, *, advice: str = REPAIR) -> None:
        self._check = check
        self._level = level
        self._advice = advice
        self._told: list[Finding] = []
        self._more = 0

    def add(self, message: str) -> None:
        """Note one more finding."""
        if len(self._told) < CAP:
            self._told.append(Finding(self._level, self._check, message, self._advice))
        else:
            self._more += 1

    def all(self) -> list[Finding]:
        """Return what was found, with a last line that counts what is not told."""
        if not self._more:
            return self._told
        more = f"and {self._more:,} more"
        return [*self._told, Finding(self._level, self._check, more, self._advice)]


def cut(sentences: list[str]) -> list[str]:
    """Return the first CAP sentences, and how many more there are."""
    more = len(sentences) - CAP
    return [*sentences[:CAP], f"and {more:,} more like this"] if more > 0 else sentences
