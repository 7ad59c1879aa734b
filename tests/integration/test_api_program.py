"""`agentmux serve` as its users run it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psutil
import pytest
from support.api import Client
from support.patience import PATIENCE
from support.program import LONG, Project, eventually, outcome

import engine.api
from engine.api import load_serving
from engine.api.wire import MOST_CONNECTIONS
from engine.errors import CommandNotAllowed

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.ok("tasks", "seed", project.write(LONG))
    return project


@contextmanager
def served(project: Project, *args: str) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    with project.started("serve", "--port", "0", *args) as process:
        assert process.stdout
        url = urlsplit(process.stdout.readline().strip())
        said, _, token = process.stdout.readline().strip().partition(": ")
        assert (said, url.scheme) == ("token", "http")
        assert url.hostname == "127.0.0.1"
        assert url.port
        yield process, Client(url.hostname, url.port, Path(token).read_text().strip())


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_a_signal_also_while_somebody_streams(
    project: Project, which: signal.Signals
) -> None:
    with served(project) as (process, client):
        assert client.ask_now("GET", "/api/v1/tasks").json["total"] == 2
        with client.connect() as wire:
            known = f"Authorization: Bearer {client.token}"
            wire.sendall(
                f"GET /api/v1/events/stream HTTP/1.1\r\nHost: localhost\r\n{known}\r\n\r\n".encode()
            )
            assert wire.recv(100).startswith(b"HTTP/1.1 200")
            began = time.monotonic()
            process.send_signal(which)
            code, _, err = outcome(process)
            assert (code, err) == (0, "")
            assert time.monotonic() - began < PATIENCE / 10
            while wire.recv(65536):
                pass


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of another process is set")
def test_a_flood_of_connections_takes_few_of_our_files(project: Project) -> None:
    with served(project) as (process, client), ExitStack() as flood:
        server = psutil.Process(process.pid)
        most = server.num_fds() + 6 * MOST_CONNECTIONS
        server.rlimit(psutil.RLIMIT_NOFILE, (most, most))
        server.suspend()  # so that all of them are there at once
        for _ in range(2 * most):
            one = flood.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex((client.host, client.port))
        server.resume()
        flood.close()

        def is_room() -> bool:
            with suppress(OSError):
                return client.ask_now("GET", "/health").status == 200
            return False

        eventually(is_room)
        process.terminate()
        code, _, err = outcome(process)
        assert (code, err) == (0, "")  # no file was missing


def test_a_second_one_on_the_same_port_says_so_and_changes_nothing(project: Project) -> None:
    with served(project) as (_, client):
        second = project.run("serve", "--port", str(client.port))
        assert second.returncode == 1
        assert second.stderr.startswith("agentmux: IO_ERROR: cannot listen on 127.0.0.1:")
        assert client.ask_now("GET", "/health").status == 200


def test_what_cannot_be_served_is_refused(project: Project, tmp_path: Path) -> None:
    project.refused("serve", "--host", "0.0.0.0", "--port", "0", code="VALIDATION_ERROR")
    (project.state / "api.token").chmod(0o644)
    project.refused("serve", "--port", "0", code="IO_ERROR")
    assert project.run("serve", "--port", "70000").returncode == 2
    (tmp_path / "empty").mkdir()
    Project(tmp_path / "empty").refused("serve", code="IO_ERROR")


def test_the_settings_say_where(project: Project) -> None:
    project.write("api: {host: '::1', port: 0, hosts: [fleet.example]}\n", "agentmux.yaml")
    with served(project, "--host", "127.0.0.1") as (_, client):
        reply = client.ask_now("GET", "/health", headers={"Host": "fleet.example"})
        assert reply.status == 200
    project.write("api: {hosts: ['a b', 'x:80/']}\n", "agentmux.yaml")
    assert "is no name or address" in project.refused("serve", code="VALIDATION_ERROR")


def test_no_other_command_imports_what_serves() -> None:
    code = (
        "import sys, engine.core, engine.cli.main, engine.cli.serving, tui.__main__; "
        "sys.exit(bool({'fastapi', 'uvicorn', 'pydantic', 'starlette'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "engine.api.serving", raising=False)
    monkeypatch.delattr(engine.api, "serving", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(CommandNotAllowed, match=r"uv tool install '\.\[api\]'"):
        load_serving()
