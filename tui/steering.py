"""What is said before a command and after it: the dry run as a question, the receipt as an answer.

Pure: knows commands and receipts, and of the screen only the lines that they become. The words
of plans and sums are `engine.receipts`'s, as on the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from engine.commands import (
    Acknowledge,
    AddWorkers,
    Cancel,
    Command,
    Hold,
    Kill,
    KillWorkers,
    Purge,
    Receipt,
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
from engine.model import ALL_AGENTS
from engine.receipts import listed, plan_parts, sums, unnamed
from engine.text import age, clean_text
from tui.look import place_of
from tui.widgets.cells import Cell, Line, Tone, fitted, line_width, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engine.commands import Step
    from engine.views import ExternalRow, WorkerRow
    from tui.widgets.document import Layout

FEW = 4
"""Lines of a receipt that a message shows; one that has more gets a screen."""
_RUNS = 6
"""Runs whose processes are named; more are only counted."""
_PIDS = 12
_MANY = 2000
"""Subjects that are listed one by one; more are only counted."""
_TITLES: dict[type[Command], str] = {
    Kill: "Kill",
    KillWorkers: "Kill",
    Cancel: "Cancel",
    Release: "Release",
    Retry: "Retry",
    Purge: "Purge",
    Stop: "Stop",
    Seed: "Reseed",
    Reset: "Reset",
    Hold: "Hold",
    Resume: "Resume",
    AddWorkers: "Add workers",
    Acknowledge: "Acknowledge",
    StartServices: "Start",
    StopServices: "Stop",
    RestartServices: "Restart",
}


class Plan(Struct, frozen=True):
    """What a command would do. `changes` is false if there is nothing in it to say yes to."""

    title: str
    text: Layout
    changes: bool


def title_of(command: Command) -> str:
    """Return what the question and the receipt of a command are headed with."""
    if isinstance(command, UnregisterAgents):
        return "End" if command.end else "Forget"
    return _TITLES[type(command)]


def plan_of(
    command: Command,
    receipt: Receipt,
    *,
    grace: float,
    workers: Sequence[WorkerRow] = (),
    externals: Sequence[ExternalRow] = (),
) -> Plan:
    """Tell a dry run. `grace`: seconds between SIGTERM and SIGKILL; the others: those known."""
    notes = [*_ends(receipt, grace), *_goes_on(command, receipt, workers)]
    if isinstance(command, UnregisterAgents):
        notes += _of_externals(command, receipt, grace, externals)

    def layout(width: int) -> list[Line]:
        lines: list[Line] = []
        for part in plan_parts(command, receipt) or ["nothing would change"]:
            lines += _bullet("· ", part, Tone.BOLD, width)
        for note in notes:
            lines += _bullet("  ", note, Tone.DIM, width)
        return [*lines, *_listing(receipt, width)]

    changes = bool(receipt.done) or isinstance(command, Reset)
    return Plan(title_of(command), layout, changes)


def receipt_text(receipt: Receipt) -> Layout:
    """Tell a whole receipt: its sums, what was refused, what was done."""
    return lambda width: [
        *_bullet("", sums(receipt) or "nothing was done", Tone.BOLD, width),
        *_listing(receipt, width),
    ]


def told(receipt: Receipt) -> tuple[list[str], list[str]]:
    """Return what a message says of what was done, and of what was refused; a line each."""
    done = [f"{_subject(name)}: {words}" for name, words in receipt.done.items()]
    refused = [f"{_subject(one.subject)}: {unnamed(one)}" for one in receipt.refused]
    return done, refused


def is_long(receipt: Receipt) -> bool:
    """Say whether a receipt has refusals that a message could not show one by one."""
    return len(receipt.refused) > FEW


def step_text(step: Step) -> Layout:
    """Tell how far a long piece of work is, who is waited for, and what comes next."""

    def layout(width: int) -> list[Line]:
        count = f": {step.count:,}" if step.count else ""
        left = "" if step.seconds_left is None else f", {age(step.seconds_left)} left"
        lines = list(_bullet("", step.what + count + left, Tone.BOLD, width))
        for name in step.waiting_for:
            lines += _bullet("· ", name, Tone.HUMAN, width)
        return [*lines, *_bullet("", step.next, Tone.DIM, width)] if step.next else lines

    return layout


def _ends(receipt: Receipt, grace: float) -> Iterator[str]:
    """Name the runs that end, with their processes."""
    for end in receipt.ends[:_RUNS]:
        pids = "no process is known of it"
        if end.pids:
            word = "process" if len(end.pids) == 1 else "processes"
            pids = f"{word} {listed([str(pid) for pid in end.pids], _PIDS)}"
        yield f"ends the run of {end.task_id} by {end.worker_id}: {pids}"
    if len(receipt.ends) > _RUNS:
        yield f"and {len(receipt.ends) - _RUNS:,} more runs"
    if receipt.ends:
        yield f"what is left of them after {age(grace)} gets SIGKILL"


def _goes_on(command: Command, receipt: Receipt, workers: Sequence[WorkerRow]) -> Iterator[str]:
    """Name the processes that do not end, though one could think so."""
    known = {worker.id: worker for worker in workers}
    if isinstance(command, Purge):
        yield "their runs leave the history, too; what depends on them stays blocked"
    if isinstance(command, Kill | Cancel | Release | Purge):
        for name in list(dict.fromkeys(end.worker_id for end in receipt.ends))[:_RUNS]:
            pid = f" (process {known[name].pid})" if name in known else ""
            yield f"worker {name}{pid} goes on with the next task"
    elif isinstance(command, KillWorkers):
        for name in list(receipt.done)[:_RUNS]:
            worker = known.get(name)
            if worker is not None and not worker.own_process:
                yield f"process {worker.pid} stays: it has other work than {name}'s"


def _of_externals(
    command: UnregisterAgents, receipt: Receipt, grace: float, externals: Sequence[ExternalRow]
) -> Iterator[str]:
    """Name the processes and windows of external agents, and what becomes of them."""
    for agent in externals:
        if agent.id not in receipt.done:
            continue
        if not command.end or not place_of(agent):
            yield f"{agent.id} itself goes on: {place_of(agent) or 'nobody has told where it is'}"
            continue
        if agent.tmux is not None:
            yield f"the window {agent.tmux} of tmux is closed, with all that runs in it"
        if agent.pid is not None:
            yield f"process {agent.pid} gets SIGTERM, and after {age(grace)} SIGKILL"


def _listing(receipt: Receipt, width: int) -> Iterator[Line]:
    """List what is refused, then what is done, one subject a line."""
    room = max(8, min(40, width // 3))
    refused = [(one.subject, unnamed(one)) for one in receipt.refused]
    for title, entries, tone in (
        ("Refused", refused, Tone.HUMAN),
        ("One by one" if receipt.dry_run else "Done", list(receipt.done.items()), Tone.TEXT),
    ):
        if not entries or (len(entries) == 1 and not receipt.refused and receipt.ends):
            continue  # the one thing that happens was told above
        yield ()
        yield _rule(title, width)
        for subject, words in entries[:_MANY]:
            head: Cell = (fitted(_subject(subject), room, middle=True) + "  ", Tone.TEXT)
            first, *rest = wrapped(clean_text(words), max(8, width - room - 2))
            yield head, (first, tone)
            yield from (((" " * (room + 2) + part, tone),) for part in rest)
        if len(entries) > _MANY:
            yield ((f"and {len(entries) - _MANY:,} more", Tone.DIM),)


def _bullet(mark: str, text: str, tone: Tone, width: int) -> Iterator[Line]:
    first, *rest = wrapped(clean_text(text), max(8, width - len(mark)))
    yield (mark, Tone.DIM), (first, tone)
    yield from (((" " * len(mark) + part, tone),) for part in rest)


def _rule(title: str, width: int) -> Line:
    head: Cell = (f"{title} ", Tone.BOLD)
    return head, ("─" * max(0, width - line_width((head,))), Tone.RULE)


def _subject(name: str) -> str:
    return "all agents" if name == ALL_AGENTS else clean_text(name)
