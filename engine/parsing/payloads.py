"""What the payload of a task may hold, for the kinds of work that agentmux itself knows.

The payload of any other kind belongs to its executor and is not looked at. Nothing here runs
anything; a new kind is a function and a line of `_KINDS`, and has a word in `normal_payload` if
several forms of its payload mean the same.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any, cast

from engine.parsing import workspaces
from engine.parsing.checks import (
    Findings,
    argument,
    environment_name,
    line_of_text,
    mapping,
    name_of,
    number,
    sequence,
    show,
    whole,
)
from engine.parsing.prompts import TASK_FIELDS, find_faults
from engine.secrets import names_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from engine.parsing.checks import Check, Place

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
    "ok_codes": sequence,
}
_CODE = whole(low=0, high=255)
_PROMPT = argument(empty=False, longest=1_000_000)
_AGENT: Mapping[str, Check] = {
    "kind": _KIND,
    "prompt": _PROMPT,
    "promptFile": _FOLDER,
    "workspace": lambda _value: None,
    "cli": name_of("a CLI"),
    "model": line_of_text(longest=200),
    "expect": lambda _value: None,
}
_EXPECTED = ("commit", "pull-request")
_MCP: Mapping[str, Check] = {
    "kind": _KIND,
    "server": name_of("a server"),
    "tool": line_of_text(longest=200),
    "arguments": mapping,
}
_ARGUMENT = argument(longest=100_000)
_OURS = frozenset(
    f"AGENTMUX_{name}" for name in ("TASK_ID", "RUN_ID", "WORKER_ID", "ATTEMPT", "STATE_DIR")
)
"""A run is found again by these; a DAG that set them could hide its processes."""
_LOADERS = ("LD_", "DYLD_", "GCONV_", "GIT_CONFIG", "BASH_FUNC_")
_POWERS = frozenset(
    {
        "PATH", "ENV", "BASH_ENV", "SHELLOPTS", "PROMPT_COMMAND", "PYTHONPATH", "PYTHONHOME",
        "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONBREAKPOINT", "PERL5LIB", "PERL5OPT", "PERL5DB",
        "PERLLIB", "RUBYLIB", "RUBYOPT", "NODE_OPTIONS", "NODE_PATH", "LUA_INIT", "OPENSSL_CONF",
        "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "RUSTC_WRAPPER", "SSH_ASKPASS",
        "GIT_EXEC_PATH", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_PROXY_COMMAND",
        "GIT_EXTERNAL_DIFF", "GIT_TEMPLATE_DIR", "GIT_PAGER", "GIT_EDITOR", "GIT_SEQUENCE_EDITOR",
        "PAGER", "MANPAGER", "LESSOPEN", "LESSCLOSE", "EDITOR", "VISUAL", "BROWSER",
    }
)  # fmt: skip
"""Variables by which an allowed program runs what is not allowed."""


def check_payload(
    payload: Mapping[str, object], place: Place, findings: Findings, deps: Collection[str] = ()
) -> None:
    """Note everything that the executor of this payload's kind could not work with.

    `deps` are those of its task, which a prompt or a folder may name.
    """
    kind = payload.get("kind", DEFAULT_KIND)
    if findings.check(kind, _KIND, (*place, "kind")):
        check = _KINDS.get(cast("str", kind))
        if check is not None:
            check(payload, place, findings)
        for name, fields in _HOLES.get(cast("str", kind), {}).items():
            text = payload.get(name)
            for fault in find_faults(text, deps, fields) if isinstance(text, str) else ():
                findings.add((*place, name), fault)


def why_not_set(name: str) -> str | None:
    """Say why a shell task may not set this variable; None if it may."""
    if name in _OURS:
        return "is set by agentmux for every run; choose another name"
    if name in _POWERS or name.startswith(_LOADERS):
        return (
            "may not be set by a task, for by it an allowed program runs others; set it where "
            "agentmux is started"
        )
    if names_secret(name):
        return (
            "looks like a secret, and a DAG is stored: set it where agentmux is started, from "
            "there it is inherited"
        )
    return None


def normal_payload(payload: Mapping[str, Any], defaults: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a checked payload in the one form that its executor reads.

    `defaults` are those of the DAG: its `workspace` is that of every agent without one.
    """
    if payload["kind"] != "agent":
        return payload
    wanted = payload.get("workspace", defaults.get("workspace"))
    workspace = workspaces.normalise(wanted, (), Findings(), os.environ)
    rest = {key: value for key, value in payload.items() if key != "workspace"}
    return {**rest, "workspace": workspace} if workspace else rest


def check_workspace(value: object, place: Place, findings: Findings) -> None:
    """Note what is wrong with a workspace."""
    workspaces.normalise(value, place, findings, os.environ)


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
    codes = payload.get("ok_codes")
    if isinstance(codes, list):
        for index, code in enumerate(codes):
            findings.check(code, _CODE, (*place, "ok_codes", index))
        if not codes:
            findings.add((*place, "ok_codes"), "must not be empty: no code would be a success")


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
        if why := why_not_set(str(name)):
            findings.add((*place, name), why)
        elif findings.check(name, environment_name, (*place, name)):
            findings.check(value, _ARGUMENT, (*place, name))


def _check_agent(payload: Mapping[str, object], place: Place, findings: Findings) -> None:
    findings.check_fields(payload, _AGENT, place)
    if "prompt" in payload and "promptFile" in payload:
        findings.add((*place, "promptFile"), "stands beside prompt; keep one of them")
    elif "prompt" not in payload and "promptFile" not in payload:
        findings.add(place, "has nothing to say to the agent; give prompt or promptFile")
    if "workspace" in payload:
        check_workspace(payload["workspace"], (*place, "workspace"), findings)
    if "expect" in payload:
        _check_expected(payload["expect"], (*place, "expect"), findings)


def _check_expected(value: object, place: Place, findings: Findings) -> None:
    if isinstance(value, dict):
        findings.check_fields(value, {"file": _FOLDER}, place)
        path = value.get("file")
        if "file" not in value:
            findings.add(place, "names no file; give `file: path`, commit or pull-request")
        elif isinstance(path, str) and (path.startswith("/") or ".." in path.split("/")):
            findings.add((*place, "file"), "must lie in the worktree: no / in front and no ..")
    elif value not in _EXPECTED:
        findings.add(place, f"must be commit, pull-request or `file: path`, not {show(value)}")


def _check_mcp(payload: Mapping[str, object], place: Place, findings: Findings) -> None:
    findings.check_fields(payload, _MCP, place)
    for name in ("server", "tool"):
        if name not in payload:
            findings.add(place, f"has no {name}")


_KINDS: Mapping[str, Callable[[Mapping[str, object], Place, Findings], None]] = {
    "noop": _check_noop,
    "shell": _check_shell,
    "agent": _check_agent,
    "mcp-call": _check_mcp,
}
_HOLES: Mapping[str, Mapping[str, Collection[str]]] = {
    "agent": {"prompt": TASK_FIELDS},
    "shell": {"cwd": (), "repoPath": ()},
}
"""Where results of deps may be named, and which fields of the task beside them."""
