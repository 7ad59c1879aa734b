"""What values of a settings or DAG file may be: small checks, and the list of what was wrong.

A check takes a value as the file has it and returns None, or what is wrong with it in words.
It must not know where the value stands, nor read anything.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct, field

from engine.model import NAME

Place = tuple[str | int, ...]
"""Where a value stands in its file: keys and list indexes from the top, `("tasks", 3, "deps")`."""

Check = Callable[[object], str | None]

DAY = 86_400
LONGEST = 365 * DAY
"""No duration of a file is longer, in seconds: later sums of times cannot overflow."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_NUL_OR_SURROGATE = re.compile(r"[\x00\ud800-\udfff]")


class Finding(Struct, frozen=True):
    """A fault before its line is known. The line of `other`, if there is one, ends the message."""

    place: Place
    message: str
    other: Place | None = None


class Findings(Struct):
    """Everything that is wrong with one file, in the order in which it was found."""

    items: list[Finding] = field(default_factory=list)

    def add(self, place: Place, message: str, other: Place | None = None) -> None:
        """Note a fault; the caller goes on, so that all are reported at once."""
        self.items.append(Finding(place, message, other))

    def has(self, place: Place) -> bool:
        """Say whether something is wrong there already, or inside of it."""
        return any(item.place[: len(place)] == place for item in self.items)

    def check(self, value: object, check: Check, place: Place) -> bool:
        """Note what `check` says of the value, and say whether the value is good."""
        message = check(value)
        if message is None:
            return True
        self.add(place, message)
        return False

    def check_keys(self, mapping: Mapping[str, object], known: Iterable[str], place: Place) -> None:
        """Note every key that is neither known nor the user's own (`x-…`)."""
        for key in mapping:
            if key not in known and not key.startswith("x-"):
                self.add((*place, key), f"unknown key {show(key)}; {hint(key, known)}")

    def check_fields(
        self, mapping: Mapping[str, object], rules: Mapping[str, Check], place: Place
    ) -> None:
        """Note every unknown key of a mapping and every value that its rule refuses."""
        for key, value in mapping.items():
            rule = rules.get(key)
            if rule is not None:
                message = rule(value)
                if message is not None:
                    self.add((*place, key), message)
            elif not key.startswith("x-"):
                self.add((*place, key), f"unknown key {show(key)}; {hint(key, rules)}")


def hint(word: str, known: Iterable[str]) -> str:
    """Say which of the known keys was meant, or else name them all."""
    words = sorted(known)
    close = closest(word, words)
    if close is not None:
        return f"did you mean {show(close)}?"
    return f"known are {', '.join(words)}; a key of your own begins with x-"


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the one of the known words that looks most like this one, if any does."""
    # A comparison costs the product of both lengths, and a word so long was no slip.
    close = difflib.get_close_matches(word, known, n=1) if len(word) <= 200 else []
    return close[0] if close else None


def show(value: object) -> str:
    """Write a value of the file for an error: one line, at most about 60 characters."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value[:60] if isinstance(value, str) else value)
    return text if len(text) <= 60 else text[:57] + "…"


def number(*, above: float | None = None, low: float | None = None, high: float = LONGEST) -> Check:
    """Demand a finite number: more than `above` or at least `low`, and at most `high`."""

    def check(value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            quoted = isinstance(value, str) and _looks_numeric(value)
            return f"must be a number, not {show(value)}" + ("; remove the quotes" * quoted)
        if not math.isfinite(value):
            return "must be a finite number"
        if above is not None and value <= above:
            return f"must be more than {above:g}, not {show(value)}"
        if low is not None and value < low:
            return f"must be at least {low:g}, not {show(value)}"
        return f"must be at most {high:,.0f}, not {show(value)}" if value > high else None

    return check


def whole(*, low: int, high: int) -> Check:
    """Demand a whole number from `low` to `high`; true and 1.0 are none."""

    def check(value: object) -> str | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return f"must be a whole number, not {show(value)}"
        if not low <= value <= high:
            return f"must be from {low:,} to {high:,}, not {show(value)}"
        return None

    return check


def one_of(*words: str) -> Check:
    """Demand one of the words."""

    def check(value: object) -> str | None:
        if value in words:
            return None
        said = f"must be {', '.join(words[:-1])} or {words[-1]}, not {show(value)}"
        close = closest(value, words) if isinstance(value, str) else None
        return said if close is None else f"{said}; did you mean {show(close)}?"

    return check


def line_of_text(*, longest: int) -> Check:
    """Demand one line of 1 to `longest` characters that cannot act on a terminal."""

    def check(value: object) -> str | None:
        if not isinstance(value, str):
            return _not_text(value)
        if not value:
            return "must not be empty"
        if len(value) > longest:
            return f"must be at most {longest} characters long, not {len(value):,}"
        # isprintable is the quick way to say yes; it also says no to some harmless characters.
        if not value.isprintable() and (found := _UNPRINTABLE.search(value)):
            return f"must not hold control characters (here U+{ord(found.group()):04X})"
        return None

    return check


def argument(*, empty: bool = True, longest: int) -> Check:
    """Demand text that can be handed to a process: no NUL, no half of a surrogate pair."""

    def check(value: object) -> str | None:
        if not isinstance(value, str):
            return _not_text(value)
        if not value and not empty:
            return "must not be empty"
        if len(value) > longest:
            return f"must be at most {longest:,} characters long, not {len(value):,}"
        if found := _NUL_OR_SURROGATE.search(value):
            return f"must not hold the character U+{ord(found.group()):04X}"
        return None

    return check


def name_of(what: str) -> Check:
    """Demand the name of an agent or a worker (DESIGN §5): `what` says of which."""

    def check(value: object) -> str | None:
        if not isinstance(value, str):
            return _not_text(value)
        # A name becomes part of file names, where . and .. are folders.
        if NAME.fullmatch(value) and set(value) != {"."}:
            return None
        return f"{show(value)} cannot name {what}: use 1 to 64 of A-Z a-z 0-9 . _ -"

    return check


def environment_name(value: object) -> str | None:
    """Demand the name of an environment variable: not empty, no `=`, no NUL."""
    if not isinstance(value, str):
        return _not_text(value)
    if not value or "=" in value or _NUL_OR_SURROGATE.search(value):
        return f"{show(value)} cannot name an environment variable"
    return None


def mapping(value: object) -> str | None:
    """Demand a mapping."""
    return None if isinstance(value, dict) else f"must be a mapping, not {show(value)}"


def yes_or_no(value: object) -> str | None:
    """Demand true or false."""
    return None if isinstance(value, bool) else f"must be true or false, not {show(value)}"


def sequence(value: object) -> str | None:
    """Demand a list."""
    return None if isinstance(value, list) else f"must be a list, not {show(value)}"


def _not_text(value: object) -> str:
    if value is None or isinstance(value, dict | list):
        return f"must be text, not {show(value)}"
    return f"must be text, not {show(value)}; put it in quotes"


def _looks_numeric(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
