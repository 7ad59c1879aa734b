"""Promises of the judge of arguments: it is right, and no schema of a stranger holds it up."""

from __future__ import annotations

import time
from typing import Any

import pytest

from engine.executors.mcp.schema import find_faults

QUICK = 4.0
"""Seconds of this thread; what is tried here would take Python's own `re` hours, or for ever."""


@pytest.mark.parametrize(
    ("schema", "value", "faults"),
    [
        ({"type": "object"}, {}, []),
        ({"required": ["a"]}, {}, [": 'a' is a required property"]),
        (
            {"properties": {"a": {"items": {"type": "integer"}}}},
            {"a": [1, "x"]},
            [".a[1]: 'x' is not of type 'integer'"],
        ),
        (
            {"required": ["b"], "properties": {"a": {"properties": {"b c": {"minimum": 2}}}}},
            {"a": {"b c": 1}},
            [": 'b' is a required property", ".a['b c']: 1 is less than the minimum of 2"],
        ),
        ({"properties": {"a": {"pattern": "^x+$"}}}, {"a": "xxx"}, []),
        ({"pattern": "^x+$"}, "xy", [": 'xy' does not match '^x+$'"]),
        ({"pattern": "X"}, "x", [": 'x' does not match 'X'"]),
        (
            {"patternProperties": {"^n": {"type": "number"}}, "additionalProperties": False},
            {"n1": 1, "n2": "x", "other": 2},
            [": 'other' is no property that it may have", ".n2: 'x' is not of type 'number'"],
        ),
        (
            {
                "properties": {"known": {}},
                "patternProperties": {"^n": {}},
                "additionalProperties": {"type": "string"},
            },
            {"known": 1, "n": 1, "o": 1},
            [".o: 1 is not of type 'string'"],
        ),
        (
            {"additionalProperties": False},
            {"a": 1},
            [": Additional properties are not allowed ('a' was unexpected)"],
        ),
        (
            {"$defs": {"n": {"type": "number"}}, "properties": {"a": {"$ref": "#/$defs/n"}}},
            {"a": "x"},
            [".a: 'x' is not of type 'number'"],
        ),
        (
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "definitions": {"n": {"type": "number"}},
                "items": {"$ref": "#/definitions/n"},
            },
            ["x"],
            ["[0]: 'x' is not of type 'number'"],
        ),
        ({"uniqueItems": True}, [1, 1], [": [1, 1] has non-unique elements"]),
    ],
)
def test_what_does_not_fit_is_told_with_its_place_the_nearest_first(
    schema: Any, value: Any, faults: list[str]
) -> None:
    assert find_faults(value, schema) == faults


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"type": 5},
        {"$schema": 5, "type": "object"},
        {"$schema": "http://[", "type": "string"},
        {"$ref": "#/nowhere"},
        {"$ref": "https://example.org/schema.json"},
        {"$ref": "#"},
        {"properties": []},
        {"pattern": "(?=a)b"},
        {"pattern": "("},
        {"patternProperties": {"(?=a)b": False}, "additionalProperties": False},
        {"minimum": "x"},
        {"enum": 5},
    ],
)
def test_what_cannot_be_judged_is_left_to_the_server(schema: Any) -> None:
    value: Any = {"a": 1} if "patternProperties" in schema or "properties" in schema else "x"
    assert find_faults(value, schema) == []


def took(schema: Any, value: Any) -> float:
    """Return the seconds of this thread that it takes; a machine that is busy gets a second go."""
    spent = QUICK
    for _ in range(2):
        began = time.thread_time()
        find_faults(value, schema)
        spent = time.thread_time() - began
        if spent < QUICK:
            break
    return spent


DOUBLING = {
    "$defs": {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(60)}
    | {"60": {}},
    "$ref": "#/$defs/0",
}
ANY_OF_TWO = {
    "$defs": {str(n): {"anyOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(30)}
    | {"30": {"type": "integer"}},
    "$ref": "#/$defs/0",
}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": "^(a+)+$"}, "a" * 64 + "!"),
        ({"items": {"pattern": "^(a|a)*$"}}, ["a" * 64 + "!"]),
        ({"patternProperties": {"^(a+)+$": {}}}, {"a" * 64 + "!": 1}),
        (
            {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False},
            {"a" * 64 + "!": 1},
        ),
        (
            {"patternProperties": {"^(a+)+$": {}}, "unevaluatedProperties": False},
            {"a" * 64 + "!": 1},
        ),
        ({"propertyNames": {"pattern": "^(a+)+$"}}, {"a" * 64 + "!": 1}),
        (
            {
                "items": {
                    "$schema": "https://json-schema.org/draft/2020-12/schema",
                    "pattern": "^(a+)+$",
                }
            },
            ["a" * 64 + "!"],
        ),
        (
            {
                "$defs": {
                    "x": {
                        "$schema": "http://json-schema.org/draft-07/schema#",
                        "pattern": "^(a+)+$",
                    }
                },
                "$ref": "#/$defs/x",
            },
            "a" * 64 + "!",
        ),
        (DOUBLING, 1),
        (ANY_OF_TWO, "x"),
        ({"allOf": [{}] * 60_000}, 1),
        ({"uniqueItems": True}, [{"n": n} for n in range(20_000)]),
        ({"items": {"allOf": [{"type": "integer"}] * 1000}}, [1] * 100_000),
        ({"properties": {"a" * 300_000: {}}}, {}),
    ],
)
def test_no_schema_holds_up_the_judge(schema: Any, value: Any) -> None:
    assert took(schema, value) < QUICK


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"allOf": [{"uniqueItems": True}] * 1000}, [{"n": n} for n in range(1000)]),
        ({"allOf": [{"pattern": "^(a+)+$"}] * 1000}, "a" * 1_000_000 + "!"),
        ({"patternProperties": {"^(a+)+$": {}}}, {f"{n}": 1 for n in range(300_000)}),
    ],
    ids=["unique", "pattern", "names"],
)
def test_no_long_keyword_is_judged_again_and_again(
    schema: Any, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.executors.mcp.schema._LONGEST", 0.1)
    assert find_faults(value, schema) == []
    assert took(schema, value) < QUICK
