"""How one question is put to an MCP server, from its start to its end.

A conversation is held in a task of its own, since the SDK's contexts must be left by the task that
entered them, and since the end of a server must not wait for an SDK that does not come back. A
server on stdio is a process of the run and nobody else's: it is recorded before it hears a word,
and its tree is ended whatever happens. Knows no payload and no result.
"""

from __future__ import annotations

import asyncio
import logging
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from engine.executors.capping import Caps
from engine.executors.mcp.order import Fault
from engine.executors.programs import Refused, ending, make_private, start, tail
from engine.processes.trees import end_tree
from engine.shield import shielded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
    from types import ModuleType

    from engine.executors.base import RunContext
    from engine.executors.mcp.order import Call, Server
    from engine.processes.trees import Child

log = logging.getLogger(__name__)

CONNECT = 60.0
"""Seconds until a server must have told its tools; `npx` may have to fetch it first."""
_FAREWELL = 1.0
"""Seconds that a server has to end by itself once its input is closed; then it is ended."""
_SETTLE = 2.0
"""Seconds that something gets which should take none: the end of a conversation, or of a server
whose output has ended."""
_INSIST = 3
_NOTE_EVERY = 1.0
_LONGEST_NOTE = 200
_ROOM = 100 * _LONGEST_NOTE
"""Characters of a note in which secrets are looked for; it may be one of many megabytes."""


class Failed(Exception):  # noqa: N818 - never leaves the executor; becomes Outcome FAILED
    """The call went wrong; `code` is the server's exit code if it ended by itself."""

    def __init__(self, sentence: str, code: int | None = None) -> None:
        self.code = code
        super().__init__(sentence)


def _sdk() -> tuple[ModuleType, ModuleType]:
    """Return the modules that speak the protocol. Takes a second the first time."""
    try:
        from engine.executors.mcp import conversation, ways  # noqa: PLC0415 - only where a task needs it
    except ImportError as error:
        raise Refused(
            "mcp-call needs a package that is not installed: install agentmux anew, with its extra"
            " (in its clone `uv tool install '.[mcp]'`, or pipx or pip install '.[mcp]'), start it"
            f" anew and retry the task ({error})"
        ) from error
    return conversation, ways


async def ask(context: RunContext, server: Server, call: Call) -> Mapping[str, Any]:
    """Call a tool and return its response; no process of the run is alive then.

    Raises:
        Refused: no retry can help.
        Failed: a retry may.
        OSError: the server cannot be started.

    """
    conversation, ways = await asyncio.to_thread(_sdk)
    notes = _Notes(context, server)
    await asyncio.to_thread(make_private, context.artifacts)
    stderr = context.artifacts / "stderr.log"
    converse = partial(conversation.converse, work=conversation.Calling(call, notes.tell))
    response: Mapping[str, Any] = await _reach(
        context, server, ways, partial(_talk, context, converse, notes), stderr
    )
    return response


async def look(context: RunContext, server: Server, calls: Sequence[Call]) -> list[str | None]:
    """Return why calls of one server's tools cannot succeed, None for each that may.

    Nothing is called and nothing written. Raises as `ask` does.
    """
    conversation, ways = await asyncio.to_thread(_sdk)
    converse = partial(conversation.converse, work=conversation.Looking(calls))
    talk = partial(_talk, context, converse, _Notes(context, server))
    found: list[str | None] = await _reach(context, server, ways, talk, None)
    return [why and server.hide(why) for why in found]


async def _reach(
    context: RunContext,
    server: Server,
    ways: ModuleType,
    talk: Callable[[Any], Awaitable[Any]],
    stderr: Path | None,
) -> Any:
    """Talk to a server behind a url, or start it first; hide what is secret in what went wrong."""
    try:
        if server.program is None:
            return await talk(ways.Http(server))
        if stderr is None:
            return await _serve(context, server, talk, ways.Pipes, Path(os.devnull))
        async with Caps(context.config.shell.max_output, stderr, secrets=server.secrets):
            return await _serve(context, server, talk, ways.Pipes, stderr)
    except Refused as refusal:
        raise Refused(server.hide(str(refusal))) from refusal
    except Fault as fault:
        raise Failed(server.hide(f"MCP server '{server.name}': {fault}")) from fault


