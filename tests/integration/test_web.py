"""A request over HTTP is answered, or given up in time, whatever the other side does."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.request import Request

import pytest
from support.engines import until

from engine.web import NoAnswer, ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

WELL = b"HTTP/1.1 204 So be it\r\nConnection: close\r\n\r\n"
SOON = 0.3
"""Seconds that a request gets here; answers that come piece by piece take much longer."""


@asynccontextmanager
async def a_server(parts: Iterable[bytes], pause: float = 0.0) -> AsyncIterator[int]:
    """Answer whatever comes with these parts, a pause after each, then with nothing more."""
    over = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause)
            await over.wait()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        over.set()


async def test_an_answer_is_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_server([WELL]) as port:
        request = Request(f"http://127.0.0.1:{port}/")
        answer = await ask(request, seconds=5)
        assert (answer.status, answer.reason) == (204, "So be it")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        assert (await ask(request, seconds=5, proxied=False)).status == 204
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(NoAnswer):
            await ask(request, seconds=5)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("parts", "pause"),
    [
        ([], 0),
        ([bytes([byte]) for byte in WELL], 0.1),
        ([WELL[:-2], *[b"A: b\r\n"] * 50], 0.05),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"] * 50, 0.05),
    ],
    ids=["silent", "a byte at a time", "endless headers", "endless patience"],
)
async def test_who_takes_too_long_is_given_up_and_no_thread_stays(
    parts: list[bytes], pause: float, scheme: str
) -> None:
    async with a_server(parts, pause) as port:
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        with pytest.raises(NoAnswer):
            await ask(Request(f"{scheme}://127.0.0.1:{port}/"), seconds=SOON)
        # It waits for its threads.
        await loop.shutdown_default_executor()
        assert time.monotonic() - began < SOON + 2


@pytest.mark.parametrize(
    "said", [b"SSH-2.0-OpenSSH\r\n", b"\0" * 100_000, b"HTTP/1.1 0 \r\n\r\n", WELL[:20]]
)
async def test_who_does_not_speak_http_is_told(said: bytes) -> None:
    async with a_server([said]) as port:
        with pytest.raises(NoAnswer):
            await ask(Request(f"http://127.0.0.1:{port}/"), seconds=SOON)


@pytest.mark.parametrize("url", ["http://a b/", "http://127.0.0.1:x/", "http:///", "http://[::1/"])
async def test_what_is_no_url_is_told(url: str) -> None:
    with pytest.raises((NoAnswer, ValueError)):
        await ask(Request(url), seconds=SOON)


async def test_a_cancelled_one_leaves_no_thread() -> None:
    async with a_server([]) as port:
        request = asyncio.create_task(ask(Request(f"http://127.0.0.1:{port}/"), seconds=600))
        await until(lambda: len(asyncio.all_tasks()) > 2, "it has asked")
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        began = time.monotonic()
        await asyncio.get_running_loop().shutdown_default_executor()
        assert time.monotonic() - began < 5
