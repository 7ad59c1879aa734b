"""MCP servers to call: one written with the official SDK, and one by hand that can misbehave.

As a program: `mcp_server.py sdk` or `mcp_server.py MODE` speak on stdio. The one by hand knows the
tools `respond` (answers with its arguments' `response` as it is) and `do` (what MODE says). What
it receives it tells on stderr. It imports nothing, so that it starts in a moment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mcp.server.mcpserver import MCPServer

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
TOKEN = "sesame-opens-the-door"


def command(mode: str) -> tuple[str, ...]:
    """Return how a server is started."""
    program = [sys.executable] if mode == "sdk" else [sys.executable, "-IS"]
    return (*program, str(Path(__file__)), mode)


def with_the_sdk(told: list[str] | None = None) -> MCPServer:
    """Return a server of a few tools; what befalls them is `told`."""
    import anyio
    from mcp.server.mcpserver import Context, Image, MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.shared.exceptions import MCPError
    from pydantic import BaseModel

    class Sum(BaseModel):
        total: int

    # Annotations are looked up in the module when a tool is registered.
    globals().update(Sum=Sum, Context=Context, Image=Image)
    server = MCPServer("test", log_level="WARNING")
    told = [] if told is None else told

    @server.tool()
    def add(a: int, b: int) -> Sum:
        return Sum(total=a + b)

    @server.tool()
    def picture() -> Image:
        return Image(data=PNG, format="png")

    @server.tool()
    async def slow(seconds: float, ctx: Context[Any, Any]) -> str:
        told.append("begun")
        try:
            for step in range(10):
                await ctx.report_progress(step + 1, 10, f"step \x1b[31m{step + 1}")
                await anyio.sleep(seconds / 10)
        except BaseException:
            told.append("interrupted")
            raise
        return "done"

    @server.tool()
    def full() -> str:
        raise ToolError("disk is full")

    @server.tool()
    def quota() -> str:
        raise MCPError(-32050, "quota is used up")

    return server


@asynccontextmanager
async def over_http(
    told: list[str], seen: list[dict[bytes, bytes]] | None = None, *, token: str = ""
) -> AsyncIterator[str]:
    """Serve on loopback, and give the url; `seen` gets the headers of all requests."""
    app: Any = with_the_sdk(told).streamable_http_app()

    async def door(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            if seen is not None:
                seen.append(headers)
            if scope["path"] == "/moved":
                await respond(send, 307, {"location": "/mcp"})
                return
            if token and headers.get(b"authorization") != f"Bearer {token}".encode():
                await respond(send, 401, {}, b"who are you?")
                return
        await app(scope, receive, send)

    async with serving(door, lifespan="on") as port:
        yield f"http://127.0.0.1:{port}/mcp"


def answering(status: int, headers: dict[str, str], *blocks: bytes) -> Any:
    """Return an ASGI application that gives the same answer to everybody."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await respond(send, status, headers, *blocks)

    return app


