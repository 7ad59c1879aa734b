"""Whether an action makes sense for what is selected, and if not, why: in words for the user.

Marked rows are not looked at one by one here: the dry run of a command for many says of each
what would become of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.model import (
    ACTIVE,
    FINISHED,
    LIVE_WORKERS,
    UP,
    Reason,
    ServiceState,
    State,
    WorkerStatus,
)
from engine.text import clean_text
from engine.views import TRANSCRIBED
from tui.actions.model import Place

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.views import ServiceRow, TaskRow, WorkerRow
    from tui.actions.model import Selection

_ALONE = frozenset(
    {Place.LOG, Place.TRANSCRIPT, Place.GRAPH, Place.TIMELINE, Place.EXTERNAL, Place.METRICS}
)
"""Screens of one pane."""
_OF_SERVICES = frozenset({Place.SERVICES, Place.SERVICE})


def watching(selection: Selection) -> str | None:
    """Refuse what steers in a dashboard that only watches."""
    if selection.watching:
        return "this dashboard only watches; start it without --watch to steer"
    return None


def stop(selection: Selection) -> str | None:
    """Refuse to stop a worker or a service that is not there, or stopping already."""
    if selection.watching or (selection.marked and selection.of_workers):
        return watching(selection)
    if selection.service is not None:
        return _cannot_stop_service(selection.service)
    worker = selection.worker
    return _cannot_stop(worker) if worker is not None else _no_worker(selection)


def _no_worker(selection: Selection) -> str:
    if selection.external is not None:
        name = clean_text(selection.external.id)
        return f"{name} is no worker of this fleet: K ends it, D forgets it"
    if selection.task is not None:
        return f"no worker holds {clean_text(selection.task.id)}"
    return "choose a service first" if selection.place in _OF_SERVICES else "choose a worker first"


def _cannot_stop(worker: WorkerRow) -> str | None:
    name = clean_text(worker.id)
    if worker.status not in LIVE_WORKERS:
        return f"{name} is stopped already"
    if worker.status is WorkerStatus.STOPPING:
        return f"{name} is stopping already"
    if not worker.alive:
        return f"the process of {name} is gone; release its task, or wait for the lease to end"
    return None


def _cannot_stop_service(service: ServiceRow) -> str | None:
    name = clean_text(service.name)
    if service.state is ServiceState.STOPPING and service.keeper is not None:
        return f"{name} is stopping already"
    return None if _is_up(service) else f"{name} is not up"


def _is_up(service: ServiceRow) -> bool:
    """Say whether somebody keeps a service alive, or will start it soon."""
    return service.keeper is not None and service.state in {*UP, ServiceState.WAITING}


def add(selection: Selection) -> str | None:
    """Refuse to start a service that is up; there can always be one more worker."""
    service = selection.service
    if not selection.watching and service is not None and _is_up(service):
        return f"{clean_text(service.name)} is {service.state} already"
    return watching(selection)


def kill(selection: Selection) -> str | None:
    """Refuse to kill where neither a run nor a worker is."""
    if selection.watching or selection.marked or selection.external is not None:
        return watching(selection)
    if selection.service is not None:
        return "s stops a service, and kills what has not ended after its stop_timeout"
    worker = selection.worker
    if not selection.of_workers:
        return _needs_holder(selection)
    if worker is None:
        return "choose a worker first"
    if worker.status not in LIVE_WORKERS:
        return f"{clean_text(worker.id)} is stopped already"
    return None


def release(selection: Selection) -> str | None:
    """Refuse to release a task that no worker holds."""
    if reason := watching(selection) or _marks_workers(selection):
        return reason
    return None if selection.marked else _needs_holder(selection)


def _marks_workers(selection: Selection) -> str | None:
    """Refuse for marked workers what is done to tasks."""
    if selection.marked and selection.of_workers:
        return "the marks are on workers, and this is for tasks: take the marks away first"
    return None


def _needs_holder(selection: Selection) -> str | None:
    if held_task(selection) is not None:
        return None
    if selection.task is not None:
        state = "waiting or ready" if selection.task.state is State.READY else selection.task.state
        return f"{clean_text(selection.task.id)} is {state.lower()}: no worker holds it"
    row = selection.worker or selection.external
    if row is not None:
        return f"{clean_text(row.id)} holds no task"
    return "choose a task or a worker first"


def cancel(selection: Selection) -> str | None:
    """Refuse to cancel what is over."""
    if reason := watching(selection) or _marks_workers(selection):
        return reason
    if selection.marked:
        return None
    if selection.of_workers:
        return _needs_holder(selection)
    task = selection.task
    if task is None:
        return "choose a task first"
    if task.state in FINISHED:
        return f"{clean_text(task.id)} is {task.state.lower()} already"
    return None


def purge(selection: Selection) -> str | None:
    """Refuse to purge where no task is."""
    if selection.watching or (selection.marked and not selection.of_workers):
        return watching(selection)
    if selection.external is not None:
        return _marks_workers(selection)
    return None if selection.task is not None else "choose a task first"


def retry(selection: Selection) -> str | None:
    """Refuse to retry what has not ended, or waits for other tasks."""
    if selection.watching or (selection.marked and not selection.of_workers):
        return watching(selection)
    if selection.service is not None:
        return None  # one that is down is started
    if selection.task is None:
        return "choose a task first"
    return _cannot_retry(selection.task)


def _cannot_retry(task: TaskRow) -> str | None:
    name = clean_text(task.id)
    if task.state in ACTIVE:
        return f"{name} is running; K kills its run, u releases it"
    if task.state is State.READY:
        return f"{name} is waiting or ready already"
    if task.state is State.BLOCKED and Reason.HUMAN not in task.reasons:
        return f"{name} is blocked by other tasks: retry those"
    return None


def acknowledge(selection: Selection) -> str | None:
    """Refuse where no alert is."""
    if selection.watching:
        return watching(selection)
    if selection.alert is None:
        return "only alerts are acknowledged; this goes away once it is settled"
    return None


def a_detail(selection: Selection) -> str | None:
    """Refuse where there is nothing to be shown in full."""
    rows = (selection.worker, selection.service, selection.external)
    if selection.opens is not None or any(row is not None for row in rows):
        return None
    if selection.place is Place.ATTENTION:
        return "all that is known of it stands in the second pane"
    return "nothing here to show"


def a_worker(selection: Selection) -> str | None:
    """Refuse where no worker is to be shown."""
    if selection.worker is not None or (selection.run is not None):
        return None
    if selection.task is not None and selection.task.worker_id is not None:
        return None
    if selection.place is Place.EVENTS:
        if selection.who is None:
            return "this event is about no worker"
        who = clean_text(selection.who)
        return f"{who} is gone: the store knows no worker of that name" if selection.gone else None
    if selection.task is not None:
        return f"{clean_text(selection.task.id)} has not run yet: no worker has had it"
    return "no worker here to show"


def a_log(selection: Selection) -> str | None:
    """Refuse where nothing has run yet."""
    return None if selection.service is not None else _no_run(selection, "log")


def _no_run(selection: Selection, what: str) -> str | None:
    if selection.run is not None:
        return None
    task = selection.task
    if task is None:
        return None if selection.opens is not None else _no_task(selection)
    # Not by its attempts: one that was put back has none, and its run is there all the same.
    if task.worker_id is None:
        return f"{clean_text(task.id)} has not run yet: there is no {what}"
    return None


def _no_task(selection: Selection) -> str:
    row = selection.worker or selection.external
    if row is not None:
        return f"{clean_text(row.id)} holds no task"
    return "choose a task or a run first"


def earlier_run(selection: Selection) -> str | None:
    """Refuse where no run was before the one that is shown."""
    return None if selection.earlier else "there is no run before this one"


def later_run(selection: Selection) -> str | None:
    """Refuse where no run came after the one that is shown."""
    return None if selection.later else "there is no run after this one"


def transcript(selection: Selection) -> str | None:
    """Refuse where no agent has run yet, or never will."""
    row = selection.run or selection.task
    # Of what is gone nobody knows what it was: it may have left one.
    if row is not None and row.kind and row.kind not in TRANSCRIBED:
        task_id = clean_text(selection.run.task_id if selection.run is not None else row.id)
        kind = clean_text(row.kind)
        return f"{task_id} is a {kind} task; only agents have a transcript. l shows its log"
    return _no_run(selection, "transcript")


def elsewhere(
    place: Place, what: str, also: Callable[[Selection], str | None] = lambda _selection: None
) -> Callable[[Selection], str | None]:
    """Refuse to open a screen from itself, where one looks at `what` already, or as `also` does."""

    def refuse(selection: Selection) -> str | None:
        return f"this is {what} already" if selection.place is place else also(selection)

    return refuse


def zoom(selection: Selection) -> str | None:
    """Refuse where one pane has the whole screen anyway."""
    if selection.place in _ALONE:
        return "there is one pane here, and it has the whole screen"
    return None


def marks(selection: Selection) -> str | None:
    """Refuse to mark where nothing is."""
    if selection.watching:
        return watching(selection)
    if selection.external is not None:
        return "external agents are ended and forgotten one by one"
    if selection.place is Place.SERVICES:
        return "services are not marked: each is started and stopped by itself"
    if selection.task is None and selection.worker is None:
        return "nothing here to mark"
    return None


def held_task(selection: Selection) -> str | None:
    """Return the id of the task that a worker holds: the one selected, or the worker's."""
    if selection.task is not None:
        return selection.task.id if selection.task.state in ACTIVE else None
    return selection.worker.task_id if selection.worker is not None else None
