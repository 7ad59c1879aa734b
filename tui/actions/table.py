"""Everything that a key can do, in one table: bindings, footer, palette and help are made from it.

An action that makes no sense now is still bound: it is dimmed in the footer, and pressing it
says why. What an action needs to know is in `Selection`; what it does is a command for the
engine, or a method of the app or the screen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.binding import Binding

from engine.commands import (
    Acknowledge,
    Cancel,
    Command,
    Hold,
    Kill,
    KillWorkers,
    Purge,
    Release,
    Reset,
    RestartServices,
    Resume,
    Retry,
    Seed,
    StartServices,
    Stop,
    StopServices,
    UnregisterAgents,
)
from tui.actions import legality
from tui.actions.model import Action, Group, Place, Selection

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHOWN = {
    "escape": "esc",
    "enter": "⏎",
    "pagedown": "pgdn",
    "pageup": "pgup",
    "down": "↓",
    "up": "↑",
    "left": "←",
    "right": "→",
    "exclamation_mark": "!",
    "question_mark": "?",
    "colon": ":",
    "slash": "/",
}


def shown(key: str) -> str:
    """Return a key as footer and help write it."""
    return _SHOWN.get(key, key.replace("ctrl+", "^"))


def _tasks(selection: Selection) -> tuple[str, ...]:
    """Return the ids of the tasks that a command is for."""
    if selection.marked and not selection.of_workers:
        return selection.marked
    if selection.task is not None:
        return (selection.task.id,)
    held = legality.held_task(selection)
    return (held,) if held is not None else ()


def _workers(selection: Selection) -> tuple[str, ...]:
    """Return the ids of the workers that a command is for."""
    if selection.marked and selection.of_workers:
        return selection.marked
    return (selection.worker.id,) if selection.worker is not None else ()


def _stop(selection: Selection) -> tuple[Command, ...]:
    if selection.service is not None:
        return (StopServices((selection.service.name,)),)
    return (Stop(_workers(selection)),)


def _kill(selection: Selection) -> tuple[Command, ...]:
    if selection.external is not None and not selection.marked:
        return (UnregisterAgents((selection.external.id,), end=True),)
    if selection.of_workers:
        return (KillWorkers(_workers(selection)),)
    return (Kill(_tasks(selection)),)


def _release(selection: Selection) -> tuple[Command, ...]:
    return (Release(_tasks(selection)),)


def _cancel(selection: Selection) -> tuple[Command, ...]:
    return (Cancel(_tasks(selection)),)


def _retry(selection: Selection) -> tuple[Command, ...]:
    if selection.service is not None:
        return (RestartServices((selection.service.name,)),)
    return (Retry(_tasks(selection)),)


def _add(selection: Selection) -> tuple[Command, ...]:
    """Return how a service is started; which agent gets a worker may have to be asked first."""
    service = selection.service
    return () if service is None else (StartServices((service.name,)),)


def _purge(selection: Selection) -> tuple[Command, ...]:
    if selection.external is not None:
        return (UnregisterAgents((selection.external.id,)),)
    return (Purge(_tasks(selection)),)


def _hold(selection: Selection) -> tuple[Command, ...]:
    return (Hold(selection.claims) if selection.holds else Resume(selection.claims),)


def _acknowledge(selection: Selection) -> tuple[Command, ...]:
    return (Acknowledge(() if selection.alert is None else (selection.alert,)),)


_PANES = frozenset({Place.WORKERS, Place.TASKS, Place.EVENTS, Place.STALE, Place.SERVICES})
_SERVICES = frozenset({Place.SERVICES, Place.SERVICE})
_BESIDE = _SERVICES | {Place.EXTERNAL}
"""Where nothing is a task, nor has one."""
_ALL = frozenset(Place)
_TASK_LISTS = frozenset({Place.TASKS, Place.ATTENTION, Place.GRAPH})
_LISTS = _PANES | {Place.HISTORY, Place.ATTENTION, Place.TIMELINE, Place.GRAPH}
_TOLD = frozenset({Place.EVENTS, Place.LOG, Place.TRANSCRIPT, Place.HISTORY, Place.METRICS})
_STEERED = _ALL - _TOLD - _BESIDE
_FILTERED = frozenset({Place.TASKS, Place.EVENTS, Place.HISTORY})
_SORTED = frozenset({Place.TASKS, Place.HISTORY})
_TEXTS = frozenset({Place.LOG, Place.TRANSCRIPT})
_SEARCHED = _TEXTS | {Place.GRAPH}
_MARKED = frozenset({Place.TASKS, Place.WORKERS, Place.STALE})

ACTIONS: tuple[Action, ...] = (
    Action(
        "detail", ("enter",), "detail", "Show everything about what is under the cursor",
        Group.LOOK, _LISTS, legality.a_detail,
    ),
    Action(
        "stop", ("s",), "stop", "Stop the worker gracefully: its task is released",
        Group.STEER, _STEERED | _SERVICES, legality.stop, _stop, also="end the service",
    ),
    Action(
        "kill", ("K",), "kill", "Kill the worker, or the task's run",
        Group.STEER, _STEERED | {Place.EXTERNAL}, legality.kill, _kill, asks=True,
        also="end the external agent",
    ),
    Action(
        "release", ("u",), "release", "Take the task from its worker and make it ready again",
        Group.STEER, _STEERED, legality.release, _release,
    ),
    Action(
        "cancel", ("c",), "cancel", "Cancel the task for good; its run is ended",
        Group.STEER, _STEERED, legality.cancel, _cancel, asks=True,
    ),
    Action(
        "retry", ("r",), "retry", "Make a finished or blocked task ready again",
        Group.STEER, _STEERED | _SERVICES, legality.retry, _retry, also="restart the service",
    ),
    Action(
        "purge", ("D",), "", "Remove the task and its runs from the store",
        Group.STEER, _STEERED | {Place.EXTERNAL}, legality.purge, _purge, asks=True,
        also="forget the external agent",
    ),
    Action(
        "acknowledge", ("A",), "acknowledge", "Acknowledge the alert: somebody has seen to it",
        Group.STEER, frozenset({Place.ATTENTION}), legality.acknowledge, _acknowledge,
    ),
    Action(
        "hold", ("p",), "hold", "Hold claims: nothing new starts; again to resume",
        Group.STEER, _ALL, legality.watching, _hold,
    ),
    Action("log", ("l",), "log", "Show the output of the run", Group.LOOK,
           _ALL - {Place.LOG, Place.EXTERNAL},
           legality.elsewhere(Place.LOG, "the log", legality.a_log), also="the log of the service"),
    Action("transcript", ("t",), "transcript", "Show what the agent said and did in the run",
           Group.LOOK, _ALL - {Place.TRANSCRIPT} - _BESIDE,
           legality.elsewhere(Place.TRANSCRIPT, "the transcript", legality.transcript)),
    Action("attention", ("!", "exclamation_mark"), "needs you",
           "List what needs you: only a human can settle it", Group.LOOK,
           _ALL - {Place.ATTENTION},
           legality.elsewhere(Place.ATTENTION, "the list of what needs you")),
    Action("history", ("h",), "history", "List all runs", Group.LOOK, _ALL - {Place.HISTORY},
           legality.elsewhere(Place.HISTORY, "the history of the runs")),
    Action("graph", ("d",), "graph", "Draw the DAG", Group.LOOK, _ALL - {Place.GRAPH}),
    Action("timeline", ("T",), "timeline", "Draw the runs of each worker over time", Group.LOOK,
           _ALL - {Place.TIMELINE}, legality.elsewhere(Place.TIMELINE, "the timeline")),
    Action("metrics", ("M",), "", "Show how the fleet is, and what ever happened in numbers",
           Group.LOOK, _ALL - {Place.METRICS}, legality.elsewhere(Place.METRICS, "the metrics")),
    Action("worker", ("w",), "worker", "Show everything about the worker", Group.LOOK,
           _ALL - {Place.WORKER} - _BESIDE,
           legality.elsewhere(Place.WORKER, "the worker", legality.a_worker)),
    Action(
        "filter", ("/",), "filter", "Filter: words, state:failed, agent:codex, /regex/, !not",
        Group.LOOK, _FILTERED,
    ),
    Action("sort", ("o",), "sort", "Sort by the next column", Group.LOOK, _SORTED),
    Action("reverse", ("O",), "", "Turn the order round", Group.LOOK, _SORTED),
    Action("columns", ("v",), "columns", "Choose the columns", Group.LOOK, _SORTED),
    Action("mark", ("space",), "mark", "Mark the row, for bulk", Group.STEER, _MARKED,
           legality.marks),
    Action("mark_all", ("ctrl+a",), "", "Mark all that the filter shows, or none", Group.STEER,
           _MARKED, legality.watching),
    Action("reseed", ("S",), "reseed", "Read the DAG file again: shows what would change",
           Group.STEER, _ALL, legality.watching, lambda _: (Seed(),), asks=True),
    Action("reset", ("R",), "reset", "Stop all workers, rotate the log, reseed, start again",
           Group.STEER, _ALL, legality.watching, lambda _: (Reset(),), asks=True),
    Action("add", ("a",), "add", "Start one more worker in this process", Group.STEER, _ALL,
           legality.add, _add, also="start the service"),
    Action(
        "back", ("escape",), "back", "Go back; in the dashboard: marks, zoom, then the filter",
        Group.LOOK, _ALL - _PANES,
    ),
    Action("zoom", ("z",), "zoom", "Give the pane the whole screen, and back", Group.LOOK,
           _PANES | {Place.DETAIL, Place.WORKER, Place.SERVICE}, legality.zoom),
    Action("pane_1", ("1",), "", "Go to the first pane: the workers", Group.MOVE),
    Action("pane_2", ("2",), "", "Go to the second pane: the tasks", Group.MOVE),
    Action("pane_3", ("3",), "", "Go to the third pane: the events", Group.MOVE),
    Action("pane_4", ("4",), "", "Go to the fourth pane: the stale heartbeats", Group.MOVE),
    Action("pane_5", ("5",), "", "Go to the fifth pane: the services, if any", Group.MOVE),
    Action("next_pane", ("tab",), "", "Go to the next pane", Group.MOVE),
    Action("previous_pane", ("shift+tab",), "", "Go to the pane before", Group.MOVE),
    Action("down", ("j", "down"), "", "Down", Group.MOVE, local="move(1)"),
    Action("up", ("k", "up"), "", "Up", Group.MOVE, local="move(-1)"),
    Action("left", ("left",), "", "To the left", Group.MOVE, local="shift(-1)"),
    Action("right", ("right",), "", "To the right", Group.MOVE, local="shift(1)"),
    Action("first", ("g", "home"), "", "To the top", Group.MOVE, local="first"),
    Action("last", ("G", "end"), "", "To the end; what grows is followed again", Group.MOVE,
           local="last"),
    Action("page_down", ("pagedown",), "", "A screenful down", Group.MOVE, local="page(1)"),
    Action("page_up", ("pageup",), "", "A screenful up", Group.MOVE, local="page(-1)"),
    Action("find", ("/",), "find", "Find text or a /regex/ in what one reads, tasks in the graph",
           Group.MOVE, _SEARCHED, local="find"),
    Action("find_next", ("n",), "next", "To the next match", Group.MOVE, _SEARCHED,
           local="find_next(1)"),
    Action("find_previous", ("N",), "", "To the match before", Group.MOVE, _SEARCHED,
           local="find_next(-1)"),
    Action("fold", ("space",), "fold", "Fold or unfold a fan of tasks, or a long entry",
           Group.MOVE, frozenset({Place.GRAPH, Place.TRANSCRIPT}), local="fold"),
    Action("follow", ("f",), "follow", "Stay at the end of what grows, or stay here",
           Group.TEXT, _TEXTS, local="follow"),
    Action("wrap", ("W",), "wrap", "Break long lines of a log, or cut them", Group.TEXT,
           frozenset({Place.LOG}), local="wrap"),
    Action("numbers", ("#",), "numbers", "Number the lines of a log", Group.TEXT,
           frozenset({Place.LOG}), local="numbers"),
    Action("copy", ("y",), "copy", "Copy the selection, or the line", Group.TEXT,
           _TEXTS, local="copy"),
    Action("select", ("v",), "select", "Begin a selection of lines here, or end it", Group.TEXT,
           _TEXTS, local="select"),
    Action("stream", ("e",), "out/err", "Standard error instead of standard output, or back",
           Group.TEXT, frozenset({Place.LOG}), local="stream"),
    Action("pager", ("P",), "pager", "Open the file in $PAGER", Group.TEXT,
           _TEXTS, local="pager"),
    Action("unfold", ("enter",), "", "All of a long entry of a transcript, or less", Group.TEXT,
           frozenset({Place.TRANSCRIPT}), local="fold"),
    Action("fold_all", ("F",), "fold all", "Fold all entries of a transcript, or none", Group.TEXT,
           frozenset({Place.TRANSCRIPT}), local="fold_all"),
    Action("former_run", ("[",), "run before", "Show the same of the run before", Group.TEXT,
           _TEXTS, legality.earlier_run, local="other_run(-1)"),
    Action("later_run", ("]",), "run after", "Show the same of the run after", Group.TEXT,
           _TEXTS, legality.later_run, local="other_run(1)"),
    Action("zoom_in", ("+", "plus"), "closer", "Show less time, larger", Group.MOVE,
           frozenset({Place.TIMELINE}), local="scale(1)"),
    Action("zoom_out", ("-", "minus"), "wider", "Show more time, smaller", Group.MOVE,
           frozenset({Place.TIMELINE}), local="scale(-1)"),
    Action("tree", ("v",), "tree", "Draw the DAG as a tree, or in layers again", Group.MOVE,
           frozenset({Place.GRAPH}), local="tree"),
    Action("palette", (":", "ctrl+p"), "palette", "Every action and every task by name",
           Group.PROGRAM, _ALL),
    Action("help", ("?",), "help", "Show this help", Group.PROGRAM, _ALL),
    Action(
        "quit", ("q", "ctrl+q", "ctrl+c"), "quit",
        "Quit; asks first while its own runs or services are alive",
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


def motions(place: Place | None = None) -> list[Binding]:
    """Return the bindings of everything that scrolls; with a `place`, its local actions too."""
    return [
        Binding(",".join(a.keys), a.local, a.help, id=a.name, tooltip=a.help, show=False)
        for a in ACTIONS
        if a.local and (not a.places or place in a.places)
    ]
