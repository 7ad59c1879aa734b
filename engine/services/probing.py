"""Whether a service is as it must be: asked over HTTP, by a port, by files, by a command."""

from __future__ import annotations

import asyncio
import os
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING

from engine.globs import is_glob, named_by
from engine.processes.calling import call
from engine.text import clean_text
from engine.web import NoAnswer, ask

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from engine.config import Probe

_LONGEST = 300
_HOST = "127.0.0.1"


async def find_fault(probe: Probe, port: int | None, cwd: Path, env: Mapping[str, str]) -> str:
    """Return what is not as it must be, in words; empty if all is."""
    try:
        async with asyncio.timeout(probe.timeout):
            return await _find_fault(probe, port, cwd, env)
    except TimeoutError:
        return f"no answer within {probe.timeout:g} s"


async def _find_fault(probe: Probe, port: int | None, cwd: Path, env: Mapping[str, str]) -> str:
    fault = ""
    if probe.port is not None:
        fault = await _port_fault(probe.port)
    if not fault and probe.http is not None:
        url = f"http://{_HOST}:{port}{probe.http}" if probe.http.startswith("/") else probe.http
        fault = await _http_fault(url, probe.status, probe.timeout)
    if not fault and probe.files:
        fault = await asyncio.to_thread(_files_fault, probe.files, cwd)
    if not fault and probe.command is not None:
        fault = await _command_fault(probe.command, cwd, env, probe.timeout)
    return fault


async def _port_fault(port: int) -> str:
    try:
        _, writer = await asyncio.open_connection(_HOST, port)
    except OSError as error:
        return f"port {port}: {error.strerror or error}"
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return ""


async def _http_fault(url: str, expected: tuple[int, ...], seconds: float) -> str:
    try:
        # No proxy: a service is asked, and not what the environment names for the world outside.
        request = urllib.request.Request(url)  # noqa: S310 - the settings take http and https alone
        answer = await ask(request, seconds=seconds, proxied=False)
    except (NoAnswer, ValueError) as error:
        return f"{clean_text(url)}: {clean_text(str(error))}"[:_LONGEST]
    if answer.status in expected:
        return ""
    wanted = " or ".join(map(str, expected))
    return f"{clean_text(url)} answered {answer.status}, not {wanted}"


def _files_fault(patterns: tuple[str, ...], cwd: Path) -> str:
    for pattern in patterns:
        path = os.path.join(cwd, pattern)  # noqa: PTH118 - a pattern is no path
        found = named_by(path) if is_glob(path) else [path]
        if not any(_holds_something(one) for one in found):
            return f"{clean_text(pattern)} is not there, or empty"
    return ""


def _holds_something(path: str) -> bool:
    try:
        return os.path.isfile(path) and os.path.getsize(path) > 0  # noqa: PTH113, PTH202
    except OSError:
        return False


async def _command_fault(
    command: tuple[str, ...], cwd: Path, env: Mapping[str, str], seconds: float
) -> str:
    try:
        called = await call(command, cwd=cwd, env=env, seconds=seconds, wants_output=False)
    except (OSError, ValueError) as error:
        return f"{clean_text(command[0])} cannot be started: {clean_text(str(error))}"[:_LONGEST]
    if called.code == 0:
        return ""
    said = clean_text(called.err, newlines=True).strip().splitlines()
    why = f": {said[-1]}" if said else ""
    return f"{clean_text(command[0])} ended with {called.code}{why}"[:_LONGEST]
