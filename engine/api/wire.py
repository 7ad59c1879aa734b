"""One connection: how many there are at once, and how long a request may take to arrive.

uvicorn waits for ever for the rest of a request. Whoever has no token could so keep us from
opening files: their connections are counted, and closed in time.
"""

from __future__ import annotations

import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from engine.api.answers import CODES
from engine.errors import Code
from engine.shapes import as_json

if TYPE_CHECKING:
    import asyncio

MOST_CONNECTIONS = 128
ARRIVAL = 10.0
"""Seconds from the first byte of a request, or from the connection, to the request's last byte."""


class Wire(H11Protocol):
    """A connection that speaks HTTP/1.1."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many."""
        super().connection_made(cast("asyncio.Transport", transport))
        # asyncio does so by itself only where it made the socket. Head and body are two writes:
        # the second would wait 40 ms for the client to acknowledge the first.
        one = transport.get_extra_info("socket")
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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

    def data_received(self, data: bytes) -> None:
        """Take what has come of a request."""
        super().data_received(data)
        self._mind_time()

    def send_400_response(self, msg: str) -> None:
        """Answer to what is not HTTP."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

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

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
