"""The sections of the settings, each read into its struct: what is wrong is noted, the rest kept.

A section has a table of its plain values; what is more than a value (a command, variables) has a
function of its own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from engine.config.fields import (
    LINE,
    check_url,
    entries,
    fields,
    headers,
    read_command,
    texts,
    variables,
    words,
)
from engine.config.settings import (
    AgentConfig,
    ApiConfig,
    GithubConfig,
    McpServer,
    Prices,
    ScreenConfig,
    ShellConfig,
    WorktreeConfig,
)
from engine.parsing.checks import (
    DAY,
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

FORMATS = ("claude", "codex", "gemini", "text")
"""How the output of an agent's CLI can be read."""
HOLES = ("workspace", "gitdir", "admin", "model", "prompt")
"""What stands in braces for something else in the command of an agent; see engine.agents.clis."""
PROMPT = "{prompt}"
"""Where the prompt goes in a command that takes it as an argument."""

_MONEY = number(above=0, high=1_000_000)
_PRICE = number(low=0, high=1_000_000)
_AGENT = name_of("an agent")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}")
_HOST = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*"
)
"""A name or an address, as it stands in a URL; one of IPv6 without its brackets."""
_IN_BRACES = re.compile(r"(?<![${])\{([A-Za-z_]+)\}(?!\})")

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
    "folder": LINE,
    "keep": whole(low=0, high=1_000_000),
    "days": number(low=0, high=3650),
}
_SERVER: Mapping[str, Check] = {
    "command": lambda _value: None,
    "env": mapping,
    "cwd": LINE,
    "url": LINE,
    "headers": mapping,
}
_GITHUB: Mapping[str, Check] = {
    "repo": LINE,
    "agent": _AGENT,
    "label": line_of_text(longest=50),
    "every": number(low=5, high=DAY),
    "comment": yes_or_no,
}
_API: Mapping[str, Check] = {
    "host": LINE,
    "port": whole(low=0, high=65535),
    "hosts": sequence,
}
_SCREEN: Mapping[str, Check] = {
    "bell": yes_or_no,
    "title": yes_or_no,
    "toasts": yes_or_no,
    "ascii": yes_or_no,
}


def read_shell(value: object, place: Place, findings: Findings) -> ShellConfig:
    """Read `shell:`."""
    found = fields(value, _SHELL, place, findings)
    for name in ("allow", "env_pass"):
        if name in found:
            found[name] = texts(found[name], (*place, name), findings)
    return ShellConfig(**found)


def read_agents(value: object, place: Place, findings: Findings) -> dict[str, AgentConfig]:
    """Read `agents:`, an entry for each agent or CLI."""
    agents = {}
    for name, item in entries(value, place, findings):
        findings.check(name, _AGENT, (*place, name))
        agents[name] = _agent(item, (*place, name), findings)
    return agents


def _agent(value: object, place: Place, findings: Findings) -> AgentConfig:
    found = fields(value, _AGENTS, place, findings)
    if "command" in found:
        found["command"] = read_command(found["command"], (*place, "command"), findings)
        _check_holes(found["command"], (*place, "command"), findings)
        takes = any(PROMPT in word for word in found["command"])
        if found.get("prompt") == "argv" and found["command"] and not takes:
            findings.add((*place, "command"), f"has no {PROMPT}, and the prompt goes there (argv)")
        elif found.get("prompt") != "argv" and takes:
            findings.add((*place, "command"), f"has {PROMPT}; say `prompt: argv` beside it")
    if "args" in found:
        found["args"] = words(found["args"], (*place, "args"), findings)
        _check_holes(found["args"], (*place, "args"), findings)
    if "env" in found:
        found["env"] = variables(found["env"], (*place, "env"), findings)
    if "env_pass" in found:
        found["env_pass"] = texts(found["env_pass"], (*place, "env_pass"), findings)
    if "prices" in found:
        prices = fields(found["prices"], _PRICES, (*place, "prices"), findings)
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
    return WorktreeConfig(**fields(value, _WORKTREES, place, findings))


def read_mcp(value: object, place: Place, findings: Findings) -> dict[str, McpServer]:
    """Read `mcp:`, an entry for each server."""
    servers = {}
    for name, item in entries(value, place, findings):
        findings.check(name, name_of("a server"), (*place, name))
        servers[name] = _server(item, (*place, name), findings)
    return servers


def _server(value: object, place: Place, findings: Findings) -> McpServer:
    found = fields(value, _SERVER, place, findings)
    if "command" in found:
        found["command"] = read_command(found["command"], (*place, "command"), findings)
    if "env" in found:
        found["env"] = variables(found["env"], (*place, "env"), findings)
    if "headers" in found:
        found["headers"] = headers(found["headers"], (*place, "headers"), findings)
    url = found.get("url")
    if ("command" in found) == (url is not None):
        findings.add(place, "needs either a command (stdio) or a url (streamable HTTP)")
    else:
        check_url(url, (*place, "url"), findings)
    return McpServer(**found)


def read_github(value: object, place: Place, findings: Findings) -> GithubConfig | None:
    """Read `github:`."""
    found = fields(value, _GITHUB, place, findings)
    if missing := [name for name in ("repo", "agent") if name not in found]:
        if isinstance(value, dict) and not any(name in value for name in missing):
            findings.add(place, f"has no {' and no '.join(missing)}")
        return None
    if not _REPO.fullmatch(found["repo"]):
        findings.add((*place, "repo"), f"must be owner/name, not {show(found['repo'])}")
    return GithubConfig(**found)


def read_api(value: object, place: Place, findings: Findings) -> ApiConfig:
    """Read `api:`."""
    found = fields(value, _API, place, findings)
    if "hosts" in found:
        at = (*place, "hosts")
        found["hosts"] = texts(found["hosts"], at, findings)
        for index, host in enumerate(found["hosts"]):
            if not _HOST.fullmatch(host):
                findings.add((*at, index), f"{show(host)} is no name or address, without port")
    return ApiConfig(**found)


def read_screen(value: object, place: Place, findings: Findings) -> ScreenConfig:
    """Read `screen:`."""
    return ScreenConfig(**fields(value, _SCREEN, place, findings))


def read_keys(value: object, place: Place, findings: Findings) -> dict[str, tuple[str, ...]]:
    """Return the keys of each action as the file has them: one, or a list."""
    keys: dict[str, tuple[str, ...]] = {}
    key_check = line_of_text(longest=64)
    for action, wanted in entries(value, place, findings):
        listed = wanted if isinstance(wanted, list) else [wanted]
        for index, key in enumerate(listed):
            at = (*place, action, index) if isinstance(wanted, list) else (*place, action)
            findings.check(key, key_check, at)
        keys[action] = tuple(key for key in listed if isinstance(key, str))
    return keys
