"""JSON Schemas of answers, from the structs that they are made of. Pure.

`to_json` gives a struct camelCase keys, all of them, and so do the schemas here.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct

from engine import commands, errors, findings, model, views
from engine.care import alerts
from engine.model import camel

Schema = dict[str, Any]

REF = "#/components/schemas/"
_NAMES = {
    name: value
    for module in (commands, errors, findings, model, views, alerts)
    for name, value in vars(module).items()
    if isinstance(value, type)
} | {"Mapping": Mapping, "datetime": datetime, "Any": Any}
"""What annotations name, also where a module imports it for the type checker alone."""

EVENT: Schema = {
    "type": "object",
    "description": "A line of events.jsonl. What only its type carries stands beside the rest.",
    "required": ["seq", "ts", "type"],
    "properties": {
        "seq": {"type": "integer"},
        "ts": {"type": "string", "format": "date-time"},
        "type": {"type": "string", "enum": list(model.EventType)},
        "agent": {"type": "string"},
        "workerId": {"type": "string"},
        "taskId": {"type": "string"},
        "runId": {"type": "string"},
        "state": {"type": "string", "enum": list(model.State)},
    },
}
ERROR: Schema = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {
        "code": {"type": "string", "enum": list(errors.Code)},
        "message": {"type": "string", "description": "What happened, to what, and what to do."},
    },
}


class Schemas:
    """Schemas by name, as an OpenAPI document has them; one for each struct that is asked for."""

    def __init__(self) -> None:
        self.found: dict[str, Schema] = {"Event": EVENT, "Error": ERROR}

    def of(self, kind: Any) -> Schema:
        """Return the schema of a type; of a struct, or a name, a reference; `[X]`: many of X."""
        if isinstance(kind, str):
            return {"$ref": f"{REF}{kind}"}
        if isinstance(kind, list):
            return {"type": "array", "items": self.of(kind[0])}
        if isinstance(kind, type) and issubclass(kind, Struct):
            return self._struct(kind)
        return self._plain(kind)

    def _plain(self, kind: Any) -> Schema:
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        if origin in {types.UnionType, typing.Union}:
            return {"anyOf": [self.of(one) for one in inner]}
        if origin is tuple:
            return self.of([inner[0]])
        if origin is Mapping:
            return {"type": "object", "additionalProperties": self.of(inner[1])}
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            return {"type": "string", "enum": list(kind)}
        return dict(_PLAIN[kind])

    def named(self, kind: type[Struct], name: str, **more: Any) -> str:
        """Make the schema of a struct with fields added or changed, and return its name."""
        whole = self._made(kind)
        fields = {camel(field): self.of(one) for field, one in more.items()}
        self.found[name] = {
            **whole,
            "required": list(dict.fromkeys([*whole["required"], *fields])),
            "properties": whole["properties"] | fields,
        }
        return name

    def _struct(self, kind: type[Struct]) -> Schema:
        name = kind.__name__
        if name not in self.found:
            self.found[name] = {}  # it may name itself
            self.found[name] = self._made(kind)
        return self.of(name)

    def _made(self, kind: type[Struct]) -> Schema:
        hints = typing.get_type_hints(kind, localns=_NAMES)
        return {
            "type": "object",
            "description": (kind.__doc__ or "").split("\n\n", 1)[0],
            "required": [camel(name) for name in kind.__struct_fields__],
            "properties": {camel(name): self.of(hints[name]) for name in kind.__struct_fields__},
        }


_PLAIN: Mapping[Any, Schema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    datetime: {"type": "string", "format": "date-time"},
    type(None): {"type": "null"},
    Any: {},
}
