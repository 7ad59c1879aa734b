"""A conversation with one MCP server, in the official SDK's words: connect, look, check, call.

This module and `ways` import `mcp`, which takes a second: import them off the event loop, and only
when a task needs them. Nothing of the SDK leaves them: answers are plain JSON, errors are `Refused`
and `Fault`. It knows no run and no process.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import httpx2
from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError
from mcp.types import (
    CONNECTION_CLOSED,
    METHOD_NOT_FOUND,
    UNSUPPORTED_PROTOCOL_VERSION,
    Implementation,
    PaginatedRequestParams,
)
from pydantic import ValidationError

from engine import __version__
from engine.executors.mcp.order import Fault, no_such_tool
from engine.executors.mcp.schema import find_faults
from engine.executors.programs import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from mcp.types import CallToolResult, Tool

    from engine.executors.mcp.order import Call
    from engine.executors.mcp.ways import Way

_OURSELVES = Implementation(name="agentmux", version=__version__)
_PAGES = 1000
_MOST_NAMES = 1000
_LONGEST_NAME = 200
"""Tools of a server that can be named in an error, and how much of their names."""
_ERRORS = 3
_JUDGING = 5.0
"""Seconds for which calls are compared with tools beforehand; the run will tell of others."""

for _name in ("mcp", "client", "httpx2", "httpcore2"):
    # They tell whole messages and headers, to the screen if nobody listens. What matters in them
    # is in the errors below.
    _logger = logging.getLogger(_name)
    _logger.addHandler(logging.NullHandler())
    _logger.propagate = False


class Tools(NamedTuple):
    """The names of a server's tools, and of those that were asked for all that it tells."""

    names: list[str]
    found: dict[str, Tool]


class Session(ClientSession):
    """The SDK's session, but for its look at what a tool returns.

    The SDK's own runs the server's patterns on the event loop; see `schema`.
    """

    promised: Any = None
    """The schema of what the tool returns."""

    async def validate_tool_result(self, name: str, result: CallToolResult) -> None:
        """Raise Fault unless structured content is as its tool promised."""
        if self.promised is None:
            return
        told = result.model_fields_set  # it may be null, and told
        if result.structured_content is None and "structured_content" not in told:
            raise Fault(f"{name} promises structured content and returned none")
        faults = await asyncio.to_thread(find_faults, result.structured_content, self.promised)
        if faults:
            wrong = _first("structuredContent", faults)
            raise Fault(f"what {name} returned is not as it promises: {wrong}")


class Work(Protocol):
    """What a conversation is for. `wanted` are the tools that it is about."""

    server: str
    wanted: Collection[str]

    async def do(self, session: Session, tools: Tools) -> Any:
        """Do it, once the server has told its tools."""


class Calling:
    """A call of one tool, whose arguments are checked first: gives its CallToolResult as JSON.

    `tell` is called with what the server says of its progress.
    """

    def __init__(self, call: Call, tell: Callable[[str], None]) -> None:
        self.server = call.server
        self.wanted: Collection[str] = {call.tool}
        self._call, self._tell = call, tell

    async def do(self, session: Session, tools: Tools) -> dict[str, Any]:
        """Call it. Raises Refused if there is no such tool, or if its arguments do not fit."""
        call = self._call
        if why := await asyncio.to_thread(_why_not, call, tools):
            raise Refused(why)
        session.promised = tools.found[call.tool].output_schema

        async def tell_share(progress: float, total: float | None, message: str | None) -> None:
            share = f"{progress:g}/{total:g}" if total else f"{progress:g}"
            self._tell(f"{message} ({share})" if message else f"{call.tool}: {share}")

        result = await session.call_tool(
            call.tool, dict(call.arguments), progress_callback=tell_share
        )
        response: dict[str, Any] = result.model_dump(mode="json", by_alias=True, exclude_none=True)
        return response


