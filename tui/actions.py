"""Everything that a key can do, in one table: bindings, footer and help are made from it.

An action that makes no sense now is still bound: it is dimmed in the footer, and pressing it
says why. What an action needs to know is in `Selection`; what it does is a command for the
engine, or a method `action_<name>` of the screen or of the focused list.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from textual.binding import Binding

from engine.commands import Command, Hold, Release, Resume, Stop
from engine.model import ACTIVE, State, WorkerStatus
from engine.text import clean_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from engine.views import TaskRow, WorkerRow


class Place(StrEnum):
    """Where the cursor is."""

    WORKERS = "workers"
    TASKS = "tasks"
    EVENTS = "events"
    STALE = "stale"
    DETAIL = "detail"


class Group(StrEnum):
    """The headings of the help screen."""

    STEER = "Steer"
    LOOK = "Look"
    MOVE = "Move"
    PROGRAM = "Program"


@dataclass(frozen=True, slots=True)
class Selection:
    """What an action would act on.

    `task` is a row that shows a task; `worker` the worker under the cursor, or the one that
    holds `task`. `opens` is the id of the task that `enter` would show.
    """

    place: Place
    worker: WorkerRow | None = None
    task: TaskRow | None = None
    opens: str | None = None
    held: tuple[str, ...] = ()
    watching: bool = False


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that keys can do.

    `keys` are Textual's names, the first is the one shown. `places` are where the footer offers
    it; `refuse` returns why it cannot be done for a selection, or None. `local` actions belong to
    the focused list, so that they may be other things elsewhere.
    """

    name: str
    keys: tuple[str, ...]
    label: str
    help: str
    group: Group
    places: frozenset[Place] = frozenset()
    refuse: Callable[[Selection], str | None] = lambda _selection: None
    command: Callable[[Selection], tuple[Command, ...]] | None = None
    local: str = ""

    def label_for(self, selection: Selection) -> str:
        """Return what the footer calls the action here."""
        return "resume" if self.name == "hold" and selection.held else self.label


_SHOWN = {
    "escape": "esc",
    "enter": "⏎",
    "pagedown": "pgdn",
    "pageup": "pgup",
    "down": "↓",
    "up": "↑",
}


def shown(key: str) -> str:
    """Return a key as footer and help write it."""
    return _SHOWN.get(key, key.replace("ctrl+", "^"))


def _watching(selection: Selection) -> str | None:
    if selection.watching:
        return "this dashboard only watches; start it without --watch to steer"
    return None


def _refuse_stop(selection: Selection) -> str | None:
    if reason := _watching(selection):
        return reason
    worker = selection.worker
    if worker is None:
        if selection.task is not None:
            return f"no worker holds {clean_text(selection.task.id)}"
        return "choose a worker first"
    name = clean_text(worker.id)
    if worker.status is WorkerStatus.STOPPING:
        return f"{name} is stopping already"
    if not worker.alive:
        return f"the process of {name} is gone; release its task, or wait for the lease to end"
    return None


def _stop(selection: Selection) -> tuple[Command, ...]:
    assert selection.worker is not None
    return (Stop((selection.worker.id,)),)


def _held_task(selection: Selection) -> str | None:
    if selection.task is not None:
        return selection.task.id if selection.task.state in ACTIVE else None
    return selection.worker.task_id if selection.worker is not None else None


def _refuse_release(selection: Selection) -> str | None:
    if reason := _watching(selection):
        return reason
    if _held_task(selection) is not None:
        return None
    if selection.task is not None:
        state = "waiting or ready" if selection.task.state is State.READY else selection.task.state
        return f"{clean_text(selection.task.id)} is {state.lower()}: no worker holds it"
    if selection.worker is not None:
        return f"{clean_text(selection.worker.id)} holds no task"
    return "choose a task or a worker first"


def _release(selection: Selection) -> tuple[Command, ...]:
    task_id = _held_task(selection)
    assert task_id is not None
    return (Release((task_id,)),)


