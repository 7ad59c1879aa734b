"""Events: read by number, or streamed as server-sent events as they happen."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from engine.api.answers import HTTPRefusal, Stream, listed
from engine.api.asking import Limit, Nothing, Opened, Seq
from engine.api.shown import EVENTS, STREAM
from engine.core import Engine
from engine.errors import AgentmuxError
from engine.model import Event
from engine.shapes import as_json, event_json

log = logging.getLogger(__name__)

routes = APIRouter(prefix="/api/v1/events", tags=["events"])

MOST_STREAMS = 32
KEEP_ALIVE = 15.0
"""Seconds of silence after which a comment is sent: proxies, and we, see that somebody is there."""
_PAGE = 200
"""Events sent at once: a slow client costs no more memory than these."""
_RETRY = b"retry: 1000\n\n"
"""Milliseconds after which a browser connects again."""


class Streams:
    """How many streams there are, and whether they are to end."""

    open = 0
    ending = False

    def take(self) -> None:
        """Count one more. Raises HTTPRefusal if there are too many."""
        if self.open >= MOST_STREAMS:
            raise HTTPRefusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"there are {MOST_STREAMS} streams of events already; end one of them",
            )
        self.open += 1

    def give_back(self) -> None:
        """Count one less."""
        self.open -= 1


_SINCE = Query(description="Only what came after this number.")
Since = Annotated[Seq, _SINCE]
SomeSince = Annotated[Seq | Nothing, _SINCE]


@routes.get("", responses=EVENTS)
async def list_events(engine: Opened, since: Since = 0, limit: Limit = 100) -> Response:
    """List events, oldest first; `since` the `seq` of the last one gives the next."""
    events = await engine.queries.events(after=since, limit=limit)
    return await listed(events, event_json)


@routes.get("/stream", responses=STREAM, response_class=Stream)
async def stream_events(
    request: Request,
    engine: Opened,
    since: SomeSince = None,
    last_event_id: Annotated[
        Seq | Nothing, Header(alias="Last-Event-ID", description="Goes on after this event.")
    ] = None,
) -> Stream:
    """Stream what happens, by whatever process: after `Last-Event-ID`, else `since`, else now.

    The stream ends with the server; whoever connects again with the last id misses nothing.
    """
    streams: Streams = request.app.state.streams
    after = since if last_event_id is None else last_event_id
    if after is None:
        after = await engine.queries.last_seq()
    streams.take()
    return Stream(
        _stream(engine, after, streams),
        on_end=streams.give_back,
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )


async def _stream(engine: Engine, after: int, streams: Streams) -> AsyncGenerator[bytes, None]:
    yield _RETRY
    async with engine.feed.subscribe() as changed:
        while True:
            changed.clear()
            try:
                while page := await engine.queries.events(after=after, limit=_PAGE):
                    yield _written(page)
                    after = page[-1].seq
            except AgentmuxError as error:
                log.warning("a stream of events ends: %s", error)
                return
            if streams.ending:
                return
            try:
                async with asyncio.timeout(KEEP_ALIVE):
                    await changed.wait()
            except TimeoutError:
                yield b": still here\n\n"


def _written(events: Iterable[Event]) -> bytes:
    return "".join(
        f"id: {event.seq}\nevent: {event.type}\ndata: {as_json(event_json(event))}\n\n"
        for event in events
    ).encode("ascii")
