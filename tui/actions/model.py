"""What an action is, and all that it may look at to say whether it makes sense now."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.model import ALL_AGENTS
from engine.text import clean_text, cut_middle
from engine.views import TRANSCRIBED

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.commands import Command
    from engine.views import ExternalRow, RunRow, ServiceRow, TaskRow, WorkerRow

_NAME = 16
"""Cells of an agent's name in the footer."""


class Place(StrEnum):
    """Where the cursor is."""

    WORKERS = "workers"
    TASKS = "tasks"
    EVENTS = "events"
    STALE = "stale"
    DETAIL = "detail"
    LOG = "log"
    TRANSCRIPT = "transcript"
    HISTORY = "history"
    GRAPH = "graph"
    TIMELINE = "timeline"
    WORKER = "worker"
    ATTENTION = "attention"
    SERVICES = "services"
    SERVICE = "service"
    EXTERNAL = "external"
    METRICS = "metrics"


class Group(StrEnum):
    """The headings of the help screen."""

    STEER = "Steer"
    LOOK = "Look"
    TEXT = "In a log or a transcript"
    MOVE = "Move"
    PROGRAM = "Program"


class Selection(Struct, frozen=True):
    """What an action would act on.

    `task` is a row that shows a task; `worker` the worker under the cursor, or the one that
    holds `task`. `opens` is the id of the task that `enter` would show, `run` the run under the
    cursor, `run_id` the one that an event names. `marked` are the keys of the marked rows, tasks
    or workers by `place`: with them an action is for all of these, and the row under the cursor
    does not matter. `who` is the id of the worker that an event names, `gone` that nobody knows
    it any more. `earlier` and `later`: whether the task of `run` has other runs. `tree`: the graph
    is shown as one. `about`: the agent that the row itself is about. `held` are the agents whose
    claims are held (`*`: all). `alert`: the number of the alert under the cursor. `service`: the
    one under the cursor, or whose log is shown; `external`: an agent that somebody else started.
    """

    place: Place
    worker: WorkerRow | None = None
    task: TaskRow | None = None
    opens: str | None = None
    held: tuple[str, ...] = ()
    watching: bool = False
    marked: tuple[str, ...] = ()
    run: RunRow | None = None
    run_id: str | None = None
    who: str | None = None
    gone: bool = False
    earlier: bool = False
    later: bool = False
    tree: bool = False
    about: str | None = None
    alert: int | None = None
    service: ServiceRow | None = None
    external: ExternalRow | None = None

    @property
    def agent(self) -> str | None:
        """The agent of what is under the cursor."""
        row = self.worker or self.task or self.run
        return row.agent if row is not None else self.about

    @property
    def claims(self) -> str:
        """Whose claims `hold` holds or resumes: all (`*`), in the list of needs the row's agent's.

        There, too, it is all of them while all are held, and the agent itself is not.
        """
        agent = self.agent if self.place is Place.ATTENTION else None
        if agent is None or (ALL_AGENTS in self.held and agent not in self.held):
            return ALL_AGENTS
        return agent

    @property
    def holds(self) -> bool:
        """Whether `hold` would hold claims, and not resume them."""
        return self.claims not in self.held

    @property
    def of_workers(self) -> bool:
        """Whether rows and marks here are workers; in a mixed list, the one under the cursor."""
        if self.place is Place.ATTENTION:
            return self.opens is None and self.worker is not None
        return self.place in {Place.WORKERS, Place.STALE, Place.WORKER}


class Target(Struct, frozen=True):
    """A screen by the name of the action that opens it, and what it is to show."""

    name: str
    task_id: str | None = None
    run_id: str | None = None
    worker_id: str | None = None
    service: str | None = None
    external: str | None = None


def need_you(count: int) -> str:
    """Say of so many things that they need a person: the same words everywhere."""
    return f"{count:,} {'needs' if count == 1 else 'need'} you"


