"""What a task of kind `mcp-call` asks for, read from its payload and the settings.

Servers are the operator's word (agentmux.yaml), never the DAG's. A `${NAME}` in their variables,
headers and urls stands for a variable of agentmux's own environment, so that no secret need stand
in a file. Starts nothing, reaches nobody and knows no protocol.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from msgspec import Struct, field

from engine.executors.programs import Program, Refused, find_program, inherited
from engine.secrets import fill, named_in, names_secret, redact
from engine.text import ELLIPSIS, clean_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from engine.config import McpServer

PASSED = ("LOGNAME", "SHELL", "TERM", "USER")
"""What a server inherits beside ALWAYS_PASSED. The protocol's own clients pass as little on: a
server is somebody else's program, and has no business with the keys of the agents."""

_TELLING = re.compile("auth|cookie|credential|session", re.IGNORECASE)
"""What a header, or a field of a url, has in its name that logs one in, beside other secrets."""
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t -~]*")
_LONGEST = 1000
"""Characters of somebody else's words in an error."""
_ROOM = 20 * _LONGEST
_CLOSE, _SOME = 3, 8


class Fault(Exception):  # noqa: N818 - never leaves the executors; becomes Outcome FAILED
    """The call went wrong; the text says what the server did.

    `closed`: it is the end of the connection that says so. `said`: the text is the server's own.
    """

    def __init__(self, text: str, *, closed: bool = False, said: bool = False) -> None:
        self.closed, self.said = closed, said
        super().__init__(text)


class Call(Struct, frozen=True):
    """What is asked of a server: a tool, with arguments."""

    server: str
    tool: str
    arguments: Mapping[str, Any]


class Server(Struct, frozen=True):
    """How a server is reached: it is a `program` on stdio, or else at a `url`.

    `secrets` are the variables whose values must not be told, by names that say so.
    """

    name: str
    program: Program | None = None
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)

    def hide(self, text: str) -> str:
        """Return somebody else's words as a part of an error: one line, harmless, no secret."""
        text = text[:_ROOM]  # of a message of many megabytes
        shown = redact(clean_text(redact(text, self.secrets)), self.secrets).strip()
        return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + ELLIPSIS


def read_call(payload: Mapping[str, Any]) -> Call:
    """Return what a payload asks for.

    Raises:
        Refused: the payload is no good.

    """
    name, tool = payload.get("server"), payload.get("tool")
    arguments = payload.get("arguments", {})
    if not isinstance(name, str) or not isinstance(tool, str):
        raise Refused("payload: needs the names of a server and of a tool; mend the DAG")
    if not isinstance(arguments, dict):
        raise Refused("payload.arguments: must be a mapping of names to values; mend the DAG")
    return Call(name, tool, arguments)


def read_server(
    name: str, servers: Mapping[str, McpServer], environ: Mapping[str, str], project: Path
) -> Server:
    """Return how a server is reached. Looks for its program: not for the event loop.

    Raises:
        Refused: there is no such server, or what its settings name is not there.

    """
    settings = servers.get(name)
    if settings is None:
        raise Refused(
            f"no MCP server is called '{clean_text(name)}'{_instead(name, servers)}; add it under "
            "mcp: in agentmux.yaml, then retry the task"
        )
    place = f"mcp.{name}"
    env = _filled(settings.env, environ, f"{place}.env")
    headers = _filled(settings.headers, environ, f"{place}.headers")
    headers = {key: _header(key, value, place) for key, value in headers.items()}
    url = _filled({"url": settings.url or ""}, environ, place)["url"]
    secrets = {key: value for key, value in {**environ, **env}.items() if names_secret(key)}
    for text in (*settings.headers.values(), settings.url or ""):
        secrets |= _secrets_in_holes(text, environ)
    for key, value in headers.items():
        secrets |= _secrets_of_header(key, value)
    if settings.url is not None:
        secrets |= _secrets_of_url(url, place)
        return Server(name, url=url, headers=headers, secrets=secrets)
    if not settings.command:
        raise Refused(f"{place}: needs a command or a url; mend agentmux.yaml")
    variables = inherited(PASSED, environ) | env
    word, *arguments = settings.command
    found = find_program(word, project, variables.get("PATH", ""))
    if found is None:
        raise Refused(
            f"{place}.command: '{clean_text(word)}' was not found on this machine; install it or "
            "mend agentmux.yaml, then retry the task"
        )
    program = Program((found, *arguments), _folder(settings.cwd, project, place), variables)
    return Server(name, program=program, secrets=secrets)


