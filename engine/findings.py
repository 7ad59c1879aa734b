"""What `doctor` finds, as values. Knows nothing of where anybody looks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

CAP = 20
"""Findings of one kind that are told one by one; the rest is only counted."""


class Level(StrEnum):
    """How much a finding matters: an error makes doctor exit 1, a note never does."""

    ERROR = "error"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that doctor found. `check` names what was looked at, `message` is a sentence."""

    level: Level
    check: str
    message: str


class Findings:
    """Collects the findings of one check; beyond CAP they are only counted."""

    def __init__(self, check: str, level: Level = Level.ERROR) -> None:
        self._check = check
        self._level = level
        self._told: list[Finding] = []
        self._more = 0

    def add(self, message: str) -> None:
        """Note one more finding."""
        if len(self._told) < CAP:
            self._told.append(Finding(self._level, self._check, message))
        else:
            self._more += 1

    def all(self) -> list[Finding]:
        """Return what was found, with a last line that counts what is not told."""
        if not self._more:
            return self._told
        return [*self._told, Finding(self._level, self._check, f"and {self._more:,} more")]
