"""The sections of the settings, each read into its struct: what is wrong is noted, the rest kept.

A section has a table of its plain values; what is more than a value (a command, variables) has a
function of its own.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any, TypeVar

from engine.config.settings import (
    AgentConfig,
    GithubConfig,
    McpServer,
    Prices,
    ScreenConfig,
    ShellConfig,
    WorktreeConfig,
)
from engine.parsing.checks import (
    DAY,
    argument,
    environment_name,
    line_of_text,
    mapping,
    name_of,
    number,
    one_of,
    sequence,
    show,
    whole,
    yes_or_no,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.parsing.checks import Check, Findings, Place

S = TypeVar("S")

FORMATS = ("claude", "codex", "gemini", "text")
"""How the output of an agent's CLI can be read."""
HOLES = ("workspace", "gitdir", "admin", "model", "prompt")
"""What stands in braces for something else in the command of an agent; see engine.agents.clis."""
PROMPT = "{prompt}"
"""Where the prompt goes in a command that takes it as an argument."""

_LINE = line_of_text(longest=4096)
_ARGUMENT = argument(longest=100_000)
_HEADER_VALUE = line_of_text(longest=100_000)
_PROGRAM = argument(empty=False, longest=4096)
_MONEY = number(above=0, high=1_000_000)
_PRICE = number(low=0, high=1_000_000)
_AGENT = name_of("an agent")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}")
_IN_BRACES = re.compile(r"(?<![${])\{([A-Za-z_]+)\}(?!\})")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""https://www.rfc-editor.org/rfc/rfc9110#name-tokens"""

_SHELL: Mapping[str, Check] = {
    "allow": sequence,
    "env_pass": sequence,
    "max_output": whole(low=4096, high=2**40),
}
_AGENTS: Mapping[str, Check] = {
    "command": lambda _value: None,
    "args": sequence,
    "prompt": one_of("stdin", "argv"),
    "format": one_of(*FORMATS),
    "env": mapping,
    "env_pass": sequence,
    "budget": _MONEY,
    "prices": mapping,
}
_PRICES: Mapping[str, Check] = {"input": _PRICE, "output": _PRICE, "cached": _PRICE}
_WORKTREES: Mapping[str, Check] = {
    "folder": _LINE,
    "keep": whole(low=0, high=1_000_000),
    "days": number(low=0, high=3650),
}
_SERVER: Mapping[str, Check] = {
    "command": lambda _value: None,
    "env": mapping,
    "cwd": _LINE,
    "url": _LINE,
    "headers": mapping,
}
_GITHUB: Mapping[str, Check] = {
    "repo": _LINE,
    "agent": _AGENT,
    "label": line_of_text(longest=50),
    "every": number(low=5, high=DAY),
    "comment": yes_or_no,
}
_SCREEN: Mapping[str, Check] = {
    "bell": yes_or_no,
    "title": yes_or_no,
    "toasts": yes_or_no,
    "ascii": yes_or_no,
}


def read_shell(value: object, place: Place, findings: Findings) -> ShellConfig:
    """Read `shell:`."""
    found = _fields(value, _SHELL, place, findings)
    for name in ("allow", "env_pass"):
        if name in found:
            found[name] = _texts(found[name], (*place, name), findings)
    return ShellConfig(**found)


def read_agents(value: object, place: Place, findings: Findings) -> dict[str, AgentConfig]:
    """Read `agents:`, an entry for each agent or CLI."""
    agents = {}
    for name, item in _entries(value, place, findings):
        findings.check(name, _AGENT, (*place, name))
        agents[name] = _agent(item, (*place, name), findings)
    return agents


def _agent(value: object, place: Place, findings: Findings) -> AgentConfig:
    found = _fields(value, _AGENTS, place, findings)
    if "command" in found:
        found["command"] = read_command(found["command"], (*place, "command"), findings)
        _check_holes(found["command"], (*place, "command"), findings)
        takes = any(PROMPT in word for word in found["command"])
        if found.get("prompt") == "argv" and found["command"] and not takes:
            findings.add((*place, "command"), f"has no {PROMPT}, and the prompt goes there (argv)")
        elif found.get("prompt") != "argv" and takes:
            findings.add((*place, "command"), f"has {PROMPT}; say `prompt: argv` beside it")
    if "args" in found:
        found["args"] = _words(found["args"], (*place, "args"), findings)
        _check_holes(found["args"], (*place, "args"), findings)
    if "env" in found:
        found["env"] = _variables(found["env"], (*place, "env"), findings)
    if "env_pass" in found:
        found["env_pass"] = _texts(found["env_pass"], (*place, "env_pass"), findings)
    if "prices" in found:
        prices = _fields(found["prices"], _PRICES, (*place, "prices"), findings)
        if missing := [name for name in ("input", "output") if name not in prices]:
            findings.add((*place, "prices"), f"has no {' and no '.join(missing)}")
            del found["prices"]
        else:
            found["prices"] = Prices(**prices)
    return AgentConfig(**found)


def _check_holes(words: tuple[str, ...], place: Place, findings: Findings) -> None:
    """Note what looks like a hole and is none: the program would get it as it stands there."""
    for word in words:
        for hole in _IN_BRACES.finditer(word):
            if hole[1] not in HOLES:
                known = ", ".join(f"{{{name}}}" for name in HOLES)
                findings.add(
                    place,
                    f"has {hole[0]}, which stands for nothing; there are {known}; a space in it "
                    f"({{ {hole[1]} }}) leaves it to the program",
                )


