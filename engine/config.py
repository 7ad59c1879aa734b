"""The operator's settings (agentmux.yaml): their defaults, their rules, and how they are read.

It knows nothing of what the settings are used for. A new setting is a field of Config and a
line of `_RULES` (or a table of its own, like `shell`).
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from engine.parsing.checks import Findings, line_of_text, mapping, number, sequence, yes_or_no

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from engine.parsing.checks import Check, Place
    from engine.parsing.yamlfile import Document

SETTINGS = "agentmux.yaml"
_SMALL = 65536
"""Bytes: what is quicker looked through than parsed."""
HARMLESS = (
    "basename",
    "cat",
    "date",
    "dirname",
    "echo",
    "false",
    "head",
    "ls",
    "printf",
    "pwd",
    "seq",
    "sleep",
    "tail",
    "test",
    "true",
    "uname",
    "wc",
    "whoami",
)
"""What a shell task may run unless the operator says otherwise: nothing here writes a file,
starts another program or reaches the network. (hostname asks the name server; env, xargs and
find start programs; sort and tee write.)"""


class ShellConfig(Struct, frozen=True):
    """What shell tasks may run: names of programs, compared with the first word of a command."""

    allow: tuple[str, ...] = HARMLESS


class ScreenConfig(Struct, frozen=True):
    """What a dashboard does until its user says otherwise.

    `bell` rings for what needs somebody, `title` writes into the terminal's title bar, `toasts`
    tell what just ended. `ascii`: draw with ASCII alone; None leaves that to the locale.
    """

    bell: bool = True
    title: bool = True
    toasts: bool = True
    ascii: bool | None = None


class Config(Struct, frozen=True):
    """The settings. All durations are seconds.

    `lease` is how long a claim holds without renewal, `renew` the time between renewals,
    `heartbeat` the time between signs of life, `stale_after` the silence after which a worker
    is shown as stale, `grace` the time between SIGTERM and SIGKILL. `keys` are the keys that
    actions of the dashboard get instead of their own; which of both there are, it says itself.
    """

    lease: float = 600.0
    renew: float = 60.0
    heartbeat: float = 5.0
    stale_after: float = 15.0
    grace: float = 5.0
    shell: ShellConfig = field(default_factory=ShellConfig)
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    screen: ScreenConfig = field(default_factory=ScreenConfig)


_DURATION = number(above=0)
_RULES: Mapping[str, Check] = {
    "lease": _DURATION,
    "renew": _DURATION,
    "heartbeat": _DURATION,
    "stale_after": _DURATION,
    "grace": _DURATION,
}
_LESS = (("renew", "lease"), ("heartbeat", "stale_after"))
"""The first of each pair must be less than the second, or every claim or worker would lapse."""

_PROGRAM = line_of_text(longest=4096)
_KEY = line_of_text(longest=64)
_SWITCHES: Mapping[str, Check] = {
    "bell": yes_or_no,
    "title": yes_or_no,
    "toasts": yes_or_no,
    "ascii": yes_or_no,
}


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
    findings.check_keys(value, {*_RULES, "shell", "keys", "screen"}, ())
    settings: dict[str, Any] = {
        name: float(value[name])
        for name, rule in _RULES.items()
        if name in value and findings.check(value[name], rule, (name,))
    }
    _compare(value, settings, findings)
    if "shell" in value:
        settings["shell"] = _shell(value["shell"], findings)
    if "keys" in value:
        settings["keys"] = _keys(value["keys"], findings)
    if "screen" in value:
        settings["screen"] = _screen(value["screen"], findings)
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


def _shell(value: object, findings: Findings) -> ShellConfig:
    if not isinstance(value, dict):
        findings.check(value, mapping, ("shell",))
        return ShellConfig()
    findings.check_keys(value, {"allow"}, ("shell",))
    if "allow" not in value:
        return ShellConfig()
    allow = value["allow"]
    if not isinstance(allow, list):
        findings.check(allow, sequence, ("shell", "allow"))
        return ShellConfig()
    for index, program in enumerate(allow):
        findings.check(program, _PROGRAM, ("shell", "allow", index))
    return ShellConfig(tuple(dict.fromkeys(item for item in allow if isinstance(item, str))))


def _keys(value: object, findings: Findings) -> dict[str, tuple[str, ...]]:
    """Return the keys of each action as the file has them: one, or a list."""
    if not isinstance(value, dict):
        findings.check(value, mapping, ("keys",))
        return {}
    keys: dict[str, tuple[str, ...]] = {}
    for action, wanted in value.items():
        if action.startswith("x-"):
            continue
        listed = wanted if isinstance(wanted, list) else [wanted]
        for index, key in enumerate(listed):
            place = ("keys", action, index) if isinstance(wanted, list) else ("keys", action)
            findings.check(key, _KEY, place)
        keys[action] = tuple(key for key in listed if isinstance(key, str))
    return keys


def _screen(value: object, findings: Findings) -> ScreenConfig:
    if not isinstance(value, dict):
        findings.check(value, mapping, ("screen",))
        return ScreenConfig()
    findings.check_fields(value, _SWITCHES, ("screen",))
    return ScreenConfig(
        **{name: value[name] for name in _SWITCHES if isinstance(value.get(name), bool)}
    )
