"""The ways to an MCP server, as the SDK's client wants them: two streams of messages each.

The SDK's `stdio_client` starts the server itself and tells nobody its pid, so it could be ended by
no guard and no operator (DESIGN §4 rules 4 and 5): `Pipes` speaks with a process that somebody else
has started. Any async context manager that yields two such streams is a transport
(`mcp.client.Transport`). It knows no run, no tool and no arguments.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

import anyio
import httpx2
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

from engine.executors.mcp.order import Fault
from engine.executors.programs import Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp.client._transport import TransportStreams
    from mcp.types import JSONRPCMessage

    from engine.executors.mcp.order import Server

_MEBI = 1024 * 1024
_LONGEST = 64 * _MEBI
"""Bytes of one message; an image is one, in base64."""
_NOISE = _MEBI
"""Bytes that a server may print between two messages before it counts as one that speaks another
protocol."""
_AT_ONCE = 65536
_SLOW = 8 * _AT_ONCE
"""Bytes of a message from which on it is parsed off the event loop."""
_FLUSH = 0.5
_AS_IT_IS = {"Accept-Encoding": "identity"}


class Way(Protocol):
    """The way to a server. `trouble` is what it says of an error, `printed` what else it heard."""

    trouble: Exception | None
    printed: bytes

    def streams(self) -> AbstractAsyncContextManager[TransportStreams]:
        """Open it for as long as the context lasts: what is read of it, what is written to it."""


class Pipes:
    """The ends of a process's pipes, `to` its input and `of` its output; they are not closed.

    It ends with `ended`, which is the end of the leader: an heir that keeps the pipe open holds up
    nobody.
    """

    def __init__(self, to: int, of: int, ended: asyncio.Future[None]) -> None:
        self._to, self._of, self._ended = to, of, ended
        self._noise = 0
        self.trouble: Exception | None = None
        self.printed = b""
        os.set_blocking(to, False)
        os.set_blocking(of, False)

    @asynccontextmanager
    async def streams(self) -> AsyncIterator[TransportStreams]:
        """Open the way, as an SDK's `Transport` does."""
        incoming, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
        flushed = anyio.Event()
        async with incoming, read, write, outgoing, anyio.create_task_group() as tasks:
            tasks.start_soon(self._read, incoming)
            tasks.start_soon(self._write, outgoing, incoming, flushed)
            try:
                yield read, write
            finally:
                # What was said last goes out: it may be that the call is cancelled.
                write.close()
                with anyio.move_on_after(_FLUSH, shield=True):
                    await flushed.wait()
                tasks.cancel_scope.cancel()

    async def _read(self, incoming: MemoryObjectSendStream[SessionMessage | Exception]) -> None:
        try:
            async with incoming:
                async for line in self._lines():
                    message = await self._parsed(line)
                    if message is not None:
                        await incoming.send(SessionMessage(message))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # nobody listens any more
        except Fault as fault:
            self.trouble = fault

    async def _lines(self) -> AsyncIterator[bytes]:
        """Yield what the server prints, line by line, until it or its leader has ended."""
        buffer, left = bytearray(), 4 * _AT_ONCE
        while True:
            over = self._ended.done()
            try:
                chunk = os.read(self._of, _AT_ONCE)
            except BlockingIOError:
                if over:
                    return
                await _ready(self._of, self._ended)
                continue
            # Who prints faster than we read never lets a read wait, and others have a right to run.
            await asyncio.sleep(0)
            left -= len(chunk) if over else 0
            if not chunk or left < 0:  # an heir of the leader may print for ever
                return
            buffer += chunk
            # Only the new part is looked through: a long line would be read over and over.
            if b"\n" in chunk:
                *lines, rest = bytes(buffer).split(b"\n")
                buffer = bytearray(rest)
                for line in lines:
                    yield line
            if len(buffer) > _LONGEST:
                raise _too_long()

    async def _parsed(self, line: bytes) -> JSONRPCMessage | None:
        """Return the message of a line, None for what is none."""
        try:
            if len(line) > _SLOW:
                message = await asyncio.to_thread(_parse, line)
            else:
                message = _parse(line)
        except ValueError as error:
            self.printed = line.strip()[-300:] or self.printed
            if line.lstrip().startswith(b"{") and b'"jsonrpc"' in line:
                # It may be the answer, and that would be waited for for ever.
                said = line[:200].decode(errors="replace")
                raise Fault(f"it sent a message that cannot be read: {said}") from error
        else:
            self._noise = 0
            return message
        self._noise += len(line) + 1
        if self._noise > _NOISE:
            said = self.printed.decode(errors="replace")
            raise Fault(f"it prints what is no message of the protocol: {said}")
        await asyncio.sleep(0)
        return None

    async def _write(
        self,
        outgoing: MemoryObjectReceiveStream[SessionMessage],
        incoming: MemoryObjectSendStream[SessionMessage | Exception],
        flushed: anyio.Event,
    ) -> None:
        try:
            async for message in outgoing:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                data = memoryview(text.encode() + b"\n")
                while data:
                    try:
                        data = data[os.write(self._to, data[:_AT_ONCE]) :]
                    except BlockingIOError:
                        await _ready(self._to, self._ended, writing=True)
                        if self._ended.done():
                            return
        except OSError:
            await incoming.aclose()  # it does not listen: whoever waits for an answer must know
        finally:
            flushed.set()