def _hold(selection: Selection) -> tuple[Command, ...]:
    return tuple(Resume(agent) for agent in selection.held) or (Hold(),)


def _refuse_detail(selection: Selection) -> str | None:
    if selection.opens is None:
        return "no task here to show"
    return None


_LISTS = frozenset({Place.WORKERS, Place.TASKS, Place.EVENTS, Place.STALE})
_ALL = frozenset(Place)

ACTIONS: tuple[Action, ...] = (
    Action(
        "detail", ("enter",), "detail", "Show everything about the task under the cursor",
        Group.LOOK, _LISTS, _refuse_detail,
    ),
    Action(
        "stop", ("s",), "stop", "Stop the worker gracefully: its task is released",
        Group.STEER, _ALL - {Place.EVENTS}, _refuse_stop, _stop,
    ),
    Action(
        "release", ("u",), "release", "Take the task from its worker and make it ready again",
        Group.STEER, _ALL - {Place.EVENTS}, _refuse_release, _release,
    ),
    Action(
        "hold", ("p",), "hold", "Hold claims: nothing new starts; again to resume",
        Group.STEER, _ALL, _watching, _hold,
    ),
    Action(
        "filter", ("/",), "filter", "Filter the tasks: words, state:failed, agent:codex, !not",
        Group.LOOK, frozenset({Place.TASKS}),
    ),
    Action(
        "back", ("escape",), "back", "Go back; in the dashboard: leave zoom, then clear the filter",
        Group.LOOK, frozenset({Place.DETAIL}),
    ),
    Action("zoom", ("z",), "zoom", "Give the pane the whole screen, and back", Group.LOOK, _ALL),
    Action("pane_1", ("1",), "", "Go to the workers", Group.MOVE),
    Action("pane_2", ("2",), "", "Go to the tasks", Group.MOVE),
    Action("pane_3", ("3",), "", "Go to the events", Group.MOVE),
    Action("pane_4", ("4",), "", "Go to the stale heartbeats", Group.MOVE),
    Action("next_pane", ("tab",), "", "Go to the next pane", Group.MOVE),
    Action("previous_pane", ("shift+tab",), "", "Go to the pane before", Group.MOVE),
    Action("down", ("j", "down"), "", "Down", Group.MOVE, local="move(1)"),
    Action("up", ("k", "up"), "", "Up", Group.MOVE, local="move(-1)"),
    Action("first", ("g", "home"), "", "To the top", Group.MOVE, local="first"),
    Action("last", ("G", "end"), "", "To the end; events follow again", Group.MOVE, local="last"),
    Action("page_down", ("pagedown",), "", "A screenful down", Group.MOVE, local="page(1)"),
    Action("page_up", ("pageup",), "", "A screenful up", Group.MOVE, local="page(-1)"),
    Action("help", ("?",), "help", "Show this help", Group.PROGRAM, _ALL),
    Action(
        "quit", ("q", "ctrl+q", "ctrl+c"), "quit", "Quit; asks first while its own runs are alive",
        Group.PROGRAM, _ALL,
    ),
)  # fmt: skip

BY_NAME = {action.name: action for action in ACTIONS}


def bindings(names: Iterable[str] | None = None) -> list[Binding]:
    """Return the bindings of a screen: of all actions, or of those named."""
    chosen = ACTIONS if names is None else [BY_NAME[name] for name in names]
    return [
        Binding(
            ",".join(action.keys),
            f"app.act('{action.name}')",
            action.label or action.help,
            id=action.name,
            tooltip=action.help,
            show=False,
        )
        for action in chosen
        if not action.local
    ]


def motions() -> list[Binding]:
    """Return the bindings of everything that scrolls."""
    return [
        Binding(",".join(a.keys), a.local, a.help, id=a.name, tooltip=a.help, show=False)
        for a in ACTIONS
        if a.local
    ]
