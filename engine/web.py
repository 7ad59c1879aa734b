"""One request over HTTP, and with what status it is answered.

A thread asks, for urllib knows proxies and TLS. Its own limits are those of a single step, and who
answers a byte at a time never reaches them: so the connection is cut when the time is over, and the
thread is free again.
"""

from __future__ import annotations

import asyncio
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from socket import SHUT_RDWR
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from socket import socket
    from urllib.request import Request


class NoAnswer(Exception):  # noqa: N818 - never reaches a user as such; it becomes a message
    """There was none in time, or it was not HTTP; the text says why."""


class Answer(Struct, frozen=True):
    """The status of an answer, and the words beside it."""

    status: int
    reason: str


async def ask(request: Request, *, seconds: float, proxied: bool = True) -> Answer:
    """Ask, and follow no redirection: what is sent must not go where nobody has named.

    `proxied`: by way of the proxy that the environment names, if it does.

    Raises:
        NoAnswer: also if the answer was not complete, up to its body, within `seconds`.

    """
    line = _Line()
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.to_thread(_ask, request, seconds, line, proxied)
    except TimeoutError:
        raise NoAnswer(f"no answer within {seconds:g} s") from None
    finally:
        line.cut()


def _ask(request: Request, seconds: float, line: _Line, proxied: bool) -> Answer:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect(), _Handler(line)]
    if not proxied:
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    try:
        with opener.open(request, timeout=seconds) as answer:
            return Answer(answer.status, answer.reason)
    except urllib.error.HTTPError as error:
        error.close()
        return Answer(error.code, str(error.reason))
    except HTTPException as error:
        raise NoAnswer(f"what answered does not speak HTTP ({type(error).__name__})") from error
    except (OSError, ValueError) as error:
        raise NoAnswer(str(getattr(error, "reason", error))) from error
    finally:
        line.close()


class _Line:
    """The connection of a request, for one thread to hold and for another to cut."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._end: socket | None = None
        self._is_cut = False

    def hold(self, connected: socket) -> None:
        """Hear of the connection. Raises TimeoutError if it comes too late."""
        with self._lock:
            if self._is_cut:
                raise TimeoutError("timed out")
            # An end of our own: TLS takes the other one over.
            self._end = connected.dup()

    def cut(self) -> None:
        """Let whoever waits for something on it wait no more."""
        with self._lock:
            self._is_cut = True
            if self._end is not None:
                with suppress(OSError):
                    self._end.shutdown(SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            if self._end is not None:
                self._end.close()
                self._end = None


class _Connection(HTTPConnection):
    line: _Line

    def connect(self) -> None:
        super().connect()
        self.line.hold(self.sock)


class _TlsConnection(HTTPSConnection, _Connection):
    """Its `connect` begins with that of `_Connection`, so it can be cut in a handshake, too."""


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections that can be cut."""

    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line

    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(self._opener(_Connection), req)

    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(self._opener(_TlsConnection), req)

    def _opener(self, kind: type[_Connection]) -> Any:
        def connection(host: str, **options: Any) -> _Connection:
            made = kind(host, **options)
            made.line = self._line
            return made

        return connection


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None
