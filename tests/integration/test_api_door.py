"""Nothing is done for whom the HTTP API does not know, and nobody can wear it out."""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from support.api import Client, serving
from support.engines import until
from support.patience import PATIENCE

from engine.api import door, wire
from engine.api.app import make_app
from engine.api.token import read_token
from engine.api.wire import Wire
from engine.errors import StorageError, ValidationError

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from engine.core import Engine

OK = b"HTTP/1.1 200"


def routes() -> list[tuple[str, str]]:
    """Return every method and path of the document, and the document's own."""
    paths = make_app(None).openapi()["paths"]  # type: ignore[arg-type]
    found = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    return [*found, ("GET", "/openapi.json"), ("GET", "/nothing"), ("OPTIONS", "/health")]


def known(client: Client) -> str:
    """Return the header that shows the token."""
    return f"Authorization: Bearer {client.token}\r\n"


async def test_no_route_answers_without_the_token(client: Client) -> None:
    assert len(routes()) > 25
    for method, path in routes():
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": client.token}):
            reply = await client.ask(method, path, headers=headers, known=False)
            assert (reply.status, reply.code) == (401, "COMMAND_NOT_ALLOWED"), (method, path)
            assert reply.headers["www-authenticate"] == "Bearer"


async def test_the_token_is_taken_however_its_scheme_is_written(client: Client) -> None:
    headers = {"authorization": f"bearer  {client.token} "}
    assert (await client.ask("GET", "/health", headers=headers, known=False)).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200),
        ("LocalHost", 200),
        ("localhost.:80", 200),
        ("[::1]:80", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
        ("[::1].evil.example", 421),
        ("[::1", 421),
        ("localhost:80@evil.example", 421),
        ("localhost:80, evil.example", 421),
    ],
)
async def test_only_names_of_this_machine_are_answered_to(
    client: Client, host: str, status: int
) -> None:
    reply = await client.ask("GET", "/health", headers={"Host": host})
    assert reply.status == status
    if status != 200:
        assert reply.code == "COMMAND_NOT_ALLOWED"


async def test_a_name_of_the_settings_is_answered_to(engine: Engine) -> None:
    async with serving(engine, hosts=("fleet.example",)) as client:
        reply = await client.ask("GET", "/health", headers={"Host": "fleet.example:8383"})
        assert reply.status == 200


async def test_every_answer_keeps_browsers_from_using_it(client: Client) -> None:
    for path in ("/health", "/nothing", "/openapi.json"):
        headers = (
            await client.ask("GET", path, headers={"Origin": "https://evil.example"})
        ).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert not [name for name in headers if name.startswith("access-control")]
        assert "server" not in headers


async def test_what_is_too_large_is_refused(client: Client) -> None:
    large = b"x" * (door.MOST_BODY + 1)
    reply = await client.ask("POST", "/api/v1/agents", body=large)
    assert (reply.status, reply.code) == (413, "VALIDATION_ERROR")
    chunks = iter([large[:40_000], large[40_000:]])  # no Content-Length says so first
    assert (await client.ask("POST", "/api/v1/agents", body=chunks)).status == 413
    words = "x" * door.MOST_HEAD
    for path, head in (("/health", {"X-Long": words}), (f"/health?{words}", {})):
        reply = await client.ask("GET", path, headers=head)
        assert (reply.status, reply.code) == (431, "VALIDATION_ERROR")
    endless = await asyncio.to_thread(client.say, f"GET /health HTTP/1.1\r\nX-Long: {words}")
    assert endless.startswith(b"HTTP/1.1 431")


async def test_what_is_no_http_gets_an_answer_that_is(client: Client) -> None:
    said = await asyncio.to_thread(client.say, "hello\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400")
    assert b'"code": "VALIDATION_ERROR"' in said


async def test_a_request_whose_end_can_be_found_in_two_ways_is_refused(client: Client) -> None:
    head = f"POST /api/v1/hold HTTP/1.1\r\nHost: localhost\r\n{known(client)}"
    both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    said = await asyncio.to_thread(client.say, f"{head}{both}GET /health HTTP/1.1\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400")
    assert said.count(b"HTTP/1.1") == 1  # and what follows is no request
    assert await client.get("/api/v1/holds") == []


