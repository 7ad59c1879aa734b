"""How a run's processes are started, told apart, found and ended (DESIGN §4 rules 2, 4 and 5).

A process is a pid *and* its start; a pid alone means nothing here. A run's tree is found by what
cannot be shaken off all at once: the leader's session, descent, and the tag that every child
inherits in its environment. Knows no task, no store and no executor; nothing is looked up by
name, and nobody is reaped but by its own pid.

Ends of processes are waited for in real time: a `Clock` moved by hand cannot move them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING

from engine.errors import AgentmuxError, Code, LeaseConflict, StorageError
from engine.files import open_regular
from engine.model import ProcessId
from engine.processes.census import RUN_ID, STATE_DIR, is_within, tree_of
from engine.processes.halting import stop_trees
from engine.processes.proctable import look_at, spared_pids
from engine.processes.signalling import is_alive, kill_groups, open_pidfd, send
from engine.shield import shielded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from engine.model import Claim

    OnSignal = Callable[[signal.Signals, set[ProcessId]], None]

TASK_ID = "AGENTMUX_TASK_ID"
WORKER_ID = "AGENTMUX_WORKER_ID"
ATTEMPT = "AGENTMUX_ATTEMPT"
TAG_NAMES = frozenset({RUN_ID, STATE_DIR, TASK_ID, WORKER_ID, ATTEMPT})
"""The variables that agentmux sets for every process of a run; RUN_ID and STATE_DIR are the tag."""

_POLL = 0.02
_UNKILLABLE = 5.0
"""Seconds that SIGKILL gets; what is left then hangs in the kernel or is not ours to signal."""


class TreeSurvived(AgentmuxError):  # noqa: N818 - the name is the sentence, as in engine.errors
    """Processes of a run are still alive after SIGKILL; the run must not count as stopped."""

    code = Code.IO_ERROR

    def __init__(self, run_id: str, survivors: Iterable[ProcessId]) -> None:
        self.run_id = run_id
        self.survivors = frozenset(survivors)
        pids = ", ".join(str(process.pid) for process in sorted(self.survivors, key=_by_pid))
        super().__init__(
            f"run {run_id}: processes survived SIGKILL: {pids}; they hang in the kernel, "
            "belong to another user or fork without end: end them by hand"
        )


class Child:
    """A leader that this process has started.

    Until `reap` its pid cannot be given to anybody else, even when it has ended: whoever ends
    its tree does so first, and its session is its own beyond doubt.
    """

    def __init__(self, popen: subprocess.Popen[bytes], identity: ProcessId) -> None:
        self._popen = popen
        self.identity = identity

    async def ended(self) -> None:
        """Return once the leader has ended, whatever else of its tree lives on."""
        await gone(self.identity)

    def reap(self) -> int | None:
        """Return the exit code (negative: the signal that ended it), None if it still lives."""
        return self._popen.poll()


def environment(base: Mapping[str, str], claim: Claim, state_dir: Path) -> dict[str, str]:
    """Return `base` with the run's tag in it; nothing in `base` can replace the tag."""
    tag = {
        RUN_ID: claim.run_id,
        STATE_DIR: str(state_dir.resolve()),
        TASK_ID: claim.task.id,
        WORKER_ID: claim.worker_id,
        ATTEMPT: str(claim.attempt),
    }
    return tag | {name: value for name, value in base.items() if name not in tag}


