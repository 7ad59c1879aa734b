"""The executor that runs one program, without a shell: argv, a folder, variables, an exit code.

What may run is the operator's word (agentmux.yaml), never the DAG's. Knows nothing of timeouts:
whoever wants the run to end cancels it.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shlex
import shutil
import signal
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.files import write_private
from engine.model import Outcome, RunOutcome
from engine.processes.signalling import seems_alive
from engine.processes.trees import TAG_NAMES, Child, end_tree, environment, spawn
from engine.shield import shielded
from engine.text import clean_text

if TYPE_CHECKING:
    from pathlib import Path

    from engine.executors.base import RunContext

_TAIL_LINES = 20
_TAIL_BYTES = 4096
_LOADER = ("LD_", "DYLD_", "GCONV_", "GIT_CONFIG")
_BARRED = frozenset(
    {
        "PATH", "ENV", "BASH_ENV", "SHELLOPTS", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP",
        "PERL5LIB", "PERL5OPT", "RUBYLIB", "RUBYOPT", "NODE_OPTIONS", "NODE_PATH", "PAGER",
        "JAVA_TOOL_OPTIONS", "GIT_EXEC_PATH", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_EXTERNAL_DIFF",
        "GIT_PAGER", "EDITOR",
    }
)  # fmt: skip
"""Variables by which an allowed program runs what is not allowed: the DAG may not set them."""
_HOPELESS = frozenset({errno.EACCES, errno.ENOENT, errno.ENOEXEC, errno.ENOTDIR, errno.E2BIG})
"""Faults of the program itself or its arguments: the next attempt would meet them again."""


class _Refused(Exception):  # noqa: N818 - never leaves this module; becomes Outcome BLOCKED
    """The payload cannot be carried out, however often it is tried."""


class _Order(Struct, frozen=True):
    """What a payload asks for, checked: `program` is the path of an allowed program."""

    program: str
    arguments: tuple[str, ...]
    cwd: Path
    variables: Mapping[str, str]


class ShellExecutor:
    """Runs `cmd` or `argv` in `cwd` with `env`; exit code 0 is DONE, any other FAILED.

    The output goes to stdout.log and stderr.log of the run's folder, the result to result.json.
    """

    prepares = False

    async def run(self, context: RunContext) -> Outcome:
        """Run the program to its end, then end what it left behind.

        Raises:
            TreeSurvived: a process of the run cannot be killed.
            StorageError: the run's processes cannot be looked at.

        """
        try:
            order = _order(context)
        except _Refused as refusal:
            return Outcome(RunOutcome.BLOCKED, error=str(refusal))
        folder = context.artifacts
        begun = context.clock.monotonic()
        try:
            _make_private(folder)
            child = _start(context, order)
        except _Refused as refusal:
            return Outcome(RunOutcome.BLOCKED, error=str(refusal))
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            return Outcome(RunOutcome.FAILED, error=f"cannot start: {where}{error.strerror}")
        code = await _finish(context, child)
        took = round((context.clock.monotonic() - begun) * 1000)
        # Once the leader is through, a stop must not lose its result.
        return await shielded(asyncio.to_thread(_report, folder, code, took), reraise=False)


def _start(context: RunContext, order: _Order) -> Child:
    context.starting()
    try:
        return spawn(
            (order.program, *order.arguments),
            cwd=order.cwd,
            env=environment({**os.environ, **order.variables}, context.claim, context.state_dir),
            stdout=context.artifacts / "stdout.log",
            stderr=context.artifacts / "stderr.log",
        )
    except ValueError as error:  # NUL, or text that no encoding can express
        raise _Refused(f"payload: cannot be given to a program: {error}") from error
    except OSError as error:
        if error.errno in _HOPELESS:
            what = error.filename or order.program
            raise _Refused(f"cannot start: {clean_text(str(what))}: {error.strerror}") from error
        raise


async def _finish(context: RunContext, child: Child) -> int:
    """Wait for the leader, end its tree in any case, and return the exit code."""
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


def _order(context: RunContext) -> _Order:
    payload = context.claim.task.payload
    word, *arguments = _argv(payload)
    return _Order(
        _program(word, context.config.shell.allow, context.project),
        tuple(arguments),
        _folder(payload, context.project),
        _variables(payload.get("env")),
    )


def _argv(payload: Mapping[str, Any]) -> list[str]:
    cmd, argv = payload.get("cmd"), payload.get("argv")
    if (cmd is None) == (argv is None):
        raise _Refused("payload: give either cmd or argv")
    if argv is not None:
        if not isinstance(argv, list | tuple) or not argv:
            raise _Refused("payload.argv: must be a list of a program and its arguments")
        words = [_word(item, f"payload.argv[{index}]") for index, item in enumerate(argv)]
    elif isinstance(cmd, str):
        try:
            words = shlex.split(cmd)
        except ValueError as error:
            raise _Refused(f"payload.cmd: {str(error).lower()} in {clean_text(cmd)!r}") from error
    else:
        raise _Refused("payload.cmd: must be a string")
    if not words or not words[0]:
        raise _Refused("payload: names no program")
    return words


def _program(word: str, allow: tuple[str, ...], project: Path) -> str:
    """Return the path of an allowed program; a word with a slash must be on the list as it is."""
    shown = clean_text(word)
    if word not in allow:
        raise _Refused(
            f"'{shown}' is not on the allow-list; add it under shell: allow: in agentmux.yaml, "
            "then retry the task"
        )
    if "/" in word:
        # Relative to the project, as the settings are; never to the payload's folder.
        found = shutil.which(project / word)
    else:
        # Neither the working folder nor the payload's own PATH decides what a name stands for.
        folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
        path = os.pathsep.join(folder for folder in folders if folder.startswith("/"))
        found = shutil.which(word, path=path)
    if found is None:
        raise _Refused(
            f"'{shown}' was not found on this machine; install it or mend PATH, then retry the task"
        )
    return str(found)


def _folder(payload: Mapping[str, Any], project: Path) -> Path:
    given = {key: payload[key] for key in ("cwd", "repoPath") if payload.get(key) is not None}
    if len(given) == 2:
        raise _Refused("payload: cwd and repoPath mean the same; give one of them")
    for key, value in given.items():
        if not isinstance(value, str) or not value or "\0" in value:
            raise _Refused(f"payload.{key}: must be the path of a folder")
        folder = project / value
        if not folder.is_dir():
            raise _Refused(f"payload.{key}: {clean_text(str(folder))} is not a folder")
        return folder
    return project


def _variables(env: object) -> dict[str, str]:
    if env is None:
        return {}
    if not isinstance(env, Mapping):
        raise _Refused("payload.env: must be a mapping of names to values")
    variables = {}
    for name, value in env.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise _Refused(f"payload.env: {name!r} cannot be the name of a variable")
        if name in TAG_NAMES or name in _BARRED or name.startswith(_LOADER):
            raise _Refused(f"payload.env: {name} may not be set by a task")
        variables[name] = _word(value, f"payload.env.{name}")
    return variables


def _word(value: object, where: str) -> str:
    """Return a string, or a number as its digits, as a program can take it."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _Refused(f"{clean_text(where)}: must be a string, not {value!r}")
    if "\0" in (word := str(value)):
        raise _Refused(f"{clean_text(where)}: contains a NUL character")
    return word