async def _serve(
    context: RunContext,
    server: Server,
    talk: Callable[[Any], Awaitable[Any]],
    pipes: Callable[[int, int, asyncio.Future[None]], Any],
    stderr: Path,
) -> Any:
    """Start the server, talk to it, and end its tree in any case."""
    assert server.program is not None
    code, by_itself = None, False
    with _Ends() as ends:
        child = start(
            context, server.program, stdin=ends.its_in, stdout=ends.its_out, stderr=stderr
        )
        ended = asyncio.ensure_future(child.ended())
        try:
            try:
                ends.close_its()
                await context.started(child.identity)
                return await talk(pipes(ends.our_out, ends.our_in, ended))
            except Fault as fault:
                if fault.closed:
                    # The end of its output is seen a moment before its own.
                    await asyncio.wait({ended}, timeout=_SETTLE)
                by_itself = ended.done()
                raise
            finally:
                await shielded(_end(context, child, ends, ended), reraise=False)
        except Fault as fault:
            code = child.reap() if by_itself else None
            if fault.said:
                raise
            words = f"it is gone ({ending(code)})" if fault.closed and code is not None else fault
            last = await asyncio.to_thread(_last_line, stderr, server)
            sentence = server.hide(f"MCP server '{server.name}': {words}")
            raise Failed(f"{sentence}: {last}" if last else sentence, code) from fault
        finally:
            # Last, so that nobody else could get the leader's pid before its tree was gone.
            child.reap()


async def _end(context: RunContext, child: Child, ends: _Ends, ended: asyncio.Future[None]) -> None:
    """End the server's tree: the end of its input first, as the protocol has it."""
    ends.close_our_out()
    try:
        await asyncio.wait({ended}, timeout=_FAREWELL)
        roots, grace = (child.identity,), context.config.grace
        await end_tree(context.claim.run_id, context.state_dir, roots, grace=grace)
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)


async def _talk(
    context: RunContext,
    converse: Callable[..., Coroutine[Any, Any, None]],
    notes: _Notes,
    way: Any,
) -> Any:
    """Hold a conversation in a task of its own; it is over when this returns or raises."""
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    what = context.claim.run_id
    talk = asyncio.create_task(converse(way, answer=answer, patience=CONNECT), name=f"MCP {what}")
    telling = asyncio.create_task(notes.pass_on(), name=f"progress {what}")
    first: list[asyncio.Future[Any]] = [answer, talk, telling]
    try:
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        if not answer.done():  # else the stop came a moment too late
            raise
    finally:
        failed = telling.done()
        telling.cancel()
        await shielded(_settle(talk, answered=answer.done()), reraise=False)
        await shielded(asyncio.gather(telling, return_exceptions=True), reraise=False)
    if answer.done():
        return answer.result()
    if failed:
        telling.result()
    talk.result()
    raise AssertionError("a conversation without an answer has an error")


async def _settle(talk: asyncio.Task[None], *, answered: bool) -> None:
    """Wait until a conversation is over, but not for ever; with an answer, it says good-bye."""
    if answered:
        await asyncio.wait({talk}, timeout=_SETTLE)
    for _ in range(_INSIST):
        if not talk.done():
            talk.cancel()
            await asyncio.wait({talk}, timeout=_SETTLE)
    if not talk.done():
        log.warning("%s does not end; its server is ended all the same", talk.get_name())
    elif not talk.cancelled():
        talk.exception()  # who has an answer does not ask what came after it


class _Notes:
    """What a server says of its progress; the latest of it is passed on, once a second at most."""

    def __init__(self, context: RunContext, server: Server) -> None:
        self._context, self._server = context, server
        self._latest = ""
        self._new = asyncio.Event()

    def tell(self, note: str) -> None:
        """Take what the server says."""
        self._latest = note[:_ROOM]
        self._new.set()

    async def pass_on(self) -> None:
        """Tell the store until cancelled."""
        last = ""
        while True:
            await self._new.wait()
            self._new.clear()
            note = self._server.hide(self._latest)[:_LONGEST_NOTE]
            if note and note != last:
                last = note
                await self._context.progress(note)
                await self._context.clock.sleep(_NOTE_EVERY)


class _Ends:
    """The four ends of the two pipes between us and a server; what is open is closed at the end."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        try:
            self.its_in, self.our_out = self._pipe()
            self.our_in, self.its_out = self._pipe()
        except OSError:
            self._close(*self._open)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._close(*self._open)

    def close_its(self) -> None:
        """Close the server's ends: it has its own copies of them."""
        self._close(self.its_in, self.its_out)

    def close_our_out(self) -> None:
        """Close what the server reads from: it hears that nothing more comes."""
        self._close(self.our_out)

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        self._open.update(ends)
        return ends

    def _close(self, *files: int) -> None:
        for file in files:
            self._open.discard(file)
            os.close(file)


def _last_line(stderr: Path, server: Server) -> str:
    lines = tail(stderr, server.secrets).split("\n") if stderr.is_file() else []
    return server.hide(next((line for line in reversed(lines) if line.strip()), ""))
