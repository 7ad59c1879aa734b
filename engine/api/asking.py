"""What requests can ask for, and how it is checked: nothing that is not told of is taken.

A parameter that nobody knows is refused, and so is one that is given twice, or a body where none
is read: `?dryrun=true` must not cancel a task.

Annotations are read by FastAPI here and in the modules of routes: they are no strings.
"""

from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote

import msgspec
from fastapi import Depends, Path, Query, Request
from fastapi.routing import APIRoute
from msgspec import Struct
from pydantic import BeforeValidator, Field
from pydantic.json_schema import SkipJsonSchema

from engine.api.answers import HTTPRefusal
from engine.core import Engine
from engine.errors import ValidationError
from engine.model import State

S = TypeVar("S", bound=Struct)

MOST = 1000
"""Rows of one answer."""
LARGEST = 2**53 - 1
"""The largest number that every reader of JSON takes as it is."""


# FastAPI calls what is no coroutine in a thread: two switches, and the wait for one that is free.
async def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


Nothing = SkipJsonSchema[None]
"""That a parameter is left out; `null` does not say so."""

Opened = Annotated[Engine, Depends(_engine)]
DryRun = Annotated[
    bool, Query(alias="dryRun", description="Only say what would be done: its real plan.")
]
Seq = Annotated[int, Field(ge=0, le=LARGEST)]
"""The number of an event; 0 is that of none."""
Limit = Annotated[int, Query(ge=1, le=MOST, description="So many at most.")]
Offset = Annotated[int, Query(ge=0, le=LARGEST, description="So many are passed over first.")]
Words = Annotated[
    str,
    Query(description="A filter, as README has it under *Filters*: `why:timeout agent:codex`."),
]
_STATES = {"enum": ["waiting", *State]}
StateName = Annotated[
    str, Query(description="In any case; READY and all that waits.", json_schema_extra=_STATES)
]
SomeState = Annotated[
    str | Nothing, Query(description="Only those in this state.", json_schema_extra=_STATES)
]
SomeAgent = Annotated[str | Nothing, Query(description="Only this agent's.")]
SomeTask = Annotated[str | Nothing, Query(description="Only this task's.")]
NAME = r"\.*[A-Za-z0-9_-][A-Za-z0-9._-]*"
# What is no UTF-8 is refused: with a mark in its place it could be the id of another.
_DECODED = BeforeValidator(partial(unquote, errors="strict"))
Segment = Annotated[str, Path(description="Percent-encoded."), _DECODED]
"""A part of a path that may hold anything, a slash, too. See engine.api.door: none is decoded."""
Name = Annotated[str, Path(pattern=f"^{NAME}$", max_length=64), _DECODED]
AgentOrAll = Annotated[
    str,
    Query(pattern=rf"^(\*|{NAME})$", max_length=64, description="This agent's; `*`: of all."),
]


async def check_asked(request: Request) -> None:
    """Raise what is wrong with a request that no parameter's own rule finds."""
    route = request.scope["route"]
    known = _known_parameters(route)
    given = [name for name, _ in request.query_params.multi_items()]
    for name in dict.fromkeys(given):
        if name not in known:
            there = ", ".join(known) or "none"
            raise ValidationError(f"there is no parameter {name!r} here; there are: {there}")
        if given.count(name) > 1:
            raise ValidationError(f"{name!r} is given {given.count(name)} times; give it once")
    if not (route.openapi_extra or {}).get("requestBody") and await request.body():
        raise ValidationError("no body is read here; say it in the URL")


def _known_parameters(route: APIRoute) -> list[str]:
    """Return the names of what can stand in the query of a route."""
    return [field.alias for field in route.dependant.query_params]


def body_of(kind: type[Struct]) -> dict[str, Any]:
    """Return what OpenAPI has to say of a route that takes such a body."""
    schema = msgspec.json.schema(kind, ref_template="{name}")
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema["$defs"][kind.__name__]}},
        }
    }


async def read_body(request: Request, kind: type[S]) -> S:
    """Return the body of a request.

    Raises:
        HTTPRefusal: it is not said to be JSON, which no form of a web page can say.
        ValidationError: it is not as it must be.

    """
    told = request.headers.get("content-type", "")
    if told.partition(";")[0].strip().lower() != "application/json":
        raise HTTPRefusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send JSON, and `Content-Type: application/json`"
        )
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValidationError(f"the body: {error}") from error