def no_such_tool(tool: str, names: Iterable[str], server: str) -> str:
    """Say that a server lacks a tool, and which is meant perhaps."""
    return (
        f"the MCP server '{server}' has no tool '{clean_text(tool)}'{_instead(tool, names)}; "
        "mend payload.tool, then retry"
    )


def _instead(wanted: str, names: Iterable[str]) -> str:
    """Name what comes closest, else some of what there is."""
    known = sorted(names)
    close = difflib.get_close_matches(wanted, known, n=_CLOSE, cutoff=0.5)
    if close:
        return f" (is it {' or '.join(clean_text(name)[:100] for name in close)}?)"
    if not known:
        return " (there is none)"
    more = f" and {len(known) - _SOME} more" if len(known) > _SOME else ""
    return f" (there is {', '.join(clean_text(name)[:100] for name in known[:_SOME])}{more})"


def _filled(values: Mapping[str, str], environ: Mapping[str, str], place: str) -> dict[str, str]:
    """Return the values with each `${NAME}` replaced."""
    filled = {}
    for key, value in values.items():
        try:
            filled[key] = fill(value, environ)
        except KeyError as error:
            raise Refused(
                f"{place}.{key}: the variable {error.args[0]} is not set; set it where agentmux is "
                "started, then retry the task"
            ) from error
    return filled


def _header(key: str, value: str, place: str) -> str:
    """Return a header's value as it can be sent. An error never tells it: it may be a secret."""
    value = value.strip()  # a variable that was read from a file ends with its line
    if not _HEADER.fullmatch(key):
        raise Refused(f"{place}.headers.{clean_text(key)}: cannot name a header; mend it")
    if not _HEADER_VALUE.fullmatch(value):
        raise Refused(
            f"{place}.headers.{key}: holds what no header can, a line end or a character beyond "
            "ASCII; mend it or the variable in it, then retry the task"
        )
    return value


def _secrets_in_holes(written: str, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what came from the environment, by a name that says that it is a secret."""
    for name in named_in(written):
        yield (name if names_secret(name) else f"secret {name}"), environ[name]


def _secrets_of_header(key: str, value: str) -> Iterator[tuple[str, str]]:
    """Yield what logs one in; of `Bearer abc` a server may tell the second word alone."""
    if _TELLING.search(key) or names_secret(key):
        yield f"secret {key}", value
        yield f"secret of {key}", value.rpartition(" ")[2]
        if key.lower() == "cookie":
            for number, pair in enumerate(value.split(";")):
                yield f"secret {number} of {key}", pair.partition("=")[2]


def _secrets_of_url(url: str, place: str) -> Iterator[tuple[str, str]]:
    """Yield the password of a url, and the fields of its query that log one in."""
    parts = _parts_of(url)
    if parts is None:
        raise Refused(f"{place}.url: is no address; mend it in agentmux.yaml, then retry the task")
    yield "secret of the url", parts.password or ""
    for key, value in parse_qsl(parts.query):
        if _TELLING.search(key) or names_secret(key):
            yield f"secret {key}", value


def _parts_of(url: str) -> SplitResult | None:
    """Return the parts of a url, None if it is none."""
    try:
        parts = urlsplit(url)
        whole = bool(parts.hostname) and url.isprintable() and (parts.port or 1) > 0
    except ValueError:  # its words tell the url, and that may hold a secret
        return None
    return parts if whole else None


def _folder(cwd: str | None, project: Path, place: str) -> Path:
    if cwd is None:
        return project
    folder = project / cwd
    if not folder.is_dir():
        raise Refused(
            f"{place}.cwd: {clean_text(str(folder))} is not a folder; make it or mend "
            "agentmux.yaml, then retry the task"
        )
    return folder
