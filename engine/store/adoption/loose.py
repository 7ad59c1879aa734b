"""Values of unknown shape, as an older agentmux left them: text, JSON, times; and notes on them.

Nothing here fails: what is not what it should be is None, and the caller says what is done then.
What comes out can be written again as it is, and read by everybody else.
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from engine.store.transaction import dump

if TYPE_CHECKING:
    from collections.abc import Mapping

_EXAMPLES = 3
_LONGEST_EXAMPLE = 60
_LONGEST_ERROR = 500
_DEEPEST = 100
_MILLISECONDS = 1e11
"""So many seconds end in the year 5138: a larger number counts milliseconds."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Notes(Struct):
    """What was odd, for people: a sentence for each kind, how often, and some examples."""

    _seen: dict[str, list[str]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    def add(self, sentence: str, example: str) -> None:
        """Note one more case of what `sentence` says; `example` names it."""
        self._counts[sentence] = self._counts.get(sentence, 0) + 1
        examples = self._seen.setdefault(sentence, [])
        if len(examples) < _EXAMPLES:
            examples.append(
                example if len(example) <= _LONGEST_EXAMPLE else f"{example[:_LONGEST_EXAMPLE]}…"
            )

    def told(self) -> tuple[str, ...]:
        """Return a line for each sentence, in the order in which they came up."""
        return tuple(
            f"{sentence}: {', '.join(examples)}"
            + (f" and {more:,} more" if (more := self._counts[sentence] - len(examples)) else "")
            for sentence, examples in self._seen.items()
        )


def read_moment(value: object) -> datetime | None:
    """Read a time: ISO 8601 with or without an offset (then UTC), or seconds or milliseconds.

    None: it is none, or before 1970.
    """
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
        elif isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value / 1000 if abs(value) >= _MILLISECONDS else value
            moment = datetime.fromtimestamp(seconds, UTC)
        else:
            return None
        moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return moment if moment.year >= 1970 else None


def to_text(value: object) -> str:
    """Return what a column holds as text; nothing is the empty text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)


def clean(text: str) -> str:
    """Return text without what no name may hold (DESIGN §6): control characters, surrogates."""
    return text if text.isprintable() else _CONTROL.sub("\ufffd", text)


def find_error(data: Mapping[str, Any]) -> str | None:
    """Return what a result, or a line of the log, says of a failure."""
    for key in ("error", "message", "reason", "text"):
        value = data.get(key)
        if value:
            text = value if isinstance(value, str) else dump({key: value})
            return text[:_LONGEST_ERROR]
    return None


def _finite(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


# Written again, NaN and what overflows would be refused.
_decode = json.JSONDecoder(parse_float=_finite, parse_constant=str).decode


def read_json(text: str) -> Any:
    """Return a JSON value; None if it is none, or so deep that others could not read it again."""
    try:
        value = _decode(text)
    except (ValueError, RecursionError):
        return None
    deep = text.count("[") + text.count("{") > _DEEPEST
    return None if deep and _too_deep(value) else value


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            item
            for whole in level
            if isinstance(whole, dict | list)
            for item in (whole.values() if isinstance(whole, dict) else whole)
        ]
        if not level:
            return False
    return True
