"""What the readers of JSON lines share: a line is decoded, and its fields taken, without a fault.

Whatever stands in a line, nothing here raises: a field of a wrong type counts as absent. Knows no
format.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

import msgspec

from engine.agents.vocabulary import Entry, Kind, Trouble

Fields: TypeAlias = Mapping[str, Any]
"""A JSON object."""
Told: TypeAlias = tuple[Entry, ...] | None
"""What a line says: nothing, or something; None if it is not understood."""
Handler: TypeAlias = Callable[[Fields, datetime | None], Told]

LONGEST = 200
"""Characters of a call's key argument: more than a line of any screen."""

COMMON = (
    "file_path", "path", "absolute_path", "command", "cmd", "pattern", "query", "url", "uri",
    "name", "title", "description", "prompt", "id",
)  # fmt: skip
"""What a tool's key argument is called if nothing is known of the tool, the likeliest first."""

_LOOK = LONGEST * 8
"""Characters of a value that are looked at."""
_LARGEST = 2**53
"""Beyond that a number is no count of tokens, and JSON does not keep it exact."""
_YEARS = range(1970, 9999)
"""Outside of them a time is none, and where it is shown it may not even have a local time."""
_NOTHING = b"\0 \t\r\n"
# A pair of surrogates, a half of one, or any other escape: what follows a backslash is never
# taken for the beginning of an escape of its own.
_ESCAPE = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
_FAULTS = (msgspec.DecodeError, UnicodeError, RecursionError)

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Signs:
    """Tells what kind of trouble a text is about, by what stands in it; the first kind counts."""

    def __init__(self, **patterns: str) -> None:
        self._patterns = [
            (Trouble[name.upper()], re.compile(pattern, re.IGNORECASE))
            for name, pattern in patterns.items()
        ]

    def __call__(self, words: str) -> Trouble | None:
        """Return the trouble, or None if it is none that we know."""
        words = words[:_LOOK]
        found = (trouble for trouble, pattern in self._patterns if pattern.search(words))
        return next(found, None)


class JsonReader:
    """Reads lines that are JSON objects with a `type`, and perhaps with a `timestamp`."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers

    def read(self, line: bytes, at: datetime | None = None) -> tuple[Entry, ...]:
        """Return what a line says; never raises."""
        data = decode(line)
        if data is None:
            return unknown(line, at)
        at = moment(data.get("timestamp")) or at
        handler = self._handlers.get(text(data.get("type")))
        told = handler(data, at) if handler else None
        return unknown(line, at) if told is None else told


def silent(_data: Fields, _at: datetime | None) -> Told:
    """Handle what says nothing to us."""
    return ()


def decode(line: bytes) -> Fields | None:
    """Return the JSON object of a line, or None if it holds none.

    Of a key that stands there twice the last one counts. Bytes that are no UTF-8 and halves of
    surrogate pairs (what JavaScript writes of an emoji that was cut in two) become U+FFFD.
    """
    try:
        value = _decode(line)
    except _FAULTS:
        text = line.strip(_NOTHING).decode("utf-8", "replace")
        if not text.startswith("{"):
            return None
        text = _ESCAPE.sub(lambda escape: "\\ufffd" if escape[1] else escape[0], text)
        try:
            value = _decode(text)
        except _FAULTS:
            return None
    return value if isinstance(value, dict) else None


def unknown(line: bytes, at: datetime | None) -> tuple[Entry, ...]:
    """Return a line that is not understood as it is; nothing for one that holds nothing."""
    text = line.strip(_NOTHING)
    return (Entry(Kind.UNKNOWN, text.decode("utf-8", "replace"), at),) if text else ()


def as_json(value: object) -> str:
    """Write a decoded value as JSON again, on one line."""
    try:
        return _encode(value).decode()
    except RecursionError:
        # Encoding may take more of the stack than decoding did.
        return ""


def text(value: object) -> str:
    """Return a text, or an empty one for anything else."""
    return value if isinstance(value, str) else ""


def fields(value: object) -> Fields:
    """Return an object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> Sequence[Any]:
    """Return a list, or an empty one for anything else."""
    return value if isinstance(value, list) else ()


def count(value: object) -> int | None:
    """Return a whole number that can be a count, else None."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST:
        return value
    return None


def dollars(value: object) -> float | None:
    """Return a number that can be a cost, else None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _LARGEST:
        return float(value)
    return None


def total(numbers: Sequence[int | None]) -> int | None:
    """Return the sum of what is known; None if nothing is."""
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def moment(value: object) -> datetime | None:
    """Return the UTC time of an ISO text or of a Unix time in (milli)seconds, else None."""
    when = None
    try:
        if isinstance(value, str):
            when = datetime.fromisoformat(value)
            when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
        elif isinstance(value, int | float) and math.isfinite(value) and value > 0:
            when = datetime.fromtimestamp(value / 1000 if value > 1e11 else value, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return when if when is not None and when.year in _YEARS else None


def one_line(value: str, folder: str = "") -> str:
    """Return a text on one line, cut to LONGEST; a path in `folder` as seen from there."""
    if folder and value.startswith(folder) and value[len(folder) :].startswith("/"):
        value = value[len(folder) + 1 :]
    if len(value) > LONGEST or not value.isprintable() or "  " in value:
        value = " ".join(value[:_LOOK].split())
        if len(value) > LONGEST:
            value = value[: LONGEST - 1] + "…"
    return value


def key_argument(arguments: object, names: Sequence[str], folder: str = "") -> str:
    """Return that argument of a call that says most, on one line.

    The first of `names` that is there, else the first text, else the first number.
    """
    if not isinstance(arguments, dict):
        return one_line(text(arguments), folder)
    for name in names:
        value = arguments.get(name)
        if value:
            if isinstance(value, str):
                return one_line(value, folder)
            if isinstance(value, list) and isinstance(value[0], str):
                return one_line(", ".join(map(text, value[:20])), folder)
    for kind in (str, int, float):
        for value in arguments.values():
            if isinstance(value, kind) and value and not isinstance(value, bool):
                return one_line(str(value), folder)
    return ""


def said(content: object) -> str:
    """Return the text of an answer: a text, or a list of blocks of which some are texts."""
    if isinstance(content, str):
        return content
    parts = []
    for block in items(content):
        words = text(fields(block).get("text")) or text(block)
        parts.append(words or f"[{text(fields(block).get('type')) or 'something'}]")
    return "\n".join(parts)
