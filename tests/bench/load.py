"""The HTTP API under load: `python tests/bench/load.py`, a client beside a server of its own.

Requests leave when they are due, whether or not those before them were answered, and each is
timed from the moment it was due: a server that falls behind cannot hide it.

    --tasks N      in the store (default 100,000)
    --rate N       requests a second (default 500)
    --seconds S    for so long (default 20)
    --path PATH    what is asked for (default: a mix of what clients ask for)
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psutil
import sides

from engine.files import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MIX = (
    "/api/v1/tasks?limit=20",
    "/api/v1/tasks/task-000007",
    "/api/v1/tasks?state=ready&agent=agent-3&limit=5",
    "/api/v1/workers",
    "/api/v1/events?since=50&limit=20",
    "/api/v1/runs?limit=20",
)
_CONNECTIONS = 64


@dataclass
class Server:
    """A server process over a store of its own."""

    host: str
    port: int
    token: str
    process: psutil.Process

    def request(self, path: str) -> bytes:
        """Return what asks for a path."""
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {self.token}"]
        return "\r\n".join([*lines, "", ""]).encode()


@contextmanager
def serving(folder: Path, dag: Path) -> Iterator[Server]:
    """Seed a store and serve it from another process."""
    sides.seed(folder, dag)
    state = folder / "state"
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.cli", "--state-dir", str(state), "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert process.stdout
        url = urlsplit(process.stdout.readline().strip())
        assert url.hostname
        assert url.port
        token = Layout(state).api_token.read_text().strip()
        yield Server(url.hostname, url.port, token, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.communicate()


class Connection:
    """A connection that is kept, and asked on once at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; return the status and the body of its answer."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        return int(head.split(" ", 2)[1]), await self._reader.readexactly(length)

    def close(self) -> None:
        """Close it."""
        self._writer.close()


async def connect(server: Server) -> Connection:
    """Open a connection."""
    return Connection(*await asyncio.open_connection(server.host, server.port))


def window(folder: Path, dag: Path, times: int) -> tuple[float, str]:
    """Return the p95 of a list of 100 tasks in ms, asked for so many times one by one."""

    async def measure(server: Server) -> list[float]:
        took = []
        connection = await connect(server)
        for n in range(times):
            begun = time.perf_counter()
            request = server.request(f"/api/v1/tasks?limit=100&offset={n * 37 % 900}")
            status, _ = await connection.ask(request)
            took.append((time.perf_counter() - begun) * 1000)
            assert status == 200
        connection.close()
        return took

    with serving(folder, dag) as server:
        took = asyncio.run(measure(server))
    return percentile(took, 95), f"ms, median {statistics.median(took):.1f}"


def percentile(values: Sequence[float], share: int) -> float:
    """Return the value below which so many percent lie."""
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1]


@dataclass
class Told:
    """What came of a load: milliseconds of each answer, answers by status, what went wrong."""

    took: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)


async def load(server: Server, paths: Sequence[str], rate: float, seconds: float) -> Told:
    """Ask at a rate, on a few kept connections."""
    told = Told()
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(_CONNECTIONS):
        free.put_nowait(await connect(server))

    async def one(request: bytes, due: float) -> None:
        connection = await free.get()
        try:
            status, _ = await connection.ask(request)
            told.statuses[status] += 1
            told.took.append((time.perf_counter() - due) * 1000)
        except (OSError, EOFError) as error:
            told.errors[type(error).__name__] += 1
            connection = await connect(server)
        free.put_nowait(connection)

    requests = [server.request(path) for path in paths]
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for n in range(int(rate * seconds)):
            due = begun + n / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(requests[n % len(requests)], due))
    while not free.empty():
        free.get_nowait().close()
    return told


async def _loaded(server: Server, args: argparse.Namespace) -> None:
    paths = [args.path] if args.path else MIX
    await load(server, paths, 50, 2)  # caches are filled, modules imported
    before, busy = server.process.memory_info().rss, sum(server.process.cpu_times()[:2])
    told = await load(server, paths, args.rate, args.seconds)
    after = server.process.memory_info().rss
    busy = sum(server.process.cpu_times()[:2]) - busy
    print(f"{args.rate:g} requests/s for {args.seconds:g} s, {args.tasks:,} tasks in the store")
    print(f"answers by status: {dict(told.statuses)}; errors: {dict(told.errors) or 'none'}")
    shares = {share: percentile(told.took, share) for share in (50, 95, 99)}
    print(", ".join(f"p{share} {ms:.1f} ms" for share, ms in shares.items()))
    print(f"server: {before / 2**20:.0f} MiB before, {after / 2**20:.0f} MiB after,", end=" ")
    print(f"{100 * busy / args.seconds:.0f} % of a core")


def main() -> None:
    """Put a server under load and print how it went."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--path", default="")
    args = parser.parse_args()
    from run import dag_file

    with tempfile.TemporaryDirectory(prefix="agentmux-load-") as name:
        folder = Path(name)
        with serving(folder, dag_file(folder, args.tasks)) as server:
            asyncio.run(_loaded(server, args))


if __name__ == "__main__":
    main()
