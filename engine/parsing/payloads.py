"""What the payload of a task may hold, for the kinds of work that agentmux itself knows.

The payload of any other kind belongs to its executor and is not looked at. Nothing here runs
anything; a new kind is a function and a line of `_KINDS`.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, cast

from engine.parsing.checks import (
    argument,
    environment_name,
    line_of_text,
    mapping,
    number,
    sequence,
    show,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine.parsing.checks import Check, Findings, Place

DEFAULT_KIND = "noop"

_KIND = line_of_text(longest=200)
_NOOP: Mapping[str, Check] = {
    "kind": _KIND,
    "seconds": number(low=0),
    "fail_attempts": whole(low=0, high=1000),
}
_COMMAND = argument(empty=False, longest=100_000)
_FOLDER = argument(empty=False, longest=4096)
_SHELL: Mapping[str, Check] = {
    "kind": _KIND,
    "cmd": _COMMAND,
    "argv": sequence,
    "cwd": _FOLDER,
    "repoPath": _FOLDER,
    "env": mapping,
}
_ARGUMENT = argument(longest=100_000)
_OURS = frozenset(
    f"AGENTMUX_{name}" for name in ("TASK_ID", "RUN_ID", "WORKER_ID", "ATTEMPT", "STATE_DIR")
)
"""A run is found again by these; a DAG that set them could hide its processes."""


def check_payload(payload: Mapping[str, object], place: Place, findings: Findings) -> None:
    """Note everything that the executor of this payload's kind could not work with."""
    kind = payload.get("kind", DEFAULT_KIND)
    if findings.check(kind, _KIND, (*place, "kind")):
        check = _KINDS.get(cast("str", kind))
        if check is not None:
            check(payload, place, findings)


def _check_noop(payload: Mapping[str, object], place: Place, findings: Findings) -> None:
    findings.check_fields(payload, _NOOP, place)


def _check_shell(payload: Mapping[str, object], place: Place, findings: Findings) -> None:
    findings.check_fields(payload, _SHELL, place)
    if "cmd" in payload and "argv" in payload:
        findings.add((*place, "argv"), "stands beside cmd; keep one of them")
    elif "cmd" not in payload and "argv" not in payload:
        findings.add(place, "has nothing to run; give cmd (a line of text) or argv (a list)")
    if "cwd" in payload and "repoPath" in payload:
        findings.add((*place, "repoPath"), "is another name for cwd; keep one of them")
    command, argv, env = payload.get("cmd"), payload.get("argv"), payload.get("env")
    if isinstance(command, str) and _COMMAND(command) is None:
        _check_command(command, (*place, "cmd"), findings)
    if isinstance(argv, list):
        _check_argv(argv, (*place, "argv"), findings)
    if isinstance(env, dict):
        _check_env(env, (*place, "env"), findings)


def _check_command(command: str, place: Place, findings: Findings) -> None:
    try:
        words = shlex.split(command)
    except ValueError as error:
        reason = str(error).lower().replace("quotation", "quotation mark")
        findings.add(place, f"cannot be split into words: {reason}")
        return
    if not words or not words[0]:
        findings.add(place, f"names no program: {show(command)}")


def _check_argv(argv: list[object], place: Place, findings: Findings) -> None:
    if not argv:
        findings.add(place, "must not be empty; its first item is the program")
    for index, word in enumerate(argv):
        rule = _ARGUMENT if index else _COMMAND
        findings.check(word, rule, (*place, index))


def _check_env(env: Mapping[str, object], place: Place, findings: Findings) -> None:
    for name, value in env.items():
        if name in _OURS:
            findings.add((*place, name), "is set by agentmux for every run; choose another name")
        elif findings.check(name, environment_name, (*place, name)):
            findings.check(value, _ARGUMENT, (*place, name))


_KINDS: Mapping[str, Callable[[Mapping[str, object], Place, Findings], None]] = {
    "noop": _check_noop,
    "shell": _check_shell,
}