async def respond(send: Any, status: int, headers: dict[str, str], *blocks: bytes) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    for block in blocks:
        await send({"type": "http.response.body", "body": block, "more_body": True})
    await send({"type": "http.response.body"})


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for loopback that vouches for itself, and its key; return the files."""
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(here, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(pem))
    files[1].write_bytes(private)
    return files


@asynccontextmanager
async def serving(
    app: Any, *, lifespan: Literal["on", "off"] = "off", **settings: Any
) -> AsyncIterator[int]:
    """Serve an ASGI application on loopback, and give the port."""
    import asyncio
    import socket

    import uvicorn

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        config = uvicorn.Config(app, log_level="critical", lifespan=lifespan, ws="none", **settings)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:
            assert not task.done(), task.result()
            await asyncio.sleep(0.01)
        try:
            yield port
        finally:
            server.should_exit = True
            await task


def by_hand(mode: str) -> None:
    """Speak the protocol as of 2024-11-05, and answer nothing that was unknown then."""
    if mode.startswith("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode == "exits":
        sys.exit("no such database: /etc/\x1b[2Jcheese")
    while mode == "garbage":
        say("Listening on port 8000")
    while mode == "newlines":
        sys.stdout.write("\n" * 65536)
    if mode == "chatty":
        say("Starting up")
        say('{"level": "info", "msg": "started"}')
    for line in sys.stdin:
        message = json.loads(line)
        if mode == "debug":
            say(f"DEBUG received {line.strip()}")
            say("." * 400_000)
        sys.stderr.write(f"got {message['method']}\n")
        sys.stderr.flush()
        if mode not in {"mute", "stubborn-mute"}:
            answer(message, mode)
    if mode.startswith("stubborn"):
        sys.stderr.write("no more input\n")
        sys.stderr.flush()
        time.sleep(600)


def answer(message: dict[str, Any], mode: str) -> None:
    result: Any = None
    match message["method"]:
        case "initialize" | "tools/list" if mode == "modern" and "_meta" not in message["params"]:
            data = {"supported": ["2026-07-28"], "requested": "2025-11-25"}
            error = {"code": -32022, "message": "too old", "data": data}
            say({"jsonrpc": "2.0", "id": message["id"], "error": error})
        case "initialize" if mode != "modern":
            result = {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}}
            result["serverInfo"] = {"name": "by hand", "version": "1"}
        case "server/discover" if mode == "modern":
            result = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
            result |= {"ttlMs": 0, "cacheScope": "private"}
        case "tools/list":
            result = page((message.get("params") or {}).get("cursor"), mode)
            result |= {"ttlMs": 0, "cacheScope": "private"}
        case "tools/call" if message["params"]["name"] == "respond":
            result = message["params"]["arguments"]["response"]
        case "tools/call":
            result = _DOES.get(mode, lambda: {"content": []})()
    if result is not None:
        if mode == "modern":
            result["resultType"] = "complete"
        say({"jsonrpc": "2.0", "id": message["id"], "result": result})


def page(cursor: str | None, mode: str) -> dict[str, Any]:
    """Return one of the two pages of tools."""
    schema: dict[str, Any] = {"type": "object"}
    if cursor is None:
        schema |= {"required": ["response"], "properties": {"response": {"type": "object"}}}
        return {"tools": [{"name": "respond", "inputSchema": schema}], "nextCursor": "second"}
    tool: dict[str, Any] = {"name": "do", "inputSchema": schema}
    if mode == "picky":
        tool["inputSchema"] = schema | {"properties": {"text": {"pattern": "^(a+)+$"}}}
    if mode in {"unfit", "promises"}:
        properties = {"n": {"type": "integer"}}
        tool["outputSchema"] = {"type": "object", "properties": properties, "required": ["n"]}
    return {"tools": [tool]}


def say(what: Any) -> None:
    text = what if isinstance(what, str) else json.dumps(what)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def die() -> None:
    sys.stderr.write("out of \x1b[31mcheese\n")
    sys.stderr.flush()
    os._exit(7)


def flood() -> dict[str, Any]:
    for number in range(50_000):
        sys.stderr.write(f"{number} {'x' * 90}\n")
    return {"content": []}


def leave_a_child() -> dict[str, Any]:
    """Leave one that keeps our pipes open, in a session of its own."""
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    return {"content": []}


def leave_a_child_and_die() -> None:
    leave_a_child()
    die()


def close() -> None:
    sys.stderr.write("closing\n")
    sys.stderr.flush()
    os.close(1)
    time.sleep(600)


def sleep() -> None:
    time.sleep(600)


def say_much() -> None:
    sys.stdout.write('{"jsonrpc": "2.0", "id": 3, "result": {"content": [], "_meta": {"a": "')
    for _ in range(100):
        sys.stdout.write("x" * 1_000_000)
    say('"}}}')


def say_half() -> None:
    say('{"jsonrpc": "2.0", "id": 3, "result"')


def unfit() -> dict[str, Any]:
    return {"content": [{"type": "text", "text": "hi"}], "structuredContent": {"n": "bad"}}


def tell_environment() -> dict[str, Any]:
    text = json.dumps(dict(os.environ) | {"cwd": str(Path.cwd())})
    return {"content": [{"type": "text", "text": text}]}


_DOES: dict[str, Callable[[], dict[str, Any] | None]] = {
    "child": leave_a_child,
    "closes": close,
    "dies": die,
    "dies-leaving": leave_a_child_and_die,
    "environment": tell_environment,
    "floods": flood,
    "half": say_half,
    "huge": say_much,
    "mute-call": lambda: None,
    "sleeps": sleep,
    "stubborn": sleep,
    "unfit": unfit,
}

if __name__ == "__main__":
    if sys.argv[1] == "sdk":
        with_the_sdk().run()
    else:
        by_hand(sys.argv[1])
