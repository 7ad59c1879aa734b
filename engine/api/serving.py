"""A server over an open engine, in its event loop: a socket first, and all of it ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import uvicorn
from msgspec import Struct

from engine.api.app import make_app
from engine.api.door import LOOPBACK, MOST_HEAD, Door
from engine.api.token import read_token
from engine.api.wire import MOST_CONNECTIONS, Wire
from engine.errors import StorageError, ValidationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from engine.config import ApiConfig
    from engine.core import Engine

_GRACE = 2
"""Seconds that requests get to end once the server is to."""
_TICK = 1.0
_LOOK = 0.1
_HEADERS = [
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-store"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'; sandbox"),
]
"""What every answer says: a browser is to execute, show and keep nothing of it."""


class Served(Struct, frozen=True):
    """A server that listens: its URL, and the file with the token."""

    url: str
    token: Path


class _Server(uvicorn.Server):
    """uvicorn's server, but that signals are the engine's and that it sleeps when it can."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._asked = asyncio.Event()

    def stop(self) -> None:
        """Ask it to end."""
        self.should_exit = True
        self._asked.set()

    async def main_loop(self) -> None:
        """Wait until it is to end; the date in its answers is set anew each second."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await self._asked.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to who holds the engine."""
        yield


@asynccontextmanager
async def served(engine: Engine, settings: ApiConfig) -> AsyncIterator[Served]:
    """Serve an engine for as long as the context lasts.

    Then streams end, and what else is being answered gets two seconds.

    Raises:
        StorageError: the port is taken, the address is not ours, or the token cannot be had.
        ValidationError: others can reach the address, and no names of it are given.

    """
    token = await asyncio.to_thread(read_token, engine.layout.api_token)
    with _listen(settings) as listening:
        address = listening.getsockname()
        hosts = [*LOOPBACK, *settings.hosts, settings.host]
        app = make_app(engine)
        server = _Server(
            uvicorn.Config(
                Door(app, token=token, hosts=hosts),
                http=Wire,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                log_level="critical",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                headers=_HEADERS,
                h11_max_incomplete_event_size=MOST_HEAD,
                timeout_graceful_shutdown=_GRACE,
                # So many are accepted before any of them can be refused: each is an open file.
                backlog=MOST_CONNECTIONS,
            )
        )
        serving = asyncio.create_task(server.serve([listening]), name="serving")
        try:
            yield Served(f"http://{_in_url(address[0])}:{address[1]}/", engine.layout.api_token)
        finally:
            app.state.streams.ending = True
            engine.feed.publish()
            server.stop()
            await serving
            await _end(server)


def _listen(settings: ApiConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listening = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        why = str(error.strerror).partition(" (while")[0]
        is_taken = error.errno == errno.EADDRINUSE
        advice = "another port, or end what has it" if is_taken else "another address or port"
        raise StorageError(
            f"cannot listen on {_in_url(settings.host)}:{settings.port}: {why}; choose {advice}"
        ) from error
    if not ipaddress.ip_address(listening.getsockname()[0]).is_loopback and not settings.hosts:
        listening.close()
        raise ValidationError(
            f"{settings.host} can be reached from elsewhere: say under `api: hosts:` in "
            "agentmux.yaml by which names, and put TLS in front of it"
        )
    return listening


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


async def _end(server: _Server) -> None:
    """End what has outlasted the grace: who reads nothing, or is waiting for a tree to end."""
    state = server.server_state
    while state.tasks:
        # What still wants to say something to somebody who reads nothing would wait for that.
        for connection in list(state.connections):
            if isinstance(connection, Wire) and connection.flow.write_paused:
                connection.transport.abort()
        await asyncio.wait(state.tasks, timeout=_LOOK)
    for connection in list(state.connections):
        connection.transport.abort()