class Looking:
    """A look whether calls of a server's tools could be made: gives why not, or None, of each."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self.server = calls[0].server
        self.wanted: Collection[str] = {call.tool for call in calls}
        self._calls = calls

    async def do(self, _session: Session, tools: Tools) -> list[str | None]:
        """Check them all; nothing is called."""
        return await asyncio.to_thread(self._judge, tools)

    def _judge(self, tools: Tools) -> list[str | None]:
        until = time.monotonic() + _JUDGING
        return [_why_not(call, tools) if time.monotonic() < until else None for call in self._calls]


async def converse(way: Way, work: Work, answer: asyncio.Future[Any], *, patience: float) -> None:
    """Connect, have the tools told, and do the work; `answer` gets what it gives.

    The server has `patience` seconds to tell its tools, and as long as it likes for the work. A
    cancellation is told to it.

    Raises:
        Refused: the server lacks the tool, or it does not take these arguments, or us.
        Fault: everything else that can go wrong.

    """
    try:
        async with (
            way.streams() as (read, write),
            Session(read, write, client_info=_OURSELVES) as session,
        ):
            try:
                async with asyncio.timeout(patience):
                    await _greet(session)
                    tools = await _tools(session, work.wanted)
            except TimeoutError:
                raise Fault(_silent(way, patience)) from None
            given = await work.do(session, tools)
            if not answer.done():
                answer.set_result(given)
    except (Exception, BaseExceptionGroup) as error:
        raise _told(error, way, work.server) from error


async def _greet(session: ClientSession) -> None:
    """Agree on a version of the protocol.

    The handshake first, and the question that replaces it since 2026-07-28 only if that is
    refused: to servers that do not know it (and say nothing) the question costs ten seconds, while
    those that know both answer the handshake as well.
    """
    try:
        await session.initialize()
    except MCPError as error:
        if error.code not in {METHOD_NOT_FOUND, UNSUPPORTED_PROTOCOL_VERSION}:
            raise
        await session.discover()


async def _tools(session: ClientSession, wanted: Collection[str]) -> Tools:
    """Ask for one page of tools after the other, until all that are wanted are there."""
    tools = Tools([], {})
    seen: set[str | None] = {None}
    params = None
    for _ in range(_PAGES):
        try:
            page = await session.list_tools(params=params)
        except MCPError as error:
            if error.code == METHOD_NOT_FOUND:
                break  # it has none
            raise
        room = max(0, _MOST_NAMES - len(tools.names))
        tools.names.extend(tool.name[:_LONGEST_NAME] for tool in page.tools[:room])
        tools.found.update({tool.name: tool for tool in page.tools if tool.name in wanted})
        if page.next_cursor in seen or len(tools.found) == len(wanted):
            break
        seen.add(page.next_cursor)
        params = PaginatedRequestParams(cursor=page.next_cursor)
    return tools


def _why_not(call: Call, tools: Tools) -> str | None:
    """Return why a call cannot be made; None if it can, as far as that can be judged from here."""
    tool = tools.found.get(call.tool)
    if tool is None:
        return no_such_tool(call.tool, tools.names, call.server)
    faults = find_faults(dict(call.arguments), tool.input_schema)
    if not faults:
        return None
    return f"{_first('payload.arguments', faults)}; mend the DAG, then retry the task"


def _first(what: str, faults: Sequence[str]) -> str:
    more = f"; and {len(faults) - _ERRORS} more" if len(faults) > _ERRORS else ""
    return "; ".join(f"{what}{fault}" for fault in faults[:_ERRORS]) + more


def _told(error: BaseException, way: Way, server: str) -> Exception:
    """Return what to say of an error, however deep in groups it came."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, Refused | Fault):
        return error
    if isinstance(error, MCPError):
        closed = error.code == CONNECTION_CLOSED
        trouble = way.trouble
        if trouble is None:
            said = "it closed the connection" if closed else f"error {error.code}: {error.message}"
            return Fault(said, closed=closed, said=not closed)
        return trouble if closed or isinstance(trouble, Refused) else Fault(f"{trouble}: {error}")
    if isinstance(error, httpx2.HTTPError) and (why := _distrust(error)):
        return Refused(
            f"the certificate of the MCP server '{server}' is not trusted ({why}); have it mended, "
            "or name its authority's file in SSL_CERT_FILE where agentmux is started, then retry "
            "the task"
        )
    return Fault(_words(error))


def _distrust(error: BaseException | None) -> str | None:
    """Return what is wrong with a certificate, None if it is something else that is wrong."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return None


def _words(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"its answer does not fit the protocol: {where}: {first['msg']}"
    if isinstance(error, httpx2.HTTPError):
        return f"it cannot be reached: {error}"
    return str(error) or type(error).__name__


def _silent(way: Way, patience: float) -> str:
    said = f"it did not tell its tools within {patience:g} s"
    if way.printed:
        printed = way.printed.decode(errors="replace")
        said += f", but printed what is no message of the protocol: {printed}"
    return said
