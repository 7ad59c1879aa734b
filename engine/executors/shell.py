"""The executor that runs one program, without a shell: argv, a folder, variables, an exit code.

What may run, and which variables it inherits, is the operator's word (agentmux.yaml), never the
DAG's. Knows nothing of timeouts: whoever wants the run to end cancels it.

What is wrong with a task that no run of it could get past is told beforehand: see `preflight`.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from engine.executors.base import Site
from engine.executors.capping import Caps
from engine.executors.programs import (
    Program,
    Refused,
    ending,
    find_program,
    finish,
    inherited,
    make_private,
    start,
    tail,
)
from engine.files import write_private
from engine.model import Outcome, RunOutcome
from engine.parsing.checks import show
from engine.parsing.payloads import why_not_set
from engine.parsing.prompts import Unfilled, fill_folder, has_holes
from engine.shield import shielded
from engine.text import clean_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.executors.base import RunContext
    from engine.model import TaskDef


_OPERATORS = frozenset(";&|<>")


class _Order(Struct, frozen=True):
    """What a payload asks for, checked: an allowed program, and the exit codes that are DONE."""

    program: Program
    ok_codes: frozenset[int]


class _End(Struct, frozen=True):
    """How a program ended: its exit code, after how many ms, and the bytes that its logs lack."""

    code: int
    took: int
    left_out: Mapping[str, int]


class ShellExecutor:
    """Runs `cmd` or `argv` in `cwd` with `env`; exit codes of `ok_codes` ([0]) are DONE.

    The output goes to stdout.log and stderr.log of the run's folder, the result to result.json.
    """

    prepares = False

    async def preflight(self, tasks: Sequence[TaskDef], site: Site) -> Mapping[str, str]:
        """Look at what no task before them can change: programs, variables, where they may run."""
        return await asyncio.to_thread(_find_unfit, tasks, site)

    async def run(self, context: RunContext) -> Outcome:
        """Run the program to its end, then end what it left behind.

        Raises:
            TreeSurvived: a process of the run cannot be killed.
            StorageError: the run's processes cannot be looked at.

        """
        folder = context.artifacts
        out, err = folder / "stdout.log", folder / "stderr.log"
        begun = context.clock.monotonic()
        async with AsyncExitStack() as stack:
            try:
                order = await _order(context)
                make_private(folder)
                secrets = {**os.environ, **order.program.env}
                caps = Caps(context.config.shell.max_output, out, err, secrets=secrets)
                await stack.enter_async_context(caps)
                child = start(context, order.program, stdout=out, stderr=err)
            except Refused as refusal:
                return Outcome(RunOutcome.BLOCKED, error=str(refusal))
            except OSError as error:
                where = f"{error.filename}: " if error.filename else ""
                return Outcome(RunOutcome.FAILED, error=f"cannot start: {where}{error.strerror}")
            code = await finish(context, child)
        took = round((context.clock.monotonic() - begun) * 1000)
        end = _End(code, took, caps.left_out)
        # Once the leader is through, a stop must not lose its result.
        report = asyncio.to_thread(_report, folder, order, end, secrets)
        return await shielded(report, reraise=False)


async def _order(context: RunContext) -> _Order:
    payload, settings = context.claim.task.payload, context.config.shell
    site = Site(context.layout, context.project, context.config)
    word, *arguments = _argv(payload)
    program = _program(word, site)
    env = inherited(settings.env_pass, os.environ) | _variables(payload.get("env"))
    field, folder = _named_folder(payload)
    if has_holes(folder):
        folder = _filled(field, folder, await context.results())
    return _Order(
        Program((program, *arguments), _folder(field, folder, site), env),
        _ok_codes(payload.get("ok_codes")),
    )


def _find_unfit(tasks: Sequence[TaskDef], site: Site) -> dict[str, str]:
    """Return why tasks cannot be carried out, by id; what tasks share is looked for once."""
    unfit: dict[str, str] = {}

    @cache
    def why_not(check: Callable[..., object], *words: str) -> str | None:
        try:
            check(*words, site)
        except Refused as refusal:
            return str(refusal)
        return None

    for task in tasks:
        try:
            word = _argv(task.payload)[0]
            _variables(task.payload.get("env"))
            _ok_codes(task.payload.get("ok_codes"))
            field, folder = _named_folder(task.payload)
        except Refused as refusal:
            unfit[task.id] = str(refusal)
            continue
        # Another task may still make what is not there yet: a program, a folder.
        why = why_not(_allow if task.deps else _program, word)
        if why is None and not has_holes(folder):
            why = why_not(_place, field, folder)
        if why is not None:
            unfit[task.id] = why
    return unfit


def _argv(payload: Mapping[str, Any]) -> list[str]:
    cmd, argv = payload.get("cmd"), payload.get("argv")
    if (cmd is None) == (argv is None):
        raise Refused("payload: give either cmd or argv")
    if argv is not None:
        if not isinstance(argv, list | tuple) or not argv:
            raise Refused("payload.argv: must be a list of a program and its arguments")
        words = [_word(item, f"payload.argv[{index}]") for index, item in enumerate(argv)]
    elif isinstance(cmd, str):
        try:
            words = shlex.split(cmd)
        except ValueError as error:
            why = f"{str(error).lower()} in {show(clean_text(cmd))}"
            raise Refused(f"payload.cmd: {why}") from error
    else:
        raise Refused("payload.cmd: must be a string")
    if not words or not words[0]:
        raise Refused("payload: names no program")
    return words


def _allow(word: str, site: Site) -> None:
    """Refuse a word that is not on the list; one with a slash must be there as it is."""
    if word in site.config.shell.allow:
        return
    if _OPERATORS.intersection(word):
        raise Refused(
            f"'{clean_text(word)}' is no program: a task runs one, and no shell; mend the DAG and "
            "seed it, then retry the task"
        )
    raise Refused(
        f"'{clean_text(word)}' is not on the allow-list; add it under shell: allow: in "
        "agentmux.yaml, then retry the task"
    )


def _program(word: str, site: Site) -> str:
    """Return the path of an allowed program."""
    _allow(word, site)
    # Neither the working folder nor the payload's own PATH decides what a name stands for.
    found = find_program(word, site.project, os.environ.get("PATH", ""))
    if found is None:
        raise Refused(
            f"'{clean_text(word)}' was not found on this machine; install it or mend PATH, then "
            "retry the task"
        )
    return found


def _named_folder(payload: Mapping[str, Any]) -> tuple[str, str]:
    """Return the field that names where to run, and what it says; `.` if none does."""
    given = [key for key in ("cwd", "repoPath") if payload.get(key) is not None]
    if not given:
        return "cwd", "."
    if len(given) == 2:
        raise Refused("payload: cwd and repoPath mean the same; give one of them")
    (field,) = given
    folder = payload[field]
    if not isinstance(folder, str) or not folder or "\0" in folder:
        raise Refused(f"payload.{field}: must be the path of a folder")
    return field, folder


def _filled(field: str, folder: str, results: Mapping[str, Mapping[str, Any] | None]) -> str:
    try:
        filled = fill_folder(folder, results)
    except Unfilled as hole:
        raise Refused(
            f"payload.{field}: {clean_text(str(hole))}; mend the DAG and seed it, then retry the "
            "task"
        ) from hole
    if "\0" in filled:
        raise Refused(f"payload.{field}: {show(clean_text(filled))} is no path of a folder")
    return filled.encode(errors="replace").decode()  # halves of characters that JSON can hold


def _folder(field: str, folder: str, site: Site) -> Path:
    """Return where to run: a folder that is there, inside the project or the worktrees."""
    path = _place(field, folder, site)
    # Not the method of Path: that fails at a name that is too long, or a folder that is closed.
    if not os.path.isdir(path):  # noqa: PTH112
        raise Refused(
            f"payload.{field}: {clean_text(str(path))} is not a folder; make it or mend the DAG, "
            "then retry the task"
        )
    return path


def _place(field: str, folder: str, site: Site) -> Path:
    """Return the path of a folder, whatever links lead there, and refuse what lies elsewhere."""
    if folder == ".":
        return site.project
    from engine.workspaces.records import place_of  # noqa: PLC0415 - most tasks start without

    # This cannot fail at a link or a name, as the method of Path can.
    path = Path(os.path.realpath(site.project / folder))
    project = site.project.resolve()
    worktrees = place_of(site.layout, project, site.config.worktrees).root
    if not any(path.is_relative_to(root) for root in (project, worktrees)):
        raise Refused(
            f"payload.{field}: {clean_text(str(path))} lies outside the project ({project}) and "
            f"the worktrees ({worktrees}); choose a folder inside"
        )
    return path


def _ok_codes(codes: object) -> frozenset[int]:
    if codes is None:
        return frozenset({0})
    if (
        not isinstance(codes, list | tuple)
        or not codes
        or not all(type(code) is int and 0 <= code <= 255 for code in codes)
    ):
        raise Refused("payload.ok_codes: must be a list of exit codes, each from 0 to 255")
    return frozenset(codes)


def _variables(env: object) -> dict[str, str]:
    if env is None:
        return {}
    if not isinstance(env, Mapping):
        raise Refused("payload.env: must be a mapping of names to values")
    variables = {}
    for name, value in env.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise Refused(f"payload.env: {show(name)} cannot be the name of a variable")
        if why := why_not_set(name):
            raise Refused(f"payload.env.{clean_text(name)}: {why}")
        variables[name] = _word(value, f"payload.env.{name}")
    return variables


def _word(value: object, where: str) -> str:
    """Return a string, or a number as its digits, as a program can take it."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Refused(f"{clean_text(where)}: must be a string, not {show(value)}")
    if "\0" in (word := str(value)):
        raise Refused(f"{clean_text(where)}: contains a NUL character")
    return word


def _report(folder: Path, order: _Order, end: _End, secrets: Mapping[str, str]) -> Outcome:
    errors = tail(folder / "stderr.log", secrets)
    result: dict[str, Any] = {
        "exitCode": end.code,
        "durationMs": end.took,
        "stdout": tail(folder / "stdout.log", secrets),
        "stderr": errors,
    }
    if end.left_out:
        result["truncated"] = end.left_out
    try:
        write_private(folder / "result.json", json.dumps(result, ensure_ascii=False) + "\n")
    except OSError as error:  # the work is done: its result goes to the store in any case
        result["note"] = f"result.json could not be written: {error.strerror}"
    if end.code in order.ok_codes:
        return Outcome(RunOutcome.DONE, result=result, exit_code=end.code)
    last = next((line for line in reversed(errors.split("\n")) if line.strip()), "")
    how = ending(end.code)
    return Outcome(
        RunOutcome.FAILED,
        result=result,
        error=f"{how}: {last.strip()}" if last else how,
        exit_code=end.code,
    )
