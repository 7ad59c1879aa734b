"""What every request must show before anything is done for it, in this order.

- Its length is told in one way: where it is told in two, a proxy before us may have found another
  end of it, and take what we read as the next request for a part of this one.
- It calls us by a name that is ours (`Host`): a page that makes its own name lead to this machine
  (DNS rebinding) does not, and is refused with 421.
- Its head is small, or 431.
- It has the token, or 401. There is no other way in, for no route.
- Its body, which is read here, is small, or 413.

HEAD is GET whose body is left out: the application need not know it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from engine.api.answers import HTTPRefusal, refusal
from engine.errors import Code

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_HEAD = 16 * 1024
"""Bytes of a request before its body."""
MOST_BODY = 64 * 1024
"""Bytes of a body."""
TOO_LONG = f"URL and headers have more than {MOST_HEAD:,} bytes; send less"
_CUT_SHORT = "the server ended meanwhile: look what became of it, and ask again"
_HOST = re.compile(rb"(?:\[([0-9a-f:.]+)\]|([^\[\]:]+?)\.?)(?::[0-9]*)?", re.IGNORECASE)


class Door:
    """Lets in who knows the token and calls us by one of `hosts`."""

    def __init__(self, app: ASGIApp, *, token: bytes, hosts: Iterable[str]) -> None:
        self._app = app
        self._token = token
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer that it is refused."""
        try:
            self._check(scope)
            body = await _read(receive)
        except HTTPRefusal as no:
            send = _without_body(send) if scope["method"] == "HEAD" else send
            answer = refusal(no.status, no.code, str(no), no.headers)
            await answer(scope, receive, send)
            return
        if body is None:
            return
        # Routes are found before the path is decoded: a slash within an id parts nothing.
        scope = {**scope, "path": scope["raw_path"].decode("ascii")}
        if scope["method"] == "HEAD":
            scope["method"], send = "GET", _without_body(send)
        try:
            await self._app(scope, _replaying(body, receive), send)
        except asyncio.CancelledError:  # the server ends
            with contextlib.suppress(RuntimeError):  # unless the answer has begun
                await refusal(HTTPStatus.SERVICE_UNAVAILABLE, Code.IO_ERROR, _CUT_SHORT)(
                    scope, receive, send
                )
            raise

    def _check(self, scope: Scope) -> None:
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope["headers"]}:
            raise HTTPRefusal(
                HTTPStatus.BAD_REQUEST,
                "send either Content-Length or Transfer-Encoding, not both",
                headers={"Connection": "close"},
            )
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or _name_of(hosts[0]) not in self._hosts:
            raise HTTPRefusal(
                HTTPStatus.MISDIRECTED_REQUEST,
                "this server does not go by that name; call it by its address, or name it under "
                "`api: hosts:` in agentmux.yaml",
            )
        size = len(scope["raw_path"]) + len(scope["query_string"])
        size += sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        if size > MOST_HEAD:
            raise HTTPRefusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TOO_LONG)
        shown = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(shown) != 1 or not self._is_token(shown[0]):
            raise HTTPRefusal(
                HTTPStatus.UNAUTHORIZED,
                "send the token in state/api.token: `Authorization: Bearer TOKEN`",
                headers={"WWW-Authenticate": "Bearer"},
            )
        length = next((v for name, v in scope["headers"] if name == b"content-length"), b"0")
        if int(length) > MOST_BODY:
            raise _too_large()

    def _is_token(self, shown: bytes) -> bool:
        scheme, _, token = shown.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token)


def _name_of(host: bytes) -> str | None:
    """Return the name of a Host header, without port and brackets; None: it is not one."""
    found = _HOST.fullmatch(host)
    return None if found is None else (found[1] or found[2]).decode("latin-1").lower()


def _too_large() -> HTTPRefusal:
    return HTTPRefusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body has more than {MOST_BODY:,} bytes; send less",
    )


async def _read(receive: Receive) -> bytes | None:
    """Return the body of a request; None: the client has gone."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > MOST_BODY:
            raise _too_large()
        if not message.get("more_body"):
            return bytes(body)


def _replaying(body: bytes, receive: Receive) -> Receive:
    read = False

    async def replayed() -> Message:
        nonlocal read
        if read:
            return await receive()
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _without_body(send: Send) -> Send:
    """Return a `send` that ends the answer with its head."""
    over = False

    async def head_only(message: Message) -> None:
        nonlocal over
        if not over:
            over = True
            await send(message)
            # Whoever would stream a body learns by that that nobody wants it.
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return head_only
