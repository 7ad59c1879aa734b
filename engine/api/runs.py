"""Runs, and the files that they leave: served in ranges, never read whole, never to be executed."""

import asyncio
import os
import re
from collections.abc import AsyncGenerator
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Header
from starlette.responses import Response

from engine.api.answers import HTTPRefusal, Stream, listed, not_found
from engine.api.asking import Limit, Nothing, Offset, Opened, Segment, SomeTask, Words
from engine.api.shown import LOG, RUNS
from engine.errors import Code, StorageError
from engine.files import open_regular
from engine.filters import RUN, RUN_FIELDS, TASK, Filter, Term, parse_filter

routes = APIRouter(prefix="/api/v1/runs", tags=["runs"])

_BLOCK = 256 * 1024
_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))", re.IGNORECASE)


class Kept(StrEnum):
    """What a run leaves to be read."""

    STDOUT = "stdout"
    STDERR = "stderr"
    TRANSCRIPT = "transcript"


_FILES = {
    Kept.STDOUT: "stdout.log",
    Kept.STDERR: "stderr.log",
    Kept.TRANSCRIPT: "transcript.jsonl",
}


@routes.get("", responses=RUNS)
async def list_runs(
    engine: Opened,
    task: SomeTask = None,
    q: Words = "",
    limit: Limit = 100,
    offset: Offset = 0,
) -> Response:
    """List runs, newest first; `total` counts all that the filter finds."""
    terms = parse_filter(q, RUN_FIELDS, now=engine.clock.now()).terms
    if task is not None:
        terms += (Term(TASK, task),)
    where = Filter(terms)
    runs = await engine.queries.runs(where=where, limit=limit, offset=offset)
    return await listed(runs, total=await engine.queries.count_runs(where))


@routes.get("/{run}/logs/{kind}", responses=LOG, response_class=Stream)
async def read_log(
    engine: Opened,
    run: Segment,
    kind: Kept,
    wanted: Annotated[
        str | Nothing,
        Header(alias="Range", description="`bytes=0-999`, or `bytes=-500`."),
    ] = None,
) -> Stream:
    """Return what a run has written, as it is, or one range of its bytes."""
    found = await engine.queries.runs(where=Filter((Term(RUN, run),)), limit=1)
    if not found:
        raise not_found(f"no run {run!r}; GET /api/v1/runs lists them all", Code.TASK_NOT_FOUND)
    path = engine.layout.run_folder(found[0].task_id, found[0].id) / _FILES[kind]
    try:
        file = await asyncio.to_thread(open_regular, path)
    except FileNotFoundError as error:
        raise not_found(f"run {run!r} has left no {kind}", Code.TASK_NOT_FOUND) from error
    except OSError as error:
        raise StorageError(f"{kind} of run {run}: {error.strerror}") from error
    # What is written from now on belongs to the next answer.
    size = os.fstat(file.fileno()).st_size
    try:
        span = _span(wanted, size)
    except HTTPRefusal:
        file.close()
        raise
    first, end = span or (0, size)
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Length": str(end - first),
        "Content-Disposition": f'attachment; filename="{_FILES[kind]}"',
    }
    if span is not None:
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
    return Stream(
        _blocks(file, first, end),
        on_end=file.close,
        status_code=HTTPStatus.OK if span is None else HTTPStatus.PARTIAL_CONTENT,
        media_type="text/plain; charset=utf-8",
        headers=headers,
    )


def _span(wanted: str | None, size: int) -> tuple[int, int] | None:
    """Return the first byte that is wanted, and the one after the last; None: all of them are.

    What is no single range of bytes is passed over, as RFC 9110 has it.

    Raises:
        HTTPRefusal: there are no such bytes.

    """
    found = _RANGE.fullmatch(wanted.strip()) if wanted is not None else None
    if found is None:
        return None
    start, last, tail = (None if part is None else int(part) for part in found.groups())
    if start is not None and last is not None and last < start:
        return None
    first = max(0, size - (tail or 0)) if start is None else start
    end = size if last is None else min(size, last + 1)
    if first >= end:
        raise HTTPRefusal(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            f"there are {size:,} bytes, and none of those that are wanted",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return first, end


async def _blocks(file: BinaryIO, first: int, end: int) -> AsyncGenerator[bytes, None]:
    at = first
    while at < end:
        block = await asyncio.to_thread(os.pread, file.fileno(), min(_BLOCK, end - at), at)
        if not block:  # it was cut meanwhile: the connection ends before all was sent
            return
        yield block
        at += len(block)
