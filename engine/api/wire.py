"""One connection: how many there are at once, and how long it may keep us waiting.

uvicorn waits for ever for the rest of a request, and for who reads no answer. Whoever has no token
could so keep everybody else out: connections are counted, and closed in time.
"""

from __future__ import annotations

import socket
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from engine.api.answers import CODES
from engine.api.door import TOO_LONG
from engine.errors import Code
from engine.shapes import as_json

if TYPE_CHECKING:
    import asyncio

_TOO_LONG = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE

MOST_CONNECTIONS = 128
ARRIVAL = 10.0
"""Seconds from the first byte of a request, or from the connection, to the request's last byte."""
STALLED = 60.0
"""Seconds in which a client takes some of what is sent to it, or it counts as gone."""


class Wire(H11Protocol):
    """A connection that speaks HTTP/1.1."""

    _late: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many."""
        super().connection_made(cast("asyncio.Transport", transport))
        # asyncio does so by itself only where it made the socket. Head and body are two writes:
        # the second would wait 40 ms for the client to acknowledge the first.
        one = transport.get_extra_info("socket")
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Then `pause_writing` tells of the first byte that the client has no room for.
        self.transport.set_write_buffer_limits(0)
        if len(self.connections) > MOST_CONNECTIONS:
            self._refuse(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"there are {MOST_CONNECTIONS} connections already; try again later",
            )
        else:
            self._mind_time()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._in_time()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Take what has come of a request."""
        super().data_received(data)
        self._mind_time()

    def pause_writing(self) -> None:
        """Wait until the client has read."""
        super().pause_writing()
        self._mind_reading(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Go on: it has."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - what it says is always the same
        """Answer to what is not HTTP, or too long to tell."""
        if getattr(sys.exception(), "error_status_hint", 0) == _TOO_LONG:
            self._refuse(_TOO_LONG, TOO_LONG)
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, "this is no request that HTTP/1.1 allows")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        body = as_json({"code": CODES.get(status, Code.VALIDATION_ERROR), "message": message})
        headers = [
            *self.config.encoded_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            head = h11.Response(status_code=status, headers=headers, reason=status.phrase)
            for part in (head, h11.Data(data=body.encode()), h11.EndOfMessage()):
                self.transport.write(self.conn.send(part) or b"")
        self.transport.close()

    def _mind_time(self) -> None:
        arriving = self.conn.their_state in {h11.IDLE, h11.SEND_BODY}
        # Between two requests uvicorn's own timer, for idle connections, is set.
        if not arriving or self.timeout_keep_alive_task is not None:
            self._in_time()
        elif self._late is None and not self.transport.is_closing():
            self._late = self.loop.call_later(ARRIVAL, self.transport.close)

    def _mind_reading(self, left: int) -> None:
        def look() -> None:
            now = self.transport.get_write_buffer_size()
            if now < left:
                self._mind_reading(now)
            else:
                self.transport.abort()

        self._stalled = self.loop.call_later(STALLED, look)

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
