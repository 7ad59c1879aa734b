"""What any executor needs that runs a program: a private folder, a start, an end, a look at a log.

    try:
        make_private(context.artifacts)
        child = start(context, Program(argv, cwd, env), stdout=out, stderr=err)
    except Refused as refusal:
        return Outcome(RunOutcome.BLOCKED, error=str(refusal))
    code = await finish(context, child)

Nothing may be awaited between `start` and `finish`: a cancellation there would lose the child.
It knows no payload and no allow-list; what may run is its caller's decision.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from engine.processes.signalling import seems_alive
from engine.processes.trees import Child, end_tree, environment, spawn
from engine.secrets import masks, redact
from engine.shield import shielded
from engine.text import clean_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from engine.executors.base import RunContext

ALWAYS_PASSED = ("PATH", "HOME", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR")
"""What a program inherits whatever `env_pass` says: without these hardly any of them works."""

_TAIL_LINES = 20
_TAIL_BYTES = 4096
_LONGEST_SECRET = 65_536
_HOPELESS = frozenset({errno.EACCES, errno.ENOENT, errno.ENOEXEC, errno.ENOTDIR, errno.E2BIG})
"""Faults of the program itself or its arguments: the next attempt would meet them again."""


class Refused(Exception):  # noqa: N818 - never leaves the executors; becomes Outcome BLOCKED
    """The task cannot be carried out, however often it is tried; the text says what to do."""


class Program(Struct, frozen=True):
    """What to start: `argv[0]` is an absolute path; `env` is all that it gets beside the tag."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]


def inherited(env_pass: Iterable[str] | None, base: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of `base` that a program inherits: all if `env_pass` is None.

    Else those that it names and ALWAYS_PASSED. A name may hold `*`: `LC_*`.
    """
    if env_pass is None:
        return dict(base)
    wanted = (*ALWAYS_PASSED, *env_pass)
    return {
        name: value
        for name, value in base.items()
        if any(fnmatchcase(name, pattern) for pattern in wanted)
    }


def find_program(word: str, project: Path, path: str) -> str | None:
    """Return the path of a program, None if there is none that can be started.

    A word with a slash counts from the project. A name is looked for in the folders of `path`, but
    not in those that depend on the folder one stands in.
    """
    if "/" in word:
        return shutil.which(str(project / word))
    folders = (path or os.defpath).split(os.pathsep)
    return shutil.which(word, path=os.pathsep.join(f for f in folders if f.startswith("/")))


def make_private(folder: Path) -> None:
    """Make a folder and all that is missing above it, each 0700.

    Raises:
        OSError: as the file system has it.

    """
    missing = [folder]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)


def start(
    context: RunContext,
    program: Program,
    *,
    stdout: Path | int,
    stderr: Path,
    stdin: Path | int | None = None,
) -> Child:
    """Start a program as the leader of this run, tagged as one. See `spawn`.

    Raises:
        Refused: neither would it start the next time.
        OSError: it cannot be started now; nothing was.
        StorageError: its identity cannot be read; it was killed.

    """
    context.starting()
    try:
        return spawn(
            program.argv,
            cwd=program.cwd,
            env=environment(program.env, context.claim, context.state_dir),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
    except ValueError as error:  # NUL, or text that no encoding can express
        raise Refused(f"payload: cannot be given to a program: {error}") from error
    except OSError as error:
        if error.errno in _HOPELESS:
            what = error.filename or program.argv[0]
            raise Refused(
                f"cannot start: {clean_text(str(what))}: {error.strerror}; mend that, then retry "
                "the task"
            ) from error
        raise


async def finish(context: RunContext, child: Child) -> int:
    """Wait for the leader, end its tree in any case, and return the exit code (see `ending`).

    A cancellation ends the tree, too, and passes; unless the leader had ended by itself: then its
    exit code is returned all the same, for a stop must not lose a result.

    Raises:
        TreeSurvived: a process of the run cannot be killed.
        StorageError: the run's processes cannot be looked at.
        LeaseLost: the run lost its task before its leader could be recorded.

    """
    claim, grace = context.claim, context.config.grace
    end = partial(end_tree, claim.run_id, context.state_dir, (child.identity,), grace=grace)
    code: int | None = None
    try:
        try:
            await context.started(child.identity)
            await child.ended()
        except BaseException as error:
            # A leader that has ended by now did so by itself: the stop came a moment too late.
            if not isinstance(error, asyncio.CancelledError) or seems_alive(child.identity):
                await end()
                raise
        await shielded(end(), reraise=False)
    finally:
        # Last, so that nobody else could get the leader's pid before its tree was gone.
        code = child.reap()
    assert code is not None, "the leader has ended, for end_tree came back"
    return code


def ending(code: int) -> str:
    """Say how a program ended: `exit code 3`, `ended by SIGTERM` (a negative code is a signal)."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


def tail(path: Path, variables: Mapping[str, str] | None = None) -> str:
    """Return the last lines of a log as safe text: at most 20, from its last 4 KiB.

    The values of those `variables` whose names are a secret's are replaced by the names. Reads a
    file: not for the event loop.
    """
    margin = _margin(variables or {})
    try:
        with open(path, "rb", opener=_unblocked) as file:
            size = file.seek(0, os.SEEK_END)
            cut = size > margin + _TAIL_BYTES
            file.seek(max(0, size - margin - _TAIL_BYTES))
            block = file.read(margin + _TAIL_BYTES)
    except OSError as error:  # the program has removed it, or put something else there
        return f"({path.name} cannot be read: {error.strerror or error})"
    if margin:
        text = block.decode(errors="surrogateescape")
        block = redact(text, variables or {}).encode(errors="surrogateescape")
    # The margin is for secrets that the block begins in the middle of: it is not shown itself.
    first = max(margin if cut else 0, len(block) - _TAIL_BYTES)
    lines = block[first:].rstrip(b"\n").split(b"\n")
    if (cut or first) and len(lines) > 1:
        del lines[0]  # its beginning lies before the block
    shown = [clean_text(line.decode(errors="replace")) for line in lines[-_TAIL_LINES:]]
    return redact("\n".join(shown).rstrip(), variables or {})


def _margin(variables: Mapping[str, str]) -> int:
    """Return how many bytes the longest secret may take, 0 if there is none."""
    longest = max((len(secret) for secret, _ in masks(variables)), default=0)
    return min(longest, _LONGEST_SECRET)


def _unblocked(path: str, flags: int) -> int:
    """Open without following a link or waiting for a pipe's other end."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)
