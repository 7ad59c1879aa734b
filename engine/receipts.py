"""Receipts in words: what is going to be done, what was done, and what was refused. Pure text.

People get the first few subjects and sums; `--json` gets everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.commands import (
    NEEDS_YOU,
    Cancel,
    Kill,
    KillWorkers,
    Purge,
    Release,
    Reset,
    Retry,
    Stop,
)
from engine.model import ALL_AGENTS, State
from engine.text import plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from engine.commands import Command, EndedRun, Receipt, Refusal
    from engine.errors import Code

LISTED = 20
"""Subjects, and kinds of refusal, that are named; more are only counted."""
PIDS = 12
"""Processes that are listed in one place."""
ALIKE = 3
"""Refusals for the same reason that are told one by one."""
REASONS = 3
"""Reasons for refusals that a plan names; what was refused for others is only counted."""
_BECOMES = {
    Cancel: State.CANCELLED,
    Kill: State.FAILED,
    KillWorkers: State.FAILED,
    Purge: "gone",
    Release: State.READY,
    Stop: State.READY,
}
_AGAIN = "ready again"
"""What a receipt says of a task that retry made READY."""
_WORKERS = "workers stopped"
"""What the receipt of a reset counts besides the tasks."""


def listed(names: Sequence[str], most: int) -> str:
    """Write names with commas; beyond `most` they are only counted."""
    more = len(names) - most
    shown = ", ".join(names[:most])
    return f"{shown} and {more:,} more" if more > 0 else shown


def done_lines(receipt: Receipt) -> list[str]:
    """Return a line for each of the first subjects: what happens to it, and to which processes."""
    by_subject = {end.task_id: end for end in receipt.ends}
    by_subject |= {end.worker_id: end for end in receipt.ends if end.worker_id in receipt.done}
    lines = []
    for subject, what in list(receipt.done.items())[:LISTED]:
        pids = ""
        if (end := by_subject.get(subject)) is not None:
            # A worker has a process of its own besides those of its run.
            pids = _pids([end], "run: " if end.worker_id == subject else "")
        name = "all agents" if subject == ALL_AGENTS else subject
        lines.append(f"{name}: {what}{pids}")
    more = len(receipt.done) - LISTED
    return [*lines, f"… and {more:,} more"] if more > 0 else lines


def need_lines(receipt: Receipt) -> list[str]:
    """Return a line for each thing that somebody must see to, with the tasks that wait for it."""
    waiting: dict[str, list[str]] = {}
    for subject, what in receipt.done.items():
        if what.startswith(NEEDS_YOU):
            waiting.setdefault(what.removeprefix(NEEDS_YOU), []).append(subject)
    lines = [
        f"{listed(subjects, ALIKE)}: {'need' if len(subjects) > 1 else 'needs'} you: {why}"
        for why, subjects in list(waiting.items())[:LISTED]
    ]
    more = len(waiting) - LISTED
    return [*lines, f"… and {more:,} more"] if more > 0 else lines


def plan(command: Command, receipt: Receipt) -> str:
    """Sum up a dry run in one sentence: processes, then states, then what is refused."""
    return ", ".join(plan_parts(command, receipt))


def plan_parts(command: Command, receipt: Receipt) -> list[str]:
    """Return what `plan` says, a part for each thing that happens."""
    parts = [*_runs(command, receipt), *_states(command, receipt)]
    parts += [f"{plural(n, 'task')} {word}" for word, n in _carried(receipt)]
    kinds = grouped(receipt.refused)
    parts += [f"{n:,} refused ({sentence})" for _, sentence, n in kinds[:REASONS]]
    others = sum(n for _, _, n in kinds[REASONS:])
    return [*parts, f"{others:,} refused for other reasons"] if others else parts


def sums(receipt: Receipt) -> str:
    """Sum up in one line what was done."""
    counts = dict(receipt.counts)
    if receipt.refused:
        counts["refused"] = len(receipt.refused)
    return _sum(counts)


def grouped(refused: Iterable[Refusal]) -> list[tuple[Code, str, int]]:
    """Return code, sentence and count of each kind of refusal, the most frequent first.

    A sentence that is true of several subjects names none of them.
    """
    kinds: dict[tuple[Code, str], list[str]] = {}
    for refusal in refused:
        kinds.setdefault((refusal.code, _kind(refusal)), []).append(refusal.message)
    groups = [
        (code, kind if len(messages) > 1 else messages[0], len(messages))
        for (code, kind), messages in kinds.items()
    ]
    return sorted(groups, key=lambda group: -group[2])


def refusal_lines(refused: Sequence[Refusal]) -> list[tuple[Code, str]]:
    """Return code and sentence of each line about refusals: a few of each kind, then sums."""
    lines: list[tuple[Code, str]] = []
    told: dict[tuple[Code, str], int] = {}
    for refusal in refused:
        kind = refusal.code, _kind(refusal)
        told[kind] = told.get(kind, 0) + 1
        if told[kind] <= ALIKE and len(told) <= LISTED:
            lines.append((refusal.code, refusal.message))
    for (code, sentence), count in list(told.items())[:LISTED]:
        if count > ALIKE:
            lines.append((code, f"{count - ALIKE:,} more: {sentence}"))
    rest = list(told.items())[LISTED:]
    if rest:
        lines.append((rest[0][0][0], f"{sum(n for _, n in rest):,} more, for other reasons"))
    return lines


def _sum(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {_one(word) if n == 1 else word}" for word, n in counts.items())


def unnamed(refusal: Refusal) -> str:
    """Return the sentence of a refusal for where its subject stands beside it."""
    return refusal.message.removeprefix(f"task {refusal.subject!r} ")


def _kind(refusal: Refusal) -> str:
    told = unnamed(refusal)
    if told != refusal.message:
        return f"each {told}"
    return refusal.message.replace(repr(refusal.subject), "…")


def _runs(command: Command, receipt: Receipt) -> list[str]:
    signalled = [end for end in receipt.ends if end.pids]
    others = len(receipt.ends) - len(signalled)
    parts = []
    if signalled:
        at_once = isinstance(command, Kill | KillWorkers) and command.force
        get = "gets" if len(signalled) == 1 else "get"
        number = "SIGKILL" if at_once else "SIGTERM"
        parts.append(f"{plural(len(signalled), 'run')} {get} {number}{_pids(signalled)}")
    if others:
        parts.append(f"{plural(others, 'run')} {'ends' if others == 1 else 'end'}")
    return parts


def _states(command: Command, receipt: Receipt) -> list[str]:
    done, held = len(receipt.done), len(receipt.ends)
    match command:
        case Cancel() | Kill() | Release() | Purge():
            return [f"{plural(done, 'task')} → {_BECOMES[type(command)]}"]
        case Retry():
            ready = sum(what == _AGAIN for what in receipt.done.values())
            parts = [(ready, State.READY), (done - ready, State.BLOCKED)]
            return [f"{plural(count, 'task')} → {state}" for count, state in parts if count]
        case Stop(drain=True):
            return [f"{plural(done, 'worker')} to stop once the current task is finished"]
        case Stop() | KillWorkers():
            end = "stopped" if isinstance(command, Stop) else "killed"
            tasks = [f"{plural(held, 'task')} → {_BECOMES[type(command)]}"] if held else []
            return [f"{plural(done, 'worker')} {end}", *tasks]
        case Reset():
            return _reset(command, receipt)
    return [sums(receipt)] if receipt.counts else []


def _reset(command: Reset, receipt: Receipt) -> list[str]:
    seeded = {word: n for word, n in receipt.counts.items() if word != _WORKERS}
    late = "it is killed" if command.force else "it stops there and nothing is reset"
    when = f"if one is alive after {command.timeout:g} s, {late}"
    return [
        f"claims are held and all workers stopped ({when})",
        f"then the log is rotated, the DAG seeded ({_sum(seeded)}) and claims go on",
    ]


def _carried(receipt: Receipt) -> list[tuple[str, int]]:
    return [
        (word.removeprefix("tasks "), count)
        for word, count in receipt.counts.items()
        if word.startswith("tasks ") and count
    ]


def _pids(ends: Iterable[EndedRun], whose: str = "") -> str:
    pids = [str(pid) for pid in sorted({pid for end in ends for pid in end.pids})]
    word = "pid" if len(pids) == 1 else "pids"
    return f" ({whose}{word} {listed(pids, PIDS)})" if pids else ""


def _one(word: str) -> str:
    """Return `word` for a count of one: `runs ended` becomes `run ended`."""
    for many in ("runs", "tasks", "workers", "services", "agents"):
        if word.split(" ", 1)[0] == many:
            return many[:-1] + word[len(many) :]
    return word
