"""What the HTTP API streams: logs in ranges, and events, none missed and none twice."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from support.api import Client, serving
from support.engines import Project, until
from support.patience import PATIENCE
from support.stores import a_task

from engine.api import events
from engine.commands import Cancel, Hold, Resume, Seed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from engine.core import Engine


# Logs

WORDS = b"0123456789"


@pytest.fixture
async def log(project: Project, engine: Engine) -> tuple[str, Path]:
    """A run that is over: the path of its log, and the file."""
    payload = {"kind": "shell", "cmd": f"printf {WORDS.decode()}"}
    await engine.execute(Seed(project.dag(a_task("../odd id", payload=payload))))
    await engine.start_worker("codex")
    async with asyncio.timeout(PATIENCE):
        await engine.settled()
    (run,) = await engine.queries.runs()
    file = engine.layout.run_folder(run.task_id, run.id) / "stdout.log"
    return f"/api/v1/runs/{run.id}/logs/stdout", file


@pytest.mark.parametrize(
    ("wanted", "status", "body", "told"),
    [
        (None, 200, WORDS, None),
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-99", 206, WORDS, "bytes 0-9/10"),
        ("bytes=0-99", 206, WORDS, "bytes 0-9/10"),
        ("BYTES=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=5-2", 200, WORDS, None),
        ("bytes=0-1,4-5", 200, WORDS, None),
        ("lines=1-2", 200, WORDS, None),
        ("bytes=-", 200, WORDS, None),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=99999999999999999-", 416, None, "bytes */10"),
    ],
)
async def test_a_log_is_had_in_ranges(
    log: tuple[str, Path],
    client: Client,
    wanted: str | None,
    status: int,
    body: bytes | None,
    told: str | None,
) -> None:
    headers = {} if wanted is None else {"Range": wanted}
    reply = await client.ask("GET", log[0], headers=headers)
    assert (reply.status, reply.headers.get("content-range")) == (status, told)
    if body is None:
        assert reply.code == "VALIDATION_ERROR"
    else:
        assert reply.body == body
    head = await client.ask("HEAD", log[0], headers=headers)
    assert (head.status, head.body) == (status, b"")


async def test_a_log_is_nothing_that_a_browser_would_run(
    log: tuple[str, Path], client: Client
) -> None:
    log[1].write_bytes(b"<script>alert(1)</script>")
    headers = (await client.ask("GET", log[0])).headers
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert headers["content-disposition"] == 'attachment; filename="stdout.log"'
    assert headers["x-content-type-options"] == "nosniff"


async def test_a_large_log_comes_whole_and_one_that_is_cut_meanwhile_comes_to_an_end(
    log: tuple[str, Path], client: Client
) -> None:
    data = bytes(range(256)) * 40_000
    log[1].write_bytes(data)
    assert (await client.ask("GET", log[0])).body == data
    request = f"GET {log[0]} HTTP/1.1\r\nHost: localhost\r\n"
    request += f"Authorization: Bearer {client.token}\r\nConnection: close\r\n\r\n"

    def cut() -> int:
        with client.connect() as wire:
            wire.sendall(request.encode())
            got = len(wire.recv(1000))
            log[1].write_bytes(b"")
            while part := wire.recv(1 << 20):
                got += len(part)
            return got

    assert await asyncio.to_thread(cut) < len(data)
    assert (await client.ask("GET", log[0])).body == b""


async def test_what_is_no_log_is_not_found(log: tuple[str, Path], client: Client) -> None:
    run = log[0].split("/")[4]
    for path in (
        f"/api/v1/runs/{run}/logs/transcript",
        "/api/v1/runs/nobody/logs/stdout",
        f"/api/v1/runs/..%2F{run}/logs/stdout",
        "/api/v1/runs/%2E%2E%2F%2E%2E/logs/stdout",
    ):
        reply = await client.ask("GET", path)
        assert (reply.status, reply.code) == (404, "TASK_NOT_FOUND"), path
    assert (await client.ask("GET", f"/api/v1/runs/{run}/logs/result.json")).status == 400
    log[1].unlink()
    log[1].symlink_to("/etc/passwd")
    reply = await client.ask("GET", log[0])
    assert (reply.status, reply.code) == (503, "IO_ERROR")


# Events


class Stream:
    """A client of a stream of events."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def next(self) -> dict[str, Any]:
        """Return the next event; what comes before it is comments."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(PATIENCE):
            while "data" not in fields:
                for line in (await self.block()).splitlines():
                    name, _, value = line.partition(": ")
                    fields[name] = value
        event: dict[str, Any] = json.loads(fields["data"])
        assert (fields["id"], fields["event"]) == (str(event["seq"]), event["type"])
        return event

    async def block(self) -> str:
        """Return what comes up to an empty line, without the sizes of chunks."""
        text = ""
        while not text.endswith("\n\n"):
            size = int(await self.reader.readline(), 16)
            if size == 0:
                raise EOFError
            self.rest = (await self.reader.readexactly(size + 2))[:-2].decode()
            text += self.rest
        return text

    async def over(self) -> None:
        """Wait until the server has ended it."""
        async with asyncio.timeout(PATIENCE):
            await self.reader.read()


@asynccontextmanager
async def streaming(client: Client, query: str = "", *headers: str) -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection(client.host, client.port)
    lines = [
        f"GET /api/v1/events/stream{query} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {client.token}",
        *headers,
    ]
    writer.write("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    assert "200 OK" in head
    assert "text/event-stream" in head
    stream = Stream(reader, writer)
    assert await stream.block() == "retry: 1000\n\n"
    try:
        yield stream
    finally:
        writer.close()
        await writer.wait_closed()


async def read_all(stream: Stream, last: int) -> list[int]:
    """Return the numbers of the events up to the last one."""
    seqs: list[int] = []
    while not seqs or seqs[-1] < last:
        seqs += [int(line[4:]) for line in (await stream.block()).splitlines() if line[:3] == "id:"]
    return seqs


async def test_events_are_read_by_number(project: Project, engine: Engine, client: Client) -> None:
    await engine.execute(Seed(project.dag(a_task("a"), a_task("b"))))
    first = await client.get("/api/v1/events?limit=2")
    rest = await client.get(f"/api/v1/events?since={first[-1]['seq']}")
    assert [one["seq"] for one in first + rest] == [1, 2, 3]
    assert [one["type"] for one in rest] == ["SEEDED"]
    for path in ("/api/v1/events", "/api/v1/events/stream"):
        reply = await client.ask("GET", f"{path}?since=99999999999999999999")
        assert reply.status == 400
        assert reply.json["message"].startswith("since: Input should be less than or equal to")
        assert ";" not in reply.json["message"]


async def test_a_stream_tells_what_happens_from_now_on(engine: Engine, client: Client) -> None:
    await engine.execute(Hold("codex"))
    async with streaming(client) as stream:
        await engine.execute(Resume("codex"))
        assert (await stream.next())["type"] == "RESUMED"


async def test_who_connects_again_misses_nothing_and_hears_nothing_twice(
    project: Project, engine: Engine, client: Client
) -> None:
    await engine.execute(Seed(project.dag(*(a_task(f"t{n}") for n in range(300)))))
    seen: list[int] = []
    for _ in range(4):
        after = [f"Last-Event-ID: {seen[-1]}"] if seen else []
        async with streaming(client, "?since=0", *after) as stream:
            await engine.execute(Hold())
            await engine.execute(Resume())
            seen += await read_all(stream, await engine.queries.last_seq())
            await engine.execute(Cancel((f"t{len(seen)}",)))
    assert seen == list(range(1, len(seen) + 1))


async def test_events_of_other_processes_are_told_too(project: Project, client: Client) -> None:
    async with streaming(client) as stream, project.engine() as other:
        await other.execute(Hold("codex"))
        assert (await stream.next())["agent"] == "codex"


async def test_a_silent_stream_says_that_it_is_there(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE", 0.02)
    async with streaming(client) as stream:
        for _ in range(3):
            assert await stream.block() == ": still here\n\n"


async def test_a_stream_ends_with_the_server(engine: Engine) -> None:
    loop = asyncio.get_running_loop()
    async with serving(engine) as client, asyncio.timeout(PATIENCE):
        stream = streaming(client)
        open_one = await stream.__aenter__()
        began = loop.time()
    assert loop.time() - began < 1.5
    await open_one.over()
    await stream.__aexit__(None, None, None)


async def test_who_reads_nothing_holds_nobody_up_and_costs_a_page(
    project: Project, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = {"kind": "noop", "x-note": "x" * 2000}
    tasks = (a_task(f"t{n}", payload=payload) for n in range(5000))
    await engine.execute(Seed(project.dag(*tasks)))
    sent: list[int] = []
    written = events._written

    def counted(page: list[Any]) -> bytes:
        sent.append(len(page))
        return written(page)

    monkeypatch.setattr(events, "_written", counted)
    loop = asyncio.get_running_loop()
    async with serving(engine) as client:
        async with streaming(client, "?since=0"):  # and nobody reads
            before = -1

            async def stands_still() -> bool:
                nonlocal before
                assert (await client.ask("GET", "/health")).status == 200
                same, before = before == sum(sent), sum(sent)
                return same

            await until(stands_still, "the server waits for its client")
            assert sum(sent) < 5000
            began = loop.time()
        await engine.execute(Hold("codex"))
    assert loop.time() - began < PATIENCE / 10


async def test_streams_are_counted(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MOST_STREAMS", 1)
    async with streaming(client):
        reply = await client.ask("GET", "/api/v1/events/stream")
        assert (reply.status, reply.code) == (503, "IO_ERROR")
        head = await client.ask("HEAD", "/api/v1/events?limit=1")
        assert head.status == 200

    async def is_free() -> bool:
        return (await client.ask("HEAD", "/api/v1/events/stream")).status == 200

    await until(is_free, "the stream is given back")
    assert (await client.ask("HEAD", "/api/v1/events/stream")).status in {200, 503}
