"""What comes back: JSON in the shapes of the command line, and errors with their code and status.

Every error is `{"code": …, "message": …}`, with one of the codes of DESIGN §4.10.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from http import HTTPStatus
from time import perf_counter
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response, StreamingResponse

from engine.errors import AgentmuxError, Code
from engine.model import to_json
from engine.shapes import as_json, receipt_json

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

    from starlette.types import Receive, Scope, Send

    from engine.commands import Receipt

STATUSES: Mapping[Code, HTTPStatus] = {
    Code.VALIDATION_ERROR: HTTPStatus.BAD_REQUEST,
    Code.TASK_NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.TASK_NOT_READY: HTTPStatus.CONFLICT,
    Code.ILLEGAL_TRANSITION: HTTPStatus.CONFLICT,
    Code.LEASE_CONFLICT: HTTPStatus.CONFLICT,
    Code.NOT_CLAIMED_BY_WORKER: HTTPStatus.CONFLICT,
    Code.WORKER_NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.COMMAND_NOT_ALLOWED: HTTPStatus.FORBIDDEN,
    Code.IO_ERROR: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""The status of an error of the engine, by its code."""
CODES: Mapping[int, Code] = {
    HTTPStatus.UNAUTHORIZED: Code.COMMAND_NOT_ALLOWED,
    HTTPStatus.FORBIDDEN: Code.COMMAND_NOT_ALLOWED,
    HTTPStatus.METHOD_NOT_ALLOWED: Code.COMMAND_NOT_ALLOWED,
    HTTPStatus.MISDIRECTED_REQUEST: Code.COMMAND_NOT_ALLOWED,
    HTTPStatus.INTERNAL_SERVER_ERROR: Code.IO_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE: Code.IO_ERROR,
}
"""The code of what HTTP alone refuses, by its status; else it is VALIDATION_ERROR."""


_STRETCH = 0.005
"""Seconds for which one list may have the event loop to itself."""


class HTTPRefusal(Exception):  # noqa: N818 - it refuses; nothing went wrong
    """What HTTP refuses and no command knows of: a status, and a sentence on what to do."""

    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        *,
        code: Code | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code or CODES.get(status, Code.VALIDATION_ERROR)
        self.headers = headers


def not_found(message: str, code: Code = Code.VALIDATION_ERROR) -> HTTPRefusal:
    """Return the refusal of a path to something that is not there."""
    return HTTPRefusal(HTTPStatus.NOT_FOUND, message, code=code)


class Answer(JSONResponse):
    """A JSON value."""

    def render(self, content: Any) -> bytes:
        """Write it as the command line does."""
        return as_json(content).encode("ascii")


async def listed(
    rows: Iterable[Any], shape: Callable[[Any], Any] = to_json, *, total: int | None = None
) -> Response:
    """Return the answer with a list, within a window if `total` is told.

    Rows are written one by one, and whoever waits for the event loop is let in between: leases
    are renewed on it, and a thousand rows may have a megabyte each.
    """
    parts: list[str] = []
    until = perf_counter() + _STRETCH
    for row in rows:
        parts.append(as_json(shape(row)))
        if perf_counter() > until:
            await asyncio.sleep(0)
            until = perf_counter() + _STRETCH
    items = f"[{', '.join(parts)}]"
    body = items if total is None else f'{{"total": {total}, "items": {items}}}'
    return Response(body.encode("ascii"), media_type=Answer.media_type)


def refusal(
    status: int, code: Code, message: str, headers: Mapping[str, str] | None = None
) -> Answer:
    """Return the answer that something is refused."""
    return Answer({"code": code, "message": message}, status, headers)


def refused(error: AgentmuxError) -> Answer:
    """Return the answer to what the engine refuses."""
    return refusal(STATUSES[error.code], error.code, str(error))


def told(receipt: Receipt, *, bulk: bool = False) -> Answer:
    """Return the answer to a command.

    Unless it is for many, what it was for is either done or refused, and the answer is that.
    """
    if receipt.refused and not bulk:
        no = receipt.refused[0]
        return refusal(STATUSES[no.code], no.code, no.message)
    return Answer(receipt_json(receipt))


class Stream(StreamingResponse):
    """Bytes as they come. `on_end` is called once nobody reads them any more."""

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        on_end: Callable[[], object],
        media_type: str,
        headers: Mapping[str, str],
        status_code: int = HTTPStatus.OK,
    ) -> None:
        super().__init__(chunks, status_code, headers, media_type)
        self._chunks = chunks
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; whatever cuts that short, what it holds is given back."""
        try:
            async with aclosing(self._chunks):
                await super().__call__(scope, receive, send)
        finally:
            self._on_end()