def spawn(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdout: Path | int,
    stderr: Path | int,
    stdin: Path | int | None = None,
) -> Child:
    """Start a leader in a session of its own, its output appended to files (0600).

    Its input is the file `stdin`, else nothing. There is no `await` between the fork and the
    return: a cancellation cannot lose the child. The output is no pipe, for waiting on one hangs
    as long as any heir keeps it open; nor is the input, for nobody would be there to fill it. Who
    must speak with the program gives open files instead, and takes the end of the leader for
    the end of what it says.

    Raises:
        OSError: the program or a file cannot be opened; nothing was started.
        ValueError: an argument or a variable cannot be given to a program.
        StorageError: its identity cannot be read; it was killed.

    """
    with _reading(stdin) as source, _appending(stdout) as out, _appending(stderr) as err:
        popen = subprocess.Popen(  # noqa: S603 - what may run is the executor's decision
            list(argv),
            cwd=cwd,
            env=dict(env),
            stdin=source,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    try:
        look = look_at(popen.pid)
    except BaseException:
        popen.kill()
        popen.wait()
        raise
    assert look is not None, "a child is there until it is reaped"
    return Child(popen, ProcessId(popen.pid, look.started))


async def gone(process: ProcessId) -> None:
    """Return once this process has ended; a zombie has. At once if it already has.

    Raises:
        StorageError: it cannot be known.

    """
    pidfd = open_pidfd(process.pid)
    if pidfd is None:
        while is_alive(process):  # noqa: ASYNC110 - without pidfds there is no event to wait for
            await asyncio.sleep(_POLL)
        return
    loop = asyncio.get_running_loop()
    try:
        if not is_alive(process):
            return
        ended: asyncio.Future[None] = loop.create_future()
        loop.add_reader(pidfd, _mark, ended)
        try:
            await ended
        finally:
            loop.remove_reader(pidfd)
    finally:
        os.close(pidfd)


def _mark(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


async def end_tree(
    run_id: str,
    state_dir: Path,
    roots: Iterable[ProcessId],
    *,
    grace: float,
    on_signal: OnSignal = lambda _number, _members: None,
) -> None:
    """End all processes of a run: SIGTERM, `grace` seconds, SIGKILL, until none is left.

    With a grace of 0 SIGKILL comes at once. Every look is a fresh one, for members may fork
    meanwhile. This cannot be cut short, from its first step on: a cancellation is raised once the
    tree is gone.
    `on_signal` is told of each signal and who got it.

    Raises:
        TreeSurvived: somebody is alive 5 s after the first SIGKILL.
        LeaseConflict: this process is part of that tree; nobody was ended.
        StorageError: /proc cannot be read; the tree may be alive.

    """
    # A run is cancelled by whoever hears first that it lost its task, and it may end its tree
    # already because it was told so: were that given up, the task would count as free.
    await shielded(_end_tree(run_id, state_dir, set(roots), grace, on_signal))


async def _end_tree(
    run_id: str, state_dir: Path, known: set[ProcessId], grace: float, on_signal: OnSignal
) -> None:
    if await asyncio.to_thread(is_within, run_id, state_dir, known):
        raise LeaseConflict(
            f"this process is part of run {run_id}, so it cannot end it; its host does, or say it "
            "again from outside the task"
        )
    loop = asyncio.get_running_loop()
    kill_at = loop.time() + grace
    told: set[ProcessId] = set()
    kill = False
    while True:
        if loop.time() >= kill_at and not kill:
            kill = True
            on_signal(signal.SIGKILL, told or known)
        try:
            members = await asyncio.to_thread(_strike, run_id, state_dir, known, told, kill=kill)
        except StorageError:
            # Out of file handles, most likely: that passes, and a tree must not live for it.
            if loop.time() >= kill_at + _UNKILLABLE:
                raise
            await asyncio.sleep(_POLL)
            continue
        if not members:
            return
        if loop.time() >= kill_at + _UNKILLABLE:
            raise TreeSurvived(run_id, members)
        if not kill and (new := members - told):
            on_signal(signal.SIGTERM, new)
        known |= members
        told |= members
        until = loop.time() + _UNKILLABLE / 10 if kill else kill_at
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                for member in members:
                    await gone(member)


async def end_process(process: ProcessId, *, grace: float) -> None:
    """End one process: SIGTERM, `grace` seconds, SIGKILL. Never this one or an ancestor of it.

    Raises:
        LeaseConflict: it is alive 5 s after SIGKILL, or it is one of ours.
        StorageError: it cannot be known whether it lives.

    """
    if is_ours(process):
        raise LeaseConflict(f"process {process.pid} is this one or one that started it")
    for number, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, _UNKILLABLE)):
        if number is signal.SIGTERM and not grace:
            continue
        send(process, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await gone(process)
            return
    raise LeaseConflict(
        f"process {process.pid} survived SIGKILL; it hangs in the kernel or is another user's"
    )


def is_ours(process: ProcessId) -> bool:
    """Tell whether a process is this one or an ancestor of it: those are never ended."""
    return process.pid in spared_pids()


def _strike(
    run_id: str, state_dir: Path, known: set[ProcessId], told: set[ProcessId], *, kill: bool
) -> set[ProcessId]:
    """Look once, and signal: SIGKILL to all, or SIGTERM to whom it was not yet sent."""
    if kill:
        with contextlib.suppress(StorageError):  # who forks too fast to be seen is killed below
            known |= stop_trees(state_dir, {run_id: known})[run_id]
        kill_groups(known)
    members = tree_of(run_id, state_dir, known)
    for member in members if kill else members - told:
        send(member, signal.SIGKILL if kill else signal.SIGTERM)
    return members


@contextlib.contextmanager
def _reading(path: Path | int | None) -> Iterator[int]:
    if path is None:
        yield subprocess.DEVNULL
    elif isinstance(path, int):
        yield path
    else:
        with open_regular(path) as file:
            yield file.fileno()


@contextlib.contextmanager
def _appending(path: Path | int) -> Iterator[int]:
    if isinstance(path, int):
        yield path
        return
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def _by_pid(process: ProcessId) -> int:
    return process.pid