class Http:
    """Streamable HTTP with headers of our own; a tool may take as long as its run may."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.trouble: Exception | None = None
        self.printed = b""

    @asynccontextmanager
    async def streams(self) -> AsyncIterator[TransportStreams]:
        """Open the way, as an SDK's `Transport` does."""
        async with (
            httpx2.AsyncClient(
                headers=dict(self._server.headers) | _AS_IT_IS,
                timeout=httpx2.Timeout(30, read=None),
                event_hooks={"response": [self._look]},
            ) as client,
            streamable_http_client(
                self._server.url, http_client=client, max_sse_event_size=_LONGEST
            ) as streams,
        ):
            yield streams

    async def _look(self, response: httpx2.Response) -> None:
        """Keep what the SDK's own errors do not tell of an answer, and bound its size."""
        kind = response.headers.get("content-type", "").lower()
        if not kind.startswith("text/event-stream"):  # each event of that has its bound
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Bounded(response.stream, self)
        if response.request.method != "POST":
            return
        name, status = self._server.name, response.status_code
        if response.has_redirect_location:
            # Within its origin it is followed, and the next answer counts.
            self.trouble = Refused(
                f"the MCP server '{name}' redirects to {_target(response)}; put that into "
                f"mcp.{name}.url in agentmux.yaml if it is the one you mean, then retry the task"
            )
        elif status < 400:
            self.trouble = None
        elif status in {401, 403}:
            self.trouble = Refused(
                f"the MCP server '{name}' does not let us in (HTTP {status}); mend "
                f"mcp.{name}.headers in agentmux.yaml, then retry the task"
            )
        else:
            self.trouble = Fault(f"it answers with HTTP {status} {response.reason_phrase}")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            # It is not read: a thousand bytes of it may stand for a million.
            self.trouble = self.trouble or Fault("it compresses what it was asked not to")
            raise self.trouble


class _Bounded(httpx2.AsyncByteStream):
    """The body of an answer, as long as it is no longer than a message may be."""

    def __init__(self, stream: httpx2.AsyncByteStream, way: Http) -> None:
        self._stream, self._way = stream, way

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > _LONGEST:
                self._way.trouble = _too_long()
                raise self._way.trouble
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def _target(response: httpx2.Response) -> str:
    """Return where a redirect leads, without what may be a secret."""
    try:
        url = response.request.url.join(response.headers["location"])
    except httpx2.InvalidURL:
        return "what is no address"
    return f"{url.scheme}://{url.netloc.decode('ascii')}{url.path}"


def _too_long() -> Fault:
    return Fault(f"it sent a message of more than {_LONGEST // _MEBI} MiB")


def _parse(line: bytes) -> JSONRPCMessage:
    return jsonrpc_message_adapter.validate_json(line, by_name=False)


async def _ready(file: int, ended: asyncio.Future[None], *, writing: bool = False) -> None:
    """Return once a pipe can be used, or its process has ended."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    (loop.add_writer if writing else loop.add_reader)(file, _mark, ready)
    try:
        await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        (loop.remove_writer if writing else loop.remove_reader)(file)


def _mark(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
