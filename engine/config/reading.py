"""How the settings file is found and read: every problem at once, each with line and field."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

from engine.config import sections, services, watch
from engine.config.fields import read_command
from engine.config.settings import Config
from engine.parsing.checks import Findings, mapping, number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from engine.parsing.checks import Check, Place
    from engine.parsing.yamlfile import Document

SETTINGS = "agentmux.yaml"
_SMALL = 65536
"""Bytes: what is quicker looked through than parsed."""

_DURATION = number(above=0)
_RULES: Mapping[str, Check] = {
    "lease": _DURATION,
    "renew": _DURATION,
    "heartbeat": _DURATION,
    "stale_after": _DURATION,
    "grace": _DURATION,
    "budget": number(above=0, high=1_000_000),
}
_SECTIONS: Mapping[str, Callable[[object, Place, Findings], Any]] = {
    "setup": read_command,
    "shell": sections.read_shell,
    "agents": sections.read_agents,
    "worktrees": sections.read_worktrees,
    "mcp": sections.read_mcp,
    "github": sections.read_github,
    "watch": watch.read_watch,
    "alerts": watch.read_alerts,
    "services": services.read_services,
    "api": sections.read_api,
    "keys": sections.read_keys,
    "screen": sections.read_screen,
}
_LESS = (("renew", "lease"), ("heartbeat", "stale_after"))
"""The first of each pair must be less than the second, or every claim or worker would lapse."""


def settings_file(project: Path, state_dir: Path) -> Path:
    """Return where the settings are: in the project's folder, else beside the state folder."""
    here = project / SETTINGS
    return here if here.exists() else state_dir.absolute().parent / SETTINGS


def load_config(
    path: Path,
    also: Callable[[Config], Iterable[tuple[Place, str]]] = lambda _config: (),
    *,
    only: Iterable[str] = (),
) -> Config:
    """Read the settings; a file that is not there means the defaults.

    `also` returns what else is wrong with them, which only their user can tell: places in the
    file, and what is wrong there. It gets what is good of a file that has other problems, so that
    all of them are told at once. `only`: what is wanted, if it is not all; a file that does not so
    much as name any of these is not parsed, and so not checked either. That is for whoever is in a
    hurry: the parser takes as long to import as half the dashboard.

    Raises:
        ValidationError: with every problem of the file, each with line and field.
        StorageError: the file is there and cannot be read.

    """
    try:
        if only and not _may_name(path, only):
            return Config()
        document = _parsed(path)
    except FileNotFoundError:
        return Config()
    findings = Findings()
    config = Config(**_settings(document.value, findings))
    # What is wrong in itself already needs no second complaint.
    for place, message in [one for one in also(config) if not findings.has(one[0])]:
        findings.add(place, message)
    document.refuse(findings)
    return config


def _may_name(path: Path, names: Iterable[str]) -> bool:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _SMALL:
            return True
        data = path.read_bytes()
    except OSError:
        return True  # whoever reads it in earnest says what is wrong with it
    # An escape, or characters of two bytes, can write a name without its letters side by side.
    return b"\\" in data or b"\0" in data or any(name.encode() in data for name in names)


def _parsed(path: Path) -> Document:
    if not path.exists():
        raise FileNotFoundError(path)  # and no start pays for a parser that has nothing to do
    from engine.parsing.yamlfile import parse_yaml, read_text  # noqa: PLC0415

    return parse_yaml(read_text(path), str(path))


def _settings(value: object, findings: Findings) -> dict[str, Any]:
    """Return the keyword arguments for Config, as far as they are good."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        findings.check(value, mapping, ())
        return {}
    findings.check_keys(value, {*_RULES, *_SECTIONS}, ())
    settings: dict[str, Any] = {
        name: float(value[name])
        for name, rule in _RULES.items()
        if name in value and findings.check(value[name], rule, (name,))
    }
    _compare(value, settings, findings)
    for name, read in _SECTIONS.items():
        if name in value:
            settings[name] = read(value[name], (name,), findings)
    return settings


def _compare(value: Mapping[str, object], good: Mapping[str, float], findings: Findings) -> None:
    defaults = Config()
    for small, large in _LESS:
        if any(name in value and name not in good for name in (small, large)):
            continue  # one of them is wrong in itself; that is the problem to mend first
        low, high = (good.get(name, getattr(defaults, name)) for name in (small, large))
        if low < high:
            continue
        said = {name: "" if name in value else ", the default" for name in (small, large)}
        findings.add(
            (small if small in value else large,),
            f"{small} ({low:g}{said[small]}) must be less than {large} ({high:g}{said[large]})",
        )