def read_worktrees(value: object, place: Place, findings: Findings) -> WorktreeConfig:
    """Read `worktrees:`."""
    return WorktreeConfig(**_fields(value, _WORKTREES, place, findings))


def read_mcp(value: object, place: Place, findings: Findings) -> dict[str, McpServer]:
    """Read `mcp:`, an entry for each server."""
    servers = {}
    for name, item in _entries(value, place, findings):
        findings.check(name, name_of("a server"), (*place, name))
        servers[name] = _server(item, (*place, name), findings)
    return servers


def _server(value: object, place: Place, findings: Findings) -> McpServer:
    found = _fields(value, _SERVER, place, findings)
    if "command" in found:
        found["command"] = read_command(found["command"], (*place, "command"), findings)
    if "env" in found:
        found["env"] = _variables(found["env"], (*place, "env"), findings)
    if "headers" in found:
        found["headers"] = _headers(found["headers"], (*place, "headers"), findings)
    url = found.get("url")
    if ("command" in found) == (url is not None):
        findings.add(place, "needs either a command (stdio) or a url (streamable HTTP)")
    elif url is not None and not re.match(r"https?://\S+\Z", url):
        findings.add((*place, "url"), "must begin with http:// or https://")  # it may hold a login
    return McpServer(**found)


def read_github(value: object, place: Place, findings: Findings) -> GithubConfig | None:
    """Read `github:`."""
    found = _fields(value, _GITHUB, place, findings)
    if missing := [name for name in ("repo", "agent") if name not in found]:
        if isinstance(value, dict) and not any(name in value for name in missing):
            findings.add(place, f"has no {' and no '.join(missing)}")
        return None
    if not _REPO.fullmatch(found["repo"]):
        findings.add((*place, "repo"), f"must be owner/name, not {show(found['repo'])}")
    return GithubConfig(**found)


def read_screen(value: object, place: Place, findings: Findings) -> ScreenConfig:
    """Read `screen:`."""
    return ScreenConfig(**_fields(value, _SCREEN, place, findings))


def read_keys(value: object, place: Place, findings: Findings) -> dict[str, tuple[str, ...]]:
    """Return the keys of each action as the file has them: one, or a list."""
    keys: dict[str, tuple[str, ...]] = {}
    key_check = line_of_text(longest=64)
    for action, wanted in _entries(value, place, findings):
        listed = wanted if isinstance(wanted, list) else [wanted]
        for index, key in enumerate(listed):
            at = (*place, action, index) if isinstance(wanted, list) else (*place, action)
            findings.check(key, key_check, at)
        keys[action] = tuple(key for key in listed if isinstance(key, str))
    return keys


def read_command(value: object, place: Place, findings: Findings) -> tuple[str, ...]:
    """Read a command: a list of words, or a line that is split as a shell would split it."""
    if isinstance(value, str):
        try:
            words = shlex.split(value)
        except ValueError as error:
            findings.add(place, f"cannot be split into words: {str(error).lower()}")
            return ()
    elif isinstance(value, list):
        words = list(_words(value, place, findings))
    else:
        findings.add(place, f"must be a line of text or a list, not {show(value)}")
        return ()
    if not words or not words[0]:
        findings.add(place, "names no program")
        return ()
    return tuple(words)


def _fields(
    value: object, rules: Mapping[str, Check], place: Place, findings: Findings
) -> dict[str, Any]:
    """Return what is good of a mapping."""
    if not isinstance(value, dict):
        findings.check(value, mapping, place)
        return {}
    findings.check_fields(value, rules, place)
    return {
        name: value[name] for name, rule in rules.items() if name in value and not rule(value[name])
    }


def _entries(value: object, place: Place, findings: Findings) -> list[tuple[str, object]]:
    """Return the entries of a mapping whose keys are names."""
    if not isinstance(value, dict):
        findings.check(value, mapping, place)
        return []
    return [(name, item) for name, item in value.items() if not name.startswith("x-")]


def _texts(value: list[object], place: Place, findings: Findings) -> tuple[str, ...]:
    """Return the lines of text of a list, each once."""
    for index, item in enumerate(value):
        findings.check(item, _LINE, (*place, index))
    return tuple(dict.fromkeys(item for item in value if isinstance(item, str)))


def _words(value: list[object], place: Place, findings: Findings) -> tuple[str, ...]:
    """Return a command's words."""
    for index, item in enumerate(value):
        findings.check(item, _ARGUMENT if index else _PROGRAM, (*place, index))
    return tuple(item for item in value if isinstance(item, str))


def _variables(value: dict[object, object], place: Place, findings: Findings) -> dict[str, str]:
    """Return names and values of an environment."""
    return _secrets(value, environment_name, _ARGUMENT, place, findings)


def _headers(value: dict[object, object], place: Place, findings: Findings) -> dict[str, str]:
    """Return names and values of headers."""
    return _secrets(value, _header_name, _HEADER_VALUE, place, findings)


def _header_name(value: object) -> str | None:
    if isinstance(value, str) and _HEADER.fullmatch(value):
        return None
    return f"{show(value)} cannot name a header"


def _secrets(
    value: dict[object, object], name_rule: Check, rule: Check, place: Place, findings: Findings
) -> dict[str, str]:
    """Return names and values that may be secret: what is wrong with one is told without it."""
    found = {}
    for name, item in value.items():
        at = (*place, str(name))
        if not findings.check(name, name_rule, at):
            continue
        if not isinstance(item, str):
            findings.add(at, "must be text; put it in quotes")
        elif findings.check(item, rule, at):
            found[str(name)] = item
    return found
