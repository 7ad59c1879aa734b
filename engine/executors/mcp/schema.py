"""Whether a value fits a schema that a stranger wrote, in bounded time and without reaching out.

A schema is what a server says, and Python's own `re` holds the interpreter while it matches: one
pattern like `(a+)+$` could keep a host from renewing its leases for hours. So patterns are RE2's,
references are followed within the schema alone, and the work is counted. What cannot be judged so
is not judged: the server does it. Imports `jsonschema`: only when a task needs it, and what is
here takes a moment, so call it off the event loop.

https://json-schema.org/draft/2020-12
"""

from __future__ import annotations

import json
import threading
import time
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import re2
from jsonschema.exceptions import ValidationError
from jsonschema.validators import Draft202012Validator, extend, validator_for
from referencing import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Keyword = Callable[[Any, Any, Any, Any], Iterable[ValidationError] | None]

_LARGEST = 1 << 18
"""Characters of a schema; a longer one is not looked at."""
_MOST_PARTS = 3000
"""Schemas within a schema: a second's work at most to see that each of them is one."""
_MOST_WORK = 20_000
"""Keywords that are applied, and names that are compared with a pattern: likewise."""
_LONGEST = 2.0
"""Seconds of this thread, for some keywords take long: a list of all that a value may be."""
_MOST_FAULTS = 1000
_LONGEST_LIST = 1000
"""Items that are compared each with each, where they must be unique."""
_MEMORY = 8 << 20
"""Bytes that one compiled pattern may take."""
_SHOWN = 300

_left = threading.local()


class _TooMuch(Exception):  # noqa: N818 - ends the work; never leaves this module
    """The schema asks for more work than anybody needs."""


def find_faults(value: Any, schema: Any) -> list[str]:
    """Return where and why a value does not fit, in words that begin with the place: `.a[0]: …`.

    The places nearest to the top come first. Nothing is found by a schema that is none.
    """
    _left.work, _left.until = _MOST_WORK, time.thread_time() + _LONGEST
    try:
        if len(json.dumps(schema)) > _LARGEST:
            return []
        stock = validator_for(schema, default=Draft202012Validator)
        if _parts(schema) > _MOST_PARTS:
            return []
        # What lies within must not bring back the validator that we replace.
        schema = _without_dialect(schema)
        stock.check_schema(schema, format_checker=None)
        # An empty registry: a schema that refers to an address does not make us fetch it.
        validator = _guarded(stock)(schema, registry=Registry())
        found = list(islice(validator.iter_errors(value), _MOST_FAULTS))
    except Exception:  # noqa: BLE001 - what is no schema breaks a validator in a hundred ways
        return []
    found.sort(key=lambda error: (len(error.absolute_path), str(error.absolute_path)))
    return [f"{error.json_path[1:]}: {_cut(error.message)}" for error in found]


def _parts(schema: Any) -> int:
    """Count what may be a schema of its own: mappings, true and false."""
    if isinstance(schema, dict):
        return 1 + sum(_parts(item) for item in schema.values())
    if isinstance(schema, list):
        return sum(_parts(item) for item in schema)
    return int(isinstance(schema, bool))


def _without_dialect(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: _without_dialect(item)
            for key, item in schema.items()
            if key != "$schema" or not isinstance(item, str)
        }
    return [_without_dialect(item) for item in schema] if isinstance(schema, list) else schema


@lru_cache(maxsize=16)
def _guarded(stock: Any) -> Any:
    """Return a validator like `stock` that cannot be held up by what it reads."""
    keywords: dict[str, Keyword] = dict(stock.VALIDATORS)
    additional, unique = keywords["additionalProperties"], keywords["uniqueItems"]

    def additional_properties(
        validator: Any, wanted: Any, instance: Any, schema: Any
    ) -> Iterable[ValidationError] | None:
        if "patternProperties" not in schema:
            return additional(validator, wanted, instance, schema)
        return _beyond_patterns(validator, wanted, instance, schema)

    def unique_items(
        validator: Any, wanted: Any, instance: Any, schema: Any
    ) -> Iterable[ValidationError] | None:
        if isinstance(instance, list) and len(instance) > _LONGEST_LIST:
            return None
        return unique(validator, wanted, instance, schema)

    keywords |= {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": additional_properties,
        "uniqueItems": unique_items,
    }
    counted = {name: _counted(keyword) for name, keyword in keywords.items()}
    # It looks for properties with patterns of its own.
    counted["unevaluatedProperties"] = lambda *_all: None
    return extend(stock, counted)


def _counted(keyword: Keyword) -> Keyword:
    def check(
        validator: Any, wanted: Any, instance: Any, schema: Any
    ) -> Iterable[ValidationError] | None:
        _spend()
        return keyword(validator, wanted, instance, schema)

    return check


def _spend() -> None:
    _left.work -= 1
    if _left.work < 0 or time.thread_time() > _left.until:
        raise _TooMuch


def _pattern(validator: Any, wanted: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not _matches(wanted, instance):
        yield ValidationError(f"{instance!r} does not match {wanted!r}")


def _pattern_properties(
    validator: Any, wanted: Any, instance: Any, _schema: Any
) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, schema in wanted.items():
        if _search(pattern) is None:
            continue
        for name, item in instance.items():
            if _matches(pattern, name):
                yield from validator.descend(item, schema, path=name, schema_path=pattern)


def _beyond_patterns(
    validator: Any, wanted: Any, instance: Any, schema: Any
) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    known, patterns = schema.get("properties", {}), schema["patternProperties"]
    # A pattern that cannot be judged counts as one that matches.
    extras = [
        name
        for name in instance
        if name not in known and not any(_matches(pattern, name) for pattern in patterns)
    ]
    if wanted is False:
        for name in extras:
            yield ValidationError(f"{name!r} is no property that it may have")
    elif isinstance(wanted, dict):
        for name in extras:
            yield from validator.descend(instance[name], wanted, path=name)


def _matches(pattern: str, text: str) -> bool:
    """Say whether a pattern is found in a text; True for one that RE2 does not know."""
    _spend()
    search = _search(pattern)
    return search is None or search(text.encode(errors="replace")) is not None


@lru_cache(maxsize=256)
def _search(pattern: str) -> Callable[[bytes], object] | None:
    options = re2.Options()
    options.never_capture = True
    options.log_errors = False  # to stderr, which is the terminal of the dashboard
    options.max_mem = _MEMORY
    try:
        search: Callable[[bytes], object] = re2.compile(
            pattern.encode(errors="replace"), options
        ).search
    except re2.error:
        return None
    return search


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
