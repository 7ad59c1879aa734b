"""Tasks: listed, shown, cancelled, killed, released, retried, purged."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from engine.api.answers import Answer, listed, told
from engine.api.asking import (
    DryRun,
    Limit,
    Offset,
    Opened,
    Segment,
    SomeAgent,
    SomeState,
    StateName,
    Words,
)
from engine.api.shown import RECEIPT, TASK, TASKS
from engine.branches import branches_of
from engine.commands import Cancel, Kill, Purge, Release, Retry
from engine.errors import ValidationError
from engine.filters import task_filter
from engine.shapes import detail_json
from engine.views import IN_FILE, Order

routes = APIRouter(prefix="/api/v1/tasks", tags=["tasks"])


@routes.get("", responses=TASKS)
async def list_tasks(
    engine: Opened,
    state: SomeState = None,
    agent: SomeAgent = None,
    q: Words = "",
    limit: Limit = 100,
    offset: Offset = 0,
) -> Response:
    """List tasks in the order of the DAG file, of READY ones first those that can be claimed.

    `total` counts all that the filter finds.
    """
    where = task_filter(q, state=state, agent=agent)
    # Those of one state lie in this order in the index of their states: nothing is sorted.
    order = IN_FILE if state is None else Order()
    tasks = await engine.queries.tasks(where, limit=limit, offset=offset, order=order)
    return await listed(tasks, total=await engine.queries.count_tasks(where))


@routes.get("/{task_id}", responses=TASK)
async def show_task(engine: Opened, task_id: Segment) -> Answer:
    """Show all about a task: its definition, newest runs and events, and why it is not running."""
    detail = await engine.queries.detail(task_id)
    branches = await asyncio.to_thread(branches_of, detail.runs, engine.layout)
    return Answer(detail_json(detail, branches))


@routes.post("/{task_id}/cancel", responses=RECEIPT)
async def cancel_task(engine: Opened, task_id: Segment, dry_run: DryRun = False) -> Answer:
    """End a task for good; its run is ended, with all of its processes."""
    return told(await engine.execute(Cancel((task_id,)), dry_run=dry_run))


@routes.post("/{task_id}/kill", responses=RECEIPT)
async def kill_task(
    engine: Opened,
    task_id: Segment,
    force: Annotated[bool, Query(description="SIGKILL at once, not SIGTERM first.")] = False,
    dry_run: DryRun = False,
) -> Answer:
    """End the run of a task, which is FAILED then."""
    return told(await engine.execute(Kill((task_id,), force=force), dry_run=dry_run))


@routes.post("/{task_id}/release", responses=RECEIPT)
async def release_task(engine: Opened, task_id: Segment, dry_run: DryRun = False) -> Answer:
    """Take a task from its worker and make it READY; uses no retry."""
    return told(await engine.execute(Release((task_id,)), dry_run=dry_run))


@routes.post("/{task_id}/retry", responses=RECEIPT)
async def retry_task(
    engine: Opened,
    task_id: Segment,
    downstream: Annotated[
        bool, Query(description="And every finished task that depends on it.")
    ] = False,
    dry_run: DryRun = False,
) -> Answer:
    """Make a finished or blocked task READY again; attempts count afresh."""
    return told(await engine.execute(Retry((task_id,), downstream=downstream), dry_run=dry_run))


@routes.delete("", responses=RECEIPT)
async def purge_tasks(
    engine: Opened,
    status: StateName,
    purge: Annotated[bool, Query(description="Must be said.", json_schema_extra={"const": True})],
    dry_run: DryRun = False,
) -> Answer:
    """Remove all tasks in a state, and their runs, from the store; unfinished ones end first."""
    if not purge:
        raise ValidationError("to cancel many tasks, name them; here they are purged: purge=true")
    return told(await engine.execute(Purge(task_filter(state=status)), dry_run=dry_run), bulk=True)


@routes.delete("/{task_id}", responses=RECEIPT)
async def delete_task(
    engine: Opened,
    task_id: Segment,
    purge: Annotated[
        bool, Query(description="Remove it from the store; if unfinished, it is cancelled first.")
    ] = False,
    dry_run: DryRun = False,
) -> Answer:
    """Cancel a task, or purge it."""
    command = Purge((task_id,)) if purge else Cancel((task_id,))
    return told(await engine.execute(command, dry_run=dry_run))
