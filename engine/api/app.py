"""The application: its routes, how it answers to errors, its OpenAPI document."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route

from engine import __version__
from engine.api import events, fleet, health, runs, tasks
from engine.api.answers import CODES, Answer, HTTPRefusal, refusal, refused
from engine.api.asking import check_asked
from engine.api.events import Streams
from engine.api.shown import ERRORS, SCHEMAS
from engine.errors import AgentmuxError, Code

if TYPE_CHECKING:
    from starlette.requests import Request

    from engine.core import Engine

log = logging.getLogger(__name__)

_SUBJECTS = (health, tasks, runs, events, fleet)

_ABOUT = """The engine of agentmux: the same commands, receipts and reads as on its command line.

Each request needs `Authorization: Bearer TOKEN`. Times are UTC; numbers of events only grow."""


def make_app(engine: Engine) -> FastAPI:
    """Return the application over an open engine. It has no door: see engine.api.door."""
    app = FastAPI(
        title="agentmux",
        version=__version__,
        description=_ABOUT,
        # Its pages load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        default_response_class=Answer,
        dependencies=[Depends(check_asked)],
        responses=ERRORS,
    )
    app.state.engine = engine
    app.state.streams = Streams()
    for subject in _SUBJECTS:
        app.include_router(subject.routes)
    app.add_exception_handler(AgentmuxError, _on_agentmux_error)
    app.add_exception_handler(HTTPRefusal, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_bug)
    document = _document(app)
    app.openapi = lambda: document  # type: ignore[method-assign]
    return app


async def _on_agentmux_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, AgentmuxError)
    return refused(error)


async def _on_refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPRefusal)
    return refusal(error.status, error.code, str(error), error.headers)


async def _on_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    said: dict[str, str] = {}
    for (
        one
    ) in error.errors():  # of what can be left out also that it is not None, which helps nobody
        said.setdefault(one["loc"][1], one["msg"])
    words = "; ".join(f"{name}: {what}" for name, what in said.items())
    return refusal(HTTPStatus.BAD_REQUEST, Code.VALIDATION_ERROR, words)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    code = CODES.get(status, Code.VALIDATION_ERROR)
    if status == HTTPStatus.NOT_FOUND:
        return refusal(status, code, "there is no such path; /openapi.json has those there are")
    if status != HTTPStatus.METHOD_NOT_ALLOWED:
        return refusal(status, code, error.detail)
    there = {"Allow": ", ".join(_methods(request))}
    if request.method == "OPTIONS":
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=there)
    return refusal(status, code, f"this path takes {there['Allow']}", there)


def _methods(request: Request) -> list[str]:
    """Return the methods that the path of a request takes."""
    found = {"OPTIONS"}
    for route in [*request.app.routes, *(one for part in _SUBJECTS for one in part.routes.routes)]:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return sorted(found | {"HEAD"} if "GET" in found else found)


async def _on_bug(_request: Request, error: Exception) -> Response:
    log.error("a request failed", exc_info=error)
    return refusal(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        Code.IO_ERROR,
        "something is wrong in agentmux itself; state/agentmux.log tells what",
    )


def _document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document: ours are the schemas, and 400 is what FastAPI calls 422."""
    document = app.openapi()
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    parts = document["components"]
    for unused in ("HTTPValidationError", "ValidationError"):
        del parts["schemas"][unused]
    parts["schemas"] |= SCHEMAS.found
    parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    return document