def _make_private(folder: Path) -> None:
    """Make a folder and all that is missing above it, each 0700."""
    missing = [folder]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)


def _report(folder: Path, code: int, took: int) -> Outcome:
    errors = _tail(folder / "stderr.log")
    result: dict[str, Any] = {
        "exitCode": code,
        "durationMs": took,
        "stdout": _tail(folder / "stdout.log"),
        "stderr": errors,
    }
    try:
        write_private(folder / "result.json", json.dumps(result, ensure_ascii=False) + "\n")
    except OSError as error:  # the work is done: its result goes to the store in any case
        result["note"] = f"result.json could not be written: {error.strerror}"
    if code == 0:
        return Outcome(RunOutcome.DONE, result=result, exit_code=code)
    last = next((line for line in reversed(errors.split("\n")) if line.strip()), "")
    how = _ending(code)
    return Outcome(
        RunOutcome.FAILED,
        result=result,
        error=f"{how}: {last.strip()}" if last else how,
        exit_code=code,
    )


def _ending(code: int) -> str:
    """Say how a program ended that did not succeed."""
    if code > 0:
        return f"exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


def _tail(path: Path) -> str:
    """Return the last lines of a log as safe text: at most 20, from its last 4 KiB."""
    try:
        with open(path, "rb", opener=_unblocked) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            block = file.read(_TAIL_BYTES)
    except OSError as error:  # the program has removed it, or put something else there
        return f"({path.name} cannot be read: {error.strerror or error})"
    lines = block.rstrip(b"\n").split(b"\n")
    if size > _TAIL_BYTES and len(lines) > 1:
        del lines[0]  # its beginning lies before the block
    text = [clean_text(line.decode(errors="replace")) for line in lines[-_TAIL_LINES:]]
    return "\n".join(text).rstrip()


def _unblocked(path: str, flags: int) -> int:
    """Open without following a link or waiting for a pipe's other end."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)
