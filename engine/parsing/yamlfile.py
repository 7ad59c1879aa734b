"""Reads YAML into plain values (dict, list, str, int, float, bool, None), or says what is wrong.

Built on the parser's events: a fifth of the time of `yaml.load`, and room for refusals that it
does not know (duplicate keys, alias bombs, deep nesting). Scalars mean what they mean to
`yaml.SafeLoader`, but dates stay text: JSON has none. Lines are not kept while reading; only
when something is wrong is the text walked again to find them.

It knows nothing of DAGs or settings.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Any

import yaml
from msgspec import Struct

from engine.errors import Problem, StorageError, ValidationError
from engine.parsing.yamlnodes import MOST_TEXT, Builder, Events, Refused, find_lines, write_place

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from engine.parsing.checks import Findings

LARGEST_FILE = MOST_TEXT
"""Bytes."""
MOST_PROBLEMS = 100
"""Problems that are listed; of the rest only the number is told."""

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Not the complement of what is allowed: a range of all other characters takes 4 ms to compile.
_UNREADABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff\ufffe\uffff]"
)


class Document(Struct, frozen=True):
    """A file that could be parsed. `problems` are the reader's own; `refuse` reports them too."""

    value: object
    source: str
    data: bytes
    problems: tuple[Problem, ...] = ()

    def refuse(self, findings: Findings) -> None:
        """Raise ValidationError with all that the reader and its caller found, in line order.

        Returns if nothing was found.
        """
        if not self.problems and not findings.items:
            return
        wanted = {finding.place for finding in findings.items}
        wanted |= {finding.other for finding in findings.items if finding.other is not None}
        lines = find_lines(_PARSER(self.data), wanted)
        problems = list(self.problems)
        known = {(problem.line, problem.field) for problem in problems}
        for finding in findings.items:
            line, where = lines[finding.place], write_place(finding.place)
            # The reader put None where it refused a value; that None is not a second fault.
            if (line, where) in known:
                continue
            message = finding.message
            if finding.other is not None:
                message += f" {lines[finding.other]}"
            problems.append(Problem(line, where, message))
        raise refusal(self.source, problems)


def refusal(source: str, problems: Iterable[Problem]) -> ValidationError:
    """Make the error that names the file and lists its problems by line, at most 100 of them."""
    ordered = sorted(problems, key=lambda problem: problem.line)
    count = len(ordered)
    listed = ordered[:MOST_PROBLEMS]
    if count > MOST_PROBLEMS:
        listed.append(Problem(0, "", f"and {count - MOST_PROBLEMS:,} more"))
    return ValidationError(
        f"{source} has {count:,} problem{'s' if count != 1 else ''}; nothing was changed:",
        tuple(listed),
    )


def read_text(path: Path) -> str:
    """Read a file of at most 64 MiB of UTF-8.

    Raises:
        FileNotFoundError: it is not there; what that means is the caller's to say.
        ValidationError: it is too large, or not UTF-8.
        StorageError: it cannot be read.

    """
    try:
        # Opening a pipe would wait for its writer; O_NONBLOCK means nothing to a real file.
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise StorageError(f"{path} is not a file; name a YAML file instead")
            data = b"" if status.st_size > LARGEST_FILE else file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise
    except IsADirectoryError as error:
        raise StorageError(f"{path} is a folder; name a YAML file instead") from error
    except OSError as error:
        raise StorageError(
            f"cannot read {path}: {error.strerror}; check its permissions"
        ) from error
    if max(status.st_size, len(data)) > LARGEST_FILE:
        raise refusal(str(path), [_too_large()])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = Problem(line, "", f"is not UTF-8 (byte 0x{data[error.start]:02X})")
        raise refusal(str(path), [problem]) from error


def parse_yaml(text: str, source: str) -> Document:
    """Parse one YAML document. `source` names it in errors. An empty text is None.

    Raises:
        ValidationError: the text cannot be read to its end. What can be read but is refused
            (a duplicate key, say) is left in `problems`, to be reported with all the rest.

    """
    text = text.removeprefix("\ufeff")
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise refusal(source, [_unreadable(text, error.start)]) from error
    if len(data) > LARGEST_FILE:
        raise refusal(source, [_too_large()])
    problems: list[Problem] = []
    try:
        value = _build(data, len(text), problems)
    except Refused as error:
        raise refusal(source, [*problems, error.problem]) from error
    except yaml.MarkedYAMLError as error:
        raise refusal(source, [*problems, _syntax(error)]) from error
    except yaml.reader.ReaderError as error:
        found = _UNREADABLE.search(text)
        problem = _unreadable(text, found.start() if found else error.position)
        raise refusal(source, [*problems, problem]) from error
    return Document(value, source, data, tuple(problems))


def _build(data: bytes, size: int, problems: list[Problem]) -> object:
    events: Events = _PARSER(data)
    try:
        return Builder(events, size, problems).document()
    finally:
        events.dispose()


def _too_large() -> Problem:
    return Problem(0, "", f"is larger than {LARGEST_FILE // 2**20} MiB; split the file")


def _unreadable(text: str, at: int) -> Problem:
    character = f" (U+{ord(text[at]):04X})" if at < len(text) else ""
    line = text.count("\n", 0, at) + 1
    return Problem(line, "", f"holds a character that YAML does not allow{character}")


def _syntax(error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    context = error.context
    if context and error.context_mark:
        context += f" that begins on line {error.context_mark.line + 1}"
    message = ", ".join(part for part in (context, error.problem) if part) or "cannot be read"
    return Problem(mark.line + 1 if mark else 0, "", f"not valid YAML: {message}")