@pytest.mark.parametrize(
    "beginning",
    ["", "GET /health HT", "POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nx"],
)
async def test_a_request_that_does_not_arrive_is_waited_for_a_while_only(
    client: Client, monkeypatch: pytest.MonkeyPatch, beginning: str
) -> None:
    monkeypatch.setattr(wire, "ARRIVAL", 0.1)
    await asyncio.to_thread(client.say, beginning)  # it comes back once the connection has ended


async def test_connections_are_counted(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MOST_CONNECTIONS", 2)
    held: list[socket.socket] = []
    try:
        held = [await asyncio.to_thread(client.connect) for _ in range(2)]
        said = await asyncio.to_thread(client.say, "")
        assert said.startswith(b"HTTP/1.1 503")
        assert b'"code": "IO_ERROR"' in said
    finally:
        for one in held:
            one.close()

    async def is_open() -> bool:
        return (await client.ask("GET", "/health")).status == 200

    await until(is_open, "there is room again")


async def test_requests_follow_each_other_on_one_connection(client: Client) -> None:
    request = f"GET /api/v1/agents HTTP/1.1\r\nHost: localhost\r\n{known(client)}"
    said = await asyncio.to_thread(
        client.say, f"{request}\r\n{request}\r\n{request}Connection: close\r\n\r\n"
    )
    assert said.count(OK) == 3


async def test_who_reads_no_answer_is_let_go(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "STALLED", 0.1)

    def ask_on() -> None:
        with client.connect() as one:
            while True:
                one.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)

    with pytest.raises(ConnectionError):
        await asyncio.to_thread(ask_on)


async def test_who_reads_no_answer_does_not_keep_the_server_from_ending(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: set[Wire] = set()
    pause, resume = Wire.pause_writing, Wire.resume_writing

    def pause_writing(one: Wire) -> None:
        held.add(one)
        pause(one)

    def resume_writing(one: Wire) -> None:
        held.discard(one)
        resume(one)

    monkeypatch.setattr(Wire, "pause_writing", pause_writing)
    monkeypatch.setattr(Wire, "resume_writing", resume_writing)
    with ExitStack() as stack:
        async with serving(engine) as client:
            one = stack.enter_context(client.connect())
            request = f"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n{known(client)}\r\n"
            await asyncio.to_thread(one.sendall, request.encode() * 300)

            async def is_held() -> bool:
                return (await client.ask("GET", "/health")).status == 200 and bool(held)

            await until(is_held, "the server waits for its client")
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < PATIENCE / 10


# The token


def test_the_token_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "api.token"
    first = read_token(path)
    assert len(first) >= 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_token(path) == first
    assert [one.name for one in tmp_path.iterdir()] == ["api.token"]


def test_who_makes_it_at_the_same_moment_gets_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, others = tmp_path / "api.token", "o" * 43

    def quicker(_bytes: int) -> str:
        path.write_text(others)
        path.chmod(0o600)
        return "m" * 43

    monkeypatch.setattr(secrets, "token_urlsafe", quicker)
    assert read_token(path) == others.encode()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_token_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "api.token"
    read_token(path)
    path.chmod(mode)
    with pytest.raises(StorageError, match="not yours alone"):
        read_token(path)


def test_what_is_no_token_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "api.token"
    for text in ("", "short", "x" * 500, "ü" * 43):
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(StorageError, match="holds no token"):
            read_token(path)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="no regular file"):
        read_token(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StorageError, match="no regular file"):
        read_token(path)


# Where it listens


async def test_an_address_that_others_can_reach_needs_names(engine: Engine) -> None:
    with pytest.raises(ValidationError, match="api: hosts:"):
        async with serving(engine, host="0.0.0.0"):
            pass
    async with serving(engine, host="0.0.0.0", hosts=("fleet.example",)) as client:
        reply = await client.ask("GET", "/health", headers={"Host": "fleet.example"})
        assert reply.status == 200


async def test_a_port_that_is_taken_is_told(engine: Engine) -> None:
    async with serving(engine) as client:
        with pytest.raises(
            StorageError, match=f":{client.port}: Address already in use; .* end what"
        ):
            async with serving(engine, port=client.port):
                pass
        assert (await client.ask("GET", "/health")).status == 200
    with pytest.raises(
        StorageError, match=r"cannot listen on nobody.invalid.*; choose another address"
    ):
        async with serving(engine, host="nobody.invalid"):
            pass
