"""Turns the events of a YAML parser into plain values, and refuses what they must not hold.

Scalars mean what they mean to `yaml.SafeLoader`, but dates stay text: JSON has none. It knows
no file and no encoding; `engine.parsing.yamlfile` is the door.
"""

from __future__ import annotations

import math
import re
from typing import Any, Protocol

import yaml
from yaml.constructor import SafeConstructor
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from engine.errors import Problem
from engine.parsing.checks import Place, show

DEEPEST = 100
"""Levels of nesting."""
MOST_TEXT = 64 * 1024 * 1024
"""Characters: no file is larger, and no file grows by more than that through its aliases."""

_ALIAS_FACTOR = 10
_ALIAS_ROOM = 1_000_000
_LONGEST_NUMBER = 400
_TAG = "tag:yaml.org,2002:"
_CONSTANTS: dict[str, bool | None] = {
    "": None,
    "~": None,
    **{
        form: value
        for word, value in (
            ("null", None),
            ("yes", True),
            ("true", True),
            ("on", True),
            ("no", False),
            ("false", False),
            ("off", False),
        )
        for form in (word, word.capitalize(), word.upper())
    },
}
_DIGITS = frozenset("0123456789+-.")
_SPECIAL = frozenset(word[0] for word in _CONSTANTS if word) | _DIGITS
"""Plain scalars that begin otherwise are text."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_PLAIN_KEY = re.compile(r"[^\s\"'.\[\]]{1,60}")


class Events(Protocol):
    """What is used of a PyYAML parser."""

    def get_event(self) -> Any:
        """Return the next event."""

    def dispose(self) -> None:
        """Let go of the input."""


class Refused(Exception):  # noqa: N818 - it ends the reading; the reader makes an error of it
    """The rest of the document cannot or must not be read."""

    def __init__(self, event: Event, message: str, place: Place = ()) -> None:
        super().__init__(message)
        self.problem = Problem(line_of(event), write_place(place), message)


class Builder:
    """Turns events into values. Recursive, but never deeper than DEEPEST.

    `size` is that of the text in characters; what is refused without ending the reading is
    appended to `problems`.
    """

    def __init__(self, events: Events, size: int, problems: list[Problem]) -> None:
        self._problems = problems
        self._get = events.get_event
        self._place: list[str | int] = []
        self._keys: dict[str, str] = {}
        self._anchors: dict[str, tuple[object, int] | None] = {}
        self._expanded = 0
        self._room = min(_ALIAS_FACTOR * size + _ALIAS_ROOM, MOST_TEXT)

    def document(self) -> object:
        """Return the value of the stream's only document; None for an empty stream.

        Raises:
            Refused: reading cannot go on.
            yaml.YAMLError: the parser's own refusals.

        """
        self._get()  # the start of the stream
        start = self._get()
        if type(start) is StreamEndEvent:
            return None
        value = self._node(self._get(), 0)
        self._get()  # the end of the document
        after = self._get()
        if type(after) is DocumentStartEvent:
            raise Refused(after, "a second document begins here; a file holds one")
        return value

    def _node(self, event: Any, depth: int) -> object:
        kind = type(event)
        if kind is AliasEvent:
            return self._alias(event)
        anchor = event.anchor
        if anchor is None:
            return self._build(event, kind, depth)[0]
        self._anchors[anchor] = None
        before = self._expanded
        value, end = self._build(event, kind, depth)
        size = max(1, end.end_mark.index - event.start_mark.index) + self._expanded - before
        self._anchors[anchor] = value, size
        return value

    def _build(self, event: Any, kind: type, depth: int) -> tuple[object, Any]:
        """Return the value and the event that ended it."""
        if kind is ScalarEvent:
            return self._scalar(event), event
        if depth >= DEEPEST:
            raise Refused(event, f"nested more than {DEEPEST} levels deep", tuple(self._place))
        if event.tag not in {None, "!", _TAG + ("map" if kind is MappingStartEvent else "seq")}:
            self._refuse_tag(event)
        self._place.append(0)
        result = (self._mapping if kind is MappingStartEvent else self._sequence)(depth + 1)
        self._place.pop()
        return result

    def _mapping(self, depth: int) -> tuple[object, Any]:
        get, place, keys = self._get, self._place, self._keys
        result: dict[str, object] = {}
        merged: dict[str, object] | None = None
        while type(event := get()) is not MappingEndEvent:
            key: object
            merging = False
            if _is_plain(event) and event.value in keys and event.anchor is None:
                key = keys[event.value]  # a word that was a good key before
            else:
                merging = _is_plain(event) and event.value == "<<"
                key = "<<" if merging else self._key(event, depth)
            place[-1] = key if isinstance(key, str) else "?"
            value = self._value(get(), depth)
            if merging:
                merged = self._merge(event, value, merged)
            elif key in result:
                self._problem(event, f"the key {show(key)} is already set above; remove one")
            elif isinstance(key, str):
                result[key] = value
        if merged is not None:
            result = merged | result
        return result, event

    def _sequence(self, depth: int) -> tuple[object, Any]:
        get, place = self._get, self._place
        result: list[object] = []
        while type(event := get()) is not SequenceEndEvent:
            place[-1] = len(result)
            result.append(self._value(event, depth))
        return result, event

    def _value(self, event: Any, depth: int) -> object:
        if type(event) is ScalarEvent and event.implicit[0] and event.anchor is None:
            text: str = event.value
            return text if text and text[0] not in _SPECIAL else self._plain(event, text)
        return self._node(event, depth)

    def _key(self, event: Any, depth: int) -> object:
        """Return the key, or None after having refused it."""
        self._place[-1] = "?"
        key = self._node(event, depth)
        if not isinstance(key, str):
            text = event.value if type(event) is ScalarEvent else ""
            advice = f'; put it in quotes: "{text}"' if text and len(text) <= 40 else ""
            self._problem(event, f"a key must be text, not {show(key)}{advice}")
            return None
        if _is_plain(event) and event.anchor is None:
            self._keys[key] = key
        return key

    def _merge(
        self, event: Event, value: object, merged: dict[str, object] | None
    ) -> dict[str, object]:
        result: dict[str, object] = {}
        if merged is not None:
            self._problem(event, "the merge key << is already set above; use a list: <<: [*a, *b]")
        for source in reversed(value if isinstance(value, list) else [value]):
            if isinstance(source, dict):
                result |= source
            else:
                self._problem(event, f"<< takes a mapping or a list of them, not {show(source)}")
        return result

    def _alias(self, event: Any) -> object:
        name = event.anchor
        if name not in self._anchors:
            self._problem(event, f"*{name} is used before any &{name} is set")
            return None
        known = self._anchors[name]
        if known is None:
            raise Refused(event, f"*{name} stands inside itself", tuple(self._place))
        value, size = known
        self._expanded += size
        if self._expanded > self._room:
            raise Refused(
                event, "the aliases (*name) make the file too large when written out in full"
            )
        return value

    def _scalar(self, event: Any) -> object:
        if event.implicit[0]:
            return self._plain(event, event.value)
        if event.tag in {None, "!", _TAG + "str"}:
            text: str = event.value
            # Only PyYAML's own parser lets "\\ud800" through; no encoding could hold it.
            if not text.isprintable() and _SURROGATE.search(text):
                self._problem(event, "holds half of a surrogate pair; write the character itself")
                return None
            return text
        return self._tagged(event)

    def _tagged(self, event: Any) -> object:
        wanted = _NUMERIC_TAGS.get(event.tag)
        if wanted is None:
            self._refuse_tag(event)
            return None
        value = self._plain(event, event.value)
        if wanted is float and type(value) is int:
            value = float(value)
        if type(value) is not wanted:
            self._problem(event, f"{show(event.value)} is no {event.tag.replace(_TAG, '!!')}")
            return None
        return value

    def _plain(self, event: Event, text: str) -> object:
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if text[0] not in _DIGITS:
            return text
        try:
            return _number(text)
        except ValueError as error:
            self._problem(event, f"{show(text)} {error}; if it is text, put it in quotes")
            return None

    def _refuse_tag(self, event: Any) -> None:
        tag = show(event.tag.replace(_TAG, "!!"))
        self._problem(event, f"the tag {tag} is not known here; write plain values only")

    def _problem(self, event: Event, message: str) -> None:
        self._problems.append(Problem(line_of(event), write_place(tuple(self._place)), message))


def find_lines(events: Events, wanted: set[Place]) -> dict[Place, int]:
    """Return the line of each place; of one that came by an alias, the line of what holds it."""
    found = _LineFinder(events, wanted).find()
    lengths = {place: range(len(place), -1, -1) for place in wanted}
    return {
        place: next((found[place[:n]] for n in lengths[place] if place[:n] in found), 1)
        for place in wanted
    }


class _LineFinder:
    def __init__(self, events: Events, wanted: set[Place]) -> None:
        self._get = events.get_event
        self._needed = {place[:n] for place in wanted for n in range(len(place) + 1)}
        self._found: dict[Place, int] = {}

    def find(self) -> dict[Place, int]:
        self._get()  # the start of the stream
        if type(self._get()) is DocumentStartEvent:
            self._visit(self._get(), ())
        return self._found

    def _visit(self, event: Any, place: Place) -> None:
        if place in self._needed:
            self._found.setdefault(place, line_of(event))
        if type(event) is MappingStartEvent:
            while type(event := self._get()) is not MappingEndEvent:
                below = (*place, event.value if type(event) is ScalarEvent else "?")
                self._visit(event, below)
                self._visit(self._get(), below)
        elif type(event) is SequenceStartEvent:
            index = 0
            while type(event := self._get()) is not SequenceEndEvent:
                self._visit(event, (*place, index))
                index += 1


_NUMERIC_TAGS: dict[str, type] = {
    _TAG + "int": int,
    _TAG + "float": float,
    _TAG + "bool": bool,
    _TAG + "null": type(None),
}
_NUMBERS = SafeConstructor()


def _number(text: str) -> str | int | float:
    """Read a plain scalar that begins like a number as SafeLoader does; most dates are text.

    Raises:
        ValueError: it is a number that JSON or the store could not hold.

    """
    for tag, pattern in yaml.SafeLoader.yaml_implicit_resolvers[text[0]]:
        if not pattern.match(text):
            continue
        if tag not in _NUMERIC_TAGS:
            return text
        if len(text) > _LONGEST_NUMBER:
            raise ValueError("is too long for a number")
        node = yaml.ScalarNode(tag, text)
        value: int | float
        try:
            is_int = tag.endswith(":int")
            value = (_NUMBERS.construct_yaml_int if is_int else _NUMBERS.construct_yaml_float)(node)
        except (ValueError, OverflowError) as error:
            raise ValueError("is no number") from error
        if is_int and not -(2**63) <= value < 2**63:
            raise ValueError("is too large for a whole number")
        if not math.isfinite(value):
            raise ValueError("is not a finite number")
        return value
    return text


def _is_plain(event: Any) -> bool:
    return type(event) is ScalarEvent and bool(event.implicit[0])


def line_of(event: Any) -> int:
    """Return the line where an event begins, counted from 1."""
    return int(event.start_mark.line) + 1


def write_place(place: Place) -> str:
    """Write `("tasks", 3, "deps")` as `tasks[3].deps`."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += "." * bool(text) + (part if _PLAIN_KEY.fullmatch(part) else show(part))
    return text
