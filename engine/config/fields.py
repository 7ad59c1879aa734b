"""What the sections of the settings are made of: fields, lists, commands, variables, URLs.

Each reader returns what is good of a value, and notes what is not.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from engine.parsing.checks import argument, environment_name, line_of_text, mapping, show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.parsing.checks import Check, Findings, Place

LINE = line_of_text(longest=4096)

_ARGUMENT = argument(longest=100_000)
_HEADER_VALUE = line_of_text(longest=100_000)
_PROGRAM = argument(empty=False, longest=4096)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""https://www.rfc-editor.org/rfc/rfc9110#name-tokens"""


def read_command(value: object, place: Place, findings: Findings) -> tuple[str, ...]:
    """Read a command: a list of words, or a line that is split as a shell would split it."""
    if isinstance(value, str):
        try:
            argv = shlex.split(value)
        except ValueError as error:
            findings.add(place, f"cannot be split into words: {str(error).lower()}")
            return ()
    elif isinstance(value, list):
        argv = list(words(value, place, findings))
    else:
        findings.add(place, f"must be a line of text or a list, not {show(value)}")
        return ()
    if not argv or not argv[0]:
        findings.add(place, "names no program")
        return ()
    return tuple(argv)


def fields(
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


def entries(value: object, place: Place, findings: Findings) -> list[tuple[str, object]]:
    """Return the entries of a mapping whose keys are names."""
    if not isinstance(value, dict):
        findings.check(value, mapping, place)
        return []
    return [(name, item) for name, item in value.items() if not name.startswith("x-")]


def texts(value: list[object], place: Place, findings: Findings) -> tuple[str, ...]:
    """Return the lines of text of a list, each once."""
    for index, item in enumerate(value):
        findings.check(item, LINE, (*place, index))
    return tuple(dict.fromkeys(item for item in value if isinstance(item, str)))


def words(value: list[object], place: Place, findings: Findings) -> tuple[str, ...]:
    """Return a command's words."""
    for index, item in enumerate(value):
        findings.check(item, _ARGUMENT if index else _PROGRAM, (*place, index))
    return tuple(item for item in value if isinstance(item, str))


def variables(value: dict[object, object], place: Place, findings: Findings) -> dict[str, str]:
    """Return names and values of an environment."""
    return _secrets(value, environment_name, _ARGUMENT, place, findings)


def headers(value: dict[object, object], place: Place, findings: Findings) -> dict[str, str]:
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


def check_url(url: str | None, place: Place, findings: Findings) -> None:
    """Note what is no URL of HTTP."""
    if url is not None and not re.match(r"https?://\S+\Z", url):
        findings.add(place, "must begin with http:// or https://")  # it may hold a login
