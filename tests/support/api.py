"""The HTTP API, served in this process on a port that is free, and a client that asks it."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from support.patience import PATIENCE

from engine.api.serving import served
from engine.config import ApiConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from engine.api.serving import Served
    from engine.core import Engine


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error, which has a sentence, too."""
        error = self.json
        assert set(error) == {"code", "message"}, error
        assert error["message"]
        return str(error["code"])


@dataclass
class Client:
    """Asks a server, on a connection of its own each time."""

    host: str
    port: int
    token: str
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, api: Served) -> Client:
        url = urlsplit(api.url)
        assert url.hostname
        assert url.port
        return cls(url.hostname, url.port, api.token.read_text().strip())

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def ask_now(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        known: bool = True,
    ) -> Reply:
        """Ask, and wait for the answer; `known`: with the token."""
        sent = (self.authorization if known else {}) | dict(headers or {})
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)) as wire:
            wire.request(method, path, body=body, headers=sent)
            answer = wire.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read())

    async def ask(self, method: str, path: str, **more: Any) -> Reply:
        return await asyncio.to_thread(self.ask_now, method, path, **more)

    async def get(self, path: str, **more: Any) -> Any:
        """Return the value that a path answers with."""
        reply = await self.ask("GET", path, **more)
        assert reply.status == 200, reply
        return reply.json

    async def post(self, path: str, value: Any) -> Reply:
        """Send a value as JSON."""
        headers = {"Content-Type": "application/json"}
        return await self.ask("POST", path, headers=headers, body=json.dumps(value))

    def connect(self) -> socket.socket:
        """Open a connection that nobody speaks HTTP on yet."""
        return socket.create_connection((self.host, self.port), timeout=PATIENCE)

    def say(self, text: str) -> bytes:
        """Send bytes as they are, and return all that comes until the connection ends."""
        with self.connect() as wire:
            wire.sendall(text.encode())
            return b"".join(iter(lambda: wire.recv(65536), b""))


@asynccontextmanager
async def serving(engine: Engine, **settings: Any) -> AsyncIterator[Client]:
    """Serve an open engine."""
    async with served(engine, ApiConfig(**{"port": 0} | settings)) as api:
        yield Client.of(api)


@contextmanager
def served_aside(
    make: Callable[[], Engine], begin: Callable[[Engine], Awaitable[object]]
) -> Iterator[Client]:
    """Serve an engine from a thread with a loop of its own, for clients that would block ours."""
    ready: Future[Client] = Future()
    over = threading.Event()

    async def serve() -> None:
        async with make() as engine:
            await begin(engine)
            async with serving(engine) as client:
                ready.set_result(client)
                await asyncio.to_thread(over.wait)

    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(asyncio.run, serve())
        try:
            first: tuple[Future[Any], ...] = (ready, work)
            wait(first, PATIENCE, FIRST_COMPLETED)
            if work.done():
                work.result()
            yield ready.result(0)
        finally:
            over.set()
            work.result(PATIENCE)
