"""What each route answers with, as its part of the OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.api.schemas import Schemas
from engine.care.health import Report
from engine.commands import Receipt
from engine.model import EventType
from engine.views import (
    AlertRow,
    ExternalRow,
    Health,
    HoldRow,
    RunRow,
    ServiceRow,
    TaskDetail,
    TaskRow,
    WorkerRow,
)

if TYPE_CHECKING:
    from engine.api.schemas import Schema

    Responses = dict[int | str, dict[str, Any]]

SCHEMAS = Schemas()
"""All schemas that the routes name."""


def _json(schema: Schema, what: str) -> dict[str, Any]:
    return {"description": what, "content": {"application/json": {"schema": schema}}}


def _all(kind: Any) -> Responses:
    return {200: _json(SCHEMAS.of([kind]), "All there are")}


def _window(kind: Any) -> Responses:
    window = {
        "type": "object",
        "required": ["total", "items"],
        "properties": {
            "total": {"type": "integer"},
            "items": SCHEMAS.of([kind]),
        },
    }
    return {200: _json(window, "Some of them, and how many there are")}


_ERRORS = {
    400: "What was asked is not as it must be",
    401: "The token is missing, or wrong",
    403: "It is not allowed",
    404: "There is no such thing",
    409: "How things stand does not allow it",
    413: "The body is too large",
    415: "The body is not JSON",
    421: "This server does not go by that name",
    431: "URL and headers are too large",
    503: "The store stands in the way",
}
ERRORS: Responses = {status: _json(SCHEMAS.of("Error"), what) for status, what in _ERRORS.items()}
RECEIPT: Responses = {200: _json(SCHEMAS.of(Receipt), "What was done, or would be")}
TASKS = _window(TaskRow)
_RUN_OF_TASK = SCHEMAS.named(RunRow, "RunOfTask", branch=str | None)
TASK: Responses = {
    200: _json(
        SCHEMAS.of(SCHEMAS.named(TaskDetail, "Task", runs=[_RUN_OF_TASK], events=["Event"])),
        "All about it",
    )
}
RUNS = _window(RunRow)
WORKERS = _all(SCHEMAS.named(WorkerRow, "Worker", activity=str))
AGENTS = _all(ExternalRow)
SERVICES = _all(ServiceRow)
ALERTS = _all(AlertRow)
ALERT: Responses = {
    200: _json(SCHEMAS.of(SCHEMAS.named(AlertRow, "AlertDetail", text=str)), "All that it tells")
}
HOLDS = _all(HoldRow)
EVENTS = _all("Event")
QUEUE: Responses = {
    200: _json(SCHEMAS.of(SCHEMAS.named(Report, "QueueHealth")), "The fleet in numbers")
}
HEALTH: Responses = {
    200: _json(SCHEMAS.of(Health), "It is well, or needs a look"),
    503: _json(SCHEMAS.of(Health), "It is degraded"),
}
_TEXT = {"text/plain": {"schema": {"type": "string"}}}
_BYTES = {"text/plain": {"schema": {"type": "string", "format": "binary"}}}
METRICS: Responses = {200: {"description": "For Prometheus", "content": _TEXT}}
LOG: Responses = {
    200: {"description": "All of it", "content": _BYTES},
    206: {"description": "The bytes that were asked for", "content": _BYTES},
    416: _json(SCHEMAS.of("Error"), "It has no such bytes"),
}
STREAM: Responses = {
    200: {
        "description": "Events as they happen; the id of each is its seq",
        "content": {
            "text/event-stream": {
                "itemSchema": {
                    "type": "object",
                    "required": ["id", "event", "data"],
                    "properties": {
                        "id": {"type": "string"},
                        "event": {"type": "string", "enum": list(EventType)},
                        "data": {
                            "type": "string",
                            "contentMediaType": "application/json",
                            "contentSchema": SCHEMAS.of("Event"),
                        },
                    },
                }
            }
        },
    }
}