class Action(Struct, frozen=True):
    """One thing that keys can do.

    `keys` are Textual's names, the first is the one shown. `places` are where the footer offers
    it; `refuse` returns why it cannot be done for a selection, or None. With `command` it is
    something for the engine: `asks` says that its dry run is shown first, and always with marks.
    Without, or where that gives none, it is a method `action_<name>` of the app or of the screen.
    `local` actions belong to the focused list or text, so that their keys may be other things
    elsewhere. `also`: what it does to what is neither a task nor a worker.
    """

    name: str
    keys: tuple[str, ...]
    label: str
    help: str
    group: Group
    places: frozenset[Place] = frozenset()
    refuse: Callable[[Selection], str | None] = lambda _selection: None
    command: Callable[[Selection], tuple[Command, ...]] | None = None
    asks: bool = False
    local: str = ""
    also: str = ""

    @property
    def full_help(self) -> str:
        """What it does, whatever is selected."""
        return f"{self.help}; {self.also}" if self.also else self.help

    def label_for(self, selection: Selection, needs: int = 0) -> str:
        """Return what the footer calls the action here; `needs` counts what needs a person."""
        match self.name:
            case "attention" if needs:
                return need_you(needs)
            case "tree" if selection.tree:
                return "layers"
            case "hold":
                return _hold_label(selection)
            case "detail" if selection.place is Place.HISTORY:
                return "transcript" if leads_to_transcript(selection) else "log"
        return self._otherwise(selection, 0) or self.label

    def help_for(self, selection: Selection) -> str:
        """Return what the action does for the selection, in a sentence."""
        if self.name != "hold" or selection.claims == ALL_AGENTS:
            return self._otherwise(selection, 1) or self.help
        whose = clean_text(selection.claims)
        return f"{'Hold' if selection.holds else 'Resume'} the claims of {whose}"

    def is_special(self, selection: Selection) -> bool:
        """Say whether it comes first in the footer: what it does here it does nowhere else."""
        return bool(self.local or self._otherwise(selection, 0))

    def _otherwise(self, selection: Selection, part: int) -> str:
        """Return its label (0) or help (1) if it is another one for the selection."""
        if selection.service is not None:
            return _ON_SERVICES.get(self.name, ("", ""))[part]
        if selection.external is not None and not selection.marked:
            return _ON_EXTERNALS.get(self.name, ("", ""))[part]
        return ""

    def is_offered(self, selection: Selection) -> bool:
        """Say whether the footer has the action here, be it dimmed.

        It does not where nobody would look for it: other runs where there is one, and in the list
        of needs, which says of each row what can be done, what cannot.
        """
        special = self.is_special(selection) and not self.local
        if not (special or selection.place in self.places) or not self.label_for(selection):
            return False
        if selection.service is not None and self.name in _NOT_OF_SERVICES:
            return False
        if self.name in {"former_run", "later_run"}:
            return selection.earlier or selection.later
        return selection.place is not Place.ATTENTION or self.refuse(selection) is None


_ON_SERVICES = {
    "stop": ("stop", "End the service, with all that it has started"),
    "retry": ("restart", "End the service and start it anew"),
    "add": ("start", "Start the service, and what it depends on"),
}
_ON_EXTERNALS = {
    "kill": ("end", "End the external agent: its process, its window of tmux"),
    "purge": ("forget", "Forget the external agent; its process goes on"),
}
"""Label and help of what actions of tasks and workers are for other things."""
_NOT_OF_SERVICES = frozenset({"transcript", "worker", "stream"})
"""What there is for the log of a run, and not for that of a service."""


def _hold_label(selection: Selection) -> str:
    does, whose = "hold" if selection.holds else "resume", selection.claims
    return does if whose == ALL_AGENTS else f"{does} {cut_middle(clean_text(whose), _NAME)}"


def leads_to_transcript(selection: Selection) -> bool:
    """Say whether what the run under the cursor put out is told best by its transcript."""
    return selection.run is not None and selection.run.kind in TRANSCRIBED
