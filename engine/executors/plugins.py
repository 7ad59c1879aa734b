"""Executors that other packages bring: entry points of the group `agentmux.executors`.

The name of an entry point is the `payload.kind` that it carries out, its object a class, or a
function without arguments, that gives an Executor. Whatever is wrong with one concerns its tasks
alone: they are BLOCKED with the reason, all others go on.

Entry points: https://packaging.python.org/en/latest/specifications/entry-points/
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from msgspec import structs

from engine.model import Outcome, RunOutcome
from engine.processes.trees import end_tree
from engine.shield import shielded
from engine.text import clean_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from importlib.metadata import EntryPoint

    from engine.executors.base import Executor, RunContext, Site
    from engine.model import ProcessId, TaskDef

log = logging.getLogger(__name__)

GROUP = "agentmux.executors"
IMPORT = 10.0
"""Seconds that all packages together have to be imported; see `_load_all`."""


class Found(NamedTuple):
    """Executors by kind, one for each that is declared, and what is wrong with some in words."""

    executors: dict[str, Executor]
    troubles: tuple[str, ...]


class _Declared(NamedTuple):
    """An entry point, and where it comes from in words."""

    entry: EntryPoint
    origin: str


class _Declarations(NamedTuple):
    """What packages say they bring, by kind; and why not all of that is known."""

    by_kind: dict[str, list[_Declared]]
    trouble: str | None = None


_one_by_one = threading.Lock()
_loaded: dict[str, Executor] = {}


def third_party(taken: Collection[str]) -> dict[str, Executor]:
    """Return the executors of other packages by kind, as `find` does; log what is wrong."""
    found = find(taken)
    for trouble in found.troubles:
        log.warning("%s", trouble)
    return found.executors


def find(taken: Collection[str]) -> Found:
    """Return the executors of other packages by kind, without the kinds that are `taken`.

    They are looked for and imported once in a process. Reads many files and runs what modules do
    when they are imported: not for the event loop. Takes IMPORT seconds at most.
    """
    with _one_by_one:
        declared, trouble = _declared()
        troubles = [trouble] if trouble is not None else []
        for kind in sorted(declared.keys() & taken):
            what, whose = clean_text(kind), _origins(declared[kind])
            troubles.append(f"{what} comes with agentmux: that of {whose} is not used")
        wanted = {kind: entries for kind, entries in declared.items() if kind not in taken}
        new = {kind: entries for kind, entries in wanted.items() if kind not in _loaded}
        _loaded.update(_load_all(new))
        executors = {kind: _loaded[kind] for kind in wanted}
    troubles += [one.error for one in executors.values() if isinstance(one, _Broken)]
    return Found(executors, tuple(troubles))


@cache
def _declared() -> _Declarations:
    if not _any_declared(sys.path):
        return _Declarations({})
    from importlib.metadata import entry_points  # noqa: PLC0415 - see _any_declared

    by_kind: dict[str, list[_Declared]] = {}
    try:
        for entry in entry_points(group=GROUP):
            package = entry.dist.name if entry.dist else "an unknown package"
            origin = clean_text(f"{entry.value} of {package}")
            by_kind.setdefault(entry.name, []).append(_Declared(entry, origin))
    except Exception as error:  # noqa: BLE001 - whatever some package's metadata are made of
        why = clean_text(str(error))
        return _Declarations(by_kind, f"executors of other packages cannot be found: {why}")
    return _Declarations(by_kind)


def _any_declared(folders: Iterable[str]) -> bool:
    """Tell whether any package that is installed in these folders may bring an executor.

    importlib.metadata would tell, too; but to import it and to ask it takes 50 ms among 77
    packages, this 4, and hardly anybody has a package that brings one.
    """
    for folder in folders:
        try:
            with os.scandir(folder or ".") as entries:
                names = [
                    entry.path
                    for entry in entries
                    if entry.name.endswith((".dist-info", ".egg-info"))
                ]
        except OSError:  # a zip file, or not there
            continue
        if any(_declares(name) for name in names):
            return True
    return False


def _declares(metadata: str) -> bool:
    try:
        return GROUP.encode() in Path(metadata, "entry_points.txt").read_bytes()
    except OSError:
        return False


def _load_all(declared: Mapping[str, list[_Declared]]) -> dict[str, Executor]:
    """Import packages side by side, each kind in a thread of its own.

    So one that does not come back holds up neither the others nor, as a daemon, the end of this
    process; it counts as broken.
    """
    loaded: dict[str, Executor] = {}

    def load(kind: str) -> None:
        loaded[kind] = _load(kind, declared[kind])

    threads = [
        threading.Thread(target=load, args=(kind,), name=f"import of {kind}", daemon=True)
        for kind in declared
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + IMPORT
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = f"it was not imported within {IMPORT:g} s"
    through = dict(loaded)  # who comes later comes too late
    return {
        kind: through.get(kind) or _Broken(clean_text(kind), _origins(entries), late)
        for kind, entries in declared.items()
    }


def _load(kind: str, entries: list[_Declared]) -> Executor:
    """Return the executor of one kind; one that refuses its tasks if it cannot be had."""
    kind, origin = clean_text(kind), _origins(entries)
    try:
        if len(entries) > 1:
            return _Broken(kind, origin, "only one package may bring a kind")
        made = entries[0].entry.load()()
        if not callable(getattr(made, "run", None)):
            return _Broken(kind, origin, f"{type(made).__name__} has no method run")
        return _Guest(kind, made)
    except BaseException as error:  # noqa: BLE001 - somebody else's code: even sys.exit
        return _Broken(kind, origin, f"{type(error).__name__}: {error}")


def _origins(entries: list[_Declared]) -> str:
    return " and ".join(sorted(one.origin for one in entries))


class _Broken:
    """Stands for an executor that cannot be had."""

    prepares = False

    def __init__(self, kind: str, origin: str, why: str) -> None:
        self.error = f"the executor of kind '{kind}' cannot be loaded ({origin}): {clean_text(why)}"
        self._refusal = (
            f"{self.error}; mend or remove the package, restart the workers, retry the task"
        )

    async def preflight(self, tasks: Sequence[TaskDef], _site: Site) -> Mapping[str, str]:
        """Refuse the tasks."""
        return dict.fromkeys((task.id for task in tasks), self._refusal)

    async def run(self, _context: RunContext) -> Outcome:
        """Refuse the task."""
        return Outcome(RunOutcome.BLOCKED, error=self._refusal)


class _Guest:
    """Holds an executor of another package to the contract that the worker relies on."""

    def __init__(self, kind: str, executor: Executor) -> None:
        self.prepares = bool(getattr(executor, "prepares", False))
        self._kind = kind
        self._executor = executor

    async def run(self, context: RunContext) -> Outcome:
        """Run it, then end what it left running."""
        roots: set[ProcessId] = set()
        forked = begun = False

        def starting() -> None:
            nonlocal forked
            forked = True
            context.starting()

        async def started(process: ProcessId) -> None:
            roots.add(process)
            await context.started(process)

        async def begin() -> None:
            nonlocal begun
            if not begun:
                begun = True
                await context.begin()

        async def end() -> None:
            if forked:
                claim, grace = context.claim, context.config.grace
                await end_tree(claim.run_id, context.state_dir, roots, grace=grace)

        watched = structs.replace(context, starting=starting, started=started, begin=begin)
        try:
            outcome = await self._outcome(watched)
            if self.prepares and outcome.kind is RunOutcome.DONE:
                await begin()  # it forgot to; what was never RUNNING cannot be DONE
        except BaseException:
            await shielded(end())
            raise
        # It is through: a stop that comes now must not lose its result.
        await shielded(end(), reraise=False)
        return outcome

    async def _outcome(self, context: RunContext) -> Outcome:
        try:
            outcome: object = await self._executor.run(context)
        except SystemExit as exit_:  # it would end the whole process
            return self._failed(f"it called exit({exit_.code!r})")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return self._failed("something in it was cancelled, but nobody had asked for that")
        if not isinstance(outcome, Outcome):
            return self._failed(f"it returned {type(outcome).__name__}, not Outcome")
        if outcome.error is None:
            return outcome
        return structs.replace(outcome, error=clean_text(outcome.error))

    def _failed(self, why: str) -> Outcome:
        error = clean_text(f"internal error of the executor of kind '{self._kind}': {why}")
        return Outcome(RunOutcome.FAILED, error=error)
